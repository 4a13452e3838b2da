//! How far long work is.
//!
//! Called by: `figures`, which says so; `running` and the command `report`, which show it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far something is: steps done, of so many. Both only grow.
#[derive(Debug, Default)]
pub struct Steps {
    done: AtomicU64,
    all: AtomicU64,
}

impl Steps {
    /// So many more are to be done.
    pub fn expect(&self, steps: usize) {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        self.all.fetch_add(steps, Ordering::Relaxed);
    }

    /// One more is done.
    pub fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Steps done, and all that are known of.
    #[must_use]
    pub fn seen(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.all.load(Ordering::Relaxed),
        )
    }
}
