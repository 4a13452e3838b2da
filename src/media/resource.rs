//! `/v1/files` without bytes: the list, one file, changing what is said of it, removing it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::body::read_json;
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};

use super::Media;
use super::file::{File, Shown, now};
use super::files::{self, SORTS, Wish};
use super::viewer::no_file;

type Shared = State<Arc<Media>>;
pub(super) type FilePath = Result<Path<String>, PathRejection>;

/// What may be asked for of each file; `id` always comes.
const FIELDS: [&str; 15] = [
    "id",
    "title",
    "description",
    "category",
    "language",
    "provider",
    "content",
    "roles",
    "type",
    "size",
    "sha256",
    "state",
    "owner",
    "created_at",
    "changed_at",
];

/// The query of [`list`].
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
    /// A part of the title or the description.
    #[param(nullable = false)]
    q: Option<String>,
    /// `created_at`, `changed_at`, `title` or `size`, with `-` before it for descending.
    #[param(
        nullable = false,
        pattern = "^-?(created_at|changed_at|title|size)$",
        default = "-created_at"
    )]
    sort: Option<String>,
    /// Which members of the items, with commas between; `id` always comes.
    #[param(
        nullable = false,
        pattern = "^(id|title|description|category|language|provider|content|roles|type|size|sha256|state|owner|created_at|changed_at)(,(id|title|description|category|language|provider|content|roles|type|size|sha256|state|owner|created_at|changed_at))*$"
    )]
    fields: Option<String>,
    /// Of this media type.
    #[param(nullable = false)]
    r#type: Option<String>,
    /// In this state.
    #[param(nullable = false)]
    state: Option<String>,
    /// Of this category.
    #[param(nullable = false)]
    category: Option<String>,
    /// In this language.
    #[param(nullable = false)]
    language: Option<String>,
    /// Of this provider.
    #[param(nullable = false)]
    provider: Option<String>,
    /// Opened by leases of this content.
    #[param(nullable = false)]
    content: Option<String>,
    /// Brought by this account.
    #[param(nullable = false)]
    owner: Option<String>,
    /// For this role, or for everybody.
    #[param(nullable = false)]
    role: Option<String>,
}

/// What is said of a file; what is left out stays as it is, `null` takes it away.
#[derive(utoipa::ToSchema)]
#[schema(as = FileChange)]
#[expect(
    dead_code,
    reason = "only described: `About::change` reads it, to name what is wrong with it"
)]
pub(super) struct Change {
    #[schema(max_length = 200)]
    title: Option<String>,
    #[schema(max_length = 1000)]
    description: Option<String>,
    #[schema(max_length = 64)]
    category: Option<String>,
    #[schema(max_length = 64)]
    language: Option<String>,
    #[schema(max_length = 64)]
    provider: Option<String>,
    #[schema(max_length = 256)]
    content: Option<String>,
    #[schema(max_items = 32)]
    roles: Option<Vec<String>>,
}

/// The files of the token's tenant that it may see.
///
/// All with the scope editor, admin or operator; else its own, and those that are ready and for its roles.
#[utoipa::path(
    get,
    path = "/v1/files",
    tag = "media",
    params(Listed),
    responses((status = 200, description = "The files", body = Listing<Shown<'_>>)),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(media): Shared,
    Extension(context): Extension<Context>,
    query: Result<Query<Listed>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let person = media.person(&context, &parts).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let fields = chosen(query.fields.as_deref())?;
    let wish = wish(query)?;
    let (found, total) = files::list(media.api.db()?, &person.sight(), &wish, page.span()).await?;
    let items: Vec<Value> = found.iter().map(|file| item(file, fields.as_deref())).collect();
    Ok(Json(page.answer(items, total)).into_response())
}

/// A file, without its bytes.
#[utoipa::path(
    get,
    path = "/v1/files/{id}",
    tag = "media",
    params(("id" = String, Path, description = "The file's id")),
    responses((status = 200, description = "The file", body = Shown<'_>)),
    security(("bearer" = []))
)]
pub(super) async fn show(
    State(media): Shared,
    Extension(context): Extension<Context>,
    id: FilePath,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let person = media.person(&context, &parts).await?;
    let file = media.seen(&person, &file_id(id)?).await?;
    Ok(Json(file.shown()).into_response())
}

/// Changes what is said of a file.
///
/// Its owner's token, or one with the scope editor, admin or operator; else 403 `not_the_owner`.
#[utoipa::path(
    put,
    path = "/v1/files/{id}",
    tag = "media",
    params(("id" = String, Path, description = "The file's id")),
    request_body = Change,
    responses((status = 200, description = "The file", body = Shown<'_>)),
    security(("bearer" = []))
)]
pub(super) async fn change(
    State(media): Shared,
    Extension(context): Extension<Context>,
    id: FilePath,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let person = media.person(&context, &parts).await?;
    let mut file = media.owned(&person, &file_id(id)?).await?;
    let request = Request::from_parts(parts, body);
    let usage = "the body must be a JSON object";
    let fields: Map<String, Value> = read_json(request, context.peer.deadline, "body", usage).await?;
    file.about.change(&fields)?;
    file.changed_at = now();
    files::change(media.api.db()?, &file).await?;
    Ok(Json(file.shown()).into_response())
}

/// Removes a file.
///
/// Responses with its bytes that are under way may end early. Its owner's token, or one with the scope editor, admin or
/// operator.
#[utoipa::path(
    delete,
    path = "/v1/files/{id}",
    tag = "media",
    params(("id" = String, Path, description = "The file's id")),
    responses((status = 204, description = "It is gone")),
    security(("bearer" = []))
)]
pub(super) async fn remove(
    State(media): Shared,
    Extension(context): Extension<Context>,
    id: FilePath,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, _) = request.into_parts();
    let person = media.person(&context, &parts).await?;
    let file = media.owned(&person, &file_id(id)?).await?;
    // Bytes first: should the row stay, the file can be removed again.
    if let Err(error) = media.store.remove(&file.key).await {
        tracing::error!(file = file.id, %error, "a file could not be removed");
        let message = "the file cannot be removed just now";
        return Err(ApiError::unavailable("store_away", message, 5));
    }
    files::remove(media.api.db()?, &file).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The id in a path, which may have a file's ending: `<id>.mp4`. What cannot be an id is one that nobody has.
pub(super) fn file_id(path: FilePath) -> Result<String, ApiError> {
    let Path(text) = path.map_err(|_| no_file())?;
    let id = text.split('.').next().unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if id.is_empty() || id.len() > 64 || !id.bytes().all(fits) {
        return Err(no_file());
    }
    Ok(id.to_owned())
}

fn wish(query: Listed) -> Result<Wish, ApiError> {
    let asked = query.sort.as_deref().unwrap_or("-created_at");
    let (name, descending) = asked
        .strip_prefix('-')
        .map_or((asked, false), |name| (name, true));
    let known = SORTS.iter().find(|(known, ..)| *known == name);
    let sort = known.map(|(known, ..)| *known).ok_or_else(|| {
        let names: Vec<_> = SORTS.iter().map(|(name, ..)| *name).collect();
        let message = format!("sort is one of {}, with - for descending", names.join(", "));
        ApiError::bad_request("sort", message)
    })?;
    let equal = [
        ("type", query.r#type),
        ("state", query.state),
        ("category", query.category),
        ("language", query.language),
        ("provider", query.provider),
        ("content", query.content),
        ("owner", query.owner),
    ];
    let equal = equal.into_iter().filter_map(|(name, value)| Some((name, value?)));
    Ok(Wish {
        q: query.q,
        equal: equal.collect(),
        role: query.role,
        sort,
        descending,
    })
}

fn chosen(asked: Option<&str>) -> Result<Option<Vec<&'static str>>, ApiError> {
    let Some(asked) = asked else { return Ok(None) };
    let named = asked
        .split(',')
        .map(|name| FIELDS.iter().find(|known| **known == name));
    let named: Option<Vec<&'static str>> = named.map(Option::<&_>::copied).collect();
    named
        .map(Some)
        .ok_or_else(|| ApiError::bad_request("fields", format!("fields are {}", FIELDS.join(", "))))
}

fn item(file: &File, fields: Option<&[&str]>) -> Value {
    let mut value = serde_json::to_value(file.shown()).unwrap_or_default();
    if let (Some(fields), Some(object)) = (fields, value.as_object_mut()) {
        object.retain(|name, _| name == "id" || fields.contains(&name.as_str()));
    }
    value
}
