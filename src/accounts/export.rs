//! `GET /v1/users/{id}/export`: everything that is stored about a person.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::{Map, Value, json};

use super::caller::forbidden;
use super::users::{Id, id_of};
use super::{Accounts, sign_ins};
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::lease::model::Entry;

/// Sign-ins read at a time.
const PART: usize = 500;

/// The answer has a part for each room: `account`, `sign_ins`, `sessions`, and what other rooms store.
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
    let sessions: Vec<_> = sessions.iter().map(Entry::holder).collect();
    let mut all = Map::new();
    all.insert("account".to_owned(), json!(person.own()));
    all.insert("sign_ins".to_owned(), json!(signed_in));
    all.insert("sessions".to_owned(), json!(sessions));
    for other in &accounts.others {
        all.insert(other.name().to_owned(), other.export(&account).await?);
    }
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"account.json\"",
        ),
    ];
    Ok((headers, Json(Value::Object(all))).into_response())
}
