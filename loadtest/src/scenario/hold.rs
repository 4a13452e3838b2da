//! Idle sessions: what each weighs, and what it takes to keep them.

use std::time::Duration;

use crate::cli::HoldArgs;
use crate::gauge::Reading;
use crate::outcome::Outcome;
use crate::plan::{Job, Order};
use crate::stage::{Against, Stage, to_f64};

use super::{hold_part, opening, workers};

/// Starts per second of a storm: more than any server takes, so that it comes as fast as it can.
const STORM_RATE: f64 = 100_000.0;

/// Runs it.
///
/// # Errors
/// When the workers fail, or no session could be opened.
pub async fn run(args: &HoldArgs, against: &Against) -> Result<Outcome, String> {
    let count = workers(against, args.sessions);
    let job = |worker| {
        let mut hold = hold_part(args.sessions, worker, count);
        hold.heartbeats = !args.no_heartbeats;
        Job::Hold(hold)
    };
    let mut stage = Stage::open(against, count, ("admitted", "start"), job).await?;
    let before = stage.weigh().await;
    let opened = open(&mut stage, args.sessions, args.rate).await?;
    let settled = settle(&mut stage, args.settle).await?;
    let live = to_f64(stage.crew.live());
    if live == 0.0 {
        let causes = stage
            .crew
            .total
            .failures
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        return Err(format!("no session could be opened: {causes}"));
    }
    stage.step("holding", u64::from(args.sessions));
    stage.pass(args.length).await?;
    let after = stage.weigh().await;
    let mut storms = None;
    for number in 1..=args.storms {
        stage.step(&format!("storm {number}: leaving"), u64::from(args.sessions));
        stage.order(Order::Leave).await?;
        stage.until_done(Duration::from_secs(90)).await?;
        stage.step(&format!("storm {number}: coming"), u64::from(args.sessions));
        open(&mut stage, args.sessions, STORM_RATE).await?;
        if number == args.storms {
            settle(&mut stage, args.settle).await?;
            stage.pass(args.length).await?;
            storms = stage
                .weigh()
                .await
                .map(|reading| (reading, to_f64(stage.crew.live())));
        }
    }
    let record = stage.close().await?;
    let mut outcome = Outcome::new("hold", "start", against, record);
    outcome.figure("sessions held", live, "");
    let each = |reading: Option<Reading>, live: f64| Some((reading?.rss - before?.rss) / live / 1_024.0);
    let weight = each(after, live);
    outcome.figure("RSS per session", weight, "KiB");
    outcome.figure(
        "CPU while idle",
        spent(settled, after, args.length).map(|share| share * 100.0),
        "% of a core",
    );
    let started = spent(opened.0, opened.1, Duration::from_secs(1)).map(|cpu| cpu / live * 1e6);
    outcome.figure("CPU per start", started, "us");
    let trips = settled
        .zip(after)
        .map(|(then, now)| now.round_trips - then.round_trips);
    let trips = trips.filter(|_| after.is_some_and(|reading| reading.round_trips > 0.0));
    let per_hour = trips.map(|trips| trips / args.length.as_secs_f64() * 3_600.0);
    outcome.figure("Redis round trips per hour", per_hour, "");
    outcome.figure(
        "Redis round trips per session-hour",
        per_hour.map(|trips| trips / live),
        "",
    );
    outcome.figure("RSS", after.map(|reading| reading.rss / 1_048_576.0), "MiB");
    if let Some((reading, live)) = storms {
        let after_storms = each(Some(reading), live);
        outcome.figure("RSS per session after storms", after_storms, "KiB");
        outcome.figure(
            "RSS after storms / before",
            after_storms.zip(weight).map(|(now, then)| now / then),
            "",
        );
    }
    Ok(outcome)
}

/// Opens all; the server's weight before and after.
async fn open(
    stage: &mut Stage,
    sessions: u32,
    rate: f64,
) -> Result<(Option<Reading>, Option<Reading>), String> {
    let workers = f64::from(stage.crew.size());
    let before = stage.weigh().await;
    stage.step("opening", u64::from(sessions));
    stage.order(Order::Open { rate: rate / workers }).await?;
    stage.until_done(opening(sessions, rate.min(200.0))).await?;
    Ok((before, stage.weigh().await))
}

async fn settle(stage: &mut Stage, time: Duration) -> Result<Option<Reading>, String> {
    stage.step("settling", 0);
    stage.pass(time).await?;
    Ok(stage.weigh().await)
}

/// Processors in use between two readings.
fn spent(from: Option<Reading>, to: Option<Reading>, length: Duration) -> Option<f64> {
    Some((to?.cpu - from?.cpu) / length.as_secs_f64().max(0.001))
}
