//! `[ledger]`: money, and how plays get from the sessions into rows.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::validate::Problems;

/// `[ledger]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ledger {
    /// Currency of fees that name none (ISO 4217).
    pub currency: String,
    /// Seconds from which a play counts in statements.
    pub threshold: u32,
    /// Minor units of the currency from which a label is paid.
    pub floor: u32,
    /// Region of the plays of sessions; empty: not known.
    pub region: String,
    /// Percent of a content's length from which a play of it counts as finished.
    pub finished: u32,
    /// How often the sums of days are brought up to date.
    #[serde(with = "super::section::duration")]
    pub sums_every: Duration,
    /// The longest that a report may take.
    #[serde(with = "super::section::duration")]
    pub report_timeout: Duration,
    /// Reports that are worked out at once on this node.
    pub reports: u32,
    /// Largest file that is imported by HTTP, in bytes.
    pub import_bytes: u64,
    /// Without Redis: facts kept per bucket in memory until they are rows.
    pub journal: u32,
    /// Without Redis: how often the plays under way are written to disk.
    #[serde(with = "super::section::duration")]
    pub checkpoint: Duration,
    /// Share of each sales channel (origin), in basis points.
    pub shares: BTreeMap<String, u32>,
}

const SECOND: Duration = Duration::from_secs(1);

/// What is wrong with it.
pub(super) fn check(ledger: &Ledger, found: &mut Problems) {
    let letters = ledger.currency.len() == 3 && ledger.currency.bytes().all(|b| b.is_ascii_uppercase());
    found.check(
        "ledger.currency",
        letters,
        "must be three capital letters (ISO 4217)",
    );
    found.range("ledger.threshold", ledger.threshold, 0..=86_400);
    found.range("ledger.floor", ledger.floor, 0..=1_000_000_000);
    let short = ledger.region.len() <= 64 && !ledger.region.contains('\0');
    found.check("ledger.region", short, "must be at most 64 bytes");
    found.range("ledger.finished", ledger.finished, 1..=100);
    found.span("ledger.sums_every", ledger.sums_every, SECOND..=86_400 * SECOND);
    found.span(
        "ledger.report_timeout",
        ledger.report_timeout,
        SECOND..=3600 * SECOND,
    );
    found.range("ledger.reports", ledger.reports, 1..=100);
    found.range("ledger.import_bytes", ledger.import_bytes, 1024..=1 << 40);
    found.range("ledger.journal", ledger.journal, 100..=1_000_000);
    found.span("ledger.checkpoint", ledger.checkpoint, SECOND..=60 * SECOND);
    for (origin, share) in &ledger.shares {
        let path = super::keys::join("ledger.shares", origin);
        let lower = !origin.is_empty() && *origin == origin.trim().to_lowercase();
        found.check(&path, lower, "must be an origin in lower case");
        found.range(&path, *share, 0..=10_000);
    }
}
