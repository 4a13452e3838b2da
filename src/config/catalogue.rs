//! `[catalogue]`: contents, and whether only they may be played.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;
use super::validate::Problems;

/// `[catalogue]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Catalogue {
    /// Whether only what the catalogue has, and shows to the viewer, may be played.
    pub enforce: bool,
    /// For how long an answer of the database about a content is used again.
    #[serde(with = "super::section::duration")]
    pub cache_for: Duration,
    /// Most contents that a node remembers.
    pub cache_contents: usize,
    /// Whether a development node puts demo contents into a new catalogue.
    pub demo: bool,
    /// Largest import, in bytes.
    pub import_max_bytes: u64,
    /// Largest line of one, in bytes.
    pub import_max_line_bytes: usize,
    /// The longest import.
    #[serde(with = "super::section::duration")]
    pub import_timeout: Duration,
    /// Imports and exports under way at once on the node.
    pub transfers: usize,
}

pub(super) fn check(config: &Config, found: &mut Problems) {
    let catalogue = &config.catalogue;
    let on = config.modules.catalogue || !catalogue.enforce;
    found.check("catalogue.enforce", on, "needs modules.catalogue");
    let shared = config.redis.url.is_empty() || config.database.is_shared();
    found.check(
        "catalogue.enforce",
        shared || !catalogue.enforce,
        "needs a database that the nodes share (database.url)",
    );
    let (least, minute) = (Duration::from_millis(100), Duration::from_secs(60));
    found.span("catalogue.cache_for", catalogue.cache_for, least..=10 * minute);
    found.range(
        "catalogue.cache_contents",
        catalogue.cache_contents,
        100..=10_000_000,
    );
    found.range(
        "catalogue.import_max_bytes",
        catalogue.import_max_bytes,
        1024..=64 << 30,
    );
    found.range(
        "catalogue.import_max_line_bytes",
        catalogue.import_max_line_bytes,
        1024..=1 << 20,
    );
    found.span(
        "catalogue.import_timeout",
        catalogue.import_timeout,
        minute / 60..=120 * minute,
    );
    found.range("catalogue.transfers", catalogue.transfers, 1..=100);
}
