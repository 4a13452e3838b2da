//! Sessions without a socket: they live by heartbeats of their own, which may come to any node (rule 22).
//!
//! No node holds them, so that nobody else ends them: a mark is carried out by the step that sets it, and what lapsed is
//! purged by whoever comes across it.

use crate::protocol::close::EndCode;
use crate::protocol::id::SessionId;

use super::super::model::{Beat, Beaten, Heartbeat, Held, Holding};
use super::{Account, Effects, Fact, Ground, credit};

/// They never change hands and come back: a socket that takes one over makes it another one's.
const EPOCH: u64 = 1;

impl Account {
    /// A heartbeat, or the end that a player asks for.
    pub fn beat(&mut self, beat: &Heartbeat, ground: &Ground<'_>, effects: &mut Effects) -> Beaten {
        self.expire(ground, effects);
        // Every step that could find the slot free sees it so (rule 13); also what an older version only marked.
        self.purge_others(None, ground, effects);
        self.carry_out(ground, effects);
        let Some(index) = self.index(beat.session) else {
            return self.beat_absent(beat, ground, effects);
        };
        let entry = &self.entries[index];
        if entry.expires.is_none() {
            return Beaten::Moved;
        }
        if beat
            .device
            .as_ref()
            .is_some_and(|device| *device != entry.device.id)
        {
            return Beaten::Foreign;
        }
        if ground.old(entry) && beat.word != Beat::Stop {
            return self.beat_lost(beat, ground, effects);
        }
        self.beat_living(index, beat, ground, effects)
    }

    fn beat_living(
        &mut self,
        index: usize,
        beat: &Heartbeat,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Beaten {
        let entry = &mut self.entries[index];
        if beat.word != Beat::Silent {
            credit(entry, ground);
        }
        match beat.word {
            Beat::Silent => return self.lives(beat.session),
            Beat::Stop => {
                self.remove(index, EndCode::Stopped, ground, effects);
                return Beaten::Stopped;
            }
            Beat::Alive { position_ms, state } => {
                entry.progress.position_ms = position_ms.unwrap_or(entry.progress.position_ms);
                entry.state = state.unwrap_or(entry.state);
                entry.expires = Some(ground.now + beat.period);
            }
        }
        if let Some(known) = &beat.known {
            if self.is_surplus(index, known, ground) {
                self.remove(index, EndCode::StreamLimitReached, ground, effects);
            } else if self.set_terms(index, &known.terms, ground.now) {
                self.hand_over(ground, effects);
            }
        }
        self.lives(beat.session)
    }

    /// What is not there may have ended, or may have been lost by the store.
    fn beat_absent(&mut self, beat: &Heartbeat, ground: &Ground<'_>, effects: &mut Effects) -> Beaten {
        if let Some(ended) = self.ended(beat.session) {
            return ended;
        }
        let lost = |known: &&Holding| known.generation != ground.generation;
        let known = beat.known.as_ref().filter(lost);
        let unknown = beat.known.is_none() && ground.phase.recovering();
        if beat.word == Beat::Stop {
            if let Some(known) = known {
                effects.facts.push(Fact::Ended {
                    entry: known.entry(ground.generation, ground.now),
                    code: EndCode::Stopped,
                    at: ground.now,
                });
            }
            if known.is_some() || unknown {
                // Another node may know it, and must not write it again.
                self.bury(beat.session, EPOCH, EndCode::Stopped, ground.now);
                return Beaten::Stopped;
            }
        }
        self.beat_lost(beat, ground, effects)
    }

    /// Only a node that knows the session writes again what the store lost.
    fn beat_lost(&mut self, beat: &Heartbeat, ground: &Ground<'_>, effects: &mut Effects) -> Beaten {
        let gone = Beaten::Gone { code: None, by: None };
        let Some(known) = &beat.known else {
            return if ground.phase.recovering() {
                Beaten::Later
            } else {
                gone
            };
        };
        // Absent in the life of the data in which it was confirmed is ended (rule 7).
        if known.generation == ground.generation && self.index(beat.session).is_none() {
            return gone;
        }
        match self.reassert(known, ground, effects) {
            Ok(Held::Yours { .. }) => self.lives(beat.session),
            Ok(Held::Gone(code)) => Beaten::Gone { code, by: None },
            Ok(Held::Moved) => Beaten::Moved,
            Ok(Held::Later) | Err(_) => Beaten::Later,
        }
    }

    fn lives(&self, session: SessionId) -> Beaten {
        match self.entry(session) {
            Some(entry) => Beaten::Lives {
                entry: Box::new(entry.clone()),
                used: self.used(),
                limit: self.standing.limit,
            },
            None => self
                .ended(session)
                .unwrap_or(Beaten::Gone { code: None, by: None }),
        }
    }

    fn ended(&self, session: SessionId) -> Option<Beaten> {
        let tombstone = self.tombstone(session)?;
        Some(Beaten::Gone {
            code: Some(tombstone.code),
            by: tombstone.by.clone(),
        })
    }
}
