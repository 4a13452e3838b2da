//! What the gateway asks of the room above it that carries messages between viewers.
//!
//! Owns: the words of that question, and what a session does with messages on its socket. Does not: store or carry
//! anything. No call here waits: what takes time is answered later, through the seat.
//! Called by: sessions and inboxes.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::protocol::id::AccountKey;
use crate::protocol::message::Draft;
use crate::protocol::server::{ErrorCode, ServerMessage, encode};

use super::ear::Next;
use super::ending::Ending;
use super::line::Line;
use super::seat::Seat;
use super::session::Session;
use super::socket::NotSent;

/// One who hears and speaks on a socket.
#[derive(Clone)]
pub struct Speaker {
    /// As whom.
    pub account: AccountKey,
    /// Where answers and messages go.
    pub seat: Arc<Seat>,
    /// What it watches, and so whose room it is in; none: an inbox.
    pub content: Option<Arc<str>>,
}

/// What a socket asks for.
#[derive(Debug)]
pub enum Word {
    /// To pass a message on.
    Say(Box<Draft>),
    /// To note what was read.
    Read {
        /// The other party.
        with: String,
        /// Up to this message.
        id: u64,
    },
    /// Who is in its room, and what was said there last.
    Room,
}

/// A question of a socket, which waits for its answer.
pub struct Question {
    /// Who asks.
    pub by: Speaker,
    /// What.
    pub word: Word,
    /// The `id` to echo.
    pub id: Option<Box<RawValue>>,
}

/// Too much is under way already: the same may work in a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Carries messages between viewers. Nothing here blocks or waits.
pub trait Exchange: Send + Sync {
    /// A socket hears from now on: what its account missed after `since`, then what comes. `anew`: its session begins, and
    /// does not go on from another socket.
    fn enter(&self, who: &Speaker, since: Option<u64>, anew: bool);

    /// It watches this content now instead of `from`.
    fn switch(&self, who: &Speaker, from: &str);

    /// It hears no more. May be said twice.
    fn leave(&self, who: &Speaker);

    /// Takes a question, whose answer goes to the seat.
    ///
    /// # Errors
    /// There is no room for it; nothing will be answered.
    fn ask(&self, question: Question) -> Result<(), Busy>;

    /// There is room again in a seat that could not take everything.
    fn read_on(&self, account: &AccountKey, seat: &Arc<Seat>);
}

/// Says what waits in a seat, as much as the socket takes now.
pub(super) fn deliver(
    exchange: Option<&dyn Exchange>,
    account: &AccountKey,
    seat: &Arc<Seat>,
    line: &mut Line,
) -> Result<(), NotSent> {
    loop {
        if !line.socket.has_room() {
            line.socket.tell_when_empty();
            return Ok(());
        }
        match seat.next_frame() {
            Next::Frame(text) => line.send(text)?,
            Next::ReadOn => {
                if let Some(exchange) = exchange {
                    exchange.read_on(account, seat);
                }
            }
            Next::Nothing => return Ok(()),
        }
    }
}

/// Asks, or says why not.
pub(super) fn ask(
    exchange: Option<&dyn Exchange>,
    by: Speaker,
    word: Word,
    id: Option<&RawValue>,
) -> Result<(), (ErrorCode, &'static str)> {
    let exchange = exchange.ok_or((ErrorCode::BadState, "messages are not to be had here"))?;
    if by.content.is_none() && matches!(word, Word::Room) {
        return Err((ErrorCode::BadState, "an inbox is in no room"));
    }
    let seat = Arc::clone(&by.seat);
    if !seat.await_answer() {
        return Err((ErrorCode::RateLimited, "too many messages wait for their answers"));
    }
    let id = id.map(RawValue::to_owned);
    exchange.ask(Question { by, word, id }).map_err(|Busy| {
        seat.answer(None);
        (ErrorCode::Unavailable, "too much is under way; try again")
    })
}

impl Question {
    /// Answers it.
    pub fn answer(&self, answer: &ServerMessage<'_>) {
        let text = encode(answer, self.id.as_deref());
        self.by.seat.answer(Some(text.into()));
    }
}

impl Session {
    pub(super) fn speaker(&self) -> Speaker {
        Speaker {
            account: self.player.account.clone(),
            seat: Arc::clone(&self.seat),
            content: Some(Arc::clone(&self.player.content)),
        }
    }

    /// Hears from now on.
    pub(super) fn enter(&self, anew: bool) {
        if let Some(exchange) = &self.gateway.exchange {
            exchange.enter(&self.speaker(), self.player.since, anew);
        }
    }

    /// Hears no more.
    pub(super) fn fall_silent(&self) {
        if let Some(exchange) = &self.gateway.exchange {
            exchange.leave(&self.speaker());
        }
    }

    pub(super) fn deliver(&self, line: &mut Line) -> Result<(), Ending> {
        let exchange = self.gateway.exchange.as_deref();
        deliver(exchange, &self.player.account, &self.seat, line).map_err(|NotSent| Ending::slow())
    }

    /// Passes on what the player says. The answer comes by itself, so that no heartbeat waits for it.
    pub(super) fn talk(&mut self, line: &mut Line, word: Word, id: Option<&RawValue>) -> Result<(), Ending> {
        match ask(self.gateway.exchange.as_deref(), self.speaker(), word, id) {
            Ok(()) => {
                self.pardon();
                Ok(())
            }
            Err((code, detail)) => self.say_error(line, code, detail, id),
        }
    }
}
