//! What waits to be told to one session's task.
//!
//! Not a queue but the latest state of each kind of news, so that it is bounded whatever happens and costs an idle
//! session no buffer.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;

/// The news of one session.
#[derive(Default)]
pub struct Inbox {
    news: Mutex<News>,
    arrived: Notify,
}

/// What a session's task should know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Ask the store what became of the session.
    pub look: bool,
    /// The account has this many slots taken.
    pub used: Option<u32>,
    /// The node leaves.
    pub drain: Option<Drain>,
}

/// The steps of leaving a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Tell the player to reconnect within this time.
    Announce(Duration),
    /// Close now.
    Close,
}

impl Inbox {
    /// Adds to the news and wakes the task.
    pub fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.lock());
        self.arrived.notify_one();
    }

    /// Waits for news and takes them. Safe to cancel: what was not returned is still there.
    pub async fn take(&self) -> News {
        loop {
            let news = std::mem::take(&mut *self.lock());
            if news != News::default() {
                return news;
            }
            self.arrived.notified().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, News> {
        // The news are plain values: a panic elsewhere cannot leave them half changed.
        self.news
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
