//! `GET /v1/users/{id}/export`: everything that is stored about a person.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::caller::forbidden;
use super::person::Own;
use super::sign_ins::Item;
use super::users::{Id, id_of};
use super::{Accounts, sign_ins, staff};
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::lease::model::Entry;
use crate::protocol::server::Holder;

/// Sign-ins read at a time.
const PART: usize = 500;

/// What is stored about a person, a part for each room that stores something.
#[derive(Serialize, ToSchema)]
pub(super) struct Export<'a> {
    /// The account.
    account: Own<'a>,
    /// Where it is signed in.
    sign_ins: Vec<Item>,
    /// What it plays now.
    sessions: Vec<Holder>,
    /// What other rooms store, by their names.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    others: Map<String, Value>,
}

/// Everything that is stored about a person: oneself, or for `admin` others.
#[utoipa::path(
    get,
    path = "/v1/users/{id}/export",
    tag = "users",
    params(("id" = String, Path, description = "The id, or `me`")),
    responses((status = 200, description = "All of it", body = Export<'static>)),
    security(("bearer" = [])),
)]
pub(super) async fn export(
    State(accounts): State<Arc<Accounts>>,
    Extension(context): Extension<Context>,
    path: Id,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    let id = id_of(path)?;
    if !caller.is_named(&id) && !caller.is_admin() {
        return Err(forbidden());
    }
    let person = accounts.named(&caller, &id).await?;
    let (db, account) = (accounts.api.db()?, person.account());
    let mut signed_in = Vec::new();
    loop {
        let (items, total) = sign_ins::list(db, &person.id, None, (signed_in.len(), PART)).await?;
        let last = items.is_empty() || signed_in.len() + items.len() >= total;
        signed_in.extend(items);
        if last {
            break;
        }
    }
    let sessions = accounts.api.gateway.lease.list(&account).await?;
    let sessions = sessions.iter().map(Entry::holder).collect();
    accounts
        .record(&context, &caller, staff::EXPORTED, Some(&person.id))
        .await;
    let mut others = Map::new();
    for other in &accounts.others {
        others.insert(other.name().to_owned(), other.export(&account).await?);
    }
    let all = Export {
        account: person.own(),
        sign_ins: signed_in,
        sessions,
        others,
    };
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"account.json\"",
        ),
    ];
    Ok((headers, Json(all)).into_response())
}
