//! A store beside the pure rules: every step is done by both, and their answers must be the same.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use usher::lease::account::{Account, Effects, Ground};
use usher::lease::bucket::{Bucket, Step, Upkeep};
use usher::lease::model::{
    Acquire, Acquired, Beaten, Decided, Decision, Entry, Fence, Fenced, Generation, Heartbeat, Held, Holding,
    Millis, NotNow, Order, Progress, Renewed, Resume, Resumed, Standing, Switch, Switched,
};
use usher::lease::store::{Audited, NodeLease, Store, StoreError};
use usher::protocol::close::EndCode;
use usher::protocol::id::{AccountKey, OwnerId, SessionId};

/// The life of the reference's data; that of the store is put in its place where answers are compared.
const LIFE: Generation = Generation(7);

/// Both clocks are read one after the other.
const APART: Millis = 2_000;

/// A store and a bucket of the pure rules, held side by side. Only this one account is compared; the bucket holds
/// nothing else.
pub(super) struct Twin {
    store: Arc<dyn Store>,
    account: AccountKey,
    generation: Generation,
    /// Whoever asks for the time, of another bucket.
    witness: OwnerId,
    rules: Mutex<Bucket>,
}

impl Twin {
    /// The store as it is now: nobody has a lease in the account's bucket but those who renew from now on.
    pub(super) async fn new(store: Arc<dyn Store>, account: AccountKey, witness: OwnerId) -> Self {
        let renewed = store.renew(store.bucket(&account), witness).await.unwrap();
        let mut rules = Bucket::open(&step(renewed.now));
        rules.renew(witness, &step(renewed.now), &mut Upkeep::new());
        Self {
            generation: renewed.generation,
            store,
            account,
            witness,
            rules: Mutex::new(rules),
        }
    }

    pub(super) async fn now(&self) -> Millis {
        let other = (self.bucket(&self.account) + 1) % self.buckets();
        self.store.renew(other, self.witness).await.unwrap().now
    }

    /// The account as the rules have it.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let rules = self.lock();
        let entries = rules
            .account(&self.account)
            .map(|account| account.entries().to_vec());
        entries
            .unwrap_or_default()
            .into_iter()
            .map(|entry| self.here(entry))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same step by the rules.
    async fn expected<T>(&self, rule: impl FnOnce(&mut Account, &Ground<'_>, &mut Effects) -> T) -> T {
        let now = self.now().await;
        let mut effects = Effects::default();
        self.lock().step(&self.account, &step(now), &mut effects, rule)
    }

    /// An entry of the reference as the store has it.
    fn here(&self, mut entry: Entry) -> Entry {
        if entry.generation == LIFE {
            entry.generation = self.generation;
        }
        entry
    }

    /// What the reference is asked when the store is asked this.
    fn there(&self, holding: &Holding) -> Holding {
        let mut holding = holding.clone();
        if holding.generation == self.generation {
            holding.generation = LIFE;
        }
        holding
    }

    pub(super) fn assert_alike(&self, ours: &[Entry], expected: &[Entry]) {
        let timeless = |entries: &[Entry]| {
            let timeless = |entry: &Entry| Entry {
                started_at: 0,
                checkpoint: 0,
                settles: 0,
                progress: Progress {
                    watched_ms: 0,
                    ..entry.progress
                },
                ..entry.clone()
            };
            entries.iter().map(timeless).collect::<Vec<_>>()
        };
        assert_eq!(timeless(ours), timeless(expected));
        for (ours, expected) in ours.iter().zip(expected) {
            assert!(
                ours.started_at.abs_diff(expected.started_at) < APART,
                "{ours:?}: {expected:?}"
            );
            assert!(
                ours.checkpoint.abs_diff(expected.checkpoint) < APART,
                "{ours:?}: {expected:?}"
            );
            assert!(
                ours.progress.watched_ms.abs_diff(expected.progress.watched_ms) < APART,
                "{ours:?}: {expected:?}"
            );
            assert!(
                ours.settles.abs_diff(expected.settles) < APART,
                "{ours:?}: {expected:?}"
            );
        }
    }
}

fn step(now: Millis) -> Step {
    Step {
        now,
        server: 0,
        fresh: LIFE,
        halves: (0, 0),
    }
}

/// The reasons of both; that a bucket opens at a certain time is never one here.
fn assert_same<T: Debug + PartialEq>(ours: &Result<T, StoreError>, expected: &Result<T, NotNow>) {
    let expected = expected.as_ref().map_err(|reason| StoreError::NotNow(*reason));
    assert_eq!(ours.as_ref().map_err(|error| *error), expected);
}

#[async_trait]
impl Store for Twin {
    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn buckets(&self) -> u16 {
        self.store.buckets()
    }

    async fn renew(&self, bucket: u16, owner: OwnerId) -> Result<Renewed, StoreError> {
        let mut ours = self.store.renew(bucket, owner).await?;
        ours.marked.sort();
        if bucket == self.bucket(&self.account) {
            let mut expected = self.lock().renew(owner, &step(ours.now), &mut Upkeep::new());
            assert_eq!(expected.generation, LIFE);
            expected.generation = self.generation;
            expected.marked.sort();
            assert_eq!(ours, expected);
        }
        Ok(ours)
    }

    async fn acquire(&self, account: &AccountKey, request: &Acquire) -> Result<Acquired, StoreError> {
        let expected = self
            .expected(|table, ground, effects| table.acquire(request, ground, effects))
            .await;
        let ours = self.store.acquire(account, request).await;
        match (&ours, expected) {
            (
                Ok(Acquired::Denied {
                    refused,
                    refusal,
                    holders,
                    line_open,
                    limit,
                }),
                Ok(Acquired::Denied {
                    refused: also_refused,
                    refusal: by,
                    holders: expected,
                    line_open: also_open,
                    limit: also_limit,
                }),
            ) => {
                assert_eq!((*refused, refusal, *line_open), (also_refused, &by, also_open));
                assert_eq!(*limit, also_limit);
                let expected: Vec<_> = expected.into_iter().map(|entry| self.here(entry)).collect();
                self.assert_alike(holders, &expected);
            }
            (
                Ok(Acquired::Granted {
                    used,
                    replaced,
                    generation,
                    started_at,
                    limit,
                    shadowed,
                }),
                Ok(Acquired::Granted {
                    used: also_used,
                    replaced: also_replaced,
                    generation: life,
                    started_at: about,
                    limit: also_limit,
                    shadowed: also_shadowed,
                }),
            ) => {
                assert_eq!(*limit, also_limit);
                assert_eq!(
                    (*used, *replaced, shadowed),
                    (also_used, also_replaced, &also_shadowed)
                );
                assert_eq!((*generation, life), (self.generation, LIFE));
                assert!(started_at.abs_diff(about) < APART, "{started_at}, not {about}");
            }
            (_, expected) => assert_same(&ours, &expected),
        }
        ours
    }

    async fn resume(&self, account: &AccountKey, request: &Resume) -> Result<Resumed, StoreError> {
        let expected = self
            .expected(|table, ground, effects| table.resume(request, ground, effects))
            .await;
        let ours = self.store.resume(account, request).await;
        match (&ours, expected) {
            (
                Ok(Resumed::Moved { entry, used, limit }),
                Ok(Resumed::Moved {
                    entry: expected,
                    used: also_used,
                    limit: also_limit,
                }),
            ) => {
                assert_eq!((*used, *limit), (also_used, also_limit));
                self.assert_alike(std::slice::from_ref(entry), &[self.here(expected)]);
            }
            (_, expected) => assert_same(&ours, &expected),
        }
        ours
    }

    async fn switch(&self, account: &AccountKey, request: &Switch) -> Result<Switched, StoreError> {
        let expected = self
            .expected(|table, ground, effects| table.switch(request, ground, effects))
            .await;
        let ours = self.store.switch(account, request).await;
        assert_same(&ours, &expected);
        ours
    }

    async fn release(
        &self,
        account: &AccountKey,
        holding: &Holding,
        code: EndCode,
    ) -> Result<Fenced, StoreError> {
        let there = self.there(holding);
        let expected = self
            .expected(|table, ground, effects| table.release(&there, code, ground, effects))
            .await;
        let ours = self.store.release(account, holding, code).await;
        assert_same(&ours, &Ok(expected));
        ours
    }

    async fn order(&self, account: &AccountKey, order: Order) -> Result<Fenced, StoreError> {
        let expected = self
            .expected(|table, ground, effects| table.order(order, ground, effects))
            .await;
        let ours = self.store.order(account, order).await;
        assert_same(&ours, &expected);
        ours
    }

    async fn decide(&self, account: &AccountKey, decision: Decision) -> Result<Decided, StoreError> {
        let expected = self
            .expected(|table, ground, effects| table.decide(decision, ground, effects))
            .await;
        let ours = self.store.decide(account, decision).await;
        assert_same(&ours, &Ok(expected));
        ours
    }

    async fn standing(&self, account: &AccountKey) -> Result<Standing, StoreError> {
        self.store.standing(account).await
    }

    async fn audit(
        &self,
        bucket: u16,
        owner: OwnerId,
        sessions: &[(AccountKey, Holding)],
    ) -> Result<Audited, StoreError> {
        let [(account, holding)] = sessions else {
            panic!("histories audit one session at a time");
        };
        assert_eq!(*account, self.account);
        let there = self.there(holding);
        let expected: Result<Held, _> = self
            .expected(|table, ground, effects| table.audit(&there, ground, effects))
            .await;
        let ours = self.store.audit(bucket, owner, sessions).await;
        let verdict = ours.clone().map(|audited| audited.verdicts[0].clone());
        assert_same(&verdict, &expected);
        ours
    }

    async fn beat(&self, bucket: u16, beats: &[(AccountKey, Heartbeat)]) -> Result<Vec<Beaten>, StoreError> {
        // The random histories have none: `store_twins` has.
        self.store.beat(bucket, beats).await
    }

    async fn owned(
        &self,
        bucket: u16,
        owner: OwnerId,
        after: Option<&(AccountKey, SessionId)>,
    ) -> Result<Vec<(AccountKey, Fence)>, StoreError> {
        assert!(after.is_none() && bucket == self.bucket(&self.account));
        let mut ours = self.store.owned(bucket, owner, after).await?;
        ours.sort_by_key(|(_, fence)| fence.session);
        let mut expected: Vec<_> = self.entries().iter().map(Entry::fence).collect();
        expected.retain(|fence| fence.owner == owner);
        expected.sort_by_key(|fence| fence.session);
        let expected: Vec<_> = expected
            .into_iter()
            .map(|fence| (self.account.clone(), fence))
            .collect();
        assert_eq!(ours, expected);
        Ok(ours)
    }

    async fn list(&self, account: &AccountKey) -> Result<Vec<Entry>, StoreError> {
        let ours = self.store.list(account).await?;
        self.assert_alike(&ours, &self.entries());
        Ok(ours)
    }

    async fn lives(&self, account: &AccountKey, session: SessionId) -> Result<bool, StoreError> {
        let ours = self.store.lives(account, session).await?;
        assert_eq!(ours, self.entries().iter().any(|entry| entry.is_held_by(session)));
        Ok(ours)
    }

    async fn accounts(&self, most: usize) -> Result<Vec<AccountKey>, StoreError> {
        let ours = self.store.accounts(most).await?;
        let expected: Vec<_> = if self.entries().is_empty() {
            vec![]
        } else {
            vec![self.account.clone()]
        };
        assert_eq!(ours, expected);
        Ok(ours)
    }

    async fn leases(&self, bucket: u16) -> Result<Vec<NodeLease>, StoreError> {
        self.store.leases(bucket).await
    }
}
