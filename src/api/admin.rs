//! The admin listener: metrics and health for everybody who reaches it, the rest for operators.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::auth::Rejected;
use crate::auth::Scope;
use crate::auth::from_request;
use crate::lease::model::{Fenced, Order};
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, SessionId};
use crate::protocol::server::Holder;
use crate::telemetry::{LogHandle, Metrics};
use crate::webhooks::Webhooks;

use super::Api;
use super::error::{self, ApiError};
use super::webhooks;

/// Accounts looked through for a list of all sessions.
const MAX_ACCOUNTS: usize = 1_000_000;

/// What the admin routes work with.
pub struct Admin {
    /// The players' side.
    pub api: Arc<Api>,
    /// The log level, when this process owns its log.
    pub log: Option<Arc<LogHandle>>,
    /// Host names by which the listener may be called.
    pub hosts: Vec<String>,
    /// Who is told what happens.
    pub webhooks: Arc<Webhooks>,
}

/// The routes of the admin listener.
pub fn admin_routes(admin: &Arc<Admin>) -> Router {
    let operators = Router::new()
        .route("/v1/admin/sessions", get(list))
        .route(
            "/v1/admin/accounts/{account}/sessions",
            get(list_account).delete(end_account),
        )
        .route(
            "/v1/admin/accounts/{account}/sessions/{session}",
            delete(end_session),
        )
        .route("/v1/admin/webhooks", get(webhooks::list))
        .route("/v1/admin/log", get(log_level).put(set_log_level))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(admin), require_operator));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(error::method_not_allowed)
        .merge(operators)
        .layer(from_fn_with_state(Arc::clone(admin), require_own_host))
        .with_state(Arc::clone(admin))
}

/// A page of another site must not reach this listener through a browser on this machine (DNS rebinding).
async fn require_own_host(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().host());
    if host.is_some_and(|host| admin.is_own(host)) {
        return next.run(request).await;
    }
    ApiError::forbidden(
        "host_forbidden",
        "this listener is not called by this name (listen.admin_hosts)",
    )
    .into_response()
}

async fn require_operator(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let verified = async {
        let token = from_request(&parts, false)?.ok_or(Rejected::Missing)?;
        admin.api.verifier.verify(token.expose()).await
    };
    match verified.await {
        Ok(claims) if claims.scopes.has(Scope::Operator) => next.run(Request::from_parts(parts, body)).await,
        Ok(_) => ApiError::forbidden("scope_forbidden", "the scope `operator` is required").into_response(),
        Err(rejected) => {
            admin.api.metrics.tokens_rejected_total.inc(rejected.reason());
            ApiError::from(rejected).into_response()
        }
    }
}

impl Admin {
    fn is_own(&self, host: &str) -> bool {
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let name = name.map_or(host, |(name, _)| name);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    (
        [(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)],
        admin.api.metrics.render(),
    )
        .into_response()
}

/// Whether this node may take players.
async fn ready(State(admin): State<Arc<Admin>>) -> Result<&'static str, ApiError> {
    if admin.api.leaving.load(Ordering::Relaxed) {
        return Err(ApiError::unavailable("draining", "this node is leaving", 1));
    }
    if !admin.api.gateway.lease.is_ready() {
        let message = "the store does not answer, or its data are being put together again";
        return Err(ApiError::unavailable("store_away", message, 1));
    }
    Ok("ready\n")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    tenant: Option<String>,
    account: Option<String>,
    page: Option<u32>,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct Item {
    tenant: Arc<str>,
    account: Arc<str>,
    #[serde(flatten)]
    session: Holder,
    epoch: u64,
}

type PageQuery = Result<Query<Page>, axum::extract::rejection::QueryRejection>;

async fn list(State(admin): State<Arc<Admin>>, query: PageQuery) -> Result<Response, ApiError> {
    let query = query.map_err(bad_query)?.0;
    let lease = &admin.api.gateway.lease;
    let mut accounts = match &query.account {
        Some(account) => vec![AccountKey::new(
            query.tenant.as_deref().unwrap_or("main"),
            account,
        )],
        None => lease.accounts(MAX_ACCOUNTS).await?,
    };
    accounts.retain(|key| {
        query
            .tenant
            .as_deref()
            .is_none_or(|tenant| *key.tenant == *tenant)
    });
    accounts.sort_unstable();
    let slice = Slice::of(&query)?;
    let (mut items, mut total) = (Vec::new(), 0);
    for key in accounts {
        let entries = lease.list(&key).await?;
        for entry in &entries {
            if slice.holds(total) {
                items.push(Item {
                    tenant: Arc::clone(&key.tenant),
                    account: Arc::clone(&key.account),
                    session: entry.holder(),
                    epoch: entry.epoch,
                });
            }
            total += 1;
        }
    }
    let Slice { page, limit } = slice;
    Ok(Json(json!({"items": items, "page": page, "limit": limit, "total": total})).into_response())
}

async fn list_account(
    State(admin): State<Arc<Admin>>,
    Path(account): Path<String>,
    query: PageQuery,
) -> Result<Response, ApiError> {
    let query = query.map_err(bad_query)?.0;
    list(
        State(admin),
        Ok(Query(Page {
            account: Some(account),
            ..query
        })),
    )
    .await
}

/// One page of a list.
struct Slice {
    page: u32,
    limit: u32,
}

impl Slice {
    fn of(query: &Page) -> Result<Self, ApiError> {
        let (page, limit) = (query.page.unwrap_or(1), query.limit.unwrap_or(30));
        if page == 0 {
            return Err(ApiError::bad_request("page", "page starts at 1"));
        }
        if !(1..=100).contains(&limit) {
            return Err(ApiError::bad_request("limit", "limit is 1 to 100"));
        }
        Ok(Self { page, limit })
    }

    fn holds(&self, index: u64) -> bool {
        let start = u64::from(self.page - 1) * u64::from(self.limit);
        (start..start + u64::from(self.limit)).contains(&index)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    tenant: Option<String>,
    device: Option<String>,
}

type WhichQuery = Result<Query<Which>, axum::extract::rejection::QueryRejection>;

async fn end_account(
    State(admin): State<Arc<Admin>>,
    Path(account): Path<String>,
    query: WhichQuery,
) -> Result<Json<serde_json::Value>, ApiError> {
    let which = query.map_err(bad_query)?.0;
    let key = AccountKey::new(which.tenant.as_deref().unwrap_or("main"), &account);
    let lease = &admin.api.gateway.lease;
    let mut ended = 0;
    for entry in lease.list(&key).await? {
        if which
            .device
            .as_deref()
            .is_none_or(|device| *entry.device.id == *device)
        {
            let answer = lease.order(&key, kick(entry.session)).await?;
            ended += usize::from(answer == Fenced::Done);
        }
    }
    Ok(Json(json!({"ended": ended})))
}

async fn end_session(
    State(admin): State<Arc<Admin>>,
    Path((account, session)): Path<(String, String)>,
    query: WhichQuery,
) -> Result<StatusCode, ApiError> {
    let which = query.map_err(bad_query)?.0;
    let key = AccountKey::new(which.tenant.as_deref().unwrap_or("main"), &account);
    let unknown = || ApiError::not_found("this account has no such session");
    let session = SessionId::parse(&session).ok_or_else(unknown)?;
    match admin.api.gateway.lease.order(&key, kick(session)).await? {
        Fenced::Done => Ok(StatusCode::NO_CONTENT),
        Fenced::Gone | Fenced::NotYours => Err(unknown()),
    }
}

fn kick(session: SessionId) -> Order {
    Order::Kick {
        session,
        code: EndCode::EndedByOperator,
    }
}

#[derive(Deserialize)]
struct Level {
    level: String,
}

async fn log_level(State(admin): State<Arc<Admin>>) -> Result<Json<serde_json::Value>, ApiError> {
    let log = admin
        .log
        .as_ref()
        .ok_or_else(|| ApiError::not_found("this node does not own its log"))?;
    Ok(Json(json!({"level": log.level()})))
}

async fn set_log_level(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Json<serde_json::Value>, ApiError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    // Parameters, such as a charset, may follow the media type.
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(
            status,
            "unsupported_media_type",
            "the body must be application/json",
        ));
    }
    let Level { level } = serde_json::from_slice(&body)
        .map_err(|_| ApiError::bad_request("level", "the body must be {\"level\": \"info\"}"))?;
    let log = admin
        .log
        .as_ref()
        .ok_or_else(|| ApiError::not_found("this node does not own its log"))?;
    log.set_level(&level)
        .map_err(|problem| ApiError::bad_request("level", problem))?;
    tracing::info!(level, "log level changed");
    Ok(Json(json!({"level": level})))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
fn bad_query(rejection: axum::extract::rejection::QueryRejection) -> ApiError {
    ApiError::bad_request("query", rejection.body_text())
}
