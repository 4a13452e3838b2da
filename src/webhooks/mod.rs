//! Webhooks: telling servers of others what was started, refused and ended.
//!
//! Owns: the receivers, one task for each of them in each bucket (`courier`), and bringing refusals to the journal
//! ([`refusals`]).
//! Does not: record starts and ends (the store does, with the change itself), nor ever stand in a player's way: a player
//! hands a refusal over without waiting, and everything else runs on tasks of its own.
//! Called by: `app`, which starts and stops it; `gateway`, which hands refusals over; `api`, which shows how it stands.

mod courier;
mod delivery;
mod payload;
mod receiver;
pub mod refusals;
mod signature;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Event};
use crate::lease::journal::{Journal, Report, Turn};
use crate::lease::store::StoreError;
use crate::outbound::Guard;
use crate::protocol::id::OwnerId;
use crate::telemetry::Metrics;

use courier::Courier;
use receiver::Receiver;
use refusals::Refusals;

/// A node that leaves gives its turns up, for at most this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often the gauges are set.
const GLANCE: Duration = Duration::from_secs(1);

/// A setting of a receiver that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct WebhookError {
    /// Path of the setting.
    pub key: String,
    /// What is wrong with it, for people.
    pub message: String,
}

/// The webhooks of a node.
pub struct Webhooks {
    receivers: Vec<Arc<Receiver>>,
    journal: Arc<dyn Journal>,
    owner: OwnerId,
    metrics: Arc<Metrics>,
    pace: Pace,
    /// By receiver and bucket.
    seen: Mutex<Vec<Arc<Seen>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// When a delivery is tried again, and when no more.
#[derive(Clone, Copy, Debug)]
struct Pace {
    first: Duration,
    most: Duration,
    give_up: Duration,
    refused_tries: u32,
}

/// What one courier last saw.
#[derive(Debug, Default)]
struct Seen {
    /// In milliseconds; 0 while another node reads.
    lag_ms: AtomicU64,
    dead: AtomicU64,
}

impl Webhooks {
    /// The webhooks of these settings; nothing is sent yet.
    ///
    /// # Errors
    /// What of a receiver's settings cannot work.
    pub fn new(
        settings: &config::Webhooks,
        guard: &Guard,
        journal: Arc<dyn Journal>,
        owner: OwnerId,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, WebhookError> {
        let concurrency = usize::try_from(settings.concurrency).unwrap_or(usize::MAX);
        let receivers = settings
            .receivers
            .iter()
            .map(|(name, receiver)| Receiver::new(name, receiver, concurrency, guard.clone()).map(Arc::new));
        Ok(Arc::new(Self {
            receivers: receivers.collect::<Result<_, _>>()?,
            journal,
            owner,
            metrics,
            pace: Pace {
                first: settings.retry_first,
                most: settings.retry_most,
                give_up: settings.give_up,
                refused_tries: settings.refused_tries,
            },
            seen: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Where players leave their refusals; none when nobody wants to be told.
    #[must_use]
    pub fn refusals(self: &Arc<Self>) -> Option<Refusals> {
        let wanted = self
            .receivers
            .iter()
            .any(|receiver| receiver.wants(Event::Refused));
        wanted.then(|| {
            let (refusals, keeper) = refusals::channel(Arc::clone(&self.journal), Arc::clone(&self.metrics));
            self.tasks.spawn(keeper.run(self.stop.clone()));
            refusals
        })
    }

    /// Marks where receivers that are new begin: whatever happens from here on is told. Call it before players come. While
    /// the store is away it does nothing; a receiver begins then with its courier's first turn.
    pub async fn mark(&self) {
        let turns = self.receivers.iter().flat_map(|receiver| {
            let turn = Turn {
                receiver: &receiver.name,
                owner: self.owner,
                from_start: false,
                events: true,
                refusals: true,
                most: 0,
                done: None,
                error: None,
                leave: true,
                trim: false,
            };
            let buckets = 0..self.journal.buckets();
            buckets.map(move |bucket| async move { self.journal.turn(bucket, &turn).await.is_ok() })
        });
        let marked = join_all(turns).await;
        if marked.contains(&false) {
            tracing::warn!("the store is away: new receivers of webhooks begin when it is back");
        }
    }

    /// Begins to tell.
    pub fn start(self: &Arc<Self>) {
        if self.receivers.is_empty() {
            return;
        }
        let mut all = Vec::new();
        for receiver in &self.receivers {
            for bucket in 0..self.journal.buckets() {
                let seen = Arc::new(Seen::default());
                all.push(Arc::clone(&seen));
                let courier = Courier {
                    receiver: Arc::clone(receiver),
                    bucket,
                    journal: Arc::clone(&self.journal),
                    owner: self.owner,
                    metrics: Arc::clone(&self.metrics),
                    pace: self.pace,
                    seen,
                };
                self.tasks.spawn(courier.run(self.stop.clone()));
            }
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = all;
        self.tasks.spawn(Arc::clone(self).glance());
    }

    /// Stops telling; what is under way is told again by whoever has the next turn.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(FAREWELL, self.tasks.wait()).await;
    }

    /// The receivers: name, URL, events and tenants, in the order of their names.
    pub fn receivers(&self) -> impl Iterator<Item = (&str, &config::Receiver)> {
        self.receivers
            .iter()
            .map(|receiver| (&*receiver.name, &receiver.settings))
    }

    /// How the receivers stand, bucket by bucket, with at most so many dead letters of each bucket.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn report(&self, most: u32) -> Result<Vec<Report>, StoreError> {
        let names: Vec<String> = self.receivers.iter().map(|it| it.name.to_string()).collect();
        let mut reports = Vec::new();
        for bucket in 0..self.journal.buckets() {
            reports.push(self.journal.report(bucket, &names, most).await?);
        }
        Ok(reports)
    }

    async fn glance(self: Arc<Self>) {
        while self
            .stop
            .run_until_cancelled(tokio::time::sleep(GLANCE))
            .await
            .is_some()
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let lags = seen.iter().map(|seen| seen.lag_ms.load(Ordering::Relaxed));
            let lag = Duration::from_millis(lags.max().unwrap_or_default());
            let dead = seen
                .iter()
                .map(|seen| seen.dead.load(Ordering::Relaxed))
                .sum::<u64>();
            self.metrics.webhook_lag_seconds.set(lag.as_secs_f64());
            self.metrics
                .webhook_dead_letters
                .set(i64::try_from(dead).unwrap_or(i64::MAX));
        }
    }
}
