//! Heartbeats per second: a closed loop on open sessions.
//!
//! Each session asks again when it has its answer, so that the rate is what server and players manage together. On
//! one machine they share its processors; heartbeats per processor second of the server is the figure that does not
//! depend on how fast the players are.

use std::time::Duration;

use crate::cli::BeatArgs;
use crate::outcome::Outcome;
use crate::plan::{Beat, Job, Order};
use crate::stage::{Against, Stage, to_f64};

use super::{hold_part, opening, workers};

/// Beats before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(2);

/// Runs it.
///
/// # Errors
/// When the workers fail.
pub async fn run(args: &BeatArgs, against: &Against) -> Result<Outcome, String> {
    let count = workers(against, args.sessions);
    let job = |worker| {
        let mut hold = hold_part(args.sessions, worker, count);
        hold.heartbeats = false;
        hold.beat = Beat {
            texts: args.texts,
            pace_us: u64::try_from(args.pace.as_micros()).unwrap_or(u64::MAX),
        };
        Job::Hold(hold)
    };
    let mut stage = Stage::open(against, count, ("beats", "beat"), job).await?;
    stage.step("opening", u64::from(args.sessions));
    let rate = args.rate / f64::from(count);
    stage.order(Order::Open { rate }).await?;
    stage.until_done(opening(args.sessions, args.rate)).await?;
    let live = to_f64(stage.crew.live());
    stage.step("beating", u64::from(args.sessions));
    stage.order(Order::Beat).await?;
    stage.pass(WARM_UP).await?;
    let (before, beats) = (stage.weigh().await, stage.crew.total.clone());
    stage.pass(args.length).await?;
    let (after, counted) = (stage.weigh().await, stage.crew.total.clone());
    stage.order(Order::Hush).await?;
    stage.pass(Duration::from_millis(500)).await?;
    let record = stage.close().await?;
    let mut outcome = Outcome::new("beat", "beat", against, record);
    let count = to_f64(counted.count("beats") - beats.count("beats"));
    let cpu = before.zip(after).map(|(then, now)| now.cpu - then.cpu);
    outcome.figure("heartbeats", count / args.length.as_secs_f64(), "/s");
    outcome.figure("heartbeats per processor second", cpu.map(|cpu| count / cpu), "");
    outcome.figure(
        "CPU",
        cpu.map(|cpu| cpu / args.length.as_secs_f64() * 100.0),
        "% of a core",
    );
    let mut latency = counted.latencies.get("beat").cloned().unwrap_or_default();
    if let Some(earlier) = beats.latencies.get("beat") {
        latency.take_away(earlier);
    }
    outcome.figure("p50", latency.quantile_ms(0.5), "ms");
    outcome.figure("p99", latency.quantile_ms(0.99), "ms");
    outcome.figure("sessions held", live, "");
    let seen = before
        .zip(after)
        .map(|(then, now)| now.heartbeats - then.heartbeats);
    let seen = seen.filter(|seen| *seen > 0.0);
    outcome.figure(
        "counted by the server / by the players",
        seen.map(|seen| seen / count),
        "",
    );
    Ok(outcome)
}
