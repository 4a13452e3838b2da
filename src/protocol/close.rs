//! The one table of close codes. The range tells the client what to do, so that a code it has never heard of
//! is still handled.

use serde::{Deserialize, Serialize};

/// Why a session, or a socket before it had one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCode {
    /// The player stopped.
    Stopped,
    /// The account's streams are all taken.
    StreamLimitReached,
    /// Another player of the account took the slot over.
    Displaced,
    /// An operator ended it.
    EndedByOperator,
    /// The account is blocked.
    AccountBlocked,
    /// The content may not be played any more.
    ContentUnavailable,
    /// The session, or its device, plays on another socket now.
    Moved,
    /// The player does not speak the protocol.
    BadMessage,
    /// A message above the size limit.
    MessageTooLarge,
    /// More messages than allowed.
    RateLimited,
    /// The token ran out and no fresh one came.
    TokenExpired,
    /// The node is leaving.
    Draining,
    /// Silence for the whole lease.
    HeartbeatMissed,
    /// The node lost the lease.
    LeaseLost,
    /// The node cannot serve.
    Unavailable,
    /// The player does not read.
    SlowConsumer,
}

/// What the client should do after a close; the range of the code alone decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// 4000-4099: do not reconnect by yourself.
    Final,
    /// 4100-4199: fix the client or the token first.
    Fix,
    /// 4200-4299: reconnect with `resume`, after a jittered pause.
    Reconnect,
}

impl EndCode {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 16] = [
        Self::Stopped,
        Self::StreamLimitReached,
        Self::Displaced,
        Self::EndedByOperator,
        Self::AccountBlocked,
        Self::ContentUnavailable,
        Self::Moved,
        Self::BadMessage,
        Self::MessageTooLarge,
        Self::RateLimited,
        Self::TokenExpired,
        Self::Draining,
        Self::HeartbeatMissed,
        Self::LeaseLost,
        Self::Unavailable,
        Self::SlowConsumer,
    ];

    /// The WebSocket close code (interface section 2).
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Stopped => 4000,
            Self::StreamLimitReached => 4001,
            Self::Displaced => 4002,
            Self::EndedByOperator => 4003,
            Self::AccountBlocked => 4004,
            Self::ContentUnavailable => 4005,
            Self::Moved => 4006,
            Self::BadMessage => 4100,
            Self::MessageTooLarge => 4101,
            Self::RateLimited => 4102,
            Self::TokenExpired => 4103,
            Self::Draining => 4200,
            Self::HeartbeatMissed => 4201,
            Self::LeaseLost => 4203,
            Self::Unavailable => 4204,
            Self::SlowConsumer => 4205,
        }
    }

    /// The name in `ended.code`, in metrics and in logs; also the close frame's reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::StreamLimitReached => "stream_limit_reached",
            Self::Displaced => "displaced",
            Self::EndedByOperator => "ended_by_operator",
            Self::AccountBlocked => "account_blocked",
            Self::ContentUnavailable => "content_unavailable",
            Self::Moved => "moved",
            Self::BadMessage => "bad_message",
            Self::MessageTooLarge => "message_too_large",
            Self::RateLimited => "rate_limited",
            Self::TokenExpired => "token_expired",
            Self::Draining => "draining",
            Self::HeartbeatMissed => "heartbeat_missed",
            Self::LeaseLost => "lease_lost",
            Self::Unavailable => "unavailable",
            Self::SlowConsumer => "slow_consumer",
        }
    }

    /// What the client should do next.
    #[must_use]
    pub const fn advice(self) -> Advice {
        match self.number() {
            ..4100 => Advice::Final,
            4100..4200 => Advice::Fix,
            _ => Advice::Reconnect,
        }
    }

    /// Whether the slot is kept for a `resume` until the lease runs out. A socket that missed its heartbeats has
    /// no lease left to keep.
    #[must_use]
    pub const fn keeps_slot(self) -> bool {
        matches!(self.advice(), Advice::Reconnect) && !matches!(self, Self::HeartbeatMissed | Self::LeaseLost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_wire_names() {
        for code in EndCode::ALL {
            assert_eq!(serde_json::to_value(code).ok(), Some(code.name().into()));
        }
    }

    #[test]
    fn numbers_are_unique_and_ascend() {
        assert!(
            EndCode::ALL
                .windows(2)
                .all(|pair| pair[0].number() < pair[1].number())
        );
    }
}
