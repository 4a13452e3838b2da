//! The arbiter of slots, built from the settings: in memory or in Redis, with its journal.

use std::sync::Arc;

use super::AppError;
use crate::config::Config;
use crate::gateway::registry::Registry;
use crate::lease::journal::Journal;
use crate::lease::memory::{self, Memory};
use crate::lease::memory_journal::MemoryJournal;
use crate::lease::redis::journal::{Kept, RedisJournal};
use crate::lease::redis::mail::Mail;
use crate::lease::redis::store::{Layout, RedisStore};
use crate::lease::redis::{Link, keys};
use crate::lease::store::Store;
use crate::lease::tenure::LEASE;
use crate::ledger::scribe;
use crate::messages::Wire;
use crate::protocol::id::OwnerId;
use crate::telemetry::Metrics;

/// In the data directory of a node without Redis: what operators decided about accounts.
const STANDINGS_FILE: &str = "standings.json";

/// The arbiter of slots, the registry that hears its word, and the journal of what it recorded.
pub(super) struct Arbiter {
    pub(super) store: Arc<dyn Store>,
    pub(super) registry: Arc<Registry>,
    pub(super) journal: Arc<dyn Journal>,
    /// Words between nodes about messages; none: this is the only node.
    pub(super) wire: Option<Wire>,
    /// Of a node without Redis: what its diary is written from.
    pub(super) memory: Option<(Arc<Memory>, Arc<MemoryJournal>)>,
}

/// In this process's memory, or in the Redis that the settings name.
///
/// # Errors
/// A setting that cannot work.
pub(super) fn open(config: &Config, owner: OwnerId, metrics: &Arc<Metrics>) -> Result<Arbiter, AppError> {
    let kept = Kept {
        refusals: config.webhooks.refusals,
        dead_letters: config.webhooks.dead_letters,
    };
    if config.redis.url.is_empty() {
        let registry = Arc::new(Registry::new(memory::BUCKETS, metrics));
        let mut journal = MemoryJournal::new(config.webhooks.journal, kept);
        if config.modules.ledger {
            journal = journal.patient_with(scribe::READER, config.ledger.journal);
        }
        let journal = Arc::new(journal);
        let file = config.data.dir.join(STANDINGS_FILE);
        let store = Memory::new(registry.clone()).keeping(file.clone());
        let mut store = store.map_err(|error| AppError::Machine(format!("{}: {error}", file.display())))?;
        // Nobody reads, nothing is kept.
        if config.modules.ledger || !config.webhooks.receivers.is_empty() {
            store = store.recording(Arc::clone(&journal));
        }
        let store = Arc::new(store);
        return Ok(Arbiter {
            store: store.clone(),
            registry,
            journal: journal.clone(),
            wire: None,
            memory: Some((store, journal)),
        });
    }
    let buckets = u16::try_from(config.redis.buckets).unwrap_or(u16::MAX);
    let registry = Arc::new(Registry::new(buckets, metrics));
    let mail = Mail::new(registry.clone(), owner);
    let alarm = mail.alarm();
    let (talk, heard) = Wire::channel();
    let deliver = move |channel: &str, payload: &[u8]| {
        if channel.ends_with(keys::MESSAGES) {
            // What there is no room for is found in the database.
            let _ = talk.try_send(payload.to_vec());
        } else {
            mail.deliver(channel, payload);
        }
    };
    let link = Link::open(&config.redis, Arc::clone(metrics), deliver)
        .map_err(|error| AppError::Settings(error.to_string()))?;
    let recovery = config.redis.recovery;
    let layout = Layout {
        prefix: config.redis.prefix.clone(),
        buckets,
        events: config.redis.events,
        // A strict recovery waits a whole lease for nodes that stalled (rule 5).
        halves: if config.outage.strict {
            (LEASE, recovery)
        } else {
            (recovery / 2, recovery / 2)
        },
    };
    let journal = RedisJournal::new(link.clone(), &layout.prefix, buckets, kept);
    let wire = Wire {
        link: link.clone(),
        prefix: layout.prefix.clone(),
        buckets,
        heard,
    };
    Ok(Arbiter {
        store: Arc::new(RedisStore::new(link, layout, owner, alarm)),
        registry,
        journal: Arc::new(journal),
        wire: Some(wire),
        memory: None,
    })
}
