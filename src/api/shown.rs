//! What operators are shown of the other rooms: plays, royalties and the use of files.
//!
//! Owns: which of the rooms' routes the admin listener serves too, so that the console asks nobody but its own listener.
//! Does not: answer (the rooms do, and each asks for its own scopes). A room that is switched off brings no route.
//! Called by: `admin`'s router.

use std::sync::Arc;

use axum::Router;
use axum::routing::get_service;
use utoipa::openapi::{HttpMethod, PathItem};
use utoipa_axum::router::OpenApiRouter;

use super::admin::Admin;

/// Their paths; only `GET` of each.
const SHOWN: [&str; 5] = [
    "/v1/plays",
    "/v1/reports/royalties",
    "/v1/reports/usage",
    "/v1/files/stats",
    "/v1/files/accesses",
];

/// Those of these routes that the rooms brought, with their descriptions.
pub(super) fn routes(parts: OpenApiRouter) -> OpenApiRouter<Arc<Admin>> {
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
