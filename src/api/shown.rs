//! What operators are shown of the other rooms: plays, royalties and the use of files.
//!
//! Owns: which of the rooms' routes the admin listener serves too, so that the console asks nobody but its own listener.
//! Does not: answer (the rooms do, and each asks for its own scopes). A room that is switched off brings no route.
//! Called by: `admin`'s router.

use axum::Router;
use axum::routing::get_service;
use utoipa::openapi::{HttpMethod, PathItem};
use utoipa_axum::router::OpenApiRouter;

/// Their paths; only `GET` of each.
const SHOWN: [&str; 6] = [
    "/v1/plays",
    "/v1/reports/concurrency",
    "/v1/reports/royalties",
    "/v1/reports/usage",
    "/v1/files/stats",
    "/v1/files/accesses",
];

/// Those of these routes that the rooms brought, with their descriptions.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(parts: OpenApiRouter) -> OpenApiRouter<S> {
    let (rooms, described): (Router, _) = parts.split_for_parts();
    let mut shown = OpenApiRouter::default();
    for path in SHOWN {
        let found = described.paths.paths.get(path);
        let Some(operation) = found.and_then(|item| item.get.clone()) else {
            continue;
        };
        let item = PathItem::new(HttpMethod::Get, operation);
        shown = shown.route(path, get_service(rooms.clone()));
        let document = shown.get_openapi_mut();
        document.paths.paths.insert(path.to_owned(), item);
        let schemas = described
            .components
            .as_ref()
            .map(|components| &components.schemas);
        let known = &mut document.components.get_or_insert_default().schemas;
        known.extend(
            schemas
                .into_iter()
                .flatten()
                .map(|(name, schema)| (name.clone(), schema.clone())),
        );
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;
    use axum::body::Body;
    use http::{Method, Request, StatusCode};
    use tower::ServiceExt;
    use utoipa_axum::routes;

    /// Those that there are.
    #[utoipa::path(get, path = "/v1/plays", tag = "ledger", responses((status = 200, body = Vec<String>)))]
    async fn list() {}

    /// One more.
    #[utoipa::path(post, path = "/v1/plays", tag = "ledger", responses((status = 200)))]
    async fn add() {}

    /// Not for operators.
    #[utoipa::path(get, path = "/v1/messages", tag = "messages", responses((status = 200)))]
    async fn messages() {}

    #[tokio::test]
    async fn only_what_is_listed_and_there_is_served_and_described() {
        let rooms = OpenApiRouter::default();
        let rooms = rooms.routes(routes!(list, add)).routes(routes!(messages));
        let (shown, described) = routes::<()>(rooms).split_for_parts();
        let paths: Vec<_> = described.paths.paths.keys().collect();
        assert_eq!(paths, ["/v1/plays"]);
        let plays = &described.paths.paths["/v1/plays"];
        assert!(plays.get.is_some() && plays.post.is_none());
        for (method, path, status) in [
            (Method::GET, "/v1/plays?page=1", StatusCode::OK),
            (Method::POST, "/v1/plays", StatusCode::METHOD_NOT_ALLOWED),
            (Method::GET, "/v1/messages", StatusCode::NOT_FOUND),
            (Method::GET, "/v1/files/stats", StatusCode::NOT_FOUND),
        ] {
            let request = Request::builder().method(&method).uri(path);
            let request = request.body(Body::empty()).unwrap();
            let answer = shown.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {path}");
        }
    }
}
