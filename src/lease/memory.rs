//! The store of a single node: the pure rules over a map in this process.
//!
//! A session is a connection, so a restart, which ends every connection, loses no slot (design section 4).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use dashmap::DashMap;
use tokio::time::Instant;

use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, SessionId};

use super::account::{Account, Look};
use super::model::{Acquire, Acquired, Entry, Fence, Fenced, Held, Millis, Resume, Resumed};
use super::store::{Mailbox, Store, StoreError};

/// Slots in memory.
pub struct Memory {
    accounts: DashMap<AccountKey, Account>,
    mailbox: Arc<dyn Mailbox>,
    /// The wall clock at the start, moved on by the monotonic clock: it never jumps.
    started: (SystemTime, Instant),
}

impl Memory {
    /// An empty store that sends word to `mailbox`.
    #[must_use]
    pub fn new(mailbox: Arc<dyn Mailbox>) -> Self {
        Self {
            accounts: DashMap::new(),
            mailbox,
            started: (SystemTime::now(), Instant::now()),
        }
    }

    fn clock(&self) -> Millis {
        let now = self.started.0 + self.started.1.elapsed();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    }

    /// Runs one step of the rules on an account. Word goes out under the account's lock, so that two changes are
    /// told in their order.
    fn step<T>(&self, key: &AccountKey, rule: impl FnOnce(&mut Account, Millis, &mut Vec<Look>) -> T) -> T {
        let mut looks = Vec::new();
        let now = self.clock();
        let mut account = self.accounts.entry(key.clone()).or_default();
        let before = account.entries().len();
        let answer = rule(&mut account, now, &mut looks);
        for look in looks {
            self.mailbox.look(key, look.owner, look.session);
        }
        let used = account.entries().len();
        if used != before {
            self.mailbox.slots(key, u32::try_from(used).unwrap_or(u32::MAX));
        }
        let empty = account.is_empty();
        drop(account);
        if empty {
            self.accounts.remove_if(key, |_, account| account.is_empty());
        }
        answer
    }
}

#[async_trait]
impl Store for Memory {
    async fn acquire(&self, account: &AccountKey, request: &Acquire) -> Result<Acquired, StoreError> {
        Ok(self.step(account, |state, now, looks| state.acquire(request, now, looks)))
    }

    async fn resume(&self, account: &AccountKey, request: &Resume) -> Result<Resumed, StoreError> {
        Ok(self.step(account, |state, now, looks| state.resume(request, now, looks)))
    }

    async fn release(&self, account: &AccountKey, fence: Fence, code: EndCode) -> Result<Fenced, StoreError> {
        Ok(self.step(account, |state, now, looks| {
            state.release(fence, code, now, looks)
        }))
    }

    async fn mark(
        &self,
        account: &AccountKey,
        session: SessionId,
        code: EndCode,
    ) -> Result<Fenced, StoreError> {
        Ok(self.step(account, |state, _, looks| state.mark(session, code, looks)))
    }

    async fn refuse(&self, account: &AccountKey, fence: Fence) -> Result<Fenced, StoreError> {
        Ok(self.step(account, |state, _, looks| state.refuse(fence, looks)))
    }

    async fn update(
        &self,
        account: &AccountKey,
        fence: Fence,
        content: Option<&Arc<str>>,
        play_state: Option<PlayState>,
    ) -> Result<Fenced, StoreError> {
        Ok(self.step(account, |state, _, _| state.update(fence, content, play_state)))
    }

    async fn inspect(&self, account: &AccountKey, fence: Fence) -> Result<Held, StoreError> {
        Ok(self
            .accounts
            .get(account)
            .map_or(Held::Gone(None), |state| state.inspect(fence)))
    }

    async fn list(&self, account: &AccountKey) -> Result<Vec<Entry>, StoreError> {
        Ok(self
            .accounts
            .get(account)
            .map(|state| state.entries().to_vec())
            .unwrap_or_default())
    }

    async fn accounts(&self, most: usize) -> Result<Vec<AccountKey>, StoreError> {
        let playing = self
            .accounts
            .iter()
            .filter(|account| !account.entries().is_empty());
        Ok(playing.take(most).map(|account| account.key().clone()).collect())
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let now = self.clock();
        let due = |account: &Account| account.needs_upkeep(now);
        let keys: Vec<_> = self
            .accounts
            .iter()
            .filter(|a| due(a))
            .map(|a| a.key().clone())
            .collect();
        for key in keys {
            self.step(&key, Account::expire);
        }
        Ok(())
    }

    async fn now(&self) -> Result<Millis, StoreError> {
        Ok(self.clock())
    }
}
