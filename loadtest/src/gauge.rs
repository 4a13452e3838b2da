//! What a server weighs: resident memory and processor time, from its `/metrics` or from `/proc`.
//!
//! Owns: reading. Does not: decide when. Called by: [`crate::stage`], each second and at the ends of a measurement.

use std::fs;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that does not answer by then is not measured this time.
const PATIENCE: Duration = Duration::from_secs(3);

/// Largest answer that is read, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Where a server's weight is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `http://host:port/path` of Prometheus metrics.
    Metrics {
        /// Host and port.
        authority: String,
        /// Path.
        path: String,
    },
    /// A process of this machine, with its children.
    Process(u32),
    /// Host and port of a Redis, whose scripts and other round trips are counted; it weighs nothing here.
    Redis(String),
}

/// A server's weight at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Resident memory, in bytes.
    pub rss: f64,
    /// Processor time so far, in seconds.
    pub cpu: f64,
    /// `usher_heartbeats_total`, where the server counts that.
    pub heartbeats: f64,
    /// Round trips that Redis has answered.
    pub round_trips: f64,
}

/// All servers under load.
#[derive(Debug)]
pub struct Gauges {
    sources: Vec<Source>,
    /// The last reading of each; a server that is gone keeps its time and weighs nothing.
    last: Vec<Reading>,
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        if rest.contains("://") {
            return Err("must be http://host:port".to_owned());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = authority
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        port.ok_or("must name a port, as in http://127.0.0.1:9600")?;
        Ok(Self::Metrics {
            authority: authority.to_owned(),
            path: if path.is_empty() {
                "/metrics".to_owned()
            } else {
                format!("/{path}")
            },
        })
    }
}

impl Gauges {
    /// For these servers; with none, nothing is measured.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Self {
        let last = vec![Reading::default(); sources.len()];
        Self { sources, last }
    }

    /// Reads all servers, one after the other; the sum of them.
    pub async fn read(&mut self) -> Option<Reading> {
        for (source, last) in self.sources.iter().zip(&mut self.last) {
            let read = match source {
                Source::Metrics { authority, path } => scrape(authority, path).await,
                Source::Process(pid) => weigh(*pid),
                Source::Redis(authority) => timeout(PATIENCE, round_trips(authority)).await.ok().flatten(),
            };
            *last = read.unwrap_or(Reading { rss: 0.0, ..*last });
        }
        let add = |sum: Reading, one: &Reading| Reading {
            rss: sum.rss + one.rss,
            cpu: sum.cpu + one.cpu,
            heartbeats: sum.heartbeats + one.heartbeats,
            round_trips: sum.round_trips + one.round_trips,
        };
        self.last.iter().copied().reduce(|sum, one| add(sum, &one))
    }
}

async fn scrape(authority: &str, path: &str) -> Option<Reading> {
    let text = timeout(PATIENCE, get(authority, path)).await.ok()??;
    let value = |name: &str| -> Option<f64> {
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found?.trim().parse().ok()
    };
    Some(Reading {
        rss: value("process_resident_memory_bytes")?,
        cpu: value("process_cpu_seconds_total")?,
        heartbeats: value("usher_heartbeats_total").unwrap_or(0.0),
        round_trips: 0.0,
    })
}

/// A plain GET; its body when the answer is 200. HTTP/1.0, so that the answer ends with the connection and comes in one piece.
pub(crate) async fn get(authority: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(authority).await.ok()?;
    let head = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200").then(|| body.to_owned())
}

/// Calls of a Redis that a client sent: scripts, and what is no part of one. `INFO commandstats` counts what a script
/// calls too, so that only names that no script calls are taken.
async fn round_trips(authority: &str) -> Option<Reading> {
    const SENT: [&str; 8] = [
        "evalsha",
        "eval",
        "fcall",
        "ping",
        "script|load",
        "subscribe",
        "ssubscribe",
        "role",
    ];
    let mut stream = TcpStream::connect(authority).await.ok()?;
    stream.write_all(b"INFO commandstats\r\nQUIT\r\n").await.ok()?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let calls = |line: &str| -> Option<f64> {
        let (name, values) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        SENT.contains(&name)
            .then(|| values.split(',').next()?.parse().ok())
            .flatten()
    };
    Some(Reading {
        round_trips: answer.lines().filter_map(calls).sum(),
        ..Reading::default()
    })
}

/// A process and all below it.
fn weigh(pid: u32) -> Option<Reading> {
    let mut sum = weigh_one(pid)?;
    for child in children(pid) {
        if let Some(child) = weigh(child) {
            sum.rss += child.rss;
            sum.cpu += child.cpu;
        }
    }
    Some(sum)
}

#[allow(clippy::cast_precision_loss, reason = "sizes and times of one process")]
fn weigh_one(pid: u32) -> Option<Reading> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Reading {
        rss: pages as f64 * rustix::param::page_size() as f64,
        cpu: (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64,
        ..Reading::default()
    })
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn sources_name_a_port() {
        let source: Source = "http://127.0.0.1:9600".parse().unwrap();
        assert_eq!(source, "127.0.0.1:9600/metrics".parse().unwrap());
        for bad in ["https://127.0.0.1:9600", "127.0.0.1", "http://a:b"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }

    #[test]
    fn this_process_weighs_something() {
        let reading = weigh(std::process::id()).unwrap();
        assert!(reading.rss > 1e6, "{reading:?}");
        assert!(weigh(0).is_none());
    }
}
