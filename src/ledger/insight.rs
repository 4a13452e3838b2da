//! Reports beside royalties: one user, the last minutes, the audience, and what cannot be right.
//!
//! Owns: their questions and answers. Does not: touch money. Called by: `desk`'s router.
//!
//! Over 400 lines: four small reports, each with its question, its answer and its statement side by side.

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
use crate::api::page::{List, Listing, bad_query};
use crate::auth::Claims;
use crate::db::{Sql, Work};

use super::calendar::{DAY_MS, Day};
use super::desk::{Desk, tenant_of};
use super::figures::LABELS;
use super::royalty_routes::day;
use super::time;

/// Most labels and contents of an answer.
const MOST: i64 = 1000;

/// A play that began longer ago is not looked for in the last minutes.
const LONGEST_PLAY: Duration = Duration::from_secs(7 * 24 * 3600);

const DAY_SECONDS: i64 = DAY_MS / 1000;

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
struct Scope {
    tenant: String,
    user: Option<String>,
    from: i64,
    to: i64,
}

impl Scope {
    fn of(
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

    fn filter(&self, sql: &mut Sql) {
        sql.push(" WHERE p.tenant = ").bind(self.tenant.clone());
        sql.push(" AND p.started_at >= ").bind(self.from);
        sql.push(" AND p.started_at < ").bind(self.to);
        if let Some(user) = &self.user {
            sql.push(" AND p.user_id = ").bind(user.clone());
        }
    }

    /// Seconds by `what`, which is a column of plays `p` or labels `l`.
    async fn by(&self, work: &mut Work, what: &'static str) -> Result<Vec<Watched>, ApiError> {
        let mut sql = Sql::new("SELECT name, seconds FROM (SELECT ");
        sql.push(what)
            .push(" AS name, CAST(sum(p.seconds) AS BIGINT) AS seconds FROM plays p LEFT JOIN ");
        sql.push(LABELS)
            .push(" l ON l.tenant = p.tenant AND l.id = p.content");
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

const LABEL: &str = "coalesce(l.label, '')";

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
    let mut scope = Scope::of(
        &claims,
        query.tenant.as_deref(),
        query.from.as_deref(),
        query.to.as_deref(),
    )?;
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
    /// Seconds watched by plays that have ended.
    seconds: i64,
    /// By label, the most watched first; at most 1000.
    labels: Vec<Watched>,
    /// The most watched content.
    #[schema(required)]
    top: Option<Watched>,
}

/// What was watched since a moment, by the plays that ended since then. Scope `finance` or `admin`.
///
/// A play is here some seconds after its end; of one that began before, what was watched since then counts at most.
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
    let now = SystemTime::now();
    if from > now {
        return Err(bad("from is in the future"));
    }
    let ms = |at: SystemTime| {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    };
    let (from, now) = (ms(from), ms(now));
    let longest = i64::try_from(LONGEST_PLAY.as_millis()).unwrap_or(i64::MAX);
    let mut sql = Sql::new("SELECT coalesce(l.label, ''), p.content, CAST(sum(CASE WHEN p.ended_at - ");
    sql.bind(from)
        .push(" < p.seconds * 1000 THEN (p.ended_at - ")
        .bind(from);
    sql.push(") / 1000 ELSE p.seconds END) AS BIGINT) FROM plays p LEFT JOIN ")
        .push(LABELS);
    sql.push(" l ON l.tenant = p.tenant AND l.id = p.content WHERE p.tenant = ")
        .bind(tenant);
    sql.push(" AND p.started_at >= ")
        .bind(from.saturating_sub(longest));
    sql.push(" AND coalesce(p.ended_at, p.started_at) >= ").bind(from);
    sql.push(" GROUP BY 1, 2");
    let _place = desk.place()?;
    let mut work = desk.db()?.connect_for(desk.settings.report_timeout).await?;
    let (mut labels, mut top) = (
        std::collections::BTreeMap::<String, i64>::new(),
        None::<(i64, String)>,
    );
    work.each(sql.query(), |row| {
        let (label, content, seconds): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        *labels.entry(label).or_default() += seconds;
        let leads = top
            .as_ref()
            .is_none_or(|(most, name)| (seconds, name) > (*most, &content));
        if seconds > 0 && leads {
            top = Some((seconds, content));
        }
    })
    .await?;
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

/// An audience, and how it is told apart.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AudienceQuery {
    /// `content`, `label`, `region`, `device_class` or `hour` (of the day, UTC).
    #[param(pattern = "^(content|label|region|device_class|hour)$")]
    by: String,
    /// Plays that began on this day or later; all without it.
    #[param(nullable = false, format = Date)]
    from: Option<String>,
    /// Plays that began before this day; all without it.
    #[param(nullable = false, format = Date)]
    to: Option<String>,
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}

/// A part of the audience.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerAudience)]
pub(super) struct Audience {
    /// What it has in common; empty: not known.
    name: String,
    /// Plays, corrections not counted.
    plays: i64,
    /// Users.
    users: i64,
    /// Seconds watched.
    seconds: i64,
}

/// Who watched how much, told apart by one thing, the most watched first. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/reports/audience",
    tag = "ledger",
    params(AudienceQuery),
    responses((status = 200, description = "The parts of the audience", body = Listing<Audience>)),
    security(("bearer" = []))
)]
pub(super) async fn audience(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<AudienceQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let by = match &*query.by {
        "content" => "p.content",
        "label" => LABEL,
        "region" => "p.region",
        "device_class" => "coalesce(p.device_class, '')",
        "hour" => "CAST((p.started_at / 3600000) % 24 AS TEXT)",
        _ => {
            return Err(ApiError::bad_request(
                "by",
                "by is content, label, region, device_class or hour",
            ));
        }
    };
    let scope = Scope::of(
        &claims,
        query.tenant.as_deref(),
        query.from.as_deref(),
        query.to.as_deref(),
    )?;
    let mut sql =
        Sql::new("SELECT name, plays, users, seconds, CAST(count(*) OVER () AS BIGINT) FROM (SELECT ");
    sql.push(by).push(
        " AS name, CAST(sum(CASE WHEN p.corrects IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS plays, \
         CAST(count(DISTINCT p.user_id) AS BIGINT) AS users, CAST(sum(p.seconds) AS BIGINT) AS seconds \
         FROM plays p LEFT JOIN ",
    );
    sql.push(LABELS)
        .push(" l ON l.tenant = p.tenant AND l.id = p.content");
    scope.filter(&mut sql);
    let (start, limit) = page.span();
    let bounded = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    sql.push(" GROUP BY 1) s ORDER BY seconds DESC, name LIMIT ")
        .bind(bounded(limit));
    sql.push(" OFFSET ").bind(bounded(start));
    let _place = desk.place()?;
    let mut work = desk.db()?.connect_for(desk.settings.report_timeout).await?;
    let rows = work.fetch_all(sql.query()).await?;
    let total: i64 = rows.first().map_or(0, |row| row.get(4));
    let items = rows.iter().map(|row| Audience {
        name: row.get(0),
        plays: row.get(1),
        users: row.get(2),
        seconds: row.get(3),
    });
    Ok(Json(page.answer(items.collect(), usize::try_from(total).unwrap_or_default())).into_response())
}

/// What cannot be right.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerAnomaly)]
pub(super) struct Anomaly {
    /// `row`: a play of more than a day; `account_day`: more seconds of a user than a day has on all slots.
    kind: String,
    /// The user.
    user: String,
    /// The day.
    #[schema(format = Date)]
    day: String,
    /// The play; none for a day.
    #[schema(required)]
    play: Option<String>,
    /// Seconds, corrections counted.
    seconds: i64,
    /// More than so many are not right.
    most: i64,
}

/// Rows and days with more seconds than there are. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/reports/anomalies",
    tag = "ledger",
    params(AnomaliesQuery),
    responses((status = 200, description = "The anomalies, the largest first", body = Listing<Anomaly>)),
    security(("bearer" = []))
)]
pub(super) async fn anomalies(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<AnomaliesQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let scope = Scope::of(
        &claims,
        query.tenant.as_deref(),
        query.from.as_deref(),
        query.to.as_deref(),
    )?;
    let of_day = i64::from(desk.slots) * DAY_SECONDS;
    let mut sql = Sql::new(
        "SELECT kind, user_id, day, play, seconds, CAST(count(*) OVER () AS BIGINT) FROM (SELECT 'row' AS kind, \
         min(p.user_id) AS user_id, min(p.started_at / 86400000) AS day, coalesce(p.corrects, p.id) AS play, \
         CAST(sum(p.seconds) AS BIGINT) AS seconds FROM plays p",
    );
    scope.filter(&mut sql);
    sql.push(" GROUP BY coalesce(p.corrects, p.id) HAVING sum(p.seconds) > ")
        .bind(DAY_SECONDS);
    sql.push(
        " UNION ALL SELECT 'account_day' AS kind, p.user_id, p.started_at / 86400000 AS day, NULL AS play, \
         CAST(sum(p.seconds) AS BIGINT) AS seconds FROM plays p",
    );
    scope.filter(&mut sql);
    sql.push(" GROUP BY p.user_id, p.started_at / 86400000 HAVING sum(p.seconds) > ")
        .bind(of_day);
    let (start, limit) = page.span();
    let bounded = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    sql.push(") a ORDER BY seconds DESC, user_id, day, play LIMIT ")
        .bind(bounded(limit));
    sql.push(" OFFSET ").bind(bounded(start));
    let _place = desk.place()?;
    let mut work = desk.db()?.connect_for(desk.settings.report_timeout).await?;
    let rows = work.fetch_all(sql.query()).await?;
    let total: i64 = rows.first().map_or(0, |row| row.get(5));
    let items = rows.iter().map(|row| {
        let kind: String = row.get(0);
        Anomaly {
            most: if kind == "row" { DAY_SECONDS } else { of_day },
            kind,
            user: row.get(1),
            day: Day::of_ms(row.get::<i64, _>(2).saturating_mul(DAY_MS)).to_string(),
            play: row.get(3),
            seconds: row.get(4),
        }
    });
    Ok(Json(page.answer(items.collect(), usize::try_from(total).unwrap_or_default())).into_response())
}

/// Where anomalies are looked for.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AnomaliesQuery {
    /// Plays that began on this day or later; all without it.
    #[param(nullable = false, format = Date)]
    from: Option<String>,
    /// Plays that began before this day; all without it.
    #[param(nullable = false, format = Date)]
    to: Option<String>,
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}
