//! `/v1/inbox`: a socket for those who do not watch. It hears what a watch socket hears of its account, and takes no slot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use dashmap::DashMap;
use http::StatusCode;

use crate::api::error::ApiError;
use crate::api::handshake;
use crate::api::observe::{Context, Upgrade};
use crate::auth::Scope;
use crate::gateway::inbox::Reader;
use crate::protocol::id::AccountKey;
use crate::protocol::start::message_id;

use super::viewer::Desk;

/// The inboxes that are open on this node, by account.
#[derive(Clone, Default)]
pub(super) struct Readers(Arc<DashMap<AccountKey, u32>>);

/// One of them, until it is dropped.
struct Counted {
    readers: Readers,
    account: AccountKey,
}

impl Readers {
    /// One more; none: there are as many as may be.
    fn begin(&self, account: &AccountKey, most: u32) -> Option<Counted> {
        let mut count = self.0.entry(account.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted {
            readers: self.clone(),
            account: account.clone(),
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(mut count) = self.readers.0.get_mut(&self.account) {
            *count -= 1;
        }
        self.readers.0.remove_if(&self.account, |_, count| *count == 0);
    }
}

/// A socket that hears the account's messages.
///
/// A WebSocket, over HTTP/1.1, with a token as for `/v1/watch`. It takes no slot. `since`: what came after this id is told
/// first, in order. The scope is `watch`.
#[utoipa::path(
    get,
    path = "/v1/inbox",
    tag = "messages",
    params((
        "since" = Option<u64>,
        Query,
        description = "Everything up to this id was heard",
        nullable = false,
        minimum = 0,
        maximum = 9007199254740991_u64
    )),
    responses(
        (status = 101, description = "The socket is open"),
        (status = 426, description = "`upgrade_required`: not a WebSocket handshake of version 13 over HTTP/1.1", body = crate::api::error::ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn open(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let api = &desk.api;
    api.check_origin(&parts)?;
    let client = api.check_client(&context)?;
    if api.draining.load(Ordering::Relaxed) {
        let message = "this node is leaving; connect again";
        return Err(ApiError::unavailable("draining", message, 1));
    }
    let claims = api.authenticate(&parts, &context).await?;
    if !claims.scopes.has(Scope::Watch) {
        let message = "the token does not allow to watch";
        return Err(ApiError::forbidden("scope_forbidden", message));
    }
    let messages = desk.messages()?;
    let since = since(parts.uri.query().unwrap_or_default())?;
    let mut reader = Reader::new(claims, since, context.id, context.client);
    let mut response = handshake::accept(&context.peer, &parts.headers)?;
    api.check_start(&reader.account)?;
    let most = messages.settings.sockets_per_account;
    let counted = messages.readers.begin(&reader.account, most).ok_or_else(|| {
        let message = "this account has as many inboxes open as it may";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sockets", message)
    })?;
    reader.counted = Box::new(counted);
    let gateway = Arc::clone(&api.gateway);
    let then = Upgrade::new(Box::new(move |handover| {
        gateway.open_inbox(handover.with(client), reader);
    }));
    response.extensions_mut().insert(then);
    Ok(response)
}

/// Unknown parameters are ignored, as on a watch socket; `since` twice is refused.
fn since(query: &str) -> Result<Option<u64>, ApiError> {
    let mut found = None;
    for (_, value) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "since") {
        if found.replace(message_id(&value)?).is_some() {
            return Err(ApiError::bad_request("since", "since: given twice"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inboxes_are_counted_by_account() {
        let readers = Readers::default();
        let (a, b) = (AccountKey::new("main", "a"), AccountKey::new("other", "a"));
        let first = readers.begin(&a, 2);
        let second = readers.begin(&a, 2);
        assert!(first.is_some() && second.is_some() && readers.begin(&a, 2).is_none());
        assert!(readers.begin(&b, 2).is_some(), "tenants are apart");
        drop(first);
        assert!(readers.begin(&a, 2).is_some());
        drop(second);
        assert!(readers.0.is_empty(), "nothing is kept");
    }
}
