//! `usher-loadtest`: load for the gateway, a floor to stand it on, and peers to stand it beside.
//!
//! Owns: the boot order and the exit code. A command runs in this process, the parent; the players are in worker
//! processes ([`worker`]), which it tells what to do ([`plan`]) and listens to ([`crew`]). What one run against one
//! server does is a [`scenario`] on a [`stage`]; what came of it is an [`outcome`], which [`report`] writes.

pub mod cli;
pub mod compare;
pub mod crew;
pub mod dice;
pub mod floor;
pub mod floor_process;
pub mod gauge;
pub mod host;
pub mod latency;
pub mod outcome;
pub mod output;
pub mod plan;
pub mod report;
pub mod scenario;
pub mod setup;
pub mod stage;
pub mod target;
pub mod trust;
pub mod verdict;
pub mod worker;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, Common};
use outcome::{Outcome, Report};
use setup::Servers;

/// Why a command did not end well.
enum Failure {
    /// The options are no good.
    Usage(String),
    /// Anything else.
    Run(String),
    /// All went as it should, and the limit was broken.
    Broken,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Run(text)
    }
}

/// The process: arguments in, exit code out.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Worker) {
        return exit(worker::run().map_err(Failure::Run));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return exit(Err(Failure::Run(error.to_string()))),
    };
    worker::raise_file_limit();
    let result = runtime.block_on(async {
        if let Command::Floor(args) = cli.command {
            // It ends by a signal, which is no failure of it.
            return floor::run(args).await.map_err(Failure::Run);
        }
        tokio::select! {
            result = command(cli.command) => result,
            // What was started ends with this process.
            _ = tokio::signal::ctrl_c() => Err(Failure::Run("interrupted".to_owned())),
        }
    });
    exit(result)
}

fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Broken) => ExitCode::from(1),
        Err(Failure::Run(text)) => {
            output::note(&format!("usher-loadtest: {text}"));
            ExitCode::from(1)
        }
        Err(Failure::Usage(text)) => {
            output::note(&format!("usher-loadtest: {text}"));
            ExitCode::from(2)
        }
    }
}

/// Runs a scenario against the gateway, then against the floor when there is one, and shows both.
macro_rules! both {
    ($scenario:path, $args:expr, $common:expr, $sessions:expr) => {{
        let servers = servers(&$common, $sessions, 1).await?;
        let mut runs = vec![$scenario(&$args, &servers.gateway).await?];
        if let Some(floor) = &servers.floor {
            runs.push($scenario(&$args, floor).await?);
        }
        show(runs, &$common)
    }};
}

async fn command(command: Command) -> Result<(), Failure> {
    match command {
        Command::Hold { args, common } => both!(scenario::hold::run, args, common, args.sessions),
        Command::Ramp { args, common } => both!(scenario::ramp::run, args, common, args.in_flight),
        Command::Beat { args, common } => both!(scenario::beat::run, args, common, args.sessions),
        Command::Zap { args, common } => both!(scenario::zap::run, args, common, 1),
        Command::Soak { args, common } => both!(scenario::soak::run, args, common, args.sessions),
        Command::Contend { args, common } => {
            let servers = alone(&common, args.accounts.saturating_mul(args.players)).await?;
            show(
                vec![scenario::contend::run(&args, &servers.gateway).await?],
                &common,
            )
        }
        Command::Takeover { args, common } => {
            let servers = alone(&common, args.accounts.saturating_mul(args.limit)).await?;
            show(
                vec![scenario::takeover::run(&args, &servers.gateway).await?],
                &common,
            )
        }
        Command::Storm { args, common } => storm(args, &common).await,
        Command::Compare(args) => Ok(compare::run(args).await?),
        // Served before.
        Command::Floor(_) | Command::Worker => Ok(()),
    }
}

async fn storm(args: cli::StormArgs, common: &Common) -> Result<(), Failure> {
    if common.floor.is_some() {
        let text = "--floor: a storm needs a floor that may be killed: use --with-floor";
        return Err(Failure::Usage(text.to_owned()));
    }
    let servers = servers(common, args.sessions, 2).await?;
    let mut runs = vec![scenario::storm::run(&args, &servers.gateway).await?];
    if let (Some(floor), Some(first)) = (&servers.floor, servers.started.first()) {
        let on_floor = cli::StormArgs {
            kill_pid: Some(first.pid),
            drain_pid: None,
            wait: None,
            ..args
        };
        runs.push(scenario::storm::run(&on_floor, floor).await?);
    }
    show(runs, common)
}

async fn servers(common: &Common, sessions: u32, floors: usize) -> Result<Servers, Failure> {
    setup::servers(common, sessions, floors)
        .await
        .map_err(Failure::Usage)
}

/// For what only a server of leases can do.
async fn alone(common: &Common, sessions: u32) -> Result<Servers, Failure> {
    if common.floor.is_some() || common.with_floor || common.protocol != target::Dialect::Usher {
        let text = "this scenario needs slots: it runs neither on a floor nor with another --protocol";
        return Err(Failure::Usage(text.to_owned()));
    }
    servers(common, sessions, 0).await
}

fn show(runs: Vec<Outcome>, common: &Common) -> Result<(), Failure> {
    let report = Report::new(runs);
    report::write(&report, common.json.as_deref(), common.html.as_deref())?;
    let broken = |run: &Outcome| run.verdict.as_ref().is_some_and(|verdict| !verdict.holds());
    if report.runs.iter().any(broken) {
        return Err(Failure::Broken);
    }
    Ok(())
}
