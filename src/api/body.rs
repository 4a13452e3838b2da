//! Reading a request's JSON body: bounded in size and in time, and refused in the one shape of errors.

use axum::body::to_bytes;
use axum::extract::Request;
use bytes::Bytes;
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;

/// Largest body; the largest thing in one is a token, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// Reads the body as `T` before `deadline`. `usage` says what it must be; `field` is what it is about.
///
/// # Errors
/// 415 when it is not JSON by its type, 413 when it is too large, 408 when it does not come in time, 400 when it is
/// not `usage`.
pub(crate) async fn read_json<T: DeserializeOwned>(
    request: Request,
    deadline: Instant,
    field: &'static str,
    usage: &'static str,
) -> Result<T, ApiError> {
    let body = read(request, deadline, "application/json").await?;
    serde_json::from_slice(&body).map_err(|_| ApiError::bad_request(field, usage))
}

/// Reads the body, of this media type, before `deadline`.
///
/// # Errors
/// 415 when it is of another type, 413 when it is too large, 408 when it does not come in time.
pub(crate) async fn read(
    request: Request,
    deadline: Instant,
    media_type: &'static str,
) -> Result<Bytes, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    // Parameters, such as a charset, may follow the media type.
    let kind = kind.and_then(|kind| kind.to_str().ok()?.split(';').next());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(media_type)) {
        let (status, code) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
        return Err(ApiError::new(
            status,
            code,
            format!("the body must be {media_type}"),
        ));
    }
    let body = timeout_at(deadline, to_bytes(request.into_body(), MAX_BYTES)).await;
    let body = body.map_err(|_| {
        let message = "the body did not come in time";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    })?;
    body.map_err(|_| {
        let message = "the body is too large, or was cut off";
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    })
}
