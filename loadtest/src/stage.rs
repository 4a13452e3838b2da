//! One run against one server: the workers, the server's weight, and what both did each second.
//!
//! Owns: the clock of the run. Does not: decide what happens when (the scenarios do).
//! Called by: every scenario.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::crew::Crew;
use crate::gauge::{Gauges, Reading, Source};
use crate::output::Progress;
use crate::plan::{Job, Order, Tick};
use crate::target::Target;

/// Seconds that are kept; a longer run keeps every second, fourth, .. of them.
const MOST_SECONDS: usize = 7_200;

/// Longest wait for players to close in order.
const LEAVING: Duration = Duration::from_secs(90);

/// A server, or several that share the accounts, and where their weight is read.
#[derive(Clone, Debug)]
pub struct Against {
    /// What the report calls it.
    pub label: String,
    /// Whom to call.
    pub target: Target,
    /// Where its weight is read.
    pub sources: Vec<Source>,
    /// Worker processes; 0: as many as the work asks for.
    pub workers: u32,
}

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Second {
    /// Since the start of the run, in seconds.
    pub at_s: f64,
    /// Open sessions, as the players count.
    pub sessions: u64,
    /// Admissions, or turns of heartbeats, in this second.
    pub per_second: f64,
    /// Median latency in this second; none when nothing was timed.
    pub p50_ms: Option<f64>,
    /// 99 % of the latencies are below.
    pub p99_ms: Option<f64>,
    /// Resident memory, in MiB.
    pub rss_mib: Option<f64>,
    /// Processors in use by the server (1: one whole).
    pub cpu: Option<f64>,
    /// What failed in this second.
    pub failures: u64,
}

/// A run under way.
pub struct Stage {
    /// The workers.
    pub crew: Crew,
    gauges: Gauges,
    progress: Progress,
    begun: Instant,
    /// When it began, since 1970.
    began: Duration,
    seconds: Vec<Second>,
    last: (Instant, Option<Reading>),
    every: u32,
    skipped: u32,
    goal: u64,
    shown: &'static str,
    watched: &'static str,
}

impl Stage {
    /// Starts the workers. `watched` names the latency of the plots, `shown` what is counted per second.
    ///
    /// # Errors
    /// When a worker cannot be started.
    pub async fn open(
        against: &Against,
        workers: u32,
        (shown, watched): (&'static str, &'static str),
        job: impl Fn(u32) -> Job,
    ) -> Result<Self, String> {
        let mut gauges = Gauges::new(against.sources.clone());
        let first = gauges.read().await;
        if first.is_some_and(|reading| reading.rss == 0.0 && reading.round_trips == 0.0) {
            return Err(format!(
                "{}: its weight cannot be read; is --admin or --pid right?",
                against.label
            ));
        }
        let crew = Crew::start(workers, &against.target, job).await?;
        let now = Instant::now();
        Ok(Self {
            crew,
            gauges,
            progress: Progress::new(&against.label),
            begun: now,
            began: UNIX_EPOCH.elapsed().unwrap_or_default(),
            seconds: Vec::new(),
            last: (now, first),
            every: 1,
            skipped: 0,
            goal: 0,
            shown,
            watched,
        })
    }

    /// Names what begins now; `goal` sessions are the end of the bar, 0: it counts time.
    pub fn step(&mut self, what: &str, goal: u64) {
        self.goal = goal;
        self.progress.step(what, goal);
    }

    /// Tells all workers.
    ///
    /// # Errors
    /// When one has died.
    pub async fn order(&mut self, order: Order) -> Result<(), String> {
        self.crew.order(order).await
    }

    /// The server's weight now.
    pub async fn weigh(&mut self) -> Option<Reading> {
        self.gauges.read().await
    }

    /// Since the start of the run, in seconds.
    #[must_use]
    pub fn now_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When a worker dies.
    pub async fn pass(&mut self, time: Duration) -> Result<(), String> {
        self.wait(Instant::now() + time, |_| false).await.map(|_| ())
    }

    /// Lets time pass until all orders are carried out; whether they were in time.
    ///
    /// # Errors
    /// When a worker dies.
    pub async fn until_done(&mut self, limit: Duration) -> Result<bool, String> {
        self.wait(Instant::now() + limit, Crew::is_done).await
    }

    /// Lets time pass until something is so; whether it came to be in time.
    ///
    /// # Errors
    /// When a worker dies.
    pub async fn wait(&mut self, end: Instant, so: impl Fn(&Crew) -> bool) -> Result<bool, String> {
        let next = self.last.0 + Duration::from_secs(1);
        let mut ticks = interval_at(next.max(Instant::now()), Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        loop {
            if so(&self.crew) {
                return Ok(true);
            }
            tokio::select! {
                heard = self.crew.listen() => heard?,
                _ = ticks.tick() => self.second(begun, end).await,
                () = tokio::time::sleep_until(end) => return Ok(so(&self.crew)),
            }
        }
    }

    /// Notes one second.
    async fn second(&mut self, step: Instant, end: Instant) {
        let reading = self.gauges.read().await;
        let now = Instant::now();
        let (before, last) = self.last;
        let length = (now - before).as_secs_f64().max(0.001);
        self.last = (now, reading);
        let recent: Tick = std::mem::take(&mut self.crew.recent);
        let latency = recent
            .latencies
            .get(self.watched)
            .filter(|latency| !latency.is_empty());
        let cpu = reading
            .zip(last)
            .map(|(now, then)| ((now.cpu - then.cpu) / length).max(0.0));
        let second = Second {
            at_s: (now - self.begun).as_secs_f64(),
            sessions: self.crew.live(),
            per_second: to_f64(recent.count(self.shown)) / length,
            p50_ms: latency.map(|latency| latency.quantile_ms(0.5)),
            p99_ms: latency.map(|latency| latency.quantile_ms(0.99)),
            rss_mib: reading.map(|reading| reading.rss / 1_048_576.0),
            cpu,
            failures: recent.failed(),
        };
        self.show(&second, step, end);
        self.keep(second);
    }

    fn show(&self, second: &Second, step: Instant, end: Instant) {
        let mut message = format!("{:.0}/s", second.per_second);
        if let Some(p99) = second.p99_ms {
            message += &format!(", p99 {p99:.1} ms");
        }
        if let Some((rss, cpu)) = second.rss_mib.zip(second.cpu) {
            message += &format!(", {rss:.0} MiB, {:.0} % CPU", cpu * 100.0);
        }
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        if self.goal == 0 {
            message += &format!(", {} s, at most {left} s more", step.elapsed().as_secs());
        }
        self.progress.at(second.sessions, message);
    }

    /// Bounded: a soak of a day must not fill the parent.
    fn keep(&mut self, second: Second) {
        self.skipped += 1;
        if self.skipped < self.every {
            return;
        }
        self.skipped = 0;
        self.seconds.push(second);
        if self.seconds.len() >= MOST_SECONDS {
            let mut odd = false;
            self.seconds.retain(|_| {
                odd = !odd;
                odd
            });
            self.every *= 2;
        }
    }

    /// Lets all players close in order, so that no slot stays behind, and ends the workers; all that was told, and
    /// each second.
    ///
    /// # Errors
    /// When a worker dies before it has told its last.
    pub async fn close(mut self) -> Result<Record, String> {
        if !self.crew.is_over() {
            self.step("leaving", 0);
            self.order(Order::Leave).await?;
            // Who does not manage is cut.
            self.until_done(LEAVING).await?;
        }
        let end = Instant::now() + Duration::from_secs(30);
        let ended = tokio::time::timeout_at(end, self.crew.end()).await;
        ended.map_err(|_| "the workers do not end".to_owned())??;
        Ok(Record {
            began: self.began,
            took: self.begun.elapsed(),
            total: std::mem::take(&mut self.crew.total),
            seconds: self.seconds,
        })
    }
}

/// What a run left behind.
pub struct Record {
    /// When it began, since 1970.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
    /// Everything that was told.
    pub total: Tick,
    /// Each second.
    pub seconds: Vec<Second>,
}

/// A count as a number to divide.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn to_f64(count: u64) -> f64 {
    count as f64
}
