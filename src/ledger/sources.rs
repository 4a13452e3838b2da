//! `[ledger.sources]`: what is read now and then, so that users, tracks and plays keep step with other systems.
//!
//! Owns: when, by which node, and what came of it: the table `ledger_sources` and `GET /v1/plays/sources`.
//! Does not: fetch (`fetch`) or read (`import`): a source is a file that is imported again and again, which adds what is new.
//! Called by: `Ledger`, and `desk`'s router.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::auth::is_tenant;
use crate::config::{self, Config, SourceForm, SourceKind};
use crate::db::{Db, DbError, Sql};
use crate::outbound::Guard;
use crate::telemetry::Metrics;

use super::desk::{Desk, tenant_of};
use super::fetch::Origin;
use super::figures::Terms;
use super::import::{Counts, Form, Format, Kind, Place, Rejects, columns_of, import, separator_of};
use super::plays::PageQuery;
use super::{millis, now_ms, time};

/// How often a node looks whether a source is due.
const LOOK: Duration = Duration::from_secs(5);

/// A source that failed is read again after this time, or earlier when it is to be read more often.
const AFTER_A_FAILURE: Duration = Duration::from_secs(5 * 60);

/// A node that reads a source says so again and again; one that is silent for this long reads it no more.
const LEASE: Duration = Duration::from_secs(120);

/// What clocks of nodes may differ by.
const CLOCKS: Duration = Duration::from_secs(60);

/// A node that leaves waits for a transaction under way, for at most this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// The sources of an installation, as a node reads them.
pub(super) struct Sources {
    inner: Arc<Inner>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Inner {
    sources: Vec<Source>,
    db: Db,
    terms: Terms,
    dir: PathBuf,
    most: u64,
    metrics: Arc<Metrics>,
}

struct Source {
    name: String,
    every: Duration,
    tenant: String,
    kind: Kind,
    format: Format,
    origin: Origin,
}

impl Source {
    /// # Errors
    /// The setting, and what is wrong with it.
    fn new(name: &str, settings: &config::Source, guard: Guard) -> Result<Self, (&'static str, String)> {
        let separator = separator_of(&settings.separator);
        let format = Format {
            form: match settings.form {
                SourceForm::Csv => Form::Csv,
                SourceForm::Json => Form::Json,
            },
            columns: columns_of(&settings.columns.join(","))
                .map_err(|problem| ("columns", problem.to_owned()))?,
            separator: separator.map_err(|problem| ("separator", problem.to_owned()))?,
            decimal_comma: settings.decimal_comma,
            dates: (settings.date_format.parse())
                .map_err(|problem: super::calendar::NoPattern| ("date_format", problem.to_string()))?,
        };
        if !is_tenant(&settings.tenant) {
            return Err(("tenant", "is no name of a tenant".to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            every: settings.every,
            tenant: settings.tenant.clone(),
            kind: match settings.kind {
                SourceKind::Users => Kind::Users,
                SourceKind::Plays => Kind::Plays,
                SourceKind::Tracks => Kind::Tracks,
            },
            format,
            origin: Origin::new(
                &settings.from,
                &settings.ca,
                settings.authorization.expose(),
                guard,
            )?,
        })
    }
}

impl Sources {
    /// Sources that are not read yet.
    ///
    /// # Errors
    /// The setting that is wrong, and what is wrong with it.
    pub(super) fn new(config: &Config, db: Db, metrics: Arc<Metrics>) -> Result<Self, String> {
        let guard = Guard::new(&config.outbound.allowed_private);
        let sources = config.ledger.sources.iter().map(|(name, settings)| {
            Source::new(name, settings, guard.clone())
                .map_err(|(key, problem)| format!("ledger.sources.{name}.{key}: {problem}"))
        });
        Ok(Self {
            inner: Arc::new(Inner {
                sources: sources.collect::<Result<_, _>>()?,
                db,
                terms: Terms::new(&config.ledger),
                dir: config.data.dir.clone(),
                most: config.ledger.import_bytes,
                metrics,
            }),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Begins, one source after the other.
    pub(super) fn start(&self) {
        if self.inner.sources.is_empty() {
            return;
        }
        let (inner, stop) = (Arc::clone(&self.inner), self.stop.clone());
        self.tasks.spawn(async move {
            let look = inner
                .sources
                .iter()
                .map(|source| source.every)
                .fold(LOOK, Duration::min);
            loop {
                for source in &inner.sources {
                    match stop.run_until_cancelled(claim(&inner.db, source)).await {
                        Some(Ok(true)) => inner.read(source, &stop).await,
                        Some(Ok(false)) => {}
                        Some(Err(error)) => tracing::debug!(%error, "sources of the ledger are read later"),
                        None => return,
                    }
                }
                if stop.run_until_cancelled(sleep(look)).await.is_none() {
                    return;
                }
            }
        });
    }

    /// Ends; what was not read is read by the next node.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = timeout(FAREWELL, self.tasks.wait()).await;
    }
}

impl Inner {
    async fn read(self: &Arc<Self>, source: &Source, stop: &CancellationToken) {
        let (name, begun) = (&source.name, now_ms());
        let going_on = async {
            loop {
                sleep(LEASE / 4).await;
                let _ = due(&self.db, source, now_ms() + millis(LEASE)).await;
            }
        };
        let done = tokio::select! {
            done = stop.run_until_cancelled(self.bring(source, stop)) => done,
            () = going_on => None,
        };
        let Some(done) = done else {
            // For another node.
            let _ = due(&self.db, source, now_ms()).await;
            return;
        };
        let outcome = if done.is_ok() { "read" } else { "failed" };
        self.metrics.ledger_sources_total.inc(outcome);
        match &done {
            Ok(Counts {
                read,
                taken,
                rejected,
                ..
            }) => tracing::info!(name, read, taken, rejected, "a source of the ledger was read"),
            Err(reason) => tracing::warn!(name, reason, "a source of the ledger cannot be read"),
        }
        if let Err(error) = told(&self.db, source, begun, &done).await {
            tracing::warn!(name, %error, "what came of a source cannot be kept");
        }
    }

    async fn bring(self: &Arc<Self>, source: &Source, stop: &CancellationToken) -> Result<Counts, String> {
        let mut fetched = source.origin.fetch(&self.dir, self.most).await?;
        let (inner, stop, runtime) = (Arc::clone(self), stop.clone(), Handle::current());
        let (kind, format) = (source.kind, source.format.clone());
        let (tenant, file) = (source.tenant.clone(), rejects_file(&self.dir, &source.name));
        // Files are read as rows are written: on a thread that may block.
        let work = tokio::task::spawn_blocking(move || {
            let place = Place {
                db: &inner.db,
                tenant: &tenant,
                terms: &inner.terms,
                scratch: &inner.dir,
            };
            let from = fetched.source().map_err(|error| error.to_string())?;
            let _ = std::fs::remove_file(&file);
            let (mut rejects, mut watch) = (Rejects::to(file), |_: u64, _: &Counts| {});
            let work = import(place, kind, &format, from, &mut rejects, &mut watch);
            match runtime.block_on(stop.run_until_cancelled(work)) {
                Some(done) => done.map_err(|error| error.to_string()),
                None => Err("the node leaves".to_owned()),
            }
        });
        work.await.map_err(|error| error.to_string())?
    }
}

/// Where the rows of a source go that were not taken the last time.
fn rejects_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("source-{name}.rejects.csv"))
}

/// Whether the source is due; then this node alone reads it.
async fn claim(db: &Db, source: &Source) -> Result<bool, DbError> {
    let (now, latest) = (now_ms(), millis(source.every.max(LEASE) + CLOCKS));
    let mut sql = Sql::new("INSERT INTO ledger_sources (name, due_at) VALUES (");
    sql.bind(source.name.clone()).push(", ").bind(now + millis(LEASE));
    sql.push(") ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at WHERE ledger_sources.due_at <= ");
    sql.bind(now);
    // It is to be read more often than it was.
    sql.push(" OR ledger_sources.due_at > ").bind(now + latest);
    Ok(db.execute(sql.query()).await? > 0)
}

/// Says when the source is due.
async fn due(db: &Db, source: &Source, at: i64) -> Result<(), DbError> {
    let mut sql = Sql::new("UPDATE ledger_sources SET due_at = ");
    sql.bind(at).push(" WHERE name = ").bind(source.name.clone());
    db.execute(sql.query()).await.map(drop)
}

/// Keeps what came of a reading; the source is due again in its time.
async fn told(db: &Db, source: &Source, begun: i64, done: &Result<Counts, String>) -> Result<(), DbError> {
    let mut sql = Sql::new("UPDATE ledger_sources SET failed = ");
    match done {
        Ok(counts) => {
            let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
            sql.push("NULL, due_at = ").bind(begun + millis(source.every));
            sql.push(", read_at = ").bind(now_ms());
            sql.push(", rows_read = ").bind(number(counts.read));
            sql.push(", rows_taken = ").bind(number(counts.taken));
            sql.push(", rows_already = ").bind(number(counts.already));
            sql.push(", rows_rejected = ").bind(number(counts.rejected));
        }
        Err(reason) => {
            let again = now_ms() + millis(source.every.min(AFTER_A_FAILURE));
            sql.bind(reason.replace('\0', " "))
                .push(", due_at = ")
                .bind(again);
        }
    }
    sql.push(" WHERE name = ").bind(source.name.clone());
    db.execute(sql.query()).await?;
    Ok(())
}

/// A source, and what came of it.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerSource)]
pub(super) struct Shown {
    /// Its name in `ledger.sources`.
    name: String,
    /// `users`, `plays` or `tracks`.
    kind: SourceKind,
    /// When it is read next; none before the first time.
    #[schema(required, format = DateTime)]
    due_at: Option<String>,
    /// When all of it was last read; none: never.
    #[schema(required, format = DateTime)]
    read_at: Option<String>,
    /// Rows of that reading,
    read: i64,
    /// of these, new or changed,
    taken: i64,
    /// as they were before,
    already_there: i64,
    /// not as they must be (`source-<name>.rejects.csv` in `data.dir` of the node that read it).
    rejected: i64,
    /// Why the last reading failed; none: it did not.
    #[schema(required)]
    failed: Option<String>,
}

impl Shown {
    fn of(name: &str, kind: SourceKind, row: Option<&AnyRow>) -> Self {
        let number = |at: usize| row.map_or(0, |row| row.get(at));
        Self {
            name: name.to_owned(),
            kind,
            due_at: row.map(|row| time(row.get(1))),
            read_at: row.and_then(|row| row.get::<Option<i64>, _>(2)).map(time),
            read: number(3),
            taken: number(4),
            already_there: number(5),
            rejected: number(6),
            failed: row.and_then(|row| row.get(7)),
        }
    }
}

/// The sources of the tenant's users, plays and tracks, and what came of each. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/plays/sources",
    tag = "ledger",
    params(PageQuery),
    responses((status = 200, description = "The sources, by name", body = Listing<Shown>)),
    security(("bearer" = []))
)]
pub(super) async fn sources(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<PageQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let page = List::new(query.page, query.limit)?;
    let sql = "SELECT name, due_at, read_at, rows_read, rows_taken, rows_already, rows_rejected, failed FROM ledger_sources";
    let rows = desk.db()?.fetch_all(sqlx::query(sql)).await?;
    let all = &desk.settings.sources;
    let own = all.iter().filter(|(_, source)| source.tenant == tenant);
    let shown: Vec<Shown> = own
        .map(|(name, source)| {
            let row = rows.iter().find(|row| row.get::<String, _>(0) == *name);
            Shown::of(name, source.kind, row)
        })
        .collect();
    let (total, (start, limit)) = (shown.len(), page.span());
    let items: Vec<Shown> = shown.into_iter().skip(start).take(limit).collect();
    Ok(Json(page.answer(items, total)).into_response())
}
