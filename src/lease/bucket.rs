//! One bucket: the accounts that share a fate, the leases of the nodes in it, and the life of its data. Pure.
//!
//! Everything about an account lies in one bucket, so that one step sees all of it: who holds what, and which nodes
//! are alive. There is no membership service; death is judged by the step that needs to know, by the store's clock.
//! The memory store runs these steps under a lock; the Lua scripts are the same steps in Redis.

#[cfg(test)]
mod abstraction;

use std::collections::BTreeMap;

use crate::protocol::id::{AccountKey, OwnerId};

use super::account::{Account, Effects, Ground};
use super::model::{Entry, Generation, Millis, Phase, Renewed};
use super::rule::{Rule, holds};

/// How long a node's lease in a bucket lives without renewal: a crashed node's players have 10 s to resume, also
/// when it crashed just before its next renewal.
pub const LEASE_MS: Millis = 12_500;

/// How often a node renews.
pub const RENEW_MS: Millis = 2_500;

/// Without any renewal for this long the store itself was away (rule 2): a lease less two renewals.
pub const GAP_MS: Millis = LEASE_MS - 2 * RENEW_MS;

/// Sessions that are to end, told with one renewal.
pub const MAX_MARKED: usize = 100;

/// Dead entries purged by one renewal.
pub const MAX_PURGED: u32 = 100;

/// A bucket's data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// None after the data were lost.
    marker: Option<Marker>,
    leases: Leases,
    accounts: BTreeMap<AccountKey, Account>,
}

/// What tells one life of the data from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Marker {
    generation: Generation,
    /// The server's own mark of its life; another one after a restart or a promotion (rule 1).
    server: u64,
    /// The second half of the recovery begins,
    second: Millis,
    /// and it ends.
    opens: Millis,
    /// When anybody last renewed.
    beat: Millis,
}

/// The nodes' leases in a bucket.
pub type Leases = BTreeMap<OwnerId, Lease>;

/// A node's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Its end.
    pub until: Millis,
    /// When it began; another value after it had run out.
    pub since: Millis,
    /// When its node last renewed it.
    pub renewed: Millis,
}

/// What a step brings along: the clock, the server's mark, a fresh generation in case that one is needed, and the
/// length of the two halves of a recovery.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The store's clock.
    pub now: Millis,
    /// The server's mark of its life.
    pub server: u64,
    /// A fresh value.
    pub fresh: Generation,
    /// Both halves, in milliseconds.
    pub halves: (Millis, Millis),
}

impl Bucket {
    /// An empty bucket that is open: nothing can have been lost.
    #[must_use]
    pub fn open(step: &Step) -> Self {
        let marker = Marker {
            generation: step.fresh,
            server: step.server,
            second: step.now,
            opens: step.now,
            beat: step.now,
        };
        Self {
            marker: Some(marker),
            ..Self::default()
        }
    }

    /// The head of every step: notices lost data, a store that was away and a clock that stepped back.
    fn enter(&mut self, step: &Step) -> (Generation, Phase) {
        let now = step.now;
        let known = self
            .marker
            .filter(|m| m.server == step.server || !holds(Rule::ServerLife));
        let mut marker = known.unwrap_or_else(|| {
            if holds(Rule::NewLifeExtends) {
                self.extend(now, |_| true);
                for account in self.accounts.values_mut() {
                    account.extend(now + LEASE_MS);
                }
            }
            let recovers = holds(Rule::Recovery);
            Marker {
                generation: step.fresh,
                server: step.server,
                second: if recovers { now + step.halves.0 } else { now },
                opens: if recovers {
                    now + step.halves.0 + step.halves.1
                } else {
                    now
                },
                beat: now,
            }
        });
        if marker.beat > now {
            // The clock stepped back: nothing may last longer than it was to.
            marker.second = marker.second.min(now + step.halves.0);
            marker.opens = marker.opens.min(now + step.halves.0 + step.halves.1);
            for lease in self.leases.values_mut() {
                lease.until = lease.until.min(now + LEASE_MS);
            }
            for account in self.accounts.values_mut() {
                account.step_back(marker.beat, now);
            }
            marker.beat = now;
        } else if now - marker.beat > GAP_MS {
            if holds(Rule::BeatGap) {
                // Once until its node renews it: a dead node's slots are freed also when the store stalls again and again.
                self.extend(now, |lease| lease.until <= lease.renewed + LEASE_MS);
                for account in self.accounts.values_mut() {
                    account.forgive(marker.beat, now);
                }
            }
            marker.beat = now;
        }
        self.marker = Some(marker);
        let phase = if now < marker.second {
            Phase::First {
                until: marker.second,
                opens: marker.opens,
            }
        } else if now < marker.opens {
            Phase::Second { opens: marker.opens }
        } else {
            Phase::Open
        };
        (marker.generation, phase)
    }

    /// Nobody is declared dead for a time in which nobody could renew.
    fn extend(&mut self, now: Millis, whose: impl Fn(&Lease) -> bool) {
        for lease in self.leases.values_mut().filter(|lease| whose(lease)) {
            lease.until = lease.until.max(now + LEASE_MS);
        }
    }

    /// A node's renewal: its lease, a bounded purge, and what the node compares with its own memory.
    pub fn renew(&mut self, owner: OwnerId, step: &Step, effects: &mut Upkeep) -> Renewed {
        let (generation, phase) = self.enter(step);
        let now = step.now;
        if let Some(marker) = &mut self.marker {
            marker.beat = now;
        }
        let lease = self.leases.entry(owner).or_insert(Lease {
            until: 0,
            since: 0,
            renewed: 0,
        });
        if lease.until <= now {
            lease.since = now;
        }
        lease.until = now + LEASE_MS;
        lease.renewed = now;
        let since = lease.since;
        let purged = self.purge(generation, phase, now, effects);
        let mine = |entry: &&Entry| entry.owner == owner && entry.generation == generation;
        let count = self
            .accounts
            .values()
            .flat_map(Account::entries)
            .filter(mine)
            .count();
        let marked = |(key, account): (&AccountKey, &Account)| {
            let marked = |entry: &&Entry| entry.owner == owner && entry.mark.is_some();
            let marked = account.entries().iter().filter(marked);
            marked
                .map(|entry| (key.clone(), entry.session))
                .collect::<Vec<_>>()
        };
        let marked = self.accounts.iter().flat_map(marked).take(MAX_MARKED).collect();
        Renewed {
            now,
            generation,
            phase,
            since,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            marked,
            purged,
        }
    }

    /// Drops what dead nodes left behind (rule 13), a bounded number of entries.
    fn purge(&mut self, generation: Generation, phase: Phase, now: Millis, effects: &mut Upkeep) -> u32 {
        let ground = Ground {
            now,
            generation,
            phase,
            leases: &self.leases,
        };
        let mut purged = 0;
        self.accounts.retain(|key, account| {
            if purged < MAX_PURGED && account.needs_upkeep(&ground) {
                let (before, mut done) = (account.used(), Effects::default());
                purged += account.purge(&ground, &mut done);
                let used = Some(account.used()).filter(|used| *used != before);
                effects.push((key.clone(), done, used));
            }
            !account.is_empty()
        });
        if !phase.recovering() {
            let accounts = &self.accounts;
            let holds_some = |owner: OwnerId| {
                let mut entries = accounts.values().flat_map(Account::entries);
                entries.any(|entry| entry.owner == owner)
            };
            self.leases
                .retain(|owner, lease| lease.until > now || holds_some(*owner));
        }
        purged
    }

    /// A step on one account.
    pub fn step<T>(
        &mut self,
        key: &AccountKey,
        step: &Step,
        effects: &mut Effects,
        rule: impl FnOnce(&mut Account, &Ground<'_>, &mut Effects) -> T,
    ) -> T {
        let (generation, phase) = self.enter(step);
        let ground = Ground {
            now: step.now,
            generation,
            phase,
            leases: &self.leases,
        };
        let account = self.accounts.entry(key.clone()).or_default();
        let answer = rule(account, &ground, effects);
        if account.is_empty() {
            self.accounts.remove(key);
        }
        answer
    }

    /// The table of an account; none when there is nothing to remember.
    #[must_use]
    pub fn account(&self, key: &AccountKey) -> Option<&Account> {
        self.accounts.get(key)
    }

    /// The nodes' leases.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Every account, in the order of its key.
    pub fn accounts(&self) -> impl Iterator<Item = (&AccountKey, &Account)> {
        self.accounts.iter()
    }
}

/// What a purge did, by account, with the slots taken where their number changed.
pub type Upkeep = Vec<(AccountKey, Effects, Option<u32>)>;
