//! Sessions that stay and plays that come and go, for long: what creeps.

use std::time::Duration;

use crate::cli::SoakArgs;
use crate::outcome::{Outcome, drift};
use crate::plan::{ComeBack, Job, Order};
use crate::stage::{Against, Stage, to_f64};

use super::{hold_part, millis, opening, workers, zap};

/// Mean length of the short plays.
const PLAY: Duration = Duration::from_secs(5);

/// Runs it.
///
/// # Errors
/// When the workers fail.
pub async fn run(args: &SoakArgs, against: &Against) -> Result<Outcome, String> {
    let holders = workers(against, args.sessions);
    let zappers = zap::whole(args.zaps * (PLAY.as_secs_f64() * 1.5 + 2.0));
    // One worker more, which zaps; its accounts come after those that hold.
    let job = |worker| {
        if worker == holders {
            let mut part = zap::part(PLAY, false, zappers, 0, 1);
            part.first += args.sessions;
            return Job::Zap(part);
        }
        let mut hold = hold_part(args.sessions, worker, holders);
        hold.come_back = Some(ComeBack { spread_ms: 1_000 });
        Job::Hold(hold)
    };
    let mut stage = Stage::open(against, holders + 1, ("admitted", "start"), job).await?;
    stage.step("opening", u64::from(args.sessions));
    let rate = args.rate / f64::from(holders);
    stage.order(Order::Open { rate }).await?;
    stage.until_done(opening(args.sessions, args.rate)).await?;
    let begun = stage.now_s();
    let before = stage.weigh().await;
    stage.step("soaking", 0);
    let order = Order::Rate {
        rate: args.zaps,
        for_ms: millis(args.length),
    };
    stage.order(order).await?;
    stage.until_done(args.length + Duration::from_secs(60)).await?;
    let (after, live) = (stage.weigh().await, stage.crew.live());
    let record = stage.close().await?;
    let mut outcome = Outcome::new("soak", "start", against, record);
    let soaked: Vec<_> = outcome
        .seconds
        .iter()
        .filter(|second| second.at_s > begun)
        .cloned()
        .collect();
    let count = |name: &str| to_f64(outcome.counts.get(name).copied().unwrap_or(0));
    let (lost, back, plays) = (count("lost"), count("back"), count("admitted"));
    outcome.figure("drift of RSS, later half", drift(&soaked), "MiB/h");
    let grown = before
        .zip(after)
        .map(|(then, now)| (now.rss - then.rss) / 1_048_576.0);
    outcome.figure("RSS grown while soaking", grown, "MiB");
    outcome.figure("failures", to_f64(outcome.failed()), "");
    outcome.figure("connections lost", lost, "");
    outcome.figure("came back", back, "");
    outcome.figure("plays", plays - f64::from(args.sessions), "");
    outcome.figure("sessions at the end", to_f64(live), "");
    let cpu = before
        .zip(after)
        .map(|(then, now)| (now.cpu - then.cpu) / args.length.as_secs_f64() * 100.0);
    outcome.figure("CPU", cpu, "% of a core");
    Ok(outcome)
}
