//! Hashing of passwords, off the async threads: a few threads of their own at low priority, and a bounded queue.
//!
//! Owns: who waits and who is turned away. A hash is 20 ms of a core and 19 MiB: without a bound a rush of sign-ins would
//! take both from the players.
//! Does not: know whose password it is. Called by: the routes, and the commands.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use argon2::Block;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::stored::{Cost, Stored};
use crate::api::error::ApiError;
use crate::config::{Accounts, Secret};
use crate::telemetry::{Counted, Metrics};

/// By how much more polite the threads are than those that serve players (`nice`).
const NICE: i32 = 10;

/// When to come again after a full queue, in seconds.
const RETRY_AFTER: u16 = 5;

/// A longer password is compared by its beginning only; none that long was ever accepted.
const MOST_BYTES: usize = 1024;

/// Hashes passwords. The threads end when it is dropped.
pub(super) struct Passwords {
    jobs: mpsc::Sender<Job>,
    cost: Cost,
    metrics: Arc<Metrics>,
}

/// A password judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether it is the one.
    pub(super) right: bool,
    /// Whether it was hashed at another cost than is configured now.
    pub(super) outdated: bool,
}

/// Why there is no answer: too many wait, or the machine has no memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

struct Job {
    password: Secret,
    kind: Kind,
    _queued: Counted,
}

enum Kind {
    Hash(oneshot::Sender<Option<String>>),
    Verify(Stored, oneshot::Sender<bool>),
}

impl Passwords {
    /// Starts the threads.
    pub(super) fn new(settings: &Accounts, metrics: Arc<Metrics>) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = match settings.hash_threads {
            0 => (cores / 2).max(1),
            threads => threads as usize,
        };
        let (jobs, queue) = mpsc::channel(settings.hash_queue.max(1) as usize);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let (queue, metrics) = (Arc::clone(&queue), Arc::clone(&metrics));
            let cost = cost_of(settings);
            let thread = thread::Builder::new().name(format!("passwords-{number}"));
            let spawned = thread.spawn(move || work(&queue, cost, &metrics));
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread for hashing passwords");
            }
        }
        Self {
            jobs,
            cost: cost_of(settings),
            metrics,
        }
    }

    /// The text to be stored for a password.
    pub(super) async fn hash(&self, password: Secret) -> Result<String, Busy> {
        let (tell, told) = oneshot::channel();
        self.queue(password, Kind::Hash(tell))?;
        told.await.ok().flatten().ok_or(Busy)
    }

    /// Judges a password by what is stored, which takes as long when nothing is.
    pub(super) async fn verify(&self, password: Secret, stored: Option<&str>) -> Result<Verdict, Busy> {
        let found = stored.and_then(Stored::parse);
        let known = found.is_some();
        let stored = found.unwrap_or_else(|| Stored::nobodys(self.cost));
        let outdated = stored.cost != self.cost;
        let (tell, told) = oneshot::channel();
        self.queue(password, Kind::Verify(stored, tell))?;
        let fits = told.await.map_err(|_| Busy)?;
        Ok(Verdict {
            right: fits && known,
            outdated,
        })
    }

    fn queue(&self, password: Secret, kind: Kind) -> Result<(), Busy> {
        let job = Job {
            password,
            kind,
            _queued: Counted::begin(&self.metrics.password_queue),
        };
        self.jobs.try_send(job).map_err(|_| Busy)
    }
}

/// What a new hash costs.
pub(super) fn cost_of(settings: &Accounts) -> Cost {
    Cost {
        memory: settings.hash_memory_kib,
        passes: settings.hash_passes,
    }
}

impl From<Busy> for ApiError {
    fn from(Busy: Busy) -> Self {
        let message = "too many sign-ins at once; try again in a moment";
        Self::unavailable("busy", message, RETRY_AFTER)
    }
}

/// One thread: takes jobs until nobody can send any more.
fn work(queue: &Mutex<mpsc::Receiver<Job>>, cost: Cost, metrics: &Metrics) {
    // On Linux this is about the calling thread alone. Without the permission it works as politely as the others.
    let _ = rustix::process::setpriority_process(None, NICE);
    let mut memory: Vec<Block> = Vec::new();
    loop {
        let job = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.try_recv().or_else(|_| {
                // Nobody waits: 19 MiB are worth more to others.
                memory = Vec::new();
                queue.blocking_recv().ok_or(())
            })
        };
        let Ok(Job {
            password,
            kind,
            _queued: queued,
        }) = job
        else {
            return;
        };
        drop(queued);
        let begun = Instant::now();
        match kind {
            // Who asked has gone.
            Kind::Hash(tell) if tell.is_closed() => continue,
            Kind::Verify(_, tell) if tell.is_closed() => continue,
            Kind::Hash(tell) => {
                let stored = Stored::new(password.expose(), cost, &mut memory);
                let _ = tell.send(stored.map(|stored| stored.text()));
            }
            Kind::Verify(stored, tell) => {
                let password = password.expose();
                let end = password.floor_char_boundary(MOST_BYTES);
                let fits = stored.fits(&password[..end], &mut memory);
                let _ = tell.send(fits && end == password.len());
            }
        }
        metrics
            .password_hash_duration_seconds
            .observe(begun.elapsed().as_secs_f64());
    }
}
