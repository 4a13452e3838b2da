//! What came of a run, ready to be shown.
//!
//! Owns: figures, their units and the ratios between two servers. Does not: measure or draw.
//! Called by: the scenarios, which fill it, and [`crate::report`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::latency::Quantiles;
use crate::stage::{Against, Record, Second};
use crate::verdict::Verdict;

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

/// One server under one scenario.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// What was run.
    pub scenario: &'static str,
    /// What the server is called.
    pub against: String,
    /// Where it is.
    pub urls: Vec<String>,
    /// When it began, RFC 3339.
    pub began: String,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Numbers, the most telling first.
    pub figures: Vec<Figure>,
    /// Latencies by what was timed.
    pub latencies: BTreeMap<String, Quantiles>,
    /// What was counted.
    pub counts: BTreeMap<String, u64>,
    /// What failed, by cause.
    pub failures: BTreeMap<String, u64>,
    /// Whether the limit held, where that was tried.
    pub verdict: Option<Verdict>,
    /// What the latency over time is of.
    pub watched: &'static str,
    /// Each second.
    pub seconds: Vec<Second>,
}

/// Everything of one command.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// This tool's version.
    pub version: &'static str,
    /// The command line, without secrets.
    pub command: String,
    /// The gateway first, then the floor when it was measured.
    pub runs: Vec<Outcome>,
    /// First run / second run, by figure.
    pub ratios: Vec<Figure>,
}

impl Outcome {
    /// What the workers told.
    #[must_use]
    pub fn new(scenario: &'static str, watched: &'static str, against: &Against, record: Record) -> Self {
        let began = std::time::UNIX_EPOCH + record.began;
        let urls = against.target.nodes.iter();
        let latencies = record.total.latencies.iter();
        Self {
            scenario,
            against: against.label.clone(),
            urls: urls
                .map(|node| format!("wss://{}{}", node.address, without_query(&node.path)))
                .collect(),
            began: humantime::format_rfc3339_seconds(began).to_string(),
            took_s: record.took.as_secs_f64(),
            figures: Vec::new(),
            latencies: latencies
                .map(|(name, latency)| (name.clone(), latency.quantiles()))
                .collect(),
            counts: record.total.counts,
            failures: record.total.failures,
            verdict: record.total.verdict,
            watched,
            seconds: record.seconds,
        }
    }

    /// Adds a figure; one that could not be measured is left out.
    pub fn figure(&mut self, name: impl Into<String>, value: impl Into<Option<f64>>, unit: &'static str) {
        if let Some(value) = value.into().filter(|value| value.is_finite()) {
            let name = name.into();
            self.figures.push(Figure { name, value, unit });
        }
    }

    /// A figure's value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|figure| figure.name == name)
            .map(|figure| figure.value)
    }

    /// All that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

impl Report {
    /// Of runs of the same scenario.
    #[must_use]
    pub fn new(runs: Vec<Outcome>) -> Self {
        let ratios = match runs.as_slice() {
            [first, second, ..] => ratios(first, second),
            _ => Vec::new(),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            command: command_line(std::env::args().skip(1)),
            runs,
            ratios,
        }
    }
}

fn ratios(first: &Outcome, second: &Outcome) -> Vec<Figure> {
    let shared = first.figures.iter().filter_map(|figure| {
        let other = second.value(&figure.name).filter(|value| *value != 0.0)?;
        Some(Figure {
            name: figure.name.clone(),
            value: figure.value / other,
            unit: "",
        })
    });
    shared.collect()
}

/// The arguments, with what follows `--token` masked.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut shown = vec!["usher-loadtest".to_owned()];
    let mut secret = false;
    for argument in arguments {
        if argument.starts_with("--token=") {
            shown.push("--token=***".to_owned());
        } else {
            shown.push(if secret {
                "***".to_owned()
            } else {
                argument.clone()
            });
        }
        secret = argument == "--token";
    }
    shown.join(" ")
}

fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// Growth of memory over time by least squares over the later half, in MiB per hour; none with less than ten points.
#[must_use]
pub fn drift(seconds: &[Second]) -> Option<f64> {
    let later = &seconds[seconds.len() / 2..];
    let points: Vec<(f64, f64)> = later
        .iter()
        .filter_map(|second| Some((second.at_s, second.rss_mib?)))
        .collect();
    if points.len() < 10 {
        return None;
    }
    let count = crate::stage::to_f64(points.len() as u64);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let below: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    (below > 0.0).then(|| above / below * Duration::from_secs(3_600).as_secs_f64())
}

/// The middle one; of an even number the mean of the two in the middle. None of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        Some(f64::midpoint(
            *sorted.get(middle.checked_sub(1)?)?,
            sorted[middle],
        ))
    } else {
        sorted.get(middle).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[f64::NAN, 1.0]), Some(1.0));
    }

    #[test]
    fn drift_is_the_slope_of_the_later_half() {
        let second = |at: u32, rss: f64| Second {
            at_s: f64::from(at),
            rss_mib: Some(rss),
            ..Second::default()
        };
        let early = (0..100).map(|at| second(at, f64::from(at) * 50.0));
        let late = (100..200).map(|at| second(at, 5_000.0 + f64::from(at) / 3_600.0));
        let seconds: Vec<Second> = early.chain(late).collect();
        assert!((drift(&seconds).unwrap() - 1.0).abs() < 0.01);
        assert_eq!(drift(&seconds[..10]), None);
    }

    #[test]
    fn ratios_are_of_what_both_have() {
        let outcome = |names: &[(&str, f64)]| {
            let mut outcome = Outcome::default();
            for (name, value) in names {
                outcome.figure(*name, *value, "");
            }
            outcome
        };
        let report = Report::new(vec![
            outcome(&[("a", 3.0), ("b", 1.0), ("c", 1.0)]),
            outcome(&[("a", 2.0), ("b", 0.0)]),
        ]);
        assert_eq!(report.ratios.len(), 1);
        assert!((report.ratios[0].value - 1.5).abs() < 1e-9);
    }

    #[test]
    fn no_token_is_shown() {
        let arguments = ["hold", "--token", "eyJ.a", "--token=eyJ.b", "-k"].map(str::to_owned);
        assert_eq!(
            command_line(arguments.into_iter()),
            "usher-loadtest hold --token *** --token=*** -k"
        );
    }
}
