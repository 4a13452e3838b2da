//! `usher report`: what the ledger says, whether nodes run or not.

use clap::{Args, Subcommand, ValueEnum};

use crate::auth::is_tenant;
use crate::ledger::calendar::Day;
use crate::ledger::figures::{NoFigures, Question, Terms};
use crate::ledger::money::Currency;
use crate::ledger::report::Report;
use crate::ledger::royalties::Model;
use crate::ledger::steps::Steps;

use super::table::printable;
use super::{Failure, Settings, block_on, import, progress, table};

#[derive(Subcommand)]
pub(super) enum ReportCommand {
    /// Who is paid what for a period
    Royalties(RoyaltiesArgs),
}

#[derive(Args)]
pub(super) struct RoyaltiesArgs {
    /// The first day, as 2019-03-01
    #[arg(long, value_name = "DAY")]
    from: Day,
    /// The day after the last
    #[arg(long, value_name = "DAY")]
    to: Day,
    /// How the pool is divided
    #[arg(long, value_enum)]
    model: Models,
    /// Labels of plays in this region only; the rest is one row
    #[arg(long)]
    region: Option<String>,
    /// Fees in this currency [default: ledger.currency]
    #[arg(long)]
    currency: Option<String>,
    /// Whose report
    #[arg(long, default_value = "main")]
    tenant: String,
    /// For people, for programs, for spreadsheets
    #[arg(long, value_enum, default_value = "table")]
    format: Form,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Models {
    ProRata,
    UserCentric,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Table,
    Json,
    Csv,
}

pub(super) fn run(settings: &Settings, command: &ReportCommand) -> Result<(), Failure> {
    let ReportCommand::Royalties(args) = command;
    let config = settings.load()?;
    let terms = Terms::new(&config.ledger);
    let bad = |problem: &str| Failure::Settings(problem.to_owned());
    let currency = match &args.currency {
        Some(text) => Currency::parse(text).ok_or_else(|| bad("--currency: must be three letters"))?,
        None => terms.home.clone(),
    };
    if !is_tenant(&args.tenant) {
        return Err(bad("--tenant: no such name of a tenant"));
    }
    if args.from >= args.to {
        return Err(bad("--to: must be after --from"));
    }
    let question = Question {
        tenant: args.tenant.clone(),
        from: args.from,
        to: args.to,
        region: args.region.as_ref().map(|region| region.trim().to_uppercase()),
        currency,
    };
    let model = match args.model {
        Models::ProRata => Model::ProRata,
        Models::UserCentric => Model::UserCentric,
    };
    let report = block_on(async {
        let db = import::ready(&config).await?;
        let mut work = db
            .read_for(config.ledger.report_timeout)
            .await
            .map_err(Failure::other)?;
        let steps = Steps::default();
        let report = Report::of(&mut work, &question, model, &terms, &steps);
        let report = progress::shown(report, &steps).await;
        drop(work);
        db.close().await;
        report.map_err(|problem| match problem {
            NoFigures::NoShare(_) => Failure::Settings(problem.to_string()),
            NoFigures::Db(_) => Failure::other(problem),
        })
    })??;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    match args.format {
        Form::Json => println!("{}", report.json()),
        Form::Csv => print!("{}", String::from_utf8_lossy(&report.csv())),
        Form::Table => {
            let lines: Vec<_> = report.lines().into_iter().map(shown).collect();
            table::print(["LABEL", "SECONDS", "AMOUNT"], &lines);
        }
    }
    Ok(())
}

/// A line for people: what is no label stands in brackets.
fn shown([kind, label, seconds, amount]: [String; 4]) -> [String; 3] {
    let name = if kind == "label" {
        printable(&label)
    } else {
        format!("({kind})")
    };
    [name, seconds, amount]
}
