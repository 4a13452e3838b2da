//! What a scenario measured, printed as one line.

use std::fmt::Display;
use std::fmt::Write as _;
use std::time::Duration;

/// The figures of one scenario, printed by `print` as `figures: name key=value ..`.
pub(crate) struct Figures {
    line: String,
}

impl Figures {
    pub(crate) fn of(scenario: &str) -> Self {
        Self {
            line: format!("figures: {scenario}"),
        }
    }

    pub(crate) fn add(mut self, name: &str, value: impl Display) -> Self {
        write!(self.line, " {name}={value}").unwrap();
        self
    }

    /// Count and percentiles in milliseconds.
    pub(crate) fn times(mut self, name: &str, times: &[Duration]) -> Self {
        let [p50, p99, p100] =
            [50, 99, 100].map(|percent| percentile(times, percent).as_secs_f64() * 1_000.0);
        write!(
            self.line,
            " {name}:n={} p50={p50:.1}ms p99={p99:.1}ms p100={p100:.1}ms",
            times.len()
        )
        .unwrap();
        self
    }

    pub(crate) fn print(self) {
        eprintln!("{}", self.line);
    }
}

/// The smallest time that at least `percent` of all do not exceed (nearest rank); zero of none.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
