//! `usher content`: what can be done to the catalogue whether nodes run or not.

use std::sync::Arc;

use clap::Subcommand;

use crate::catalogue::demo;
use crate::db::{Db, Migrations};
use crate::telemetry::Metrics;

use super::{Failure, Settings, block_on};

#[derive(Subcommand)]
pub(super) enum ContentCommand {
    /// Add or remove the demo contents, in the tenant main
    #[command(subcommand)]
    Demo(DemoCommand),
}

#[derive(Subcommand)]
pub(super) enum DemoCommand {
    /// Add those that are missing
    Add,
    /// Take out those that no editor changed; they do not come back by themselves
    Remove,
}

pub(super) fn run(settings: &Settings, command: &ContentCommand) -> Result<(), Failure> {
    let config = settings.load()?;
    let ContentCommand::Demo(command) = command;
    block_on(async {
        let metrics = Arc::new(Metrics::new());
        let db = Db::open(&config.database, &config.data.dir, Migrations::all(), metrics);
        let db = db.map_err(|error| Failure::Settings(error.to_string()))?;
        db.prepare(config.database.migrate)
            .await
            .map_err(Failure::other)?;
        let (count, what) = match command {
            DemoCommand::Add => (demo::add(&db).await.map_err(Failure::other)?, "added"),
            DemoCommand::Remove => (demo::remove(&db).await.map_err(Failure::other)?, "removed"),
        };
        println!("{count} {what}");
        db.close().await;
        Ok(())
    })?
}
