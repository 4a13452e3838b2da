//! What changes while sessions play: what they play, and the limits that they play under.

use crate::config::Admit;
use crate::protocol::id::AccountKey;

use super::model::{Switch, Switched};
use super::service::Service;
use super::store::StoreError;

impl Service {
    /// Moves a session to another content. Where the store is away and a node may decide, it may: what plays goes on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nobody can tell.
    pub async fn switch(&self, account: &AccountKey, request: &Switch) -> Result<Switched, StoreError> {
        let answer = self.ask(account, || self.store.switch(account, request)).await;
        let local = !self.outage.strict && self.outage.admit == Admit::Local;
        match answer {
            Err(StoreError::Unavailable) if local => Ok(Switched::Done),
            answer => answer,
        }
    }

    /// Whether other nodes share the store: it compares all sessions once a minute then.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// Compares the sessions of the account's bucket with the store at the next renewal: what one counts in has changed.
    pub fn audit_soon(&self, account: &AccountKey) {
        self.state(account).tenure().surprised();
    }
}
