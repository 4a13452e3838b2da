//! Reading the audit trail of this node.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::Value;

use super::admin::Admin;
use super::error::ApiError;
use super::page::{List, Listing, bad_query};

/// Which calls are shown.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    /// Only those that act in this tenant.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// Only those about this account.
    #[param(nullable = false)]
    account: Option<String>,
    /// `true`: only those that were to change something.
    #[param(nullable = false, default = false)]
    changes: Option<bool>,
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
}

impl Shown {
    fn has(&self, call: &Value) -> bool {
        let is = |name: &str, asked: Option<&String>| asked.is_none_or(|asked| call[name] == **asked);
        let looks = || call["route"].as_str().is_some_and(is_look);
        is("tenant", self.tenant.as_ref())
            && is("account", self.account.as_ref())
            && !(self.changes == Some(true) && looks())
    }
}

fn is_look(route: &str) -> bool {
    route.starts_with("GET ") || route.starts_with("HEAD ")
}

/// What operators did on this node, the newest first. The scope is `operator`.
#[utoipa::path(
    get,
    path = "/v1/admin/trail",
    tag = "node",
    params(Shown),
    responses((status = 200, description = "Their calls", body = Listing<Value>)),
    security(("bearer" = []))
)]
pub(super) async fn trail(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<Shown>, QueryRejection>,
) -> Result<Json<Listing<Value>>, ApiError> {
    let Query(shown) = query.map_err(bad_query)?;
    let list = List::new(shown.page, shown.limit)?;
    let lines = admin.api.trail.newest().await;
    let lines = lines.map_err(|problem| {
        tracing::error!(problem, "the audit trail cannot be read");
        ApiError::unavailable("unavailable", "the trail cannot be read just now", 1)
    })?;
    let calls = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
    let calls: Vec<Value> = calls.filter(|call| shown.has(call)).collect();
    let (total, (start, limit)) = (calls.len(), list.span());
    let items = calls.into_iter().skip(start).take(limit).collect();
    Ok(Json(list.answer(items, total)))
}
