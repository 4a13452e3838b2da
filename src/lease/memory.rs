//! The store of a single node: the pure rules over a map in this process.
//!
//! A session is a connection, so a restart, which ends every connection, loses no slot (design section 4).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Without upkeep for this long the process itself stood still: three of its periods (rule 2).
const GAP_MS: Millis = 7_500;

/// Slots in memory.
pub struct Memory {
    accounts: DashMap<AccountKey, Account>,
    mailbox: Arc<dyn Mailbox>,
    /// When the upkeep last ran: a gap means that this process stood still.
    last_upkeep: AtomicU64,
    /// Held while waiters are forgiven a gap, so that nobody judges them meanwhile.
    forgiving: Mutex<()>,
    /// The wall clock at the start, moved on by the monotonic clock: it never jumps.
    started: (SystemTime, Instant),
}

impl Memory {
    /// An empty store that sends word to `mailbox`.
    #[must_use]
    pub fn new(mailbox: Arc<dyn Mailbox>) -> Self {
        let store = Self {
            accounts: DashMap::new(),
            mailbox,
            last_upkeep: AtomicU64::new(0),
            forgiving: Mutex::new(()),
            started: (SystemTime::now(), Instant::now()),
        };
        store.last_upkeep.store(store.clock(), Ordering::Release);
        store
    }

    fn clock(&self) -> Millis {
        let now = self.started.0 + self.started.1.elapsed();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    }

    /// After a gap in the upkeep this process, not its waiters, was silent (rule 2).
    fn mind_gap(&self, now: Millis) {
        if now.saturating_sub(self.last_upkeep.load(Ordering::Acquire)) <= GAP_MS {
            return;
        }
        let _forgiving = self.forgiving.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(self.last_upkeep.load(Ordering::Acquire)) > GAP_MS {
            for mut account in self.accounts.iter_mut() {
                account.forgive(now);
            }
            self.last_upkeep.store(now, Ordering::Release);
        }
    }

    /// Runs one step of the rules on an account. Word goes out under the account's lock, so that two changes are
    /// told in their order.
    fn step<T>(&self, key: &AccountKey, rule: impl FnOnce(&mut Account, Millis, &mut Vec<Look>) -> T) -> T {
        let mut looks = Vec::new();
        let now = self.clock();
        self.mind_gap(now);
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
        self.mind_gap(now);
        self.last_upkeep.store(now, Ordering::Release);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::time::Duration;

    use super::*;
    use crate::lease::model::{Device, Wish};
    use crate::protocol::id::OwnerId;

    struct Nobody;

    impl Mailbox for Nobody {
        fn look(&self, _: &AccountKey, _: OwnerId, _: SessionId) {}
        fn slots(&self, _: &AccountKey, _: u32) {}
    }

    fn start(number: u8) -> Acquire {
        let id = number.to_string().into();
        Acquire {
            session: SessionId::from_bytes([number; 16]),
            owner: OwnerId(1),
            device: Arc::new(Device {
                id,
                name: None,
                class: None,
            }),
            content: "m".into(),
            limit: 1,
            wish: Wish::Wait,
            consent: false,
            line: 10,
        }
    }

    /// A process that stood still for 15 s has kept its waiters from asking: they keep their places.
    #[tokio::test(start_paused = true)]
    async fn a_stall_costs_no_waiter_its_place() {
        let store = Memory::new(Arc::new(Nobody));
        let account = AccountKey::new("main", "a");
        for number in 1..=4 {
            store.acquire(&account, &start(number)).await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        // The last in line wakes first.
        let answer = store.acquire(&account, &start(4)).await.unwrap();
        assert_eq!(
            answer,
            Acquired::Waiting {
                position: 3,
                taking_over: false
            }
        );
        // With the upkeep running, who does not ask for 15 s is gone.
        for _ in 0..7 {
            tokio::time::advance(Duration::from_millis(2_500)).await;
            store.renew().await.unwrap();
            store.acquire(&account, &start(4)).await.unwrap();
        }
        let answer = store.acquire(&account, &start(4)).await.unwrap();
        assert_eq!(
            answer,
            Acquired::Waiting {
                position: 1,
                taking_over: false
            }
        );
    }
}
