//! The comparison of what a node holds with what the store knows, and the repair of what the store lost.

use crate::protocol::close::EndCode;

use super::super::group::{Group, Measure};
use super::super::model::{Entry, Generation, Held, Holding, Mark, NotNow, Phase};
use super::super::rule::{Rule, holds};
use super::places::{Asker, Refusing};
use super::{Account, Effects, Fact, Ground, Look, SETTLE_MS};

impl Account {
    /// Compares one session of a node with the table; it also checkpoints the session's progress.
    ///
    /// # Errors
    /// The node must renew its lease first.
    pub fn audit(
        &mut self,
        holding: &Holding,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Result<Held, NotNow> {
        let fence = holding.fence;
        if !ground.live(fence.owner) && holds(Rule::AuditOwnLeaseFirst) {
            return Err(NotNow::RenewFirst);
        }
        self.expire(ground, effects);
        if let Some(index) = self.index(fence.session) {
            let entry = &self.entries[index];
            let old = entry.generation != ground.generation && holds(Rule::OldProvesNothingToAudit);
            if !old {
                if fence.holds(entry) || (!holds(Rule::OwnerFence) && entry.epoch == fence.epoch) {
                    return Ok(self.confirm(index, holding, false, ground, effects));
                }
                // A failover may have lost the move that made our epoch.
                if entry.epoch < fence.epoch || !holds(Rule::EpochFence) {
                    return Ok(self.confirm(index, holding, true, ground, effects));
                }
            }
            if !old || entry.epoch > fence.epoch {
                return Ok(Held::Moved);
            }
        }
        if let Some(tombstone) = self.tombstone(fence.session).filter(|t| t.epoch >= fence.epoch) {
            return Ok(Held::Gone(Some(tombstone.code)));
        }
        let absent = self.index(fence.session).is_none();
        let confirmed = holding.generation == ground.generation;
        if absent && confirmed && holds(Rule::SameGenerationLost) {
            return Ok(Held::Gone(None));
        }
        self.reassert(holding, ground, effects)
    }

    /// Brings an entry up to date with what its node holds. One that a lowered limit leaves no place is to end.
    fn confirm(
        &mut self,
        index: usize,
        holding: &Holding,
        repaired: bool,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Held {
        holding.refresh(&mut self.entries[index], ground);
        let changed = self.set_terms(index, &holding.terms, ground.now);
        let kicked = matches!(self.entries[index].mark, Some(Mark::Kick(_)));
        if !kicked && self.is_surplus(index, holding, ground) {
            self.entries[index].mark = Some(Mark::Kick(EndCode::StreamLimitReached));
        }
        if changed {
            self.hand_over(ground, effects);
        }
        // Its device may have waited for another one, which took this one's place.
        match self.entry(holding.fence.session) {
            Some(entry) => Held::Yours {
                mark: entry.mark.clone(),
                repaired,
            },
            None => Held::Gone(Some(EndCode::Moved)),
        }
    }

    /// Writes a session again that the store lost, or has only from an older life of its data, where its place may
    /// not have been given away.
    pub(super) fn reassert(
        &mut self,
        holding: &Holding,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Result<Held, NotNow> {
        let session = holding.fence.session;
        let doubtful = holding.doubtful && holds(Rule::FirmFirst);
        let first = matches!(ground.phase, Phase::First { .. }) || !holds(Rule::FirmFirst);
        if ground.phase.recovering() && first && doubtful {
            return Ok(Held::Later);
        }
        // Every check of the limit first purges the account's dead entries (rule 13).
        self.purge_others(Some(session), ground, effects);
        if self.standing.blocked {
            return Ok(self.refuse(holding, EndCode::AccountBlocked, ground, effects));
        }
        if holds(Rule::OneDevice) && !self.outlasts_own(holding, ground, effects) {
            return Ok(self.refuse(holding, EndCode::Moved, ground, effects));
        }
        let proven = |entry: &&Entry| {
            let counts = !ground.phase.recovering() || entry.generation == ground.generation;
            entry.session != session && counts
        };
        let others = self.entries.iter().filter(proven);
        let others = others.filter(|entry| !entry.exempt).count();
        let terms = &holding.terms;
        let uncounted = terms.exempt || terms.shadow;
        let full = self.full_groups(holding, ground);
        let unconditional = if ground.phase.recovering() {
            first && holds(Rule::FirmUnconditional)
        } else {
            !holds(Rule::LateRepairConditional)
        };
        let limit = self.limit_of(holding.limit) as usize;
        let mut refusing: Vec<_> = full.iter().map(|group| Refusing::Group(group, true)).collect();
        if !uncounted && others >= limit {
            refusing.push(Refusing::Account);
        }
        // One end makes place where nothing is beyond its limit.
        let within = others <= limit || uncounted;
        let asker = Asker::from(holding);
        let one_too_many = |group: &&Group| self.taken(group, &asker, ground) == group.limit;
        let makes_place = !unconditional && within && full.iter().all(one_too_many);
        if unconditional
            || refusing.is_empty()
            || (makes_place && self.displace_younger(holding, &refusing, ground, effects))
        {
            let settles = if unconditional { 0 } else { ground.now + SETTLE_MS };
            if let Some(index) = self.index(session) {
                let entry = &mut self.entries[index];
                holding.refresh(entry, ground);
                entry.settles = settles;
                self.set_terms(index, &holding.terms, ground.now);
            } else {
                self.leave_line(session, effects);
                let entry = Entry {
                    settles,
                    ..holding.entry(ground.generation, ground.now)
                };
                self.remember(&holding.terms, ground.now);
                if holding.generation == Generation::NONE {
                    self.insert(entry, effects);
                } else {
                    self.put(entry);
                }
            }
            // Its device may have held more than one slot; or it waits for another one, which takes this one's.
            self.hand_over(ground, effects);
            return Ok(match self.entry(session) {
                Some(entry) => Held::Yours {
                    mark: entry.mark.clone(),
                    repaired: true,
                },
                None => self.refuse(holding, EndCode::Moved, ground, effects),
            });
        }
        // Somebody else has its slot by now. What was granted without the store was never certain.
        let code = if holding.generation == Generation::NONE {
            EndCode::StreamLimitReached
        } else {
            EndCode::LeaseLost
        };
        Ok(self.refuse(holding, code, ground, effects))
    }

    /// The groups that have no room for a session that comes back. What outlives the plays admitted it once.
    fn full_groups<'a>(&self, holding: &'a Holding, ground: &Ground<'_>) -> Vec<&'a Group> {
        let asker = Asker::from(holding);
        let groups = holding.terms.groups.iter();
        let real = groups.filter(|group| !group.shadow && !matches!(group.measure, Measure::Known(_)));
        real.filter(|group| !self.has_room(group, &asker, ground))
            .collect()
    }

    /// The session does not come back.
    fn refuse(
        &mut self,
        holding: &Holding,
        code: EndCode,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Held {
        let session = holding.fence.session;
        // A slot that this step freed went to its device, which ended it.
        if let Some(tombstone) = self.tombstone(session).filter(|t| t.epoch >= holding.fence.epoch) {
            return Held::Gone(Some(tombstone.code));
        }
        match self.index(session) {
            Some(index) => {
                self.entries[index].progress = holding.progress;
                self.entries[index].epoch = holding.fence.epoch;
                self.remove(index, code, ground, effects);
            }
            None => {
                self.bury(session, holding.fence.epoch, code, ground.now);
                effects.facts.push(Fact::Ended {
                    entry: holding.entry(ground.generation, ground.now),
                    code,
                    at: ground.now,
                });
                self.hand_over(ground, effects);
            }
        }
        Held::Gone(Some(code))
    }

    /// A device plays once: what it started later has replaced the other, whichever its node tells of first, and also
    /// when the store lost the end of the other (rule 21). False when there is a later one.
    fn outlasts_own(&mut self, holding: &Holding, ground: &Ground<'_>, effects: &mut Effects) -> bool {
        let own = |entry: &Entry| {
            entry.device.id == holding.device.id
                && entry.session != holding.fence.session
                && entry.generation == ground.generation
        };
        while let Some(index) = self.entries.iter().position(own) {
            let entry = &self.entries[index];
            if entry.started_at >= holding.started_at {
                return false;
            }
            if !self.make_way(index, ground, effects) {
                self.hand_over(ground, effects);
            }
        }
        true
    }

    /// Of those that were not certain of their slots the oldest keep them, whichever node tells of them first (rule 5):
    /// the youngest makes place for an older one. Whether one did.
    fn displace_younger(
        &mut self,
        holding: &Holding,
        refusing: &[Refusing<'_>],
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> bool {
        let asker = Asker::from(holding);
        let younger = |entry: &Entry| {
            let unsettled = entry.settles > ground.now && entry.generation == ground.generation;
            unsettled
                && self.would_help(entry, &asker, refusing)
                && entry.mark.is_none()
                && entry.session != holding.fence.session
                && entry.started_at > holding.started_at
        };
        let youngest = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| younger(entry));
        let Some((index, _)) = youngest.max_by_key(|(index, entry)| (entry.started_at, *index)) else {
            return false;
        };
        let entry = self.entries.remove(index);
        effects.looks.push(Look {
            session: entry.session,
            owner: entry.owner,
        });
        self.end(
            entry,
            EndCode::StreamLimitReached,
            ground.now,
            ground.now,
            effects,
        );
        true
    }
}

impl Holding {
    /// Brings its entry up to date: it is confirmed, under this owner and epoch, with its present progress.
    fn refresh(&self, entry: &mut Entry, ground: &Ground<'_>) {
        if entry.epoch < self.fence.epoch {
            // The entry is of a later start in a life of the data that lost this play.
            entry.started_at = entry.started_at.min(self.started_at);
        }
        entry.owner = self.fence.owner;
        entry.epoch = self.fence.epoch;
        entry.generation = ground.generation;
        entry.content = self.content.clone();
        entry.state = self.state;
        entry.progress = self.progress;
        entry.checkpoint = ground.now;
        entry.expires = self.period.map(|period| ground.now + period);
    }
}
