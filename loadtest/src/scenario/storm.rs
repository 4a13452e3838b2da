//! A node dies or drains, and everybody comes back.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::cli::StormArgs;
use crate::crew::Crew;
use crate::outcome::Outcome;
use crate::plan::{ComeBack, Job, Order};
use crate::stage::{Against, Stage, to_f64};

use super::{hold_part, millis, opening, workers};

/// All are open for so long before the storm.
const CALM: Duration = Duration::from_secs(3);

/// Nobody else was lost for so long: the storm is over.
const OVER: Duration = Duration::from_secs(2);

/// Wait for somebody else's storm when no time is given.
const WAIT: Duration = Duration::from_secs(600);

/// How a node ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill(Pid),
    Drain(Pid),
    Wait(Duration),
}

/// Runs it.
///
/// # Errors
/// When the workers fail, a process cannot be ended, or nobody was lost.
pub async fn run(args: &StormArgs, against: &Against) -> Result<Outcome, String> {
    let end = end_of(args)?;
    let count = workers(against, args.sessions);
    let spread_ms = if args.at_once { 0 } else { millis(args.spread) };
    let job = |worker| {
        let mut hold = hold_part(args.sessions, worker, count);
        hold.come_back = Some(ComeBack { spread_ms });
        hold.home = args.first_only.then_some(0);
        Job::Hold(hold)
    };
    let mut stage = Stage::open(against, count, ("back", "back"), job).await?;
    stage.step("opening", u64::from(args.sessions));
    let rate = args.rate / f64::from(count);
    stage.order(Order::Open { rate }).await?;
    stage.until_done(opening(args.sessions, args.rate)).await?;
    stage.pass(CALM).await?;
    let (live, before) = (stage.crew.live(), stage.weigh().await);
    stage.step("storm", u64::from(args.sessions));
    stage.order(Order::Mark).await?;
    let begun = Instant::now();
    let mut limit = args.patience;
    match end {
        End::Kill(pid) => signal(pid, Signal::KILL)?,
        End::Drain(pid) => signal(pid, Signal::TERM)?,
        End::Wait(time) => limit += time,
    }
    let all_back = wait(&mut stage, begun + limit).await?;
    let (after, now) = (stage.weigh().await, stage.crew.live());
    let record = stage.close().await?;
    let mut outcome = Outcome::new("storm", "back", against, record);
    let count = |name: &str| outcome.counts.get(name).copied().unwrap_or(0);
    let (lost, back, resumed) = (count("lost"), count("back"), count("resumed"));
    if lost == 0 {
        return Err("nobody lost a connection: was it the right node?".to_owned());
    }
    outcome.figure("sessions before", to_f64(live), "");
    outcome.figure("lost", to_f64(lost), "");
    outcome.figure("back", to_f64(back), "");
    outcome.figure("resumed", to_f64(resumed), "");
    outcome.figure("sessions after", to_f64(now), "");
    let since = outcome
        .latencies
        .get("back since")
        .copied()
        .filter(|_| !matches!(end, End::Wait(_)));
    let last = since.filter(|_| all_back).map(|since| since.max_ms / 1_000.0);
    outcome.figure("all back after", last, "s");
    outcome.figure("99 % back after", since.map(|since| since.p99_ms / 1_000.0), "s");
    outcome.figure("half back after", since.map(|since| since.p50_ms / 1_000.0), "s");
    // The dead node's time stays as it was last read.
    let cpu = before
        .zip(after)
        .map(|(then, now)| (now.cpu - then.cpu) / to_f64(back.max(1)) * 1e6);
    outcome.figure("CPU per return", cpu, "us");
    Ok(outcome)
}

fn end_of(args: &StormArgs) -> Result<End, String> {
    let pid = |number: u32| {
        let pid = i32::try_from(number)
            .ok()
            .filter(|pid| *pid > 1)
            .and_then(Pid::from_raw);
        pid.ok_or_else(|| format!("{number} is no process that may be ended"))
    };
    match (args.kill_pid, args.drain_pid) {
        (Some(number), _) => pid(number).map(End::Kill),
        (_, Some(number)) => pid(number).map(End::Drain),
        _ => Ok(End::Wait(args.wait.unwrap_or(WAIT))),
    }
}

fn signal(pid: Pid, signal: Signal) -> Result<(), String> {
    kill_process(pid, signal).map_err(|error| format!("process {}: {error}", pid.as_raw_nonzero()))
}

/// Waits until all who were lost are back and nobody else is lost.
async fn wait(stage: &mut Stage, end: Instant) -> Result<bool, String> {
    let all_back = |crew: &Crew| {
        let gave_up = crew.total.failures.get("gave up").copied().unwrap_or(0);
        let lost = crew.total.count("lost");
        lost > 0 && crew.total.count("back") + gave_up >= lost
    };
    loop {
        if !stage.wait(end, all_back).await? {
            return Ok(false);
        }
        let lost = stage.crew.total.count("lost");
        stage.pass(OVER).await?;
        if all_back(&stage.crew) && stage.crew.total.count("lost") == lost {
            return Ok(!stage.crew.total.failures.contains_key("gave up"));
        }
        if Instant::now() >= end {
            return Ok(false);
        }
    }
}
