//! Starts by the slot that they took or asked for, plan by plan: what another limit would change.
//!
//! Owns: counting them in bounded memory. Does not: keep them (`ledger` does, which takes them every few seconds).
//! Called by: the ways to a slot, `start` and `lone`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::MAX_ID_BYTES;

use super::player::Player;

/// Kinds of starts that are told apart between two takings; more are not counted. Tenants and plans come from signed tokens.
const MOST: usize = 10_000;

/// A kind of start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Whose.
    pub tenant: Arc<str>,
    /// The plan that the token names; empty: none.
    pub plan: Arc<str>,
    /// The slot of the account, from 1.
    pub slot: u32,
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// That took the slot.
    pub granted: u64,
    /// That the account's limit refused.
    pub refused: u64,
}

/// The counts of a node since they were taken last.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<BTreeMap<Asked, Count>>);

impl Attempts {
    /// A start took this slot.
    pub(super) fn grant(&self, player: &Player, slot: u32) {
        self.add(player, slot, |count| count.granted += 1);
    }

    /// A start was refused this slot.
    pub(super) fn refuse(&self, player: &Player, slot: u32) {
        self.add(player, slot, |count| count.refused += 1);
    }

    fn add(&self, player: &Player, slot: u32, count: impl FnOnce(&mut Count)) {
        let plan = player.plan.clone().unwrap_or_default();
        // The database could not hold it.
        if plan.len() > MAX_ID_BYTES || plan.contains('\0') {
            return;
        }
        let asked = Asked {
            tenant: Arc::clone(&player.account.tenant),
            plan,
            slot,
        };
        let mut counts = self.lock();
        if counts.len() < MOST || counts.contains_key(&asked) {
            count(counts.entry(asked).or_default());
        }
    }

    /// What was counted; it is forgotten here.
    #[must_use]
    pub fn take(&self) -> BTreeMap<Asked, Count> {
        std::mem::take(&mut *self.lock())
    }

    /// What could not be kept.
    pub fn put_back(&self, counted: BTreeMap<Asked, Count>) {
        let mut counts = self.lock();
        for (asked, more) in counted {
            let count = counts.entry(asked).or_default();
            count.granted += more.granted;
            count.refused += more.refused;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Asked, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
