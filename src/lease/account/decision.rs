//! What operators decide about an account: nobody plays, or so many do, whatever tokens and plans say.

use crate::protocol::close::EndCode;

use super::super::model::{Decided, Decision, Standing};
use super::{Account, Effects, Ground, Look, kick, promised};

impl Account {
    /// What operators decided.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The slots that count, of those that a token and its plan state.
    pub(super) fn limit_of(&self, stated: u32) -> u32 {
        self.standing.limit.unwrap_or(stated)
    }

    /// Takes a decision, and tells whom it ends. Allowed at any time: what a recovery brings back is judged by it.
    pub fn decide(&mut self, decision: Decision, ground: &Ground<'_>, effects: &mut Effects) -> Decided {
        self.expire(ground, effects);
        let mut ended = 0;
        match decision {
            Decision::Block => {
                self.standing.blocked = true;
                while let Some(waiter) = self.line.first() {
                    let (session, owner) = (waiter.session, waiter.owner);
                    effects.looks.push(Look { session, owner });
                    self.leave_line(session, effects);
                }
                for entry in &mut self.entries {
                    kick(entry, EndCode::AccountBlocked, effects);
                    ended += 1;
                }
                self.carry_out(ground, effects);
            }
            Decision::Unblock => self.standing.blocked = false,
            Decision::Limit { limit, enforce } => {
                self.standing.limit = limit;
                if let Some(limit) = limit.filter(|_| enforce) {
                    ended = self.end_surplus(limit, effects);
                }
                self.carry_out(ground, effects);
                // A raised limit too (rule 20).
                self.hand_over(ground, effects);
            }
        }
        Decided {
            standing: self.standing,
            ended,
        }
    }

    /// Ends sessions beyond the limit, the newest first; those that are to end already are not counted.
    fn end_surplus(&mut self, limit: u32, effects: &mut Effects) -> u32 {
        let mut ended = 0;
        loop {
            let staying = self.entries.iter_mut();
            let staying = staying.filter(|entry| !entry.exempt && promised(entry).is_none());
            let mut staying: Vec<_> = staying.collect();
            if staying.len() <= limit as usize {
                return ended;
            }
            // Of several in one millisecond the last in the table, on every store.
            staying.sort_by_key(|entry| entry.started_at);
            if let Some(newest) = staying.pop() {
                kick(newest, EndCode::StreamLimitReached, effects);
                ended += 1;
            }
        }
    }
}
