//! The ends that a node told the store, or has yet to tell it.
//!
//! A release that was not answered is repeated until it is; and for a quarter of an hour a node remembers what it
//! ended, so that a store that lost its data hears of those plays again (rule 9).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, SessionId};

use super::model::{Fence, Generation, Holding};
use super::tenure::Tick;

/// How long an end is remembered.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// Most ends of one bucket; beyond it the oldest are forgotten.
const MOST: usize = 10_000;

/// An end.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Whose.
    pub(super) account: AccountKey,
    /// Of what.
    pub(super) holding: Holding,
    /// Why.
    pub(super) code: EndCode,
    at: Tick,
    /// The life of the data that knows it; none: still to be told.
    told: Option<Generation>,
}

/// The ends of one bucket.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// Oldest first.
    ends: VecDeque<End>,
    /// The highest epoch of each session.
    epochs: HashMap<SessionId, u64>,
}

impl Remembered {
    fn push(&mut self, end: End) {
        let Fence { session, epoch, .. } = end.holding.fence;
        let highest = self.epochs.entry(session).or_default();
        *highest = epoch.max(*highest);
        self.ends.push_back(end);
    }

    fn pop(&mut self) -> Option<End> {
        let end = self.ends.pop_front()?;
        let Fence { session, epoch, .. } = end.holding.fence;
        if self.epochs.get(&session) == Some(&epoch) {
            self.epochs.remove(&session);
        }
        Some(end)
    }
}

impl Ends {
    /// Adds an end that the store was told in this generation; none: it is to be told later. True when an older one
    /// was forgotten that the store was never told.
    pub(super) fn add(
        &self,
        account: &AccountKey,
        holding: Holding,
        code: EndCode,
        told: Option<Generation>,
        now: Tick,
    ) -> bool {
        let mut remembered = self.lock();
        // What the store was never told is kept as long as there is room.
        let old = |end: &End| end.told.is_some() && now.saturating_sub(end.at) > REMEMBERED;
        while remembered.ends.front().is_some_and(old) {
            remembered.pop();
        }
        let full = remembered.ends.len() >= MOST;
        let lost = full && remembered.pop().is_some_and(|end| end.told.is_none());
        remembered.push(End {
            account: account.clone(),
            holding,
            code,
            at: now,
            told,
        });
        lost
    }

    /// The highest epoch of the remembered ends of a session; 0 when there is none.
    pub(super) fn epoch(&self, session: SessionId) -> u64 {
        self.lock().epochs.get(&session).copied().unwrap_or_default()
    }

    /// Whether an end is still to be told.
    pub(super) fn has_untold(&self) -> bool {
        self.lock().ends.iter().any(|end| end.told.is_none())
    }

    /// Those that no life of the data knows, at most `most` of them.
    pub(super) fn untold(&self, most: usize) -> Vec<End> {
        let remembered = self.lock();
        let untold = remembered.ends.iter().filter(|end| end.told.is_none());
        untold.take(most).cloned().collect()
    }

    /// Those that this life of the data does not know, at most `most` of them.
    pub(super) fn forgotten(&self, generation: Generation, most: usize, now: Tick) -> Vec<End> {
        let remembered = self.lock();
        let fresh = |end: &&End| now.saturating_sub(end.at) <= REMEMBERED;
        let forgotten = remembered
            .ends
            .iter()
            .filter(fresh)
            .filter(|end| end.told != Some(generation));
        forgotten.take(most).cloned().collect()
    }

    /// This life of the data knows that end now.
    pub(super) fn told(&self, end: &End, generation: Generation) {
        let mut remembered = self.lock();
        let same = |one: &&mut End| one.holding.fence == end.holding.fence && one.at == end.at;
        if let Some(end) = remembered.ends.iter_mut().find(same) {
            end.told = Some(generation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
