//! Chance for jitter and for mixing behaviours; nothing of security rests on it.

use std::time::{Duration, UNIX_EPOCH};

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    /// A stream of chance; equal numbers of one process give equal streams within one microsecond only.
    #[must_use]
    pub fn new(stream: u64) -> Self {
        let now = UNIX_EPOCH.elapsed().map_or(1, |time| time.subsec_nanos());
        Self(u64::from(now) ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A whole number from 0 to `end`, without `end`; 0 when `end` is.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// True this often of a hundred times.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A time below `end`.
    pub fn within(&mut self, end: Duration) -> Duration {
        let micros = u64::try_from(end.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros))
    }

    /// A time from half of `around` to one and a half of it.
    pub fn about(&mut self, around: Duration) -> Duration {
        around / 2 + self.within(around)
    }
}
