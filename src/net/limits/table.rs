//! What each address has open and how fast it came, in bounded memory.
//!
//! Owns: one entry per address that matters now, and one shared by whatever does not fit.
//! Does not: know exempt or trusted addresses.
//! Called by: [`super::Admission`].

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::rate::{Pace, Rate};
use crate::telemetry::Refusal;

/// Addresses with an entry of their own; newcomers beyond share one, so that a flood from a million addresses
/// costs megabytes and not the process.
const MAX_TRACKED: usize = 100_000;
/// Entries looked at for each client that enters: more than one, so that the sweep outruns the growth.
const SWEPT_PER_ENTRY: usize = 4;

/// The counts by address. One lock for all, held for well under a microsecond per connection: sharding it would
/// still leave `order` to be locked each time.
#[derive(Debug)]
pub(super) struct Table {
    /// Open at once per address; 0 is no limit.
    limit: u32,
    rate: Rate,
    max_tracked: usize,
    state: Mutex<State>,
}

/// Where a client is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// In the entry of this address, which stays while anything is open.
    Own(IpAddr),
    /// In the shared entry.
    Overflow,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<IpAddr, Entry>,
    /// The keys of `entries`, each once, the next to be swept first.
    order: VecDeque<IpAddr>,
    overflow: Entry,
}

#[derive(Debug, Default)]
struct Entry {
    open: u32,
    pace: Pace,
}

impl Table {
    pub(super) fn new(limit: u32, rate: Rate) -> Self {
        Self {
            limit,
            rate,
            max_tracked: MAX_TRACKED,
            state: Mutex::default(),
        }
    }

    /// Whether there is nothing to count.
    pub(super) fn is_unlimited(&self) -> bool {
        self.limit == 0 && self.rate.is_unlimited()
    }

    /// Counts one more client of `key` (see [`crate::net::address::key`]), or refuses it, which changes nothing.
    pub(super) fn try_enter(&self, key: IpAddr, now: Instant) -> Result<Slot, Refusal> {
        let mut state = self.lock();
        let State {
            entries,
            order,
            overflow,
        } = &mut *state;
        sweep(entries, order, now);
        if let Some(entry) = entries.get_mut(&key) {
            self.admit(entry, now)?;
            return Ok(Slot::Own(key));
        }
        if entries.len() >= self.max_tracked {
            self.admit(overflow, now)?;
            return Ok(Slot::Overflow);
        }
        order.push_back(key);
        self.admit(entries.entry(key).or_default(), now)?;
        Ok(Slot::Own(key))
    }

    /// Takes a client off the count again.
    pub(super) fn leave(&self, slot: Slot) {
        let mut state = self.lock();
        let entry = match slot {
            Slot::Own(key) => state.entries.get_mut(&key),
            Slot::Overflow => Some(&mut state.overflow),
        };
        if let Some(entry) = entry {
            entry.open = entry.open.saturating_sub(1);
        }
    }

    fn admit(&self, entry: &mut Entry, now: Instant) -> Result<(), Refusal> {
        if self.limit > 0 && entry.open >= self.limit {
            return Err(Refusal::AddressLimit);
        }
        if !self.rate.try_take(&mut entry.pace, now) {
            return Err(Refusal::AddressRate);
        }
        entry.open += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets those of the next few addresses that have nothing open and their whole burst back.
fn sweep(entries: &mut HashMap<IpAddr, Entry>, order: &mut VecDeque<IpAddr>, now: Instant) {
    for _ in 0..SWEPT_PER_ENTRY.min(order.len()) {
        let Some(key) = order.pop_front() else { return };
        if entries
            .get(&key)
            .is_some_and(|entry| entry.open > 0 || !entry.pace.is_full(now))
        {
            order.push_back(key);
        } else {
            entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::net::Ipv4Addr;
    use std::time::Duration;

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
        assert_eq!(table.try_enter(ip(5), now), Err(Refusal::AddressLimit));
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
