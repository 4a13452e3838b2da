//! Whether Redis answers.
//!
//! Owns: the gauge, and the list of servers that are needed and away.
//! Does not: ask anybody. Called by: `server`, `cluster` and `link`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::telemetry::Metrics;

/// The health of a link.
pub(super) struct Health {
    metrics: Arc<Metrics>,
    next: AtomicU64,
    away: Mutex<BTreeSet<u64>>,
    answered: AtomicBool,
}

impl Health {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            next: AtomicU64::new(0),
            away: Mutex::default(),
            answered: AtomicBool::new(true),
        })
    }

    /// Something that is needed, and away until it is said to be there. Forgotten with the handle.
    pub(super) fn need(self: &Arc<Self>) -> Need {
        let need = Need {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            health: Arc::clone(self),
        };
        need.set(false);
        need
    }

    /// Notes whether the last command was answered.
    pub(super) fn answered(&self, answered: bool) {
        if self.answered.swap(answered, Ordering::Relaxed) != answered {
            self.show();
        }
    }

    pub(super) fn is_up(&self) -> bool {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_empty() && self.answered.load(Ordering::Relaxed)
    }

    fn show(&self) {
        self.metrics.redis_up.set(i64::from(self.is_up()));
    }
}

/// One needed thing.
pub(super) struct Need {
    health: Arc<Health>,
    number: u64,
}

impl Need {
    pub(super) fn set(&self, there: bool) {
        let mut away = self.health.away.lock().unwrap_or_else(PoisonError::into_inner);
        if there {
            away.remove(&self.number);
            // Connecting was answered.
            self.health.answered.store(true, Ordering::Relaxed);
        } else {
            away.insert(self.number);
        }
        drop(away);
        self.health.show();
    }
}

impl Drop for Need {
    fn drop(&mut self) {
        let mut away = self.health.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.remove(&self.number);
        drop(away);
        self.health.show();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_when_nothing_is_away_and_the_last_command_was_answered() {
        let metrics = Arc::new(Metrics::new());
        let health = Health::new(Arc::clone(&metrics));
        let (one, two) = (health.need(), health.need());
        one.set(true);
        assert!(!health.is_up());
        drop(two);
        assert_eq!((health.is_up(), metrics.redis_up.get()), (true, 1));
        health.answered(false);
        assert_eq!((health.is_up(), metrics.redis_up.get()), (false, 0));
        one.set(true);
        assert!(health.is_up(), "it was connected anew");
    }
}
