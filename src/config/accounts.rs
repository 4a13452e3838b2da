//! `[accounts]`: people's accounts, how they sign up and in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;
use super::validate::Problems;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As it is written in a duration.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// Every plan is open.
const ANY: &str = "*";

/// What stands for the token in [`Accounts::reset_url`].
pub const RESET_TOKEN: &str = "{token}";

/// `[accounts]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Accounts {
    /// Whether strangers may make accounts.
    pub sign_up: bool,
    /// Tenants in which they may.
    pub sign_up_tenants: Vec<String>,
    /// Plans that a person may choose; `*`: any.
    pub open_plans: Vec<String>,
    /// Fewest characters of a password.
    pub password_min: u32,
    /// Life of an access token.
    #[serde(with = "super::section::duration")]
    pub token_ttl: Duration,
    /// Life of a sign-in that is not used.
    #[serde(with = "super::section::duration")]
    pub refresh_ttl: Duration,
    /// Life of a one-time token for a new password.
    #[serde(with = "super::section::duration")]
    pub reset_ttl: Duration,
    /// Page for a new password, with `{token}`; empty: none.
    pub reset_url: String,
    /// Memory of one hash, in KiB (Argon2's m).
    pub hash_memory_kib: u32,
    /// Passes of one hash (Argon2's t).
    pub hash_passes: u32,
    /// Threads that hash; 0: half of the cores.
    pub hash_threads: u32,
    /// Hashes that wait for a thread.
    pub hash_queue: u32,
    /// Failed sign-ins of one account at once.
    pub failures_burst: u32,
    /// Failed sign-ins of one account per minute after that.
    pub failures_per_minute: u32,
    /// Failed sign-ins, and sign-ups, of one address at once.
    pub tries_burst_per_address: u32,
    /// The same per minute after that.
    pub tries_per_minute_per_address: u32,
}

impl Accounts {
    /// Whether a person may choose this plan.
    #[must_use]
    pub fn is_open(&self, plan: &str) -> bool {
        self.open_plans.iter().any(|open| open == ANY || open == plan)
    }
}

pub(super) fn check(config: &Config, found: &mut Problems) {
    let accounts = &config.accounts;
    found.range("accounts.password_min", accounts.password_min, 6..=64);
    found.span("accounts.token_ttl", accounts.token_ttl, MINUTE..=DAY);
    found.span("accounts.refresh_ttl", accounts.refresh_ttl, HOUR..=YEAR);
    found.span("accounts.reset_ttl", accounts.reset_ttl, MINUTE..=7 * DAY);
    let url = &accounts.reset_url;
    let fits = url.is_empty() || url.starts_with("https://") && url.contains(RESET_TOKEN);
    found.check(
        "accounts.reset_url",
        fits,
        "must be empty, or https://.. with {token} in it",
    );
    // Below it is weaker than any recommendation; above it one hash fills a small machine.
    found.range(
        "accounts.hash_memory_kib",
        accounts.hash_memory_kib,
        8 * 1024..=256 * 1024,
    );
    found.range("accounts.hash_passes", accounts.hash_passes, 1..=20);
    found.range("accounts.hash_threads", accounts.hash_threads, 0..=256);
    found.range("accounts.hash_queue", accounts.hash_queue, 1..=100_000);
    for (key, value) in [
        ("failures_burst", accounts.failures_burst),
        ("failures_per_minute", accounts.failures_per_minute),
        ("tries_burst_per_address", accounts.tries_burst_per_address),
        (
            "tries_per_minute_per_address",
            accounts.tries_per_minute_per_address,
        ),
    ] {
        found.range(format_args!("accounts.{key}"), value, 0..=1_000_000);
    }
    let of_tenant = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    for (i, tenant) in accounts.sign_up_tenants.iter().enumerate() {
        let fits = (1..=64).contains(&tenant.len()) && tenant.chars().all(of_tenant);
        found.check(
            format_args!("accounts.sign_up_tenants[{i}]"),
            fits,
            "must be the name of a tenant",
        );
    }
    for (i, plan) in accounts.open_plans.iter().enumerate() {
        let known = plan == ANY || config.plans.contains_key(plan);
        found.check(
            format_args!("accounts.open_plans[{i}]"),
            known,
            format!("must be * or a plan of [plans], not {plan:?}"),
        );
    }
}
