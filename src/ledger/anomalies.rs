//! `GET /v1/reports/anomalies`: rows and days with more seconds than there are.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::db::Sql;

use super::calendar::{DAY_MS, Day};
use super::desk::Desk;
use super::insight::Scope;

const DAY_SECONDS: i64 = DAY_MS / 1000;

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
    let place = desk.place("anomalies", &claims, &scope.tenant)?;
    let mut work = desk.rows().await?;
    let rows = place.run(work.fetch_all(sql.query())).await?;
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
