//! `[ledger]`: money, and how plays get from the sessions into rows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Secret;
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
    /// What is read now and then, by name.
    pub sources: BTreeMap<String, Source>,
}

/// `[ledger.sources.<name>]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Source {
    /// What it has.
    pub kind: SourceKind,
    /// `https://..`, or the path of a file.
    pub from: String,
    /// What it is.
    #[serde(default)]
    pub form: SourceForm,
    /// The columns' names, when it has none.
    #[serde(default)]
    pub columns: Vec<String>,
    /// What stands between fields: one character, or `tab`.
    #[serde(default = "comma")]
    pub separator: String,
    /// Whether amounts are written 7,99.
    #[serde(default)]
    pub decimal_comma: bool,
    /// How dates are written.
    #[serde(default = "iso")]
    pub date_format: String,
    /// How often it is read.
    #[serde(default = "hourly", with = "super::section::duration")]
    pub every: Duration,
    /// Whose rows.
    #[serde(default = "main_tenant")]
    pub tenant: String,
    /// Sent as the header `Authorization`; empty: none is.
    #[serde(default)]
    pub authorization: Secret,
    /// PEM file of the CA that signs the URL's certificate; empty: the system's.
    #[serde(default)]
    pub ca: PathBuf,
}

/// What a source of the ledger has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Subscribers.
    Users,
    /// Plays.
    Plays,
    /// Tracks with their labels.
    Tracks,
}

/// What a source of the ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceForm {
    /// Rows of fields with a separator.
    #[default]
    Csv,
    /// An array of records.
    Json,
}

fn comma() -> String {
    ",".to_owned()
}

fn iso() -> String {
    "%Y-%m-%d".to_owned()
}

fn hourly() -> Duration {
    Duration::from_secs(3600)
}

fn main_tenant() -> String {
    "main".to_owned()
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
    for (name, source) in &ledger.sources {
        let path = super::keys::join("ledger.sources", name);
        let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let named = (1..=32).contains(&name.len()) && name.chars().all(of_name);
        found.check(&path, named, "must be named by 1 to 32 of a-z, 0-9, - and _");
        let somewhere = source.from.starts_with("http") || source.from.starts_with('/');
        let rule = "must be https://.., or the absolute path of a file";
        found.check(format_args!("{path}.from"), somewhere, rule);
        let every = SECOND..=30 * 86_400 * SECOND;
        found.span(format_args!("{path}.every"), source.every, every);
    }
    for (origin, share) in &ledger.shares {
        let path = super::keys::join("ledger.shares", origin);
        let lower = !origin.is_empty() && *origin == origin.trim().to_lowercase();
        found.check(&path, lower, "must be an origin in lower case");
        found.range(&path, *share, 0..=10_000);
    }
}
