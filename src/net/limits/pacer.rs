//! A rate for each of many keys, for rooms above that count something of their own.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::Rate;
use super::table::Table;

/// How fast each key may do something. Its memory is bounded, and keeps no key in the clear.
#[derive(Debug)]
pub struct Pacer {
    table: Table<u64>,
    hasher: RandomState,
}

impl Pacer {
    /// `per_second`, and `burst` at once; 0 for either is no limit.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self::of(Rate::new(per_second, burst))
    }

    /// One at a time, with this pause between two; zero is no limit.
    #[must_use]
    pub fn every(pause: Duration) -> Self {
        Self::of(Rate::every(pause))
    }

    fn of(rate: Rate) -> Self {
        Self {
            table: Table::new(0, rate),
            hasher: RandomState::new(),
        }
    }

    /// Counts one of this key.
    ///
    /// # Errors
    /// How long until one is allowed again; never zero.
    pub fn check(&self, key: impl Hash, now: Instant) -> Result<(), Duration> {
        self.table.try_take(self.hasher.hash_one(key), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_apart() {
        let (pacer, slow, free) = (
            Pacer::new(10, 2),
            Pacer::every(Duration::from_secs(3)),
            Pacer::every(Duration::ZERO),
        );
        let now = Instant::now();
        assert_eq!(pacer.check("a", now), Ok(()));
        assert_eq!(pacer.check("a", now), Ok(()));
        assert_eq!(pacer.check("a", now), Err(Duration::from_millis(100)));
        assert_eq!(pacer.check("b", now), Ok(()));
        assert_eq!(slow.check(("a", "m1"), now), Ok(()));
        assert_eq!(
            slow.check(("a", "m1"), now + Duration::from_secs(1)),
            Err(Duration::from_secs(2))
        );
        assert_eq!(slow.check(("a", "m2"), now), Ok(()));
        for _ in 0..9 {
            assert_eq!(free.check("a", now), Ok(()));
        }
    }
}
