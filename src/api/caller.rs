//! Who makes a request on the players' listener, and for whom: for itself, or as staff for an account of its tenant.
//!
//! Owns: the checks before a route looks at anything else. Does not: verify tokens (`auth` does).
//! Called by: the routes of `api` and of the rooms above.

use std::sync::Arc;

use axum::extract::Request;

use crate::auth::{Claims, Scope, is_tenant};
use crate::protocol::MAX_ID_BYTES;

use super::Api;
use super::error::ApiError;
use super::observe::Context;

/// Scopes whose tokens may act for accounts: a backend's, an operator's.
const STAFF: [Scope; 3] = [Scope::Operator, Scope::Admin, Scope::Support];

impl Api {
    /// The verified token of a request whose origin may call, and the request.
    ///
    /// # Errors
    /// 403 for a foreign origin, 401 for a token, 429 for one that asks too often.
    pub async fn caller(&self, context: &Context, request: Request) -> Result<(Claims, Request), ApiError> {
        let (parts, body) = request.into_parts();
        self.check_origin(&parts)?;
        let claims = self.authenticate(&parts, context).await?;
        Ok((claims, Request::from_parts(parts, body)))
    }

    /// Who makes a request about its own sessions.
    ///
    /// # Errors
    /// As [`Api::caller_with`].
    pub async fn watcher(&self, context: &Context, request: Request) -> Result<(Claims, Request), ApiError> {
        self.caller_with(context, request, &[Scope::Watch]).await
    }

    /// As [`Api::caller`], where one of these scopes is needed.
    ///
    /// # Errors
    /// Also 403 `scope_forbidden`.
    pub async fn caller_with(
        &self,
        context: &Context,
        request: Request,
        scopes: &[Scope],
    ) -> Result<(Claims, Request), ApiError> {
        let (claims, request) = self.caller(context, request).await?;
        if has_any(&claims, scopes) {
            return Ok((claims, request));
        }
        Err(scope_forbidden())
    }
}

/// Whether a token has one of these scopes.
#[must_use]
pub fn has_any(claims: &Claims, scopes: &[Scope]) -> bool {
    scopes.iter().any(|scope| claims.scopes.has(*scope))
}

/// 403: the token is good for other things.
#[must_use]
pub fn scope_forbidden() -> ApiError {
    ApiError::forbidden("scope_forbidden", "the token's scope does not allow this")
}

/// Whether a token may act for accounts of its tenant.
pub(super) fn is_staff(claims: &Claims) -> bool {
    has_any(claims, &STAFF)
}

/// What a token of staff says when it acts for an account: what is said of the person who holds it says nothing of the
/// account.
pub(super) fn on_behalf(staff: Claims, tenant: Arc<str>, account: Arc<str>) -> Claims {
    Claims {
        tenant,
        account,
        device: None,
        profile: None,
        plan: None,
        streams: None,
        roles: Vec::new(),
        scopes: Scope::Watch.into(),
        ..staff
    }
}

/// The tenant to act in: the one that is asked for, else the token's.
///
/// # Errors
/// 400 when it cannot be one, 403 when only the scope `operator` reaches it.
pub fn tenant_of(claims: &Claims, asked: Option<&str>) -> Result<Arc<str>, ApiError> {
    match asked {
        None => Ok(Arc::clone(&claims.tenant)),
        Some(tenant) if !is_tenant(tenant) => {
            Err(ApiError::bad_request("tenant", "no such name of a tenant"))
        }
        Some(tenant) if *tenant == *claims.tenant => Ok(Arc::clone(&claims.tenant)),
        Some(tenant) if claims.scopes.has(Scope::Operator) => Ok(tenant.into()),
        Some(_) => Err(ApiError::forbidden(
            "tenant_forbidden",
            "the token is for another tenant",
        )),
    }
}

/// An account's id.
///
/// # Errors
/// 400 when it cannot be one.
pub(super) fn account_of(text: &str) -> Result<Arc<str>, ApiError> {
    if text.is_empty() || text.len() > MAX_ID_BYTES {
        return Err(ApiError::bad_request(
            "account",
            "an account is a text of 1 to 256 bytes",
        ));
    }
    Ok(text.into())
}
