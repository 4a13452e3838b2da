//! Who makes a request: its token, the row behind it, and what they allow.
//!
//! Owns: that a token whose sign-in is over is refused here before it runs out. Does not: verify signatures (`auth` does).

use http::request::Parts;

use super::person::Person;
use super::{Accounts, nobody, people};
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::auth::{Claims, Scope};
use crate::protocol::id::AccountKey;

/// What stands for the caller's own id in a path.
const ME: &str = "me";

/// Whoever makes a request.
pub(super) struct Caller {
    pub(super) claims: Claims,
    /// Its row; none: the token is of another issuer, or of a command.
    pub(super) person: Option<Person>,
}

impl Accounts {
    /// The bearer of the request's token.
    ///
    /// # Errors
    /// 401 without a good token, or with one of a sign-in that is over; 503 while the database is away.
    pub(super) async fn caller(&self, parts: &Parts, context: &Context) -> Result<Caller, ApiError> {
        self.api.check_origin(parts)?;
        let mut claims = self.api.authenticate(parts, context).await?;
        let sign_in = claims.sign_in.as_deref();
        let asked = sign_in.unwrap_or_default();
        let (tenant, account) = (plain(&claims.tenant), plain(&claims.account));
        let found = people::of_token(self.api.db()?, tenant, account, plain(asked)).await?;
        let stands = match (&found, sign_in) {
            (Some((_, present)), Some(_)) => *present,
            (Some((person, _)), None) => !person.outlived(&claims),
            // The account was removed.
            (None, Some(_)) => false,
            (None, None) => true,
        };
        if !stands {
            return Err(ApiError::unauthorized());
        }
        if let (Some((person, _)), Some(_)) = (&found, sign_in) {
            // What an admin took away counts here at once.
            claims.scopes = claims.scopes.within(person.all_scopes());
        }
        Ok(Caller {
            claims,
            person: found.map(|(person, _)| person),
        })
    }

    /// The person that a path names, who is the caller's own when `me` or its id stands there.
    ///
    /// # Errors
    /// 404 when there is none in the caller's tenant.
    pub(super) async fn named(&self, caller: &Caller, id: &str) -> Result<Person, ApiError> {
        if caller.is_named(id) {
            return caller.person.clone().ok_or_else(nobody);
        }
        let found = people::by_id(self.api.db()?, plain(&caller.claims.tenant), plain(id)).await?;
        found.ok_or_else(nobody)
    }
}

/// What PostgreSQL cannot be asked for is nobody's.
fn plain(text: &str) -> &str {
    if text.contains('\0') { "" } else { text }
}

impl Caller {
    /// Whether a path's segment means the caller.
    pub(super) fn is_named(&self, id: &str) -> bool {
        id == ME || *id == *self.claims.account
    }

    /// Whether it may do everything with the tenant's people.
    pub(super) fn is_admin(&self) -> bool {
        let scopes = self.claims.scopes;
        scopes.has(Scope::Admin) || scopes.has(Scope::Operator)
    }

    /// Whether it may see the tenant's people.
    pub(super) fn is_staff(&self) -> bool {
        self.is_admin() || self.claims.scopes.has(Scope::Support)
    }

    /// Whether it may change a person that it is not: support staff helps viewers, and not those who have power.
    pub(super) fn may_help(&self, person: &Person) -> bool {
        self.is_admin() || self.is_staff() && !person.is_privileged()
    }

    /// Its own row.
    ///
    /// # Errors
    /// 404 for a token of another issuer.
    pub(super) fn own(&self) -> Result<&Person, ApiError> {
        self.person.as_ref().ok_or_else(nobody)
    }
}

/// 403 for what the caller's scope does not allow.
pub(super) fn forbidden() -> ApiError {
    ApiError::forbidden("scope_forbidden", "the token's scope does not allow this")
}

impl Person {
    /// The account of this person.
    pub(super) fn account(&self) -> AccountKey {
        AccountKey::new(&self.tenant, &self.id)
    }
}
