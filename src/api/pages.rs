//! The demo page, from the binary: nothing of another host is ever asked for.

use axum::response::{IntoResponse, Response};
use http::header;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn index() -> Response {
    page(
        "text/html; charset=utf-8",
        POLICY,
        include_str!("../web/demo.html"),
    )
}

pub(super) async fn script() -> Response {
    page(
        "text/javascript; charset=utf-8",
        POLICY,
        include_str!("../web/demo.js"),
    )
}

pub(super) async fn style() -> Response {
    page("text/css; charset=utf-8", POLICY, include_str!("../web/demo.css"))
}

/// A file of a page, under this policy of what the page may load.
pub(super) fn page(kind: &'static str, policy: &'static str, content: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}
