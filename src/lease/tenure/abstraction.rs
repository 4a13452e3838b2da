//! What the model of the lease needs of a tenure beside its rules: the node's clock stands still, and these move
//! what was just now into the past.

use super::super::model::Millis;
use super::{Tenure, Tick};

impl Tenure {
    /// The lease has run out by the node's clock, whether or not the node has looked at it.
    pub(in crate::lease) fn run_out(&mut self) {
        self.sent = None;
        self.pending = self.pending.map(|_| Tick::ZERO);
    }

    /// Whether the last renewal counts only after an audit.
    pub(in crate::lease) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The last audit of every session was a minute ago.
    pub(in crate::lease) fn grow_old(&mut self) {
        self.audited = None;
    }

    /// The beginning of the lease that the store last told.
    pub(in crate::lease) fn since_mut(&mut self) -> &mut Millis {
        &mut self.since
    }

    /// One form for all tenures that have the same future.
    pub(in crate::lease) fn settle(&mut self) {
        self.sent = self.sent.filter(|sent| *sent != Tick::ZERO);
    }
}
