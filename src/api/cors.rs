//! Web pages as callers: `http.origins` says whose may ask and read the answers (Fetch standard, section 3.2).
//!
//! Owns: the refusal of foreign pages, preflights, and the headers by which a browser lets a page read an answer.
//! Does not: compare origins (`net::origin` does). There are no cookies, so no page acts with anybody's rights but those of
//! the token that it shows itself.
//! Called by: the players' router, around every route, and the routes that upgrade.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

use super::Api;
use super::error::ApiError;

/// What is called by servers, on behalf of requests whose `Origin` they may pass on: another server's page is no matter
/// of ours.
const FOR_SERVERS: [&str; 2] = ["/v1/introspect", "/v1/tickets/check"];

/// What a page may send beside what every page may.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, if-match, if-none-match, if-range, range, tus-resumable, upload-checksum, \
     upload-length, upload-metadata, upload-offset, usher-resume, x-http-method-override",
);

/// What a page may read beside what every page may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept-ranges, content-disposition, content-range, etag, location, retry-after, \
     tus-checksum-algorithm, tus-extension, tus-max-size, tus-resumable, tus-version, upload-expires, upload-length, \
     upload-metadata, upload-offset, usher-file, www-authenticate, x-request-id",
);

/// What a page may ask for. Which of them a route takes, the route says.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");

/// How long a browser may keep the answer to a preflight, in seconds. What follows is judged all the same.
const KEEP: HeaderValue = HeaderValue::from_static("600");

/// Around every route of the players' listener; it concerns those under `/v1`.
pub(super) async fn share(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/v1/") {
        return next.run(request).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let is_allowed = origin.is_none() || api.is_allowed_origin(request.headers(), request.uri());
    let mut response = if is_allowed || FOR_SERVERS.contains(&path) {
        let is_preflight = *request.method() == Method::OPTIONS
            && request
                .headers()
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let response = next.run(request).await;
        if is_preflight && is_allowed && origin.is_some() {
            preflight(response)
        } else {
            response
        }
    } else {
        foreign().into_response()
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin.filter(|_| is_allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
    response
}

/// The leave to ask. Of a path that does not exist, or of one that is asked too often, the refusal stays.
fn preflight(response: Response) -> Response {
    let is_refused = response.status() != StatusCode::METHOD_NOT_ALLOWED && !response.status().is_success();
    if is_refused {
        return response;
    }
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, KEEP),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn foreign() -> ApiError {
    ApiError::forbidden(
        "origin_forbidden",
        "pages of this origin may not call here (http.origins)",
    )
}

impl Api {
    /// Whether the request's page, or its having none, is allowed.
    ///
    /// # Errors
    /// 403 `origin_forbidden`.
    pub(crate) fn check_origin(&self, parts: &Parts) -> Result<(), ApiError> {
        if self.is_allowed_origin(&parts.headers, &parts.uri) {
            return Ok(());
        }
        Err(foreign())
    }

    fn is_allowed_origin(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| uri.authority().map(http::uri::Authority::as_str));
        self.origins.load().allows(headers.get(header::ORIGIN), host)
    }
}
