//! The slots of one account: state, event, ground -> state, effects. Pure, so that the memory store, the property
//! tests and the model run the very same rules, and the Lua scripts are held against them.
//!
//! Rule numbers are those of the lease rules; invariants those of the design (I1 limit, I2 no false refusal,
//! I4 fencing).
//!
//! Over 400 lines: what every rule of an account needs of it stays in one place; starts, the line and audits have their own.

#[cfg(test)]
mod abstraction;
mod audit;
mod beat;
mod decision;
mod line;
mod places;
#[cfg(test)]
mod properties;
mod start;
mod switch;

use std::sync::Arc;

use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{OwnerId, SessionId};

use super::bucket::Leases;
use super::model::{
    Device, EPOCH_FOREVER, Entry, Fenced, Generation, Holding, Mark, Millis, NotNow, Order, Phase, Resume,
    Resumed, Standing, Waiter,
};
use super::rule::{Rule, holds};
use places::{Asker, Remembered};

/// A waiter that has not asked for this long is skipped (rule 17: it asks every 2-5 s).
pub const WAITER_STALE_MS: Millis = 15_000;

/// How long an ended session is remembered, so that nothing late brings it back (rule 11).
pub const TOMBSTONE_MS: Millis = 60_000;

/// How long one that was not certain of its slot may lose it to an older one: until every node that was without the
/// store has told what it holds, two renewals.
pub const SETTLE_MS: Millis = 5_000;

/// Tombstones kept of one account; the oldest go first.
const MAX_TOMBSTONES: usize = 1_000;

/// An account's table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Account {
    entries: Vec<Entry>,
    line: Vec<Waiter>,
    tombstones: Vec<Tombstone>,
    standing: Standing,
    /// Values of rules that outlive a play.
    remembered: Vec<Remembered>,
}

/// An ended session (rule 8).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tombstone {
    session: SessionId,
    /// It stops epochs up to this one.
    epoch: u64,
    code: EndCode,
    until: Millis,
    /// Who took the slot over of a session that nobody could tell.
    by: Option<Arc<Device>>,
}

/// What the rules must know of the bucket that the account lies in.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// The store's clock.
    pub now: Millis,
    /// The life of the bucket's data.
    pub generation: Generation,
    /// Where the bucket stands.
    pub phase: Phase,
    /// The nodes' leases in the bucket.
    pub leases: &'a Leases,
}

/// What a step does beside changing the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Who must look again.
    pub looks: Vec<Look>,
    /// What is to be recorded.
    pub facts: Vec<Fact>,
}

/// Who must be told to look again. It carries no truth (rule 29): whoever is told asks the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The session that changed.
    pub session: SessionId,
    /// The process that holds its socket.
    pub owner: OwnerId,
}

/// A fact about a play, for the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A slot was taken.
    Started(Entry),
    /// It was freed.
    Ended {
        /// The session as it was, with its last known progress.
        entry: Entry,
        /// Why.
        code: EndCode,
        /// When; for a session that was purged, when its node last renewed.
        at: Millis,
    },
}

impl Ground<'_> {
    /// Whether the owner's lease in the bucket is live.
    #[must_use]
    pub fn live(&self, owner: OwnerId) -> bool {
        self.leases
            .get(&owner)
            .is_some_and(|lease| lease.until > self.now)
    }

    /// Whether an entry may be dropped by whoever comes across it: its owner is dead, or nobody re-asserted it
    /// before the bucket opened. Nothing may while the bucket recovers.
    fn dead(&self, entry: &Entry) -> bool {
        if self.phase.recovering() && holds(Rule::NoPurgeInRecovery) {
            return false;
        }
        let unproven = entry.generation != self.generation && !self.phase.recovering();
        self.lapsed(entry) || (unproven && holds(Rule::UnprovenPurged))
    }

    /// Whether nothing holds an entry any more: neither its owner's lease nor a time of its own.
    fn lapsed(&self, entry: &Entry) -> bool {
        entry.is_over(self.now) || (entry.expires.is_none() && !self.live(entry.owner))
    }

    /// Whether an entry proves nothing because it is of an older life of the data (rule 3).
    fn old(&self, entry: &Entry) -> bool {
        entry.generation != self.generation
    }

    /// Nothing is granted or confirmed under an owner whose own lease is not live (rule 4).
    fn own_lease(&self, owner: OwnerId, period: Option<Millis>) -> Result<(), NotNow> {
        if period.is_some() || self.live(owner) || !holds(Rule::OwnLeaseFirst) {
            Ok(())
        } else {
            Err(NotNow::RenewFirst)
        }
    }

    fn recovering(&self) -> NotNow {
        NotNow::Recovering {
            until: self.phase.opens().unwrap_or(self.now),
        }
    }
}

impl Account {
    /// The slots taken.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The line, next first.
    #[must_use]
    pub fn line(&self) -> &[Waiter] {
        &self.line
    }

    /// The end of a session that is remembered: the epochs that it stops, its code, and until when.
    #[must_use]
    pub fn end_of(&self, session: SessionId) -> Option<(u64, EndCode, Millis)> {
        let tombstone = self.tombstone(session)?;
        Some((tombstone.epoch, tombstone.code, tombstone.until))
    }

    /// Who took over the slot of a session without a socket, as long as its end is remembered.
    #[must_use]
    pub fn displacer_of(&self, session: SessionId) -> Option<&Arc<Device>> {
        self.tombstone(session)?.by.as_ref()
    }

    /// Whether nothing is left to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let empty = self.entries.is_empty() && self.line.is_empty() && self.tombstones.is_empty();
        empty && self.remembered.is_empty() && self.standing == Standing::default()
    }

    /// A return to a session on another socket.
    ///
    /// # Errors
    /// The bucket or the asking node must recover first.
    pub fn resume(
        &mut self,
        request: &Resume,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Result<Resumed, NotNow> {
        self.expire(ground, effects);
        let Some(index) = self.index(request.session) else {
            let lost = ground.phase.recovering() && self.tombstone(request.session).is_none();
            return if lost {
                Err(ground.recovering())
            } else {
                Ok(Resumed::Absent)
            };
        };
        let entry = &self.entries[index];
        if ground.phase.recovering() && ground.old(entry) && holds(Rule::OldProvesNothing) {
            return Err(ground.recovering());
        }
        let device = request.device.as_ref();
        if device.is_some_and(|device| *device != entry.device.id) {
            return Ok(Resumed::Absent);
        }
        ground.own_lease(request.owner, None)?;
        // An entry whose owner is dead but that nobody purged yet may be resumed; one that nobody re-asserted not, nor
        // one whose own time is over.
        let lapsed = entry.expires.is_some() && ground.lapsed(entry);
        let unproven = ground.old(entry) && holds(Rule::UnprovenPurged);
        if !ground.phase.recovering() && (unproven || lapsed) {
            self.drop_dead(index, ground, effects);
            self.hand_over(ground, effects);
            return Ok(Resumed::Absent);
        }
        if entry.attempt == Some(request.attempt) && entry.owner == request.owner && holds(Rule::SameAttempt)
        {
            return Ok(Resumed::Moved {
                entry: entry.clone(),
                used: self.used(),
                limit: self.standing.limit,
            });
        }
        if entry.epoch != request.expected && holds(Rule::ResumeExpects) {
            return Ok(Resumed::At {
                epoch: entry.epoch,
                device: Arc::clone(&entry.device),
            });
        }
        effects.looks.push(Look {
            session: entry.session,
            owner: entry.owner,
        });
        // Rule 16: what is about to end does not come back. Its owner ends it, as any other that is marked: it must
        // know, or it writes the session again when the store loses its data.
        if promised(entry).is_some() && holds(Rule::MarkedStays) {
            return Ok(Resumed::Absent);
        }
        let asker = Asker {
            session: request.session,
            device: &entry.device.id,
            limit: request.limit,
            terms: &request.terms,
        };
        if !self.may_change(index, &asker, ground) {
            return Ok(Resumed::Absent);
        }
        let entry = &mut self.entries[index];
        credit(entry, ground);
        entry.state = PlayState::Playing;
        entry.owner = request.owner;
        entry.epoch = 1 + if holds(Rule::ResumeAbove) {
            entry.epoch.max(request.above)
        } else {
            entry.epoch
        };
        entry.generation = ground.generation;
        entry.attempt = Some(request.attempt);
        entry.content = request.content.clone();
        entry.expires = None;
        let changed = self.set_terms(index, &request.terms, ground.now);
        if changed {
            self.hand_over(ground, effects);
        }
        // Its device may have waited for another one, which took this one's place.
        Ok(match self.entry(request.session) {
            Some(entry) => Resumed::Moved {
                entry: entry.clone(),
                used: self.used(),
                limit: self.standing.limit,
            },
            None => Resumed::Absent,
        })
    }

    /// The end of a session or of a wait. It carries the play's facts, so that also a session that the store lost
    /// leaves its record (rule 9).
    pub fn release(
        &mut self,
        holding: &Holding,
        code: EndCode,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Fenced {
        self.expire(ground, effects);
        let fence = holding.fence;
        if let Some(index) = self.index(fence.session) {
            let entry = &mut self.entries[index];
            // A failover may have lost the move that made this epoch: the higher one wins.
            let (same, higher) = (fence.holds(entry), entry.epoch < fence.epoch);
            if !same && !higher && holds(Rule::EpochFence) {
                return Fenced::NotYours;
            }
            // A node that does not know the session knows nothing of its play.
            if holding.was_granted() {
                if higher {
                    entry.started_at = entry.started_at.min(holding.started_at);
                }
                entry.progress = holding.progress;
                entry.checkpoint = ground.now;
            }
            entry.epoch = entry.epoch.max(fence.epoch);
            self.remove(index, code, ground, effects);
            return Fenced::Done;
        }
        let waited = self
            .line
            .iter()
            .any(|w| w.session == fence.session && w.owner == fence.owner);
        if waited {
            self.leave_line(fence.session, effects);
        }
        if self
            .tombstone(fence.session)
            .is_none_or(|t| t.epoch < fence.epoch)
        {
            // Lost by the store, not ended by it: only another life of the data can have lost it (rule 7). What was
            // granted without the store was never there, and was a play all the same.
            let lost = holding.was_granted() && holding.generation != ground.generation;
            if lost && holds(Rule::ReleaseTellsPlay) {
                let generation = match holding.generation {
                    Generation::NONE => ground.generation,
                    known => known,
                };
                effects.facts.push(Fact::Ended {
                    entry: holding.entry(generation, ground.now),
                    code,
                    at: ground.now,
                });
            }
            // Also for an absent session: its acquire may still be under way (rule 11).
            if holds(Rule::UnknownBuried) {
                self.bury(fence.session, fence.epoch, code, ground.now);
            }
        }
        self.hand_over(ground, effects);
        if waited { Fenced::Done } else { Fenced::Gone }
    }

    /// An order about a session that may be held elsewhere.
    ///
    /// # Errors
    /// What is not there may come back: the bucket must recover first.
    pub fn order(
        &mut self,
        order: Order,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Result<Fenced, NotNow> {
        self.expire(ground, effects);
        let session = match order {
            Order::Kick { session, .. } => session,
            Order::Refuse(fence) => fence.session,
        };
        let Some(index) = self.index(session) else {
            let lost = ground.phase.recovering() && self.tombstone(session).is_none();
            return if lost {
                Err(ground.recovering())
            } else {
                Ok(Fenced::Gone)
            };
        };
        let entry = &mut self.entries[index];
        match order {
            Order::Kick { code, .. } => {
                kick(entry, code, effects);
                self.carry_out(ground, effects);
                Ok(Fenced::Done)
            }
            Order::Refuse(fence) => {
                if !fence.holds(entry) {
                    return Ok(Fenced::NotYours);
                }
                let Some(Mark::TakeOver { by, asked: true, .. }) = entry.mark else {
                    return Ok(Fenced::Gone);
                };
                entry.mark = None;
                if let Some(taker) = self.line.iter_mut().find(|waiter| waiter.session == by) {
                    taker.refused = true;
                    effects.looks.push(Look {
                        session: by,
                        owner: taker.owner,
                    });
                }
                Ok(Fenced::Done)
            }
        }
    }

    /// Whether [`purge`](Self::purge) would change something.
    #[must_use]
    pub fn needs_upkeep(&self, ground: &Ground<'_>) -> bool {
        self.is_empty()
            || self
                .tombstones
                .iter()
                .any(|tombstone| tombstone.until <= ground.now)
            || self.remembered.iter().any(|known| known.until <= ground.now)
            || self.line.iter().any(|waiter| gone(waiter, ground))
            || self.entries.iter().any(|entry| ground.dead(entry))
    }

    /// After a time in which nobody could ask, waiters are judged from now on, and the time of sessions without a socket
    /// stood still since then (rule 2).
    pub fn forgive(&mut self, then: Millis, now: Millis) {
        for waiter in &mut self.line {
            waiter.refreshed = now;
        }
        let living = self.entries.iter_mut().filter_map(|entry| entry.expires.as_mut());
        for expires in living.filter(|expires| **expires > then) {
            *expires += now - then;
        }
    }

    /// The clock stepped back from `then`: sessions without a socket live no longer than they were to.
    pub fn step_back(&mut self, then: Millis, now: Millis) {
        for expires in self.entries.iter_mut().filter_map(|entry| entry.expires.as_mut()) {
            *expires = expires.saturating_sub(then - now);
        }
    }

    /// Sessions without a socket live at least until then.
    pub fn extend(&mut self, until: Millis) {
        for expires in self.entries.iter_mut().filter_map(|entry| entry.expires.as_mut()) {
            *expires = until.max(*expires);
        }
    }

    /// Drops the entries of dead owners and those that nobody re-asserted, and gives their slots on (rule 13).
    /// Answers how many entries went.
    pub fn purge(&mut self, ground: &Ground<'_>, effects: &mut Effects) -> u32 {
        self.expire(ground, effects);
        self.purge_others(None, ground, effects)
    }

    /// The same, but for one session.
    fn purge_others(&mut self, spared: Option<SessionId>, ground: &Ground<'_>, effects: &mut Effects) -> u32 {
        let mut purged = 0;
        let dead = |entry: &Entry| Some(entry.session) != spared && ground.dead(entry);
        while let Some(index) = self.entries.iter().position(dead) {
            self.drop_dead(index, ground, effects);
            purged += 1;
        }
        if purged > 0 {
            self.hand_over(ground, effects);
        }
        purged
    }

    /// Takes out an entry whose node is gone.
    fn drop_dead(&mut self, index: usize, ground: &Ground<'_>, effects: &mut Effects) {
        let mut entry = self.entries.remove(index);
        let mut at = credit(&mut entry, ground);
        let mut code = EndCode::LeaseLost;
        if let Some(expires) = entry.expires.filter(|_| !ground.old(&entry)) {
            (code, at) = (EndCode::HeartbeatMissed, expires.min(ground.now));
        }
        let code = promised(&entry).unwrap_or(code);
        self.end(entry, code, at, ground.now, effects);
    }

    /// Ends the sessions without a socket that are to end: nobody else carries it out (rule 22). Every step that marks
    /// ends with this.
    fn carry_out(&mut self, ground: &Ground<'_>, effects: &mut Effects) {
        let marked = |entry: &Entry| entry.expires.is_some() && promised(entry).is_some();
        let mut ended = false;
        while let Some(index) = self.entries.iter().position(marked) {
            let mut entry = self.entries.remove(index);
            credit(&mut entry, ground);
            let code = promised(&entry).unwrap_or(EndCode::LeaseLost);
            self.end(entry, code, ground.now, ground.now, effects);
            ended = true;
        }
        if ended {
            self.hand_over(ground, effects);
        }
    }

    /// Ends a session whose device plays another one now (rule 21). False when its slot was promised to somebody
    /// already, so that it is not its device's.
    fn make_way(&mut self, index: usize, ground: &Ground<'_>, effects: &mut Effects) -> bool {
        let mut entry = self.entries.remove(index);
        if entry.expires.is_some() {
            credit(&mut entry, ground);
        }
        effects.looks.push(Look {
            session: entry.session,
            owner: entry.owner,
        });
        let promised = promised(&entry);
        if let (None, Some(Mark::TakeOver { by, .. })) = (promised, &entry.mark) {
            self.tell_waiter(*by, effects);
        }
        self.end(
            entry,
            promised.unwrap_or(EndCode::Moved),
            ground.now,
            ground.now,
            effects,
        );
        promised.is_none()
    }

    /// Takes an entry out, remembers its end, and hands its slot over: every removal does (rule 20).
    fn remove(&mut self, index: usize, code: EndCode, ground: &Ground<'_>, effects: &mut Effects) {
        let entry = self.entries.remove(index);
        self.end(entry, code, ground.now, ground.now, effects);
        self.hand_over(ground, effects);
    }

    fn end(&mut self, entry: Entry, code: EndCode, at: Millis, now: Millis, effects: &mut Effects) {
        let forever = matches!(entry.mark, Some(Mark::Kick(_))) || !holds(Rule::TombstoneEpoch);
        if holds(Rule::EveryEndBuried) {
            let epoch = if forever { EPOCH_FOREVER } else { entry.epoch };
            self.bury(entry.session, epoch, code, now);
        }
        if let (Some(Mark::TakeOver { device, .. }), EndCode::Displaced, Some(_)) =
            (&entry.mark, code, entry.expires)
        {
            let tombstone = self.tombstones.iter_mut().find(|t| t.session == entry.session);
            tombstone
                .into_iter()
                .for_each(|t| t.by = Some(Arc::clone(device)));
        }
        effects.facts.push(Fact::Ended { entry, code, at });
    }

    /// Drops what time has ended: tombstones, what was remembered, and waiters that stopped asking or whose node is gone.
    fn expire(&mut self, ground: &Ground<'_>, effects: &mut Effects) {
        self.tombstones.retain(|tombstone| tombstone.until > ground.now);
        self.remembered.retain(|known| known.until > ground.now);
        while let Some(waiter) = self.line.iter().find(|waiter| gone(waiter, ground)) {
            self.leave_line(waiter.session, effects);
        }
    }

    fn index(&self, session: SessionId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.session == session)
    }

    fn entry(&self, session: SessionId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.session == session)
    }

    fn tombstone(&self, session: SessionId) -> Option<&Tombstone> {
        self.tombstones
            .iter()
            .find(|tombstone| tombstone.session == session)
    }

    fn insert(&mut self, entry: Entry, effects: &mut Effects) {
        effects.facts.push(Fact::Started(entry.clone()));
        self.put(entry);
    }

    fn put(&mut self, entry: Entry) {
        // Most accounts play one stream: no room is kept for more.
        self.entries.reserve_exact(1);
        self.entries.push(entry);
    }

    /// Remembers an end; the highest epoch stays (rule 8).
    fn bury(&mut self, session: SessionId, epoch: u64, code: EndCode, now: Millis) {
        if let Some(tombstone) = self.tombstones.iter_mut().find(|t| t.session == session) {
            if epoch > tombstone.epoch {
                tombstone.epoch = epoch;
                tombstone.until = now + TOMBSTONE_MS;
            }
            return;
        }
        if self.tombstones.len() == MAX_TOMBSTONES {
            self.tombstones.remove(0);
        }
        self.tombstones.push(Tombstone {
            session,
            epoch,
            code,
            until: now + TOMBSTONE_MS,
            by: None,
        });
    }
}

/// An operator's word stands above a take-over, whose newcomer is granted by the same release.
fn kick(entry: &mut Entry, code: EndCode, effects: &mut Effects) {
    if !matches!(entry.mark, Some(Mark::Kick(_))) {
        entry.mark = Some(Mark::Kick(code));
    }
    effects.looks.push(Look {
        session: entry.session,
        owner: entry.owner,
    });
}

/// The code with which a marked entry ends; none when it is not to end.
fn promised(entry: &Entry) -> Option<EndCode> {
    match entry.mark {
        Some(Mark::Kick(code)) => Some(code),
        Some(Mark::TakeOver { asked: false, .. }) => Some(EndCode::Displaced),
        _ => None,
    }
}

/// Counts as watched what its node would have told: until its last renewal; in another life of the data, of which it
/// told nothing, until the checkpoint. Answers until when, which is the new checkpoint.
///
/// A session without a socket is told of by itself: until now while it lives, otherwise until it was last heard.
fn credit(entry: &mut Entry, ground: &Ground<'_>) -> Millis {
    let lease = ground.leases.get(&entry.owner);
    let told = match entry.expires {
        Some(expires) => (expires > ground.now).then_some(ground.now),
        None => lease.map(|lease| lease.renewed),
    };
    let told = told.filter(|_| entry.generation == ground.generation);
    let until = told.unwrap_or(0).max(entry.checkpoint);
    let until = until.min(ground.now);
    if entry.state.is_watching() {
        // A clock that stepped back may stand before the checkpoint.
        entry.progress.watched_ms += until.saturating_sub(entry.checkpoint);
    }
    entry.checkpoint = entry.checkpoint.max(until);
    until
}

/// Whether a waiter stopped asking, or its node is gone.
fn gone(waiter: &Waiter, ground: &Ground<'_>) -> bool {
    let lost = waiter.period.is_none() && !ground.live(waiter.owner);
    let dead = !ground.phase.recovering() && lost && holds(Rule::DeadWaitersGo);
    dead || waiter.refreshed + WAITER_STALE_MS <= ground.now
}
