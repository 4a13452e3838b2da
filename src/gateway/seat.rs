//! What one session's task shares with its node: what it holds, and what waits to be told to it.
//!
//! News are not a queue but the latest state of each kind, so that they are bounded whatever happens and cost an
//! idle session no buffer.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::lease::model::{Fence, Generation, Holding};
use crate::protocol::close::EndCode;
use crate::protocol::id::SessionId;
use crate::protocol::server::millis;
use crate::telemetry::Counted;

use super::ear::{Direct, Ear, Heard, Next};

/// One session of this node.
pub struct Seat {
    session: SessionId,
    /// Where it is among those of its room, for whoever keeps the room.
    pub place: AtomicU32,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    news: News,
    ear: Ear,
    taken: Option<Taken>,
}

/// What is held, boxed: a player that only waits needs no room for it.
type Taken = Box<Slot>;

struct Slot {
    holding: Holding,
    /// Since when time is watched that `holding` does not count yet; none while it is paused.
    watching: Option<Instant>,
    /// A grant without the store, until the store confirms it.
    provisional: Option<Counted>,
    /// Whether the session ends.
    left: bool,
}

/// What a session's task should know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Ask the store what became of the session.
    pub look: bool,
    /// The account has this many slots taken.
    pub used: Option<u32>,
    /// Messages wait for the socket.
    pub post: bool,
    /// The limits may be others now.
    pub policy: bool,
    /// The node leaves.
    pub drain: Option<Drain>,
    /// The node ended it by itself.
    pub word: Option<Word>,
}

/// The steps of leaving a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Tell the player to reconnect within this time.
    Announce(Duration),
    /// Close now.
    Close,
}

/// What a node decides while it cannot ask the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The session went to another socket of this node.
    Moved,
    /// It ends, and the store is to hear of it.
    End(EndCode),
}

impl Seat {
    /// The seat of a session that is only starting.
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            place: AtomicU32::default(),
            state: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Whose seat it is.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Adds to the news and wakes the task.
    pub fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.lock().news);
        self.arrived.notify_one();
    }

    /// Waits for news and takes them. Safe to cancel: what was not returned is still there.
    pub async fn take(&self) -> News {
        loop {
            let news = std::mem::take(&mut self.lock().news);
            if news != News::default() {
                return news;
            }
            self.arrived.notified().await;
        }
    }

    /// Hears messages from now on, those of its account after `since` first.
    pub fn listen(&self, since: Option<u64>) {
        self.lock().ear.listen(since);
    }

    /// Hears none any more.
    pub fn hush(&self) {
        self.lock().ear.hush();
    }

    /// Whether it hears messages.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.lock().ear.listens()
    }

    /// The newest message to its account has this id; whether something is missing here.
    pub fn compare(&self, newest: u64) -> bool {
        self.lock().ear.compare(newest)
    }

    /// A message to its account was just said.
    pub fn offer(&self, message: &Direct) -> Heard {
        self.with_ear(|ear| ear.offer(message))
    }

    /// The next message to its account out of the database.
    pub fn read(&self, id: u64, text: &Utf8Bytes) -> Heard {
        self.with_ear(|ear| ear.read(id, text))
    }

    /// All up to this id was read.
    pub fn pass(&self, newest: u64) {
        self.lock().ear.pass(newest);
    }

    /// The id after which somebody is to read to it; none: somebody does so already, or it does not listen.
    pub fn begin_reading(&self) -> Option<u64> {
        self.lock().ear.begin_reading()
    }

    /// Reading is over; whether it is to begin again.
    pub fn end_reading(&self) -> bool {
        self.lock().ear.end_reading()
    }

    /// A message in its room; how many older ones were lost for it.
    pub fn overhear(&self, text: Utf8Bytes) -> usize {
        self.with_ear(|ear| ear.overhear(text))
    }

    /// Keeps room for the answer to a question; false: there is none.
    pub(super) fn await_answer(&self) -> bool {
        self.lock().ear.await_answer()
    }

    /// The answer; none: there will be none.
    pub fn answer(&self, text: Option<Utf8Bytes>) {
        self.with_ear(|ear| ear.answer(text));
    }

    pub(super) fn next_frame(&self) -> Next {
        self.lock().ear.next()
    }

    /// Changes what waits for the socket, and wakes its task when it is not awake for that already.
    fn with_ear<T>(&self, change: impl FnOnce(&mut Ear) -> T) -> T {
        let mut state = self.lock();
        let done = change(&mut state.ear);
        let awake = std::mem::replace(&mut state.news.post, true);
        drop(state);
        if !awake {
            self.arrived.notify_one();
        }
        done
    }

    /// The session holds a slot from now on.
    pub fn sit(&self, holding: Holding) {
        let watching = holding.state.is_watching().then(Instant::now);
        self.lock().taken = Some(Box::new(Slot {
            holding,
            watching,
            provisional: None,
            left: false,
        }));
    }

    /// Counts a grant without the store until the store confirms it or the session ends.
    pub fn is_provisional(&self, counted: Counted) {
        if let Some(slot) = &mut self.lock().taken {
            slot.provisional = Some(counted);
        }
    }

    /// The session holds nothing any more.
    pub fn stand_up(&self) -> Option<Holding> {
        let mut slot = self.lock().taken.take()?;
        slot.settle();
        Some(slot.holding)
    }

    /// The session ends: from now on it is not written again, and does not count here.
    pub(super) fn leave(&self) {
        if let Some(slot) = &mut self.lock().taken {
            slot.left = true;
        }
    }

    /// What the session holds and does not leave.
    pub(super) fn held(&self) -> Option<Holding> {
        let left = self.lock().taken.as_ref()?.left;
        if left { None } else { self.holding() }
    }

    /// What the session holds, up to this moment.
    #[must_use]
    pub fn holding(&self) -> Option<Holding> {
        let mut state = self.lock();
        let slot = state.taken.as_mut()?;
        slot.settle();
        Some(slot.holding.clone())
    }

    /// What is watched now; none while it is paused, or takes no slot.
    pub(super) fn watching(&self) -> Option<Arc<str>> {
        let state = self.lock();
        let slot = state.taken.as_ref().filter(|slot| slot.watching.is_some())?;
        Some(Arc::clone(&slot.holding.content))
    }

    /// Changes what the session holds.
    pub fn change(&self, change: impl FnOnce(&mut Holding)) {
        if let Some(slot) = &mut self.lock().taken {
            slot.settle();
            change(&mut slot.holding);
            let since = slot.watching.unwrap_or_else(Instant::now);
            slot.watching = slot.holding.state.is_watching().then_some(since);
        }
    }

    /// The store confirmed what is held under this fence.
    pub(super) fn confirm(&self, fence: Fence, generation: Generation) {
        let mut state = self.lock();
        if let Some(slot) = state.taken.as_mut().filter(|slot| slot.holding.fence == fence) {
            slot.holding.generation = generation;
            slot.holding.doubtful = false;
            slot.provisional = None;
        }
    }

    /// The store knows nothing of this fence any more.
    pub(super) fn doubt(&self, fence: Fence) {
        let mut state = self.lock();
        if let Some(slot) = state.taken.as_mut().filter(|slot| slot.holding.fence == fence) {
            slot.holding.doubtful = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values: a panic elsewhere cannot leave them half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Counts the time watched until now.
    fn settle(&mut self) {
        if let Some(since) = &mut self.watching {
            // Whole milliseconds; the rest counts the next time.
            let watched = millis(since.elapsed());
            self.holding.progress.watched_ms += watched;
            *since += Duration::from_millis(watched);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::lease::model::Holding;
    use crate::protocol::client::PlayState;
    use crate::protocol::id::OwnerId;

    /// Pauses are not watched; odd fractions of a millisecond are not lost by looking often.
    #[tokio::test(start_paused = true)]
    async fn only_playing_time_counts() {
        let session = SessionId::from_bytes([1; 16]);
        let seat = Seat::new(session);
        let fence = Fence {
            session,
            owner: OwnerId(1),
            epoch: 1,
        };
        seat.sit(Holding::stranger(fence));
        let watched = |seat: &Seat| seat.holding().unwrap().progress.watched_ms;
        for _ in 0..1_000 {
            tokio::time::advance(Duration::from_micros(1_500)).await;
            watched(&seat);
        }
        assert_eq!(watched(&seat), 1_500);
        seat.change(|holding| holding.state = PlayState::Paused);
        tokio::time::advance(Duration::from_secs(60)).await;
        seat.change(|holding| holding.state = PlayState::Background);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(watched(&seat), 2_500);
    }
}
