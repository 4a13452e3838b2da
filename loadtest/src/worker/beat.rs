//! A closed loop of frames on one socket: the next turn begins when the last one is answered.
//!
//! A heartbeat has no answer in the protocol, so that each turn ends with a ping, whose pong tells that all before it
//! was read. Owns: turns and their times. Called by: `hold`.

use std::time::Duration;

use futures_util::SinkExt;
use tokio::time::Instant;

use crate::plan::Beat;

use super::book::Book;
use super::dial::Failure;
use super::player::Player;

pub(super) struct Beats {
    texts: u32,
    pace: Duration,
    /// When the turn began that is not answered yet.
    asked: Option<Instant>,
    /// When the next turn may begin.
    free: Instant,
}

impl Beats {
    pub(super) fn new(beat: Beat) -> Self {
        Self {
            texts: beat.texts,
            pace: Duration::from_micros(beat.pace_us),
            asked: None,
            free: Instant::now(),
        }
    }

    /// Whether a turn may begin now.
    pub(super) fn is_due(&self) -> bool {
        self.asked.is_none() && Instant::now() >= self.free
    }

    /// When the next turn may begin; none while one is under way.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asked.is_none().then_some(self.free)
    }

    pub(super) async fn send(&mut self, player: &mut Player) -> Result<(), Failure> {
        self.asked = Some(Instant::now());
        for _ in 0..self.texts {
            let beat = player.beat();
            let fed = player.socket.feed(beat).await;
            fed.map_err(|_| Failure::new("send: broken"))?;
        }
        player.say(player.ping()).await
    }

    pub(super) fn heard(&mut self, book: &Book) {
        let Some(asked) = self.asked.take() else { return };
        book.time("beat", asked.elapsed());
        book.count_many("beats", u64::from(self.texts) + 1);
        self.free = asked + self.pace;
    }
}
