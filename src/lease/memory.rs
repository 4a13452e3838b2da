//! The store of a single node: the pure rules over maps in this process.
//!
//! A session is a connection, so a restart, which ends every connection, loses no slot (design section 4).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId, SessionId};

use super::account::{Account, Effects, Ground};
use super::bucket::{Bucket, Step, Upkeep};
use super::memory_journal::MemoryJournal;
use super::model::{
    Acquire, Acquired, Beaten, Decided, Decision, Entry, Fence, Fenced, Generation, Heartbeat, Holding,
    Millis, Order, Renewed, Resume, Resumed, Standing, Switch, Switched,
};
use super::standings::Standings;
use super::store::{Audited, Mailbox, NodeLease, Store, StoreError};

/// So many locks; a step is microseconds.
pub const BUCKETS: u16 = 32;

/// Slots in memory.
pub struct Memory {
    buckets: Vec<Mutex<Bucket>>,
    mailbox: Arc<dyn Mailbox>,
    /// Where operators' decisions outlive the process.
    standings: Option<Standings>,
    /// Where facts go; none: nobody reads them.
    journal: Option<Arc<MemoryJournal>>,
    /// The wall clock at the start, moved on by the monotonic clock: it never jumps.
    started: (SystemTime, Instant),
}

impl Memory {
    /// An empty store that sends word to `mailbox`.
    #[must_use]
    pub fn new(mailbox: Arc<dyn Mailbox>) -> Self {
        let mut store = Self {
            buckets: Vec::new(),
            mailbox,
            standings: None,
            journal: None,
            started: (SystemTime::now(), Instant::now()),
        };
        let step = store.now();
        store.buckets = (0..BUCKETS).map(|_| Mutex::new(Bucket::open(&step))).collect();
        store
    }

    /// The same, with what operators decided before in this file, and keeps what they decide there.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn keeping(mut self, file: PathBuf) -> io::Result<Self> {
        let standings = Standings::open(file)?;
        for (key, standing) in standings.known() {
            self.step(&key, |table, ground, effects| {
                if standing.blocked {
                    table.decide(Decision::Block, ground, effects);
                }
                let (limit, enforce) = (standing.limit, false);
                table.decide(Decision::Limit { limit, enforce }, ground, effects)
            });
            if standing.blocked {
                self.mailbox.blocked(&key);
            }
        }
        self.standings = Some(standings);
        Ok(self)
    }

    /// The same, with its facts kept in this journal.
    #[must_use]
    pub fn recording(self, journal: Arc<MemoryJournal>) -> Self {
        Self {
            journal: Some(journal),
            ..self
        }
    }

    /// Every session that is under way.
    #[must_use]
    pub fn plays(&self) -> Vec<(AccountKey, Entry)> {
        let mut found = Vec::new();
        for bucket in 0..BUCKETS {
            let bucket = self.lock(bucket);
            for (key, account) in bucket.accounts() {
                found.extend(account.entries().iter().map(|entry| (key.clone(), entry.clone())));
            }
        }
        found
    }

    /// The store's time.
    #[must_use]
    pub fn time(&self) -> Millis {
        self.now().now
    }

    fn now(&self) -> Step {
        let now = self.started.0 + self.started.1.elapsed();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Step {
            now: Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX),
            server: 0,
            // These data live exactly as long as this process.
            fresh: Generation(1),
            halves: (0, 0),
        }
    }

    fn lock(&self, bucket: u16) -> MutexGuard<'_, Bucket> {
        let bucket = &self.buckets[usize::from(bucket % BUCKETS)];
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one step of the rules on an account. Word goes out under the bucket's lock, so that two changes are
    /// told in their order.
    fn step<T>(
        &self,
        key: &AccountKey,
        rule: impl FnOnce(&mut Account, &Ground<'_>, &mut Effects) -> T,
    ) -> T {
        let mut bucket = self.lock(self.bucket(key));
        let used = |bucket: &Bucket| bucket.account(key).map_or(0, Account::used);
        let (before, mut effects) = (used(&bucket), Effects::default());
        let answer = bucket.step(key, &self.now(), &mut effects, rule);
        let after = used(&bucket);
        self.tell(key, &effects, (after != before).then_some(after));
        answer
    }

    fn tell(&self, key: &AccountKey, effects: &Effects, used: Option<u32>) {
        if let Some(journal) = &self.journal {
            journal.add(self.bucket(key), key, &effects.facts);
        }
        for look in &effects.looks {
            self.mailbox.look(key, look.owner, look.session);
        }
        if let Some(used) = used {
            self.mailbox.slots(key, used);
        }
    }
}

#[async_trait]
impl Store for Memory {
    fn is_shared(&self) -> bool {
        false
    }

    fn buckets(&self) -> u16 {
        BUCKETS
    }

    async fn renew(&self, bucket: u16, owner: OwnerId) -> Result<Renewed, StoreError> {
        let (mut bucket, mut upkeep) = (self.lock(bucket), Upkeep::new());
        let renewed = bucket.renew(owner, &self.now(), &mut upkeep);
        for (key, effects, used) in upkeep {
            self.tell(&key, &effects, used);
        }
        Ok(renewed)
    }

    async fn acquire(&self, account: &AccountKey, request: &Acquire) -> Result<Acquired, StoreError> {
        Ok(self.step(account, |table, ground, effects| {
            table.acquire(request, ground, effects)
        })?)
    }

    async fn resume(&self, account: &AccountKey, request: &Resume) -> Result<Resumed, StoreError> {
        Ok(self.step(account, |table, ground, effects| {
            table.resume(request, ground, effects)
        })?)
    }

    async fn switch(&self, account: &AccountKey, request: &Switch) -> Result<Switched, StoreError> {
        Ok(self.step(account, |table, ground, effects| {
            table.switch(request, ground, effects)
        })?)
    }

    async fn release(
        &self,
        account: &AccountKey,
        holding: &Holding,
        code: EndCode,
    ) -> Result<Fenced, StoreError> {
        Ok(self.step(account, |table, ground, effects| {
            table.release(holding, code, ground, effects)
        }))
    }

    async fn order(&self, account: &AccountKey, order: Order) -> Result<Fenced, StoreError> {
        Ok(self.step(account, |table, ground, effects| {
            table.order(order, ground, effects)
        })?)
    }

    async fn decide(&self, account: &AccountKey, decision: Decision) -> Result<Decided, StoreError> {
        let decided = self.step(account, |table, ground, effects| {
            table.decide(decision, ground, effects)
        });
        if let Some(standings) = &self.standings {
            standings.keep(account, decided.standing).await;
        }
        Ok(decided)
    }

    async fn standing(&self, account: &AccountKey) -> Result<Standing, StoreError> {
        let bucket = self.lock(self.bucket(account));
        Ok(bucket.account(account).map(Account::standing).unwrap_or_default())
    }

    async fn audit(
        &self,
        _bucket: u16,
        _owner: OwnerId,
        sessions: &[(AccountKey, Holding)],
    ) -> Result<Audited, StoreError> {
        let verdicts = sessions.iter().map(|(account, holding)| {
            self.step(account, |table, ground, effects| {
                let held = table.audit(holding, ground, effects)?;
                Ok((ground.generation, held))
            })
        });
        let verdicts: Vec<_> = verdicts.collect::<Result<_, StoreError>>()?;
        Ok(Audited {
            generation: verdicts
                .last()
                .map(|(generation, _)| *generation)
                .unwrap_or_default(),
            verdicts: verdicts.into_iter().map(|(_, held)| held).collect(),
        })
    }

    async fn beat(&self, _bucket: u16, beats: &[(AccountKey, Heartbeat)]) -> Result<Vec<Beaten>, StoreError> {
        let verdicts = beats.iter().map(|(account, beat)| {
            self.step(account, |table, ground, effects| {
                table.beat(beat, ground, effects)
            })
        });
        Ok(verdicts.collect())
    }

    async fn owned(
        &self,
        bucket: u16,
        owner: OwnerId,
        after: Option<&(AccountKey, SessionId)>,
    ) -> Result<Vec<(AccountKey, Fence)>, StoreError> {
        let bucket = self.lock(bucket);
        let all = bucket
            .accounts()
            .flat_map(|(key, account)| account.entries().iter().map(move |entry| (key, entry.fence())));
        let mut owned: Vec<_> = all.filter(|(_, fence)| fence.owner == owner).collect();
        owned.sort_unstable_by_key(|(key, fence)| (fence.session, *key));
        let later = |(key, fence): &(&AccountKey, Fence)| {
            after.is_none_or(|(account, session)| (fence.session, *key) > (*session, account))
        };
        let page = owned.into_iter().filter(later).take(100);
        Ok(page.map(|(key, fence)| (key.clone(), fence)).collect())
    }

    async fn list(&self, account: &AccountKey) -> Result<Vec<Entry>, StoreError> {
        let bucket = self.lock(self.bucket(account));
        let (now, entries) = (self.now().now, bucket.account(account).map(Account::entries));
        let living = entries.into_iter().flatten().filter(|entry| !entry.is_over(now));
        Ok(living.cloned().collect())
    }

    async fn lives(&self, account: &AccountKey, session: SessionId) -> Result<bool, StoreError> {
        let bucket = self.lock(self.bucket(account));
        let (now, entries) = (self.now().now, bucket.account(account).map(Account::entries));
        let held = |entry: &Entry| entry.is_held_by(session) && !entry.is_over(now);
        Ok(entries.is_some_and(|entries| entries.iter().any(held)))
    }

    async fn accounts(&self, most: usize) -> Result<Vec<AccountKey>, StoreError> {
        let mut found = Vec::new();
        for bucket in 0..BUCKETS {
            let bucket = self.lock(bucket);
            let playing = bucket
                .accounts()
                .filter(|(_, account)| !account.entries().is_empty());
            found.extend(playing.take(most - found.len()).map(|(key, _)| key.clone()));
        }
        Ok(found)
    }

    async fn leases(&self, bucket: u16) -> Result<Vec<NodeLease>, StoreError> {
        let (bucket, now) = (self.lock(bucket), self.now().now);
        let leases = bucket.leases().iter();
        Ok(leases
            .map(|(owner, lease)| NodeLease::new(*owner, now, lease.renewed, lease.until))
            .collect())
    }
}
