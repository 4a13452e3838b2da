//! What a node remembers of contents, so that starts and rules ask the database once in a while and not each time.
//!
//! Owns: that memory, bounded and expiring, and what holds while the database is away. Called by: `lease` and `gateway`
//! through [`Shelf`]; the catalogue's routes, which tell it what they changed, and `play`.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::db::{Db, DbError};
use crate::lease::shelf::{Barred, Shelf, Sight};

use super::item::{Source, is_id};
use super::store;

/// Questions for different contents that are asked at once; those for one content wait for each other.
const LANES: usize = 64;

/// After a failure nobody asks the database for this long.
const PAUSE: Duration = Duration::from_millis(500);

/// Contents that are asked for in the background at once.
const BACKGROUND: usize = 8;

/// Of how many entries the oldest makes room for a new one.
const SAMPLE: usize = 16;

/// What is remembered of a content.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) source: Source,
    pub(super) tags: Arc<[String]>,
    pub(super) roles: Vec<String>,
    pub(super) plans: Vec<String>,
}

/// What a tenant's catalogue was found to have; none: nothing of this id.
type Found = Option<Arc<Known>>;

/// The memory of one node.
pub struct Remembered {
    db: Db,
    enforce: bool,
    keep: Duration,
    most: usize,
    entries: Mutex<HashMap<String, Entry>>,
    lanes: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
    /// Counts changes: what was read before one is not remembered after it.
    changes: AtomicU64,
    away_until: Mutex<Option<Instant>>,
    background: Arc<Semaphore>,
    tasks: TaskTracker,
    this: Weak<Self>,
}

struct Entry {
    found: Found,
    at: Instant,
}

impl Remembered {
    /// An empty memory. `tasks` counts what it asks in the background.
    #[must_use]
    pub fn new(db: Db, settings: &config::Catalogue, tasks: TaskTracker) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            db,
            enforce: settings.enforce,
            keep: settings.cache_for,
            most: settings.cache_contents,
            entries: Mutex::default(),
            lanes: (0..LANES).map(|_| tokio::sync::Mutex::default()).collect(),
            hasher: RandomState::new(),
            changes: AtomicU64::new(0),
            away_until: Mutex::default(),
            background: Arc::new(Semaphore::new(BACKGROUND)),
            tasks,
            this: this.clone(),
        })
    }

    /// A content, as it was at most `catalogue.cache_for` ago, or as it was last known while the database is away.
    ///
    /// # Errors
    /// The database is away, and nothing is remembered.
    pub(super) async fn find(&self, tenant: &str, content: &str) -> Result<Found, DbError> {
        if !is_id(content) {
            return Ok(None);
        }
        let key = key(tenant, content);
        if let Some(found) = self.fresh(&key) {
            return Ok(found);
        }
        let lane = self.hasher.hash_one(&key) % LANES as u64;
        let lane = usize::try_from(lane).unwrap_or_default();
        let _turn = self.lanes[lane].lock().await;
        if let Some(found) = self.fresh(&key) {
            return Ok(found);
        }
        let asked = self.ask(tenant, content, &key).await;
        asked.or_else(|error| self.last(&key).ok_or(error))
    }

    async fn ask(&self, tenant: &str, content: &str, key: &str) -> Result<Found, DbError> {
        if self.away().is_some_and(|until| until > Instant::now()) {
            return Err(DbError::Away);
        }
        let changes = self.changes.load(Ordering::Acquire);
        let found = match store::known(&self.db, tenant, content).await {
            Ok(found) => found.map(Arc::new),
            Err(error) => {
                *self.away() = Some(Instant::now() + PAUSE);
                return Err(error);
            }
        };
        let mut entries = self.entries();
        if self.changes.load(Ordering::Acquire) == changes {
            if entries.len() >= self.most && !entries.contains_key(key) {
                let oldest = entries.iter().take(SAMPLE).min_by_key(|(_, entry)| entry.at);
                if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                    entries.remove(&oldest);
                }
            }
            let (found, at) = (found.clone(), Instant::now());
            entries.insert(key.to_owned(), Entry { found, at });
        }
        Ok(found)
    }

    /// Forgets a content that was changed.
    pub(super) fn forget(&self, tenant: &str, content: &str) {
        let mut entries = self.entries();
        self.changes.fetch_add(1, Ordering::AcqRel);
        entries.remove(&key(tenant, content));
    }

    fn fresh(&self, key: &str) -> Option<Found> {
        let entries = self.entries();
        let entry = entries.get(key).filter(|entry| entry.at.elapsed() < self.keep);
        entry.map(|entry| entry.found.clone())
    }

    fn last(&self, key: &str) -> Option<Found> {
        self.entries().get(key).map(|entry| entry.found.clone())
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a content without making anybody wait.
    fn refresh(&self, tenant: &str, content: &str) {
        let Some(this) = self.this.upgrade() else { return };
        let Ok(turn) = Arc::clone(&self.background).try_acquire_owned() else {
            return;
        };
        let (tenant, content) = (tenant.to_owned(), content.to_owned());
        self.tasks.spawn(async move {
            let _turn = turn;
            this.learn(&tenant, &content).await;
        });
    }
}

/// A tenant's name has no line feed.
fn key(tenant: &str, content: &str) -> String {
    format!("{tenant}\n{content}")
}

#[async_trait]
impl Shelf for Remembered {
    fn enforces(&self) -> bool {
        self.enforce
    }

    fn tags(&self, tenant: &str, content: &str) -> Arc<[String]> {
        let key = key(tenant, content);
        if self.fresh(&key).is_none() {
            self.refresh(tenant, content);
        }
        let last = self.last(&key).flatten();
        last.map_or_else(|| Arc::from([]), |known| Arc::clone(&known.tags))
    }

    async fn learn(&self, tenant: &str, content: &str) {
        if let Err(error) = self.find(tenant, content).await {
            tracing::debug!(%error, "the tags of a content are not known");
        }
    }

    async fn admit(&self, tenant: &str, sight: &Sight, content: &str) -> Result<(), Barred> {
        match self.find(tenant, content).await {
            Ok(Some(known)) if sight.shows(&known.roles, &known.plans) => Ok(()),
            Ok(Some(_)) => Err(Barred::Hidden),
            Ok(None) => Err(Barred::Unknown),
            Err(_) => Err(Barred::Away),
        }
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}
