//! HTTP: the routes, who may call them, and the one shape of errors.
//!
//! Owns: turning requests into questions to the rooms below, and their answers into status codes.
//! Does not: speak TLS or frames (`net`), keep sessions (`gateway`) or decide who may play (`lease`).
//! Called by: `app`, which hands its routers to the listeners.

mod accounts;
pub mod admin;
mod adobe;
pub mod body;
pub mod caller;
mod echo;
pub mod error;
pub mod fields;
mod handshake;
mod lone;
pub mod observe;
mod operator;
mod pace;
pub mod page;
mod pages;
pub mod start;
mod streams;
mod ticket;
mod watch;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use crate::auth::Verifier;
use crate::config::Facade;
use crate::db::Db;
use crate::gateway::Gateway;
use crate::net::address::Addressing;
use crate::net::limits::{Admission, RequestLimits};
use crate::net::origin::Origins;
use crate::telemetry::Metrics;

use self::error::ApiError;

/// What the routes work with.
pub struct Api {
    /// Sessions.
    pub gateway: Arc<Gateway>,
    /// Tokens.
    pub verifier: Arc<Verifier>,
    /// Which pages may open sockets.
    pub origins: ArcSwap<Origins>,
    /// Whose forwarded addresses are believed.
    pub addressing: Arc<Addressing>,
    /// Limits of clients behind a trusted proxy.
    pub admission: Arc<Admission>,
    /// Rates of requests and starts.
    pub request_limits: RequestLimits,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Rows; none: every part is switched off, or only this node could see them.
    pub db: Option<Db>,
    /// Whether the node is leaving: readiness fails.
    pub leaving: AtomicBool,
    /// Whether it takes no more players.
    pub draining: AtomicBool,
    /// Whether `?token=` is accepted.
    pub query_token: bool,
    /// The API of another product.
    pub facade: Facade,
    /// Largest message of `/debug/echo`; none: no such route.
    pub echo: Option<usize>,
}

impl Api {
    /// The rows.
    ///
    /// # Errors
    /// 503 `needs_database` where nodes share Redis and no database.
    pub fn db(&self) -> Result<&Db, ApiError> {
        self.db.as_ref().ok_or_else(|| {
            let message = "this needs a database that the nodes share (database.url)";
            ApiError::unavailable("needs_database", message, 60)
        })
    }
}

/// The routes of the players' listener: those of the gateway, and `parts`, which other rooms bring.
pub fn player_routes(api: &Arc<Api>, parts: Router) -> Router {
    let mut router = Router::new()
        .route("/", get(pages::index))
        .route("/demo.js", get(pages::script))
        .route("/demo.css", get(pages::style))
        .route("/.well-known/jwks.json", get(ticket::key_set))
        .route("/v1/introspect", post(ticket::introspect))
        .route("/v1/sessions", post(lone::open).get(lone::list))
        .route("/v1/sessions/{session}", delete(lone::stop))
        .route("/v1/sessions/{session}/heartbeat", post(lone::heartbeat))
        .route(
            "/v1/accounts/{account}/streams",
            get(streams::list).post(streams::open),
        )
        .route("/v1/tickets/check", get(ticket::check))
        .route("/v1/watch", get(watch::watch).head(error::method_not_allowed));
    if api.echo.is_some() {
        router = router.route("/debug/echo", get(echo::echo).head(error::method_not_allowed));
    }
    if api.facade.adobe {
        router = router.merge(adobe::routes(&api.facade));
    }
    router
        .with_state(Arc::clone(api))
        .merge(parts)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(api), pace::pace))
}
