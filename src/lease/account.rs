//! The slots of one account: state, event, now -> state, effects. Pure, so that the memory store, the property
//! tests and a model run the very same rules.
//!
//! Rule numbers are those of the lease rules; invariants those of the design (I1 limit, I2 no false refusal,
//! I4 fencing).
//!
//! Over 400 lines, because the rules of one table call each other and are read, and checked, as one whole.

use std::sync::Arc;

use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{OwnerId, SessionId};

use super::model::{
    Acquire, Acquired, Device, Entry, Fence, Fenced, Held, Mark, Millis, Resume, Resumed, Waiter, Wish,
};

/// A waiter that has not asked for this long is skipped (rule 17: it asks every 2-5 s).
pub const WAITER_STALE_MS: Millis = 15_000;

/// How long an ended session is remembered, so that nothing late brings it back (rule 11).
pub const TOMBSTONE_MS: Millis = 60_000;

/// Tombstones kept of one account; the oldest go first.
const MAX_TOMBSTONES: usize = 1_000;

/// An account's table.
#[derive(Clone, Debug, Default)]
pub struct Account {
    entries: Vec<Entry>,
    line: Vec<Waiter>,
    tombstones: Vec<Tombstone>,
}

#[derive(Clone, Debug)]
struct Tombstone {
    session: SessionId,
    code: EndCode,
    until: Millis,
}

/// Who must be told to look again. It carries no truth (rule 29): whoever is told asks the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The session that changed.
    pub session: SessionId,
    /// The process that holds its socket.
    pub owner: OwnerId,
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

    /// Whether nothing is left to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.line.is_empty() && self.tombstones.is_empty()
    }

    /// A start, or the poll of a waiter.
    pub fn acquire(&mut self, request: &Acquire, now: Millis, looks: &mut Vec<Look>) -> Acquired {
        self.expire(now, looks);
        if let Some(tombstone) = self.tombstones.iter().find(|t| t.session == request.session) {
            return Acquired::Ended(tombstone.code);
        }
        if self.entry(request.session).is_some() {
            return self.granted(false);
        }
        if let Some(waiter) = self.line.iter_mut().find(|w| w.session == request.session) {
            waiter.refreshed = now;
            waiter.owner = request.owner;
            waiter.limit = request.limit;
        }
        let refused = self.take_refusal(request);
        if self.replace_own(request, now, looks) {
            return self.granted(true);
        }
        // A fresh start never passes a waiter who could have the slot (rule 20).
        self.hand_over(now, looks);
        if self.entry(request.session).is_none() && self.used() < request.limit {
            // Its limit may have risen while it waited: the victim that it asked may keep its slot.
            self.leave_line(request.session, looks);
            self.insert(
                request.session,
                request.owner,
                &request.device,
                &request.content,
                now,
            );
        }
        if self.entry(request.session).is_some() {
            return self.granted(false);
        }
        if refused {
            return self.denied(request, true);
        }
        self.at_the_limit(request, now, looks)
    }

    /// A return to a session on another socket.
    pub fn resume(&mut self, request: &Resume, now: Millis, looks: &mut Vec<Look>) -> Resumed {
        self.expire(now, looks);
        let used = self.used();
        let Some(index) = self
            .entries
            .iter()
            .position(|entry| entry.session == request.session)
        else {
            return Resumed::Absent;
        };
        let entry = &mut self.entries[index];
        if request
            .device
            .as_ref()
            .is_some_and(|device| *device != entry.device.id)
        {
            return Resumed::Absent;
        }
        if entry.attempt == Some(request.attempt) && entry.owner == request.owner {
            return Resumed::Moved {
                entry: entry.clone(),
                used,
            };
        }
        match &entry.mark {
            // Rule 16: what is about to end does not come back.
            Some(Mark::Kick(code)) => {
                let code = *code;
                self.remove(index, code, now, looks);
                return Resumed::Absent;
            }
            Some(Mark::TakeOver { asked: false, .. }) => {
                self.remove(index, EndCode::Displaced, now, looks);
                return Resumed::Absent;
            }
            Some(Mark::TakeOver { asked: true, .. }) | None => {}
        }
        looks.push(Look {
            session: entry.session,
            owner: entry.owner,
        });
        entry.owner = request.owner;
        entry.epoch += 1;
        entry.attempt = Some(request.attempt);
        entry.content = Arc::clone(&request.content);
        Resumed::Moved {
            entry: entry.clone(),
            used,
        }
    }

    /// The end of a session or of a wait.
    pub fn release(&mut self, fence: Fence, code: EndCode, now: Millis, looks: &mut Vec<Look>) -> Fenced {
        self.expire(now, looks);
        if let Some(index) = self
            .entries
            .iter()
            .position(|entry| entry.session == fence.session)
        {
            if !fence.holds(&self.entries[index]) {
                return Fenced::NotYours;
            }
            self.remove(index, code, now, looks);
            return Fenced::Done;
        }
        let waited = self.leave_line(fence.session, looks);
        // Also for an absent session: its acquire may still be under way (rule 11).
        self.bury(fence.session, code, now);
        if waited { Fenced::Done } else { Fenced::Gone }
    }

    /// Marks a session to end; the owner's socket does it. A second mark changes nothing (rule 19).
    pub fn mark(&mut self, session: SessionId, code: EndCode, looks: &mut Vec<Look>) -> Fenced {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.session == session) else {
            return Fenced::Gone;
        };
        // An operator's word stands above a take-over, whose newcomer is granted by the same release.
        if !matches!(entry.mark, Some(Mark::Kick(_))) {
            entry.mark = Some(Mark::Kick(code));
        }
        looks.push(Look {
            session,
            owner: entry.owner,
        });
        Fenced::Done
    }

    /// The victim's no to a take-over that asked.
    pub fn refuse(&mut self, fence: Fence, looks: &mut Vec<Look>) -> Fenced {
        let entry = match self.fenced(fence) {
            Ok(entry) => entry,
            Err(answer) => return answer,
        };
        let Some(Mark::TakeOver { by, asked: true, .. }) = entry.mark else {
            return Fenced::Gone;
        };
        entry.mark = None;
        if let Some(taker) = self.line.iter_mut().find(|waiter| waiter.session == by) {
            taker.refused = true;
            looks.push(Look {
                session: by,
                owner: taker.owner,
            });
        }
        Fenced::Done
    }

    /// New content or state of a playing session.
    pub fn update(&mut self, fence: Fence, content: Option<&Arc<str>>, state: Option<PlayState>) -> Fenced {
        let entry = match self.fenced(fence) {
            Ok(entry) => entry,
            Err(answer) => return answer,
        };
        if let Some(content) = content {
            entry.content = Arc::clone(content);
        }
        entry.state = state.unwrap_or(entry.state);
        Fenced::Done
    }

    /// What became of a session.
    #[must_use]
    pub fn inspect(&self, fence: Fence) -> Held {
        match self.entry(fence.session) {
            Some(entry) if fence.holds(entry) => Held::Yours {
                mark: entry.mark.clone(),
            },
            Some(_) => Held::Moved,
            None => {
                let tombstone = self.tombstones.iter().find(|t| t.session == fence.session);
                Held::Gone(tombstone.map(|t| t.code))
            }
        }
    }

    /// Whether [`expire`](Self::expire) would change something.
    #[must_use]
    pub fn needs_upkeep(&self, now: Millis) -> bool {
        self.is_empty()
            || self.tombstones.iter().any(|tombstone| tombstone.until <= now)
            || self
                .line
                .iter()
                .any(|waiter| waiter.refreshed + WAITER_STALE_MS <= now)
    }

    /// After a time in which nobody could ask, waiters are judged from now on (rule 2).
    pub fn forgive(&mut self, now: Millis) {
        for waiter in &mut self.line {
            waiter.refreshed = now;
        }
    }

    /// Drops what time has ended: tombstones, and waiters that stopped asking.
    pub fn expire(&mut self, now: Millis, looks: &mut Vec<Look>) {
        self.tombstones.retain(|tombstone| tombstone.until > now);
        while let Some(stale) = self
            .line
            .iter()
            .find(|w| w.refreshed + WAITER_STALE_MS <= now)
            .map(|w| w.session)
        {
            self.leave_line(stale, looks);
        }
    }

    fn used(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    fn entry(&self, session: SessionId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.session == session)
    }

    /// The entry, for who has the right to change it (I4).
    fn fenced(&mut self, fence: Fence) -> Result<&mut Entry, Fenced> {
        let found = self
            .entries
            .iter_mut()
            .find(|entry| entry.session == fence.session);
        let entry = found.ok_or(Fenced::Gone)?;
        if fence.holds(entry) {
            Ok(entry)
        } else {
            Err(Fenced::NotYours)
        }
    }

    fn granted(&self, replaced: bool) -> Acquired {
        Acquired::Granted {
            used: self.used(),
            replaced,
        }
    }

    fn denied(&self, request: &Acquire, refused: bool) -> Acquired {
        let line_open = self.line.len() < request.line as usize;
        Acquired::Denied {
            refused,
            holders: self.entries.clone(),
            line_open,
        }
    }

    fn insert(
        &mut self,
        session: SessionId,
        owner: OwnerId,
        device: &Arc<Device>,
        content: &Arc<str>,
        now: Millis,
    ) {
        // Most accounts play one stream: no room is kept for more.
        self.entries.reserve_exact(1);
        self.entries.push(Entry {
            session,
            owner,
            epoch: 1,
            device: Arc::clone(device),
            content: Arc::clone(content),
            state: PlayState::default(),
            started_at: now,
            attempt: None,
            mark: None,
        });
    }

    /// Takes a waiter whose victim said no out of the line; true when the asking one is it.
    fn take_refusal(&mut self, request: &Acquire) -> bool {
        let before = self.line.len();
        self.line
            .retain(|waiter| !(waiter.session == request.session && waiter.refused));
        self.line.len() < before
    }

    /// The device's earlier session or wait makes place for the new one: zapping never blocks one's own stream.
    /// True when the slot went over.
    fn replace_own(&mut self, request: &Acquire, now: Millis, looks: &mut Vec<Look>) -> bool {
        let earlier = self
            .line
            .iter()
            .find(|w| w.device.id == request.device.id && w.session != request.session);
        if let Some(Waiter { session, owner, .. }) = earlier.cloned() {
            looks.push(Look { session, owner });
            self.leave_line(session, looks);
            self.bury(session, EndCode::Moved, now);
        }
        let Some(index) = self
            .entries
            .iter()
            .position(|entry| entry.device.id == request.device.id)
        else {
            return false;
        };
        let Entry { session, owner, .. } = self.entries[index];
        looks.push(Look { session, owner });
        match self.entries[index].mark.clone() {
            // Its slot is promised to somebody already.
            Some(Mark::TakeOver { asked: false, .. }) => {
                self.remove(index, EndCode::Displaced, now, looks);
                false
            }
            Some(Mark::Kick(code)) => {
                self.remove(index, code, now, looks);
                false
            }
            asked => {
                if let Some(Mark::TakeOver { by, .. }) = asked {
                    self.tell_waiter(by, looks);
                }
                self.entries.remove(index);
                self.bury(session, EndCode::Moved, now);
                self.line.retain(|waiter| waiter.session != request.session);
                self.insert(
                    request.session,
                    request.owner,
                    &request.device,
                    &request.content,
                    now,
                );
                true
            }
        }
    }

    fn at_the_limit(&mut self, request: &Acquire, now: Millis, looks: &mut Vec<Look>) -> Acquired {
        if let Some(waiter) = self.line.iter().find(|waiter| waiter.session == request.session) {
            let Some(victim) = waiter.victim else {
                return self.waiting(request.session);
            };
            if let Some(entry) = self.entries.iter().find(|entry| entry.session == victim) {
                looks.push(Look {
                    session: victim,
                    owner: entry.owner,
                });
                return self.waiting(request.session);
            }
            // The victim went and the account is still full: its limit was lowered, or the victim replaced
            // itself. Never a second victim (rule 19).
            self.leave_line(request.session, looks);
            return self.denied(request, false);
        }
        match request.wish {
            Wish::Slot => self.denied(request, false),
            Wish::Wait if self.line.len() >= request.line as usize => self.denied(request, false),
            Wish::Wait => self.enqueue(request, None, now),
            Wish::Oldest => {
                let unmarked = self.entries.iter().filter(|entry| entry.mark.is_none());
                let oldest = unmarked.min_by_key(|entry| (entry.started_at, entry.session));
                match oldest.map(|entry| entry.session) {
                    Some(victim) => self.take_over(request, victim, now, looks),
                    None => self.denied(request, false),
                }
            }
            Wish::TakeOver(victim) => self.take_over(request, victim, now, looks),
        }
    }

    fn take_over(
        &mut self,
        request: &Acquire,
        victim: SessionId,
        now: Millis,
        looks: &mut Vec<Look>,
    ) -> Acquired {
        // A taker that fell out of the line has its victim still (rule 19).
        let marked =
            |entry: &&Entry| matches!(entry.mark, Some(Mark::TakeOver { by, .. }) if by == request.session);
        if let Some(victim) = self.entries.iter().find(marked).map(|entry| entry.session) {
            return self.enqueue(request, Some(victim), now);
        }
        let free_to_mark = |entry: &&mut Entry| entry.session == victim && entry.mark.is_none();
        let Some(entry) = self.entries.iter_mut().find(free_to_mark) else {
            return self.denied(request, false);
        };
        entry.mark = Some(Mark::TakeOver {
            by: request.session,
            device: Arc::clone(&request.device),
            asked: request.consent,
        });
        looks.push(Look {
            session: victim,
            owner: entry.owner,
        });
        self.enqueue(request, Some(victim), now)
    }

    fn enqueue(&mut self, request: &Acquire, victim: Option<SessionId>, now: Millis) -> Acquired {
        let waiter = Waiter {
            session: request.session,
            owner: request.owner,
            device: Arc::clone(&request.device),
            content: Arc::clone(&request.content),
            limit: request.limit,
            refreshed: now,
            victim,
            refused: false,
        };
        let end = self.line.len();
        let takers = self
            .line
            .iter()
            .take_while(|waiter| waiter.victim.is_some())
            .count();
        self.line
            .insert(if victim.is_some() { takers } else { end }, waiter);
        self.waiting(request.session)
    }

    fn waiting(&self, session: SessionId) -> Acquired {
        let before = self.line.iter().take_while(|waiter| waiter.session != session);
        let position = before.filter(|waiter| !waiter.refused).count() + 1;
        let taking_over = self
            .line
            .iter()
            .any(|w| w.session == session && w.victim.is_some());
        Acquired::Waiting {
            position: u32::try_from(position).unwrap_or(u32::MAX),
            taking_over,
        }
    }

    /// Takes an entry out, remembers its end, and hands its slot over: every removal does (rule 20).
    fn remove(&mut self, index: usize, code: EndCode, now: Millis, looks: &mut Vec<Look>) {
        let entry = self.entries.remove(index);
        self.bury(entry.session, code, now);
        self.hand_over(now, looks);
    }

    /// Grants free slots to the first waiters, each by its own limit.
    fn hand_over(&mut self, now: Millis, looks: &mut Vec<Look>) {
        loop {
            let used = self.used();
            let Some(index) = self.line.iter().position(|w| !w.refused && used < w.limit) else {
                return;
            };
            let waiter = self.line.remove(index);
            self.withdraw(&waiter, looks);
            self.insert(waiter.session, waiter.owner, &waiter.device, &waiter.content, now);
            looks.push(Look {
                session: waiter.session,
                owner: waiter.owner,
            });
        }
    }

    /// Takes a waiter out of the line; true when it stood there.
    fn leave_line(&mut self, session: SessionId, looks: &mut Vec<Look>) -> bool {
        let Some(index) = self.line.iter().position(|waiter| waiter.session == session) else {
            return false;
        };
        let waiter = self.line.remove(index);
        self.withdraw(&waiter, looks);
        true
    }

    /// A waiter that is gone asks no victim any more. A victim that was not asked ends all the same: it has been
    /// told so.
    fn withdraw(&mut self, waiter: &Waiter, looks: &mut Vec<Look>) {
        let asked = |mark: &Option<Mark>| matches!(mark, Some(Mark::TakeOver { by, asked: true, .. }) if *by == waiter.session);
        if let Some(entry) = self.entries.iter_mut().find(|entry| asked(&entry.mark)) {
            entry.mark = None;
            looks.push(Look {
                session: entry.session,
                owner: entry.owner,
            });
        }
    }

    fn tell_waiter(&self, session: SessionId, looks: &mut Vec<Look>) {
        let waiter = self.line.iter().find(|waiter| waiter.session == session);
        looks.extend(waiter.map(|waiter| Look {
            session,
            owner: waiter.owner,
        }));
    }

    fn bury(&mut self, session: SessionId, code: EndCode, now: Millis) {
        if self
            .tombstones
            .iter()
            .any(|tombstone| tombstone.session == session)
        {
            return;
        }
        if self.tombstones.len() == MAX_TOMBSTONES {
            self.tombstones.remove(0);
        }
        self.tombstones.push(Tombstone {
            session,
            code,
            until: now + TOMBSTONE_MS,
        });
    }
}
