//! What Redis refuses and why, said once in a while: an operator must put it right, and every call would say it again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A refusal is logged once in this time,
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// of so many different ones.
const MAX_SAID: usize = 100;

/// When which refusal of which script was last logged.
#[derive(Default)]
pub(super) struct Refusals {
    said: Mutex<HashMap<(&'static str, String), Instant>>,
}

impl Refusals {
    /// Logs a refusal unless it was logged just now.
    pub(super) fn say(&self, script: &'static str, text: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (script, text);
        if said.get(&key).is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            return;
        }
        tracing::error!(script, refusal = key.1, "redis refuses a script");
        if said.len() >= MAX_SAID {
            said.clear();
        }
        said.insert(key, Instant::now());
    }
}
