//! The line to one player: its socket with the clock of its lease.
//!
//! Whatever state the session is in, the same things happen here: any frame renews, silence is pinged and then
//! ends, floods end, and one timer serves every deadline.

use std::pin::Pin;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::lease::silence::{Due, Silence};
use crate::net::stream::Handover;
use crate::protocol::close::EndCode;

use super::Gateway;
use super::seat::{News, Seat};
use super::socket::{Bounds, Fault, Inbound, NotSent, Socket};

/// After a stall the frames that wait in the kernel are read before anybody is judged silent, for at most this
/// long (rule 14).
const LATE_READ: Duration = Duration::from_secs(1);

/// A player's socket and the state of its lease.
pub(super) struct Line {
    pub(super) socket: Socket,
    pub(super) silence: Silence,
    period: Duration,
    /// Frames that renewed a lease.
    heartbeats: IntCounter,
    bucket: Bucket,
    timer: Pin<Box<Sleep>>,
    /// The frame after which a late read was granted, so that it is granted once.
    late_read: Option<(Instant, Instant)>,
}

/// What happens on a line.
#[derive(Debug)]
pub(super) enum Event {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message, which the protocol does not have.
    Binary,
    /// What was sent has reached the kernel: there is room for more.
    Room,
    /// News from the node.
    News(News),
    /// The caller's deadline.
    Deadline,
    /// The line is over.
    Over(Over),
}

/// How a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The player closed with this code.
    Closed(Option<u16>),
    /// The connection broke.
    Lost,
    /// Nothing was heard for the whole period; due at this instant.
    Silent(Instant),
    /// The player broke the rules.
    Fault(EndCode, &'static str),
}

impl Line {
    pub(super) fn new(handover: Handover, gateway: &Gateway) -> Self {
        let (now, timing) = (Instant::now(), &gateway.timing);
        Self {
            socket: Socket::new(handover, Bounds::PLAYER),
            silence: Silence::new(now),
            period: timing.period,
            heartbeats: gateway.metrics.heartbeats_total.clone(),
            bucket: Bucket::new(timing.burst, timing.rate, now),
            timer: Box::pin(sleep_until(now + timing.period / 2)),
            late_read: None,
        }
    }

    /// The next event. Safe to cancel.
    pub(super) async fn next(&mut self, seat: &Seat, deadline: Option<Instant>) -> Event {
        loop {
            if let Some(event) = self.check_clock(deadline) {
                return event;
            }
            tokio::select! {
                biased;
                inbound = self.socket.receive() => if let Some(event) = self.classify(inbound) {
                    return event;
                },
                news = seat.take() => return Event::News(news),
                () = &mut self.timer => {
                    // Armed again by `check_clock`, for what is due then: frames do not touch the timer.
                }
            }
        }
    }

    /// Queues a text.
    pub(super) fn send(&mut self, text: Utf8Bytes) -> Result<(), NotSent> {
        self.socket.send(Message::Text(text))
    }

    /// What the clock asks for now; arms the timer for what it will ask for next.
    fn check_clock(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let now = Instant::now();
        // Also when the timer is armed for something later than the deadline.
        if self.timer.deadline() > now && deadline.is_none_or(|deadline| self.timer.deadline() <= deadline) {
            return None;
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Some(Event::Deadline);
        }
        let mut due = self.silence.due(now, self.period);
        if due == Due::Ping {
            // A line that takes no ping hears no pong: its silence ends it.
            let _ = self.socket.send(Message::Ping(bytes::Bytes::new()));
            self.silence.pinged(now);
            due = self.silence.due(now, self.period);
        }
        let next = match due {
            Due::Expired(end) => match self.late_read(now) {
                Some(until) => until,
                None => return Some(Event::Over(Over::Silent(end))),
            },
            Due::Wait(until) => until,
            Due::Ping => now,
        };
        let next = deadline.map_or(next, |deadline| deadline.min(next));
        self.timer.as_mut().reset(next);
        None
    }

    /// Until when the frames in the kernel may still be read, when there are any.
    fn late_read(&mut self, now: Instant) -> Option<Instant> {
        let last = self.silence.last_frame();
        match self.late_read {
            Some((of, until)) if of == last => (now < until).then_some(until),
            _ if self.socket.has_unread() => {
                self.late_read = Some((last, now + LATE_READ));
                Some(now + LATE_READ)
            }
            _ => None,
        }
    }

    fn classify(&mut self, inbound: Inbound) -> Option<Event> {
        let now = Instant::now();
        let event = match inbound {
            Inbound::Lost => return Some(Event::Over(Over::Lost)),
            // Nothing was heard.
            Inbound::Empty => return Some(Event::Room),
            Inbound::Fault(fault) => {
                let (code, detail) = match fault {
                    Fault::TooLarge => (EndCode::MessageTooLarge, "a message has at most 4096 bytes"),
                    Fault::Utf8 => (EndCode::BadMessage, "a text is not valid UTF-8"),
                    Fault::Protocol => (EndCode::BadMessage, "a frame breaks RFC 6455"),
                    Fault::Scattered => (EndCode::RateLimited, "too many fragments for one message"),
                };
                return Some(Event::Over(Over::Fault(code, detail)));
            }
            Inbound::Close(code) => Some(Event::Over(Over::Closed(code))),
            Inbound::Text(text) => Some(Event::Text(text)),
            Inbound::Binary(_) => Some(Event::Binary),
            Inbound::Control => None,
        };
        self.silence.heard(now);
        self.heartbeats.inc();
        if matches!(event, Some(Event::Over(_))) || self.bucket.take(now) {
            event
        } else {
            Some(Event::Over(Over::Fault(
                EndCode::RateLimited,
                "too many messages per second",
            )))
        }
    }
}

/// A token bucket over all frames, pings included.
struct Bucket {
    burst: f32,
    rate: f32,
    tokens: f32,
    at: Instant,
}

impl Bucket {
    #[allow(clippy::cast_precision_loss, reason = "limits are small numbers")]
    fn new(burst: u32, rate: u32, now: Instant) -> Self {
        Self {
            burst: burst as f32,
            rate: rate as f32,
            tokens: burst as f32,
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.rate == 0.0 || self.burst == 0.0 {
            return true;
        }
        let refill = now.duration_since(self.at).as_secs_f32() * self.rate;
        self.tokens = (self.tokens + refill).min(self.burst);
        self.at = now;
        self.tokens -= 1.0;
        self.tokens >= 0.0
    }
}
