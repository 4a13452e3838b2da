//! Who operates: their token, the tenant that they may act in, and the trail that every call leaves.
//!
//! Owns: the scopes of the admin routes. Does not: act (the routes do) or write the trail's file (`telemetry` does).
//! A look that is repeated is recorded once in a while (`looks`).
//! Called by: `admin`, around every route but metrics, health and pages.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Extension, FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::auth::{Claims, Rejected, Scope, from_request, is_tenant};

use super::Api;
use super::admin::Admin;
use super::error::ApiError;
use super::observe::Context;

/// Scopes that open the admin routes; each route says which it takes.
const SCOPES: [Scope; 3] = [Scope::Operator, Scope::Admin, Scope::Support];

/// Whoever made the request.
#[derive(Clone)]
pub struct Operator(Arc<Claims>);

/// What a call came to, for the trail: attached to the response by the route.
#[derive(Clone)]
pub(super) struct Outcome(pub(super) Value);

impl Operator {
    /// Who it is.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.0.account
    }

    /// The tenant to act in: the one that is asked for, else the token's.
    ///
    /// # Errors
    /// 400 when it cannot be a tenant, 403 when it is another one than the token's and the token's scope is not
    /// `operator`.
    pub fn tenant(&self, asked: Option<&str>) -> Result<Arc<str>, ApiError> {
        match asked {
            None => Ok(Arc::clone(&self.0.tenant)),
            Some(tenant) if !is_tenant(tenant) => {
                Err(ApiError::bad_request("tenant", "no such name of a tenant"))
            }
            Some(tenant) if *tenant == *self.0.tenant => Ok(Arc::clone(&self.0.tenant)),
            Some(tenant) if self.0.scopes.has(Scope::Operator) => Ok(tenant.into()),
            Some(_) => Err(ApiError::forbidden(
                "tenant_forbidden",
                "the token is for another tenant",
            )),
        }
    }
}

/// Whose token it is, and what it opens.
#[derive(Serialize, ToSchema)]
pub(super) struct OperatorBody {
    /// The token's account.
    account: Arc<str>,
    /// Its tenant.
    tenant: Arc<str>,
    /// Its scopes.
    scopes: Vec<&'static str>,
    /// When it expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
}

/// Who calls: what the token says, once it is believed.
#[utoipa::path(
    get,
    path = "/v1/admin/operator",
    tag = "node",
    responses((status = 200, description = "Whose token it is", body = OperatorBody)),
    security(("bearer" = []))
)]
pub(super) async fn operator(Extension(Operator(claims)): Extension<Operator>) -> Json<OperatorBody> {
    let scopes = Scope::ALL.into_iter().filter(|scope| claims.scopes.has(*scope));
    Json(OperatorBody {
        account: Arc::clone(&claims.account),
        tenant: Arc::clone(&claims.tenant),
        scopes: scopes.map(Scope::word).collect(),
        expires_at: humantime::format_rfc3339_seconds(claims.expires_at).to_string(),
    })
}

/// Lets operators, admins and support staff in, and records what they do.
pub(super) async fn require_operator(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let verified = async {
        let token = from_request(&parts, false)?.ok_or(Rejected::Missing)?;
        admin.api.verifier.verify(token.expose()).await
    };
    let claims = match verified.await {
        Ok(claims) => Arc::new(claims),
        Err(rejected) => {
            admin.api.metrics.tokens_rejected_total.inc(rejected.reason());
            return ApiError::from(rejected).into_response();
        }
    };
    // Not recorded: it operates nothing, and must not be able to push what others did out of the trail.
    if !SCOPES.iter().any(|scope| claims.scopes.has(*scope)) {
        return scope_forbidden().into_response();
    }
    let is_look = parts.method.is_safe();
    let mut call = Call::of(&mut parts, &claims).await;
    parts.extensions.insert(Operator(claims));
    let response = next.run(Request::from_parts(parts, body)).await;
    call.close(&response);
    if !(is_look && response.status().is_success() && admin.looks.is_repeated(&call.0)) {
        admin.api.record(&call.0).await;
    }
    response
}

impl Api {
    /// Puts a call into the audit trail, or says aloud that it is not there.
    pub(crate) async fn record(&self, call: &Value) {
        if let Err(problem) = self.trail.append(call.to_string()).await {
            self.metrics.trail_failures_total.inc();
            tracing::error!(problem, %call, "an operator's call is not in the audit trail");
        }
    }
}

/// For what concerns the node and all tenants.
pub(super) async fn require_node_operator(request: Request, next: Next) -> Response {
    let operator = request.extensions().get::<Operator>();
    if operator.is_some_and(|operator| operator.0.scopes.has(Scope::Operator)) {
        return next.run(request).await;
    }
    scope_forbidden().into_response()
}

fn scope_forbidden() -> ApiError {
    ApiError::forbidden("scope_forbidden", "the token's scope does not allow this")
}

/// A line of the trail: who, when, what, from where, and what came of it.
struct Call(Value);

impl Call {
    async fn of(parts: &mut Parts, claims: &Claims) -> Self {
        let context = parts.extensions.get::<Context>().copied();
        let route = parts.extensions.get::<MatchedPath>().cloned();
        let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
        let named = RawPathParams::from_request_parts(parts, &()).await.ok();
        let in_path = |name: &str| {
            let mut named = named.iter().flat_map(|named| named.iter());
            named
                .find(|(one, _)| *one == name)
                .map(|(_, value)| value.to_owned())
        };
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let in_query = |name: &str| {
            let mut pairs = form_urlencoded::parse(query);
            pairs
                .find(|(one, _)| *one == *name)
                .map(|(_, value)| value.into_owned())
        };
        Self(json!({
            "at": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            "who": claims.account,
            "who_tenant": claims.tenant,
            "scope": claims.scopes.to_string(),
            "from": context.map(|context| context.client.to_string()),
            "action": action(&parts.method, route),
            "route": format!("{} {route}", parts.method),
            "tenant": in_query("tenant").unwrap_or_else(|| claims.tenant.to_string()),
            "account": in_path("account").or_else(|| in_query("account")),
            "session": in_path("session"),
            "device": in_query("device"),
            "request_id": context.map(|context| context.id.to_string()),
        }))
    }

    fn close(&mut self, response: &Response) {
        let error = response.extensions().get::<ApiError>();
        self.0["status"] = error
            .map_or(response.status(), |error| error.status)
            .as_u16()
            .into();
        self.0["error"] = error.map(|error| error.code).into();
        let outcome = response.extensions().get::<Outcome>();
        self.0["outcome"] = outcome.map(|outcome| outcome.0.clone()).into();
    }
}

/// The name of what was asked for.
fn action(method: &Method, route: &str) -> &'static str {
    let path = route.strip_prefix("/v1/admin").unwrap_or(route);
    match (method.as_str(), path) {
        ("GET" | "HEAD", "/sessions" | "/accounts/{account}/sessions") => "sessions.list",
        ("DELETE", "/accounts/{account}/sessions" | "/accounts/{account}/sessions/{session}") => {
            "sessions.end"
        }
        ("GET" | "HEAD", "/accounts/{account}") => "account.show",
        ("POST", "/accounts/{account}/block") => "account.block",
        ("POST", "/accounts/{account}/unblock") => "account.unblock",
        ("PUT", "/accounts/{account}/limit") => "account.limit",
        ("GET" | "HEAD", "/log") => "log.show",
        ("PUT", "/log") => "log.set",
        ("GET" | "HEAD", "/nodes") => "nodes.list",
        ("GET" | "HEAD", "/operator") => "operator.show",
        ("GET" | "HEAD", "/trail") => "trail.list",
        ("GET" | "HEAD", "/webhooks") => "webhooks.list",
        ("DELETE", "/accounts/{account}/messages/{id}") => "message.remove",
        ("GET" | "HEAD", "/messages/reports") => "reports.list",
        ("POST", "/messages/reports/{report}/close") => "report.close",
        ("GET" | "HEAD", "/v1/plays") => "plays.list",
        ("GET" | "HEAD", "/v1/reports/concurrency") => "concurrency.show",
        ("GET" | "HEAD", "/v1/reports/royalties") => "royalties.show",
        ("GET" | "HEAD", "/v1/reports/usage") => "usage.show",
        ("GET" | "HEAD", "/v1/files/stats") => "files.stats",
        ("GET" | "HEAD", "/v1/files/accesses") => "files.list",
        _ => "unknown",
    }
}

/// An answer whose body is also in the trail.
pub(super) fn told(body: Value) -> Response {
    let mut response = Json(&body).into_response();
    response.extensions_mut().insert(Outcome(body));
    response
}

/// An answer without a body.
#[must_use]
pub fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
