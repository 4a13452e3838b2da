//! The lease as the sockets of a node see it: every question is asked until there is an answer, or until it is
//! clear that the store is away.
//!
//! Owns: the node's leases in the buckets, repeating what went unanswered, and what happens without the store.
//! Does not: decide who may play (the store does, by the rules), or know a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::config::{Admit, Outage};
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId};
use crate::telemetry::Metrics;

use super::clock::{jitter, tick};
use super::ended::Ends;
use super::group::TermsOf;
use super::heartbeats::Heartbeats;
use super::locals::Locals;
use super::model::{
    Acquire, Acquired, Entry, Fenced, Generation, Held, Holding, Millis, NotNow, Resume, Resumed,
};
use super::store::{Store, StoreError};
use super::tenure::{OUTAGE, Tenure};

/// An undecided start stays silent for at most 6 s (interface section 2).
const PATIENCE: Duration = Duration::from_millis(5_800);

/// A strict node's recovery takes 17.5 s: its starts wait that much longer.
const STRICT_PATIENCE: Duration = Duration::from_secs(19);

/// Batches of sessions that a node has compared at once.
const AUDITS: usize = 4;

/// The lease service of a node.
pub struct Service {
    /// This process, as the store knows it.
    pub owner: OwnerId,
    pub(super) store: Arc<dyn Store>,
    pub(super) locals: Arc<dyn Locals>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) outage: Outage,
    pub(super) buckets: Vec<BucketState>,
    /// The node leaves: what it forgets stays in the store for whoever resumes it.
    pub(super) leaving: AtomicBool,
    /// Audits under way at once: renewals of other buckets, and of other nodes, pass between them.
    pub(super) audits: Semaphore,
}

/// What the service keeps of a bucket.
#[derive(Default)]
pub(super) struct BucketState {
    pub(super) tenure: Mutex<Tenure>,
    /// Rings when the next renewal is wanted at once.
    pub(super) wake: Notify,
    /// Renewals of a bucket are one after the other.
    pub(super) renewing: tokio::sync::Mutex<()>,
    /// Questions asked and answered: an odd one out tells that the count may differ for a moment.
    pub(super) asked: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) ends: Ends,
    pub(super) heartbeats: Heartbeats,
    /// The store's data are another installation's: nothing is granted beside them.
    pub(super) foreign: AtomicBool,
}

/// A question about an account, until it is dropped.
struct Asking<'a>(&'a BucketState);

impl<'a> Asking<'a> {
    fn begin(state: &'a BucketState) -> Self {
        state.asked.fetch_add(1, Ordering::AcqRel);
        Self(state)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::AcqRel);
    }
}

impl BucketState {
    pub(super) fn tenure(&self) -> MutexGuard<'_, Tenure> {
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// The service of a node; its leases begin with the first renewal.
    #[must_use]
    pub fn new(
        owner: OwnerId,
        store: Arc<dyn Store>,
        locals: Arc<dyn Locals>,
        outage: Outage,
        metrics: Arc<Metrics>,
    ) -> Self {
        let buckets = (0..store.buckets()).map(|_| BucketState::default()).collect();
        Self {
            owner,
            store,
            locals,
            metrics,
            outage,
            buckets,
            leaving: AtomicBool::new(false),
            audits: Semaphore::new(AUDITS),
        }
    }

    /// Whether the node may take players: it holds its lease in every bucket, by an answered write of its own, and
    /// none was recovering when it last asked.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let now = tick();
        self.buckets.iter().all(|bucket| {
            let tenure = bucket.tenure();
            let foreign = bucket.foreign.load(Ordering::Relaxed);
            tenure.is_trusted(now) && tenure.is_open() && !tenure.is_away(now) && !foreign
        })
    }

    /// Whether new starts of this account are refused because the store is away, or another installation's.
    #[must_use]
    pub fn is_refusing(&self, account: &AccountKey) -> bool {
        let state = self.state(account);
        let refuses = self.outage.strict || self.outage.admit == Admit::Refuse;
        state.foreign.load(Ordering::Relaxed) || refuses && state.tenure().is_away(tick())
    }

    /// Starts a session, or repeats the question of a waiter. `first`: whether a store that is away may be done
    /// without; who was told that the account is full may not come in by an outage.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nobody can tell.
    pub async fn acquire(
        &self,
        account: &AccountKey,
        request: &Acquire,
        first: bool,
    ) -> Result<Acquired, StoreError> {
        let since = self.state(account).tenure().since();
        let answer = self.ask(account, || self.store.acquire(account, request)).await;
        match answer {
            Ok(Acquired::Ended(EndCode::AccountBlocked)) => {
                self.locals.heard_blocked().add(account);
                answer
            }
            Ok(Acquired::Granted { generation, .. }) if !self.vouches(account, since, generation) => {
                let holding = Holding {
                    generation,
                    ..self.provisional(account, request)
                };
                self.confirm_late(account, &holding).await?;
                answer
            }
            Err(StoreError::Unavailable)
                if first && !self.outage.strict && self.outage.admit == Admit::Local =>
            {
                Ok(self.claim(account, request))
            }
            answer => answer,
        }
    }

    /// The answer took so long that others may have judged this node dead, or the data were lost meanwhile: whether
    /// what it told still stands (rule 4).
    async fn confirm_late(&self, account: &AccountKey, holding: &Holding) -> Result<(), StoreError> {
        self.renew(self.store.bucket(account)).await?;
        match self.audit_one(account, holding).await? {
            Held::Yours { .. } => Ok(()),
            _ => Err(StoreError::Unavailable),
        }
    }

    /// Grants what the node can see to be free.
    fn claim(&self, account: &AccountKey, request: &Acquire) -> Acquired {
        match self.locals.claim(account, &self.provisional(account, request)) {
            Ok(used) => Acquired::Granted {
                used,
                replaced: false,
                generation: Generation::NONE,
                started_at: self.clock(account),
                shadowed: Vec::new(),
                limit: None,
            },
            Err(denied) => *denied,
        }
    }

    fn provisional(&self, account: &AccountKey, request: &Acquire) -> Holding {
        Holding::new(request, Generation::NONE, self.clock(account))
    }

    /// The store's clock, estimated.
    fn clock(&self, account: &AccountKey) -> Millis {
        let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let estimated = self.state(account).tenure().clock(tick());
        estimated.unwrap_or_else(|| Millis::try_from(wall().as_millis()).unwrap_or_default())
    }

    /// Moves a session to another socket. `terms`: what it counts in from now on, which its device decides too.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nobody can tell.
    pub async fn resume(
        &self,
        account: &AccountKey,
        request: &Resume,
        terms: TermsOf<'_>,
    ) -> Result<Resumed, StoreError> {
        let ended = self.state(account).ends.epoch(request.session);
        let mut request = Resume {
            above: self.locals.epoch(account, request.session).max(ended),
            ..request.clone()
        };
        let since = self.state(account).tenure().since();
        // Found first, then moved from where it was found (rule 15). Whoever moves it meanwhile makes this repeat.
        for _ in 0..8 {
            let answer = self.ask(account, || self.store.resume(account, &request)).await;
            match answer {
                Ok(Resumed::At { epoch, device }) => {
                    request.expected = epoch;
                    request.terms = terms(&device);
                }
                Ok(Resumed::Moved { ref entry, .. }) if !self.vouches(account, since, entry.generation) => {
                    let holding = Holding::of(entry, request.limit, request.terms.clone());
                    self.confirm_late(account, &holding).await?;
                    return answer;
                }
                Err(StoreError::Unavailable) if self.outage.admit == Admit::Local => {
                    return Ok(self.move_here(account, &request, terms));
                }
                answer => return answer,
            }
        }
        Err(StoreError::Unavailable)
    }

    fn move_here(&self, account: &AccountKey, request: &Resume, terms: TermsOf<'_>) -> Resumed {
        let moved = self
            .locals
            .move_here(account, request.session, request.device.as_deref());
        moved.map_or(Resumed::Absent, |(holding, used)| {
            let terms = terms(&holding.device);
            let entry = Entry {
                content: Arc::clone(&request.content),
                groups: terms.keys(),
                exempt: terms.exempt,
                ..holding.entry(holding.generation, holding.started_at)
            };
            let limit = None;
            Resumed::Moved { entry, used, limit }
        })
    }

    /// Ends a session or a wait. What the store does not hear now it hears later.
    pub async fn release(&self, account: &AccountKey, holding: &Holding, code: EndCode) -> Fenced {
        let state = self.state(account);
        let away = state.tenure().is_away(tick());
        let answer = if away {
            Err(StoreError::Unavailable)
        } else {
            let release = || self.store.release(account, holding, code);
            self.ask(account, release).await
        };
        let told = answer.is_ok().then(|| state.tenure().generation());
        // What was never granted, and whose end was heard, is nothing that a store could lose.
        let matters = told.is_none() || holding.was_granted();
        if self.store.is_shared() && answer != Ok(Fenced::NotYours) && matters {
            let forgotten = state.ends.add(account, holding.clone(), code, told, tick());
            if forgotten {
                tracing::warn!("too many ends to remember for a store that is away: the oldest is forgotten");
            }
        }
        answer.unwrap_or(Fenced::Done)
    }

    /// Tells what became of a session, and checkpoints it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: an error is never absence.
    pub async fn audit_one(&self, account: &AccountKey, holding: &Holding) -> Result<Held, StoreError> {
        let bucket = self.store.bucket(account);
        let mut holding = holding.clone();
        holding.doubtful |= self.state(account).tenure().is_doubtful();
        let fence = holding.fence;
        let question = [(account.clone(), holding)];
        let audited = self
            .ask(account, || self.store.audit(bucket, self.owner, &question))
            .await?;
        let held = audited
            .verdicts
            .into_iter()
            .next()
            .ok_or(StoreError::Unavailable)?;
        self.count(&held);
        if matches!(held, Held::Yours { .. }) {
            self.locals.confirm(account, fence, audited.generation);
        }
        Ok(held)
    }

    /// Asks until there is an answer: renews the node's lease where that comes first, waits for a bucket that
    /// recovers, and repeats what went unanswered, which every question allows.
    pub(super) async fn ask<'q, T>(
        &self,
        account: &AccountKey,
        question: impl Fn() -> BoxFuture<'q, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let bucket = self.store.bucket(account);
        let state = &self.buckets[usize::from(bucket)];
        // Whatever the store last said, and not that it is away: nothing is granted without it then.
        let patience = if self.outage.strict {
            STRICT_PATIENCE
        } else {
            PATIENCE
        };
        let began = Instant::now();
        let deadline = began + patience;
        loop {
            if state.foreign.load(Ordering::Relaxed) {
                return Err(StoreError::NotNow(NotNow::RenewFirst));
            }
            let answer = if self.is_trusted(account) {
                let _asking = Asking::begin(state);
                question().await
            } else if state.tenure().is_away(tick()) {
                return Err(StoreError::Unavailable);
            } else {
                Err(StoreError::NotNow(NotNow::RenewFirst))
            };
            let pause = match answer {
                Err(StoreError::NotNow(NotNow::RenewFirst)) => {
                    if self.renew(bucket).await == Err(StoreError::Unavailable) && began.elapsed() >= OUTAGE {
                        return Err(StoreError::Unavailable);
                    }
                    Duration::from_millis(20)
                }
                Err(StoreError::NotNow(NotNow::Recovering { .. })) => {
                    // This node's own sessions come back first; no word comes when the others' have.
                    if state.tenure().is_open() {
                        state.tenure().surprised();
                        let _ = self.renew(bucket).await;
                    }
                    Duration::from_millis(100) + jitter(Duration::from_millis(150))
                }
                Err(StoreError::Unavailable) => {
                    if began.elapsed() >= OUTAGE || state.tenure().is_away(tick()) {
                        return Err(StoreError::Unavailable);
                    }
                    Duration::from_millis(20) + jitter(Duration::from_millis(80))
                }
                answer => return answer,
            };
            if Instant::now() + pause >= deadline {
                return answer;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn is_trusted(&self, account: &AccountKey) -> bool {
        !self.store.is_shared() || self.state(account).tenure().is_trusted(tick())
    }

    fn vouches(&self, account: &AccountKey, since: Millis, generation: Generation) -> bool {
        !self.store.is_shared() || self.state(account).tenure().vouches(tick(), since, generation)
    }

    pub(super) fn state(&self, account: &AccountKey) -> &BucketState {
        &self.buckets[usize::from(self.store.bucket(account))]
    }
}
