//! `usher database`: the tables, whether nodes run or not.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;

use crate::db::{Db, Migrations};
use crate::telemetry::Metrics;

use super::{Failure, Settings, block_on, table};

#[derive(Subcommand)]
pub(super) enum DatabaseCommand {
    /// List the steps that make the tables, and whether each is applied
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Apply every step that is missing (a node that starts does the same, unless database.migrate is off)
    Migrate,
    /// Write all rows of an SQLite database to a new file, while nodes run (PostgreSQL has `pg_dump` for it)
    Backup {
        /// The file, which must not be there yet
        file: PathBuf,
    },
    /// Undo the steps after the given one, the newest first. What only they stored is lost: back up before
    Undo {
        /// Number of the last step that stays; 0: none
        #[arg(long, value_name = "NUMBER")]
        to: u32,
    },
}

pub(super) fn run(settings: &Settings, command: &DatabaseCommand) -> Result<(), Failure> {
    let config = settings.load()?;
    block_on(async {
        let metrics = Arc::new(Metrics::new());
        let db = Db::open(&config.database, &config.data.dir, Migrations::all(), metrics);
        let db = db.map_err(|error| Failure::Settings(error.to_string()))?;
        match command {
            DatabaseCommand::Show { json } => show(&db, *json).await?,
            DatabaseCommand::Migrate => db.migrate().await.map_err(Failure::other)?,
            DatabaseCommand::Backup { file } => db.backup(file).await.map_err(Failure::other)?,
            DatabaseCommand::Undo { to } => db.undo((*to).into()).await.map_err(Failure::other)?,
        }
        db.close().await;
        Ok(())
    })?
}

async fn show(db: &Db, json: bool) -> Result<(), Failure> {
    let steps = db.applied().await.map_err(Failure::other)?;
    if json {
        let steps = steps.iter().map(
            |step| serde_json::json!({"number": step.number, "name": step.name, "applied": step.applied}),
        );
        println!("{}", serde_json::Value::from_iter(steps));
        return Ok(());
    }
    let rows: Vec<_> = steps
        .iter()
        .map(|step| {
            let applied = if step.applied { "yes" } else { "no" };
            [step.number.to_string(), step.name.to_string(), applied.to_owned()]
        })
        .collect();
    table::print(["STEP", "NAME", "APPLIED"], &rows);
    Ok(())
}
