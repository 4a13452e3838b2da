//! Starts per second up to saturation, and the latency at half of that.
//!
//! An open loop: attempts are meant for their moments whatever became of the earlier ones, and their times count from
//! there. A step is saturated when the server no longer keeps up with it; the saturation rate is the most that was
//! admitted per second in any step.

use std::time::Duration;

use crate::cli::RampArgs;
use crate::host::Processors;
use crate::latency::Latency;
use crate::outcome::Outcome;
use crate::plan::{Job, Order, Ramp, share};
use crate::stage::{Against, Stage, to_f64};

use super::{millis, workers};

/// A step of which less than this share was admitted in time is saturated.
const KEPT_UP: f64 = 0.95;

/// So is one with a median above this.
const TOO_LATE_MS: f64 = 1_000.0;

/// Longest wait for what is under way when a step's time is over.
const AFTER: Duration = Duration::from_secs(30);

/// What came of one rate.
#[derive(Clone, Debug, Default)]
struct Step {
    offered: f64,
    admitted: f64,
    failed: u64,
    latency: Latency,
    /// Processor time of the server, in seconds.
    cpu: Option<f64>,
    count: f64,
    /// Share of the machine's processor time that its host took, in per cent.
    stolen: Option<f64>,
}

/// Runs it.
///
/// # Errors
/// When the workers fail, or nothing was ever admitted.
pub async fn run(args: &RampArgs, against: &Against) -> Result<Outcome, String> {
    let count = workers(against, 1);
    let job = |worker| {
        let (first, accounts) = share(args.accounts.max(count), worker, count);
        Job::Ramp(Ramp {
            first,
            count: accounts,
            until: args.until,
            in_flight: args.in_flight.div_ceil(count),
        })
    };
    let mut stage = Stage::open(against, count, ("admitted", "start"), job).await?;
    let mut best = Step::default();
    let half;
    if let Some(rate) = args.at {
        best = step(&mut stage, rate, args.step).await?;
        half = best.clone();
    } else {
        let mut rate = args.from;
        for _ in 0..args.steps {
            let done = step(&mut stage, rate, args.step).await?;
            let (kept, median) = (
                done.count / (done.offered * args.step.as_secs_f64()),
                done.latency.quantile_ms(0.5),
            );
            if done.admitted > best.admitted {
                best = done;
            }
            if kept < KEPT_UP || median > TOO_LATE_MS {
                break;
            }
            rate *= args.factor;
        }
        half = step(&mut stage, best.admitted / 2.0, args.half).await?;
    }
    let record = stage.close().await?;
    if best.admitted == 0.0 {
        let causes = record
            .total
            .failures
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        return Err(format!("nothing was admitted: {causes}"));
    }
    let mut outcome = Outcome::new("ramp", "start", against, record);
    if args.at.is_none() {
        outcome.figure("saturation", best.admitted, "/s");
    }
    outcome.figure("per processor second", best.cpu.map(|cpu| best.count / cpu), "");
    let each = |step: &Step| step.cpu.map(|cpu| cpu / step.count * 1e6);
    outcome.figure("CPU per admission", each(&best), "us");
    let (p50, p99) = (half.latency.quantile_ms(0.5), half.latency.quantile_ms(0.99));
    let at = if args.at.is_some() { "" } else { " at half" };
    outcome.figure(format!("p50{at}"), p50, "ms");
    outcome.figure(format!("p99{at}"), p99, "ms");
    outcome.figure(format!("p99 / p50{at}"), p99 / p50, "");
    outcome.figure(format!("taken by the host{at}"), half.stolen, "%");
    outcome.figure(
        format!("CPU per admission{at}"),
        each(&half).filter(|_| args.at.is_none()),
        "us",
    );
    outcome.figure("failures at the best rate", to_f64(best.failed), "");
    Ok(outcome)
}

async fn step(stage: &mut Stage, rate: f64, length: Duration) -> Result<Step, String> {
    stage.step(&format!("{rate:.0} per second"), 0);
    let workers = f64::from(stage.crew.size());
    let (before, weight) = (stage.crew.total.clone(), stage.weigh().await);
    let processors = Processors::now();
    let order = Order::Rate {
        rate: rate / workers,
        for_ms: millis(length),
    };
    stage.order(order).await?;
    stage.until_done(length + AFTER).await?;
    let weight_after = stage.weigh().await;
    let after = &stage.crew.total;
    let count = after.count("admitted") - before.count("admitted");
    let mut latency = after.latencies.get("start").cloned().unwrap_or_default();
    if let Some(earlier) = before.latencies.get("start") {
        latency.take_away(earlier);
    }
    Ok(Step {
        offered: rate,
        admitted: to_f64(after.count("in time") - before.count("in time")) / length.as_secs_f64(),
        failed: after.failed() - before.failed(),
        latency,
        cpu: weight.zip(weight_after).map(|(then, now)| now.cpu - then.cpu),
        count: to_f64(count),
        stolen: Processors::now()
            .zip(processors)
            .map(|(now, then)| now.stolen_since(then)),
    })
}
