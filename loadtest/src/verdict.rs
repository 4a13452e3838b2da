//! Whether an account ever had more players than slots, by the players' own log.
//!
//! Owns: the rule. Does not: play (`worker::contend` does, and keeps the log).
//!
//! The rule errs on the gateway's side and so never accuses wrongly: a slot is *surely* held from the moment in which
//! its player has read `granted` until the player itself begins to give it up, or, when the server ended the session,
//! until the last frame that the player had read before. All players of an account are in one process, so that one
//! clock orders the log.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Violations that are told in full.
const TOLD: usize = 20;

/// A slot that a player surely held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub account: u32,
    /// Which session.
    pub session: String,
    /// When `granted` was read, on the worker's clock.
    pub from: Duration,
    /// Until when it surely was held.
    pub until: Duration,
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Slots that were granted.
    pub grants: u64,
    /// Grants made while the store was away; they may pass the limit and are not judged.
    pub provisional: u64,
    /// Accounts that were granted anything.
    pub accounts: u64,
    /// Accounts that had all their slots taken at some moment: where the limit was put to the test.
    pub full: u64,
    /// The most slots that one account surely held at once.
    pub most: u64,
    /// How often one more was granted to an account that held all its slots.
    pub broken: u64,
    /// The first of those, told in full.
    pub told: Vec<String>,
}

impl Verdict {
    /// Takes the judgement of other accounts in.
    pub fn add(&mut self, other: &Self) {
        self.grants += other.grants;
        self.provisional += other.provisional;
        self.accounts += other.accounts;
        self.full += other.full;
        self.most = self.most.max(other.most);
        self.broken += other.broken;
        self.told.extend(other.told.iter().cloned());
        self.told.truncate(TOLD);
    }

    /// Whether the limit held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.broken == 0
    }
}

/// Judges a log in any order.
#[must_use]
pub fn judge(log: &[Held], provisional: u64, limit: u32) -> Verdict {
    let mut accounts: BTreeMap<u32, Vec<&Held>> = BTreeMap::new();
    for held in log {
        accounts.entry(held.account).or_default().push(held);
    }
    let mut verdict = Verdict {
        grants: log.len() as u64 + provisional,
        provisional,
        accounts: accounts.len() as u64,
        ..Verdict::default()
    };
    for held in accounts.values() {
        let most = judge_account(held, limit, &mut verdict);
        verdict.most = verdict.most.max(most);
        verdict.full += u64::from(most >= u64::from(limit));
    }
    verdict
}

/// Sweeps over the grants in their order; the most that were held at once.
fn judge_account(held: &[&Held], limit: u32, verdict: &mut Verdict) -> u64 {
    let mut by_start = held.to_vec();
    by_start.sort_by_key(|held| held.from);
    let (mut now, mut most): (Vec<&Held>, u64) = (Vec::new(), 0);
    for grant in by_start {
        // A session that goes on elsewhere is the same slot; one that ends at this very moment has made room.
        now.retain(|held| held.until > grant.from && held.session != grant.session);
        now.push(grant);
        let count = now.len() as u64;
        most = most.max(count);
        if count > u64::from(limit) {
            verdict.broken += 1;
            if verdict.told.len() < TOLD {
                verdict.told.push(tell(grant, &now, limit));
            }
        }
    }
    most
}

fn tell(grant: &Held, now: &[&Held], limit: u32) -> String {
    let held: Vec<String> = now
        .iter()
        .map(|held| {
            format!(
                "{} ({:.3}..{:.3} s)",
                held.session,
                held.from.as_secs_f64(),
                held.until.as_secs_f64()
            )
        })
        .collect();
    format!(
        "account {} at {:.3} s: {} slots of {limit}: {}",
        grant.account,
        grant.from.as_secs_f64(),
        now.len(),
        held.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(account: u32, session: &str, from_ms: u64, until_ms: u64) -> Held {
        Held {
            account,
            session: session.to_owned(),
            from: Duration::from_millis(from_ms),
            until: Duration::from_millis(until_ms),
        }
    }

    #[test]
    fn a_full_account_is_no_broken_one() {
        let log = [
            held(1, "a", 0, 100),
            held(1, "b", 10, 50),
            held(1, "c", 50, 90),
            held(2, "d", 0, 100),
        ];
        let verdict = judge(&log, 0, 2);
        assert!(verdict.holds());
        assert_eq!(
            (verdict.grants, verdict.accounts, verdict.full, verdict.most),
            (4, 2, 1, 2)
        );
    }

    #[test]
    fn one_too_many_is_found_and_told() {
        let log = [
            held(1, "late", 40, 60),
            held(1, "a", 0, 100),
            held(1, "b", 10, 50),
            held(1, "after", 70, 90),
        ];
        let verdict = judge(&log, 0, 2);
        assert_eq!((verdict.broken, verdict.most), (1, 3));
        assert!(
            verdict.told[0].starts_with("account 1 at 0.040 s: 3 slots of 2"),
            "{:?}",
            verdict.told
        );
        let mut both = judge(&[held(9, "x", 0, 1)], 0, 2);
        both.add(&verdict);
        assert!(!both.holds());
        assert_eq!((both.accounts, both.most), (2, 3));
    }

    #[test]
    fn a_resumed_session_is_one_slot() {
        let log = [held(1, "a", 0, 100), held(1, "a", 20, 100), held(1, "b", 30, 40)];
        assert!(judge(&log, 0, 2).holds());
    }

    #[test]
    fn other_accounts_do_not_count() {
        let log: Vec<Held> = (0..100).map(|account| held(account, "s", 0, 100)).collect();
        assert_eq!(judge(&log, 0, 1).most, 1);
    }
}
