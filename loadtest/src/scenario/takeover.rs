//! Take-overs: how long from the player's word to its slot.

use std::time::Duration;

use crate::cli::TakeoverArgs;
use crate::outcome::Outcome;
use crate::plan::{Job, Order, Takeover, share};
use crate::stage::{Against, Stage};

use super::{millis, opening, workers};

/// Runs it.
///
/// # Errors
/// When the workers fail, or nothing was taken over.
pub async fn run(args: &TakeoverArgs, against: &Against) -> Result<Outcome, String> {
    let sessions = args.accounts.saturating_mul(args.limit);
    let count = workers(against, sessions).min(args.accounts);
    let job = |worker| {
        let (first, accounts) = share(args.accounts, worker, count);
        Job::Takeover(Takeover {
            first,
            count: accounts,
            limit: args.limit,
        })
    };
    let mut stage = Stage::open(against, count, ("taken over", "takeover"), job).await?;
    stage.step("filling the accounts", u64::from(sessions));
    stage.order(Order::Open { rate: 0.0 }).await?;
    stage.until_done(opening(sessions, 50.0)).await?;
    stage.step("taking over", 0);
    let order = Order::Rate {
        rate: args.rate / f64::from(count),
        for_ms: millis(args.length),
    };
    stage.order(order).await?;
    stage.until_done(args.length + Duration::from_secs(60)).await?;
    let record = stage.close().await?;
    let mut outcome = Outcome::new("takeover", "takeover", against, record);
    let Some(quantiles) = outcome.latencies.get("takeover").copied() else {
        let causes = outcome.failures.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(format!("nothing was taken over: {causes}"));
    };
    outcome.figure("take-overs", crate::stage::to_f64(quantiles.count), "");
    outcome.figure("p50", quantiles.p50_ms, "ms");
    outcome.figure("p99", quantiles.p99_ms, "ms");
    outcome.figure("longest", quantiles.max_ms, "ms");
    if let Some(whole) = outcome.latencies.get("start to grant").copied() {
        outcome.figure("with connecting: p50", whole.p50_ms, "ms");
        outcome.figure("with connecting: p99", whole.p99_ms, "ms");
    }
    Ok(outcome)
}
