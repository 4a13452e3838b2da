//! `GET /v1/plays/positions`: where an account stopped, content by content.

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
use super::time;

/// Where a content was left.
#[derive(Serialize, ToSchema)]
#[schema(as = PlayPosition)]
pub(super) struct Position {
    /// The content.
    content: String,
    /// Where, in milliseconds.
    position_ms: i64,
    /// When.
    #[schema(format = DateTime)]
    ended_at: String,
}

/// Which positions are listed.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PositionsQuery {
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
    /// Only of this content.
    #[param(nullable = false)]
    content: Option<String>,
}

/// Where the account of the token stopped, the latest first. Scope `watch`.
#[utoipa::path(
    get,
    path = "/v1/plays/positions",
    tag = "ledger",
    params(PositionsQuery),
    responses((status = 200, description = "One position for each content", body = Listing<Position>)),
    security(("bearer" = []))
)]
pub(super) async fn positions(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<PositionsQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.api.watcher(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let own = |sql: &mut Sql| {
        sql.push(" FROM plays WHERE tenant = ")
            .bind(claims.tenant.to_string())
            .push(" AND user_id = ")
            .bind(claims.account.to_string())
            .push(" AND kind = 'session'");
        if let Some(content) = &query.content {
            sql.push(" AND content = ").bind(content.clone());
        }
    };
    let mut count = Sql::new("SELECT CAST(count(DISTINCT content) AS BIGINT)");
    own(&mut count);
    let mut sql = Sql::new(
        "SELECT content, position_ms, ended_at FROM (SELECT content, position_ms, ended_at, row_number() OVER \
         (PARTITION BY content ORDER BY ended_at DESC, id DESC) AS place",
    );
    own(&mut sql);
    let (start, limit) = page.span();
    let bounded = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    sql.push(") l WHERE place = 1 ORDER BY ended_at DESC, content LIMIT ")
        .bind(bounded(limit))
        .push(" OFFSET ")
        .bind(bounded(start));
    let mut work = desk.db()?.connect().await?;
    let total: i64 = work.fetch_one(count.query()).await?.get(0);
    let rows = work.fetch_all(sql.query()).await?;
    let items: Vec<_> = rows
        .iter()
        .map(|row| Position {
            content: row.get(0),
            position_ms: row.get::<Option<i64>, _>(1).unwrap_or_default(),
            ended_at: time(row.get::<Option<i64>, _>(2).unwrap_or_default()),
        })
        .collect();
    Ok(Json(page.answer(items, usize::try_from(total).unwrap_or_default())).into_response())
}
