//! A session whose socket died: its slot is kept until the lease runs out, for a resume on any node.

use tokio::time::Instant;

use crate::lease::model::{Held, Mark};
use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;

use super::seat::Word;
use super::session::Session;

impl Session {
    /// Waits for the resume that moves the session away, or for the end of its lease. `code` is how the play ends
    /// when nobody comes.
    pub(super) async fn park(&mut self, last_frame: Instant, code: EndCode) {
        let due = last_frame + self.gateway.timing.period;
        let expiry = tokio::time::sleep_until(due);
        tokio::pin!(expiry);
        // Nobody watches any more; should this node die too, the store knows how far the play was (rule 28).
        self.seat.change(|holding| holding.state = PlayState::Paused);
        self.seat.tell(|news| news.look = true);
        loop {
            let news = tokio::select! {
                () = &mut expiry => return self.give_up(code, Some(due)).await,
                news = self.seat.take() => news,
            };
            match news.word {
                Some(Word::Moved) => return self.move_away(),
                Some(Word::End(code)) => return self.give_up(code, None).await,
                None => {}
            }
            if news.drain.is_some() && self.is_last_call() {
                return self.leave_behind().await;
            }
            if !news.look {
                continue;
            }
            let account = &self.player.account;
            let holding = self.holding();
            let asking = self.gateway.lease.audit_one(account, &holding);
            let held = tokio::select! {
                () = &mut expiry => return self.give_up(code, Some(due)).await,
                held = asking => held,
            };
            let Ok(held) = held else {
                continue;
            };
            match held {
                // Nobody is there to be asked.
                Held::Later
                | Held::Yours {
                    mark: None | Some(Mark::TakeOver { asked: true, .. }),
                    ..
                } => {}
                Held::Yours {
                    mark: Some(Mark::TakeOver { asked: false, .. }),
                    ..
                } => {
                    return self.give_up(EndCode::Displaced, None).await;
                }
                Held::Yours {
                    mark: Some(Mark::Kick(code)),
                    ..
                } => return self.give_up(code, None).await,
                Held::Moved => return self.move_away(),
                Held::Gone(code) => {
                    self.seat.leave();
                    return self.log_end(code.unwrap_or(EndCode::LeaseLost), "ended");
                }
            }
        }
    }

    /// Whether the node is about to end. Before that a drain may take long: whoever does not come back within it must
    /// not keep the slot until its end.
    pub(super) fn is_last_call(&self) -> bool {
        self.gateway.registry.leaving().is_cancelled()
    }

    /// The entry outlives this process by its node lease, so that the player can resume elsewhere: a drain waits
    /// for nobody's lease.
    pub(super) async fn leave_behind(&mut self) {
        self.seat.change(|holding| holding.state = PlayState::Paused);
        let account = &self.player.account;
        // Only a checkpoint: whoever resumes it goes on from there.
        let _ = self.gateway.lease.audit_one(account, &self.holding()).await;
        self.log_end(EndCode::Draining, "left behind");
    }

    /// The session goes on elsewhere: it has not ended.
    pub(super) fn move_away(&mut self) {
        self.seat.leave();
        self.granted = None;
        tracing::debug!(session = %self.id, request_id = %self.player.request, "session resumed on another socket");
    }
}
