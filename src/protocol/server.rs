//! Messages from the server to the player.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::client::PlayState;
use super::close::EndCode;
use super::id::SessionId;

/// A message to a player. Encoded by [`encode`], which echoes the `id` of the request that it answers.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage<'a> {
    /// The slot is the player's.
    Granted(Granted<'a>),
    /// No slot is free.
    Denied {
        /// `stream_limit_reached`, or `takeover_refused` when the asked victim said no.
        code: &'static str,
        /// The rule that refused.
        rule: &'a str,
        /// What the rule counts: for `account` the account's slots.
        slots: Slots,
        /// Who is watching and counts in the rule.
        holders: Vec<Holder>,
        /// What the player may do about it: `takeover`, `wait`.
        may: &'a [&'static str],
    },
    /// The player stands in the line.
    Waiting {
        /// 1 is next.
        position: u32,
    },
    /// The account's slots changed.
    Slots(Slots),
    /// The session's next ticket, in place of the one before.
    Ticket(TicketText<'a>),
    /// Somebody asks for this player's slot.
    TakeoverRequest {
        /// Who.
        by: Screen<'a>,
        /// Silence for this long means yes, in milliseconds.
        answer_within_ms: u64,
    },
    /// The session is over; a close frame follows.
    Ended {
        /// Why.
        code: EndCode,
        /// Who took the slot over.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<Screen<'a>>,
        /// For people.
        detail: &'a str,
    },
    /// The node leaves.
    Draining {
        /// Reconnect at a random moment within this time, in milliseconds.
        reconnect_within_ms: u64,
    },
    /// A rule has no place for the content of a `switch`; the session plays on as before.
    #[serde(rename = "error")]
    SwitchRefused {
        /// `stream_limit_reached`.
        code: ErrorCode,
        /// The rule that refused.
        rule: &'a str,
        /// What the rule counts.
        slots: Slots,
        /// Who counts in it.
        holders: Vec<Holder>,
        /// For people.
        detail: &'a str,
    },
    /// A message of the player could not be used; the session goes on.
    Error {
        /// What kind of trouble.
        code: ErrorCode,
        /// For people.
        detail: &'a str,
    },
}

/// `granted`.
#[derive(Clone, Debug, Serialize)]
pub struct Granted<'a> {
    /// The session.
    pub session: SessionId,
    /// The account's slots, this one counted.
    pub slots: Slots,
    /// How often the player should be heard, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence that ends the session, in milliseconds.
    pub lease_ms: u64,
    /// The resume secret.
    pub resume: &'a str,
    /// Whether an earlier session goes on.
    pub resumed: bool,
    /// Whether the grant was made without the arbiter and may be taken back.
    pub provisional: bool,
    /// The playback ticket; none where the node issues none.
    pub ticket: Option<TicketText<'a>>,
    /// The server's clock.
    #[serde(serialize_with = "rfc3339")]
    pub server_time: SystemTime,
}

/// A playback ticket on the wire.
#[derive(Clone, Serialize, ToSchema)]
pub struct TicketText<'a> {
    /// The signed token.
    pub token: &'a str,
    /// Its end.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: SystemTime,
}

/// Hides the token, which is as good as the bytes that it opens.
impl fmt::Debug for TicketText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketText")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Slots of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Slots {
    /// Taken.
    pub used: u32,
    /// Allowed.
    pub limit: u32,
}

/// One who holds a slot, as shown to the refused and to operators.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Holder {
    /// The session to name in `takeover`.
    #[schema(value_type = String)]
    pub session: SessionId,
    /// The device.
    pub device: String,
    /// Its name for people.
    #[schema(required)]
    pub device_name: Option<String>,
    /// Its class.
    #[schema(required)]
    pub device_class: Option<String>,
    /// What it plays.
    pub content: String,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub started_at: SystemTime,
    /// Playing, paused ...
    pub state: PlayState,
}

/// A device, as shown to the other side of a take-over.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Screen<'a> {
    /// The device.
    pub device: &'a str,
    /// Its name for people.
    #[schema(required)]
    pub device_name: Option<&'a str>,
}

/// `error.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, no object, no type, or a field that cannot be used.
    BadMessage,
    /// A type that this server does not know.
    UnknownType,
    /// Not possible in the socket's present state.
    BadState,
    /// The fresh token was refused; the old one stays in force.
    BadToken,
    /// The token does not allow this content.
    ContentForbidden,
    /// The catalogue is enforced and does not have this content.
    ContentUnknown,
    /// A rule has no place for what was asked; the session plays on as before.
    StreamLimitReached,
    /// The server could not do it just now; try again.
    Unavailable,
}

/// The JSON text of a message, with the request's `id` echoed.
#[must_use]
pub fn encode(message: &ServerMessage<'_>, id: Option<&RawValue>) -> String {
    #[derive(Serialize)]
    struct Envelope<'a, 'b> {
        #[serde(flatten)]
        message: &'a ServerMessage<'b>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    }
    match id {
        None => serde_json::to_string(message),
        Some(_) => serde_json::to_string(&Envelope { message, id }),
    }
    .expect("messages hold only strings, numbers and checked JSON")
}

/// Milliseconds of a duration as they stand on the wire.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with milliseconds.
///
/// # Errors
/// Those of the serializer.
pub fn rfc3339<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(*time))
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
