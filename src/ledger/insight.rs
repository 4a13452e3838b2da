//! Reports beside royalties: one user, and the last minutes; which plays a report is about.
//!
//! Owns: their questions and answers. Does not: touch money. Called by: `desk`'s router.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::bad_query;
use crate::auth::Claims;
use crate::db::{Sql, Work};

use super::calendar::Day;
use super::desk::{Desk, tenant_of};
use super::labels::{LABEL, push_labels};
use super::royalty_routes::day;
use super::{live, millis, now_ms, time};

/// Most labels and contents of an answer.
const MOST: i64 = 1000;

/// A play that began longer ago is not looked for in the last minutes.
const LONGEST_PLAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// A period, and whose.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PeriodQuery {
    /// Plays that began on this day or later; all without it.
    #[param(nullable = false, format = Date)]
    from: Option<String>,
    /// Plays that began before this day; all without it.
    #[param(nullable = false, format = Date)]
    to: Option<String>,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}

impl PeriodQuery {
    /// The plays that are meant.
    pub(super) fn scope(&self, claims: &Claims) -> Result<Scope, ApiError> {
        Scope::of(
            claims,
            self.tenant.as_deref(),
            self.from.as_deref(),
            self.to.as_deref(),
        )
    }
}

/// Seconds of one of several.
#[derive(Serialize, ToSchema)]
#[schema(as = WatchedSeconds)]
pub(super) struct Watched {
    /// The label or content; a label may be empty: none.
    name: String,
    /// Seconds watched.
    seconds: i64,
}

/// What a user watched.
#[derive(Serialize, ToSchema)]
pub(super) struct UserReport {
    /// The user.
    user: String,
    /// Plays, corrections not counted.
    plays: i64,
    /// Seconds watched.
    seconds: i64,
    /// By label, the most watched first; at most 1000.
    labels: Vec<Watched>,
    /// By content, the most watched first; at most 1000.
    contents: Vec<Watched>,
}

/// Which plays are meant.
pub(super) struct Scope {
    pub(super) tenant: String,
    user: Option<String>,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Scope {
    /// The plays of these days, of all without them.
    pub(super) fn of(
        claims: &Claims,
        tenant: Option<&str>,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Self, ApiError> {
        let bound =
            |field, text: Option<&str>| text.map(|text| day(field, text).map(Day::start_ms)).transpose();
        Ok(Self {
            tenant: tenant_of(claims, tenant)?,
            user: None,
            from: bound("from", from)?.unwrap_or(0),
            to: bound("to", to)?.unwrap_or(i64::MAX),
        })
    }

    /// Adds the conditions to a statement about `plays p`.
    pub(super) fn filter(&self, sql: &mut Sql) {
        sql.push(" WHERE p.tenant = ").bind(self.tenant.clone());
        sql.push(" AND p.started_at >= ").bind(self.from);
        sql.push(" AND p.started_at < ").bind(self.to);
        if let Some(user) = &self.user {
            sql.push(" AND p.user_id = ").bind(user.clone());
        }
    }

    /// Seconds by `what`, which is a column of plays `p` or [`LABEL`].
    async fn by(&self, work: &mut Work, what: &'static str) -> Result<Vec<Watched>, ApiError> {
        let mut sql = Sql::new("SELECT name, seconds FROM (SELECT ");
        sql.push(what)
            .push(" AS name, CAST(sum(p.seconds) AS BIGINT) AS seconds FROM plays p");
        push_labels(&mut sql, "p.content", &self.tenant);
        self.filter(&mut sql);
        sql.push(" GROUP BY 1) s WHERE seconds > 0 ORDER BY seconds DESC, name LIMIT ")
            .bind(MOST);
        let rows = work.fetch_all(sql.query()).await?;
        let watched = rows.iter().map(|row| Watched {
            name: row.get(0),
            seconds: row.get(1),
        });
        Ok(watched.collect())
    }
}

/// What one user watched, by label and content. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/reports/users/{id}",
    tag = "ledger",
    params(("id" = String, Path, description = "The user"), PeriodQuery),
    responses((status = 200, description = "What the user watched", body = UserReport)),
    security(("bearer" = []))
)]
pub(super) async fn user(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<PeriodQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let unknown = || ApiError::not_found("nobody of this id watched or subscribed");
    let Path(id) = path.map_err(|_| unknown())?;
    if id.contains('\0') {
        return Err(unknown());
    }
    let mut scope = query.scope(&claims)?;
    scope.user = Some(id.clone());
    let mut work = desk.db()?.connect().await?;
    let mut sql = Sql::new("SELECT 1 FROM subscribers WHERE tenant = ");
    sql.bind(scope.tenant.clone())
        .push(" AND user_id = ")
        .bind(id.clone());
    sql.push(" UNION SELECT 1 FROM plays WHERE tenant = ")
        .bind(scope.tenant.clone());
    sql.push(" AND user_id = ").bind(id.clone()).push(" LIMIT 1");
    if work.fetch_optional(sql.query()).await?.is_none() {
        return Err(unknown());
    }
    let mut sql = Sql::new(
        "SELECT CAST(coalesce(sum(CASE WHEN p.corrects IS NULL THEN 1 ELSE 0 END), 0) AS BIGINT), \
         CAST(coalesce(sum(p.seconds), 0) AS BIGINT) FROM plays p",
    );
    scope.filter(&mut sql);
    let sums = work.fetch_one(sql.query()).await?;
    let report = UserReport {
        user: id,
        plays: sums.get(0),
        seconds: sums.get(1),
        labels: scope.by(&mut work, LABEL).await?,
        contents: scope.by(&mut work, "p.content").await?,
    };
    Ok(Json(report).into_response())
}

/// Since when.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    /// A moment that has passed.
    #[param(format = DateTime)]
    from: String,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}

/// What was watched since a moment.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerUsage)]
pub(super) struct Usage {
    /// Since when.
    #[schema(format = DateTime)]
    from: String,
    /// Until when: now.
    #[schema(format = DateTime)]
    to: String,
    /// Seconds watched, of the last two hours also by plays that go on.
    seconds: i64,
    /// By label, the most watched first; at most 1000.
    labels: Vec<Watched>,
    /// The most watched content.
    #[schema(required)]
    top: Option<Watched>,
}

/// What was watched since a moment. Scope `finance` or `admin`.
///
/// In the last two hours what plays is counted every ten seconds, and is here that much later; for a moment further back the
/// plays count that ended since then, of one that began before what was watched since then at most.
#[utoipa::path(
    get,
    path = "/v1/reports/usage",
    tag = "ledger",
    params(UsageQuery),
    responses((status = 200, description = "What was watched", body = Usage)),
    security(("bearer" = []))
)]
pub(super) async fn usage(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<UsageQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let bad = |message| ApiError::bad_request("from", message);
    let from =
        humantime::parse_rfc3339(&query.from).map_err(|_| bad("from must be as 2019-03-01T12:00:00Z"))?;
    if from > SystemTime::now() {
        return Err(bad("from is in the future"));
    }
    let (from, now) = (
        millis(from.duration_since(UNIX_EPOCH).unwrap_or_default()),
        now_ms(),
    );
    // Further back there is only what ended.
    let live = from > now.saturating_sub(millis(live::KEPT));
    let mut sql = Sql::new("SELECT ");
    sql.push(LABEL)
        .push(", p.content, CAST(sum(p.ms) AS BIGINT) FROM (");
    sql.push("SELECT content, CASE WHEN ended_at - ")
        .bind(from)
        .push(" < seconds * 1000 THEN ended_at - ")
        .bind(from);
    sql.push(" ELSE seconds * 1000 END AS ms FROM plays WHERE tenant = ")
        .bind(tenant.clone());
    sql.push(" AND started_at >= ")
        .bind(from.saturating_sub(millis(LONGEST_PLAY)));
    sql.push(" AND coalesce(ended_at, started_at) >= ").bind(from);
    if live {
        sql.push(
            " AND kind <> 'session' UNION ALL SELECT content, watched_ms FROM live_watching WHERE tenant = ",
        )
        .bind(tenant.clone());
        sql.push(" AND at >= ").bind(from);
    }
    sql.push(") p");
    push_labels(&mut sql, "p.content", &tenant);
    sql.push(" GROUP BY 1, 2");
    let place = desk.place("usage", &claims, &tenant)?;
    let mut work = desk.rows().await?;
    let (mut labels, mut top) = (
        std::collections::BTreeMap::<String, i64>::new(),
        None::<(i64, String)>,
    );
    let each = work.each(sql.query(), |row| {
        let (label, content, ms): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        let seconds = ms / 1000;
        *labels.entry(label).or_default() += seconds;
        let leads = top
            .as_ref()
            .is_none_or(|(most, name)| (seconds, name) > (*most, &content));
        if seconds > 0 && leads {
            top = Some((seconds, content));
        }
    });
    place.run(each).await?;
    let seconds = labels.values().sum();
    let mut labels: Vec<_> = labels
        .into_iter()
        .map(|(name, seconds)| Watched { name, seconds })
        .collect();
    labels.sort_by_key(|label| std::cmp::Reverse(label.seconds));
    labels.truncate(usize::try_from(MOST).unwrap_or_default());
    Ok(Json(Usage {
        from: time(from),
        to: time(now),
        seconds,
        labels,
        top: top.map(|(seconds, name)| Watched { name, seconds }),
    })
    .into_response())
}
