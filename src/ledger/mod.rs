//! The ledger: every second watched, and who is paid for it.
//!
//! Owns: plays, subscribers and tracks in SQL, the import of files, royalty reports and their frozen statements, and the
//! routes `/v1/plays` and `/v1/reports`. Does not: decide who may play (`lease` does); what it learns of sessions are the
//! facts of the store's journal (`scribe`).
//! Called by: `app`, which starts it, and the commands `import` and `report`. What it promises: docs/ledger.md.

mod anomalies;
mod audience;
mod cache;
pub mod calendar;
mod concurrency;
mod corrections;
pub mod days;
mod desk;
mod exports;
pub mod fetch;
pub mod figures;
pub mod import;
mod inputs;
mod insight;
mod labels;
mod live;
pub mod money;
mod plays;
mod positions;
pub mod remembered;
pub mod report;
mod round;
pub mod royalties;
mod royalty_routes;
mod running;
pub mod scribe;
mod sessions;
mod sheet;
mod sources;
mod statements;
pub mod steps;
mod uploads;
mod versions;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::db::Db;
use crate::gateway::Gateway;
use crate::lease::diary::Writer;
use crate::lease::journal::Journal;
use crate::lease::memory::Memory;
use crate::lease::memory_journal::MemoryJournal;
use crate::protocol::id::OwnerId;
use crate::telemetry::Metrics;

pub use desk::Desk;
use round::Round;
use scribe::{READER, Scribe};
use sources::Sources;

/// In the data directory of a node without Redis: what plays, and what ended and is in no row yet.
const DIARY_FILE: &str = "plays.journal";

/// What plays are read from, and what a node without Redis keeps its sessions and their facts in.
pub type Facts = (Arc<dyn Journal>, Option<(Arc<Memory>, Arc<MemoryJournal>)>);

/// The ledger of a node.
pub struct Ledger {
    scribe: Scribe,
    round: Round,
    sources: Sources,
    diary: Option<Arc<Writer>>,
}

impl Ledger {
    /// Prepares the ledger of the sessions of this gateway.
    ///
    /// # Errors
    /// The diary cannot be read or written, or a source's settings cannot work: for people, with the key.
    pub fn open(
        config: &Config,
        db: Db,
        (journal, memory): Facts,
        gateway: &Gateway,
        owner: OwnerId,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, String> {
        let settings = &config.ledger;
        let bound = if memory.is_some() {
            settings.journal
        } else {
            config.redis.events
        };
        let diary = memory.map(|(store, facts)| {
            let file = config.data.dir.join(DIARY_FILE);
            Writer::start(file, settings.checkpoint, store, facts, READER).map(Arc::new)
        });
        let diary = diary
            .transpose()
            .map_err(|error: io::Error| format!("data.dir: {error}"))?;
        Ok(Self {
            sources: Sources::new(config, db.clone(), Arc::clone(metrics))?,
            round: Round::new(db.clone(), settings.sums_every, gateway),
            scribe: Scribe::new(db, journal, owner, Arc::clone(metrics), &settings.region, bound),
            diary,
        })
    }

    /// Begins to write plays into rows, and to make its rounds.
    pub fn start(&self) {
        self.round.start();
        self.sources.start();
        self.scribe.start(self.diary.clone());
    }

    /// Writes what there is, as far as the database answers; the rest stays in the journal or the diary.
    pub async fn stop(&self) {
        tokio::join!(self.scribe.stop(), self.round.stop(), self.sources.stop());
        if let Some(diary) = self.diary.clone() {
            let _ = tokio::task::spawn_blocking(move || diary.close()).await;
        }
    }
}

/// A time of the database, which is milliseconds since the Unix epoch; one that no year has counts as the last that has one.
fn time(ms: i64) -> String {
    const LATEST_MS: i64 = 253_402_300_799_000;
    let ms = u64::try_from(ms.clamp(0, LATEST_MS)).unwrap_or_default();
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// Now, in milliseconds since the Unix epoch, as the database has times.
fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A span in milliseconds.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
