//! What the model of the lease needs of an account beside its rules: time that it can bend, and one form for all
//! tables that have the same future.

use crate::protocol::close::EndCode;
use crate::protocol::id::SessionId;

use super::super::model::Millis;
use super::Account;

impl Account {
    /// Gives each session the time at which the model says that it began, and makes equal what no rule looks at: the order of entries and tombstones, and how an end came about,
    /// but whether
    /// its player, somebody else, or nobody asked for it.
    pub(in crate::lease) fn settle(&mut self, began: impl Fn(SessionId) -> Millis) {
        for entry in &mut self.entries {
            entry.started_at = began(entry.session);
        }
        self.entries.sort_by_key(|entry| entry.session);
        self.tombstones.sort_by_key(|tombstone| tombstone.session);
        for tombstone in &mut self.tombstones {
            let lost = matches!(tombstone.code, EndCode::LeaseLost | EndCode::StreamLimitReached);
            tombstone.code = match tombstone.code {
                _ if lost => EndCode::LeaseLost,
                EndCode::Stopped => EndCode::Stopped,
                _ => EndCode::EndedByOperator,
            };
        }
    }

    /// Whether the end of a session is remembered.
    pub(in crate::lease) fn is_buried(&self, session: SessionId) -> bool {
        self.tombstone(session).is_some()
    }

    /// The end of a session was long ago.
    pub(in crate::lease) fn forget(&mut self, session: SessionId) {
        self.tombstones.retain(|tombstone| tombstone.session != session);
    }

    /// A waiter has not asked for long.
    pub(in crate::lease) fn neglect(&mut self, session: SessionId) {
        for waiter in self.line.iter_mut().filter(|waiter| waiter.session == session) {
            waiter.refreshed = 0;
        }
    }
}
