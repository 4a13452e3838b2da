//! The admin listener: metrics and health for everybody who reaches it, the rest for operators.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::header;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::telemetry::{LogHandle, Metrics};
use crate::webhooks::Webhooks;

use super::Api;
use super::accounts;
use super::body::read_json;
use super::document::{self, Operators};
use super::error::{self, ApiError, ErrorBody};
use super::looks::Looks;
use super::operator::{require_node_operator, require_operator, told};
use super::{console, docs, nodes, operator, shown, trail, webhooks};

/// An operator's body must come within this time.
pub(super) const BODY: Duration = Duration::from_secs(5);

/// What the admin routes work with.
pub struct Admin {
    /// The players' side.
    pub api: Arc<Api>,
    /// The log level, when this process owns its log.
    pub log: Option<Arc<LogHandle>>,
    /// Which looks the trail has already.
    pub looks: Looks,
    /// Host names by which the listener may be called.
    pub hosts: Vec<String>,
    /// Who is told what happens.
    pub webhooks: Arc<Webhooks>,
}

/// The routes of the admin listener: its own, those of `parts` that operators are shown, and `theirs`, which rooms bring for
/// operators alone.
pub fn admin_routes(admin: &Arc<Admin>, parts: OpenApiRouter, theirs: OpenApiRouter<Arc<Admin>>) -> Router {
    let node = OpenApiRouter::default()
        .routes(routes!(accounts::list_all))
        .routes(routes!(log_level, set_log_level))
        .routes(routes!(nodes::nodes))
        .routes(routes!(trail::trail))
        .routes(routes!(webhooks::list))
        .route_layer(from_fn(require_node_operator));
    let operators = OpenApiRouter::with_openapi(Operators::openapi())
        .routes(routes!(operator::operator))
        .routes(routes!(accounts::show))
        .routes(routes!(accounts::list, accounts::end_all))
        .routes(routes!(accounts::end_one))
        .routes(routes!(accounts::block))
        .routes(routes!(accounts::unblock))
        .routes(routes!(accounts::limit))
        .merge(shown::routes(parts))
        .merge(theirs)
        .merge(node);
    let (operators, mut described) = operators.split_for_parts();
    let operators = operators
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(admin), require_operator));
    let open = OpenApiRouter::default()
        .routes(routes!(metrics))
        .routes(routes!(health))
        .routes(routes!(ready));
    let (open, also_described) = open.split_for_parts();
    described.merge(also_described);
    open.with_state(Arc::clone(admin))
        .merge(docs::routes(document::text(&described)))
        .merge(console::routes())
        .method_not_allowed_fallback(error::method_not_allowed)
        .merge(operators.with_state(Arc::clone(admin)))
        .layer(from_fn_with_state(Arc::clone(admin), require_own_host))
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

/// What this node counts, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "node",
    responses((status = 200, description = "The text format", body = String, content_type = Metrics::CONTENT_TYPE))
)]
async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    (
        [(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)],
        admin.api.metrics.render(),
    )
        .into_response()
}

/// Whether this process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "node",
    responses((status = 200, description = "It does", body = String))
)]
async fn health() -> &'static str {
    "ok\n"
}

/// Whether this node may take players.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "node",
    responses(
        (status = 200, description = "It may", body = String),
        (status = 503, description = "`draining`: it is leaving. `store_away`: not now", body = ErrorBody),
    )
)]
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

/// What is logged.
#[derive(Deserialize, Serialize, ToSchema)]
struct Level {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives by module.
    #[schema(
        example = "info",
        pattern = "^(off|error|warn|info|debug|trace)(,[a-z_:]+=(off|error|warn|info|debug|trace))*$"
    )]
    level: String,
}

/// What is logged.
#[utoipa::path(
    get,
    path = "/v1/admin/log",
    tag = "node",
    responses(
        (status = 200, description = "The level", body = Level),
        (status = 404, description = "`not_found`: this process does not own its log", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
async fn log_level(State(admin): State<Arc<Admin>>) -> Result<Json<Level>, ApiError> {
    let log = admin
        .log
        .as_ref()
        .ok_or_else(|| ApiError::not_found("this node does not own its log"))?;
    let level = log.level();
    Ok(Json(Level { level }))
}

/// Changes what is logged, until the process ends.
#[utoipa::path(
    put,
    path = "/v1/admin/log",
    tag = "node",
    request_body = Level,
    responses(
        (status = 200, description = "The level", body = Level),
        (status = 404, description = "`not_found`: this process does not own its log", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
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
