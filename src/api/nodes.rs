//! The nodes of the installation, as operators see them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::admin::Admin;
use super::error::ApiError;
use super::page::Listing;

/// A node.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeItem {
    /// Its id, fresh at each start; its log has it in the line `ready`.
    node: String,
    /// Whether it is the one that answers.
    here: bool,
    /// How long ago it renewed its lease in the store, where that is longest.
    lease_age_ms: u64,
    /// How long the lease still lives, where it lives shortest; 0: it is over, and its players' slots are being freed.
    lease_remaining_ms: u64,
}

/// The nodes that share the slots, by their leases in the store. The scope is `operator`.
#[utoipa::path(
    get,
    path = "/v1/admin/nodes",
    tag = "node",
    responses((status = 200, description = "All of them", body = Listing<NodeItem>)),
    security(("bearer" = []))
)]
pub(super) async fn nodes(State(admin): State<Arc<Admin>>) -> Result<Json<Listing<NodeItem>>, ApiError> {
    let lease = &admin.api.gateway.lease;
    let nodes = lease.nodes().await?.into_iter().map(|found| NodeItem {
        node: found.owner.to_string(),
        here: found.owner == lease.owner,
        lease_age_ms: found.age,
        lease_remaining_ms: found.remaining,
    });
    Ok(Json(Listing::whole(nodes.collect())))
}
