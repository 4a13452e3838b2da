//! One person's row, and what others see of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::auth::{Claims, Scope, Scopes};
use crate::config::Secret;
use crate::db::DbError;

/// The columns that [`Person::read`] reads.
pub(super) const COLUMNS: &str = "u.id, u.tenant, u.email, u.user_name, u.name, u.picture, u.plan, u.scopes, \
    u.password, u.created_at, u.changed_at, u.tokens_after";

/// Somebody who has an account.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) email: String,
    pub(crate) user_name: Option<String>,
    pub(crate) name: String,
    pub(crate) picture: Option<String>,
    pub(crate) plan: Option<String>,
    /// Without `watch`, which everybody has.
    pub(crate) scopes: Scopes,
    /// As it is stored.
    pub(super) password: Secret,
    pub(crate) created_at: i64,
    pub(crate) changed_at: i64,
    tokens_after: i64,
}

/// What everybody of the tenant sees of a person.
#[derive(Debug, Serialize)]
pub(super) struct Public<'a> {
    id: &'a str,
    name: &'a str,
    picture: Option<&'a str>,
}

/// What a person sees of itself, and admins and support staff of everybody.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct Own<'a> {
    id: &'a str,
    name: &'a str,
    #[schema(required)]
    picture: Option<&'a str>,
    email: &'a str,
    #[schema(required)]
    user_name: Option<&'a str>,
    #[schema(required)]
    plan: Option<&'a str>,
    /// The scopes of its tokens.
    scope: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    #[schema(value_type = String, format = DateTime)]
    changed_at: String,
}

impl Person {
    /// Reads [`COLUMNS`].
    pub(super) fn read(row: &AnyRow) -> Result<Self, DbError> {
        let scopes: String = row.try_get("scopes")?;
        Ok(Self {
            id: row.try_get("id")?,
            tenant: row.try_get("tenant")?,
            email: row.try_get("email")?,
            user_name: row.try_get("user_name")?,
            name: row.try_get("name")?,
            picture: row.try_get("picture")?,
            plan: row.try_get("plan")?,
            scopes: Scopes::of_claim(&scopes),
            password: Secret::from(row.try_get::<String, _>("password")?),
            created_at: row.try_get("created_at")?,
            changed_at: row.try_get("changed_at")?,
            tokens_after: row.try_get("tokens_after")?,
        })
    }

    /// What everybody sees.
    pub(super) fn public(&self) -> Public<'_> {
        Public {
            id: &self.id,
            name: &self.name,
            picture: self.picture.as_deref(),
        }
    }

    /// What the person itself sees.
    pub(crate) fn own(&self) -> Own<'_> {
        Own {
            id: &self.id,
            name: &self.name,
            picture: self.picture.as_deref(),
            email: &self.email,
            user_name: self.user_name.as_deref(),
            plan: self.plan.as_deref(),
            scope: self.all_scopes().to_string(),
            created_at: written(self.created_at),
            changed_at: written(self.changed_at),
        }
    }

    /// The scopes of its tokens.
    pub(crate) fn all_scopes(&self) -> Scopes {
        [Scope::Watch].into_iter().chain(self.scopes.iter()).collect()
    }

    /// Whether it may more than watch.
    pub(super) fn is_privileged(&self) -> bool {
        self.scopes != Scopes::NONE
    }

    /// Whether a token was issued in an earlier second than the last sign-out everywhere; `iat` has whole seconds.
    pub(super) fn outlived(&self, claims: &Claims) -> bool {
        let issued_at = claims.issued_at.unwrap_or(UNIX_EPOCH);
        unix_ms(issued_at) / 1000 < self.tokens_after / 1000
    }
}

/// Now, as rows have it.
pub(super) fn now() -> i64 {
    unix_ms(SystemTime::now())
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds of a duration, as rows have it.
pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A row's time as it is answered (RFC 3339).
pub(crate) fn written(ms: i64) -> String {
    // The last second that RFC 3339 can write.
    const LATEST: u64 = 253_402_300_799_000;
    let ms = u64::try_from(ms).unwrap_or_default().min(LATEST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
