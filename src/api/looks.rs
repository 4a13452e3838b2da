//! Looks that are repeated: a page that shows what is refreshes itself, and would drown the trail of what operators did.
//!
//! Owns: which looks were recorded of late. Does not: record. Called by: `operator`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

/// A look that is the same as one within this time is no news.
const SAME: Duration = Duration::from_secs(600);

/// Looks that are remembered; beyond it each is news.
const MOST: usize = 256;

/// The looks of late.
#[derive(Default)]
pub struct Looks(Mutex<HashMap<String, Instant>>);

impl Looks {
    /// Whether this line of the trail says, but for its time, what another one said of late.
    pub(super) fn is_repeated(&self, call: &Value) -> bool {
        let mut call = call.clone();
        for own in ["at", "request_id"] {
            call[own] = Value::Null;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, call) = (Instant::now(), call.to_string());
        if known.get(&call).is_some_and(|since| now - *since < SAME) {
            return true;
        }
        if known.len() >= MOST {
            known.retain(|_, since| now - *since < SAME);
        }
        if known.len() < MOST {
            known.insert(call, now);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn the_same_look_is_news_again_after_a_while() {
        let looks = Looks::default();
        let look = |at: u32, who: &str| json!({"at": at, "request_id": at, "who": who, "status": 200});
        assert!(!looks.is_repeated(&look(1, "olga")));
        assert!(looks.is_repeated(&look(2, "olga")));
        assert!(!looks.is_repeated(&look(3, "sam")), "another person");
        tokio::time::advance(SAME).await;
        assert!(!looks.is_repeated(&look(4, "olga")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_news() {
        let looks = Looks::default();
        let fill = |from: usize| (from..from + MOST).all(|who| !looks.is_repeated(&json!({"who": who})));
        assert!(fill(0));
        let more = json!({"who": "more"});
        assert!(!looks.is_repeated(&more) && !looks.is_repeated(&more));
        tokio::time::advance(SAME).await;
        assert!(fill(MOST), "the old ones make room");
    }
}
