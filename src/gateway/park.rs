//! A session whose socket died: its slot is kept until the lease runs out, for a resume on any node.

use tokio::time::Instant;

use crate::lease::model::{Held, Mark};
use crate::protocol::close::EndCode;

use super::session::Session;

impl Session {
    /// Waits for the resume that moves the session away, or for the end of its lease. `code` is how the play ends
    /// when nobody comes.
    pub(super) async fn park(&mut self, last_frame: Instant, code: EndCode) {
        let due = last_frame + self.gateway.timing.period;
        let expiry = tokio::time::sleep_until(due);
        tokio::pin!(expiry);
        loop {
            let news = tokio::select! {
                () = &mut expiry => return self.give_up(code, Some(due)).await,
                news = self.inbox.take() => news,
            };
            if news.drain.is_some() {
                return self.leave_behind();
            }
            if !news.look {
                continue;
            }
            let Ok(held) = self
                .gateway
                .store
                .inspect(&self.player.account, self.fence())
                .await
            else {
                continue;
            };
            match held {
                // Nobody is there to be asked.
                Held::Yours {
                    mark: None | Some(Mark::TakeOver { asked: true, .. }),
                } => {}
                Held::Yours {
                    mark: Some(Mark::TakeOver { asked: false, .. }),
                } => {
                    return self.give_up(EndCode::Displaced, None).await;
                }
                Held::Yours {
                    mark: Some(Mark::Kick(code)),
                } => return self.give_up(code, None).await,
                Held::Moved => return self.move_away(),
                Held::Gone(code) => return self.log_end(code.unwrap_or(EndCode::LeaseLost), "ended"),
            }
        }
    }

    /// The entry outlives this process by its node lease, so that the player can resume elsewhere: a drain waits
    /// for nobody's lease.
    pub(super) fn leave_behind(&mut self) {
        self.log_end(EndCode::Draining, "left behind");
    }

    /// The session goes on elsewhere: it has not ended.
    pub(super) fn move_away(&mut self) {
        self.granted = None;
        tracing::debug!(session = %self.id, request_id = %self.player.request, "session resumed on another socket");
    }
}
