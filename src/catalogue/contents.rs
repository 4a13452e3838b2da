//! One content: making, showing, replacing and removing it.
//!
//! Owns: the routes. Does not: check fields (`item`) or know SQL (`store`). Called by: the catalogue's router.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::error::{ApiError, ErrorBody};
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::db::DbError;
use crate::lease::shelf::{Barred, Sight};

use super::item::{Item, Stored, named, unknown};
use super::shape::{Content, ContentBody};
use super::{Catalogue, EDITORS, VIEWERS, files, store, terms};

type Shared = State<Arc<Catalogue>>;
type Who = Extension<Context>;
pub(super) type ContentPath = Result<Path<String>, PathRejection>;

/// Makes a content.
///
/// The scope is `editor` or `admin`.
#[utoipa::path(
    post,
    path = "/v1/content",
    tag = "content",
    request_body = ContentBody,
    responses(
        (
            status = 201,
            description = "The content",
            body = Content,
            headers(("Location" = String, description = "Its path."))
        ),
        (status = 409, description = "`exists`: its id is taken", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn create(
    State(catalogue): Shared,
    Extension(context): Who,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = catalogue.api.caller_with(&context, request, &EDITORS).await?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let item = Item::read(&mut fields, None)?;
    let mut work = catalogue.api.db()?.begin().await?;
    terms::check(&mut work, &claims.tenant, &item).await?;
    files::check(&mut work, &claims.tenant, &item).await?;
    let stored = store::add(&mut work, &claims.tenant, &item).await;
    let stored = stored.map_err(|error| match error {
        DbError::Taken => {
            let mut error = ApiError::from(error);
            error.field = Some("id");
            error
        }
        error => error.into(),
    })?;
    work.commit().await?;
    catalogue.changed(&claims.tenant, &item.id);
    let mut response = (StatusCode::CREATED, shown(&stored, &Sight::of(&claims))).into_response();
    let id = utf8_percent_encode(&item.id, NON_ALPHANUMERIC);
    if let Ok(location) = HeaderValue::try_from(format!("/v1/content/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// One content.
///
/// The scope is `watch`, and only `editor` and `admin` see its source. 403 `content_forbidden`: it is for other plans and
/// roles. 404 `content_unknown`.
#[utoipa::path(
    get,
    path = "/v1/content/{content}",
    tag = "content",
    params(("content" = String, Path, description = "The content")),
    responses((status = 200, description = "The content", body = Content)),
    security(("bearer" = []))
)]
pub(super) async fn show(
    State(catalogue): Shared,
    Extension(context): Who,
    content: ContentPath,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = catalogue.api.caller_with(&context, request, &VIEWERS).await?;
    let id = named(content)?;
    let mut work = catalogue.api.db()?.connect().await?;
    let stored = store::one(&mut work, &claims.tenant, &id).await?;
    let stored = stored.ok_or_else(unknown)?;
    let sight = Sight::of(&claims);
    if !sight.shows(&stored.item.roles, &stored.item.plans) {
        return Err(Barred::Hidden.into());
    }
    Ok(shown(&stored, &sight))
}

/// Writes a content anew: the whole of it, what is left out is empty.
///
/// The scope is `editor` or `admin`. 404 `content_unknown`.
#[utoipa::path(
    put,
    path = "/v1/content/{content}",
    tag = "content",
    params(("content" = String, Path, description = "The content")),
    request_body = ContentBody,
    responses((status = 200, description = "The content", body = Content)),
    security(("bearer" = []))
)]
pub(super) async fn replace(
    State(catalogue): Shared,
    Extension(context): Who,
    content: ContentPath,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = catalogue.api.caller_with(&context, request, &EDITORS).await?;
    let id = named(content)?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let item = Item::read(&mut fields, Some(&id));
    let mut work = catalogue.api.db()?.begin().await?;
    // What is not there has no field that could be wrong.
    if item.is_err() && store::one(&mut work, &claims.tenant, &id).await?.is_none() {
        return Err(unknown());
    }
    let item = item?;
    terms::check(&mut work, &claims.tenant, &item).await?;
    files::check(&mut work, &claims.tenant, &item).await?;
    let stored = store::replace(&mut work, &claims.tenant, &item).await?;
    let stored = stored.ok_or_else(unknown)?;
    work.commit().await?;
    catalogue.changed(&claims.tenant, &id);
    Ok(shown(&stored, &Sight::of(&claims)))
}

/// Takes a content out; this node's sessions on it end.
///
/// The scope is `editor` or `admin`. 404 `content_unknown`.
#[utoipa::path(
    delete,
    path = "/v1/content/{content}",
    tag = "content",
    params(("content" = String, Path, description = "The content")),
    responses((status = 204, description = "It is gone")),
    security(("bearer" = []))
)]
pub(super) async fn delete(
    State(catalogue): Shared,
    Extension(context): Who,
    content: ContentPath,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (claims, _) = catalogue.api.caller_with(&context, request, &EDITORS).await?;
    let id = named(content)?;
    if !store::remove(catalogue.api.db()?, &claims.tenant, &id).await? {
        return Err(unknown());
    }
    catalogue.changed(&claims.tenant, &id);
    catalogue.api.gateway.withdraw(&claims.tenant, &id);
    Ok(StatusCode::NO_CONTENT)
}

fn shown(stored: &Stored, sight: &Sight) -> Response {
    Json(stored.shown(sight)).into_response()
}
