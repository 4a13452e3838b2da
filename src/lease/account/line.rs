//! The waiting line, and giving slots on to those who stand in it.

use std::sync::Arc;

use crate::protocol::client::PlayState;
use crate::protocol::id::SessionId;

use super::super::model::{Acquire, Acquired, Entry, Mark, Millis, Progress, Waiter};
use super::super::rule::{Rule, holds};
use super::places::Asker;
use super::{Account, Effects, Ground, Look};

impl Account {
    /// Puts the asking player into the line; takers stand before all others.
    pub(super) fn enqueue(&mut self, request: &Acquire, victim: Option<SessionId>, now: Millis) -> Acquired {
        let waiter = Waiter {
            session: request.session,
            owner: request.owner,
            device: Arc::clone(&request.device),
            content: Arc::clone(&request.content),
            limit: request.limit,
            terms: request.terms.clone(),
            refreshed: now,
            victim,
            refused: false,
            period: request.period,
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

    /// Where the player stands.
    pub(super) fn waiting(&self, session: SessionId) -> Acquired {
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

    /// Grants free slots to the first waiters, each by its own limit and groups; who has no place in one of its groups
    /// keeps its turn and holds up nobody. Not while the bucket recovers, when nobody knows what is free.
    pub(super) fn hand_over(&mut self, ground: &Ground<'_>, effects: &mut Effects) {
        if ground.phase.recovering() {
            return;
        }
        loop {
            let ready = |w: &Waiter| !w.refused && self.has_place(&Asker::from(w), ground);
            let Some(index) = self.line.iter().position(ready) else {
                return;
            };
            let waiter = self.line.remove(index);
            self.withdraw(&waiter, effects);
            // Rule 18: who was served or is gone is passed over.
            let served = self.entry(waiter.session).is_some() || self.tombstone(waiter.session).is_some();
            let lost = waiter.period.is_none() && !ground.live(waiter.owner);
            if (served && holds(Rule::SkipServed)) || (lost && holds(Rule::SkipDead)) {
                continue;
            }
            // What its device played may have come back meanwhile.
            let own = |entry: &Entry| entry.device.id == waiter.device.id;
            while let Some(index) = self.entries.iter().position(own) {
                self.make_way(index, ground, effects);
            }
            effects.looks.push(Look {
                session: waiter.session,
                owner: waiter.owner,
            });
            self.admit(
                Entry {
                    session: waiter.session,
                    owner: waiter.owner,
                    epoch: 1,
                    generation: ground.generation,
                    device: waiter.device,
                    content: waiter.content,
                    state: PlayState::default(),
                    started_at: ground.now,
                    progress: Progress::default(),
                    checkpoint: ground.now,
                    attempt: None,
                    settles: 0,
                    mark: None,
                    groups: waiter.terms.keys(),
                    exempt: waiter.terms.exempt,
                    expires: waiter.period.map(|period| ground.now + period),
                },
                &waiter.terms,
                ground.now,
                effects,
            );
        }
    }

    /// Takes a waiter out of the line; true when it stood there.
    pub(super) fn leave_line(&mut self, session: SessionId, effects: &mut Effects) -> bool {
        let Some(index) = self.line.iter().position(|waiter| waiter.session == session) else {
            return false;
        };
        let waiter = self.line.remove(index);
        self.withdraw(&waiter, effects);
        true
    }

    /// A waiter that is gone asks no victim any more. A victim that was not asked ends all the same: it has been
    /// told so.
    fn withdraw(&mut self, waiter: &Waiter, effects: &mut Effects) {
        let asked = |mark: &Option<Mark>| matches!(mark, Some(Mark::TakeOver { by, asked: true, .. }) if *by == waiter.session);
        if let Some(entry) = self.entries.iter_mut().find(|entry| asked(&entry.mark)) {
            entry.mark = None;
            effects.looks.push(Look {
                session: entry.session,
                owner: entry.owner,
            });
        }
    }

    pub(super) fn tell_waiter(&self, session: SessionId, effects: &mut Effects) {
        let waiter = self.line.iter().find(|waiter| waiter.session == session);
        effects.looks.extend(waiter.map(|waiter| Look {
            session,
            owner: waiter.owner,
        }));
    }
}
