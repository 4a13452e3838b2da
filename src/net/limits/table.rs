//! What each key (an address, an account, a token) has open and how fast it came, in bounded memory.
//!
//! Owns: one entry per key that matters now, and one shared by whatever does not fit.
//! Does not: know exempt or trusted addresses, nor what a key stands for.
//! Called by: [`super::Admission`] and [`super::RequestLimits`].

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::{Pace, Rate};

/// Keys with an entry of their own; newcomers beyond share one, so that a flood from a million addresses costs
/// megabytes and not the process.
const MAX_TRACKED: usize = 100_000;
/// Entries looked at for each event that is counted: more than one, so that the sweep outruns the growth.
const SWEPT_PER_ENTRY: usize = 4;

/// The counts by key. One lock for all, held for well under a microsecond per event: sharding it would still leave
/// `order` to be locked each time.
#[derive(Debug)]
pub(super) struct Table<K> {
    /// Open at once per key; 0 is no limit.
    limit: u32,
    rate: Rate,
    max_tracked: usize,
    state: Mutex<State<K>>,
}

/// Where a client is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot<K> {
    /// In the entry of this key, which stays while anything is open.
    Own(K),
    /// In the shared entry.
    Overflow,
}

/// Which limit refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Too many are open.
    Limit,
    /// They come too fast.
    Rate,
}

#[derive(Debug)]
struct State<K> {
    entries: HashMap<K, Entry>,
    /// The keys of `entries`, each once, the next to be swept first.
    order: VecDeque<K>,
    overflow: Entry,
}

#[derive(Debug, Default)]
struct Entry {
    open: u32,
    pace: Pace,
}

impl<K: Copy + Eq + Hash> Table<K> {
    pub(super) fn new(limit: u32, rate: Rate) -> Self {
        Self {
            limit,
            rate,
            max_tracked: MAX_TRACKED,
            state: Mutex::new(State {
                entries: HashMap::new(),
                order: VecDeque::new(),
                overflow: Entry::default(),
            }),
        }
    }

    /// Whether there is nothing to count.
    pub(super) fn is_unlimited(&self) -> bool {
        self.limit == 0 && self.rate.is_unlimited()
    }

    /// Counts one event of `key` that is over at once, or refuses it, which changes nothing.
    ///
    /// # Errors
    /// How long to wait until one is allowed again.
    pub(super) fn try_take(&self, key: K, now: Instant) -> Result<(), Duration> {
        if self.rate.is_unlimited() {
            return Ok(());
        }
        let mut state = self.lock();
        let (entry, _) = state.entry(key, now, self.max_tracked);
        self.rate.try_take(&mut entry.pace, now)
    }

    /// Whether one event of `key` would be allowed now. Counts nothing, and makes no entry.
    ///
    /// # Errors
    /// How long to wait until one is.
    pub(super) fn check(&self, key: K, now: Instant) -> Result<(), Duration> {
        let state = self.lock();
        let full = state.entries.len() >= self.max_tracked;
        let shared = full.then_some(&state.overflow);
        let mut pace = state.entries.get(&key).or(shared).map(|entry| entry.pace);
        self.rate.try_take(pace.get_or_insert_default(), now)
    }

    /// Counts an event of `key` that has happened.
    pub(super) fn charge(&self, key: K, now: Instant) {
        if self.rate.is_unlimited() {
            return;
        }
        let mut state = self.lock();
        let (entry, _) = state.entry(key, now, self.max_tracked);
        self.rate.charge(&mut entry.pace, now);
    }

    /// Counts one more client of `key`, which is open until [`Table::leave`], or refuses it, which changes nothing.
    pub(super) fn try_enter(&self, key: K, now: Instant) -> Result<Slot<K>, Over> {
        let mut state = self.lock();
        let (entry, slot) = state.entry(key, now, self.max_tracked);
        if self.limit > 0 && entry.open >= self.limit {
            return Err(Over::Limit);
        }
        let taken = self.rate.try_take(&mut entry.pace, now);
        taken.map_err(|_| Over::Rate)?;
        entry.open += 1;
        Ok(slot)
    }

    /// Takes a client off the count again.
    pub(super) fn leave(&self, slot: Slot<K>) {
        let mut state = self.lock();
        let entry = match slot {
            Slot::Own(key) => state.entries.get_mut(&key),
            Slot::Overflow => Some(&mut state.overflow),
        };
        if let Some(entry) = entry {
            entry.open = entry.open.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> State<K> {
    /// Where `key` is counted, after a step of the sweep.
    fn entry(&mut self, key: K, now: Instant, max_tracked: usize) -> (&mut Entry, Slot<K>) {
        self.sweep(now);
        if !self.entries.contains_key(&key) {
            if self.entries.len() >= max_tracked {
                return (&mut self.overflow, Slot::Overflow);
            }
            self.order.push_back(key);
        }
        (self.entries.entry(key).or_default(), Slot::Own(key))
    }

    /// Forgets those of the next few keys that have nothing open and their whole burst back.
    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT_PER_ENTRY.min(self.order.len()) {
            let Some(key) = self.order.pop_front() else { return };
            if self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.open > 0 || !entry.pace.is_full(now))
            {
                self.order.push_back(key);
            } else {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn an_address_is_forgotten_when_idle_and_its_burst_is_back() {
        let table = Table::new(10, Rate::new(1, 10));
        let start = Instant::now();
        let held = table.try_enter(ip(0), start).unwrap();
        for number in 1..100 {
            let slot = table.try_enter(ip(number), start).unwrap();
            table.leave(slot);
        }
        assert_eq!(table.lock().entries.len(), 100);
        let later = start + Duration::from_secs(2);
        for _ in 0..26 {
            table.leave(table.try_enter(ip(1_000), later).unwrap_or(Slot::Overflow));
        }
        let state = table.lock();
        assert_eq!(state.entries.len(), 2, "the open one and the newcomer are left");
        assert_eq!(state.order.len(), 2);
        assert_eq!(held, Slot::Own(ip(0)));
        assert_eq!(state.entries[&ip(0)].open, 1);
    }

    #[test]
    fn newcomers_beyond_the_cap_share_one_entry() {
        let table = Table {
            max_tracked: 2,
            ..Table::new(2, Rate::new(0, 10))
        };
        let now = Instant::now();
        let first = table.try_enter(ip(1), now).unwrap();
        let second = table.try_enter(ip(2), now).unwrap();
        assert_eq!(table.try_enter(ip(3), now), Ok(Slot::Overflow));
        assert_eq!(table.try_enter(ip(4), now), Ok(Slot::Overflow));
        assert_eq!(table.try_enter(ip(5), now), Err(Over::Limit));
        assert_eq!(
            table.try_enter(ip(1), now),
            Ok(Slot::Own(ip(1))),
            "known ones keep their own"
        );
        table.leave(Slot::Overflow);
        assert_eq!(table.try_enter(ip(5), now), Ok(Slot::Overflow));
        table.leave(second);
        assert_eq!(
            table.try_enter(ip(6), now),
            Ok(Slot::Own(ip(6))),
            "a place was freed"
        );
        assert_eq!(first, Slot::Own(ip(1)));
    }

    #[test]
    fn memory_stays_bounded_in_a_flood() {
        let table = Table {
            max_tracked: 1_000,
            ..Table::new(5, Rate::new(1, 10))
        };
        let mut now = Instant::now();
        for number in 0..20_000 {
            now += Duration::from_micros(100);
            if let Ok(slot) = table.try_enter(ip(number), now) {
                table.leave(slot);
            }
            assert!(table.lock().entries.len() <= 1_000);
        }
        let state = table.lock();
        assert_eq!(state.order.len(), state.entries.len());
    }
}
