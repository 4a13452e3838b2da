//! The admin listener: metrics and health for everybody who reaches it, the rest for operators.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use http::header;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::telemetry::{AuditTrail, LogHandle, Metrics};
use crate::webhooks::Webhooks;

use super::Api;
use super::accounts;
use super::body::read_json;
use super::error::{self, ApiError};
use super::operator::{require_node_operator, require_operator, told};
use super::page::{Page, PageQuery};
use super::webhooks;

/// An operator's body must come within this time.
pub(super) const BODY: Duration = Duration::from_secs(5);

/// What the admin routes work with.
pub struct Admin {
    /// The players' side.
    pub api: Arc<Api>,
    /// The log level, when this process owns its log.
    pub log: Option<Arc<LogHandle>>,
    /// Where every operator's call is recorded.
    pub trail: AuditTrail,
    /// Host names by which the listener may be called.
    pub hosts: Vec<String>,
    /// Who is told what happens.
    pub webhooks: Arc<Webhooks>,
}

/// The routes of the admin listener.
pub fn admin_routes(admin: &Arc<Admin>) -> Router {
    let node = Router::new()
        .route("/v1/admin/sessions", get(accounts::list_all))
        .route("/v1/admin/log", get(log_level).put(set_log_level))
        .route("/v1/admin/trail", get(trail))
        .route("/v1/admin/webhooks", get(webhooks::list))
        .route_layer(from_fn(require_node_operator));
    let operators = Router::new()
        .route("/v1/admin/accounts/{account}", get(accounts::show))
        .route(
            "/v1/admin/accounts/{account}/sessions",
            get(accounts::list).delete(accounts::end_all),
        )
        .route(
            "/v1/admin/accounts/{account}/sessions/{session}",
            delete(accounts::end_one),
        )
        .route("/v1/admin/accounts/{account}/block", post(accounts::block))
        .route("/v1/admin/accounts/{account}/unblock", post(accounts::unblock))
        .route("/v1/admin/accounts/{account}/limit", put(accounts::limit))
        .merge(node)
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
struct Level {
    level: String,
}

async fn log_level(State(admin): State<Arc<Admin>>) -> Result<Json<Value>, ApiError> {
    let log = admin
        .log
        .as_ref()
        .ok_or_else(|| ApiError::not_found("this node does not own its log"))?;
    Ok(Json(json!({"level": log.level()})))
}

async fn set_log_level(State(admin): State<Arc<Admin>>, request: Request) -> Result<Response, ApiError> {
    let deadline = Instant::now() + BODY;
    let usage = "the body must be {\"level\": \"info\"}";
    let Level { level } = read_json(request, deadline, "level", usage).await?;
    let log = admin
        .log
        .as_ref()
        .ok_or_else(|| ApiError::not_found("this node does not own its log"))?;
    log.set_level(&level)
        .map_err(|problem| ApiError::bad_request("level", problem))?;
    tracing::info!(level, "log level changed");
    Ok(told(json!({"level": level})))
}

/// What operators did on this node, the newest first.
async fn trail(State(admin): State<Arc<Admin>>, query: PageQuery) -> Result<Response, ApiError> {
    let page = Page::of(query)?;
    let lines = admin.trail.newest().await;
    let lines = lines.map_err(|problem| {
        tracing::error!(problem, "the audit trail cannot be read");
        ApiError::unavailable("unavailable", "the trail cannot be read just now", 1)
    })?;
    let (start, limit) = page.span();
    let shown = lines.iter().skip(start).take(limit);
    let items: Vec<Value> = shown.filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok(Json(page.list(&items, lines.len())).into_response())
}
