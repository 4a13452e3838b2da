//! HTTP: the routes, who may call them, and the one shape of errors.
//!
//! Owns: turning requests into questions to the rooms below, and their answers into status codes.
//! Does not: speak TLS or frames (`net`), keep sessions (`gateway`) or decide who may play (`lease`).
//! Called by: `app`, which hands its routers to the listeners.
//!
//! # How a room brings routes, and describes them
//!
//! Every listener serves `/v1/openapi.json`, collected from the routes that it serves, and `/docs`, a page to try them.
//!
//! * A room has `pub fn routes(..) -> OpenApiRouter`, made by `OpenApiRouter::default().routes(routes!(show, change))` with
//!   its state applied at its end; `app` merges it in `Node::parts`. `routes!` takes handlers of one path. It takes
//!   the path and the method from `#[utoipa::path(get, path = "/v1/things/{id}", tag = "content", ..)]` over the handler,
//!   so what is described is what is served. The first line of the handler's doc comment is the summary.
//! * `tag` is one of those in `document`. The operation's id is the tag and the function's name.
//! * `params(("id" = String, Path, description = ".."), Query)`, where the query's struct derives `utoipa::IntoParams` (in full: an
//!   import of the name is a warning) with `#[into_params(parameter_in = Query)]`, and `#[param(nullable = false)]` on what is optional. Bounds are written down:
//!   `minimum`, `maximum`, `max_length`, `pattern`. What satisfies them is not answered with 400, and what does not is.
//! * `request_body = T` and `responses((status = 200, description = "..", body = T))` name the types that are really read and
//!   written; they derive `ToSchema`. An `Option` that is always written has `#[schema(required)]`; a `SystemTime` has
//!   `value_type = String, format = DateTime`. A list is `body = Listing<T>` (`page`);
//!   where it takes `fields`, items may lack any member but the first.
//! * Refusals are [`error::ErrorBody`]. 400, 401, 403, 404, 408, 413, 415, 429, 431 and 503 are added by `document` where a
//!   route can answer them (it has a token, a body, a path parameter). A route describes those of its own, such as 409 and
//!   410, with `body = ErrorBody` and its codes in the description; `ErrorWith<T>` where more stands beside `error`.
//! * `security(("bearer" = []))`, `("basic" = [])` or `("ticket" = [])`; a route for everybody has no `security`. The scope is
//!   said in the description.
//!
//! The tests `openapi` go over every path of the document, and hold what is answered against it.

mod accounts;
pub mod admin;
mod adobe;
pub(crate) mod body;
pub mod caller;
pub(crate) mod choice;
mod console;
mod cors;
mod demo;
mod docs;
mod document;
mod echo;
pub mod error;
pub(crate) mod fields;
pub mod grant;
pub mod handshake;
mod lone;
pub mod looks;
mod nodes;
pub mod observe;
pub mod operator;
mod pace;
pub mod page;
mod pages;
mod playing;
mod shown;
pub mod start;
mod streams;
mod ticket;
mod trail;
mod watch;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get};
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::auth::Verifier;
use crate::config::Facade;
use crate::db::Db;
use crate::gateway::Gateway;
use crate::net::address::Addressing;
use crate::net::limits::{Admission, RequestLimits};
use crate::net::origin::Origins;
use crate::telemetry::{AuditTrail, Metrics};

use self::document::Players;
use self::error::ApiError;

/// What the routes work with.
pub struct Api {
    /// Sessions.
    pub gateway: Arc<Gateway>,
    /// Tokens.
    pub verifier: Arc<Verifier>,
    /// Whose pages may call.
    pub origins: ArcSwap<Origins>,
    /// Whose forwarded addresses are believed.
    pub addressing: Arc<Addressing>,
    /// Limits of clients behind a trusted proxy.
    pub admission: Arc<Admission>,
    /// Rates of requests and starts.
    pub request_limits: RequestLimits,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where the calls of operators and of staff are recorded.
    pub trail: AuditTrail,
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
    /// Whether the demo page gets tokens of its own account: a development node.
    pub demo: bool,
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
pub fn player_routes(api: &Arc<Api>, parts: OpenApiRouter) -> Router {
    let mut router = OpenApiRouter::with_openapi(Players::openapi())
        .route("/demo/token", get(demo::token))
        .routes(routes!(ticket::key_set))
        .routes(routes!(ticket::introspect))
        .routes(routes!(lone::open, playing::list))
        .routes(routes!(lone::stop))
        .routes(routes!(lone::heartbeat))
        .routes(routes!(streams::list, streams::open))
        .routes(routes!(ticket::check))
        .routes(routes!(watch::watch).map(only_get));
    if api.echo.is_some() {
        router = router.route("/debug/echo", only_get(get(echo::echo)));
    }
    let router = router.with_state(Arc::clone(api)).merge(parts);
    let (mut router, document) = router.split_for_parts();
    if api.facade.adobe {
        router = router.merge(adobe::routes(&api.facade).with_state(Arc::clone(api)));
    }
    router
        .merge(pages::routes())
        .merge(docs::routes(document::text(&document)))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(api), pace::pace))
        .layer(from_fn_with_state(Arc::clone(api), cors::share))
}

fn only_get(route: MethodRouter<Arc<Api>>) -> MethodRouter<Arc<Api>> {
    route.head(error::only_get).fallback(error::only_get)
}
