//! The ends that a node told the store, or has yet to tell it.
//!
//! A release that was not answered is repeated until it is; and for a quarter of an hour a node remembers what it
//! ended, so that a store that lost its data hears of those plays again (rule 9).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::protocol::close::EndCode;
use crate::protocol::id::AccountKey;

use super::model::{Generation, Holding};
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

/// The ends of one bucket, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<VecDeque<End>>);

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
        let mut ends = self.lock();
        // What the store was never told is kept as long as there is room.
        while ends
            .front()
            .is_some_and(|end| end.told.is_some() && now.saturating_sub(end.at) > REMEMBERED)
        {
            ends.pop_front();
        }
        let full = ends.len() >= MOST;
        let mut lost = false;
        if full {
            lost = ends.pop_front().is_some_and(|end| end.told.is_none());
        }
        ends.push_back(End {
            account: account.clone(),
            holding,
            code,
            at: now,
            told,
        });
        lost
    }

    /// Whether an end is still to be told.
    pub(super) fn has_untold(&self) -> bool {
        self.lock().iter().any(|end| end.told.is_none())
    }

    /// Those that no life of the data knows, at most `most` of them.
    pub(super) fn untold(&self, most: usize) -> Vec<End> {
        let ends = self.lock();
        let untold = ends.iter().filter(|end| end.told.is_none());
        untold.take(most).cloned().collect()
    }

    /// Those that this life of the data does not know, at most `most` of them.
    pub(super) fn forgotten(&self, generation: Generation, most: usize, now: Tick) -> Vec<End> {
        let ends = self.lock();
        let fresh = |end: &&End| now.saturating_sub(end.at) <= REMEMBERED;
        let forgotten = ends
            .iter()
            .filter(fresh)
            .filter(|end| end.told != Some(generation));
        forgotten.take(most).cloned().collect()
    }

    /// This life of the data knows that end now.
    pub(super) fn told(&self, end: &End, generation: Generation) {
        let mut ends = self.lock();
        let same = |one: &&mut End| one.holding.fence == end.holding.fence && one.at == end.at;
        if let Some(end) = ends.iter_mut().find(same) {
            end.told = Some(generation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<End>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
