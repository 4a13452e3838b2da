//! A facade for players that were written for Adobe Pass Concurrency Monitoring: the calls of its API v2, as its public
//! documentation describes them, over sessions without a socket.
//!
//! Owns: that API's shapes. Does not: evaluate anything (`lease` does), or know its policies: rules are Usher's own.
//! Called by: the players' router, where `facade.adobe` is on. docs/operations.md tells what differs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::auth::{Claims, Scope};
use crate::config::Facade;
use crate::gateway::lone::{Caller, NotOpened, Told};
use crate::gateway::player::Player;
use crate::lease::model::{Beat, Device, Entry, Order, Refusal};
use crate::protocol::MAX_ID_BYTES;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, ResumeSecret, SessionId};
use crate::protocol::start::Start;

use super::Api;
use super::body::read;
use super::error::ApiError;
use super::observe::{Context, OwnShape};
use super::start::away;

/// Sessions that a start ends.
static TERMINATE: HeaderName = HeaderName::from_static("x-terminate");

/// Most of them.
const MOST_TERMINATED: usize = 100;

/// What a start may say of itself; `channel` or `assetId` it must.
const METADATA: [&str; 5] = ["assetId", "channel", "deviceId", "deviceName", "deviceType"];

/// The name of the one policy that there is: the configuration.
const POLICY: &str = "usher";

type Shared = State<Arc<Api>>;
type Subject = Result<Path<(String, String)>, PathRejection>;
type Session = Result<Path<(String, String, String)>, PathRejection>;

/// The routes, below the path that the configuration gives them.
pub(super) fn routes(facade: &Facade) -> Router<Arc<Api>> {
    let at = |path: &str| format!("{}{path}", facade.path);
    Router::new()
        .route(&at("/sessions/{idp}/{subject}"), post(start))
        .route(
            &at("/sessions/{idp}/{subject}/{session}"),
            post(heartbeat).delete(stop),
        )
        .route(&at("/runningStreams/{idp}/{subject}"), get(running))
        .route(&at("/metadata"), get(metadata))
}

/// Which attributes a start is asked for.
async fn metadata(State(api): Shared, request: Request) -> Result<Response, ApiError> {
    api.application(request.headers())?;
    Ok(own(StatusCode::OK, Json(METADATA).into_response()))
}

async fn start(
    State(api): Shared,
    Extension(context): Extension<Context>,
    subject: Subject,
    request: Request,
) -> Result<Response, ApiError> {
    let Path((idp, subject)) = subject.map_err(|_| bad_subject())?;
    let claims = api.subject(request.headers(), &idp, &subject)?;
    api.check_staying()?;
    let victims = victims(request.headers())?;
    let mut said = said(request, &context).await?;
    let content = said.remove("assetId").or_else(|| said.remove("channel"));
    let content =
        content.ok_or_else(|| ApiError::bad_request("channel", "channel or assetId is required"))?;
    let start = Start::new(
        Some(content),
        said.remove("deviceId"),
        said.remove("deviceName"),
        said.remove("deviceType"),
    )?;
    let account = AccountKey {
        tenant: Arc::clone(&claims.tenant),
        account: Arc::clone(&claims.account),
    };
    let entitlement = api.gateway.policy.load().entitlement(&claims);
    let player = Player::new(claims, start, entitlement, context.id, context.client)?;
    api.check_start(&player.account)?;
    api.check_content(&player).await?;
    let opened = api
        .gateway
        .open_lone(player, victims.first().copied(), api.facade.heartbeat * 3 / 2)
        .await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(NotOpened::Denied { refusal, holders, .. }) => {
            let body = advice(&[violation(&refusal, &holders)]);
            return Ok(own(StatusCode::CONFLICT, Json(body).into_response()));
        }
        Err(NotOpened::Blocked) => {
            return Err(ApiError::forbidden("account_blocked", "the account is blocked"));
        }
        Err(NotOpened::TakeoverForbidden) => {
            let message = "the plan does not allow to end other sessions";
            return Err(ApiError::forbidden("takeover_forbidden", message));
        }
        Err(NotOpened::Store(error)) => return Err(away(error)),
    };
    // It asked for the end of all of them, whether their slots are needed or not.
    for session in victims
        .into_iter()
        .filter(|victim| *victim != opened.state.session)
    {
        let code = EndCode::Displaced;
        let ended = api.gateway.lease.order(&account, Order::Kick { session, code });
        ended.await.map_err(away)?;
    }
    let mut response = api.accepted();
    if let Ok(session) = HeaderValue::try_from(opened.secret.expose()) {
        response.headers_mut().insert(header::LOCATION, session);
    }
    Ok(response)
}

async fn heartbeat(
    State(api): Shared,
    Extension(context): Extension<Context>,
    session: Session,
    request: Request,
) -> Result<Response, ApiError> {
    let word = Beat::Alive {
        position_ms: None,
        state: None,
    };
    api.word(&context, session, request.headers(), word).await
}

async fn stop(
    State(api): Shared,
    Extension(context): Extension<Context>,
    session: Session,
    request: Request,
) -> Result<Response, ApiError> {
    api.word(&context, session, request.headers(), Beat::Stop).await
}

async fn running(State(api): Shared, subject: Subject, request: Request) -> Result<Response, ApiError> {
    let Path((idp, subject)) = subject.map_err(|_| bad_subject())?;
    let claims = api.subject(request.headers(), &idp, &subject)?;
    let account = AccountKey {
        tenant: claims.tenant,
        account: claims.account,
    };
    let entries = api.gateway.lease.list(&account).await.map_err(away)?;
    let streams: Vec<Value> = entries.iter().map(stream).collect();
    let mut response = own(StatusCode::OK, Json(streams).into_response());
    let earliest = entries.iter().filter_map(|entry| entry.expires).min();
    if let Some(earliest) = earliest {
        let expires = SystemTime::UNIX_EPOCH + Duration::from_millis(earliest);
        put_time(response.headers_mut(), header::EXPIRES, expires);
    }
    Ok(response)
}

impl Api {
    /// The tenant and plan of the application that calls: HTTP Basic, its id as the user, no password.
    fn application(&self, headers: &HeaderMap) -> Result<&crate::config::Application, ApiError> {
        let basic = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let basic = basic.and_then(|value| value.split_once(' '));
        let encoded = basic.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let decoded = encoded.and_then(|(_, text)| STANDARD.decode(text.trim()).ok());
        let id = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let id = id.as_deref().and_then(|text| text.strip_suffix(':'));
        id.and_then(|id| self.facade.applications.get(id)).ok_or_else(|| {
            let (status, message) = (StatusCode::UNAUTHORIZED, "a known application id is required");
            let realm = HeaderValue::from_static("Basic realm=\"sessions\"");
            ApiError::new(status, "unauthorized", message).with_header(header::WWW_AUTHENTICATE, realm)
        })
    }

    /// A subject as a token would name it.
    fn subject(&self, headers: &HeaderMap, idp: &str, subject: &str) -> Result<Claims, ApiError> {
        let application = self.application(headers)?;
        let account = format!("{idp}/{subject}");
        if idp.is_empty() || subject.is_empty() || account.len() > MAX_ID_BYTES {
            return Err(bad_subject());
        }
        Ok(Claims {
            tenant: application.tenant.as_str().into(),
            account: account.into(),
            device: None,
            profile: None,
            plan: application.plan.as_deref().map(Into::into),
            streams: None,
            contents: None,
            roles: Vec::new(),
            scopes: Scope::Watch.into(),
            expires_at: SystemTime::now() + self.facade.heartbeat * 3 / 2,
            issued_at: None,
            sign_in: None,
        })
    }

    async fn word(
        &self,
        context: &Context,
        session: Session,
        headers: &HeaderMap,
        word: Beat,
    ) -> Result<Response, ApiError> {
        let Path((idp, subject, session)) = session.map_err(|_| bad_subject())?;
        let claims = self.subject(headers, &idp, &subject)?;
        // Nobody can guess one: it proves every word about its session.
        let Some(secret) = ResumeSecret::parse(&session) else {
            return Ok(own(StatusCode::GONE, Body::empty().into_response()));
        };
        let caller = Caller {
            claims: &claims,
            address: context.client,
            period: self.facade.heartbeat * 3 / 2,
            on_behalf: false,
        };
        let session = secret.session();
        let told = self
            .gateway
            .tell_lone(&caller, session, word)
            .await
            .map_err(away)?;
        Ok(match told {
            Told::Lives(_) | Told::Stopped => self.accepted(),
            over => gone(session, over),
        })
    }

    /// 202, with the time by which the next heartbeat is due.
    fn accepted(&self) -> Response {
        let mut response = own(StatusCode::ACCEPTED, Json(advice(&[])).into_response());
        let now = SystemTime::now();
        put_time(response.headers_mut(), header::DATE, now);
        put_time(
            response.headers_mut(),
            header::EXPIRES,
            now + self.facade.heartbeat,
        );
        response
    }
}

/// 410: without a body where the session lapsed, with one where somebody ended it.
fn gone(session: SessionId, told: Told) -> Response {
    let (code, by) = match told {
        Told::Gone { code, by } => (code, by),
        Told::Moved => (Some(EndCode::Moved), None),
        Told::Lives(_) | Told::Stopped | Told::Foreign => (None, None),
    };
    let message = match code {
        Some(EndCode::Displaced) => "another device of the account ended this session",
        Some(EndCode::Moved) => "the device plays something else now",
        Some(EndCode::EndedByOperator) => "an operator ended this session",
        Some(EndCode::AccountBlocked) => "the account is blocked",
        Some(EndCode::StreamLimitReached) => "the limit of the account is lower now",
        _ => return own(StatusCode::GONE, Body::empty().into_response()),
    };
    let by = by.as_deref();
    let advised = json!({
        "type": "remote-termination",
        "terminationCode": session,
        "message": message,
        "deviceId": by.map(|device: &Device| &device.id),
        "deviceName": by.and_then(|device| device.name.as_deref()),
        "deviceType": by.and_then(|device| device.class.as_deref()),
    });
    own(StatusCode::GONE, Json(advice(&[advised])).into_response())
}

/// An evaluation's result.
fn advice(advised: &[Value]) -> Value {
    json!({"associatedAdvice": advised, "obligations": []})
}

fn violation(refusal: &Refusal, holders: &[Entry]) -> Value {
    let attribute = if *refusal.rule == *crate::lease::group::ACCOUNT {
        "streams"
    } else {
        &*refusal.rule
    };
    json!({
        "type": "rule-violation",
        "policyName": POLICY,
        "ruleName": refusal.rule,
        "scope": {},
        "attribute": attribute,
        "threshold": refusal.limit,
        "message": format!("{} of {} are in use", refusal.used, refusal.limit),
        "conflicts": holders.iter().map(stream).collect::<Vec<_>>(),
    })
}

/// A session as other sessions of its subject see it. Its handle is not in it.
fn stream(entry: &Entry) -> Value {
    let started = SystemTime::UNIX_EPOCH + Duration::from_millis(entry.started_at);
    json!({
        "startedAt": humantime::format_rfc3339_millis(started).to_string(),
        "deviceId": entry.device.id,
        "deviceName": entry.device.name,
        "deviceType": entry.device.class,
        "channel": entry.content,
        "terminationCode": entry.session,
    })
}

/// Metadata of the query and of a form; in both the form counts. Unknown names are ignored.
async fn said(request: Request, context: &Context) -> Result<BTreeMap<String, String>, ApiError> {
    let (parts, body) = request.into_parts();
    let mut said = BTreeMap::new();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let form = if axum::body::HttpBody::is_end_stream(&body) {
        bytes::Bytes::new()
    } else {
        let request = Request::from_parts(parts, body);
        read(
            request,
            context.peer.deadline,
            "application/x-www-form-urlencoded",
        )
        .await?
    };
    for text in [query.as_bytes(), &form] {
        for (name, value) in form_urlencoded::parse(text) {
            if METADATA.contains(&&*name) {
                said.insert(name.into_owned(), value.into_owned());
            }
        }
    }
    Ok(said)
}

/// The sessions that a start ends; what is no code of ours names none.
fn victims(headers: &HeaderMap) -> Result<Vec<SessionId>, ApiError> {
    let values = headers
        .get_all(&TERMINATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let codes: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    if codes.len() > MOST_TERMINATED {
        return Err(ApiError::bad_request("X-Terminate", "too many codes"));
    }
    Ok(codes.into_iter().filter_map(SessionId::parse).collect())
}

fn bad_subject() -> ApiError {
    ApiError::bad_request(
        "subject",
        "idp and subject have 1 byte at least, and 255 together at most",
    )
}

/// An answer in that API's shape, errors too.
fn own(status: StatusCode, mut response: Response) -> Response {
    *response.status_mut() = status;
    response.extensions_mut().insert(OwnShape);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn put_time(headers: &mut HeaderMap, name: HeaderName, time: SystemTime) {
    if let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(time)) {
        headers.insert(name, value);
    }
}
