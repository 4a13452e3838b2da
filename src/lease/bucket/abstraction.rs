//! What the model of the lease needs of a bucket beside its rules: its clock stands still, and these move what is
//! ahead of it into the past, one thing at a time.

use crate::protocol::id::{AccountKey, OwnerId, SessionId};

use super::super::account::Account;
use super::super::model::{Generation, Millis};
use super::{Bucket, GAP_MS, Lease};

impl Bucket {
    /// The life of the data, as far as somebody has asked.
    pub(in crate::lease) fn generation(&self) -> Option<Generation> {
        self.marker.map(|marker| marker.generation)
    }

    /// Whether the bucket recovers, and if so whether it is in the second half.
    pub(in crate::lease) fn recovery(&self, now: Millis) -> Option<bool> {
        let marker = self.marker.filter(|marker| marker.opens > now)?;
        Some(marker.second <= now)
    }

    /// The server's mark, as far as somebody has asked.
    pub(in crate::lease) fn server(&self) -> Option<u64> {
        self.marker.map(|marker| marker.server)
    }

    /// The node's lease.
    pub(in crate::lease) fn lease_mut(&mut self, owner: OwnerId) -> Option<&mut Lease> {
        self.leases.get_mut(&owner)
    }

    /// Nobody has renewed for long.
    pub(in crate::lease) fn begin_gap(&mut self, now: Millis) {
        if let Some(marker) = &mut self.marker {
            marker.beat = now - GAP_MS - 1;
        }
    }

    /// The second half of the recovery begins.
    pub(in crate::lease) fn begin_second(&mut self, now: Millis) {
        if let Some(marker) = &mut self.marker {
            marker.second = now;
        }
    }

    /// The recovery is over.
    pub(in crate::lease) fn end_recovery(&mut self, now: Millis) {
        if let Some(marker) = &mut self.marker {
            marker.second = now;
            marker.opens = now;
        }
    }

    /// An account's table.
    pub(in crate::lease) fn account_mut(&mut self, key: &AccountKey) -> Option<&mut Account> {
        self.accounts.get_mut(key)
    }

    /// The end of a session was long ago.
    pub(in crate::lease) fn forget(&mut self, session: SessionId) {
        for account in self.accounts.values_mut() {
            account.forget(session);
        }
    }

    /// One form for all buckets that have the same future.
    pub(in crate::lease) fn settle(&mut self, began: impl Fn(SessionId) -> Millis) {
        for account in self.accounts.values_mut() {
            account.settle(&began);
        }
        self.accounts.retain(|_, account| !account.is_empty());
    }
}
