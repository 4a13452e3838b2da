//! Short plays.

use std::time::Duration;

use crate::cli::ZapArgs;
use crate::outcome::Outcome;
use crate::plan::{Job, Order, Zap, share};
use crate::stage::{Against, Stage, to_f64};

use super::{millis, workers};

/// The most accounts that are made without being asked for.
const MOST_ACCOUNTS: f64 = 100_000.0;

/// Runs it.
///
/// # Errors
/// When the workers fail.
pub async fn run(args: &ZapArgs, against: &Against) -> Result<Outcome, String> {
    let plays = if args.replace { 2.0 } else { 1.0 };
    // A play takes at most one and a half of its mean, and its start and stop some time too.
    let at_once = args.rate * (args.play.as_secs_f64() * 1.5 * plays + 2.0);
    let accounts = args.accounts.unwrap_or(whole(at_once));
    let count = workers(against, accounts);
    let job = |worker| Job::Zap(part(args.play, args.replace, accounts, worker, count));
    let mut stage = Stage::open(against, count, ("admitted", "start"), job).await?;
    stage.step("zapping", 0);
    let before = stage.weigh().await;
    let order = Order::Rate {
        rate: args.rate / f64::from(count),
        for_ms: millis(args.length),
    };
    stage.order(order).await?;
    stage
        .until_done(args.length + args.play * 6 + Duration::from_secs(30))
        .await?;
    let after = stage.weigh().await;
    let record = stage.close().await?;
    let mut outcome = Outcome::new("zap", "start", against, record);
    let count = |name: &str| to_f64(outcome.counts.get(name).copied().unwrap_or(0));
    let plays = count("admitted") + count("replaced");
    outcome.figure("plays", plays, "");
    outcome.figure("plays per second", plays / args.length.as_secs_f64(), "/s");
    let cpu = before
        .zip(after)
        .map(|(then, now)| (now.cpu - then.cpu) / plays * 1e6);
    outcome.figure("CPU per play", cpu, "us");
    for name in ["start", "replace", "stop"] {
        if let Some(quantiles) = outcome.latencies.get(name).copied() {
            outcome.figure(format!("{name} p50"), quantiles.p50_ms, "ms");
            outcome.figure(format!("{name} p99"), quantiles.p99_ms, "ms");
        }
    }
    Ok(outcome)
}

/// A worker's part of the zapping accounts.
pub(super) fn part(play: Duration, replace: bool, accounts: u32, worker: u32, workers: u32) -> Zap {
    let (first, count) = share(accounts, worker, workers);
    Zap {
        first,
        count,
        play_ms: millis(play),
        replace,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is bounded before"
)]
pub(super) fn whole(number: f64) -> u32 {
    number.ceil().clamp(1.0, MOST_ACCOUNTS) as u32
}
