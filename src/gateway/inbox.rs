//! A socket that hears and speaks and plays nothing: it takes no slot and is in no room.
//!
//! The clock is that of a player's socket: pings after half a lease of silence, the end after a whole one.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::auth::{Claims, Rejected, Scope};
use crate::net::stream::Handover;
use crate::protocol::client::{ClientMessage, decode};
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, ResumeSecret};
use crate::protocol::server::{ErrorCode, ServerMessage, encode, millis};
use crate::telemetry::RequestId;

use super::Gateway;
use super::exchange::{self, Speaker, Word};
use super::line::{Event, Line, Over};
use super::player::token_end;
use super::seat::{Drain, News, Seat};
use super::socket::NotSent;

/// Useless messages in a row after which the client is told to mend itself.
const MAX_BAD_MESSAGES: u8 = 10;

/// A fresh token must be checked within this time; until then the socket is not read.
const TOKEN_CHECK: Duration = Duration::from_secs(5);

/// `ended` should be on its way before the close frame.
const LAST_WORD: Duration = Duration::from_millis(250);

/// Who opened an inbox.
pub struct Reader {
    /// Whose messages it hears.
    pub account: AccountKey,
    /// The device that the token names.
    pub device: Option<Arc<str>>,
    /// It has heard everything up to this id; none: it wants nothing old.
    pub since: Option<u64>,
    /// When the token stops being good.
    pub token_end: SystemTime,
    /// The request that opened it.
    pub request: RequestId,
    /// Where it comes from.
    pub address: IpAddr,
    /// Dropped when the socket is gone.
    pub counted: Box<dyn Any + Send>,
}

impl Reader {
    /// Joins what the token says with what the request asks.
    #[must_use]
    pub fn new(claims: Claims, since: Option<u64>, request: RequestId, address: IpAddr) -> Self {
        let token_end = token_end(&claims);
        let account = AccountKey {
            tenant: claims.tenant,
            account: claims.account,
        };
        Self {
            account,
            device: claims.device,
            since,
            token_end,
            request,
            address,
            counted: Box::new(()),
        }
    }
}

struct Inbox {
    gateway: Arc<Gateway>,
    reader: Reader,
    seat: Arc<Seat>,
    bad_messages: u8,
}

/// The code and the text of an end; none: the other side ended it.
type End = Option<(EndCode, &'static str)>;

impl Gateway {
    /// Runs an inbox on a task of its own.
    pub fn open_inbox(self: &Arc<Self>, handover: Handover, reader: Reader) {
        let gateway = Arc::clone(self);
        let seat = Arc::new(Seat::new(ResumeSecret::generate().session()));
        gateway.registry.add(&reader.account, &seat);
        let line = Line::new(handover, &gateway);
        let inbox = Inbox {
            gateway,
            reader,
            seat,
            bad_messages: 0,
        };
        self.tasks.spawn(inbox.run(line));
    }
}

impl Inbox {
    async fn run(mut self, mut line: Line) {
        if let Some(exchange) = &self.gateway.exchange {
            exchange.enter(&self.speaker(), self.reader.since, true);
        }
        let end = loop {
            let until = deadline(self.reader.token_end);
            let step = match line.next(&self.seat, Some(until)).await {
                Event::Text(text) => Box::pin(self.hear(&mut line, &text)).await,
                Event::Binary => self.say_error(&mut line, ErrorCode::BadMessage, "messages are texts", None),
                Event::News(news) => self.hear_news(&mut line, news),
                Event::Room => self.deliver(&mut line),
                Event::Deadline => Err(Some((
                    EndCode::TokenExpired,
                    "the token expired and no fresh one came",
                ))),
                Event::Over(over) => Err(ending(over)),
            };
            if let Err(end) = step {
                break end;
            }
        };
        if let Some(exchange) = &self.gateway.exchange {
            exchange.leave(&self.speaker());
        }
        tracing::debug!(
            account = &*self.reader.account.account,
            address = %self.reader.address,
            reason = end.map_or("closed", |(code, _)| code.name()),
            request_id = %self.reader.request,
            "inbox closed"
        );
        match end {
            None => line.socket.finish().await,
            Some((code, detail)) => {
                let ended = ServerMessage::Ended {
                    code,
                    by: None,
                    detail,
                };
                if line.send(encode(&ended, None).into()).is_ok() {
                    line.socket.flush(LAST_WORD).await;
                }
                line.socket.close(code.number(), code.name()).await;
            }
        }
    }

    fn speaker(&self) -> Speaker {
        Speaker {
            account: self.reader.account.clone(),
            seat: Arc::clone(&self.seat),
            content: None,
        }
    }

    fn deliver(&self, line: &mut Line) -> Result<(), End> {
        let exchange = self.gateway.exchange.as_deref();
        exchange::deliver(exchange, &self.reader.account, &self.seat, line).map_err(|NotSent| slow())
    }

    fn hear_news(&self, line: &mut Line, news: News) -> Result<(), End> {
        if news.post {
            self.deliver(line)?;
        }
        match news.drain {
            Some(Drain::Announce(within)) => {
                let draining = ServerMessage::Draining {
                    reconnect_within_ms: millis(within),
                };
                line.send(encode(&draining, None).into())
                    .map_err(|NotSent| slow())
            }
            Some(Drain::Close) => Err(Some((
                EndCode::Draining,
                "the node is leaving; reconnect with since",
            ))),
            None => Ok(()),
        }
    }

    async fn hear(&mut self, line: &mut Line, text: &Utf8Bytes) -> Result<(), End> {
        let frame = decode(text.as_str());
        let word = match frame.message {
            Ok(ClientMessage::Message(draft)) => Word::Say(draft),
            Ok(ClientMessage::Read { with, message }) => Word::Read {
                with: with.into_owned(),
                id: message,
            },
            Ok(ClientMessage::Room) => Word::Room,
            Ok(ClientMessage::Heartbeat { .. }) => {
                self.bad_messages = 0;
                return Ok(());
            }
            Ok(ClientMessage::Stop) => return Err(Some((EndCode::Stopped, "the client stopped"))),
            Ok(ClientMessage::Token { token }) => return self.renew(line, &token, frame.id).await,
            Ok(_) => {
                return self.say_error(line, ErrorCode::BadState, "not possible on an inbox", frame.id);
            }
            Err(bad) => return self.say_error(line, bad.code, &bad.detail, frame.id),
        };
        match exchange::ask(self.gateway.exchange.as_deref(), self.speaker(), word, frame.id) {
            Ok(()) => {
                self.bad_messages = 0;
                Ok(())
            }
            Err((code, detail)) => self.say_error(line, code, detail, frame.id),
        }
    }

    /// Takes a fresh token of the same account and device.
    async fn renew(&mut self, line: &mut Line, token: &str, id: Option<&RawValue>) -> Result<(), End> {
        let checked = timeout(TOKEN_CHECK, self.gateway.verifier.verify(token)).await;
        let (code, detail) = match checked.unwrap_or(Err(Rejected::Unavailable)) {
            Ok(claims) if self.is_own(&claims) => {
                self.bad_messages = 0;
                self.reader.token_end = token_end(&claims);
                return Ok(());
            }
            Ok(_) => (ErrorCode::BadToken, "the token is another's"),
            Err(Rejected::Unavailable) => (ErrorCode::Unavailable, "the token could not be checked"),
            Err(rejected) => {
                self.gateway.metrics.tokens_rejected_total.inc(rejected.reason());
                (ErrorCode::BadToken, "the token is not valid")
            }
        };
        self.say_error(line, code, detail, id)
    }

    fn is_own(&self, claims: &Claims) -> bool {
        let own = &self.reader;
        claims.tenant == own.account.tenant
            && claims.account == own.account.account
            && (own.device.is_none() || claims.device == own.device)
            && claims.scopes.has(Scope::Watch)
    }

    fn say_error(
        &mut self,
        line: &mut Line,
        code: ErrorCode,
        detail: &str,
        id: Option<&RawValue>,
    ) -> Result<(), End> {
        self.bad_messages += 1;
        if self.bad_messages >= MAX_BAD_MESSAGES {
            let detail = "too many messages in a row that cannot be used";
            return Err(Some((EndCode::BadMessage, detail)));
        }
        let error = ServerMessage::Error { code, detail };
        line.send(encode(&error, id).into()).map_err(|NotSent| slow())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.gateway.registry.remove(&self.reader.account, &self.seat);
    }
}

fn slow() -> End {
    Some((EndCode::SlowConsumer, "the client does not read its messages"))
}

fn ending(over: Over) -> End {
    match over {
        Over::Closed(_) | Over::Lost => None,
        Over::Silent(_) => Some((
            EndCode::HeartbeatMissed,
            "nothing was heard from the client for the whole lease",
        )),
        Over::Fault(code, detail) => Some((code, detail)),
    }
}

/// The instant of a wall-clock time, at most a year ahead.
fn deadline(end: SystemTime) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + end.duration_since(SystemTime::now()).unwrap_or_default().min(FAR)
}
