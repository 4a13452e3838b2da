//! The WebSocket opening handshake (RFC 6455 section 4.2).

use aws_lc_rs::digest;
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::net::http::Peer;
use crate::protocol::SUBPROTOCOL;

use super::error::ApiError;

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Answers a correct handshake with 101.
///
/// # Errors
/// 426 when this is no WebSocket handshake of version 13 over HTTP/1.1, 400 when its key is malformed.
pub fn accept(peer: &Peer, headers: &HeaderMap) -> Result<Response, ApiError> {
    let upgrade = has_token(headers, &header::UPGRADE, "websocket");
    if !peer.upgradable || !upgrade || !has_token(headers, &header::CONNECTION, "upgrade") {
        let message = "this path is a WebSocket: open it with a WebSocket handshake over HTTP/1.1";
        return Err(
            ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
                .with_header(header::UPGRADE, HeaderValue::from_static("websocket")),
        );
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version.as_bytes() != b"13")
    {
        let message = "Sec-WebSocket-Version must be 13";
        return Err(
            ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
                .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        );
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        let message = "Sec-WebSocket-Key must be 16 bytes in base64";
        return Err(ApiError::bad_request("Sec-WebSocket-Key", message));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answers = response.headers_mut();
    answers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(accept_key(key)) {
        answers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        answers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
    }
    Ok(response)
}

fn accept_key(key: &[u8]) -> String {
    // SHA-1 is what RFC 6455 asks for; nothing here rests on its strength.
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    STANDARD.encode(context.finish())
}

/// Whether a comma-separated header, which may be repeated, has this word.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_example() {
        assert_eq!(
            accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
