//! The commands.
//!
//! Owns: arguments, exit codes, and what is printed: results on stdout, everything else on stderr.
//! Does not: hold logic of its own beyond that. Called by: `main`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what commands do"
)]

mod accounts;
mod admin_client;
mod content;
mod database;
mod health;
mod import;
mod people;
mod progress;
mod report;
mod serve;
mod sessions;
mod table;
mod token;
mod webhooks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::{AppError, certificate_paths};
use crate::config::{self, Config, DatabaseUrl, Overrides, RedisUrl};

/// Bad usage or configuration.
const USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    name = "usher",
    version,
    about = "WebSocket streaming-session gateway: the connection is the lease"
)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the settings come from; flags win over the environment, which wins over the file.
#[derive(Args, Clone, Default)]
struct Settings {
    /// Configuration file (TOML); without one the embedded defaults hold
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for players [default: 127.0.0.1:8443]
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address for metrics, health and operators [default: 127.0.0.1:9600]
    #[arg(long, global = true, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// URL of the Redis that several nodes share [default: slots in this process's memory]
    #[arg(long, global = true, value_name = "URL")]
    redis: Option<String>,
    /// URL of the PostgreSQL database that several nodes share [default: SQLite in the data directory]
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// Directory for keys and data [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Serve,
    /// Validate the configuration and print it, secrets masked
    CheckConfig,
    /// Print one signed access token
    Token(token::TokenArgs),
    /// Make the development CA and server certificate
    Certs,
    /// List or end the sessions of a running node
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// Add, list, block, unblock or limit accounts
    #[command(subcommand)]
    Accounts(accounts::AccountsCommand),
    /// Show who is told what happens, how far behind they are, and what could not be told
    Webhooks {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Work on the content catalogue
    #[command(subcommand)]
    Content(content::ContentCommand),
    /// Look at the database's tables, make or undo them
    #[command(subcommand)]
    Database(database::DatabaseCommand),
    /// Take a file of users, plays or tracks into the ledger
    Import(import::ImportArgs),
    /// Print what the ledger says
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// Ask a running node whether it may take players
    Health {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Why a command failed: exit code 2 for the settings, 1 for anything else.
enum Failure {
    Settings(String),
    Other(String),
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&cli.settings),
        Command::CheckConfig => check_config(&cli.settings),
        Command::Token(args) => token::run(&cli.settings, &args),
        Command::Certs => certs(&cli.settings),
        Command::Sessions(command) => sessions::run(&cli.settings, command),
        Command::Accounts(command) => accounts::run(&cli.settings, command),
        Command::Webhooks { json } => webhooks::run(&cli.settings, json),
        Command::Content(command) => content::run(&cli.settings, &command),
        Command::Database(command) => database::run(&cli.settings, &command),
        Command::Import(args) => import::run(&cli.settings, &args),
        Command::Report(command) => report::run(&cli.settings, &command),
        Command::Health { json } => health::run(&cli.settings, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Settings(problem)) => {
            eprintln!("usher: {problem}");
            ExitCode::from(USAGE)
        }
        Err(Failure::Other(problem)) => {
            eprintln!("usher: {problem}");
            ExitCode::FAILURE
        }
    }
}

impl Settings {
    fn load(&self) -> Result<Config, Failure> {
        let overrides = Overrides {
            listen: self.listen,
            admin_listen: self.admin_listen,
            redis: self.redis.clone().map(RedisUrl::from),
            database: self.database.clone().map(DatabaseUrl::from),
            data_dir: self.data_dir.clone(),
        };
        config::load(self.config.as_deref(), std::env::vars_os(), &overrides)
            .map_err(|error| Failure::Settings(error.to_string()))
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Settings(problem) => Self::Settings(problem),
            AppError::Machine(problem) => Self::Other(problem),
        }
    }
}

impl Failure {
    fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }
}

fn check_config(settings: &Settings) -> Result<(), Failure> {
    print!("{}", config::to_toml(&settings.load()?));
    Ok(())
}

fn certs(settings: &Settings) -> Result<(), Failure> {
    let config = settings.load()?;
    let paths = certificate_paths(&config)?;
    println!("{}\n{}", paths.cert.display(), paths.key.display());
    Ok(())
}

/// A runtime for a command that asks a running node.
fn block_on<F: Future>(work: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)?;
    Ok(runtime.block_on(work))
}
