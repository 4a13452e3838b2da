//! What the lease must know of the sessions on this node, and tell them.

use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, SessionId};

use super::blocked::Blocked;
use super::model::{Acquired, Beaten, Fence, Generation, Heartbeat, Holding};
use super::store::Mailbox;

/// The sessions of this node, which whoever holds the sockets keeps. Nothing here may block or call the store.
pub trait Locals: Mailbox {
    /// What the node holds in a bucket.
    fn holdings(&self, bucket: u16) -> Vec<(AccountKey, Holding)>;
    /// Whether the node has this session, also one that is only starting or ending.
    fn knows(&self, account: &AccountKey, session: SessionId) -> bool;
    /// Whether the node holds a slot for this session, which it does not leave.
    fn holds(&self, account: &AccountKey, session: SessionId) -> bool;
    /// Accounts that were blocked when this node last heard of them.
    fn heard_blocked(&self) -> &Blocked;
    /// The highest epoch under which the node holds this session; 0 when it does not.
    fn epoch(&self, account: &AccountKey, session: SessionId) -> u64;
    /// Brings what was read before up to date: what the session plays and counts in may have changed since.
    fn refresh(&self, account: &AccountKey, holding: &mut Holding);
    /// The store confirmed what is held under this fence.
    fn confirm(&self, account: &AccountKey, fence: Fence, generation: Generation);
    /// The store knows nothing of this fence any more: whether the session ends is its socket's question, but it is not
    /// certain from now on.
    fn doubt(&self, account: &AccountKey, fence: Fence);
    /// Takes a slot without the store, against what this node can see; its device's earlier session makes place.
    ///
    /// # Errors
    /// What the player is told when a rule leaves no place.
    fn claim(&self, account: &AccountKey, holding: &Holding) -> Result<u32, Box<Acquired>>;
    /// Moves a session from one socket of this node to another without the store; none when it is not here, or not
    /// this device's.
    fn move_here(
        &self,
        account: &AccountKey,
        session: SessionId,
        device: Option<&str>,
    ) -> Option<(Holding, u32)>;
    /// What the node knows of the sessions without a socket that it heard last, as a question that is no heartbeat.
    fn lone(&self, bucket: u16) -> Vec<(AccountKey, Heartbeat)>;
    /// Those whose time is over by the node's clock, at most so many; each is not due again for a second.
    fn lone_due(&self, bucket: u16, most: usize) -> Vec<(AccountKey, Heartbeat)>;
    /// What the store says of one of them.
    fn lone_compared(&self, account: &AccountKey, session: SessionId, verdict: &Beaten);
    /// Ends every session of a bucket.
    fn end(&self, bucket: u16, code: EndCode);
}
