//! `/debug/echo`: the same listener and codec as a player's, without token or lease, for conformance suites.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::gateway::socket::{Bounds, Fault, Inbound, Socket};
use crate::net::stream::Handover;

use super::Api;
use super::error::ApiError;
use super::handshake;
use super::observe::{Context, Upgrade};

/// A suite that says nothing, or does not read, for this long is gone.
const IDLE: Duration = Duration::from_secs(60);

pub(super) async fn echo(
    State(api): State<Arc<Api>>,
    axum::Extension(context): axum::Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    api.check_origin(&parts)?;
    let client = api.check_client(&context)?;
    let mut response = handshake::accept(&context.peer, &parts.headers)?;
    let limit = api.echo.unwrap_or_default();
    let (tasks, leaving) = (api.gateway.tasks.clone(), api.gateway.registry.leaving().clone());
    let then = Upgrade::new(Box::new(move |handover| {
        tasks.spawn(run(handover.with(client), limit, leaving));
    }));
    response.extensions_mut().insert(then);
    Ok(response)
}

async fn run(handover: Handover, limit: usize, leaving: CancellationToken) {
    let write_buffer = limit.saturating_mul(2).max(64 * 1024);
    let bounds = Bounds {
        message: limit,
        read_buffer: 16 * 1024,
        write_buffer,
    };
    let mut socket = Socket::new(handover, bounds);
    loop {
        let inbound = tokio::select! {
            inbound = socket.receive() => inbound,
            () = tokio::time::sleep(IDLE) => return socket.close(1001, "idle").await,
            () = leaving.cancelled() => return socket.close(1001, "the node is leaving").await,
        };
        let message = match inbound {
            Inbound::Text(text) => Message::Text(text),
            Inbound::Binary(bytes) => Message::Binary(bytes),
            // The codec has queued the pong.
            Inbound::Control if socket.flush(IDLE).await => continue,
            Inbound::Control => return,
            Inbound::Empty => continue,
            Inbound::Close(_) | Inbound::Lost => return socket.finish().await,
            Inbound::Fault(Fault::TooLarge) => return socket.close(1009, "message too large").await,
            Inbound::Fault(Fault::Utf8) => return socket.close(1007, "not valid UTF-8").await,
            Inbound::Fault(Fault::Scattered) => return socket.close(1008, "too many fragments").await,
            Inbound::Fault(Fault::Protocol) => return socket.close(1002, "protocol error").await,
        };
        // Nothing more is read before the answer is out: the peer's own pace bounds the memory.
        if socket.send(message).is_err() || !socket.flush(IDLE).await {
            return;
        }
    }
}
