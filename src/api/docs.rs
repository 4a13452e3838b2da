//! `/v1/openapi.json`, and `/docs`: a page to read and to try it. All of it comes from the binary: no other host is asked
//! for anything.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, header};
use utoipa_swagger_ui::{Config, serve};

use super::error::ApiError;
use super::pages::page;

/// Where the document is.
const DOCUMENT: &str = "/v1/openapi.json";

/// As the demo page's, but for the page's pictures, which are in its style sheet, and the styles that it sets by script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The routes, to show this document.
pub(super) fn routes(document: Bytes) -> Router {
    Router::new()
        .route(DOCUMENT, get(self::document))
        .with_state(document)
        .route("/docs", get(index))
        .route("/docs/{file}", get(file))
}

async fn document(State(document): State<Bytes>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, document).into_response()
}

async fn index() -> Response {
    page(
        "text/html; charset=utf-8",
        POLICY,
        include_str!("../web/docs.html"),
    )
}

async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    match name.as_str() {
        "docs.js" => Ok(page(SCRIPT, POLICY, include_str!("../web/docs.js"))),
        "swagger-ui-bundle.js" => vendored(&name, SCRIPT),
        "swagger-ui.css" => vendored(&name, "text/css; charset=utf-8"),
        _ => Err(nothing()),
    }
}

/// A file of Swagger UI, compressed in the binary already; every browser takes it so.
fn vendored(name: &str, kind: &'static str) -> Result<Response, ApiError> {
    let file = serve(name, Arc::new(Config::from(DOCUMENT)));
    let file = file.ok().flatten().ok_or_else(nothing)?;
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = page(kind, POLICY, bytes);
    if file.gzpipped {
        let gzip = HeaderValue::from_static("gzip");
        response.headers_mut().insert(header::CONTENT_ENCODING, gzip);
    }
    Ok(response)
}

fn nothing() -> ApiError {
    ApiError::not_found("there is nothing at this path")
}
