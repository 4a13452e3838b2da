//! `GET /v1/sessions`: an account's own live sessions.
//!
//! Owns: what may be asked for, and in which order. Does not: know who plays (`lease` does).
//! Called by: the players' router.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::lease::model::Entry;
use crate::protocol::client::PlayState;
use crate::protocol::id::AccountKey;
use crate::protocol::server::Holder;

use super::Api;
use super::choice::{chosen, only, sorting};
use super::error::ApiError;
use super::observe::Context;
use super::page::{List, Listing, bad_query};
use super::start::away;

/// What an account's sessions may be sorted by.
const SORTS: &[&str] = &["started_at", "device", "content", "state"];

/// What may be asked for of each; `session` always comes.
const FIELDS: &[&str] = &[
    "session",
    "device",
    "device_name",
    "device_class",
    "content",
    "started_at",
    "state",
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
    /// A part of a device, a device's name or a content.
    #[param(nullable = false)]
    q: Option<String>,
    /// `started_at`, `device`, `content` or `state`, with `-` before it for descending.
    #[param(
        nullable = false,
        pattern = "^-?(started_at|device|content|state)$",
        default = "started_at"
    )]
    sort: Option<String>,
    /// Which members of the items, with commas between; `session` always comes.
    #[param(
        nullable = false,
        pattern = "^(session|device|device_name|device_class|content|started_at|state)\
                   (,(session|device|device_name|device_class|content|started_at|state))*$"
    )]
    fields: Option<String>,
}

/// The account's own live sessions, on all nodes, those on sockets too.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    tag = "sessions",
    params(Listed),
    responses((status = 200, description = "The sessions", body = Listing<Holder>)),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<Context>,
    query: Result<Query<Listed>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = api.watcher(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let (sort, descending) = sorting(query.sort.as_deref().unwrap_or("started_at"), SORTS)?;
    let fields = chosen(query.fields.as_deref(), FIELDS, "session")?;
    let account = AccountKey {
        tenant: claims.tenant,
        account: claims.account,
    };
    let entries = api.gateway.lease.list(&account).await.map_err(away)?;
    let mut found: Vec<&Entry> = entries
        .iter()
        .filter(|entry| query.q.as_deref().is_none_or(|q| matches(entry, q)))
        .collect();
    found.sort_by(|a, b| {
        let order = compare(a, b, sort).then_with(|| a.session.cmp(&b.session));
        if descending { order.reverse() } else { order }
    });
    let (start, limit) = page.span();
    let shown = found.iter().skip(start).take(limit);
    let items: Vec<Value> = shown.map(|entry| item(entry, &fields)).collect();
    Ok(Json(page.answer(items, found.len())).into_response())
}

fn matches(entry: &Entry, q: &str) -> bool {
    let q = q.to_lowercase();
    let name = entry.device.name.as_deref().unwrap_or_default();
    [&*entry.device.id, name, &*entry.content]
        .iter()
        .any(|text| text.to_lowercase().contains(&q))
}

fn compare(a: &Entry, b: &Entry, sort: &str) -> Order {
    match sort {
        "device" => a.device.id.cmp(&b.device.id),
        "content" => a.content.cmp(&b.content),
        "state" => state_name(a.state).cmp(&state_name(b.state)),
        _ => a.started_at.cmp(&b.started_at),
    }
}

fn state_name(state: PlayState) -> Option<String> {
    serde_json::to_value(state)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
}

fn item(entry: &Entry, fields: &[&str]) -> Value {
    only(json!(entry.holder()), fields)
}
