//! The courier of one receiver in one bucket: takes its turn at the journal, delivers, and moves on.
//!
//! Owns: the lease of the turn, renewed while a delivery goes on, and the cursor.
//! Does not: know what a delivery came to.
//! Called by: [`super::Webhooks`], which runs one for each receiver and bucket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::Event;
use crate::lease::journal::{Batch, DeadLetter, Done, Journal, TURN_LEASE, Turn, Turned};
use crate::lease::store::StoreError;
use crate::protocol::id::{OwnerId, random};
use crate::telemetry::Metrics;

use super::delivery::Delivery;
use super::receiver::Receiver;
use super::{Pace, Seen};

/// Entries of each stream taken at once: bounds what a receiver that is away costs in memory.
const BATCH: u32 = 50;

/// How often the one whose turn it is looks for something new.
const POLL: Duration = Duration::from_secs(1);

/// How often a lease is renewed, and how often the others look whether it is free.
const RENEW: Duration = TURN_LEASE.checked_div(3).expect("three is not zero");

/// One receiver's courier.
pub(super) struct Courier {
    pub(super) receiver: Arc<Receiver>,
    pub(super) bucket: u16,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) owner: OwnerId,
    pub(super) metrics: Arc<Metrics>,
    pub(super) pace: Pace,
    pub(super) seen: Arc<Seen>,
}

/// What is kept between turns.
#[derive(Default)]
struct Bag {
    /// Told, and not yet known to the journal.
    done: Option<Done>,
    error: Option<String>,
    /// Whether this process has had a cursor: a journal that knows none then has lost its data, and all that it holds is
    /// news.
    stood: bool,
}

impl Courier {
    /// Runs until it is stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut bag = Bag::default();
        // All at once would be a rush.
        let first = jitter(POLL);
        if stop.run_until_cancelled(sleep(first)).await.is_none() {
            return;
        }
        loop {
            let pause = self.turn(&mut bag, &stop).await;
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
        }
        // Whoever is next need not wait for the lease to end.
        if bag.stood {
            let _ = self.ask(&mut bag, 0, true).await;
        }
    }

    /// One turn; how long to wait for the next.
    async fn turn(&self, bag: &mut Bag, stop: &CancellationToken) -> Duration {
        let asked_at = Instant::now();
        let batch = match self.ask(bag, BATCH, false).await {
            Ok(Turned::Yours(batch)) => batch,
            Ok(Turned::Elsewhere { .. }) => return RENEW + jitter(POLL),
            Err(_) => return POLL + jitter(POLL),
        };
        if batch.missed {
            self.metrics.webhook_deliveries_total.inc("missed");
            let (receiver, bucket) = (&*self.receiver.name, self.bucket);
            tracing::error!(receiver, bucket, "events were lost before they were told");
        }
        if batch.events.is_empty() && batch.refusals.is_empty() {
            return POLL;
        }
        self.deliver(bag, batch, asked_at + TURN_LEASE, stop).await;
        Duration::ZERO
    }

    /// Delivers a batch while the lease lives and nobody stops it. What was done by then is in the bag.
    async fn deliver(&self, bag: &mut Bag, batch: Batch, mut lease_end: Instant, stop: &CancellationToken) {
        let fence = batch.fence;
        let delivery = Delivery::new(&self.receiver, self.bucket, self.pace, &self.metrics, batch);
        let mut run = std::pin::pin!(delivery.run());
        let mut renew_at = lease_end - TURN_LEASE + RENEW;
        loop {
            let finished = tokio::select! {
                () = &mut run => true,
                () = stop.cancelled() => true,
                () = sleep_until(renew_at) => false,
                // Somebody else may tell from here on: nothing is sent any more.
                () = sleep_until(lease_end) => return,
            };
            bag.note(fence, &delivery);
            if finished {
                return;
            }
            let asked_at = Instant::now();
            let asked = tokio::time::timeout_at(lease_end, self.ask(bag, 0, false));
            match asked.await {
                Ok(Ok(Turned::Yours(batch))) if batch.fence == fence => {
                    lease_end = asked_at + TURN_LEASE;
                    renew_at = asked_at + RENEW;
                }
                Ok(Ok(_)) | Err(_) => return,
                Ok(Err(_)) => renew_at = Instant::now() + POLL,
            }
        }
    }

    async fn ask(&self, bag: &mut Bag, most: u32, leave: bool) -> Result<Turned, StoreError> {
        let turn = Turn {
            receiver: &self.receiver.name,
            owner: self.owner,
            from_start: bag.stood,
            events: self.receiver.wants(Event::Started) || self.receiver.wants(Event::Ended),
            refusals: self.receiver.wants(Event::Refused),
            most,
            done: bag.done.as_ref(),
            error: bag.error.as_deref(),
            leave,
            trim: false,
        };
        let turned = self.journal.turn(self.bucket, &turn).await?;
        bag.done = None;
        let (lag, dead) = match &turned {
            Turned::Yours(batch) => {
                bag.stood = true;
                (batch.lag, batch.dead)
            }
            Turned::Elsewhere { dead } => (Duration::ZERO, *dead),
        };
        let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        self.seen.lag_ms.store(lag, Ordering::Relaxed);
        self.seen.dead.store(dead, Ordering::Relaxed);
        Ok(turned)
    }
}

impl Bag {
    /// Takes over what a delivery has done so far.
    fn note(&mut self, fence: u64, delivery: &Delivery<'_>) {
        let (cursor, dead) = delivery.progress();
        let mut kept: Vec<DeadLetter> = self.done.take().map(|done| done.dead).unwrap_or_default();
        kept.extend(dead);
        self.done = Some(Done {
            fence,
            cursor,
            dead: kept,
        });
        self.error = delivery.error();
    }
}

/// A random part of `most`.
fn jitter(most: Duration) -> Duration {
    most.mul_f32(f32::from(u16::from_ne_bytes(random())) / f32::from(u16::MAX))
}
