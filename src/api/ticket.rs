//! What checks playback tickets: the key set, introspection, and a route for proxies that can only ask and obey.
//!
//! Owns: where a request carries a ticket, and what a checker is answered. Does not: issue tickets (the socket does).
//! Called by: the players' router. Examples of checkers: `examples/tickets`.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::auth::{Claims, Rejected, Scope, Ticket, from_request};
use crate::protocol::id::SessionId;

use super::Api;
use super::body::read_json;
use super::error::{ApiError, ErrorBody};
use super::observe::Context;

/// How long a checker may keep the key set, in the words of HTTP. A new key is published for longer before it signs.
const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The request that a proxy asks about, as nginx's documentation calls this header.
static ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

/// When to ask again while nobody can tell whether a session lives, in seconds.
const RETRY_AFTER: u16 = 1;

/// The keys that verify tickets.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "tickets",
    responses((status = 200, description = "A JWK Set (RFC 7517)", body = KeySet, content_type = "application/jwk-set+json"))
)]
pub(super) async fn key_set(State(api): State<Arc<Api>>) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/jwk-set+json"),
        ),
        (header::CACHE_CONTROL, KEEP),
    ];
    (headers, api.verifier.key_set().to_string()).into_response()
}

/// A JWK Set (RFC 7517).
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: the verifier writes it")]
pub(super) struct KeySet {
    /// The keys.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<Value>,
}

/// What is asked about.
#[derive(Deserialize, ToSchema)]
pub(super) struct Asked {
    /// A playback ticket.
    token: String,
}

/// What is known of a ticket; no more than `active` where that is `false`.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct Introspection {
    /// Whether it is good and its session lives.
    active: bool,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    sid: Option<SessionId>,
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sub: Option<Arc<str>>,
    /// The account's tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tenant: Option<Arc<str>>,
    /// What may be fetched with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content: Option<Arc<str>>,
    /// When it ends, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    exp: Option<u64>,
}

/// Whether a ticket is good and its session lives.
///
/// After RFC 7662. A bad one and a dead one are the same answer. The scope is `introspect`.
#[utoipa::path(
    post,
    path = "/v1/introspect",
    tag = "tickets",
    request_body = Asked,
    responses((status = 200, description = "What is known of it", body = Introspection)),
    security(("bearer" = []))
)]
pub(super) async fn introspect(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Json<Introspection>, ApiError> {
    let (parts, body) = request.into_parts();
    let claims = api.authenticate(&parts, &context).await?;
    if !claims.scopes.has(Scope::Introspect) {
        return Err(ApiError::forbidden(
            "scope_forbidden",
            "the scope `introspect` is required",
        ));
    }
    let request = Request::from_parts(parts, body);
    let usage = "the body must be {\"token\": \"<ticket>\"}";
    let Asked { token } = read_json(request, context.peer.deadline, "token", usage).await?;
    let dead = Introspection::default();
    let Ok(ticket) = api.verifier.verify_ticket(&token) else {
        return Ok(Json(dead));
    };
    if !may_see(&claims, &ticket) || !api.gateway.lease.lives(&ticket.account, ticket.session).await? {
        return Ok(Json(dead));
    }
    let exp = ticket.expires_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Json(Introspection {
        active: true,
        sid: Some(ticket.session),
        sub: Some(ticket.account.account),
        tenant: Some(ticket.account.tenant),
        content: Some(ticket.content),
        exp: Some(exp.as_secs()),
    }))
}

/// Nobody learns of another tenant's tickets but an operator.
fn may_see(claims: &Claims, ticket: &Ticket) -> bool {
    claims.scopes.has(Scope::Operator) || claims.tenant == ticket.account.tenant
}

/// The query of [`check`].
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Check {
    /// The ticket, where no header carries it.
    #[param(nullable = false)]
    ticket: Option<String>,
    /// The content that is fetched.
    #[param(nullable = false)]
    content: Option<String>,
    /// Whether its session must live; left out: yes.
    #[param(nullable = false, default = true)]
    lease: Option<bool>,
}

/// Answers a proxy that asks before it serves, such as nginx's `auth_request`.
///
/// The ticket is the credential: `Authorization: Bearer`, `ticket` in the query of `X-Original-URI`, or `ticket` here.
#[utoipa::path(
    get,
    path = "/v1/tickets/check",
    tag = "tickets",
    params(
        Check,
        ("X-Original-URI" = Option<String>, Header, nullable = false, description = "The request that the proxy asks about.")
    ),
    responses(
        (status = 204, description = "Serve it"),
        (status = 403, description = "`content_forbidden`: it is for another content. `session_ended`", body = ErrorBody),
    ),
    security(("ticket" = []))
)]
pub(super) async fn check(
    State(api): State<Arc<Api>>,
    query: Result<Query<Check>, QueryRejection>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let Query(check) = query.map_err(|rejection| ApiError::bad_request("query", rejection.body_text()))?;
    let (parts, _) = request.into_parts();
    let ticket =
        ticket_of(&parts, check.ticket.as_deref()).and_then(|text| api.verifier.verify_ticket(&text));
    let ticket = ticket.map_err(|rejected| {
        api.metrics.tokens_rejected_total.inc(rejected.reason());
        ApiError::bad_ticket()
    })?;
    if check.content.is_some_and(|content| *content != *ticket.content) {
        let message = "the ticket is for another content";
        return Err(ApiError::forbidden("content_forbidden", message));
    }
    if check.lease == Some(false) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let lease = &api.gateway.lease;
    match lease.lives(&ticket.account, ticket.session).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(ApiError::forbidden(
            "session_ended",
            "the session of this ticket has ended",
        )),
        // An outage of the limiter blacks out no screen, unless the operator wants nobody let in then.
        Err(_) if !lease.is_refusing(&ticket.account) => Ok(StatusCode::NO_CONTENT),
        Err(_) => Err(ApiError::unavailable(
            "unavailable",
            "whether the session lives cannot be told just now",
            RETRY_AFTER,
        )),
    }
}

/// First found wins: `Authorization: Bearer`, `?ticket=` of the request that the proxy asks about, `?ticket=` of this
/// one.
fn ticket_of(parts: &Parts, own: Option<&str>) -> Result<String, Rejected> {
    if let Some(token) = from_request(parts, false)? {
        return Ok(token.expose().to_owned());
    }
    let original = in_original(&parts.headers)?;
    original
        .or_else(|| own.map(str::to_owned))
        .ok_or(Rejected::Missing)
}

fn in_original(headers: &HeaderMap) -> Result<Option<String>, Rejected> {
    #[derive(Deserialize)]
    struct Original {
        ticket: Option<String>,
    }
    let Some(uri) = headers.get(&ORIGINAL_URI) else {
        return Ok(None);
    };
    let uri = Uri::try_from(uri.as_bytes()).map_err(|_| Rejected::Malformed)?;
    let query = Query::<Original>::try_from_uri(&uri).map_err(|_| Rejected::Malformed)?;
    Ok(query.0.ticket)
}
