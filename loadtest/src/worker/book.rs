//! What a worker counts between two ticks.
//!
//! Owns: the open tick. Does not: send it. Called by: every player of the worker; all run on one thread.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::plan::Tick;
use crate::verdict::Verdict;

use super::dial::Failure;

/// Causes told apart; more are counted as one.
const CAUSES: usize = 50;

#[derive(Default)]
pub(super) struct Book {
    tick: RefCell<Tick>,
    live: Cell<u64>,
    done: Cell<u64>,
}

impl Book {
    pub(super) fn count(&self, name: &str) {
        self.count_many(name, 1);
    }

    pub(super) fn count_many(&self, name: &str, many: u64) {
        let counts = &mut self.tick.borrow_mut().counts;
        match counts.get_mut(name) {
            Some(count) => *count += many,
            None => {
                counts.insert(name.to_owned(), many);
            }
        }
    }

    pub(super) fn fail(&self, failure: &Failure) {
        let failures = &mut self.tick.borrow_mut().failures;
        let known = failures.contains_key(&failure.0);
        let cause = if known || failures.len() < CAUSES {
            failure.0.as_str()
        } else {
            "others"
        };
        *failures.entry(cause.to_owned()).or_default() += 1;
    }

    pub(super) fn time(&self, name: &str, time: Duration) {
        let latencies = &mut self.tick.borrow_mut().latencies;
        match latencies.get_mut(name) {
            Some(latency) => latency.record(time),
            None => latencies.entry(name.to_owned()).or_default().record(time),
        }
    }

    /// An order is carried out.
    pub(super) fn done(&self) {
        self.done.set(self.done.get() + 1);
    }

    pub(super) fn judge(&self, verdict: Verdict) {
        self.tick.borrow_mut().verdict = Some(verdict);
    }

    pub(super) fn live(&self) -> u64 {
        self.live.get()
    }

    pub(super) fn come(&self) {
        self.live.set(self.live.get() + 1);
    }

    pub(super) fn go(&self) {
        self.live.set(self.live.get().saturating_sub(1));
    }

    /// What happened since the last one.
    pub(super) fn take(&self, last: bool) -> Tick {
        let mut tick = self.tick.take();
        tick.live = self.live.get();
        tick.done = self.done.get();
        tick.last = last;
        tick
    }
}
