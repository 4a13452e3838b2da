//! `GET /v1/plays`, `GET /v1/plays/{id}`: the ledger's rows.
//!
//! Owns: what a play looks like, and finding it. Does not: change any (`corrections` does). Called by: `desk`'s router.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::api::choice::{chosen, only, sorting};
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::db::{Sql, containing};

use super::desk::{Desk, tenant_of};
use super::royalty_routes::{day, region};
use super::time;

const SORTS: [&str; 5] = ["started_at", "recorded_at", "seconds", "user", "content"];

const FIELDS: [&str; 18] = [
    "id",
    "kind",
    "corrects",
    "user",
    "content",
    "region",
    "started_at",
    "ended_at",
    "seconds",
    "counted",
    "device",
    "device_name",
    "device_class",
    "plan",
    "position_ms",
    "code",
    "recorded_at",
    "recorded_by",
];

/// The columns of [`Play`], in its order.
pub(super) const COLUMNS: &str = "p.id, p.kind, p.corrects, p.user_id, p.content, p.region, p.started_at, p.ended_at, p.seconds, \
    CAST(p.seconds + coalesce((SELECT sum(c.seconds) FROM plays c WHERE c.tenant = p.tenant AND c.corrects = p.id), 0) AS BIGINT), \
    p.device, p.device_name, p.device_class, p.plan, p.position_ms, p.code, p.recorded_at, p.recorded_by";

/// A row of the ledger.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LedgerPlay)]
pub(super) struct Play {
    /// Of a session: its id.
    pub(super) id: String,
    /// `session`, `import`, `entry`, `adjustment` or `reversal`.
    pub(super) kind: String,
    /// The play that it corrects.
    #[schema(required)]
    pub(super) corrects: Option<String>,
    /// The account, or the user of an imported row.
    pub(super) user: String,
    /// What was watched.
    pub(super) content: String,
    /// Where; empty: not known.
    pub(super) region: String,
    /// When it began.
    #[schema(format = DateTime)]
    pub(super) started_at: String,
    /// When it ended.
    #[schema(required, format = DateTime)]
    pub(super) ended_at: Option<String>,
    /// Seconds watched; of a correction, what it adds.
    pub(super) seconds: i64,
    /// Seconds that count: with the play's corrections.
    pub(super) counted: i64,
    /// The device.
    #[schema(required)]
    pub(super) device: Option<String>,
    /// Its name for people.
    #[schema(required)]
    pub(super) device_name: Option<String>,
    /// Its class.
    #[schema(required)]
    pub(super) device_class: Option<String>,
    /// The account's plan.
    #[schema(required)]
    pub(super) plan: Option<String>,
    /// The last position, in milliseconds.
    #[schema(required)]
    pub(super) position_ms: Option<i64>,
    /// How the session ended.
    #[schema(required)]
    pub(super) code: Option<String>,
    /// When the row was written.
    #[schema(format = DateTime)]
    pub(super) recorded_at: String,
    /// Who wrote it by hand.
    #[schema(required)]
    pub(super) recorded_by: Option<String>,
}

impl Play {
    pub(super) fn of(row: &AnyRow) -> Self {
        Self {
            id: row.get(0),
            kind: row.get(1),
            corrects: row.get(2),
            user: row.get(3),
            content: row.get(4),
            region: row.get(5),
            started_at: time(row.get(6)),
            ended_at: row.get::<Option<i64>, _>(7).map(time),
            seconds: row.get(8),
            counted: row.get(9),
            device: row.get(10),
            device_name: row.get(11),
            device_class: row.get(12),
            plan: row.get(13),
            position_ms: row.get(14),
            code: row.get(15),
            recorded_at: time(row.get(16)),
            recorded_by: row.get(17),
        }
    }
}

/// Which plays are listed.
#[derive(Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PlaysQuery {
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
    /// A part of a user, a content or a device.
    #[param(nullable = false)]
    q: Option<String>,
    /// `started_at`, `recorded_at`, `seconds`, `user` or `content`, with `-` before it for descending.
    #[param(
        nullable = false,
        pattern = "^-?(started_at|recorded_at|seconds|user|content)$",
        default = "-started_at"
    )]
    sort: Option<String>,
    /// Which members of the items, with commas between; `id` always comes.
    #[param(nullable = false)]
    fields: Option<String>,
    /// Only this user's.
    #[param(nullable = false)]
    user: Option<String>,
    /// Only of this content.
    #[param(nullable = false)]
    content: Option<String>,
    /// Only in this region.
    #[param(nullable = false, max_length = 64)]
    region: Option<String>,
    /// Only `session`, `import`, `entry`, `adjustment` or `reversal`.
    #[param(nullable = false)]
    kind: Option<String>,
    /// Only the corrections of this play.
    #[param(nullable = false)]
    corrects: Option<String>,
    /// Only those that began on this day or later.
    #[param(nullable = false, format = Date)]
    from: Option<String>,
    /// Only those that began before this day.
    #[param(nullable = false, format = Date)]
    to: Option<String>,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    pub(super) tenant: Option<String>,
}

impl PlaysQuery {
    /// Adds the conditions to a statement about `plays p`.
    pub(super) fn filter(&self, sql: &mut Sql, tenant: &str) -> Result<(), ApiError> {
        sql.push(" WHERE p.tenant = ").bind(tenant.to_owned());
        for (column, value) in [
            (" AND p.user_id = ", &self.user),
            (" AND p.content = ", &self.content),
            (" AND p.kind = ", &self.kind),
            (" AND p.corrects = ", &self.corrects),
        ] {
            if let Some(value) = value {
                sql.push(column).bind(value.clone());
            }
        }
        if let Some(text) = &self.region {
            sql.push(" AND p.region = ").bind(region(text)?);
        }
        if let Some(from) = &self.from {
            sql.push(" AND p.started_at >= ")
                .bind(day("from", from)?.start_ms());
        }
        if let Some(to) = &self.to {
            sql.push(" AND p.started_at < ").bind(day("to", to)?.start_ms());
        }
        if let Some(part) = &self.q {
            let pattern = containing(part);
            sql.push(" AND (p.user_id LIKE ").bind(pattern.clone());
            sql.push(" ESCAPE '\\' OR p.content LIKE ").bind(pattern.clone());
            sql.push(" ESCAPE '\\' OR p.device LIKE ")
                .bind(pattern)
                .push(" ESCAPE '\\')");
        }
        Ok(())
    }
}

/// The plays of the tenant. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/plays",
    tag = "ledger",
    params(PlaysQuery),
    responses((status = 200, description = "The plays", body = Listing<Play>)),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<PlaysQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let page = List::new(query.page, query.limit)?;
    let fields = chosen(query.fields.as_deref(), &FIELDS, "id")?;
    let order = match sorting(query.sort.as_deref().unwrap_or("-started_at"), &SORTS)? {
        ("recorded_at", false) => " ORDER BY p.recorded_at, p.id",
        ("recorded_at", true) => " ORDER BY p.recorded_at DESC, p.id DESC",
        ("seconds", false) => " ORDER BY p.seconds, p.id",
        ("seconds", true) => " ORDER BY p.seconds DESC, p.id DESC",
        ("user", false) => " ORDER BY p.user_id, p.started_at, p.id",
        ("user", true) => " ORDER BY p.user_id DESC, p.started_at DESC, p.id DESC",
        ("content", false) => " ORDER BY p.content, p.started_at, p.id",
        ("content", true) => " ORDER BY p.content DESC, p.started_at DESC, p.id DESC",
        (_, false) => " ORDER BY p.started_at, p.id",
        (_, true) => " ORDER BY p.started_at DESC, p.id DESC",
    };
    let mut count = Sql::new("SELECT CAST(count(*) AS BIGINT) FROM plays p");
    query.filter(&mut count, &tenant)?;
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS).push(" FROM plays p");
    query.filter(&mut sql, &tenant)?;
    let (start, limit) = page.span();
    let bounded = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    sql.push(order)
        .push(" LIMIT ")
        .bind(bounded(limit))
        .push(" OFFSET ")
        .bind(bounded(start));
    let mut work = desk.db()?.connect().await?;
    let total: i64 = work.fetch_one(count.query()).await?.get(0);
    let rows = work.fetch_all(sql.query()).await?;
    let items: Vec<_> = rows
        .iter()
        .map(|row| only(json!(Play::of(row)), &fields))
        .collect();
    Ok(Json(page.answer(items, usize::try_from(total).unwrap_or_default())).into_response())
}

/// Which tenant is meant.
#[derive(Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantQuery {
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    pub(super) tenant: Option<String>,
}

/// Which page of a list, and of which tenant.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    pub(super) page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    pub(super) limit: Option<u32>,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    pub(super) tenant: Option<String>,
}

/// 404 for a play that is not there, also for an id that cannot be one.
pub(super) fn unknown() -> ApiError {
    ApiError::not_found("there is no such play")
}

/// One play. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/plays/{id}",
    tag = "ledger",
    params(("id" = String, Path, description = "The play"), TenantQuery),
    responses((status = 200, description = "The play", body = Play)),
    security(("bearer" = []))
)]
pub(super) async fn show(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<TenantQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let Path(id) = path.map_err(|_| unknown())?;
    let mut work = desk.db()?.connect().await?;
    let play = find(&mut work, &tenant, &id).await?.ok_or_else(unknown)?;
    Ok(Json(play).into_response())
}

/// A play of a tenant; none where there is none.
pub(super) async fn find(
    work: &mut crate::db::Work,
    tenant: &str,
    id: &str,
) -> Result<Option<Play>, ApiError> {
    if id.contains('\0') {
        return Ok(None);
    }
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS)
        .push(" FROM plays p WHERE p.tenant = ")
        .bind(tenant.to_owned());
    sql.push(" AND p.id = ").bind(id.to_owned());
    let row = work.fetch_optional(sql.query()).await?;
    Ok(row.as_ref().map(Play::of))
}
