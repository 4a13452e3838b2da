//! One player: what it says and what it is told.
//!
//! Owns: the dialects. Does not: decide when to start, stop or come back (the jobs do).
//! Called by: every job.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use usher::protocol::SUBPROTOCOL;

use crate::target::Dialect;

use super::dial::{Dialer, Failure, Secured, Socket, within};

/// What a peer that does not ask for heartbeats gets them every.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// An orderly close is over by then.
const CLOSE: Duration = Duration::from_secs(5);

/// Code of a connection that broke (RFC 6455 section 7.1.5).
pub(super) const BROKEN: u16 = 1006;

/// What somebody asks of a server.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) account: u32,
    pub(super) device: u32,
    /// `on_limit`.
    pub(super) on_limit: &'static str,
    pub(super) resume: Option<&'a str>,
}

impl Start<'_> {
    pub(super) fn of(account: u32) -> Self {
        Self {
            account,
            device: 0,
            on_limit: "reject",
            resume: None,
        }
    }

    fn path(&self, path: &str) -> String {
        let sign = if path.contains('?') { '&' } else { '?' };
        let Self { device, on_limit, .. } = self;
        let mut path = format!("{path}{sign}content=load&device=d-{device}&on_limit={on_limit}");
        if let Some(secret) = self.resume {
            path += "&resume=";
            path += secret;
        }
        path
    }
}

/// An open socket that may hold a slot.
pub(super) struct Player {
    pub(super) socket: Socket,
    dialect: Dialect,
}

/// What a server says; the fields that the tool reads, of whatever type.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) session: String,
    #[serde(default)]
    pub(super) resume: String,
    #[serde(default)]
    pub(super) heartbeat_ms: u64,
    #[serde(default)]
    pub(super) resumed: bool,
    #[serde(default)]
    pub(super) provisional: bool,
    #[serde(default)]
    pub(super) reconnect_within_ms: u64,
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    pub(super) holders: Vec<Holder>,
}

/// One of those who hold the slots.
#[derive(Debug, Deserialize)]
pub(super) struct Holder {
    pub(super) session: String,
}

/// What was heard on a socket.
#[derive(Debug)]
pub(super) enum Heard {
    Said(Box<Said>),
    Pong,
    /// Something of no meaning here.
    Frame,
    /// The last.
    Closed(u16),
}

/// A slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Grant {
    pub(super) session: String,
    pub(super) resume: String,
    pub(super) heartbeat: Duration,
    pub(super) resumed: bool,
    pub(super) provisional: bool,
}

/// How a start was answered.
pub(super) enum Answer {
    Granted(Grant),
    /// Sessions that hold the slots.
    Denied(Vec<String>),
    Waiting,
}

impl Player {
    /// Connects, asks and hears the answer.
    pub(super) async fn start(
        dialer: &Dialer,
        node: usize,
        start: Start<'_>,
    ) -> Result<(Self, Answer), Failure> {
        let stream = dialer.secure(node).await?;
        Self::ask(dialer, stream, node, start).await
    }

    /// Connects and asks; anything but a grant is a failure.
    pub(super) async fn granted(
        dialer: &Dialer,
        node: usize,
        start: Start<'_>,
    ) -> Result<(Self, Grant), Failure> {
        match Box::pin(Self::start(dialer, node, start)).await? {
            (player, Answer::Granted(grant)) => Ok((player, grant)),
            (_, Answer::Denied(_)) => Err(Failure::new("denied")),
            (_, Answer::Waiting) => Err(Failure::new("must wait")),
        }
    }

    async fn ask(
        dialer: &Dialer,
        stream: Secured,
        node: usize,
        start: Start<'_>,
    ) -> Result<(Self, Answer), Failure> {
        let dialect = dialer.target.dialect;
        let base = &dialer.node(node).path;
        let (path, token, subprotocol) = match dialect {
            Dialect::Usher => (
                start.path(base),
                dialer.target.tokens.of(start.account),
                Some(SUBPROTOCOL),
            ),
            Dialect::Plain | Dialect::Nats => (base.clone(), None, None),
        };
        let socket = dialer
            .upgrade(stream, node, &path, token.as_ref(), subprotocol)
            .await?;
        let mut player = Self { socket, dialect };
        let answer = match dialect {
            Dialect::Usher => {
                let decided = player.decision();
                within(dialer.target.timeout(), "first frame", decided).await?
            }
            Dialect::Plain => player.held(),
            Dialect::Nats => {
                let hello = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n";
                player.say(Message::binary(hello.as_bytes())).await?;
                player.held()
            }
        };
        Ok((player, answer))
    }

    fn held(&self) -> Answer {
        Answer::Granted(Grant {
            heartbeat: HEARTBEAT,
            ..Grant::default()
        })
    }

    /// The next decision on the start.
    pub(super) async fn decision(&mut self) -> Result<Answer, Failure> {
        loop {
            match self.next().await {
                Heard::Said(said) if said.kind == "granted" => {
                    return Ok(Answer::Granted(Grant {
                        session: said.session,
                        resume: said.resume,
                        heartbeat: Duration::from_millis(said.heartbeat_ms.clamp(100, 3_600_000)),
                        resumed: said.resumed,
                        provisional: said.provisional,
                    }));
                }
                Heard::Said(said) if said.kind == "denied" => {
                    return Ok(Answer::Denied(
                        said.holders.into_iter().map(|holder| holder.session).collect(),
                    ));
                }
                Heard::Said(said) if said.kind == "waiting" => return Ok(Answer::Waiting),
                Heard::Said(said) if said.kind == "ended" => {
                    return Err(Failure(format!("ended: {}", said.code)));
                }
                Heard::Closed(code) => return Err(Failure(format!("closed {code}"))),
                Heard::Said(_) | Heard::Pong | Heard::Frame => {}
            }
        }
    }

    /// The next frame; pings are answered. Safe to cancel.
    pub(super) async fn next(&mut self) -> Heard {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) if self.dialect == Dialect::Usher => {
                serde_json::from_str(&text).map_or(Heard::Frame, |said| Heard::Said(Box::new(said)))
            }
            Some(Ok(Message::Binary(bytes))) if self.dialect == Dialect::Nats => {
                if bytes.starts_with(b"PING") {
                    // What fails here, the next read tells.
                    let _ = self.say(Message::binary(&b"PONG\r\n"[..])).await;
                } else if bytes.starts_with(b"PONG") {
                    return Heard::Pong;
                }
                Heard::Frame
            }
            Some(Ok(Message::Pong(_))) => Heard::Pong,
            Some(Ok(Message::Close(frame))) => Heard::Closed(frame.map_or(1005, |frame| frame.code.into())),
            Some(Ok(_)) => Heard::Frame,
            Some(Err(Error::Io(_) | Error::Protocol(_) | Error::ConnectionClosed | Error::AlreadyClosed))
            | None => Heard::Closed(BROKEN),
            Some(Err(_)) => Heard::Closed(1002),
        }
    }

    /// Sends one message.
    pub(super) async fn say(&mut self, message: Message) -> Result<(), Failure> {
        let sent = self.socket.send(message).await;
        sent.map_err(|_| Failure::new("send: broken"))
    }

    /// Sends a text; with a server that speaks no texts, a ping.
    pub(super) async fn heartbeat(&mut self) -> Result<(), Failure> {
        self.say(self.beat()).await
    }

    /// A heartbeat, not sent yet.
    pub(super) fn beat(&self) -> Message {
        match self.dialect {
            Dialect::Usher | Dialect::Plain => Message::text(r#"{"type":"heartbeat","state":"playing"}"#),
            Dialect::Nats => Message::binary(&b"PING\r\n"[..]),
        }
    }

    /// A question that the server answers at once with [`Heard::Pong`].
    pub(super) fn ping(&self) -> Message {
        match self.dialect {
            Dialect::Usher | Dialect::Plain => Message::Ping(Vec::new().into()),
            Dialect::Nats => Message::binary(&b"PING\r\n"[..]),
        }
    }

    /// Gives the slot back and waits until the server has closed.
    pub(super) async fn stop(self) -> Result<Duration, Failure> {
        let message = match self.dialect {
            Dialect::Usher => Message::text(r#"{"type":"stop"}"#),
            Dialect::Plain | Dialect::Nats => normal(),
        };
        self.end(message).await
    }

    /// Closes with 1000, which frees the slot too.
    pub(super) async fn close(self) -> Result<Duration, Failure> {
        self.end(normal()).await
    }

    async fn end(mut self, message: Message) -> Result<Duration, Failure> {
        let begun = Instant::now();
        within(CLOSE, "close", async {
            self.say(message).await?;
            while !matches!(self.next().await, Heard::Closed(_)) {}
            let took = begun.elapsed();
            // The server's end first: whoever ends first keeps the port for a minute.
            while self.socket.next().await.is_some_and(|item| item.is_ok()) {}
            Ok(took)
        })
        .await
    }

    /// Vanishes: neither a close frame nor the end of TLS.
    pub(super) fn cut(self) {
        let (tcp, _) = self.socket.get_ref().get_ref();
        let _ = tcp.set_zero_linger();
    }
}

fn normal() -> Message {
    Message::Close(Some(CloseFrame {
        code: 1000.into(),
        reason: "".into(),
    }))
}
