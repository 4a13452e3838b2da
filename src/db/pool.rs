//! The pool: how the database is reached, and for how long anybody waits for it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, absolute};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{AnyPool, ConnectOptions, Executor};
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::telemetry::Metrics;

use super::sql::Query;
use super::{DbError, Migrations, OpenError, Work};

/// What a connection that failed may still take to be tidied up.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// A connection that idles this long is closed.
const IDLE: Duration = Duration::from_secs(300);
/// A connection is replaced after this time, so that a changed address or certificate is noticed.
const LIFE: Duration = Duration::from_secs(1800);
/// Statements beyond this are in the log.
const SLOW: Duration = Duration::from_millis(500);
/// How soon a database that was away is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// Steps change whole tables: they get more time than a request.
const MIGRATING: Duration = Duration::from_secs(600);
/// What has a meaning in the path of a URL.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'#').add(b'%').add(b'?');
const USER: &AsciiSet = &PATH.add(b'/').add(b':').add(b'@').add(b'[').add(b']').add(b'"');

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file of this node.
    Sqlite,
    /// A server that nodes share.
    Postgres,
}

/// The database of an installation. Clones share it.
#[derive(Clone)]
pub struct Db {
    shared: Arc<Shared>,
}

struct Shared {
    pool: AnyPool,
    engine: Engine,
    patience: Duration,
    migrations: Migrations,
    /// Whether the tables are there.
    ready: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Db {
    /// Prepares the pool of the database that `settings` name, or of `usher.db` in the data directory. Connects to nobody.
    ///
    /// # Errors
    /// A URL that is none, or a file that cannot be made.
    pub fn open(
        settings: &config::Database,
        data_dir: &Path,
        migrations: Migrations,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let (url, engine) = address(settings, data_dir)?;
        let options = AnyConnectOptions::from_str(&url)
            .map_err(|_| OpenError::Setting("is no URL".to_owned()))?
            .log_statements(log::LevelFilter::Trace)
            .log_slow_statements(log::LevelFilter::Warn, SLOW);
        let pool = AnyPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(settings.timeout)
            .idle_timeout(IDLE)
            .max_lifetime(LIFE)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if engine == Engine::Sqlite {
                        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                            PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000";
                        connection.execute(sqlx::raw_sql(settings)).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        Ok(Self {
            shared: Arc::new(Shared {
                pool,
                engine,
                patience: settings.timeout,
                migrations,
                ready: AtomicBool::new(false),
                metrics,
            }),
        })
    }

    /// Which database it is.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.shared.engine
    }

    /// Whether the tables were found or made.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Whether this program has a step of this name, and so its tables.
    #[must_use]
    pub fn has_step(&self, name: &str) -> bool {
        self.shared.migrations.has(name)
    }

    /// A connection for statements of their own, within the configured time for all of them together.
    ///
    /// # Errors
    /// [`DbError::Away`], also while the tables are not there yet.
    pub async fn connect(&self) -> Result<Work, DbError> {
        self.connect_for(self.shared.patience).await
    }

    /// As [`Db::connect`], for work of the background that may take longer than a request.
    ///
    /// # Errors
    /// As [`Db::connect`].
    pub async fn connect_for(&self, patience: Duration) -> Result<Work, DbError> {
        if !self.is_ready() {
            return Err(DbError::Away);
        }
        self.link(patience).await
    }

    async fn link(&self, patience: Duration) -> Result<Work, DbError> {
        let deadline = Instant::now() + patience;
        let link = timeout_at(deadline, self.shared.pool.acquire()).await;
        let link = link.map_err(|_| DbError::Away).and_then(|link| Ok(link?));
        self.shared.metrics.database_up.set(i64::from(link.is_ok()));
        Ok(Work::new(link?, deadline))
    }

    /// A transaction that sees what is committed and may write, within the configured time.
    ///
    /// # Errors
    /// As [`Db::connect`].
    pub async fn begin(&self) -> Result<Work, DbError> {
        self.begin_for(self.shared.patience).await
    }

    /// As [`Db::begin`], for work of the background that may take longer than a request.
    ///
    /// # Errors
    /// As [`Db::connect`].
    pub async fn begin_for(&self, patience: Duration) -> Result<Work, DbError> {
        let mut work = self.connect_for(patience).await?;
        // SQLite takes the lock of writers now: a reader that wants to write later may be refused without waiting.
        work.open(match self.shared.engine {
            Engine::Sqlite => "BEGIN IMMEDIATE",
            Engine::Postgres => "BEGIN",
        })
        .await?;
        Ok(work)
    }

    /// A transaction that reads what was committed at one moment, writes nothing, and makes no writer wait. The server itself
    /// gives a statement up that takes longer than `patience`.
    ///
    /// # Errors
    /// As [`Db::connect`].
    pub async fn read_for(&self, patience: Duration) -> Result<Work, DbError> {
        let mut work = self.connect_for(patience).await?;
        match self.shared.engine {
            // The moment is that of the first statement.
            Engine::Sqlite => work.open("BEGIN").await?,
            Engine::Postgres => {
                work.open("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await?;
                let limit = sqlx::query("SELECT set_config('statement_timeout', $1, true)");
                work.fetch_one(limit.bind(patience.as_millis().to_string()))
                    .await?;
            }
        }
        Ok(work)
    }

    /// Runs one statement; how many rows it changed.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn execute(&self, query: Query<'_>) -> Result<u64, DbError> {
        self.connect().await?.execute(query).await
    }

    /// All rows of one statement, which bounds them.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn fetch_all(&self, query: Query<'_>) -> Result<Vec<AnyRow>, DbError> {
        self.connect().await?.fetch_all(query).await
    }

    /// The first row of one statement, if there is one.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn fetch_optional(&self, query: Query<'_>) -> Result<Option<AnyRow>, DbError> {
        self.connect().await?.fetch_optional(query).await
    }

    /// The one row of a statement that always has one.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn fetch_one(&self, query: Query<'_>) -> Result<AnyRow, DbError> {
        self.connect().await?.fetch_one(query).await
    }

    /// Makes the tables what this program needs.
    ///
    /// # Errors
    /// The database is away, or a step fails.
    pub async fn migrate(&self) -> Result<(), super::MigrationError> {
        let mut link = self.raw().await?;
        self.shared.migrations.run(&mut link, MIGRATING).await?;
        self.shared.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// As [`Db::migrate`] where `migrate` says so; otherwise looks whether every step is applied.
    ///
    /// # Errors
    /// As [`Db::migrate`], or the first step that is missing.
    pub async fn prepare(&self, migrate: bool) -> Result<(), super::MigrationError> {
        if migrate {
            return self.migrate().await;
        }
        if let Some(missing) = self.applied().await?.iter().find(|step| !step.applied) {
            let (number, name) = (missing.number, &missing.name);
            return Err(super::MigrationError::Step(format!(
                "migration {number} ({name}) is not applied: run `usher database migrate`"
            )));
        }
        self.shared.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Undoes the steps after `target`, the newest first; 0 undoes all. What only they stored is lost.
    ///
    /// # Errors
    /// The database is away, or a step fails.
    pub async fn undo(&self, target: i64) -> Result<(), super::MigrationError> {
        self.shared.ready.store(false, Ordering::Release);
        let mut link = self.raw().await?;
        self.shared.migrations.undo(&mut link, target, MIGRATING).await
    }

    /// Writes all rows of an SQLite database into the new file `to`, as they are at one moment; nobody has to wait for it.
    ///
    /// # Errors
    /// For PostgreSQL; when the file is there or cannot be written; when the database cannot be read.
    pub async fn backup(&self, to: &Path) -> Result<(), OpenError> {
        let failed = |error: &dyn std::fmt::Display| OpenError::File(format!("{}: {error}", to.display()));
        if self.shared.engine == Engine::Postgres {
            return Err(OpenError::Setting(
                "names PostgreSQL: pg_dump backs it up (docs/operations.md, Backup)".to_owned(),
            ));
        }
        let path = to.to_str().ok_or_else(|| failed(&"the path is not UTF-8"))?;
        // SQLite writes into an empty file; this one nobody else can read.
        let mut file = OpenOptions::new();
        file.write(true).create_new(true).mode(0o600);
        file.open(to).map_err(|error| failed(&error))?;
        let mut link = self.raw().await.map_err(|error| failed(&error))?;
        let done = sqlx::query("VACUUM INTO $1").bind(path).execute(&mut *link).await;
        if let Err(error) = done {
            let _ = fs::remove_file(to);
            return Err(failed(&error));
        }
        Ok(())
    }

    /// Every step, and whether it is applied.
    ///
    /// # Errors
    /// The database is away.
    pub async fn applied(&self) -> Result<Vec<super::Applied>, super::MigrationError> {
        let mut link = self.raw().await?;
        self.shared.migrations.applied(&mut link).await
    }

    async fn raw(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Any>, DbError> {
        let link = self.shared.pool.acquire().await;
        self.shared.metrics.database_up.set(i64::from(link.is_ok()));
        Ok(link?)
    }

    /// [`Db::prepare`] until it succeeds. For a node that starts while its database is away.
    pub async fn prepare_when_back(&self, migrate: bool) {
        let mut told = String::new();
        while let Err(error) = self.prepare(migrate).await {
            let problem = error.to_string();
            if told != problem {
                tracing::error!(problem, "no database yet: what needs rows answers 503");
                told = problem;
            }
            tokio::time::sleep(AGAIN).await;
        }
        tracing::info!("the database is there");
    }

    /// Closes every connection; whoever still uses one has until `LAST_WORDS`.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(LAST_WORDS, self.shared.pool.close()).await;
    }
}

/// The URL with its password, and what it leads to.
fn address(settings: &config::Database, data_dir: &Path) -> Result<(String, Engine), OpenError> {
    let url = settings.url.expose();
    if url.is_empty() || url.starts_with("sqlite:") {
        let file = match url.trim_start_matches("sqlite:").trim_start_matches("//") {
            "" => data_dir.join("usher.db"),
            path => path.into(),
        };
        let file = absolute(file).map_err(|error| OpenError::File(error.to_string()))?;
        make(&file).map_err(|error| OpenError::File(format!("{}: {error}", file.display())))?;
        let path = file
            .to_str()
            .ok_or_else(|| OpenError::File("the path of the database is not UTF-8".to_owned()))?;
        let path = utf8_percent_encode(path, PATH);
        return Ok((format!("sqlite://{path}?mode=rw"), Engine::Sqlite));
    }
    let (scheme, rest) = url
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "postgres" | "postgresql"))
        .ok_or_else(|| OpenError::Setting("must begin with postgres:// or sqlite:".to_owned()))?;
    let password = settings.password.expose();
    if password.is_empty() {
        return Ok((url.to_owned(), Engine::Postgres));
    }
    let (user, place) = rest
        .split_once('@')
        .ok_or_else(|| OpenError::Setting("names no user, and there is a password".to_owned()))?;
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    let password = utf8_percent_encode(password, USER);
    Ok((format!("{scheme}://{user}:{password}@{place}"), Engine::Postgres))
}

/// The file is the node's alone: it holds hashes of passwords.
fn make(file: &Path) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(file)?;
    Ok(())
}
