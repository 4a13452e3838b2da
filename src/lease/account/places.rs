//! Places: whether the account's total and the groups of a start have room, and which rule refuses when not.
//!
//! Everything is counted from the entries. Only what outlives a play (devices of thirty days, the account's home) is
//! remembered, by value and with an end of its own.

use std::sync::Arc;

use crate::protocol::id::SessionId;

use super::super::bucket::Leases;
use super::super::group::{ACCOUNT, Group, MAX_UNCOUNTED, Measure, Terms, rule_of};
use super::super::model::{Acquire, Acquired, Entry, Holding, Mark, Millis, Phase, Refusal, Waiter};
use super::{Account, Effects, Ground};

/// A value of a rule that is remembered beyond the play.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Remembered {
    /// The group's key.
    pub(super) key: Arc<str>,
    pub(super) until: Millis,
}

/// Who asks for a place: what its own device plays already takes none from it.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) session: SessionId,
    pub(super) device: &'a str,
    pub(super) limit: u32,
    pub(super) terms: &'a Terms,
}

/// A rule that leaves no place.
#[derive(Clone, Copy)]
pub(super) enum Refusing<'a> {
    /// A group, and whether one end makes place in it: not when it is beyond its limit.
    Group(&'a Group, bool),
    /// The account's total.
    Account,
}

impl<'a> From<&'a Acquire> for Asker<'a> {
    fn from(request: &'a Acquire) -> Self {
        Self {
            session: request.session,
            device: &request.device.id,
            limit: request.limit,
            terms: &request.terms,
        }
    }
}

impl<'a> From<&'a Waiter> for Asker<'a> {
    fn from(waiter: &'a Waiter) -> Self {
        Self {
            session: waiter.session,
            device: &waiter.device.id,
            limit: waiter.limit,
            terms: &waiter.terms,
        }
    }
}

impl<'a> From<&'a Holding> for Asker<'a> {
    fn from(holding: &'a Holding) -> Self {
        Self {
            session: holding.fence.session,
            device: &holding.device.id,
            limit: holding.limit,
            terms: &holding.terms,
        }
    }
}

impl Asker<'_> {
    fn is_other(&self, entry: &Entry) -> bool {
        entry.session != self.session && *entry.device.id != *self.device
    }
}

impl Account {
    /// The slots taken: exempt sessions take none.
    #[must_use]
    pub fn used(&self) -> u32 {
        let taken = self.entries.iter().filter(|entry| !entry.exempt);
        u32::try_from(taken.count()).unwrap_or(u32::MAX)
    }

    /// What is remembered beyond the plays: the keys of groups, each with its end.
    pub fn remembered(&self) -> impl Iterator<Item = (&str, Millis)> {
        self.remembered.iter().map(|known| (&*known.key, known.until))
    }

    /// What a node that cannot ask the store says to a start, from the sessions that it holds itself: the rule that
    /// refuses, and its holders; none when there is a place. What is remembered is not known to it.
    #[must_use]
    pub fn refusal_among(others: Vec<Entry>, holding: &Holding) -> Option<Acquired> {
        let account = Self {
            entries: others,
            ..Self::default()
        };
        let ground = Ground {
            now: 0,
            generation: holding.generation,
            phase: Phase::Open,
            leases: &Leases::new(),
        };
        let asker = Asker::from(holding);
        let refusing = account.refusing(&asker, &ground);
        (!refusing.is_empty()).then(|| account.denied(&asker, &refusing, false, 0, &ground))
    }

    /// Whether the account's total has room.
    pub(super) fn has_slot(&self, asker: &Asker<'_>) -> bool {
        if asker.terms.exempt || asker.terms.shadow {
            self.entries.len() < self.limit_of(asker.limit).max(MAX_UNCOUNTED) as usize
        } else {
            self.used() < self.limit_of(asker.limit)
        }
    }

    /// Whether every rule has room.
    pub(super) fn has_place(&self, asker: &Asker<'_>, ground: &Ground<'_>) -> bool {
        self.has_slot(asker) && self.has_groups(asker, ground)
    }

    /// Whether every group has room.
    pub(super) fn has_groups(&self, asker: &Asker<'_>, ground: &Ground<'_>) -> bool {
        let mut real = asker.terms.groups.iter().filter(|group| !group.shadow);
        real.all(|group| self.has_room(group, asker, ground))
    }

    /// Whether a group has room for one more.
    pub(super) fn has_room(&self, group: &Group, asker: &Asker<'_>, ground: &Ground<'_>) -> bool {
        let (number, own) = self.known(group);
        match group.measure {
            Measure::Known(_) => own || number < group.limit,
            Measure::Away(_) if number == 0 || own => true,
            Measure::Away(_) | Measure::Sessions => self.taken(group, asker, ground) < group.limit,
        }
    }

    /// The rules that leave no place, the narrow ones first.
    pub(super) fn refusing<'a>(&self, asker: &Asker<'a>, ground: &Ground<'_>) -> Vec<Refusing<'a>> {
        let real = asker.terms.groups.iter().filter(|group| !group.shadow);
        let full = real.filter(|group| !self.has_room(group, asker, ground));
        let refusing =
            full.map(|group| Refusing::Group(group, self.taken(group, asker, ground) <= group.limit));
        let mut refusing: Vec<_> = refusing.collect();
        if !self.has_slot(asker) {
            refusing.push(Refusing::Account);
        }
        refusing
    }

    /// The rules in shadow that would leave no place.
    pub(super) fn shadowed(&self, asker: &Asker<'_>, ground: &Ground<'_>) -> Vec<Box<str>> {
        let groups = asker.terms.groups.iter().filter(|group| group.shadow);
        let full = groups.filter(|group| !self.has_room(group, asker, ground));
        let mut shadowed: Vec<Box<str>> = full.map(|group| group.rule().into()).collect();
        let others = self
            .entries
            .iter()
            .filter(|entry| asker.is_other(entry) && !entry.exempt);
        if asker.terms.shadow && !asker.terms.exempt && others.count() >= self.limit_of(asker.limit) as usize
        {
            shadowed.push(ACCOUNT.into());
        }
        // Groups of one rule are one rule.
        shadowed.dedup();
        shadowed
    }

    /// Whether a session that plays may have other terms: what it counts in already it keeps.
    pub(super) fn may_change(&self, index: usize, asker: &Asker<'_>, ground: &Ground<'_>) -> bool {
        self.refusing_change(index, asker, ground).is_empty()
    }

    /// The rules that leave no place for what it does not count in already.
    pub(super) fn refusing_change<'a>(
        &self,
        index: usize,
        asker: &Asker<'a>,
        ground: &Ground<'_>,
    ) -> Vec<Refusing<'a>> {
        let entry = &self.entries[index];
        let mut refusing = self.refusing(asker, ground);
        refusing.retain(|refusing| match refusing {
            Refusing::Group(group, _) => !self.counts_in(entry, group),
            Refusing::Account => entry.exempt && !asker.terms.exempt && !asker.terms.shadow,
        });
        refusing
    }

    /// Gives an entry its present terms; true when it counts in others than before.
    pub(super) fn set_terms(&mut self, index: usize, terms: &Terms, now: Millis) -> bool {
        let entry = &mut self.entries[index];
        let same = entry.exempt == terms.exempt
            && entry.groups.len() == terms.groups.iter().len()
            && entry
                .groups
                .iter()
                .zip(&terms.groups)
                .all(|(key, group)| *key == group.key);
        if !same {
            entry.groups = terms.keys();
            entry.exempt = terms.exempt;
            self.remember(terms, now);
        }
        !same
    }

    /// Takes a place and records it.
    pub(super) fn admit(&mut self, entry: Entry, terms: &Terms, now: Millis, effects: &mut Effects) {
        self.remember(terms, now);
        self.insert(entry, effects);
    }

    /// Remembers the values that outlive the play; never more of a rule than its limit.
    pub(super) fn remember(&mut self, terms: &Terms, now: Millis) {
        for group in &terms.groups {
            let (number, own) = self.known(group);
            let (within, room) = match group.measure {
                Measure::Sessions => continue,
                Measure::Known(within) => (within, number < group.limit),
                Measure::Away(within) => (within, number == 0),
            };
            let until = now + within;
            if own {
                let known = self.remembered.iter_mut().find(|known| known.key == group.key);
                known.into_iter().for_each(|known| known.until = until);
            } else if room {
                let key = Arc::clone(&group.key);
                self.remembered.push(Remembered { key, until });
            }
        }
    }

    /// Whether a session is beyond a limit that was lowered, or that it came past: so many older ones count. The newest
    /// go first.
    pub(super) fn is_surplus(&self, index: usize, holding: &Holding, ground: &Ground<'_>) -> bool {
        let entry = &self.entries[index];
        let terms = &holding.terms;
        if ground.phase.recovering() || terms.is_plain() {
            return false;
        }
        let beyond = |counts: &dyn Fn(&Entry) -> bool, limit: u32| {
            let older = self.entries.iter().enumerate().filter(|(place, other)| {
                let kicked = matches!(other.mark, Some(Mark::Kick(_)));
                let older = (other.started_at, *place) < (entry.started_at, index);
                older && counts(other) && !kicked && !ground.dead(other)
            });
            older.count() >= limit as usize
        };
        let total = terms.enforce && !terms.shadow && !terms.exempt;
        // Operators say with their limit whether it ends who plays: a lower one that should not is none here.
        let limit = holding.limit.max(self.limit_of(holding.limit));
        if total && beyond(&|other| !other.exempt, limit) {
            return true;
        }
        let ends =
            |group: &&Group| group.enforce && !group.shadow && !matches!(group.measure, Measure::Known(_));
        let mut groups = terms.groups.iter().filter(ends);
        groups.any(|group| {
            self.counts_in(entry, group) && beyond(&|other| self.counts_in(other, group), group.limit)
        })
    }

    /// What a refused start is told. `line`: most waiters.
    pub(super) fn denied(
        &self,
        asker: &Asker<'_>,
        refusing: &[Refusing<'_>],
        refused: bool,
        line: u32,
        ground: &Ground<'_>,
    ) -> Acquired {
        let (refusal, holders) = self.refusal(asker, refusing, ground);
        Acquired::Denied {
            refused,
            refusal,
            holders,
            line_open: self.line.len() < line as usize && may_free(refusing),
            limit: self.standing.limit,
        }
    }

    /// The first of the rules that leave no place, and who counts in it.
    pub(super) fn refusal(
        &self,
        asker: &Asker<'_>,
        refusing: &[Refusing<'_>],
        ground: &Ground<'_>,
    ) -> (Refusal, Vec<Entry>) {
        let slots = self.used();
        let may_take_over = self
            .entries
            .iter()
            .any(|entry| self.would_help(entry, asker, refusing));
        let refusal = |rule: &str, used, limit| Refusal {
            rule: rule.into(),
            used,
            limit,
            slots,
            may_take_over,
        };
        let Some(Refusing::Group(group, _)) = refusing.first() else {
            let holders = self.entries.iter().filter(|entry| !entry.exempt);
            return (
                refusal(ACCOUNT, slots, self.limit_of(asker.limit)),
                holders.cloned().collect(),
            );
        };
        let used = match group.measure {
            Measure::Known(_) => self.known(group).0,
            Measure::Sessions | Measure::Away(_) => self.taken(group, asker, ground),
        };
        let holders = self.entries.iter().filter(|entry| self.counts_in(entry, group));
        (
            refusal(group.rule(), used, group.limit),
            holders.cloned().collect(),
        )
    }

    /// Whether the end of this session makes place in every one of these rules.
    pub(super) fn would_help(&self, entry: &Entry, asker: &Asker<'_>, refusing: &[Refusing<'_>]) -> bool {
        let helps = |refusing: &Refusing<'_>| match refusing {
            Refusing::Account => !entry.exempt,
            Refusing::Group(group, enough) => {
                let known = matches!(group.measure, Measure::Known(_));
                *enough && !known && self.counts_in(entry, group)
            }
        };
        asker.is_other(entry) && refusing.iter().all(helps)
    }

    /// Others that count in the group.
    pub(super) fn taken(&self, group: &Group, asker: &Asker<'_>, ground: &Ground<'_>) -> u32 {
        let proven = |entry: &Entry| !ground.phase.recovering() || !ground.old(entry);
        let others = self
            .entries
            .iter()
            .filter(|entry| asker.is_other(entry) && proven(entry));
        let taken = others.filter(|entry| self.counts_in(entry, group)).count();
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// Whether a session counts in the group.
    fn counts_in(&self, entry: &Entry, group: &Group) -> bool {
        entry.groups.iter().any(|key| match group.measure {
            Measure::Sessions => *key == group.key,
            Measure::Known(_) => rule_of(key) == group.rule(),
            Measure::Away(_) => rule_of(key) == group.rule() && !self.is_known(key),
        })
    }

    fn is_known(&self, key: &str) -> bool {
        self.remembered.iter().any(|known| *known.key == *key)
    }

    /// How many values of the group's rule are remembered, and whether its own is.
    fn known(&self, group: &Group) -> (u32, bool) {
        let of_rule = self
            .remembered
            .iter()
            .filter(|known| rule_of(&known.key) == group.rule());
        (
            u32::try_from(of_rule.count()).unwrap_or(u32::MAX),
            self.is_known(&group.key),
        )
    }
}

/// Whether what refuses can become free by the end of a session.
pub(super) fn may_free(refusing: &[Refusing<'_>]) -> bool {
    refusing.iter().all(|refusing| match refusing {
        Refusing::Account => true,
        Refusing::Group(group, _) => group.limit > 0 && !matches!(group.measure, Measure::Known(_)),
    })
}
