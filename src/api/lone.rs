//! `/v1/sessions`: the lease for players without a socket.
//!
//! Owns: the routes and their shapes. Does not: decide (`lease` does) or keep sessions (`gateway::lone` does).
//! Called by: the players' router. PROTOCOL.md describes them.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::json;

use crate::auth::{Claims, Scope};
use crate::gateway::lone::{Caller, Told};
use crate::lease::model::Beat;
use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, ResumeSecret, SessionId};
use crate::protocol::start::Start;

use super::Api;
use super::caller::{account_of, is_staff, on_behalf, scope_forbidden, tenant_of};
use super::error::{ApiError, ErrorWith};
use super::fields::Fields;
use super::grant::{Denied, Displaced, Grant, Heartbeat, Lease, Opening};
use super::observe::Context;
use super::start::{away, object};
use super::streams::victim;

/// The secret of the session that a request is about.
static RESUME: HeaderName = HeaderName::from_static("usher-resume");

/// What 410 says.
const GONE: &str = "`gone`: it lapsed; start again. `displaced`: another player took the slot over, `by` says who. `moved`, \
                    `ended_by_operator`, `account_blocked`, `stream_limit_reached`, `content_unavailable`: it was ended";

type Shared = State<Arc<Api>>;
type SessionPath = Result<Path<String>, PathRejection>;

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
    api.check_staying()?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let start = Start::new(
        fields.text("content")?,
        fields.text("device")?,
        fields.text("device_name")?,
        fields.text("device_class")?,
    )?;
    let victim = victim(&mut fields)?;
    let begun = api.begin(&context, claims, start, victim).await?;
    let location = format!("/v1/sessions/{}", begun.session());
    Ok(begun.created(location))
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
        ("account" = inline(Option<String>), Query, nullable = false, description = "For staff: the account whose session it is"),
        ("tenant" = inline(Option<String>), Query, nullable = false, description = "For the scope `operator`: the account's tenant"),
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
    let (claims, request) = api.caller(&context, request).await?;
    let speaker = api.speaker(claims, session, &request)?;
    let is_empty = axum::body::HttpBody::is_end_stream(request.body());
    let (position_ms, state) = if is_empty {
        (None, None)
    } else {
        let mut fields = Fields::read(request, context.peer.deadline).await?;
        let position = fields.take::<u64>("position_ms", "a number of milliseconds")?;
        let state = fields.take::<PlayState>("state", "playing, paused, buffering or background")?;
        (position, state)
    };
    let caller = speaker.caller(&api, &context);
    let told = api
        .gateway
        .tell_lone(&caller, speaker.session, Beat::Alive { position_ms, state });
    match told.await.map_err(away)? {
        Told::Lives(state) => {
            let allowed = speaker.claims.contents.as_ref();
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
        ("account" = inline(Option<String>), Query, nullable = false, description = "For staff: the account whose session it is"),
        ("tenant" = inline(Option<String>), Query, nullable = false, description = "For the scope `operator`: the account's tenant"),
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
    let (claims, request) = api.caller(&context, request).await?;
    let speaker = api.speaker(claims, session, &request)?;
    let caller = speaker.caller(&api, &context);
    match api
        .gateway
        .tell_lone(&caller, speaker.session, Beat::Stop)
        .await
        .map_err(away)?
    {
        Told::Stopped => Ok(StatusCode::NO_CONTENT),
        over => Err(ended(over)),
    }
}

/// Who sends word of a session.
struct Speaker {
    session: SessionId,
    claims: Claims,
    on_behalf: bool,
}

impl Speaker {
    fn caller<'a>(&'a self, api: &Api, context: &Context) -> Caller<'a> {
        Caller {
            claims: &self.claims,
            address: context.client,
            period: api.gateway.lone_period(),
            on_behalf: self.on_behalf,
        }
    }
}

impl Api {
    /// The session's account, or staff that started it for one: `?account=` (and `?tenant=`) names that, else what this
    /// node remembers of the session. Either way the session's secret proves every word.
    fn speaker(&self, claims: Claims, session: SessionPath, request: &Request) -> Result<Speaker, ApiError> {
        let (is_staff, may_watch) = (is_staff(&claims), claims.scopes.has(Scope::Watch));
        if !is_staff && !may_watch {
            return Err(scope_forbidden());
        }
        let session = proven(session, request.headers())?;
        let meant = if is_staff {
            self.meant(&claims, session, request)?
        } else {
            None
        };
        match meant {
            Some(account) => Ok(Speaker {
                session,
                claims: on_behalf(claims, account.tenant, account.account),
                on_behalf: true,
            }),
            None if may_watch => Ok(Speaker {
                session,
                claims,
                on_behalf: false,
            }),
            None => Err(scope_forbidden()),
        }
    }

    /// The account that staff means; none: its own.
    fn meant(
        &self,
        claims: &Claims,
        session: SessionId,
        request: &Request,
    ) -> Result<Option<AccountKey>, ApiError> {
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let said = |name: &str| {
            let mut pairs = form_urlencoded::parse(query);
            pairs
                .find(|(one, _)| *one == *name)
                .map(|(_, value)| value.into_owned())
        };
        let tenant = tenant_of(claims, said("tenant").as_deref())?;
        let account = match said("account") {
            Some(account) => Some(AccountKey {
                account: account_of(&account)?,
                tenant,
            }),
            None => {
                let known = self.gateway.registry.lone_account(session);
                known.filter(|known| known.tenant == tenant)
            }
        };
        let own = |key: &AccountKey| key.account == claims.account && key.tenant == claims.tenant;
        Ok(account.filter(|account| !own(account)))
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
            EndCode::ContentUnavailable => gone(code.name(), "the content may not be played any more"),
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
