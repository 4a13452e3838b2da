//! Chance that can be repeated: `USHER_CHAOS_SEED` chooses it, a failed test shows it.

use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014). Quality beyond "looks random" is not needed.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(stream: u64) -> Self {
        Self(seed() ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end`, without `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from).max(1))
    }
}

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(|| {
        let chosen = std::env::var("USHER_CHAOS_SEED").ok();
        chosen.map_or_else(
            || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs()),
            |text| text.parse().expect("USHER_CHAOS_SEED is a number"),
        )
    })
}
