//! The demo page and the player SDK, from the binary: nothing of another host is ever asked for.
//!
//! Owns: the files, their types, and what a page may load. Does not: know what they do (`src/web`, `sdk/js`).
//! Called by: the players' router.

use std::ops::Range;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What is below is for pages of any origin.
const SDK: &str = "/sdk/";

/// Path, type and content of each.
const FILES: [(&str, &str, &str); 12] = [
    ("/", HTML, include_str!("../web/demo.html")),
    ("/demo.css", STYLE, include_str!("../web/demo.css")),
    ("/demo.js", SCRIPT, include_str!("../web/demo.js")),
    ("/chat.js", SCRIPT, include_str!("../web/chat.js")),
    ("/sdk/usher.js", SCRIPT, include_str!("../../sdk/js/usher.js")),
    ("/sdk/rules.js", SCRIPT, include_str!("../../sdk/js/rules.js")),
    ("/sdk/door.js", SCRIPT, include_str!("../../sdk/js/door.js")),
    ("/sdk/token.js", SCRIPT, include_str!("../../sdk/js/token.js")),
    ("/sdk/timers.js", SCRIPT, include_str!("../../sdk/js/timers.js")),
    ("/sdk/page.js", SCRIPT, include_str!("../../sdk/js/page.js")),
    ("/sdk/video.js", SCRIPT, include_str!("../../sdk/js/video.js")),
    (
        "/sdk/adapters.js",
        SCRIPT,
        include_str!("../../sdk/js/adapters.js"),
    ),
];

/// What the demo plays; `src/web/make-clip.html` made it.
const CLIP: &[u8] = include_bytes!("../web/demo.webm");

/// The routes.
pub(super) fn routes() -> Router {
    let mut router = Router::new().route("/demo.webm", get(clip));
    for (path, kind, text) in FILES {
        let serve = move || async move {
            let mut response = page(kind, POLICY, text);
            // A module of another origin is read under CORS (Fetch standard); the SDK is no secret.
            if path.starts_with(SDK) {
                let anyone = HeaderValue::from_static("*");
                response
                    .headers_mut()
                    .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, anyone);
            }
            response
        };
        router = router.route(path, get(serve));
    }
    router
}

/// Some browsers play nothing that they cannot ask for in parts.
async fn clip(headers: HeaderMap) -> Response {
    let asked = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| part(value, CLIP.len()));
    let mut response = match asked {
        Some(range) => {
            let from = format!("bytes {}-{}/{}", range.start, range.end - 1, CLIP.len());
            let content = CLIP.get(range).unwrap_or_default();
            let mut response = page("video/webm", POLICY, content);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            if let Ok(from) = HeaderValue::try_from(from) {
                response.headers_mut().insert(header::CONTENT_RANGE, from);
            }
            response
        }
        None => page("video/webm", POLICY, CLIP),
    };
    response
        .headers_mut()
        .insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// The one part that a `Range` asks for; anything else is answered with the whole, which RFC 9110 section 14.2 allows.
fn part(value: &str, length: usize) -> Option<Range<usize>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let start: usize = first.parse().ok()?;
    let end = match last {
        "" => length,
        last => last.parse::<usize>().ok()?.saturating_add(1).min(length),
    };
    (start < end).then_some(start..end)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_part_or_the_whole() {
        for (asked, expected) in [
            ("bytes=0-", Some(0..10)),
            ("bytes=3-5", Some(3..6)),
            ("bytes=3-18446744073709551615", Some(3..10)),
            ("bytes=9-9", Some(9..10)),
            ("bytes=10-", None),
            ("bytes=5-3", None),
            ("bytes=-5", None),
            ("bytes=0-1,3-4", None),
            ("bytes=99999999999999999999-", None),
            ("items=0-", None),
            ("", None),
        ] {
            assert_eq!(part(asked, 10), expected, "{asked}");
        }
    }
}
