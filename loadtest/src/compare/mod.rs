//! Everything in one run on one machine: gateway, floor and peers, several rounds, medians and ratios.
//!
//! Owns: the order of the measurements. Does not: measure (the scenarios do) or start servers (`servers`).
//! Called by: `main`, for the subcommand `compare`.

mod certificate;
mod machine;
mod results;
mod rows;
mod servers;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::output;

use servers::{Kind, Yard};

/// Sessions of the large measurements.
const LARGE: u32 = 15_000;

/// `compare`.
#[derive(clap::Args, Debug, Clone)]
pub struct CompareArgs {
    /// A small one: one round, a tenth of the sessions, short measurements
    #[arg(long)]
    pub quick: bool,
    /// Rounds, of which the median counts; 0 writes the table of --add anew [default: 3, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=20))]
    pub rounds: Option<u32>,
    /// The gateway's program, built with --release [default: usher beside this program]
    #[arg(long, value_name = "FILE")]
    pub usher: Option<PathBuf>,
    /// Directory of the peers' start scripts
    #[arg(long, value_name = "DIR", default_value = "loadtest/peers")]
    pub peers: PathBuf,
    /// Only these measurements
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Leave a server out
    #[arg(long, value_enum, value_delimiter = ',')]
    pub without: Vec<Kind>,
    /// The table
    #[arg(long, value_name = "FILE", default_value = "loadtest/RESULTS.md")]
    pub out: PathBuf,
    /// Every single measurement, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The --json of an earlier run on this machine, to whose rounds these are added
    #[arg(long, value_name = "FILE")]
    pub add: Option<PathBuf>,
}

/// A group of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Idle sessions, before and after storms
    Hold,
    /// Admissions
    Ramp,
    /// Full and resumed handshakes
    Tls,
    /// Heartbeats
    Beat,
    /// A node dies
    Storm,
    /// Cost by the number of sessions
    Growth,
}

impl Part {
    const ALL: [Self; 6] = [
        Self::Hold,
        Self::Ramp,
        Self::Tls,
        Self::Beat,
        Self::Storm,
        Self::Growth,
    ];
}

/// One figure of one server in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// From 1.
    pub round: u32,
    /// Which.
    pub kind: Kind,
    /// What was run, with its size.
    pub run: String,
    /// What it is.
    pub figure: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: Cow<'static, str>,
}

/// What a comparison leaves for the next.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    /// What each peer said of its version.
    versions: Vec<(Kind, String)>,
    samples: Vec<Sample>,
}

impl Saved {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// How large a comparison is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) rounds: u32,
    pub(crate) sessions: u32,
    pub(crate) quick: bool,
}

/// Runs it and writes the results.
///
/// # Errors
/// When a server or program that is needed is missing, or the results cannot be written. A single measurement that
/// fails is left out of the results, which say so.
pub async fn run(args: CompareArgs) -> Result<(), String> {
    let earlier = args
        .add
        .as_deref()
        .map(Saved::read)
        .transpose()?
        .unwrap_or_default();
    let done = earlier
        .samples
        .iter()
        .map(|sample| sample.round)
        .max()
        .unwrap_or(0);
    let scale = Scale {
        rounds: done + args.rounds.unwrap_or(if args.quick { 1 } else { 3 }),
        sessions: if args.quick { LARGE / 10 } else { LARGE },
        quick: args.quick,
    };
    let yard = Yard::new(args.usher.as_deref(), &args.peers).await?;
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| !args.without.contains(kind))
        .collect();
    let parts: &[Part] = if args.only.is_empty() {
        &Part::ALL
    } else {
        &args.only
    };
    yard.remember(earlier.versions);
    let mut measured = Measured {
        samples: earlier.samples,
        ..Measured::default()
    };
    for round in done + 1..=scale.rounds {
        for part in parts {
            output::note(&format!("round {round} of {}: {part:?}", scale.rounds));
            rows::measure(*part, &yard, &kinds, scale, round, &mut measured).await;
        }
        // What was measured so far is kept when a later round fails.
        write(&args, &yard, scale, &measured)?;
    }
    if scale.rounds == done {
        write(&args, &yard, scale, &measured)?;
    }
    output::result(&results::text(&yard, &measured.kinds(), scale, &measured));
    Ok(())
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) samples: Vec<Sample>,
    /// What failed, in words.
    pub(crate) failed: Vec<String>,
}

impl Measured {
    /// The servers of which something is known.
    fn kinds(&self) -> Vec<Kind> {
        let known = |kind: &Kind| self.samples.iter().any(|sample| sample.kind == *kind);
        Kind::ALL.into_iter().filter(known).collect()
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, kind: Kind, run: &str, figure: &str) -> Option<f64> {
        let these = self.samples.iter();
        let these =
            these.filter(|sample| sample.kind == kind && sample.run == run && sample.figure == figure);
        let values: Vec<f64> = these.map(|sample| sample.value).collect();
        crate::outcome::median(&values)
    }
}

impl Measured {
    /// Rounds of each run of a server that had fewer than the whole.
    pub(crate) fn fewer(&self, rounds: u32) -> Vec<(Kind, &str, usize)> {
        let mut of_runs = BTreeMap::<(Kind, &str), BTreeSet<u32>>::new();
        for sample in &self.samples {
            let run = of_runs.entry((sample.kind, &sample.run)).or_default();
            run.insert(sample.round);
        }
        let counted = of_runs
            .into_iter()
            .map(|((kind, run), rounds)| (kind, run, rounds.len()));
        counted
            .filter(|(_, _, count)| u32::try_from(*count).is_ok_and(|count| count < rounds))
            .collect()
    }

    /// The median of the ratios of each round: what disturbs a round disturbs both of its servers.
    pub(crate) fn ratio(&self, (own, other): (Kind, Kind), run: &str, figure: &str) -> Option<f64> {
        let of = |kind: Kind, round: u32| {
            let found = self.samples.iter().find(|sample| {
                sample.kind == kind && sample.round == round && sample.run == run && sample.figure == figure
            });
            found.map(|sample| sample.value)
        };
        let rounds = self.samples.iter().map(|sample| sample.round).max().unwrap_or(0);
        let ratios = (1..=rounds).filter_map(|round| {
            let other = of(other, round).filter(|other| *other != 0.0)?;
            Some(of(own, round)? / other)
        });
        crate::outcome::median(&ratios.collect::<Vec<f64>>())
    }
}

fn write(args: &CompareArgs, yard: &Yard, scale: Scale, measured: &Measured) -> Result<(), String> {
    let save = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    save(&args.out, results::text(yard, &measured.kinds(), scale, measured))?;
    if let Some(path) = &args.json {
        let saved = Saved {
            versions: yard
                .versions
                .lock()
                .map(|versions| versions.clone())
                .unwrap_or_default(),
            samples: measured.samples.clone(),
        };
        let text = serde_json::to_string_pretty(&saved).map_err(|error| error.to_string())?;
        save(path, text + "\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut measured = Measured::default();
        let rounds = [(1, 2.0, 1.0), (2, 8.0, 4.0), (3, 9.0, 1.0), (4, 1.0, 0.0)];
        for (round, gateway, floor) in rounds {
            for (kind, value) in [(Kind::Gateway, gateway), (Kind::Floor, floor)] {
                measured.samples.push(Sample {
                    round,
                    kind,
                    run: "ramp".to_owned(),
                    figure: "saturation".to_owned(),
                    value,
                    unit: "/s".into(),
                });
            }
        }
        let ratio = |kinds| measured.ratio(kinds, "ramp", "saturation");
        assert_eq!(ratio((Kind::Gateway, Kind::Floor)), Some(2.0));
        assert_eq!(ratio((Kind::Gateway, Kind::NodeWs)), None);
        assert_eq!(measured.median(Kind::Gateway, "ramp", "saturation"), Some(5.0));
        measured
            .samples
            .retain(|sample| sample.kind == Kind::Floor || sample.round != 2);
        assert_eq!(measured.fewer(4), [(Kind::Gateway, "ramp", 3)]);
    }
}
