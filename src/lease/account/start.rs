//! A start: from a free slot to a take-over.

use std::sync::Arc;

use crate::protocol::close::EndCode;
use crate::protocol::id::SessionId;

use super::super::model::{Acquire, Acquired, Entry, Held, Holding, Mark, NotNow, Progress, Waiter, Wish};
use super::super::rule::{Rule, holds};
use super::places::{Asker, Refusing, may_free};
use super::{Account, Effects, Ground, Look, credit};
use crate::protocol::client::PlayState;

impl Account {
    /// A start, or the poll of a waiter.
    ///
    /// # Errors
    /// The bucket or the asking node must recover first.
    pub fn acquire(
        &mut self,
        request: &Acquire,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Result<Acquired, NotNow> {
        self.expire(ground, effects);
        if let Some(tombstone) = self.tombstone(request.session) {
            let code = tombstone.code;
            self.leave_line(request.session, effects);
            return Ok(Acquired::Ended(code));
        }
        if let Some(entry) = self.entry(request.session) {
            let recovering = ground.phase.recovering();
            let elsewhere = entry.owner != request.owner;
            if recovering && (elsewhere || (ground.old(entry) && holds(Rule::OldProvesNothing))) {
                return Err(ground.recovering());
            }
            if elsewhere {
                return Ok(Acquired::Ended(EndCode::Moved));
            }
            ground.own_lease(request.owner, request.period)?;
            if !ground.dead(entry) || !holds(Rule::OwnLeaseFirst) {
                return Ok(self.granted(request.session, false, Vec::new()));
            }
            // Handed over just before the data were lost: nobody but this node could tell of it, and it did not know.
            let holding = Holding {
                doubtful: true,
                period: request.period,
                ..Holding::of(entry, request.limit, request.terms.clone())
            };
            return Ok(match self.reassert(&holding, ground, effects)? {
                Held::Gone(code) => Acquired::Ended(code.unwrap_or(EndCode::LeaseLost)),
                _ => self.granted(request.session, false, Vec::new()),
            });
        }
        if self.standing.blocked {
            self.leave_line(request.session, effects);
            return Ok(Acquired::Ended(EndCode::AccountBlocked));
        }
        if ground.phase.recovering() {
            return Err(ground.recovering());
        }
        ground.own_lease(request.owner, request.period)?;
        self.purge(ground, effects);
        if let Some(waiter) = self.line.iter_mut().find(|w| w.session == request.session) {
            waiter.refreshed = ground.now;
            waiter.owner = request.owner;
            waiter.limit = request.limit;
            waiter.terms = request.terms.clone();
            waiter.period = request.period;
        }
        let refused = self.take_refusal(request);
        let asker = Asker::from(request);
        let mut shadowed = Vec::new();
        let replaced = self.replace_own(request, ground, effects, &mut shadowed);
        // A fresh start never passes a waiter who could have the slot (rule 20).
        self.hand_over(ground, effects);
        if self.entry(request.session).is_none() && self.has_place(&asker, ground) {
            shadowed = self.shadowed(&asker, ground);
            // Its limit may have risen while it waited: the victim that it asked may keep its slot.
            self.leave_line(request.session, effects);
            self.admit(fresh(request, ground), &request.terms, ground.now, effects);
        }
        if self.entry(request.session).is_some() {
            return Ok(self.granted(request.session, replaced, shadowed));
        }
        if refused {
            let refusing = self.refusing(&asker, ground);
            return Ok(self.denied(&asker, &refusing, true, request.line, ground));
        }
        Ok(self.at_the_limit(request, ground, effects))
    }

    fn granted(&self, session: SessionId, replaced: bool, shadowed: Vec<Box<str>>) -> Acquired {
        let entry = self.entry(session);
        Acquired::Granted {
            used: self.used(),
            replaced,
            generation: entry.map(|entry| entry.generation).unwrap_or_default(),
            started_at: entry.map_or(0, |entry| entry.started_at),
            limit: self.standing.limit,
            shadowed,
        }
    }

    /// Takes a waiter whose victim said no out of the line; true when the asking one is it.
    fn take_refusal(&mut self, request: &Acquire) -> bool {
        let before = self.line.len();
        self.line
            .retain(|waiter| !(waiter.session == request.session && waiter.refused));
        self.line.len() < before
    }

    /// The device's earlier session or wait makes place for the new one: zapping never blocks one's own stream.
    /// True when the slot went over. A group that has no room for the new one leaves the earlier session as it is.
    fn replace_own(
        &mut self,
        request: &Acquire,
        ground: &Ground<'_>,
        effects: &mut Effects,
        shadowed: &mut Vec<Box<str>>,
    ) -> bool {
        let earlier = self
            .line
            .iter()
            .find(|w| w.device.id == request.device.id && w.session != request.session);
        if let Some(Waiter { session, owner, .. }) = earlier.cloned() {
            effects.looks.push(Look { session, owner });
            self.leave_line(session, effects);
            // It had not played: what another life of the data says of its play is not stopped.
            self.bury(session, 0, EndCode::Moved, ground.now);
        }
        // The purge just gave it a slot: it needs no other.
        if self.index(request.session).is_some() {
            return false;
        }
        let earlier = |entry: &Entry| entry.device.id == request.device.id;
        let Some(index) = self.entries.iter().position(earlier) else {
            return false;
        };
        let asker = Asker::from(request);
        // What took no slot has none to give.
        let has_slot = !self.entries[index].exempt || self.has_slot(&asker);
        if !has_slot || !self.has_groups(&asker, ground) {
            return false;
        }
        *shadowed = self.shadowed(&asker, ground);
        if !self.make_way(index, ground, effects) {
            self.hand_over(ground, effects);
            shadowed.clear();
            return false;
        }
        self.line.retain(|waiter| waiter.session != request.session);
        self.admit(fresh(request, ground), &request.terms, ground.now, effects);
        true
    }

    fn at_the_limit(&mut self, request: &Acquire, ground: &Ground<'_>, effects: &mut Effects) -> Acquired {
        let asker = Asker::from(request);
        if let Some(waiter) = self.line.iter().find(|waiter| waiter.session == request.session) {
            let Some(victim) = waiter.victim else {
                return self.waiting(request.session);
            };
            if let Some(entry) = self.entries.iter().find(|entry| entry.session == victim) {
                effects.looks.push(Look {
                    session: victim,
                    owner: entry.owner,
                });
                return self.waiting(request.session);
            }
            // The victim went and the account is still full: its limit was lowered, or the victim replaced
            // itself. Never a second victim (rule 19).
            self.leave_line(request.session, effects);
            let refusing = self.refusing(&asker, ground);
            return self.denied(&asker, &refusing, false, request.line, ground);
        }
        let refusing = self.refusing(&asker, ground);
        let denied = || self.denied(&asker, &refusing, false, request.line, ground);
        match request.wish {
            Wish::Slot => denied(),
            // Who may have no slot at all would wait for ever.
            Wish::Wait
                if (self.limit_of(request.limit) == 0 && !request.terms.exempt)
                    || !may_free(&refusing)
                    || self.line.len() >= request.line as usize =>
            {
                denied()
            }
            Wish::Wait => self.enqueue(request, None, ground.now),
            Wish::Oldest => {
                let unmarked = self.entries.iter().filter(|entry| entry.mark.is_none());
                let unmarked = unmarked.filter(|entry| self.would_help(entry, &asker, &refusing));
                // Of several in one millisecond the first in the table, on every store.
                let oldest = unmarked.min_by_key(|entry| entry.started_at);
                match oldest.map(|entry| entry.session) {
                    Some(victim) => self.take_over(request, victim, &refusing, ground, effects),
                    None => denied(),
                }
            }
            Wish::TakeOver(victim) => self.take_over(request, victim, &refusing, ground, effects),
        }
    }

    fn take_over(
        &mut self,
        request: &Acquire,
        victim: SessionId,
        refusing: &[Refusing<'_>],
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Acquired {
        // A taker that fell out of the line has its victim still (rule 19).
        let marked =
            |entry: &&Entry| matches!(entry.mark, Some(Mark::TakeOver { by, .. }) if by == request.session);
        if let Some(victim) = self.entries.iter().find(marked).map(|entry| entry.session) {
            return self.enqueue(request, Some(victim), ground.now);
        }
        // The end of a session that does not make place would be for nothing; and who has no socket cannot wait for an
        // answer.
        let free_to_mark = |entry: &Entry| {
            let free = entry.session == victim && entry.mark.is_none();
            let answers = request.consent && request.period.is_some() && entry.expires.is_none();
            free && !answers && self.would_help(entry, &Asker::from(request), refusing)
        };
        let Some(index) = self.entries.iter().position(free_to_mark) else {
            return self.denied(&Asker::from(request), refusing, false, request.line, ground);
        };
        let entry = &mut self.entries[index];
        // A viewer without a socket cannot be asked.
        let timed = entry.expires.is_some();
        entry.mark = Some(Mark::TakeOver {
            by: request.session,
            device: Arc::clone(&request.device),
            asked: request.consent && !timed,
        });
        if timed {
            return self.take_at_once(request, index, ground, effects);
        }
        effects.looks.push(Look {
            session: victim,
            owner: entry.owner,
        });
        self.enqueue(request, Some(victim), ground.now)
    }
}

impl Account {
    /// The slot of a session without a socket is free at once, and the taker's.
    fn take_at_once(
        &mut self,
        request: &Acquire,
        index: usize,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Acquired {
        let mut entry = self.entries.remove(index);
        let asker = Asker::from(request);
        if !self.has_place(&asker, ground) {
            // The limit was lowered: one end is not enough.
            entry.mark = None;
            self.entries.insert(index, entry);
            let refusing = self.refusing(&asker, ground);
            return self.denied(&asker, &refusing, false, request.line, ground);
        }
        credit(&mut entry, ground);
        self.end(entry, EndCode::Displaced, ground.now, ground.now, effects);
        let shadowed = self.shadowed(&asker, ground);
        self.admit(fresh(request, ground), &request.terms, ground.now, effects);
        self.granted(request.session, false, shadowed)
    }
}

/// The entry of a granted start.
fn fresh(request: &Acquire, ground: &Ground<'_>) -> Entry {
    Entry {
        session: request.session,
        owner: request.owner,
        epoch: 1,
        generation: ground.generation,
        device: Arc::clone(&request.device),
        content: Arc::clone(&request.content),
        state: PlayState::default(),
        started_at: ground.now,
        progress: Progress::default(),
        checkpoint: ground.now,
        attempt: None,
        settles: 0,
        mark: None,
        groups: request.terms.keys(),
        exempt: request.terms.exempt,
        expires: request.period.map(|period| ground.now + period),
    }
}
