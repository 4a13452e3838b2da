//! Latencies: recorded in a worker, carried to the parent as text, merged there without loss.
//!
//! Owns: the range and precision of every histogram of the tool. Does not: take times.
//! Called by: the workers' book and the reports.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest time told apart, in microseconds; longer ones count as this.
const LONGEST_US: u64 = 600_000_000;

/// Significant decimal digits.
const DIGITS: u8 = 3;

/// A histogram of times in microseconds, 1 us to 10 minutes with three digits.
#[derive(Clone)]
pub struct Latency(Histogram<u64>);

/// What a table shows of a histogram, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many times were taken.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 90 %.
    pub p90_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// Longest.
    pub max_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("constant bounds are good"))
    }
}

impl Latency {
    /// Takes a time in.
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US);
        self.0.saturating_record(micros.max(1));
    }

    /// Takes all of another in.
    pub fn add(&mut self, other: &Self) {
        // All have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Leaves only what was recorded since `earlier`, an older state of this histogram.
    pub fn take_away(&mut self, earlier: &Self) {
        // It never held more than now.
        let _ = self.0.subtract(&earlier.0);
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value below which this share (0 to 1) lies, in milliseconds; 0 when empty.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "ten minutes in microseconds fit")]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1_000.0
    }

    /// What a table shows.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "ten minutes in microseconds fit")]
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.0.len(),
            p50_ms: self.quantile_ms(0.5),
            p90_ms: self.quantile_ms(0.9),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            max_ms: self.0.max() as f64 / 1_000.0,
        }
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.quantiles().fmt(f)
    }
}

/// As pairs of a value and its count: only what was recorded, and merged it is exactly what it was.
impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let recorded = self.0.iter_recorded();
        to.collect_seq(recorded.map(|step| (step.value_iterated_to(), step.count_since_last_iteration())))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut latency = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(from)? {
            let recorded = latency.0.record_n(value, count);
            recorded.map_err(|_| D::Error::custom("a time outside the histogram"))?;
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn of(times: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::default();
        for micros in times {
            latency.record(Duration::from_micros(micros));
        }
        latency
    }

    #[test]
    fn halves_sent_as_text_merge_to_the_whole() {
        let (odd, even) = (of((1..90_000).step_by(2)), of((2..90_000).step_by(2)));
        let mut merged = Latency::default();
        for half in [odd, even] {
            let text = serde_json::to_string(&half).unwrap();
            merged.add(&serde_json::from_str(&text).unwrap());
        }
        assert_eq!(merged.0, of(1..90_000).0);
        let quantiles = merged.quantiles();
        assert_eq!(quantiles.count, 89_999);
        assert!((quantiles.p50_ms - 45.0).abs() < 0.1, "{quantiles:?}");
        assert!((quantiles.p99_ms - 89.1).abs() < 0.2, "{quantiles:?}");
    }

    #[test]
    fn what_is_out_of_range_counts_as_its_end() {
        let mut latency = of([0]);
        latency.record(Duration::from_secs(100_000));
        assert_eq!(latency.quantiles().count, 2);
        assert!((latency.quantiles().max_ms - 600_000.0).abs() < 1_000.0);
        let far = format!("[[{},1]]", LONGEST_US * 10);
        assert!(serde_json::from_str::<Latency>(&far).is_err());
    }

    #[test]
    fn nothing_recorded_shows_zero() {
        assert_eq!(Latency::default().quantiles(), Quantiles::default());
    }
}
