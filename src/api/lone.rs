//! `/v1/sessions`: the lease for players without a socket, and an account's own live sessions.
//!
//! Owns: the routes and their shapes. Does not: decide (`lease` does) or keep sessions (`gateway::lone` does).
//! Called by: the players' router. PROTOCOL.md describes them.

use std::cmp::Ordering as Order;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::auth::{Claims, Scope};
use crate::gateway::lone::{Caller, LoneState, NotOpened, Told};
use crate::gateway::player::Player;
use crate::lease::model::{Beat, Device, Entry};
use crate::lease::store::StoreError;
use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, ResumeSecret, SessionId};
use crate::protocol::server::{Slots, millis};
use crate::protocol::start::Start;

use super::Api;
use super::choice::{chosen, only, sorting};
use super::error::ApiError;
use super::fields::Fields;
use super::observe::Context;
use super::page::{List, bad_query};

/// The secret of the session that a request is about.
static RESUME: HeaderName = HeaderName::from_static("usher-resume");

/// When to come again while nobody can tell, in seconds.
const RETRY_AFTER: u16 = 1;

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

/// `POST /v1/sessions`
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
                let slots = Slots {
                    used: refusal.used,
                    limit: refusal.limit,
                };
                let may: &[&str] = if may_take_over { &["takeover"] } else { &[] };
                let beside = object(json!({
                    "rule": refusal.rule,
                    "slots": slots,
                    "holders": holders.iter().map(Entry::holder).collect::<Vec<_>>(),
                    "may": may,
                }));
                let code = EndCode::StreamLimitReached.name();
                ApiError::forbidden(code, "no slot is free").beside(beside)
            }
            NotOpened::Blocked => ApiError::forbidden("account_blocked", "the account is blocked"),
            NotOpened::TakeoverForbidden => ApiError::forbidden(
                "takeover_forbidden",
                "the plan does not allow to take a slot over",
            ),
            NotOpened::Store(error) => away(error),
        })?;
    let mut body = state_of(&api, &opened.state);
    body.insert("resume".to_owned(), opened.secret.expose().into());
    let location = format!("/v1/sessions/{}", opened.state.session);
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

/// `POST /v1/sessions/{session}/heartbeat`
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
            let body = Json(state_of(&api, &state));
            Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
        }
        over => Err(ended(over)),
    }
}

/// `DELETE /v1/sessions/{session}`
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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    page: Option<u32>,
    limit: Option<u32>,
    q: Option<String>,
    sort: Option<String>,
    fields: Option<String>,
}

/// `GET /v1/sessions`
pub(super) async fn list(
    State(api): Shared,
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
    Ok(Json(page.answer(&items, found.len())).into_response())
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
    only(object(json!(entry.holder())), fields)
}

impl Api {
    /// Who makes a request about its own sessions.
    async fn watcher(&self, context: &Context, request: Request) -> Result<(Claims, Request), ApiError> {
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

/// A session as its player sees it.
fn state_of(api: &Api, state: &LoneState) -> Map<String, Value> {
    let period = api.gateway.lone_period();
    object(json!({
        "session": state.session,
        "slots": state.slots,
        "heartbeat_ms": millis(period / 2),
        "lease_ms": millis(period),
        "expires_at": humantime::format_rfc3339_millis(state.expires_at).to_string(),
        "ticket": state.ticket.as_ref().map(crate::gateway::lone::Issued::text),
    }))
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
                    Some(by) => error.beside(object(json!({"by": Device::screen(&by)}))),
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
