//! What staff did with other people's accounts, for the audit trail.

use std::time::SystemTime;

use serde_json::json;

use super::Accounts;
use super::caller::Caller;
use crate::api::observe::Context;

/// What was done, by its name in the trail and its route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed {
    action: &'static str,
    route: &'static str,
    status: u16,
}

pub(super) const ADDED: Deed = deed("user.add", "POST /v1/users", 201);
pub(super) const LISTED: Deed = deed("users.list", "GET /v1/users", 200);
pub(super) const SHOWN: Deed = deed("user.show", "GET /v1/users/{id}", 200);
pub(super) const CHANGED: Deed = deed("user.change", "PUT /v1/users/{id}", 200);
pub(super) const REMOVED: Deed = deed("user.remove", "DELETE /v1/users/{id}", 204);
pub(super) const EXPORTED: Deed = deed("user.export", "GET /v1/users/{id}/export", 200);
pub(super) const RESET: Deed = deed("user.reset_password", "POST /v1/users/{id}/password-reset", 201);

const fn deed(action: &'static str, route: &'static str, status: u16) -> Deed {
    Deed {
        action,
        route,
        status,
    }
}

impl Accounts {
    /// Records what was done with somebody's account; what people do with their own is their own affair. The line has
    /// the members of those of the operators' listener.
    pub(super) async fn record(&self, context: &Context, caller: &Caller, deed: Deed, account: Option<&str>) {
        if account.is_some_and(|id| caller.is_named(id)) {
            return;
        }
        let claims = &caller.claims;
        let line = json!({
            "at": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            "who": claims.account,
            "who_tenant": claims.tenant,
            "scope": claims.scopes.to_string(),
            "from": context.client.to_string(),
            "action": deed.action,
            "route": deed.route,
            "tenant": claims.tenant,
            "account": account,
            "session": null,
            "device": null,
            "request_id": context.id.to_string(),
            "status": deed.status,
            "error": null,
            "outcome": null,
        });
        self.api.record(&line).await;
    }
}
