//! How a socket ends, and what becomes of the slot.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::lease::model::{Device, Fenced};
use crate::protocol::close::EndCode;
use crate::protocol::server::ServerMessage;

use super::line::Line;
use super::session::Session;

/// `ended` should be on its way before the slot is given on; a player that does not read is not waited for longer.
const LAST_WORD: Duration = Duration::from_millis(250);

/// The end of a socket.
#[derive(Debug)]
pub(super) enum Ending {
    /// The server ends it and says so.
    Told(Told),
    /// `denied` was said; only the close frame is left.
    Denied,
    /// The player closed with this code.
    Closed(Option<u16>),
    /// The connection broke.
    Lost,
}

/// What the player is told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) code: EndCode,
    by: Option<Arc<Device>>,
    detail: &'static str,
    /// The `id` of the message that asked for this end.
    id: Option<Box<RawValue>>,
    slot: Slot,
    /// When the slot was due to be freed, where that is not now.
    pub(super) due: Option<Instant>,
}

/// Where the slot is when the socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// The store holds it for this session under this fence.
    Held,
    /// The session goes on, on another socket.
    Elsewhere,
    /// The store holds it no more.
    Gone,
}

impl Ending {
    pub(super) fn told(code: EndCode, detail: &'static str) -> Self {
        Self::Told(Told {
            code,
            by: None,
            detail,
            id: None,
            slot: Slot::Held,
            due: None,
        })
    }

    pub(super) fn stopped() -> Self {
        Self::told(EndCode::Stopped, "the player stopped")
    }

    pub(super) fn slow() -> Self {
        Self::told(EndCode::SlowConsumer, "the player does not read its messages")
    }

    pub(super) fn bad_message(detail: &'static str) -> Self {
        Self::told(EndCode::BadMessage, detail)
    }

    pub(super) fn token_expired() -> Self {
        Self::told(EndCode::TokenExpired, "the token expired and no fresh one came")
    }

    pub(super) fn unavailable() -> Self {
        Self::told(EndCode::Unavailable, "the slots cannot be judged just now")
    }

    pub(super) fn limit(detail: &'static str) -> Self {
        Self::told(EndCode::StreamLimitReached, detail)
    }

    pub(super) fn draining() -> Self {
        Self::told(EndCode::Draining, "the node is leaving; reconnect with resume")
    }

    pub(super) fn silent(due: Instant) -> Self {
        let detail = "nothing was heard from the player for the whole lease";
        Self::Told(Told {
            code: EndCode::HeartbeatMissed,
            by: None,
            detail,
            id: None,
            slot: Slot::Held,
            due: Some(due),
        })
    }

    pub(super) fn displaced(by: Arc<Device>) -> Self {
        let detail = "another player of the account took the slot over";
        Self::Told(Told {
            code: EndCode::Displaced,
            by: Some(by),
            detail,
            id: None,
            slot: Slot::Held,
            due: None,
        })
    }

    /// Ended by somebody's order, which the owner of the socket carries out.
    pub(super) fn from_elsewhere(code: EndCode) -> Self {
        Self::told(code, detail(code))
    }

    /// The same end as the answer to a message, whose `id` it echoes.
    pub(super) fn answering(mut self, id: Option<&RawValue>) -> Self {
        if let Self::Told(told) = &mut self {
            told.id = id.map(RawValue::to_owned);
        }
        self
    }

    /// The session plays on another socket, which holds the slot now.
    pub(super) fn moved() -> Self {
        let (code, slot) = (EndCode::Moved, Slot::Elsewhere);
        Self::Told(Told {
            code,
            by: None,
            detail: detail(code),
            id: None,
            slot,
            due: None,
        })
    }

    /// The store holds no slot for this session any more.
    pub(super) fn gone(code: EndCode) -> Self {
        Self::Told(Told {
            code,
            by: None,
            detail: detail(code),
            id: None,
            slot: Slot::Gone,
            due: None,
        })
    }
}

fn detail(code: EndCode) -> &'static str {
    match code {
        EndCode::Moved => "the session, or its device, plays on another socket now",
        EndCode::EndedByOperator => "an operator ended the session",
        EndCode::Displaced => "another player of the account took the slot over",
        EndCode::AccountBlocked => "the account is blocked",
        EndCode::ContentUnavailable => "the content may not be played any more",
        EndCode::LeaseLost => "the slot was lost",
        _ => "the session has ended",
    }
}

impl Session {
    /// Ends the socket. The slot is freed before the closing handshake, which a player may draw out.
    pub(super) async fn end(mut self, mut line: Line, ending: Ending) {
        self.fall_silent();
        match ending {
            // It asked for this: when it reads `ended`, its slot is free, on every node.
            Ending::Told(told) if told.code == EndCode::Stopped => {
                self.give_up(told.code, told.due).await;
                self.say_ended(&mut line, &told).await;
                line.socket.close(told.code.number(), told.code.name()).await;
            }
            Ending::Told(told) => {
                self.say_ended(&mut line, &told).await;
                let last_frame = line.silence.last_frame();
                let close = line.socket.close(told.code.number(), told.code.name());
                match told.slot {
                    Slot::Held
                        if self.granted.is_some()
                            && told.code == EndCode::Draining
                            && self.is_last_call() =>
                    {
                        self.leave_behind().await;
                        close.await;
                    }
                    Slot::Held if self.granted.is_some() && told.code.keeps_slot() => {
                        self.log_socket_end(told.code.name());
                        tokio::join!(close, self.park(last_frame, told.code));
                    }
                    Slot::Held => {
                        self.give_up(told.code, told.due).await;
                        close.await;
                    }
                    Slot::Gone => {
                        self.seat.leave();
                        self.log_end(told.code, "ended");
                        close.await;
                    }
                    Slot::Elsewhere => {
                        self.move_away();
                        close.await;
                    }
                }
            }
            Ending::Denied => {
                self.log_end(EndCode::StreamLimitReached, "denied");
                let code = EndCode::StreamLimitReached;
                line.socket.close(code.number(), code.name()).await;
            }
            Ending::Closed(Some(1000 | 1001)) => {
                self.give_up(EndCode::Stopped, None).await;
                line.socket.finish().await;
            }
            Ending::Closed(_) | Ending::Lost if self.granted.is_some() => {
                self.log_socket_end("connection lost");
                let last_frame = line.silence.last_frame();
                tokio::join!(
                    line.socket.finish(),
                    self.park(last_frame, EndCode::HeartbeatMissed)
                );
            }
            Ending::Closed(_) | Ending::Lost => {
                self.give_up(EndCode::HeartbeatMissed, None).await;
                line.socket.finish().await;
            }
        }
    }

    /// The start comes to nothing: somebody ended the session before it was granted, or blocked its account.
    pub(super) fn ended_elsewhere(&self, code: EndCode) -> Ending {
        if code == EndCode::AccountBlocked {
            self.gateway.metrics.denials_total.inc("blocked");
        }
        Ending::from_elsewhere(code)
    }

    async fn say_ended(&self, line: &mut Line, told: &Told) {
        let ended = ServerMessage::Ended {
            code: told.code,
            by: told.by.as_deref().map(Device::screen),
            detail: told.detail,
        };
        if self.say(line, &ended, told.id.as_deref()).is_ok() {
            line.socket.flush(LAST_WORD).await;
        }
    }

    /// Frees the slot or the place in the line, and writes the one line that tells why a player was cut off.
    pub(super) async fn give_up(&mut self, code: EndCode, due: Option<Instant>) {
        let account = &self.player.account;
        self.seat.leave();
        let answer = self.gateway.lease.release(account, &self.holding(), code).await;
        if answer == Fenced::NotYours {
            // It was resumed elsewhere at this very moment.
            return self.move_away();
        }
        if let Some(due) = due.filter(|_| self.granted.is_some()) {
            self.gateway
                .metrics
                .release_lateness_seconds
                .observe(due.elapsed().as_secs_f64());
        }
        self.log_end(code, "ended");
    }

    pub(super) fn log_end(&mut self, code: EndCode, what: &'static str) {
        let played = self.granted.take().map(|grant| grant.at.elapsed());
        if let Some(played) = played {
            self.gateway.metrics.sessions_ended_total.inc(code.name());
            self.gateway
                .metrics
                .session_duration_seconds
                .observe(played.as_secs_f64());
        }
        let progress = self.holding().progress;
        tracing::info!(
            session = %self.id,
            // As texts, which the log quotes and escapes: players choose them, line breaks included.
            tenant = &*self.player.account.tenant,
            account = &*self.player.account.account,
            device = &*self.player.device.id,
            content = &*self.player.content,
            address = %self.player.address,
            code = code.number(),
            reason = code.name(),
            duration_ms = played.map_or(0, crate::protocol::server::millis),
            position_ms = progress.position_ms,
            watched_ms = progress.watched_ms,
            epoch = self.epoch,
            request_id = %self.player.request,
            "session {what}"
        );
    }

    fn log_socket_end(&self, reason: &str) {
        tracing::debug!(
            session = %self.id,
            account = &*self.player.account.account,
            reason,
            request_id = %self.player.request,
            "socket ended; the slot is kept for a resume"
        );
    }
}
