//! What the host of a virtual machine takes: processor time that was wanted here and given to somebody else.
//!
//! Owns: reading it. Called by: the scenarios whose latencies it decides.

use std::fs;

/// Processor time of the whole machine so far, in ticks of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Processors {
    all: f64,
    stolen: f64,
}

impl Processors {
    /// Now; none where the kernel does not tell.
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// Of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq and steal.
    fn read(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let times: Option<Vec<f64>> = line
            .split_whitespace()
            .take(8)
            .map(|time| time.parse().ok())
            .collect();
        let times = times.filter(|times| times.len() == 8)?;
        Some(Self {
            all: times.iter().sum(),
            stolen: times[7],
        })
    }

    /// Share of the time since `earlier` that the host took, in per cent.
    #[must_use]
    pub fn stolen_since(self, earlier: Self) -> f64 {
        (self.stolen - earlier.stolen) / (self.all - earlier.all).max(1.0) * 100.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    #[test]
    fn the_share_is_of_all_time() {
        let then = Processors::read("cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 1\n").unwrap();
        let now = Processors::read("cpu  20 0 20 140 0 0 0 30 9 0\n").unwrap();
        assert!((now.stolen_since(then) - 18.181).abs() < 0.001);
        assert_eq!(Processors::read("cpu  1 2 3\n"), None);
        assert_eq!(Processors::read("intr 1\n"), None);
    }
}
