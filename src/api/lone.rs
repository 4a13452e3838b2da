//! `/v1/sessions`: the lease for players without a socket.
//!
//! Owns: the routes and their shapes. Does not: decide (`lease` does) or keep sessions (`gateway::lone` does).
//! Called by: the players' router. PROTOCOL.md describes them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::auth::{Claims, Scope};
use crate::gateway::lone::{Caller, NotOpened, Told};
use crate::gateway::player::Player;
use crate::lease::model::Beat;
use crate::lease::store::StoreError;
use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{ResumeSecret, SessionId};
use crate::protocol::start::Start;

use super::Api;
use super::error::{ApiError, ErrorWith};
use super::fields::Fields;
use super::grant::{Denied, Displaced, Grant, Heartbeat, Lease, Opening};
use super::observe::Context;

/// The secret of the session that a request is about.
static RESUME: HeaderName = HeaderName::from_static("usher-resume");

/// When to come again while nobody can tell, in seconds.
const RETRY_AFTER: u16 = 1;

/// What 410 says.
const GONE: &str = "`gone`: it lapsed; start again. `displaced`: another player took the slot over, `by` says who. `moved`, \
                    `ended_by_operator`, `account_blocked`, `stream_limit_reached`: it was ended";

type Shared = State<Arc<Api>>;
type SessionPath = Result<Path<String>, PathRejection>;

/// A node that leaves takes nobody in any more.
pub(super) fn check_staying(api: &Api) -> Result<(), ApiError> {
    if api.draining.load(Ordering::Relaxed) {
        let message = "this node is leaving; ask again";
        return Err(ApiError::unavailable("draining", message, RETRY_AFTER));
    }
    Ok(())
}

/// Starts to play without a socket.
///
/// The slot is kept by heartbeats; a watch socket with `resume` takes the session over.
#[utoipa::path(
    post,
    path = "/v1/sessions",
    tag = "sessions",
    request_body = Opening,
    responses(
        (
            status = 201,
            description = "The slot is the player's",
            body = Grant<'static>,
            headers(("Location" = String, description = "The session's path."))
        ),
        (
            status = 403,
            description = "`stream_limit_reached`: no slot is free, with who holds them. Others, such as \
                           `account_blocked`, `takeover_forbidden` and `content_forbidden`, come without",
            body = ErrorWith<Denied>
        ),
    ),
    security(("bearer" = []))
)]
pub(super) async fn open(
    State(api): Shared,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = api.watcher(&context, request).await?;
    check_staying(&api)?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let start = Start::new(
        fields.text("content")?,
        fields.text("device")?,
        fields.text("device_name")?,
        fields.text("device_class")?,
    )?;
    let victim = fields.text("takeover")?.map(|text| {
        SessionId::parse(&text).ok_or_else(|| ApiError::bad_request("takeover", "takeover must be a session"))
    });
    let victim = victim.transpose()?;
    let entitlement = api.gateway.policy.load().entitlement(&claims);
    let player = Player::new(claims, start, entitlement, context.id, context.client)?;
    api.check_start(&player.account)?;
    let opened = api
        .gateway
        .open_lone(player, victim, api.gateway.lone_period())
        .await
        .map_err(|reason| match reason {
            NotOpened::Denied {
                refusal,
                holders,
                may_take_over,
            } => {
                let denied = Denied::new(&refusal, &holders, may_take_over);
                let code = EndCode::StreamLimitReached.name();
                ApiError::forbidden(code, "no slot is free").beside(object(json!(denied)))
            }
            NotOpened::Blocked => ApiError::forbidden("account_blocked", "the account is blocked"),
            NotOpened::TakeoverForbidden => ApiError::forbidden(
                "takeover_forbidden",
                "the plan does not allow to take a slot over",
            ),
            NotOpened::Store(error) => away(error),
        })?;
    let body = Grant {
        lease: Lease::new(&opened.state, api.gateway.lone_period()),
        resume: opened.secret.expose(),
    };
    let location = format!("/v1/sessions/{}", opened.state.session);
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

/// Keeps the slot.
///
/// An empty body, without a `Content-Type`, is a heartbeat too. The scope is `watch`.
#[utoipa::path(
    post,
    path = "/v1/sessions/{session}/heartbeat",
    tag = "sessions",
    params(
        ("session" = String, Path, description = "The session"),
        ("Usher-Resume" = String, Header, description = "Its secret: `resume` of the answer that it began with")
    ),
    request_body = Option<Heartbeat>,
    responses(
        (status = 200, description = "It lives", body = Lease<'static>),
        (status = 410, description = GONE, body = ErrorWith<Displaced<'static>>),
    ),
    security(("bearer" = []))
)]
pub(super) async fn heartbeat(
    State(api): Shared,
    Extension(context): Extension<Context>,
    session: SessionPath,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = api.watcher(&context, request).await?;
    let session = proven(session, request.headers())?;
    let is_empty = axum::body::HttpBody::is_end_stream(request.body());
    let (position_ms, state) = if is_empty {
        (None, None)
    } else {
        let mut fields = Fields::read(request, context.peer.deadline).await?;
        let position = fields.take::<u64>("position_ms", "a number of milliseconds")?;
        let state = fields.take::<PlayState>("state", "playing, paused, buffering or background")?;
        (position, state)
    };
    let caller = Caller {
        claims: &claims,
        address: context.client,
        period: api.gateway.lone_period(),
    };
    let told = api
        .gateway
        .tell_lone(&caller, session, Beat::Alive { position_ms, state });
    match told.await.map_err(away)? {
        Told::Lives(state) => {
            let allowed = claims.contents.as_ref();
            if allowed.is_some_and(|all| !all.iter().any(|one| **one == *state.content)) {
                let message = "the token does not allow what is playing";
                return Err(ApiError::forbidden("content_forbidden", message));
            }
            let body = Json(Lease::new(&state, api.gateway.lone_period()));
            Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
        }
        over => Err(ended(over)),
    }
}

/// Gives the slot back.
///
/// It is free with the answer.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{session}",
    tag = "sessions",
    params(
        ("session" = String, Path, description = "The session"),
        ("Usher-Resume" = String, Header, description = "Its secret: `resume` of the answer that it began with")
    ),
    responses(
        (status = 204, description = "It has ended"),
        (status = 410, description = GONE, body = ErrorWith<Displaced<'static>>),
    ),
    security(("bearer" = []))
)]
pub(super) async fn stop(
    State(api): Shared,
    Extension(context): Extension<Context>,
    session: SessionPath,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (claims, request) = api.watcher(&context, request).await?;
    let session = proven(session, request.headers())?;
    let caller = Caller {
        claims: &claims,
        address: context.client,
        period: api.gateway.lone_period(),
    };
    match api
        .gateway
        .tell_lone(&caller, session, Beat::Stop)
        .await
        .map_err(away)?
    {
        Told::Stopped => Ok(StatusCode::NO_CONTENT),
        over => Err(ended(over)),
    }
}

impl Api {
    /// Who makes a request about its own sessions.
    pub(super) async fn watcher(
        &self,
        context: &Context,
        request: Request,
    ) -> Result<(Claims, Request), ApiError> {
        let (parts, body) = request.into_parts();
        self.check_origin(&parts)?;
        let claims = self.authenticate(&parts, context).await?;
        if !claims.scopes.has(Scope::Watch) {
            let message = "the token does not allow to watch";
            return Err(ApiError::forbidden("scope_forbidden", message));
        }
        Ok((claims, Request::from_parts(parts, body)))
    }
}

/// The session of the path, whose secret the request has. One answer to all that is wrong with it: nobody learns whether
/// a session is there.
fn proven(session: SessionPath, headers: &HeaderMap) -> Result<SessionId, ApiError> {
    let session = session.ok().and_then(|Path(text)| SessionId::parse(&text));
    let secret = headers.get(&RESUME).and_then(|secret| secret.to_str().ok());
    let found = secret
        .and_then(ResumeSecret::parse)
        .map(|secret| secret.session());
    session.filter(|session| found == Some(*session)).ok_or_else(|| {
        ApiError::forbidden(
            "secret_forbidden",
            "Usher-Resume must be the secret of this session",
        )
    })
}

/// The answer to word of a session that does not live without a socket.
fn ended(told: Told) -> ApiError {
    match told {
        Told::Foreign => ApiError::forbidden("device_forbidden", "the session is another device's"),
        Told::Moved => gone(EndCode::Moved.name(), "the session goes on, on a socket"),
        Told::Gone { code: Some(code), by } => match code {
            EndCode::Displaced => {
                let error = gone(code.name(), "another player of the account took the slot over");
                match by {
                    Some(by) => error.beside(object(json!(Displaced::by(&by)))),
                    None => error,
                }
            }
            EndCode::Moved => gone(code.name(), "the session's device plays something else now"),
            EndCode::EndedByOperator => gone(code.name(), "an operator ended the session"),
            EndCode::AccountBlocked => gone(code.name(), "the account is blocked"),
            EndCode::StreamLimitReached => gone(code.name(), "the account's limit is lower now"),
            _ => lapsed(),
        },
        Told::Gone { code: None, .. } | Told::Stopped | Told::Lives(_) => lapsed(),
    }
}

fn lapsed() -> ApiError {
    gone("gone", "there is no such session any more; start again")
}

fn gone(code: &'static str, message: &'static str) -> ApiError {
    ApiError::new(StatusCode::GONE, code, message)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
pub(super) fn away(error: StoreError) -> ApiError {
    match error {
        StoreError::Unavailable | StoreError::NotNow(_) | StoreError::Foreign(_) => ApiError::unavailable(
            "unavailable",
            "slots cannot be judged just now; try again",
            RETRY_AFTER,
        ),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
