//! Accounts that this node heard to be blocked: their starts are refused before the upgrade, without a question to the
//! store for all the others.
//!
//! It carries no truth (rule 29): who is in it is asked about before it is refused, and who is not is refused by the
//! store's answer to its start.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::protocol::id::AccountKey;

/// Most accounts that are remembered; beyond it any one is forgotten.
const MOST: usize = 10_000;

/// Accounts that may be blocked.
#[derive(Debug, Default)]
pub struct Blocked(RwLock<HashSet<AccountKey>>);

impl Blocked {
    /// Remembers an account.
    pub fn add(&self, account: &AccountKey) {
        let mut accounts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= MOST {
            let any = accounts.iter().next().cloned();
            any.map(|any| accounts.remove(&any));
        }
        accounts.insert(account.clone());
    }

    /// Forgets an account.
    pub fn remove(&self, account: &AccountKey) {
        let mut accounts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        accounts.remove(account);
    }

    /// Whether the account may be blocked.
    #[must_use]
    pub fn has(&self, account: &AccountKey) -> bool {
        self.read().contains(account)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashSet<AccountKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_remembered_than_fit() {
        let blocked = Blocked::default();
        let key = |n: usize| AccountKey::new("main", &n.to_string());
        (0..MOST + 100).for_each(|n| blocked.add(&key(n)));
        assert_eq!(blocked.read().len(), MOST);
        assert!(blocked.has(&key(MOST + 99)), "the latest is");
        blocked.remove(&key(MOST + 99));
        assert!(!blocked.has(&key(MOST + 99)));
    }
}
