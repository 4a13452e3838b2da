//! The operators' console, from the binary: nothing of another host is ever asked for.
//!
//! Owns: which files it has, and what a browser may do with them. Does not: hold data; the page asks for all of it with
//! the operator's token, by the routes that everybody uses. So the page itself is for whoever reaches the listener.

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;

use super::error::ApiError;
use super::pages::page;

/// Scripts and styles are this listener's own, and no text ever becomes a script or an element (trusted types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

macro_rules! files {
    ($($name:literal)+) => {
        &[$(($name, include_str!(concat!("../web/console/", $name)))),+]
    };
}

/// The files beside the page.
const FILES: &[(&str, &str)] = files![
    "account.js"
    "asking.js"
    "chart.js"
    "confirm.js"
    "elements.js"
    "figures.js"
    "files.js"
    "ledger.js"
    "levels.js"
    "live.js"
    "main.js"
    "metrics.js"
    "people.js"
    "style.css"
    "table.js"
    "trail.js"
];

pub(super) fn routes() -> Router {
    Router::new()
        .route("/console", get(index))
        .route("/console/{file}", get(file))
}

async fn index() -> Response {
    let html = include_str!("../web/console/index.html");
    page("text/html; charset=utf-8", POLICY, html)
}

async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(known, _)| *known == name);
    let (_, text) = found.ok_or_else(|| ApiError::not_found("there is nothing at this path"))?;
    let is_style = name.ends_with(".css");
    let kind = if is_style {
        "text/css; charset=utf-8"
    } else {
        "text/javascript; charset=utf-8"
    };
    Ok(page(kind, POLICY, *text))
}
