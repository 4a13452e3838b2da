//! How long to wait before the next attempt.
//!
//! Owns: the growth of the pause and its jitter, so that nodes that lost Redis together do not come back together.
//! Does not: sleep.
//! Called by: whatever reconnects in the link.

use std::time::Duration;

use aws_lc_rs::rand;

const FIRST: Duration = Duration::from_millis(100);

/// Full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015): anything from nothing to a bound that doubles.
#[derive(Debug)]
pub(super) struct Backoff {
    bound: Duration,
    most: Duration,
}

impl Backoff {
    /// Pauses of at most 100 ms at first and at most `most` in the end.
    pub(super) fn new(most: Duration) -> Self {
        Self {
            bound: FIRST.min(most),
            most,
        }
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = jitter(self.bound);
        self.bound = (self.bound * 2).min(self.most);
        pause
    }

    /// What was tried has worked for a while.
    pub(super) fn reset(&mut self) {
        self.bound = FIRST.min(self.most);
    }
}

/// Anything from nothing to `bound`.
pub(super) fn jitter(bound: Duration) -> Duration {
    let mut bytes = [0; 4];
    rand::fill(&mut bytes).expect("the system's random generator answers once the process has started");
    bound.mul_f64(f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_no_further() {
        let most = Duration::from_secs(2);
        let mut backoff = Backoff::new(most);
        let pauses: Vec<_> = (0..200).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= FIRST);
        assert!(pauses.iter().all(|pause| *pause <= most));
        assert!(pauses.iter().any(|pause| *pause > most / 2));
        assert!(
            pauses[10..].iter().any(|pause| *pause < most / 2),
            "the jitter is full"
        );
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
