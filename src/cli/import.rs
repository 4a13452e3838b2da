//! `usher import`: files of history into the ledger, whether nodes run or not.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::auth::is_tenant;
use crate::config::Config;
use crate::db::{Db, Migrations};
use crate::ledger::calendar::Pattern;
use crate::ledger::days;
use crate::ledger::fetch::{Fetched, Origin, is_url};
use crate::ledger::figures::Terms;
use crate::ledger::import::{
    Counts, Form, Format, ImportError, Kind, Place, Rejects, columns_of, import, separator_of,
};
use crate::outbound::Guard;
use crate::telemetry::Metrics;

use super::progress::Progress;
use super::{Failure, Settings, block_on};

#[derive(Args)]
pub(super) struct ImportArgs {
    /// What the file holds
    #[arg(value_enum)]
    kind: FileKind,
    /// The file, with a header: users `user_id;product_type;fee;origin` (at will `currency`), plays
    /// `date;user_id;region;track id;seconds`, tracks `track id;track name;label`. "-" reads stdin, https://.. asks a server,
    /// up to five times
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the file is; json: an array of records
    #[arg(long, default_value = "csv")]
    form: FileForm,
    /// The columns' names with commas between them, when the file has none and begins with the first record; of JSON, also
    /// when the keys of its records are the first record
    #[arg(long, value_name = "NAMES", value_parser = names)]
    columns: Option<Names>,
    /// What stands between fields: one character, or "tab"
    #[arg(long, default_value = ",", value_name = "CHARACTER", value_parser = separator_of)]
    separator: u8,
    /// Amounts are written 7,99
    #[arg(long)]
    decimal_comma: bool,
    /// How dates are written
    #[arg(long, default_value = "%Y-%m-%d", value_name = "FORMAT")]
    date_format: Pattern,
    /// Whose rows
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Where rows go that are not taken, with line and reason [default: FILE.rejects.csv]
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FileKind {
    Users,
    Plays,
    Tracks,
}

#[derive(Clone, Copy, ValueEnum)]
enum FileForm {
    Csv,
    Json,
}

/// Names of columns; a list of its own would be one argument for each.
#[derive(Clone)]
struct Names(Vec<String>);

fn names(text: &str) -> Result<Names, &'static str> {
    columns_of(text).map(Names)
}

pub(super) fn run(settings: &Settings, args: &ImportArgs) -> Result<(), Failure> {
    let config = settings.load()?;
    if !is_tenant(&args.tenant) {
        return Err(Failure::Settings(format!(
            "--tenant: {:?} is no name of a tenant",
            args.tenant
        )));
    }
    let terms = Terms::new(&config.ledger);
    let format = Format {
        form: match args.form {
            FileForm::Csv => Form::Csv,
            FileForm::Json => Form::Json,
        },
        columns: args.columns.clone().map(|names| names.0).unwrap_or_default(),
        separator: args.separator,
        decimal_comma: args.decimal_comma,
        dates: args.date_format.clone(),
    };
    let kind = match args.kind {
        FileKind::Users => Kind::Users,
        FileKind::Plays => Kind::Plays,
        FileKind::Tracks => Kind::Tracks,
    };
    let mut fetched = fetched(&config, &args.file)?;
    let (source, size) = match &mut fetched {
        Some(fetched) => {
            let file = fetched.source().map_err(Failure::other)?;
            let size = file.metadata().map_err(Failure::other)?.len();
            (Box::new(file) as Box<dyn Read>, Some(size))
        }
        None => open(&args.file)?,
    };
    let mut rejects = Rejects::to(rejects_file(args));
    let done = block_on(async {
        let db = ready(&config).await?;
        let place = Place {
            db: &db,
            tenant: &args.tenant,
            terms: &terms,
            scratch: &config.data.dir,
        };
        let mut progress = Progress::new(size);
        let mut watch = |bytes, counts: &Counts| progress.show(bytes, counts);
        let done = import(place, kind, &format, source, &mut rejects, &mut watch).await;
        progress.end();
        if kind == Kind::Plays && done.is_ok() {
            // Reports are right without; a node makes what is missing later.
            let _ = days::roll(&db, Some(&args.tenant), &mut |days| progress.days(days)).await;
            progress.end();
        }
        db.close().await;
        done.map_err(|error| match error {
            ImportError::Form(problem) => Failure::Settings(format!("{}: {problem}", args.file.display())),
            other => Failure::other(other),
        })
    })??;
    for (line, reason) in rejects.shown() {
        eprintln!("line {line}: {reason}");
    }
    if let Some(file) = rejects.file() {
        eprintln!("{} rows were rejected: {}", rejects.count(), file.display());
    }
    let option = rejects.missing_option(done.read);
    if let Some(option) = option {
        eprintln!("every row was rejected: {option} seems to be missing");
    }
    print(args.json, &done);
    Ok(())
}

fn print(json: bool, counts: &Counts) {
    let Counts {
        read,
        taken,
        already,
        rejected,
    } = counts;
    if json {
        let counts = json!({"read": read, "taken": taken, "already_there": already, "rejected": rejected});
        println!("{counts}");
    } else {
        println!("read {read}\ntaken {taken}\nalready there {already}\nrejected {rejected}");
    }
}

/// The database with its tables.
pub(super) async fn ready(config: &Config) -> Result<Db, Failure> {
    let metrics = Arc::new(Metrics::new());
    let db = Db::open(&config.database, &config.data.dir, Migrations::all(), metrics);
    let db = db.map_err(|error| Failure::Settings(error.to_string()))?;
    db.prepare(config.database.migrate)
        .await
        .map_err(Failure::other)?;
    Ok(db)
}

/// What a server answers, when the file is an address.
fn fetched(config: &Config, file: &Path) -> Result<Option<Fetched>, Failure> {
    let Some(url) = file.to_str().filter(|text| is_url(text)) else {
        return Ok(None);
    };
    let guard = Guard::new(&config.outbound.allowed_private);
    let origin = Origin::new(url, Path::new(""), "", guard);
    let origin = origin.map_err(|(_, problem)| Failure::Settings(format!("{url}: {problem}")))?;
    let dir = &config.data.dir;
    std::fs::create_dir_all(dir).map_err(Failure::other)?;
    let fetched = block_on(origin.fetch(dir, config.ledger.import_bytes))?;
    fetched
        .map(Some)
        .map_err(|problem| Failure::Other(format!("{url}: {problem}")))
}

fn open(file: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let named = |error: io::Error| Failure::Settings(format!("{}: {error}", file.display()));
    let source = File::open(file).map_err(named)?;
    let size = source.metadata().map_err(named)?.len();
    Ok((Box::new(source), Some(size)))
}

fn rejects_file(args: &ImportArgs) -> PathBuf {
    args.rejects.clone().unwrap_or_else(|| {
        let mut name = args.file.clone().into_os_string();
        if name == "-" {
            name = "stdin".into();
        } else if args.file.to_str().is_some_and(is_url) {
            name = "fetched".into();
        }
        name.push(".rejects.csv");
        name.into()
    })
}
