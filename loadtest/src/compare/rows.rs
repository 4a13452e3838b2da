//! The measurements of a comparison: which scenario, how large, on which servers.
//!
//! Owns: their sizes. Does not: compute what the table shows ([`super::results`]). Called by: [`super::run`].

use std::time::Duration;

use crate::cli::{BeatArgs, HoldArgs, RampArgs, StormArgs};
use crate::gauge::Gauges;
use crate::outcome::Outcome;
use crate::output;
use crate::plan::Until;
use crate::scenario;

use super::certificate::Key;
use super::servers::{Kind, Served, Yard, against};
use super::{Measured, Part, Sample, Scale};

/// Starts per second while sessions open: below what the slowest of the servers takes on two processors.
const OPENING: f64 = 300.0;

/// Handshakes per second of the comparison of full and resumed ones.
const HANDSHAKES: f64 = 200.0;

/// Servers that do the gateway's job, or its floor.
const RIVALS: [Kind; 3] = [Kind::Gateway, Kind::Floor, Kind::NodeWs];

/// Gateway processes of the largest size: a process holds 20,000 files on a usual machine.
pub(super) const SPREAD: u32 = 4;

/// Sessions by which cost is told to grow; the last is spread over several gateways.
pub(super) const SIZES: [u32; 4] = [1_000, 5_000, 15_000, 60_000];

/// Measures one part on all servers.
pub(super) async fn measure(
    part: Part,
    yard: &Yard,
    kinds: &[Kind],
    scale: Scale,
    round: u32,
    measured: &mut Measured,
) {
    let rivals = || kinds.iter().copied().filter(|kind| RIVALS.contains(kind));
    match part {
        Part::Hold => {
            for kind in kinds.iter().copied() {
                let storms = if RIVALS.contains(&kind) { 2 } else { 0 };
                let args = hold(scale, scale.sessions, storms);
                note(
                    measured,
                    round,
                    kind,
                    "hold",
                    one_hold(yard, kind, &args, 1).await,
                );
            }
        }
        Part::Ramp => {
            for kind in rivals() {
                note(measured, round, kind, "ramp", ramp(yard, kind, scale).await);
            }
        }
        Part::Tls => {
            for kind in rivals() {
                for key in [Key::P256, Key::Rsa2048] {
                    for resumed in [false, true] {
                        let run = tls_run(key, resumed);
                        note(
                            measured,
                            round,
                            kind,
                            &run,
                            handshakes(yard, kind, key, resumed, scale).await,
                        );
                    }
                }
            }
        }
        Part::Beat => {
            for kind in rivals() {
                note(measured, round, kind, "beat", beat(yard, kind, scale).await);
            }
        }
        Part::Storm => {
            for kind in rivals() {
                note(measured, round, kind, "storm", storm(yard, kind, scale).await);
            }
        }
        Part::Growth => growth(yard, kinds, scale, round, measured).await,
    }
}

/// The name of a run of handshakes.
pub(super) fn tls_run(key: Key, resumed: bool) -> String {
    format!("tls {key:?} {}", if resumed { "resumed" } else { "full" })
}

/// The name of a run of growth.
pub(super) fn growth_run(sessions: u32) -> String {
    format!("growth {sessions}")
}

/// A size, as this comparison takes it.
pub(super) fn scaled(scale: Scale, sessions: u32) -> u32 {
    if scale.quick { sessions / 10 } else { sessions }
}

fn note(measured: &mut Measured, round: u32, kind: Kind, run: &str, result: Result<Outcome, String>) {
    match result {
        Ok(outcome) => {
            let failed = outcome.failed();
            if failed > 0 {
                let causes = outcome
                    .failures
                    .iter()
                    .map(|(cause, count)| format!("{count} x {cause}"));
                let causes: Vec<String> = causes.take(5).collect();
                let text = format!("round {round}, {run}, {}: {}", kind.name(), causes.join(", "));
                output::note(&text);
                measured.failed.push(text);
            }
            let figures = outcome.figures.into_iter();
            measured.samples.extend(figures.map(|figure| Sample {
                round,
                kind,
                run: run.to_owned(),
                figure: figure.name,
                value: figure.value,
                unit: figure.unit.into(),
            }));
        }
        Err(error) => {
            let text = format!("round {round}, {run}, {}: not measured: {error}", kind.name());
            output::note(&text);
            measured.failed.push(text);
        }
    }
}

fn hold(scale: Scale, sessions: u32, storms: u32) -> HoldArgs {
    HoldArgs {
        sessions,
        rate: OPENING,
        settle: Duration::from_secs(12),
        length: Duration::from_secs(if scale.quick { 10 } else { 30 }),
        no_heartbeats: true,
        storms,
    }
}

async fn one_hold(yard: &Yard, kind: Kind, args: &HoldArgs, servers: u32) -> Result<Outcome, String> {
    let mut served = Vec::new();
    for _ in 0..servers {
        served.push(yard.start(kind, Key::P256).await?);
    }
    let redis = matches!(kind, Kind::Gateway | Kind::NodeWs).then(|| yard.redis_source());
    let all: Vec<&Served> = served.iter().collect();
    let against = against(kind, &all, args.sessions, redis).await?;
    let result = scenario::hold::run(args, &against).await;
    end(served).await;
    result
}

async fn ramp(yard: &Yard, kind: Kind, scale: Scale) -> Result<Outcome, String> {
    let served = yard.start(kind, Key::P256).await?;
    let against = against(kind, &[&served], 1, None).await?;
    let args = RampArgs {
        from: 100.0,
        factor: 1.4,
        step: Duration::from_secs(if scale.quick { 3 } else { 6 }),
        steps: 20,
        half: Duration::from_secs(if scale.quick { 5 } else { 20 }),
        at: None,
        accounts: 10_000,
        in_flight: 128,
        until: Until::Granted,
    };
    let result = scenario::ramp::run(&args, &against).await;
    served.end().await;
    result
}

async fn handshakes(
    yard: &Yard,
    kind: Kind,
    key: Key,
    resumed: bool,
    scale: Scale,
) -> Result<Outcome, String> {
    let served = yard.start(kind, key).await?;
    let mut against = against(kind, &[&served], 1, None).await?;
    against.target.resumption = resumed;
    let args = RampArgs {
        from: HANDSHAKES,
        factor: 2.0,
        step: Duration::from_secs(if scale.quick { 5 } else { 15 }),
        steps: 1,
        half: Duration::ZERO,
        at: Some(HANDSHAKES),
        accounts: 1,
        in_flight: 256,
        until: Until::Tls,
    };
    // The first handshakes are full whatever is asked, and fill the caches.
    let warm_up = RampArgs {
        step: Duration::from_secs(2),
        ..args.clone()
    };
    let result = match scenario::ramp::run(&warm_up, &against).await {
        Ok(_) => scenario::ramp::run(&args, &against).await,
        Err(error) => Err(error),
    };
    served.end().await;
    result
}

async fn beat(yard: &Yard, kind: Kind, scale: Scale) -> Result<Outcome, String> {
    let served = yard.start(kind, Key::P256).await?;
    let args = BeatArgs {
        sessions: if scale.quick { 200 } else { 1_000 },
        rate: OPENING,
        length: Duration::from_secs(if scale.quick { 5 } else { 20 }),
        texts: 0,
        pace: Duration::ZERO,
    };
    let against = against(kind, &[&served], args.sessions, None).await?;
    let result = scenario::beat::run(&args, &against).await;
    served.end().await;
    result
}

async fn storm(yard: &Yard, kind: Kind, scale: Scale) -> Result<Outcome, String> {
    let dies = yard.start(kind, Key::P256).await?;
    let stays = yard.start(kind, Key::P256).await?;
    let against = against(kind, &[&dies, &stays], scale.sessions, None).await?;
    let args = StormArgs {
        sessions: scale.sessions,
        rate: OPENING,
        kill_pid: Some(dies.pid),
        drain_pid: None,
        wait: None,
        first_only: true,
        spread: Duration::from_secs(1),
        at_once: false,
        patience: Duration::from_secs(240),
    };
    let result = scenario::storm::run(&args, &against).await;
    end(vec![dies, stays]).await;
    result
}

async fn growth(yard: &Yard, kinds: &[Kind], scale: Scale, round: u32, measured: &mut Measured) {
    if !kinds.contains(&Kind::Gateway) {
        return;
    }
    note(
        measured,
        round,
        Kind::Gateway,
        &growth_run(0),
        alone(yard, scale).await,
    );
    for size in SIZES {
        let sessions = scaled(scale, size);
        let servers = if size > SIZES[2] { SPREAD } else { 1 };
        let args = hold(scale, sessions, 0);
        let result = one_hold(yard, Kind::Gateway, &args, servers).await;
        note(measured, round, Kind::Gateway, &growth_run(size), result);
    }
}

/// What a node costs that nobody calls.
async fn alone(yard: &Yard, scale: Scale) -> Result<Outcome, String> {
    let served = yard.start(Kind::Gateway, Key::P256).await?;
    let against = against(Kind::Gateway, &[&served], 0, Some(yard.redis_source())).await?;
    let mut gauges = Gauges::new(against.sources);
    let length = Duration::from_secs(if scale.quick { 10 } else { 30 });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = gauges.read().await;
    tokio::time::sleep(length).await;
    let both = before.zip(gauges.read().await);
    let mut outcome = Outcome::default();
    let per_second = |spent: f64| spent / length.as_secs_f64();
    let trips = both.map(|(then, now)| per_second(now.round_trips - then.round_trips) * 3_600.0);
    outcome.figure("Redis round trips per hour", trips, "");
    outcome.figure(
        "CPU while idle",
        both.map(|(then, now)| per_second(now.cpu - then.cpu) * 100.0),
        "% of a core",
    );
    outcome.figure("RSS", both.map(|(_, now)| now.rss / 1_048_576.0), "MiB");
    served.end().await;
    Ok(outcome)
}

async fn end(served: Vec<Served>) {
    for served in served {
        served.end().await;
    }
}
