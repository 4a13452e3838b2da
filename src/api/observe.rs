//! Around every request: its id, its limits, its line in the access log and its metrics.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::net::address::Addressing;
use crate::net::http::{Answer, Handler, Peer, Reply, Then};
use crate::telemetry::Metrics;
use crate::telemetry::{RequestId, method_label};

use super::error::ApiError;

/// Largest head of a request, tokens aside, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// The id of a request, in every response.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of a request beside itself.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Its id.
    pub id: RequestId,
    /// The connection's other end.
    pub peer: Peer,
    /// The client's address: the peer's, or the one that a trusted proxy forwards.
    pub client: IpAddr,
}

/// An upgrade that a handler attaches to its 101 response.
#[derive(Clone)]
pub(super) struct Upgrade(Arc<Mutex<Option<Then>>>);

impl Upgrade {
    pub(super) fn new(then: Then) -> Self {
        Self(Arc::new(Mutex::new(Some(then))))
    }
}

/// Marks an answer that has the shape of another product's API, also where it refuses.
#[derive(Clone, Copy)]
pub(super) struct OwnShape;

/// A router that answers a listener.
pub struct Routes {
    router: Router,
    addressing: Arc<Addressing>,
}

#[derive(Clone)]
struct Observer {
    metrics: Arc<Metrics>,
    access_log: bool,
}

impl Routes {
    /// Puts the observation around a router.
    #[must_use]
    pub fn new(router: Router, addressing: Arc<Addressing>, metrics: Arc<Metrics>, access_log: bool) -> Self {
        let observer = Observer { metrics, access_log };
        Self {
            router: router.layer(from_fn_with_state(observer, observe)),
            addressing,
        }
    }
}

impl Handler for Routes {
    fn respond(&self, request: http::Request<Incoming>, peer: Peer) -> Answer {
        let client = self.addressing.forwarded(peer.ip(), request.headers());
        let context = Context {
            id: RequestId::random(),
            peer,
            client,
        };
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(context);
        let router = self.router.clone();
        Box::pin(async move {
            let mut response = match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let upgrade = response.extensions_mut().remove::<Upgrade>();
            let then =
                upgrade.and_then(|upgrade| upgrade.0.lock().unwrap_or_else(PoisonError::into_inner).take());
            Reply { response, then }
        })
    }
}

async fn observe(State(observer): State<Observer>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let Some(context) = request.extensions().get::<Context>().copied() else {
        // Every request comes through `Routes::respond`.
        return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "no context")
            .render(RequestId::random());
    };
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    // The query may hold a token and is never logged.
    let path = request.uri().path().to_owned();
    let mut response = match check_head(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => axum::response::IntoResponse::into_response(error),
    };
    let error = response.extensions_mut().remove::<ApiError>();
    let shaped = response.extensions_mut().remove::<OwnShape>().is_some();
    let unshaped = || ApiError::of_status(response.status()).filter(|_| !shaped);
    if let Some(error) = error.or_else(unshaped) {
        // What layers said of the answer stays; what was said of its body does not.
        let mut headers = std::mem::take(response.headers_mut());
        headers.remove(header::CONTENT_LENGTH);
        response = error.render(context.id);
        headers.extend(std::mem::take(response.headers_mut()));
        *response.headers_mut() = headers;
    }
    if let Ok(id) = HeaderValue::try_from(context.id.to_string()) {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    let (status, took) = (response.status(), start.elapsed());
    let route = matched.as_ref().map_or("unmatched", |matched| matched.as_str());
    observer.metrics.http_request(route, &method, status, took);
    if observer.access_log {
        tracing::info!(
            target: "usher::access",
            request_id = %context.id,
            client = %context.client,
            method = method_label(&method),
            path = %short(&path),
            status = status.as_u16(),
            duration_ms = took.as_secs_f64() * 1_000.0,
            "request"
        );
    }
    response
}

/// Headers that may hold a token are left out: an absurd token is answered as a bad one (401).
fn check_head(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let tokens = [header::AUTHORIZATION, header::SEC_WEBSOCKET_PROTOCOL];
    let counted = headers.iter().filter(|(name, _)| !tokens.contains(name));
    let bytes: usize = counted
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if headers.len() > MAX_HEADERS || bytes + target > MAX_HEAD_BYTES {
        let message = "a request has at most 64 headers and 16 KiB of them";
        return Err(ApiError::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            message,
        ));
    }
    Ok(())
}

/// The start of a path, so that a stranger does not choose the length of a log line.
fn short(path: &str) -> &str {
    let end = path.char_indices().nth(256).map_or(path.len(), |(end, _)| end);
    &path[..end]
}
