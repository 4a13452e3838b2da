//! What other rooms know about people, for their export and their leaving.

use async_trait::async_trait;
use serde_json::Value;

use crate::api::error::ApiError;
use crate::protocol::id::AccountKey;

/// A room that stores something about accounts.
#[async_trait]
pub trait Remembered: Send + Sync + 'static {
    /// Its name in an export.
    fn name(&self) -> &'static str;

    /// Everything that it stores about an account.
    ///
    /// # Errors
    /// The database is away.
    async fn export(&self, account: &AccountKey) -> Result<Value, ApiError>;

    /// Forgets the person, and keeps what has to be kept without it. May be repeated.
    ///
    /// # Errors
    /// The database is away.
    async fn forget(&self, account: &AccountKey) -> Result<(), ApiError>;
}
