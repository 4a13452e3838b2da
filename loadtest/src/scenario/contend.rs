//! More players than slots: whether the limit ever broke, by the players' own log.

use std::time::Duration;

use crate::cli::ContendArgs;
use crate::crew::Crew;
use crate::outcome::Outcome;
use crate::plan::{Contend, Job, share};
use crate::stage::{Against, Stage, to_f64};

use super::{millis, workers};

/// What is under way when the time is over gets this long.
const AFTER: Duration = Duration::from_secs(60);

/// Runs it.
///
/// # Errors
/// When the workers fail, or nothing was put to the test: then it proves nothing.
pub async fn run(args: &ContendArgs, against: &Against) -> Result<Outcome, String> {
    // An account's players must share a clock, so that a worker has all of them.
    let count = workers(against, args.accounts.saturating_mul(args.players)).min(args.accounts);
    let job = |worker| {
        let (first, accounts) = share(args.accounts, worker, count);
        Job::Contend(Contend {
            first,
            count: accounts,
            players: args.players,
            limit: args.limit,
            for_ms: millis(args.length),
            play_ms: millis(args.play),
            cut_percent: args.cut,
        })
    };
    let mut stage = Stage::open(against, count, ("admitted", "start"), job).await?;
    stage.step("contending", u64::from(args.accounts.saturating_mul(args.limit)));
    let end = tokio::time::Instant::now() + args.length + AFTER;
    stage.wait(end, Crew::is_over).await?;
    let record = stage.close().await?;
    let mut outcome = Outcome::new("contend", "start", against, record);
    let Some(verdict) = outcome.verdict.clone() else {
        return Err("no worker judged its accounts".to_owned());
    };
    if args.limit > 0 && verdict.full == 0 {
        let causes = outcome.failures.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(format!(
            "no account ever had {} players: nothing was proved ({causes})",
            args.limit
        ));
    }
    outcome.figure("limit", f64::from(args.limit), "");
    outcome.figure("most at once", to_f64(verdict.most), "");
    outcome.figure("grants beyond the limit", to_f64(verdict.broken), "");
    outcome.figure("grants", to_f64(verdict.grants), "");
    outcome.figure("provisional grants, not judged", to_f64(verdict.provisional), "");
    outcome.figure("accounts that were full", to_f64(verdict.full), "");
    let denied = outcome.counts.get("denied").copied().unwrap_or(0);
    outcome.figure("refusals", to_f64(denied), "");
    Ok(outcome)
}
