//! The command line.
//!
//! Owns: options and their help. Does not: do anything ([`crate::scenario`] does).
//! Called by: `main`.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are the help text, which is not Markdown"
)]

mod common;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use humantime::parse_duration;

use crate::compare::CompareArgs;
use crate::floor::FloorArgs;
use crate::plan::Until;

pub use common::Common;

/// Load for a streaming-session gateway: what it holds, how fast it admits, whether it keeps its limit.
///
/// Results go to stdout, progress to stderr. Exit codes: 0 done, 1 failed or the limit was broken, 2 bad usage.
#[derive(Parser, Debug)]
#[command(name = "usher-loadtest", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Hold idle sessions: memory and processor time of each
    Hold {
        /// How.
        #[command(flatten)]
        args: HoldArgs,
        /// Against what.
        #[command(flatten)]
        common: Common,
    },
    /// Start sessions faster and faster: admissions per second up to saturation, and latency at half of it
    Ramp {
        /// How.
        #[command(flatten)]
        args: RampArgs,
        /// Against what.
        #[command(flatten)]
        common: Common,
    },
    /// Beat on open sessions as fast as the server answers: heartbeats per second
    Beat {
        /// How.
        #[command(flatten)]
        args: BeatArgs,
        /// Against what.
        #[command(flatten)]
        common: Common,
    },
    /// Try more players than an account has slots, and judge from the players' log that the limit held
    Contend {
        /// How.
        #[command(flatten)]
        args: ContendArgs,
        /// Against what.
        #[command(flatten)]
        common: Common,
    },
    /// Zap: short plays that start and stop
    Zap {
        /// How.
        #[command(flatten)]
        args: ZapArgs,
        /// Against what.
        #[command(flatten)]
        common: Common,
    },
    /// Take slots over: from the player's `takeover` to its `granted`
    Takeover {
        /// How.
        #[command(flatten)]
        args: TakeoverArgs,
        /// Against what.
        #[command(flatten)]
        common: Common,
    },
    /// Let a node die or drain and see everybody come back: time until all play again
    Storm {
        /// How.
        #[command(flatten)]
        args: StormArgs,
        /// Against what.
        #[command(flatten)]
        common: Common,
    },
    /// Hold and zap for a long time: drift of memory, and errors
    Soak {
        /// How.
        #[command(flatten)]
        args: SoakArgs,
        /// Against what.
        #[command(flatten)]
        common: Common,
    },
    /// Serve bare TLS and WebSocket with the gateway's settings: what all the rest is measured against
    Floor(FloorArgs),
    /// Measure gateway, floor and peers in one run on this machine, and write the results
    Compare(CompareArgs),
    /// Play some of the players (started by the other commands)
    #[command(hide = true)]
    Worker,
}

/// `hold`.
#[derive(Args, Debug, Clone)]
pub struct HoldArgs {
    /// Sessions, an account each
    #[arg(short = 'n', long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub sessions: u32,
    /// Starts per second
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    pub rate: f64,
    /// Pause before the measurement, for what opening left behind
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = parse_duration)]
    pub settle: Duration,
    /// How long to measure
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub length: Duration,
    /// Only answer pings; else heartbeats go out as the server asks
    #[arg(long)]
    pub no_heartbeats: bool,
    /// Afterwards let all leave and come back this often, as fast as they can, and weigh again
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub storms: u32,
}

/// `ramp`.
#[derive(Args, Debug, Clone)]
pub struct RampArgs {
    /// Starts per second of the first step
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    pub from: f64,
    /// Each step is this many times the one before
    #[arg(long, default_value_t = 1.5, value_parser = factor)]
    pub factor: f64,
    /// Length of a step
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub step: Duration,
    /// Most steps
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub steps: u32,
    /// Length of the measurement at half of the saturation rate
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub half: Duration,
    /// One step at this rate only, without a search
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub at: Option<f64>,
    /// Accounts that take turns; a session is over before its account's next one begins
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub accounts: u32,
    /// Attempts under way at most; more only wait in the server's queues
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: u32,
    /// How far each attempt goes
    #[arg(long, value_enum, default_value = "granted")]
    pub until: Until,
}

/// `beat`.
#[derive(Args, Debug, Clone)]
pub struct BeatArgs {
    /// Open sessions
    #[arg(short = 'n', long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sessions: u32,
    /// Starts per second while they open
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    pub rate: f64,
    /// How long to measure
    #[arg(long = "for", value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub length: Duration,
    /// Heartbeat messages before each ping of a turn; 0: pings alone, which renew the lease as well. A heartbeat has
    /// no answer in the protocol; the pong tells that all were read
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub texts: u32,
    /// Shortest time between two turns of a session; the gateway's default bounds a session to 50 frames per second
    #[arg(long, value_name = "TIME", default_value = "25ms", value_parser = parse_duration)]
    pub pace: Duration,
}

/// `contend`.
#[derive(Args, Debug, Clone)]
pub struct ContendArgs {
    /// Accounts
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub accounts: u32,
    /// Players of each account, all trying all the time
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub players: u32,
    /// Slots of each account, which no more may ever have
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub limit: u32,
    /// How long
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub length: Duration,
    /// Mean length of a play
    #[arg(long, value_name = "TIME", default_value = "400ms", value_parser = parse_duration)]
    pub play: Duration,
    /// Percent of the plays that end without a word: their slots are kept for the whole lease
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub cut: u64,
}

/// `zap`.
#[derive(Args, Debug, Clone)]
pub struct ZapArgs {
    /// Plays that start per second
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    pub rate: f64,
    /// How long
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub length: Duration,
    /// Mean length of a play
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub play: Duration,
    /// Accounts that take turns [default: as many as can play at once]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub accounts: Option<u32>,
    /// Each play is followed by another of the same device, opened before the first is closed
    #[arg(long)]
    pub replace: bool,
}

/// `takeover`.
#[derive(Args, Debug, Clone)]
pub struct TakeoverArgs {
    /// Accounts, each with all its slots taken
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub accounts: u32,
    /// Slots of each account
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub limit: u32,
    /// Take-overs per second
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    pub rate: f64,
    /// How long
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub length: Duration,
}

/// `storm`.
#[derive(Args, Debug, Clone)]
pub struct StormArgs {
    /// Sessions
    #[arg(short = 'n', long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sessions: u32,
    /// Starts per second while they open
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    pub rate: f64,
    /// Let this process die, by SIGKILL: the node of the first --url
    #[arg(long, value_name = "PID", group = "end")]
    pub kill_pid: Option<u32>,
    /// Let this process drain, by SIGTERM
    #[arg(long, value_name = "PID", group = "end")]
    pub drain_pid: Option<u32>,
    /// Wait until somebody else lets a node die or drain, for at most this long [default: 10m]
    #[arg(long, value_name = "TIME", group = "end", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// All sessions begin at the first --url; else they are spread over all
    #[arg(long)]
    pub first_only: bool,
    /// The first attempt to come back is at random within this time, as players do
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub spread: Duration,
    /// Come back at once instead
    #[arg(long, conflicts_with = "spread")]
    pub at_once: bool,
    /// Longest wait until all are back
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    pub patience: Duration,
}

/// `soak`.
#[derive(Args, Debug, Clone)]
pub struct SoakArgs {
    /// Sessions that stay
    #[arg(short = 'n', long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sessions: u32,
    /// Starts per second while they open
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    pub rate: f64,
    /// Short plays that start per second beside them
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    pub zaps: f64,
    /// How long
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub length: Duration,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("must be a number above 0, at most 1000000".to_owned()),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (1.05..=10.0).contains(&number) => Ok(number),
        _ => Err("must be a number from 1.05 to 10".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_input_is_refused() {
        for bad in [
            "hold --sessions 0",
            "ramp --factor 1",
            "hold --rate -1",
            "hold --rate nan",
            "hold -k --ca x",
            "hold --token a --secret-file b",
            "storm --kill-pid 1 --drain-pid 2",
            "hold --workers 0",
        ] {
            let arguments = ["usher-loadtest"].into_iter().chain(bad.split(' '));
            assert!(Cli::try_parse_from(arguments).is_err(), "{bad}");
        }
    }
}
