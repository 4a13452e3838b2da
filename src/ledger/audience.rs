//! `GET /v1/reports/audience`: who watched how much, and whether to the end, told apart by one thing.

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

use super::desk::Desk;
use super::insight::Scope;
use super::labels::{LABEL, push_labels};

/// An audience, and how it is told apart.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AudienceQuery {
    /// `content`, `label`, `category`, `region`, `device_class` or `hour` (of the day, UTC).
    #[param(pattern = "^(content|label|category|region|device_class|hour)$")]
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
    /// Sessions whose content has a length in the catalogue,
    measured: i64,
    /// and those of them that came to `ledger.finished` percent of it.
    finished: i64,
    /// The part of the measured ones that finished, from 0 to 1 with four decimals; null when none was measured.
    #[schema(required)]
    completion: Option<f64>,
}

/// A part of one, with four decimals.
fn completion(finished: i64, measured: i64) -> Option<f64> {
    let scaled = finished.saturating_mul(10_000).checked_div(measured)?;
    u32::try_from(scaled)
        .ok()
        .map(|scaled| f64::from(scaled) / 10_000.0)
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
        "category" => "coalesce(k.category, '')",
        "region" => "p.region",
        "device_class" => "coalesce(p.device_class, '')",
        "hour" => "CAST((p.started_at / 3600000) % 24 AS TEXT)",
        _ => {
            return Err(ApiError::bad_request(
                "by",
                "by is content, label, category, region, device_class or hour",
            ));
        }
    };
    let scope = Scope::of(
        &claims,
        query.tenant.as_deref(),
        query.from.as_deref(),
        query.to.as_deref(),
    )?;
    let mut sql = Sql::new(
        "SELECT name, plays, users, seconds, measured, finished, CAST(count(*) OVER () AS BIGINT) FROM (SELECT ",
    );
    sql.push(by).push(
        " AS name, CAST(sum(CASE WHEN p.corrects IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS plays, \
         CAST(count(DISTINCT p.user_id) AS BIGINT) AS users, CAST(sum(p.seconds) AS BIGINT) AS seconds, \
         CAST(sum(CASE WHEN p.kind = 'session' AND k.duration_ms > 0 THEN 1 ELSE 0 END) AS BIGINT) AS measured, \
         CAST(sum(CASE WHEN p.kind = 'session' AND k.duration_ms > 0 AND p.position_ms >= k.duration_ms * ",
    );
    sql.bind(i64::from(desk.settings.finished));
    sql.push(" / 100 THEN 1 ELSE 0 END) AS BIGINT) AS finished FROM plays p");
    push_labels(&mut sql, "p.content", &scope.tenant);
    scope.filter(&mut sql);
    let (start, limit) = page.span();
    let bounded = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    sql.push(" GROUP BY 1) s ORDER BY seconds DESC, name LIMIT ")
        .bind(bounded(limit));
    sql.push(" OFFSET ").bind(bounded(start));
    let place = desk.place("audience", &claims, &scope.tenant)?;
    let mut work = desk.rows().await?;
    let rows = place.run(work.fetch_all(sql.query())).await?;
    let total: i64 = rows.first().map_or(0, |row| row.get(6));
    let items = rows.iter().map(|row| Audience {
        name: row.get(0),
        plays: row.get(1),
        users: row.get(2),
        seconds: row.get(3),
        measured: row.get(4),
        finished: row.get(5),
        completion: completion(row.get(5), row.get(4)),
    });
    Ok(Json(page.answer(items.collect(), usize::try_from(total).unwrap_or_default())).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_four_decimals() {
        assert_eq!(completion(2, 3), Some(0.6666));
        assert_eq!(completion(5, 5), Some(1.0));
        assert_eq!(completion(0, 0), None);
    }
}
