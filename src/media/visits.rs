//! Accesses: who fetched which file, for how long and how much of it.
//!
//! Owns: the accesses that are open on this node, and writing them down. Does not: count them (`statistics` does).
//! Called by: `delivery` with every response; a task writes twice a second, so that no viewer waits for the database.
//!
//! What a player fetches under one lease is one access, however many requests it takes, on however many nodes; what a
//! person fetches with an access token is one as long as it goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use crate::auth::Ticket;
use crate::db::{Db, DbError, Sql, Work};
use crate::telemetry::Metrics;

use super::file::{File, now};
use super::files::{month, signed};
use super::viewer::Viewer;

/// Accesses that are open at once; beyond them nothing is counted.
const MOST: usize = 200_000;

/// How often an open access is written again.
const CHECKPOINT: i64 = 60_000;

/// How often the lease of an access without a response is asked about.
const ASKED: i64 = 1500;

/// Statements of one transaction.
const BATCH: usize = 500;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An access that no node has known for so long is closed: its node is dead.
const FORGOTTEN: i64 = 5 * CHECKPOINT;

/// What somebody has of a file who had this much of it and its end, in hundredths.
const COMPLETE: u64 = 90;

/// How a file was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Played on a lease.
    Play,
    /// Looked at.
    Stream,
    /// Kept.
    Download,
}

impl Kind {
    /// As it is stored.
    #[must_use]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Stream => "stream",
            Self::Download => "download",
        }
    }
}

/// Whose access it is: the same question belongs to the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Who {
    tenant: String,
    file: String,
    kind: Kind,
    account: String,
    session: Option<String>,
}

/// An access.
#[derive(Debug)]
struct Visit {
    id: String,
    who: Who,
    ticket: Option<Ticket>,
    role: String,
    nation: String,
    company: String,
    language: String,
    category: String,
    size: u64,
    opened_at: i64,
    /// Responses under way.
    live: AtomicU32,
    /// Bytes so far, and how many of them are written.
    bytes: AtomicU64,
    written: AtomicU64,
    /// How far into the file.
    reached: AtomicU64,
    seen_at: AtomicI64,
    /// When it was written last; 0: never.
    kept_at: AtomicI64,
    /// When it was last asked whether its lease lives.
    asked_at: AtomicI64,
}

/// Counts what one response sends, until it is dropped.
#[derive(Debug)]
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    visit: Option<Arc<Visit>>,
    stopped: AtomicBool,
}

/// The accesses that are open on this node.
#[derive(Debug)]
pub(super) struct Visits {
    open: Mutex<HashMap<Who, Arc<Visit>>>,
    idle: i64,
    metrics: Arc<Metrics>,
}

impl Visits {
    /// None are open. `idle`: after so long without a response an access by token is closed.
    #[must_use]
    pub(super) fn new(idle: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            open: Mutex::default(),
            idle: i64::try_from(idle.as_millis()).unwrap_or(i64::MAX),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Who, Arc<Visit>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A response begins.
    #[must_use]
    pub(super) fn begin(&self, viewer: &Viewer, file: &File, kind: Kind, nation: Option<&str>) -> Meter {
        self.metrics.media_responses_open.inc();
        let ticket = match viewer {
            Viewer::Player(ticket) => Some(ticket),
            Viewer::Person(_) => None,
        };
        let who = Who {
            tenant: file.tenant.clone(),
            file: file.id.clone(),
            kind,
            account: viewer.account().to_owned(),
            session: ticket.map(|ticket| ticket.session.to_string()),
        };
        let mut open = self.lock();
        let found = open.get(&who).map(Arc::clone);
        let visit = found.or_else(|| {
            if open.len() >= MOST {
                self.metrics.media_accesses_lost_total.inc();
                return None;
            }
            let visit = Arc::new(Visit::new(who.clone(), ticket, viewer, file, nation));
            open.insert(who, Arc::clone(&visit));
            Some(visit)
        });
        if let Some(visit) = &visit {
            visit.live.fetch_add(1, Ordering::AcqRel);
            visit.seen_at.store(now(), Ordering::Release);
        }
        drop(open);
        Meter {
            metrics: Arc::clone(&self.metrics),
            visit,
            stopped: AtomicBool::new(false),
        }
    }

    /// Writes what is new down, and closes what is over. `lives` tells whether a lease still lives.
    ///
    /// # Errors
    /// The database fails: everything is still open, and is written the next time.
    pub(super) async fn keep<F: Future<Output = bool>>(
        &self,
        db: &Db,
        lives: impl Fn(Ticket) -> F,
    ) -> Result<(), DbError> {
        let visits: Vec<Arc<Visit>> = self.lock().values().cloned().collect();
        let mut due = Vec::new();
        for visit in visits {
            let over = self.is_over(&visit, &lives).await;
            let kept_at = visit.kept_at.load(Ordering::Acquire);
            if over || kept_at == 0 || now() - kept_at >= CHECKPOINT {
                due.push((visit, over));
            }
        }
        for some in due.chunks(BATCH) {
            self.write(db, some).await?;
        }
        Ok(())
    }

    /// Closes everything: the node leaves.
    ///
    /// # Errors
    /// The database fails: other nodes close what is open, minutes later.
    pub(super) async fn close(&self, db: &Db) -> Result<(), DbError> {
        let all: Vec<_> = self
            .lock()
            .values()
            .map(|visit| (Arc::clone(visit), true))
            .collect();
        for some in all.chunks(BATCH) {
            self.write(db, some).await?;
        }
        Ok(())
    }

    async fn is_over<F: Future<Output = bool>>(&self, visit: &Visit, lives: impl Fn(Ticket) -> F) -> bool {
        if visit.live.load(Ordering::Acquire) > 0 {
            return false;
        }
        let idle = now() - visit.seen_at.load(Ordering::Acquire);
        match &visit.ticket {
            Some(ticket) => {
                let asked = visit.asked_at.load(Ordering::Acquire);
                if now() - asked < ASKED {
                    return false;
                }
                visit.asked_at.store(now(), Ordering::Release);
                !lives(ticket.clone()).await
            }
            None => visit.who.kind == Kind::Download || idle >= self.idle,
        }
    }

    async fn write(&self, db: &Db, due: &[(Arc<Visit>, bool)]) -> Result<(), DbError> {
        let mut work = db.begin_for(PATIENCE).await?;
        let mut written = Vec::new();
        for (visit, over) in due {
            let bytes = visit.bytes.load(Ordering::Acquire);
            if visit.kept_at.load(Ordering::Acquire) == 0 {
                visit.insert(&mut work).await?;
            }
            visit.update(&mut work, bytes, *over).await?;
            written.push((visit, bytes, *over));
        }
        work.commit().await?;
        let mut open = self.lock();
        for (visit, bytes, over) in written {
            visit.written.store(bytes, Ordering::Release);
            visit.kept_at.store(now(), Ordering::Release);
            // A response that began meanwhile goes on with it, and its end is written again.
            if over && visit.live.load(Ordering::Acquire) == 0 && visit.bytes.load(Ordering::Acquire) == bytes
            {
                open.remove(&visit.who);
            }
        }
        Ok(())
    }
}

/// Closes the accesses of nodes that died, of every tenant.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn close_forgotten(db: &Db) -> Result<u64, DbError> {
    let mut sql =
        Sql::new("UPDATE file_accesses SET closed_at = seen_at WHERE closed_at IS NULL AND seen_at < ");
    sql.bind(now() - FORGOTTEN);
    db.execute(sql.query()).await
}

impl Visit {
    fn new(who: Who, ticket: Option<&Ticket>, viewer: &Viewer, file: &File, nation: Option<&str>) -> Self {
        let about = &file.about;
        // The role by which it was opened, where the file is for some only.
        let roles = viewer.roles();
        let role = roles
            .iter()
            .find(|role| about.roles.contains(role))
            .or_else(|| roles.first());
        let text = |text: Option<&str>| text.unwrap_or_default().chars().take(64).collect::<String>();
        Self {
            id: who.id(),
            ticket: ticket.cloned(),
            role: text(role.map(String::as_str)),
            nation: text(nation.map(str::trim)),
            company: about.provider.clone().unwrap_or_else(|| file.tenant.clone()),
            language: text(about.language.as_deref()),
            category: text(about.category.as_deref()),
            size: file.size,
            opened_at: now(),
            live: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            reached: AtomicU64::new(0),
            seen_at: AtomicI64::new(now()),
            kept_at: AtomicI64::new(0),
            asked_at: AtomicI64::new(0),
            who,
        }
    }

    async fn insert(&self, work: &mut Work) -> Result<(), DbError> {
        let who = &self.who;
        let mut sql = Sql::new(
            "INSERT INTO file_accesses (id, tenant, file_id, kind, account, session, role, nation, company, language, \
             category, month, bytes, completed, opened_at, seen_at) VALUES (",
        );
        sql.bind_all([
            &*self.id,
            &*who.tenant,
            &*who.file,
            who.kind.word(),
            &*who.account,
        ]);
        sql.push(", ").bind(who.session.as_deref()).push(", ");
        sql.bind_all([
            &*self.role,
            &*self.nation,
            &*self.company,
            &*self.language,
            &*self.category,
        ]);
        sql.push(", ").bind(month(self.opened_at)).push(", 0, 0, ");
        sql.bind_all([self.opened_at, self.opened_at]);
        sql.push(") ON CONFLICT (id) DO NOTHING");
        work.execute(sql.query()).await?;
        Ok(())
    }

    async fn update(&self, work: &mut Work, bytes: u64, over: bool) -> Result<(), DbError> {
        let new = bytes - self.written.load(Ordering::Acquire);
        let complete =
            self.reached.load(Ordering::Acquire) >= self.size && bytes >= self.size / 100 * COMPLETE;
        let at = now();
        // A person's access ended with the last bytes, a player's with its lease.
        let end = if self.ticket.is_some() {
            at
        } else {
            self.seen_at.load(Ordering::Acquire)
        };
        let mut sql = Sql::new("UPDATE file_accesses SET bytes = bytes + ");
        sql.bind(signed(new)).push(", seen_at = ").bind(at);
        sql.push(", closed_at = ").bind(over.then_some(end));
        if complete {
            sql.push(", completed = 1");
        }
        sql.push(" WHERE tenant = ").bind(&*self.who.tenant);
        sql.push(" AND id = ").bind(&*self.id);
        work.execute(sql.query()).await?;
        Ok(())
    }
}

impl Who {
    /// The same on every node for what belongs to a lease; fresh for anything else.
    fn id(&self) -> String {
        let Some(session) = &self.session else {
            return super::fresh_id();
        };
        let text = format!("usher access v1:{session}:{}:{}", self.file, self.kind.word());
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])
    }
}

impl Meter {
    /// So many bytes more, up to this place in the file.
    pub(super) fn sent(&self, bytes: u64, up_to: u64) {
        self.metrics.media_bytes_sent_total.inc_by(bytes);
        if let Some(visit) = &self.visit {
            visit.bytes.fetch_add(bytes, Ordering::AcqRel);
            visit.reached.fetch_max(up_to, Ordering::AcqRel);
        }
    }

    /// The lease ended in the middle.
    pub(super) fn stopped(&self) {
        if !self.stopped.swap(true, Ordering::AcqRel) {
            self.metrics.media_responses_stopped_total.inc();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.metrics.media_responses_open.dec();
        if let Some(visit) = &self.visit {
            visit.seen_at.store(now(), Ordering::Release);
            visit.live.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// How long the task of [`Visits::keep`] pauses.
#[must_use]
pub(super) fn next_round() -> Instant {
    Instant::now() + Duration::from_millis(500)
}
