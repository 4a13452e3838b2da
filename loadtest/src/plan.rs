//! What the parent and its workers say to each other: JSON lines over pipes.
//!
//! Owns: the messages. Does not: send them ([`crate::crew`] does, and [`crate::worker`]).
//!
//! A worker's stdin carries one [`Plan`], then [`Order`]s; the end of stdin is the order to end. Its stdout carries
//! a [`Tick`] every 200 ms and, as its last line, one that is `last`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::target::Target;
use crate::verdict::Verdict;

/// How often a worker tells how it stands.
pub const TICK: Duration = Duration::from_millis(200);

/// Everything a worker has to know. It carries the secret of the tokens, which therefore never is an argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// This worker's number, from 0.
    pub worker: u32,
    /// How many there are.
    pub workers: u32,
    /// Whom to call and how.
    pub target: Target,
    /// What to do.
    pub job: Job,
}

/// What a worker does. `first` and `count` are this worker's part of the accounts, a device each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Sessions that stay. Obeys `Open`, `Leave`, `Mark`, `Beat`, `Hush`.
    Hold(Hold),
    /// Starts at a rate, each left at once. Obeys `Rate`.
    Ramp(Ramp),
    /// More players than slots. Begins at once.
    Contend(Contend),
    /// Short plays. Obeys `Rate`.
    Zap(Zap),
    /// Takes slots over. Obeys `Rate`.
    Takeover(Takeover),
}

/// Sessions that stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Number of the first account.
    pub first: u32,
    /// Accounts.
    pub count: u32,
    /// Whether a player sends heartbeats when the server asks for them; if not, it only answers pings.
    pub heartbeats: bool,
    /// What a player does when its connection breaks; nothing: it stays away.
    pub come_back: Option<ComeBack>,
    /// The server at which all begin, by its number; none: they are spread.
    pub home: Option<u32>,
    /// How `Beat` beats.
    pub beat: Beat,
}

/// How players come back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ComeBack {
    /// The first attempt comes at random within this time, in milliseconds (or what `draining` asks for).
    pub spread_ms: u64,
}

/// A closed loop of frames on each socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Beat {
    /// Heartbeat messages before each ping; 0: pings only. The pong tells that all were read.
    pub texts: u32,
    /// Shortest time between two turns of one socket, in microseconds.
    pub pace_us: u64,
}

/// Starts at a rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ramp {
    /// Number of the first account.
    pub first: u32,
    /// Accounts that take turns.
    pub count: u32,
    /// How far an attempt goes.
    pub until: Until,
    /// Attempts under way at most.
    pub in_flight: u32,
}

/// How far an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Until {
    /// The TLS handshake; where sessions are resumed, the ticket is waited for too.
    Tls,
    /// The slot (with a plain WebSocket server: the upgrade).
    Granted,
}

/// More players than slots.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contend {
    /// Number of the first account.
    pub first: u32,
    /// Accounts.
    pub count: u32,
    /// Players of each, all of them trying all the time.
    pub players: u32,
    /// Slots of each.
    pub limit: u32,
    /// How long, in milliseconds.
    pub for_ms: u64,
    /// Mean play, in milliseconds.
    pub play_ms: u64,
    /// Percent of the plays that end without a word, so that the slot is kept for the lease.
    pub cut_percent: u64,
}

/// Short plays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Zap {
    /// Number of the first account.
    pub first: u32,
    /// Accounts, a player each.
    pub count: u32,
    /// Mean play, in milliseconds.
    pub play_ms: u64,
    /// Whether the next play's socket opens before the last one's is closed, so that the device replaces itself.
    pub replace: bool,
}

/// Takes slots over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Takeover {
    /// Number of the first account.
    pub first: u32,
    /// Accounts.
    pub count: u32,
    /// Slots of each, all of them taken.
    pub limit: u32,
}

/// What the parent tells a worker that is at work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Open what is not open, this many per second.
    Open {
        /// Starts per second of this worker.
        rate: f64,
    },
    /// Attempts of a schedule, whatever becomes of them.
    Rate {
        /// Attempts per second of this worker.
        rate: f64,
        /// For this long.
        for_ms: u64,
    },
    /// Close all properly.
    Leave,
    /// Times of coming back count from now.
    Mark,
    /// Beat until told to stop.
    Beat,
    /// No beats any more.
    Hush,
    /// Tell the rest and end.
    End,
}

/// What happened since the last tick.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tick {
    /// Sessions open now.
    pub live: u64,
    /// What was counted since.
    pub counts: BTreeMap<String, u64>,
    /// What failed since, by cause.
    pub failures: BTreeMap<String, u64>,
    /// Times taken since.
    pub latencies: BTreeMap<String, Latency>,
    /// Orders carried out since the start of the worker.
    pub done: u64,
    /// The judgement of this worker's accounts (`Contend`), with the last tick.
    pub verdict: Option<Verdict>,
    /// Nothing comes after it.
    pub last: bool,
}

impl Tick {
    /// Takes another worker's, or a later one, in; `live` and `done` are the caller's.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        for (cause, count) in &other.failures {
            *self.failures.entry(cause.clone()).or_default() += count;
        }
        for (name, latency) in &other.latencies {
            self.latencies.entry(name.clone()).or_default().add(latency);
        }
        if let Some(verdict) = &other.verdict {
            self.verdict.get_or_insert_default().add(verdict);
        }
    }

    /// A count; 0 when nothing was counted.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Everything that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// The part of `total` that falls to a worker: its first number and how many.
#[must_use]
pub fn share(total: u32, worker: u32, workers: u32) -> (u32, u32) {
    let at = |worker: u32| u64::from(total) * u64::from(worker) / u64::from(workers.max(1));
    let (from, to) = (at(worker), at(worker + 1));
    let small = |number: u64| u32::try_from(number).expect("a part is no larger than the whole");
    (small(from), small(to - from))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn shares_are_all_of_it_without_overlap() {
        for (total, workers) in [(10, 3), (2, 4), (60_000, 4), (u32::MAX, 7), (0, 2)] {
            let mut next = 0;
            for worker in 0..workers {
                let (first, count) = share(total, worker, workers);
                assert_eq!(first, next);
                next = first + count;
            }
            assert_eq!(next, total);
        }
    }

    #[test]
    fn ticks_add_up() {
        let mut tick = Tick::default();
        tick.counts.insert("granted".to_owned(), 2);
        tick.failures.insert("timeout".to_owned(), 1);
        let text = serde_json::to_string(&tick).unwrap();
        let mut total = tick.clone();
        total.add(&serde_json::from_str(&text).unwrap());
        assert_eq!(
            (total.count("granted"), total.failed(), total.count("denied")),
            (4, 2, 0)
        );
    }

    #[test]
    fn orders_read_as_they_were_written() {
        for order in [Order::Open { rate: 12.5 }, Order::Mark, Order::End] {
            let text = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order);
        }
    }
}
