//! The sessions without a socket that this node heard last: what it takes to write them again when the store lost them,
//! and to count them.
//!
//! Owns: that memory, bounded and expiring. Does not: hold a slot; what it forgets lives on in the store.
//! Called by: `lone` with each heartbeat, and the lease service, which compares and mourns.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::lease::model::{Beat, Beaten, Device, Heartbeat, Holding, Millis};
use crate::lease::store::bucket_of;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, SessionId};
use crate::telemetry::{Counted, Metrics};

/// Sessions of one bucket; beyond it the one whose time is over first is forgotten.
const MOST: usize = 10_000;

/// A session that could not be compared is due again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// Sessions that were heard here, by bucket.
pub(super) struct Lones {
    buckets: Vec<Mutex<Known>>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    sessions: HashMap<SessionId, Lone>,
    /// When their time is over, by this node's clock.
    due: BTreeSet<(Instant, SessionId)>,
}

/// A session without a socket.
struct Lone {
    account: AccountKey,
    holding: Holding,
    /// Its end as the store said it: another value tells that somebody else heard it since.
    expires: Millis,
    due: Instant,
    /// When it was first heard here.
    since: Instant,
    ticket_due: Option<Instant>,
    _playing: [Counted; 2],
}

/// What the node knows of a session before a heartbeat.
pub(super) struct Memory {
    pub(super) holding: Holding,
    /// Whether its ticket lasts for a while.
    pub(super) has_ticket: bool,
}

impl Lones {
    pub(super) fn new(buckets: u16, metrics: Arc<Metrics>) -> Self {
        Self {
            buckets: (0..buckets.max(1)).map(|_| Mutex::default()).collect(),
            metrics,
        }
    }

    fn lock(&self, bucket: u16) -> MutexGuard<'_, Known> {
        let bucket = &self.buckets[usize::from(bucket) % self.buckets.len()];
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, account: &AccountKey) -> MutexGuard<'_, Known> {
        self.lock(bucket_of(
            account,
            u16::try_from(self.buckets.len()).unwrap_or(u16::MAX),
        ))
    }

    /// Tells of each session of a bucket that is watching now: its tenant, and its content.
    pub(super) fn watching(&self, bucket: u16, mut tell: impl FnMut(&Arc<str>, &Arc<str>)) {
        for lone in self.lock(bucket).sessions.values() {
            if lone.holding.state.is_watching() {
                tell(&lone.account.tenant, &lone.holding.content);
            }
        }
    }

    /// What is known of a session of this account.
    pub(super) fn recall(&self, account: &AccountKey, session: SessionId) -> Option<Memory> {
        let known = self.of(account);
        let lone = known
            .sessions
            .get(&session)
            .filter(|lone| lone.account == *account)?;
        Some(Memory {
            holding: lone.holding(),
            has_ticket: lone.ticket_due.is_some_and(|due| due > Instant::now()),
        })
    }

    /// The store confirmed a session: `holding` is what it is written with when it is lost.
    pub(super) fn keep(&self, account: &AccountKey, holding: Holding, expires: Millis) {
        let Some(period) = holding.period else {
            return;
        };
        let now = Instant::now();
        let due = now + Duration::from_millis(period);
        let session = holding.fence.session;
        let mut known = self.of(account);
        let known = &mut *known;
        if let Some(lone) = known.sessions.get_mut(&session) {
            known.due.remove(&(lone.due, session));
            (lone.holding, lone.expires, lone.due) = (holding, expires, due);
        } else {
            if known.sessions.len() >= MOST
                && let Some((_, oldest)) = known.due.pop_first()
            {
                known.sessions.remove(&oldest);
            }
            let lone = Lone {
                _playing: self
                    .metrics
                    .playing(&account.tenant, holding.device.plan.as_deref()),
                account: account.clone(),
                holding,
                expires,
                due,
                since: now,
                ticket_due: None,
            };
            known.sessions.insert(session, lone);
        }
        known.due.insert((due, session));
    }

    /// The session needs its next ticket then; none: with each heartbeat.
    pub(super) fn has_ticket(&self, account: &AccountKey, session: SessionId, until: Option<Instant>) {
        if let Some(lone) = self.of(account).sessions.get_mut(&session) {
            lone.ticket_due = until;
        }
    }

    /// The session is over, or somebody else's: `code` when it ended.
    pub(super) fn forget(&self, account: &AccountKey, session: SessionId, code: Option<EndCode>) {
        let mut known = self.of(account);
        let Some(lone) = known.sessions.remove(&session) else {
            return;
        };
        known.due.remove(&(lone.due, session));
        drop(known);
        if let Some(code) = code {
            self.metrics.sessions_ended_total.inc(code.name());
            let played = lone.since.elapsed();
            self.metrics
                .session_duration_seconds
                .observe(played.as_secs_f64());
            lone.log_end(code, played);
        }
    }

    /// Whose session this is.
    pub(super) fn account_of(&self, session: SessionId) -> Option<AccountKey> {
        let buckets = 0..u16::try_from(self.buckets.len()).unwrap_or(u16::MAX);
        let mut found =
            buckets.filter_map(|bucket| Some(self.lock(bucket).sessions.get(&session)?.account.clone()));
        found.next()
    }

    /// The sessions of a tenant that play this content.
    pub(super) fn playing(&self, tenant: &str, content: &str) -> Vec<(AccountKey, SessionId)> {
        let mut found = Vec::new();
        for bucket in 0..u16::try_from(self.buckets.len()).unwrap_or(u16::MAX) {
            let known = self.lock(bucket);
            let plays = |lone: &Lone| *lone.account.tenant == *tenant && *lone.holding.content == *content;
            let playing = known.sessions.iter().filter(|(_, lone)| plays(lone));
            found.extend(playing.map(|(session, lone)| (lone.account.clone(), *session)));
        }
        found
    }

    /// Every session of a bucket.
    pub(super) fn all(&self, bucket: u16) -> Vec<(AccountKey, Heartbeat)> {
        self.lock(bucket).sessions.values().map(Lone::question).collect()
    }

    /// Those whose time is over, at most so many.
    pub(super) fn due(&self, bucket: u16, most: usize) -> Vec<(AccountKey, Heartbeat)> {
        let now = Instant::now();
        let mut known = self.lock(bucket);
        let known = &mut *known;
        let over: Vec<_> = known
            .due
            .iter()
            .take_while(|(due, _)| *due <= now)
            .take(most)
            .copied()
            .collect();
        let mut questions = Vec::with_capacity(over.len());
        for (due, session) in over {
            known.due.remove(&(due, session));
            if let Some(lone) = known.sessions.get_mut(&session) {
                questions.push(lone.question());
                lone.due = now + AGAIN;
                known.due.insert((lone.due, session));
            }
        }
        questions
    }

    /// What the store says of one that was asked about.
    pub(super) fn compared(&self, account: &AccountKey, session: SessionId, verdict: &Beaten) {
        match verdict {
            Beaten::Lives { entry, .. } => {
                let mut known = self.of(account);
                let Some(lone) = known.sessions.get_mut(&session) else {
                    return;
                };
                let same = lone.expires == entry.expires.unwrap_or_default();
                // Written again by this very question: its time begins anew.
                let restored = lone.holding.generation != entry.generation;
                if restored {
                    let mut holding = lone.holding.clone();
                    holding.generation = entry.generation;
                    drop(known);
                    self.keep(account, holding, entry.expires.unwrap_or_default());
                } else if !same {
                    drop(known);
                    self.forget(account, session, None);
                }
            }
            Beaten::Later => {}
            Beaten::Stopped => self.forget(account, session, Some(EndCode::Stopped)),
            Beaten::Moved | Beaten::Foreign => self.forget(account, session, None),
            Beaten::Gone { code, .. } => {
                self.forget(account, session, Some(code.unwrap_or(EndCode::LeaseLost)));
            }
        }
    }
}

impl Lone {
    /// What it holds. After its time somebody else may have its slot.
    fn holding(&self) -> Holding {
        Holding {
            doubtful: self.due <= Instant::now(),
            ..self.holding.clone()
        }
    }

    fn question(&self) -> (AccountKey, Heartbeat) {
        let holding = self.holding();
        let beat = Heartbeat {
            session: holding.fence.session,
            device: None,
            period: holding.period.unwrap_or_default(),
            word: Beat::Silent,
            known: Some(holding),
        };
        (self.account.clone(), beat)
    }

    fn log_end(&self, code: EndCode, played: Duration) {
        let holding = &self.holding;
        let Device { id, .. } = &*holding.device;
        tracing::info!(
            session = %holding.fence.session,
            // As texts, which the log quotes and escapes: players choose them, line breaks included.
            tenant = &*self.account.tenant,
            account = &*self.account.account,
            device = &**id,
            content = &*holding.content,
            code = code.number(),
            reason = code.name(),
            duration_ms = crate::protocol::server::millis(played),
            position_ms = holding.progress.position_ms,
            watched_ms = holding.progress.watched_ms,
            "session without a socket ended"
        );
    }
}
