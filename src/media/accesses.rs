//! `GET /v1/files/accesses`: one access after the other.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::api::error::{ApiError, ErrorBody};
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::db::Sql;

use super::Media;
use super::file::time;
use super::files::signed;
use super::statistics::{Scope, allowed};

/// The query of [`accesses`].
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
    /// Of this file alone.
    #[param(nullable = false)]
    file: Option<String>,
    /// From this month on.
    #[param(nullable = false, pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    from: Option<String>,
    /// Up to this month.
    #[param(nullable = false, pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    to: Option<String>,
}

/// One access.
#[derive(Serialize, ToSchema)]
#[schema(as = FileAccess)]
pub(super) struct Access {
    id: String,
    file: String,
    /// `play`, `stream` or `download`.
    kind: String,
    account: String,
    role: String,
    nation: String,
    provider: String,
    language: String,
    category: String,
    bytes: i64,
    /// Whether nearly all of the file was fetched, and its end.
    completed: bool,
    #[schema(format = DateTime)]
    opened_at: String,
    #[schema(required, format = DateTime)]
    closed_at: Option<String>,
}

/// Accesses one by one, the newest first.
///
/// Who, in which role, fetched which file of which provider, from when until when. Scopes as for the counts; with
/// `media.statistics.floor` editor, admin or operator.
#[utoipa::path(
    get,
    path = "/v1/files/accesses",
    tag = "media",
    params(Listed),
    responses(
        (status = 200, description = "The accesses", body = Listing<Access>),
        (status = 404, description = "`not_found`: there is no such file", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn accesses(
    State(media): State<Arc<Media>>,
    Extension(context): Extension<Context>,
    query: Result<Query<Listed>, QueryRejection>,
    request: Request,
) -> Result<Json<Listing<Access>>, ApiError> {
    let (parts, _) = request.into_parts();
    let person = allowed(media.person(&context, &parts).await?)?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let scope = Scope::of(
        &person,
        query.file.as_ref(),
        (query.from.as_ref(), query.to.as_ref()),
    )?;
    if media.settings.statistics.floor > 1 && !person.is_staff() {
        let message = "single accesses are shown to editors and admins only";
        return Err(ApiError::forbidden("scope_forbidden", message));
    }
    let mut work = media.api.db()?.connect().await?;
    scope.check(&mut work).await?;
    let mut sql = Sql::new("SELECT count(*) FROM file_accesses WHERE tenant = ");
    scope.narrow(&mut sql);
    let found: i64 = work.fetch_one(sql.query()).await?.get(0);
    let (skip, most) = page.span();
    let mut sql = Sql::new(
        "SELECT id, file_id, kind, account, role, nation, company, language, category, bytes, completed, opened_at, \
         closed_at FROM file_accesses WHERE tenant = ",
    );
    scope.narrow(&mut sql);
    sql.push(" ORDER BY opened_at DESC, id LIMIT ")
        .bind(signed(most as u64));
    sql.push(" OFFSET ").bind(signed(skip as u64));
    let rows = work.fetch_all(sql.query()).await?;
    let items = rows.iter().map(Access::of).collect();
    Ok(Json(
        page.answer(items, usize::try_from(found).unwrap_or_default()),
    ))
}

impl Access {
    fn of(row: &AnyRow) -> Self {
        Self {
            id: row.get("id"),
            file: row.get("file_id"),
            kind: row.get("kind"),
            account: row.get("account"),
            role: row.get("role"),
            nation: row.get("nation"),
            provider: row.get("company"),
            language: row.get("language"),
            category: row.get("category"),
            bytes: row.get("bytes"),
            completed: row.get::<i64, _>("completed") == 1,
            opened_at: time(row.get("opened_at")),
            closed_at: row.get::<Option<i64>, _>("closed_at").map(time),
        }
    }
}
