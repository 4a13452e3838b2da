//! What a node does for the ledger now and then: it writes down what is watched and which slots were asked for, and makes the
//! sums of days.
//!
//! Owns: when. Does not: know how (`live`, `concurrency`, `days`). Called by: `Ledger`.
//!
//! Every node makes its rounds; two at once do the same work twice and harm nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db::Db;
use crate::gateway::Gateway;
use crate::gateway::attempts::Attempts;
use crate::gateway::registry::Registry;
use crate::protocol::id::random;

use super::{concurrency, days, live, now_ms};

/// How often what was counted is written: a node that dies loses no more of it.
const COUNTS: Duration = Duration::from_secs(10);

/// A node that leaves writes what it can, for at most this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// The rounds of a node.
pub(super) struct Round {
    db: Db,
    sums_every: Duration,
    attempts: Option<Arc<Attempts>>,
    registry: Arc<Registry>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Round {
    /// Rounds that were not begun; sums of days are made so often.
    pub(super) fn new(db: Db, sums_every: Duration, gateway: &Gateway) -> Self {
        Self {
            db,
            sums_every,
            attempts: gateway.attempts.clone(),
            registry: Arc::clone(&gateway.registry),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Begins.
    pub(super) fn start(&self) {
        let (db, every, stop) = (self.db.clone(), self.sums_every, self.stop.clone());
        self.tasks.spawn(async move {
            // Nodes that start together do not work together.
            let first = every.mul_f32(f32::from(u16::from_ne_bytes(random())) / f32::from(u16::MAX));
            let mut pause = first.min(COUNTS);
            while stop.run_until_cancelled(sleep(pause)).await.is_some() {
                pause = every;
                match stop.run_until_cancelled(days::roll(&db, None, &mut |_| {})).await {
                    Some(Ok(days @ 1..)) => tracing::debug!(days, "sums of days are made"),
                    Some(Err(error)) => tracing::debug!(%error, "sums of days are made later"),
                    _ => {}
                }
                if let Some(Err(error)) = stop.run_until_cancelled(live::forget(&db, now_ms())).await {
                    tracing::debug!(%error, "what was watched long ago is forgotten later");
                }
            }
        });
        let (db, stop, registry) = (self.db.clone(), self.stop.clone(), Arc::clone(&self.registry));
        self.tasks.spawn(async move {
            let mut last = Instant::now();
            while stop
                .run_until_cancelled(sleep_until(last + live::EVERY))
                .await
                .is_some()
            {
                let since = last.elapsed();
                last += since;
                if let Err(error) = live::look(&db, &registry, since, now_ms()).await {
                    tracing::debug!(%error, "what is watched is not counted");
                }
            }
        });
        let Some(attempts) = self.attempts.clone() else {
            return;
        };
        let (db, stop) = (self.db.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            while stop.run_until_cancelled(sleep(COUNTS)).await.is_some() {
                if let Err(error) = concurrency::write(&db, &attempts).await {
                    tracing::debug!(%error, "what was asked for is written later");
                }
            }
            let _ = concurrency::write(&db, &attempts).await;
        });
    }

    /// Writes what was counted, and ends.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = timeout(FAREWELL, self.tasks.wait()).await;
    }
}
