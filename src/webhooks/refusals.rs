//! Refusals on their way from the players to the journal.
//!
//! A refusal changes no table, so no script records it. The node writes it afterwards, only when somebody wants to be
//! told, and into a stream of its own, so that a flood of refusals pushes no play out. From there on it is told at least
//! once, as the others; one whose node dies in the moment before is lost, and so is what comes faster than it can be
//! written (counted).
//!
//! Owns: a bounded queue. Called by: `gateway` hands refusals over and never waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::lease::journal::{Journal, Record};
use crate::lease::store::bucket_of;
use crate::telemetry::Metrics;

/// Refusals that wait to be written; more are lost.
const WAITING: usize = 4_096;

/// Refusals written by one call.
const BATCH: usize = 100;

/// A call that failed is repeated after each of these, and given up then.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// Where refusals are handed over.
#[derive(Clone, Debug)]
pub struct Refusals {
    queue: mpsc::Sender<Record>,
    metrics: Arc<Metrics>,
}

/// Writes what was handed over.
pub(super) struct Keeper {
    queue: mpsc::Receiver<Record>,
    journal: Arc<dyn Journal>,
    metrics: Arc<Metrics>,
}

pub(super) fn channel(journal: Arc<dyn Journal>, metrics: Arc<Metrics>) -> (Refusals, Keeper) {
    let (sender, queue) = mpsc::channel(WAITING);
    let refusals = Refusals {
        queue: sender,
        metrics: Arc::clone(&metrics),
    };
    (
        refusals,
        Keeper {
            queue,
            journal,
            metrics,
        },
    )
}

impl Refusals {
    /// Hands a refusal over; never waits.
    pub fn tell(&self, refusal: Record) {
        if self.queue.try_send(refusal).is_err() {
            self.metrics.webhook_refusals_lost_total.inc();
        }
    }
}

impl Keeper {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let more = stop.run_until_cancelled(self.queue.recv_many(&mut batch, BATCH));
            // A node that leaves writes what was handed over before.
            let stopped = match more.await {
                Some(0) => return,
                Some(_) => false,
                None => {
                    while batch.len() < WAITING
                        && let Ok(record) = self.queue.try_recv()
                    {
                        batch.push(record);
                    }
                    true
                }
            };
            let mut buckets: HashMap<u16, Vec<Record>> = HashMap::new();
            for record in batch.drain(..) {
                let bucket = bucket_of(&record.account, self.journal.buckets());
                buckets.entry(bucket).or_default().push(record);
            }
            for (bucket, records) in buckets {
                self.write(bucket, &records).await;
            }
            if stopped {
                return;
            }
        }
    }

    async fn write(&self, bucket: u16, records: &[Record]) {
        for pause in PAUSES {
            if self.journal.refuse(bucket, records).await.is_ok() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        let lost = u64::try_from(records.len()).unwrap_or_default();
        self.metrics.webhook_refusals_lost_total.inc_by(lost);
    }
}
