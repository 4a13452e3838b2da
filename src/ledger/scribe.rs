//! The scribe: takes what the journal recorded, writes it into rows, and says that it is done with.
//!
//! Owns: a task for each bucket, of which one node's has the turn, and one for what a crashed process left on this disk.
//! Does not: know what a row is (`sessions` does). Called by: `app`.
//!
//! The order makes every play one row: the rows are committed, then the journal is told, then it forgets. Whatever
//! happens in between is repeated, and a repeated play is the row that is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db::{Db, DbError};
use crate::lease::diary::Writer;
use crate::lease::journal::{Cursor, Done, Journal, Record, TURN_LEASE, Turn, Turned};
use crate::protocol::id::{OwnerId, random};
use crate::telemetry::Metrics;

use super::sessions::{self, Written};

/// Its name among the readers of the journal; no receiver of webhooks can have it.
pub const READER: &str = "@ledger";

/// Entries taken at once.
const BATCH: u32 = 500;

/// How often the one whose turn it is looks for something new.
const POLL: Duration = Duration::from_secs(1);

/// How often the others look whether the turn is free.
const LOOK: Duration = TURN_LEASE.checked_div(3).expect("three is not zero");

/// The longest pause while the database is away.
const MOST_PAUSE: Duration = Duration::from_secs(10);

/// A node that leaves writes what it can, for at most this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// The scribe of a node.
pub struct Scribe {
    inner: Arc<Inner>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Inner {
    db: Db,
    journal: Arc<dyn Journal>,
    owner: OwnerId,
    metrics: Arc<Metrics>,
    region: String,
    /// Entries of a bucket's journal from which on it is told that the bound is near.
    many: u64,
    /// How long the oldest entry waits, by bucket, in milliseconds; 0 where another node reads.
    lags: Vec<AtomicU64>,
}

/// What is kept between turns.
#[derive(Default)]
struct Bag {
    /// Written, and not yet known to the journal.
    done: Option<Done>,
    /// Failures in a row.
    failures: u32,
    warned: bool,
    stood: bool,
}

impl Scribe {
    /// The scribe of these settings; nothing is written yet. `bound` is how many entries a bucket's journal keeps.
    #[must_use]
    pub fn new(
        db: Db,
        journal: Arc<dyn Journal>,
        owner: OwnerId,
        metrics: Arc<Metrics>,
        region: &str,
        bound: u32,
    ) -> Self {
        let lags = (0..journal.buckets()).map(|_| AtomicU64::new(0)).collect();
        Self {
            inner: Arc::new(Inner {
                db,
                journal,
                owner,
                metrics,
                region: region.trim().to_uppercase(),
                many: u64::from(bound / 2),
                lags,
            }),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Begins to write, first what a process before this one left in the diary.
    pub fn start(&self, diary: Option<Arc<Writer>>) {
        for bucket in 0..self.inner.journal.buckets() {
            let inner = Arc::clone(&self.inner);
            self.tasks.spawn(inner.run(bucket, self.stop.clone()));
        }
        if let Some(diary) = diary {
            let (inner, stop) = (Arc::clone(&self.inner), self.stop.clone());
            self.tasks.spawn(async move {
                stop.run_until_cancelled(inner.write_left(&diary)).await;
            });
        }
    }

    /// Writes what is there a last time, and gives the turns up.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = timeout(FAREWELL, self.tasks.wait()).await;
    }
}

impl Inner {
    async fn run(self: Arc<Self>, bucket: u16, stop: CancellationToken) {
        let mut bag = Bag::default();
        // All at once would be a rush.
        let mut pause = jitter(POLL);
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            pause = self.turn(bucket, &mut bag).await;
        }
        if bag.stood {
            let _ = self.turn(bucket, &mut bag).await;
            let _ = self.ask(bucket, &mut bag, 0, true).await;
        }
    }

    /// One turn; how long to wait for the next.
    async fn turn(&self, bucket: u16, bag: &mut Bag) -> Duration {
        let batch = match self.ask(bucket, bag, BATCH, false).await {
            Some(Turned::Yours(batch)) => batch,
            Some(Turned::Elsewhere { .. }) => return LOOK + jitter(POLL),
            None => return POLL + jitter(POLL),
        };
        let count = &self.metrics.ledger_plays_total;
        if batch.missed {
            count.inc("missed");
            tracing::error!(
                bucket,
                "plays were lost before they were written: the database was away for too long"
            );
        }
        if (batch.length >= self.many) != bag.warned {
            bag.warned = !bag.warned;
            if bag.warned {
                let held = batch.length;
                tracing::warn!(
                    bucket,
                    held,
                    "the journal of plays is half full: readers are away"
                );
            }
        }
        let Some(last) = batch.events.last() else {
            bag.failures = 0;
            return POLL;
        };
        let cursor = Cursor {
            events: last.id.clone(),
            refusals: batch.cursor.refusals,
        };
        let records: Vec<Record> = batch
            .events
            .into_iter()
            .filter_map(|entry| entry.record)
            .collect();
        match sessions::write(&self.db, &records, &self.region).await {
            Ok(written) => {
                self.count(written);
                bag.failures = 0;
                bag.done = Some(Done {
                    fence: batch.fence,
                    cursor,
                    dead: Vec::new(),
                });
                Duration::ZERO
            }
            Err(error) => self.failed(&error, bag),
        }
    }

    fn count(&self, written: Written) {
        let count = &self.metrics.ledger_plays_total;
        for (outcome, number) in [
            ("written", written.written),
            ("repeated", written.repeated),
            ("unfit", written.unfit),
        ] {
            count.add(outcome, number);
        }
    }

    fn failed(&self, error: &DbError, bag: &mut Bag) -> Duration {
        if bag.failures == 0 {
            tracing::warn!(%error, "plays are not written for now; they wait in the journal");
        }
        bag.failures += 1;
        let pause = POLL.saturating_mul(1 << bag.failures.min(5)).min(MOST_PAUSE);
        pause / 2 + jitter(pause / 2)
    }

    /// None when the store does not answer.
    async fn ask(&self, bucket: u16, bag: &mut Bag, most: u32, leave: bool) -> Option<Turned> {
        let turn = Turn {
            receiver: READER,
            owner: self.owner,
            // What the journal holds of the time before the ledger was switched on are plays as well.
            from_start: true,
            events: true,
            refusals: false,
            most,
            done: bag.done.as_ref(),
            error: None,
            leave,
            trim: true,
        };
        let turned = self.journal.turn(bucket, &turn).await.ok()?;
        bag.done = None;
        let lag = match &turned {
            Turned::Yours(batch) => {
                bag.stood = true;
                batch.lag
            }
            Turned::Elsewhere { .. } => {
                bag.stood = false;
                Duration::ZERO
            }
        };
        let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        self.lags[usize::from(bucket)].store(lag, Ordering::Relaxed);
        let longest = self.lags.iter().map(|lag| lag.load(Ordering::Relaxed)).max();
        let longest = Duration::from_millis(longest.unwrap_or_default());
        self.metrics.ledger_lag_seconds.set(longest.as_secs_f64());
        Some(turned)
    }

    async fn write_left(&self, diary: &Writer) {
        let (left, mut bag) = (diary.left(), Bag::default());
        if left.is_empty() {
            return;
        }
        loop {
            match sessions::write(&self.db, &left, &self.region).await {
                Ok(written) => {
                    self.count(written);
                    diary.settle();
                    tracing::info!(
                        plays = left.len(),
                        new = written.written,
                        "plays of the process before are written"
                    );
                    return;
                }
                Err(error) => sleep(self.failed(&error, &mut bag)).await,
            }
        }
    }
}

/// A random part of `most`.
fn jitter(most: Duration) -> Duration {
    most.mul_f32(f32::from(u16::from_ne_bytes(random())) / f32::from(u16::MAX))
}
