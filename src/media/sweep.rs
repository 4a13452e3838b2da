//! What the background does: writes accesses down, and removes what uploads that died left behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Media;
use super::file::{State, now};
use super::files;
use super::pulse::lives;
use super::upload::LONGEST;
use super::visits::{self, next_round};

/// How often the tables are swept.
const SWEEP: Duration = Duration::from_secs(600);

impl Media {
    /// Runs for as long as the node does.
    pub async fn keep(self: Arc<Self>) {
        tokio::join!(self.write_visits(), self.sweep(), self.scan_all());
    }

    async fn write_visits(&self) {
        let Some(db) = &self.api.db else { return };
        loop {
            sleep_until(next_round()).await;
            if let Err(error) = self.visits.keep(db, |ticket| self.is_held(ticket)).await {
                tracing::debug!(%error, "accesses to files are written later");
            }
        }
    }

    async fn is_held(&self, ticket: crate::auth::Ticket) -> bool {
        lives(&self.api.gateway, &ticket).await
    }

    async fn sweep(&self) {
        let pause = SWEEP.min(self.settings.partial_life / 2);
        loop {
            self.sweep_once().await;
            sleep_until(Instant::now() + pause).await;
        }
    }

    async fn sweep_once(&self) {
        if let Err(error) = self.store.tidy().await {
            tracing::warn!(%error, "what dead uploads left behind cannot be removed");
        }
        let Some(db) = self.api.db.as_ref().filter(|db| db.is_ready()) else {
            return;
        };
        let longest = i64::try_from(LONGEST.as_millis()).unwrap_or(i64::MAX);
        match files::in_state(db, State::Receiving, now() - 2 * longest).await {
            Ok(dead) => {
                for file in dead {
                    self.forget(db, &file).await;
                }
            }
            Err(error) => tracing::debug!(%error, "dead uploads are looked for later"),
        }
        self.sweep_partial(db).await;
        match visits::close_forgotten(db).await {
            Ok(0) => {}
            Ok(number) => tracing::info!(number, "accesses of dead nodes are closed"),
            Err(error) => tracing::debug!(%error, "accesses of dead nodes are closed later"),
        }
    }
}
