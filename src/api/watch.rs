//! `GET /v1/watch`: from a request to a player on an open socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::response::Response;
use http::request::Parts;
use tokio::time::{Instant, timeout_at};

use crate::auth::Rejected;
use crate::auth::from_request;
use crate::auth::{Claims, Scope};
use crate::gateway::player::Player;
use crate::net::limits::ClientGuard;
use crate::protocol::start::Start;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::handshake;
use super::observe::{Context, Upgrade};

/// When a player should come back to a node that is leaving, in seconds: the load balancer sends it elsewhere.
const RETRY_AFTER_DRAIN: u16 = 1;

/// When a player should try again while the store is away and `outage.admit` refuses, in seconds.
const RETRY_AFTER_OUTAGE: u16 = 3;

/// The query of [`watch`].
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described: `protocol::start` reads it")]
struct Parameters {
    /// What to play.
    #[param(min_length = 1, max_length = 256)]
    content: String,
    /// The device; without it every start is a device of its own. The same device ends its session before.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    device: Option<String>,
    /// Its name for people.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    device_name: Option<String>,
    /// Its class, such as `tv`.
    #[param(nullable = false, min_length = 1, max_length = 64)]
    device_class: Option<String>,
    /// What to do at the limit: `reject`, `ask`, `wait` or `oldest`.
    #[param(nullable = false, pattern = "^(reject|ask|wait|oldest)$", default = "reject")]
    on_limit: Option<String>,
    /// The secret of the session that is to go on here.
    #[param(nullable = false)]
    resume: Option<String>,
    /// Messages after this id are sent again.
    #[param(nullable = false, minimum = 0, maximum = 9007199254740991_u64)]
    since: Option<u64>,
}

/// Opens the watch socket: a WebSocket handshake (RFC 6455) over HTTP/1.1.
///
/// Refusals come before the upgrade, as plain HTTP; whether a slot is free is said on the socket. The token may also be
/// offered as the subprotocol `bearer.<token>`, beside `usher.v1`. `PROTOCOL.md` describes the messages.
#[utoipa::path(
    get,
    path = "/v1/watch",
    tag = "sessions",
    params(Parameters),
    responses(
        (status = 101, description = "The socket is open"),
        (
            status = 426,
            description = "`upgrade_required`: this is no handshake of version 13 over HTTP/1.1",
            body = ErrorBody
        ),
    ),
    security(("bearer" = []))
)]
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    axum::Extension(context): axum::Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    api.check_origin(&parts)?;
    let client = api.check_client(&context)?;
    if api.draining.load(Ordering::Relaxed) {
        let message = "this node is leaving; connect again";
        return Err(ApiError::unavailable("draining", message, RETRY_AFTER_DRAIN));
    }
    let claims = api.authenticate(&parts, &context).await?;
    if !claims.scopes.has(Scope::Watch) {
        return Err(ApiError::forbidden(
            "scope_forbidden",
            "the token does not allow to watch",
        ));
    }
    let start = Start::parse(parts.uri.query().unwrap_or_default())?;
    let entitlement = api.gateway.policy.load().entitlement(&claims);
    let player = Player::new(claims, start, entitlement, context.id, context.client)?;
    api.check_content(&player).await?;
    if api.gateway.lease.is_refusing(&player.account) {
        let message = "slots cannot be judged just now; try again";
        return Err(ApiError::unavailable("unavailable", message, RETRY_AFTER_OUTAGE));
    }
    if api.gateway.lease.is_blocked(&player.account).await {
        api.metrics.denials_total.inc("blocked");
        return Err(ApiError::forbidden("account_blocked", "the account is blocked"));
    }
    let mut response = handshake::accept(&context.peer, &parts.headers)?;
    api.check_start(&player.account)?;
    let gateway = Arc::clone(&api.gateway);
    let then = Upgrade::new(Box::new(move |handover| {
        gateway.open(handover.with(client), player);
    }));
    response.extensions_mut().insert(then);
    Ok(response)
}

impl Api {
    /// A client behind a trusted proxy could not be judged before its headers were read.
    ///
    /// # Errors
    /// 429: it has too many connections.
    pub fn check_client(&self, context: &Context) -> Result<Option<ClientGuard>, ApiError> {
        if context.client == context.peer.ip() {
            return Ok(None);
        }
        self.admission
            .check_client(context.client, Instant::now())
            .map_err(|refused| {
                self.metrics.connections_refused_total.inc(refused);
                ApiError::rate_limited("too many connections from this address", 1)
            })
    }

    /// The verified token of a request.
    ///
    /// # Errors
    /// 401, 429 for a token that asks too often, 503 where it cannot be checked in time.
    pub(crate) async fn authenticate(&self, parts: &Parts, context: &Context) -> Result<Claims, ApiError> {
        let verified = async {
            let token = from_request(parts, self.query_token)?.ok_or(Rejected::Missing)?;
            let claims = self.verifier.verify(token.expose()).await?;
            Ok::<_, Rejected>((token, claims))
        };
        match timeout_at(context.peer.deadline, verified).await {
            Ok(Ok((token, claims))) => {
                self.check_token(&token, &claims)?;
                Ok(claims)
            }
            Ok(Err(rejected)) => {
                let reason = rejected.reason();
                self.metrics.tokens_rejected_total.inc(reason);
                tracing::debug!(request_id = %context.id, client = %context.client, reason, "token rejected");
                Err(rejected.into())
            }
            Err(_) => Err(ApiError::unavailable(
                "unavailable",
                "the token could not be checked in time",
                1,
            )),
        }
    }
}
