//! The store interface: one arbiter of slots, in this process or in Redis, with one contract test suite for both.

use async_trait::async_trait;

use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId, SessionId};

use super::model::{
    Acquire, Acquired, Beaten, Decided, Decision, Entry, Fence, Fenced, Generation, Heartbeat, Held, Holding,
    Millis, NotNow, Order, Renewed, Resume, Resumed, Standing, Switch, Switched,
};

/// Why a store did not answer. It says nothing about slots: an error is never absence (rule 25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not reachable or too slow: unknown whether it was done; repeat the same request.
    #[error("the store does not answer")]
    Unavailable,
    /// It answered that it cannot decide yet: nothing was done.
    #[error("the store cannot decide yet")]
    NotNow(NotNow),
    /// Its data were written for so many buckets, another number than this node's, which must not use them.
    #[error("the store's data are those of {0} buckets")]
    Foreign(u16),
}

impl From<NotNow> for StoreError {
    fn from(reason: NotNow) -> Self {
        Self::NotNow(reason)
    }
}

/// The answer to an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The life of the bucket's data; what is held is confirmed in it.
    pub generation: Generation,
    /// What became of each session, in the order of the question.
    pub verdicts: Vec<Held>,
}

/// A node's lease in a bucket, by the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLease {
    /// The node.
    pub owner: OwnerId,
    /// How long ago it renewed.
    pub age: Millis,
    /// How long the lease still lives; 0: it is over, and what is held under it is not purged yet.
    pub remaining: Millis,
}

impl NodeLease {
    /// A lease of `owner` that was renewed then and ends then.
    #[must_use]
    pub fn new(owner: OwnerId, now: Millis, renewed: Millis, until: Millis) -> Self {
        Self {
            owner,
            age: now.saturating_sub(renewed),
            remaining: until.saturating_sub(now),
        }
    }
}

/// The arbiter of slots. Every operation is atomic for its account, may be repeated, and takes its time from the
/// store's own clock. Whoever must look at a session again is told through the [`Mailbox`] given at construction.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whether other nodes share it, and it can be away.
    fn is_shared(&self) -> bool;
    /// Buckets of accounts; fixed for an installation.
    fn buckets(&self) -> u16;
    /// Renews a node's lease in a bucket.
    async fn renew(&self, bucket: u16, owner: OwnerId) -> Result<Renewed, StoreError>;
    /// Starts a session, or repeats the question of a waiter.
    async fn acquire(&self, account: &AccountKey, request: &Acquire) -> Result<Acquired, StoreError>;
    /// Moves a session to another socket.
    async fn resume(&self, account: &AccountKey, request: &Resume) -> Result<Resumed, StoreError>;
    /// Moves a session to another content and its groups, or tells which rule has no place for it there.
    async fn switch(&self, account: &AccountKey, request: &Switch) -> Result<Switched, StoreError>;
    /// Ends a session or a wait.
    async fn release(
        &self,
        account: &AccountKey,
        holding: &Holding,
        code: EndCode,
    ) -> Result<Fenced, StoreError>;
    /// Gives an order about a session.
    async fn order(&self, account: &AccountKey, order: Order) -> Result<Fenced, StoreError>;
    /// Takes an operator's decision about an account.
    async fn decide(&self, account: &AccountKey, decision: Decision) -> Result<Decided, StoreError>;
    /// What operators decided about an account.
    async fn standing(&self, account: &AccountKey) -> Result<Standing, StoreError>;
    /// Compares a node's sessions of one bucket, a hundred at most, with the store, and checkpoints them.
    async fn audit(
        &self,
        bucket: u16,
        owner: OwnerId,
        sessions: &[(AccountKey, Holding)],
    ) -> Result<Audited, StoreError>;
    /// Heartbeats of sessions without a socket, of one bucket and a hundred at most. What became of each, in the order of
    /// the question.
    async fn beat(&self, bucket: u16, beats: &[(AccountKey, Heartbeat)]) -> Result<Vec<Beaten>, StoreError>;
    /// What a bucket holds for a node in its present generation, at most a hundred sessions after this one in the
    /// store's order: the other direction of an audit.
    async fn owned(
        &self,
        bucket: u16,
        owner: OwnerId,
        after: Option<&(AccountKey, SessionId)>,
    ) -> Result<Vec<(AccountKey, Fence)>, StoreError>;
    /// The account's living entries, in the order of their grant; empty for an account never seen.
    async fn list(&self, account: &AccountKey) -> Result<Vec<Entry>, StoreError>;
    /// Whether a session holds its slot, and is not about to lose it by an operator's order.
    async fn lives(&self, account: &AccountKey, session: SessionId) -> Result<bool, StoreError>;
    /// The accounts that have entries, at most `most` of them, for operators.
    async fn accounts(&self, most: usize) -> Result<Vec<AccountKey>, StoreError>;
    /// The nodes' leases in a bucket, for operators.
    async fn leases(&self, bucket: u16) -> Result<Vec<NodeLease>, StoreError>;

    /// Waits for word that a bucket's data were lost and are being put together again. It may get lost.
    async fn alarm(&self) {
        std::future::pending::<()>().await;
    }

    /// The bucket of an account.
    fn bucket(&self, account: &AccountKey) -> u16 {
        bucket_of(account, self.buckets())
    }
}

/// The bucket of an account among so many: FNV-1a over tenant, a zero byte and account. Every node of every version
/// must compute the same.
#[must_use]
pub fn bucket_of(account: &AccountKey, buckets: u16) -> u16 {
    let bytes = account.tenant.bytes().chain([0]).chain(account.account.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The upper half, because the lower bits of this hash mix the last bytes little.
    let bucket = (hash >> 32) % u64::from(buckets.max(1));
    u16::try_from(bucket).unwrap_or_default()
}

/// Where a store sends word. Delivered in the order of the changes of an account; must not block or call the store.
pub trait Mailbox: Send + Sync + 'static {
    /// Look at this session again. It carries no truth (rule 29).
    fn look(&self, account: &AccountKey, owner: OwnerId, session: SessionId);
    /// The account has this many slots taken now.
    fn slots(&self, account: &AccountKey, used: u32);
    /// Operators blocked the account; whether they still do the store knows.
    fn blocked(&self, _account: &AccountKey) {}
}
