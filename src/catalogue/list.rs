//! `GET /v1/content`: the contents that somebody sees, page by page.
//!
//! Owns: the query. Does not: know SQL (`store` does). Called by: the catalogue's router.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use crate::api::choice::{chosen, only, sorting};
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::lease::shelf::Sight;

use super::item::{Kind, Stored};
use super::shape::Content;
use super::store::{self, Filter};
use super::{Catalogue, VIEWERS};

/// What may be asked for of each; `id` always comes.
const FIELDS: [&str; 16] = [
    "id",
    "name",
    "type",
    "source",
    "description",
    "category",
    "language",
    "tags",
    "label",
    "metadata",
    "duration_ms",
    "thumbnail",
    "roles",
    "plans",
    "created_at",
    "changed_at",
];

/// What it may be sorted by.
const SORTS: [&str; 6] = ["name", "created_at", "changed_at", "duration_ms", "type", "id"];

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
    /// A part of a name, a description or an id.
    #[param(nullable = false, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    q: Option<String>,
    /// `name`, `created_at`, `changed_at`, `duration_ms`, `type` or `id`, with `-` before it for descending.
    #[param(
        nullable = false,
        pattern = "^-?(name|created_at|changed_at|duration_ms|type|id)$",
        default = "name"
    )]
    sort: Option<String>,
    /// Which members of the items, with commas between; `id` always comes.
    #[param(
        nullable = false,
        pattern = "^(id|name|type|source|description|category|language|tags|label|metadata|duration_ms|thumbnail|roles\
                   |plans|created_at|changed_at)(,(id|name|type|source|description|category|language|tags|label|metadata\
                   |duration_ms|thumbnail|roles|plans|created_at|changed_at))*$"
    )]
    fields: Option<String>,
    /// Only these: `livestream` or `vod`.
    #[serde(rename = "type")]
    #[param(nullable = false, pattern = "^(livestream|vod)$")]
    kind: Option<String>,
    /// Only those of this category,
    #[param(nullable = false, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    category: Option<String>,
    /// of this language,
    #[param(nullable = false, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    language: Option<String>,
    /// with this tag,
    #[param(nullable = false, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    tag: Option<String>,
    /// of this rights holder.
    #[param(nullable = false, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    label: Option<String>,
}

/// The contents that the token shows.
///
/// The scope is `watch`, and only `editor` and `admin` see all of them, and their sources.
#[utoipa::path(
    get,
    path = "/v1/content",
    tag = "content",
    params(Listed),
    responses((status = 200, description = "The contents", body = Listing<Content>)),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(catalogue): State<Arc<Catalogue>>,
    Extension(context): Extension<Context>,
    query: Result<Query<Listed>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = catalogue.api.caller_with(&context, request, &VIEWERS).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let sort = sorting(query.sort.as_deref().unwrap_or("name"), &SORTS)?;
    let fields = chosen(query.fields.as_deref(), &FIELDS, "id")?;
    let filter = Filter {
        q: text("q", query.q)?,
        kind: query.kind.as_deref().map(kind).transpose()?,
        category: text("category", query.category)?,
        language: text("language", query.language)?,
        tag: text("tag", query.tag)?,
        label: text("label", query.label)?,
    };
    let sight = Sight::of(&claims);
    let mut work = catalogue.api.db()?.connect().await?;
    let found = store::page(&mut work, &claims.tenant, (&filter, &sight), sort, page.span());
    let (contents, total) = found.await?;
    let show = |stored: &Stored| only(Value::Object(stored.shown(&sight)), &fields);
    let items: Vec<_> = contents.iter().map(show).collect();
    Ok(Json(page.answer(items, total)).into_response())
}

fn kind(text: &str) -> Result<Kind, ApiError> {
    Kind::of(text).ok_or_else(|| ApiError::bad_request("type", "type must be livestream or vod"))
}

/// What is compared with a column, which never holds a control character where it is a word or a name.
fn text(field: &'static str, value: Option<String>) -> Result<Option<String>, ApiError> {
    match value {
        Some(text) if text.contains(char::is_control) => Err(ApiError::bad_request(
            field,
            format!("{field} has control characters"),
        )),
        value => Ok(value),
    }
}
