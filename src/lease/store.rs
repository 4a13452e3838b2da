//! The store interface: one arbiter of slots, in this process or in Redis, with one contract test suite for both.

use std::sync::Arc;

use async_trait::async_trait;

use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId, SessionId};

use super::model::{Acquire, Acquired, Entry, Fence, Fenced, Held, Millis, Resume, Resumed};

/// Why a store did not answer. It says nothing about slots: an error is never absence (rule 25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not reachable or too slow: unknown whether it was done; repeat the same request.
    #[error("the store does not answer")]
    Unavailable,
}

/// The arbiter of slots. Every operation is atomic for its account, may be repeated, and takes its time from the
/// store's own clock. Whoever must look at a session again is told through the [`Mailbox`] given at construction.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Starts a session, or repeats the question of a waiter.
    async fn acquire(&self, account: &AccountKey, request: &Acquire) -> Result<Acquired, StoreError>;
    /// Moves a session to another socket.
    async fn resume(&self, account: &AccountKey, request: &Resume) -> Result<Resumed, StoreError>;
    /// Ends a session or a wait.
    async fn release(&self, account: &AccountKey, fence: Fence, code: EndCode) -> Result<Fenced, StoreError>;
    /// Marks a session to be ended by its owner.
    async fn mark(
        &self,
        account: &AccountKey,
        session: SessionId,
        code: EndCode,
    ) -> Result<Fenced, StoreError>;
    /// Says no to a take-over that asked.
    async fn refuse(&self, account: &AccountKey, fence: Fence) -> Result<Fenced, StoreError>;
    /// Changes what a session plays, or how.
    async fn update(
        &self,
        account: &AccountKey,
        fence: Fence,
        content: Option<&Arc<str>>,
        state: Option<PlayState>,
    ) -> Result<Fenced, StoreError>;
    /// Tells what became of a session.
    async fn inspect(&self, account: &AccountKey, fence: Fence) -> Result<Held, StoreError>;
    /// The account's entries, in the order of their grant; empty for an account never seen.
    async fn list(&self, account: &AccountKey) -> Result<Vec<Entry>, StoreError>;
    /// The accounts that have entries, at most `most` of them, for operators.
    async fn accounts(&self, most: usize) -> Result<Vec<AccountKey>, StoreError>;
    /// The periodic upkeep of this process's lease: drops what time has ended.
    async fn renew(&self) -> Result<(), StoreError>;
    /// The store's clock.
    async fn now(&self) -> Result<Millis, StoreError>;
}

/// Where a store sends word. Delivered in the order of the changes of an account; must not block or call the store.
pub trait Mailbox: Send + Sync + 'static {
    /// Look at this session again. It carries no truth (rule 29).
    fn look(&self, account: &AccountKey, owner: OwnerId, session: SessionId);
    /// The account has this many slots taken now.
    fn slots(&self, account: &AccountKey, used: u32);
}
