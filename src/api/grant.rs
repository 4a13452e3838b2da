//! What players without a socket send and are answered.
//!
//! Owns: these shapes. Does not: read or answer (`lone` does, and whatever starts to play otherwise).
//! Called by: `lone`.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use utoipa::ToSchema;

use crate::gateway::lone::LoneState;
use crate::lease::model::{Device, Entry, Refusal};
use crate::protocol::client::PlayState;
use crate::protocol::id::SessionId;
use crate::protocol::server::{Holder, Screen, Slots, TicketText, millis, rfc3339};

/// What starts to play.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
pub struct Opening {
    /// What to play.
    #[schema(min_length = 1, max_length = 256)]
    content: String,
    /// The device; without it every start is a device of its own. The same device ends its session before.
    #[schema(min_length = 1, max_length = 256)]
    device: Option<String>,
    /// Its name for people.
    #[schema(min_length = 1, max_length = 256)]
    device_name: Option<String>,
    /// Its class, such as `tv`.
    #[schema(min_length = 1, max_length = 64)]
    device_class: Option<String>,
    /// The session, of the same account, whose slot is taken over.
    #[schema(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    takeover: Option<String>,
}

/// What a heartbeat says.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
pub struct Heartbeat {
    /// Where in the content, in milliseconds.
    #[schema(minimum = 0)]
    position_ms: Option<u64>,
    /// What the player does.
    state: Option<PlayState>,
}

/// A session without a socket.
#[derive(Serialize, ToSchema)]
pub struct Lease<'a> {
    /// The session.
    #[schema(value_type = String)]
    session: SessionId,
    /// The account's slots, this one counted.
    slots: Slots,
    /// How often a heartbeat should come, in milliseconds.
    heartbeat_ms: u64,
    /// Silence that ends the session, in milliseconds.
    lease_ms: u64,
    /// When it ends without another heartbeat.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: SystemTime,
    /// A playback ticket, when it is time for one.
    #[schema(required)]
    ticket: Option<TicketText<'a>>,
}

/// A session that has begun.
#[derive(Serialize, ToSchema)]
pub struct Grant<'a> {
    /// The session.
    #[serde(flatten)]
    pub lease: Lease<'a>,
    /// Its secret: a player shows it with every request about the session, and to go on, on a socket.
    pub resume: String,
}

/// Why there is no slot, beside the error.
#[derive(Serialize, ToSchema)]
pub struct Denied {
    /// The rule that refused; `account` is the account's own limit.
    #[schema(required = false)]
    rule: String,
    /// What the rule counts.
    #[schema(required = false)]
    slots: Slots,
    /// Who counts in it.
    #[schema(required = false)]
    holders: Vec<Holder>,
    /// What the player may do about it.
    #[schema(required = false)]
    may: Vec<&'static str>,
}

/// Who ended a session, beside the error.
#[derive(Serialize, ToSchema)]
pub struct Displaced<'a> {
    /// The device that plays now.
    #[schema(required = false)]
    by: Screen<'a>,
}

impl<'a> Lease<'a> {
    /// This session, which lives for `period` after each heartbeat.
    #[must_use]
    pub fn new(state: &'a LoneState, period: Duration) -> Self {
        Self {
            session: state.session,
            slots: state.slots,
            heartbeat_ms: millis(period / 2),
            lease_ms: millis(period),
            expires_at: state.expires_at,
            ticket: state.ticket.as_ref().map(crate::gateway::lone::Issued::text),
        }
    }
}

impl Denied {
    /// This refusal, with these in its way.
    #[must_use]
    pub fn new(refusal: &Refusal, holders: &[Entry], may_take_over: bool) -> Self {
        Self {
            rule: refusal.rule.to_string(),
            slots: Slots {
                used: refusal.used,
                limit: refusal.limit,
            },
            holders: holders.iter().map(Entry::holder).collect(),
            may: if may_take_over {
                vec!["takeover"]
            } else {
                Vec::new()
            },
        }
    }
}

impl<'a> Displaced<'a> {
    /// By this device.
    #[must_use]
    pub fn by(device: &'a Device) -> Self {
        Self { by: device.screen() }
    }
}
