//! `/v1/sessions`: the lease for players without a socket, and an account's own live sessions.
//!
//! Owns: the routes and their shapes. Does not: decide (`lease` does) or keep sessions (`gateway::lone` does).
//! Called by: the players' router. PROTOCOL.md describes them.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::{Claims, Scope};
use crate::gateway::lone::{Caller, Told};
use crate::lease::model::{Beat, Device, Entry};
use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, ResumeSecret, SessionId};
use crate::protocol::start::Start;

use super::Api;
use super::caller::{account_of, is_staff, on_behalf, scope_forbidden, tenant_of};
use super::error::ApiError;
use super::fields::Fields;
use super::observe::Context;
use super::page::{List, bad_query};
use super::start::{away, object};
use super::streams::victim;

/// The secret of the session that a request is about.
static RESUME: HeaderName = HeaderName::from_static("usher-resume");

type Shared = State<Arc<Api>>;
type SessionPath = Result<Path<String>, PathRejection>;

/// `POST /v1/sessions`
pub(super) async fn open(
    State(api): Shared,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = api.caller_with(&context, request, &[Scope::Watch]).await?;
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
    let location = format!("/v1/sessions/{}", begun.session);
    Ok(begun.created(location))
}

/// `POST /v1/sessions/{session}/heartbeat`
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
            let body = Json(api.state_of(&state));
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

/// What an account's sessions may be sorted by.
const SORTS: [&str; 4] = ["started_at", "device", "content", "state"];

/// What may be asked for of each; `session` always comes.
const FIELDS: [&str; 7] = [
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
    let (claims, _) = api.caller_with(&context, request, &[Scope::Watch]).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let (sort, descending) = sorting(query.sort.as_deref())?;
    let fields = chosen(query.fields.as_deref())?;
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

fn sorting(asked: Option<&str>) -> Result<(&'static str, bool), ApiError> {
    let asked = asked.unwrap_or("started_at");
    let (name, descending) = asked
        .strip_prefix('-')
        .map_or((asked, false), |name| (name, true));
    let known = SORTS.iter().find(|known| **known == name);
    known.map(|known| (*known, descending)).ok_or_else(|| {
        ApiError::bad_request(
            "sort",
            format!("sort is one of {}, with - for descending", SORTS.join(", ")),
        )
    })
}

fn chosen(asked: Option<&str>) -> Result<Vec<&'static str>, ApiError> {
    let Some(asked) = asked else {
        return Ok(FIELDS.to_vec());
    };
    let named = asked
        .split(',')
        .map(|name| FIELDS.iter().find(|known| **known == name));
    let named: Option<Vec<&'static str>> = named.map(Option::<&_>::copied).collect();
    let mut fields =
        named.ok_or_else(|| ApiError::bad_request("fields", format!("fields are {}", FIELDS.join(", "))))?;
    fields.push("session");
    Ok(fields)
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
    let mut item = object(json!(entry.holder()));
    item.retain(|name, _| fields.contains(&name.as_str()));
    Value::Object(item)
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
        let is_staff = is_staff(&claims);
        if !is_staff && !claims.scopes.has(Scope::Watch) {
            return Err(scope_forbidden());
        }
        let session = proven(session, request.headers())?;
        let own = |claims| {
            let on_behalf = false;
            Ok(Speaker {
                session,
                claims,
                on_behalf,
            })
        };
        if !is_staff {
            return own(claims);
        }
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let said = |name: &str| {
            let mut pairs = form_urlencoded::parse(query);
            pairs
                .find(|(one, _)| *one == *name)
                .map(|(_, value)| value.into_owned())
        };
        let (asked, tenant) = (said("account"), tenant_of(&claims, said("tenant").as_deref())?);
        let account = match asked {
            Some(account) => account_of(&account)?,
            None => {
                let known = self.gateway.registry.lone_account(session);
                match known.filter(|known| known.tenant == tenant) {
                    Some(known) => known.account,
                    None => return own(claims),
                }
            }
        };
        if account == claims.account && tenant == claims.tenant {
            return own(claims);
        }
        Ok(Speaker {
            session,
            claims: on_behalf(claims, tenant, account),
            on_behalf: true,
        })
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
                    Some(by) => error.beside(object(json!({"by": Device::screen(&by)}))),
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
