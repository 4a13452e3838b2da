//! The demo account: a token for whoever opens the demo page of a development node.
//!
//! Owns: who gets one, and what it is good for. Does not: serve the page (`pages` does). Called by: the players' router.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::json;

use crate::auth::Grant;

use super::Api;
use super::error::ApiError;
use super::observe::Context;

/// The account of the demo page, and of the line that `serve` prints.
const ACCOUNT: &str = "demo";

/// What the demo plays; its tokens open nothing else.
const CONTENT: &str = "demo";

/// The page asks again before.
const LIFE: Duration = Duration::from_secs(3600);

/// `GET /demo/token`
///
/// Only on a development node (one that has made its own certificate), and only for who is on the same machine or a
/// private network: should such a node ever face the world, strangers get nothing.
pub(super) async fn token(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    if !api.demo || !is_near(context.client) {
        return Err(ApiError::not_found("there is no demo account here"));
    }
    api.check_origin(&request.into_parts().0)?;
    let grant = Grant {
        contents: Some(vec![CONTENT.to_owned()]),
        ..Grant::new(ACCOUNT, LIFE)
    };
    let token = api.verifier.issue(&grant).map_err(|error| {
        tracing::error!(%error, "no token for the demo page");
        ApiError::unavailable("unavailable", "no token could be made", 5)
    })?;
    let answer = json!({"account": ACCOUNT, "content": CONTENT, "token": token.expose()});
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// On this machine, on its link, or on a private network (RFC 1918, RFC 4193).
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_not_near() {
        let near = |text: &str| is_near(text.parse().expect("an address"));
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.17.0.1",
            "192.168.1.9",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(near(address), "{address}");
        }
        for address in [
            "8.8.8.8",
            "172.32.0.1",
            "100.64.0.1",
            "2001:db8::1",
            "::ffff:8.8.8.8",
            "0.0.0.0",
        ] {
            assert!(!near(address), "{address}");
        }
    }
}
