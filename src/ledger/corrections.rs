//! `POST /v1/plays`, `PUT` and `DELETE /v1/plays/{id}`: plays by hand. Nothing is changed: a correction is another row.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use utoipa::ToSchema;

use crate::api::error::{ApiError, ErrorBody};
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::api::page::bad_query;
use crate::db::{DbError, Sql, Work};
use crate::protocol::id::random;

use super::calendar::DAY_MS;
use super::desk::{Desk, tenant_of};
use super::plays::{Play, TenantQuery, find, unknown};
use super::royalty_routes::region;
use super::{millis, now_ms, versions};

const MAX_SECONDS: i64 = 1_000_000_000;
const MAX_ID_BYTES: usize = 256;

/// A play that no session told of.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
#[schema(as = PlayEntry)]
pub(super) struct Entry {
    /// Its id, so that a repeat is refused; made up without one.
    #[schema(min_length = 1, max_length = 256)]
    id: Option<String>,
    /// The user.
    #[schema(min_length = 1, max_length = 256)]
    user: String,
    /// What was watched.
    #[schema(min_length = 1, max_length = 256)]
    content: String,
    /// When it began.
    #[schema(format = DateTime)]
    started_at: String,
    /// Seconds watched.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    seconds: i64,
    /// Where.
    #[schema(max_length = 64)]
    region: Option<String>,
}

/// What a play should have said.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
#[schema(as = PlayCorrection)]
pub(super) struct Correction {
    /// Seconds watched, as they are to count.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    seconds: i64,
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::bad_request(field, format!("{field} is missing")))
}

fn id(fields: &mut Fields, field: &'static str) -> Result<Option<String>, ApiError> {
    let text = fields.text(field)?;
    let fits = text
        .as_ref()
        .is_none_or(|text| (1..=MAX_ID_BYTES).contains(&text.len()) && !text.contains('\0'));
    if fits {
        return Ok(text);
    }
    Err(ApiError::bad_request(
        field,
        format!("{field} is a text of 1 to 256 bytes"),
    ))
}

fn seconds(fields: &mut Fields, least: i64) -> Result<i64, ApiError> {
    let usage = "a whole number of seconds up to 1000000000";
    let seconds: i64 = required("seconds", fields.take("seconds", usage)?)?;
    if !(least..=MAX_SECONDS).contains(&seconds) {
        return Err(ApiError::bad_request(
            "seconds",
            format!("seconds must be {usage}, from {least} on"),
        ));
    }
    Ok(seconds)
}

fn fresh() -> String {
    format!("{:024x}", u128::from_be_bytes(random()) >> 32)
}

/// The day of a moment, as [`versions::change`] takes it.
fn day_of(started_at: i64) -> BTreeSet<i64> {
    BTreeSet::from([started_at / DAY_MS])
}

/// A row that is written by hand.
struct ByHand<'a> {
    tenant: &'a str,
    id: String,
    kind: &'static str,
    corrects: Option<String>,
    user: String,
    content: String,
    region: String,
    started_at: i64,
    seconds: i64,
    by: &'a str,
}

async fn insert(work: &mut Work, row: ByHand<'_>) -> Result<(), ApiError> {
    let mut sql = Sql::new(
        "INSERT INTO plays (tenant, id, kind, corrects, user_id, content, region, started_at, seconds, recorded_at, recorded_by) \
         VALUES (",
    );
    sql.bind_all([row.tenant.to_owned(), row.id, row.kind.to_owned()]);
    sql.push(", ").bind(row.corrects).push(", ");
    sql.bind_all([row.user, row.content, row.region]);
    sql.push(", ").bind_all([row.started_at, row.seconds, now_ms()]);
    sql.push(", ").bind(row.by.to_owned()).push(")");
    work.execute(sql.query()).await?;
    Ok(())
}

/// Adds a play that no session told of. Scope `finance` or `admin`.
#[utoipa::path(
    post,
    path = "/v1/plays",
    tag = "ledger",
    params(TenantQuery),
    request_body = Entry,
    responses(
        (status = 201, description = "The play", body = Play),
        (status = 409, description = "`exists`: there is a play of this id.", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn create(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<TenantQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let started_at = required("started_at", fields.text("started_at")?)?;
    let started = humantime::parse_rfc3339(&started_at)
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .map(millis);
    let started_at = started
        .ok_or_else(|| ApiError::bad_request("started_at", "started_at must be as 2019-03-01T12:00:00Z"))?;
    let row = ByHand {
        tenant: &tenant,
        id: id(&mut fields, "id")?.unwrap_or_else(fresh),
        kind: "entry",
        corrects: None,
        user: required("user", id(&mut fields, "user")?)?,
        content: required("content", id(&mut fields, "content")?)?,
        region: region(&fields.text("region")?.unwrap_or_default())?,
        started_at,
        seconds: seconds(&mut fields, 1)?,
        by: &claims.account,
    };
    let written = row.id.clone();
    let mut work = desk.db()?.begin().await?;
    versions::change(&mut work, &tenant, &day_of(row.started_at)).await?;
    // A table that is divided by month does not see the id in another month.
    if find(&mut work, &tenant, &written).await?.is_some() {
        return Err(ApiError::from(DbError::Taken));
    }
    insert(&mut work, row).await?;
    let play = find(&mut work, &tenant, &written).await?.ok_or_else(unknown)?;
    work.commit().await?;
    Ok((StatusCode::CREATED, Json(play)).into_response())
}

/// Makes a play count so many seconds, by a row that adds the difference. Scope `finance` or `admin`.
#[utoipa::path(
    put,
    path = "/v1/plays/{id}",
    tag = "ledger",
    params(("id" = String, Path, description = "The play"), TenantQuery),
    request_body = Correction,
    responses(
        (status = 200, description = "The play, with what counts now", body = Play),
        (status = 409, description = "`is_correction`: a correction is not corrected; correct its play.", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn correct(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<TenantQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let Path(id) = path.map_err(|_| unknown())?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let seconds = seconds(&mut fields, 0)?;
    let play = desk
        .make_count(&tenant, &id, seconds, "adjustment", &claims.account)
        .await?;
    Ok(Json(play).into_response())
}

/// Takes a play out of every sum, by a row that takes its seconds back. Scope `finance` or `admin`.
#[utoipa::path(
    delete,
    path = "/v1/plays/{id}",
    tag = "ledger",
    params(("id" = String, Path, description = "The play"), TenantQuery),
    responses(
        (status = 204, description = "It counts no more"),
        (status = 409, description = "`is_correction`: a correction is not corrected; correct its play.", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn delete(
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
    desk.make_count(&tenant, &id, 0, "reversal", &claims.account)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl Desk {
    async fn make_count(
        &self,
        tenant: &str,
        id: &str,
        seconds: i64,
        kind: &'static str,
        by: &str,
    ) -> Result<Play, ApiError> {
        let mut work = self.db()?.begin().await?;
        // Also the lock under which two corrections of one play take turns.
        versions::change(&mut work, tenant, &BTreeSet::new()).await?;
        let play = find(&mut work, tenant, id).await?.ok_or_else(unknown)?;
        if play.corrects.is_some() {
            let message = "a correction is not corrected: correct its play";
            return Err(ApiError::new(StatusCode::CONFLICT, "is_correction", message));
        }
        let difference = seconds - play.counted;
        if difference == 0 {
            return Ok(play);
        }
        let mut sql = Sql::new("SELECT started_at FROM plays WHERE tenant = ");
        sql.bind(tenant.to_owned()).push(" AND id = ").bind(id.to_owned());
        let started_at = sqlx::Row::get(&work.fetch_one(sql.query()).await?, 0);
        versions::change(&mut work, tenant, &day_of(started_at)).await?;
        let row = ByHand {
            tenant,
            id: fresh(),
            kind,
            corrects: Some(play.id.clone()),
            user: play.user.clone(),
            content: play.content.clone(),
            region: play.region.clone(),
            started_at,
            seconds: difference,
            by,
        };
        insert(&mut work, row).await?;
        let play = find(&mut work, tenant, id).await?.ok_or_else(unknown)?;
        work.commit().await?;
        Ok(play)
    }
}
