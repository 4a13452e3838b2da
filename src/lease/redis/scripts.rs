//! The scripts, the step that each of them is given, and the texts of ids.
//!
//! Owns: the scripts' sources, and the constants of the rules on their way to them. Does not: decide anything (the
//! scripts do) or run them (the store does). The questions are in `question`, the answers in `answer`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::protocol::client::PlayState;
use crate::protocol::id::{SessionId, random};

use super::super::account::{SETTLE_MS, TOMBSTONE_MS, WAITER_STALE_MS};
use super::super::bucket::{GAP_MS, LEASE_MS, MAX_MARKED, MAX_PURGED};
use super::super::model::{EPOCH_FOREVER, Generation, Millis};
use super::Script;
use super::keys;

macro_rules! script {
    ($constant:ident, $name:literal, $doc:literal $(, $before:literal)?) => {
        #[doc = $doc]
        pub(super) static $constant: Script = Script::new(
            $name,
            concat!(
                include_str!("lua/head.lua"),
                $(include_str!($before),)?
                include_str!(concat!("lua/", $name, ".lua"))
            ),
        );
    };
}

script!(RENEW, "renew", "Renews a node's lease in a bucket.");
script!(ACQUIRE, "acquire", "Starts a session.", "lua/repair.lua");
script!(RESUME, "resume", "Moves a session to another socket.");
script!(
    SWITCH,
    "switch",
    "Moves a session to another content and its groups."
);
script!(RELEASE, "release", "Ends a session or a wait.");
script!(MARK, "mark", "Gives an order about a session.");
script!(
    AUDIT,
    "audit",
    "Compares a node's sessions with the tables.",
    "lua/repair.lua"
);
script!(
    BEAT,
    "beat",
    "Keeps or ends sessions without a socket.",
    "lua/repair.lua"
);
script!(DECIDE, "decide", "Takes an operator's decision about an account.");
script!(LIST, "list", "Reads.");

/// The step of a script: see `lua/head.lua`.
#[derive(Serialize)]
pub(super) struct StepText {
    fresh: Hex,
    first: Millis,
    second: Millis,
    buckets: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<Millis>,
    events: u32,
    lease: Millis,
    gap: Millis,
    stale: Millis,
    tombstone: Millis,
    settle: Millis,
    forever: u64,
    max_purged: u32,
    max_marked: usize,
    watching: Vec<PlayState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

impl StepText {
    /// A step with what the node brings along; the constants of the rules come with it.
    pub(super) fn new(
        fresh: Generation,
        halves: (Millis, Millis),
        buckets: u16,
        not_after: Option<Millis>,
        events: u32,
    ) -> Self {
        let states = [
            PlayState::Playing,
            PlayState::Paused,
            PlayState::Buffering,
            PlayState::Background,
        ];
        Self {
            fresh: Hex(fresh.0),
            first: halves.0,
            second: halves.1,
            buckets,
            not_after,
            events,
            lease: LEASE_MS,
            gap: GAP_MS,
            stale: WAITER_STALE_MS,
            tombstone: TOMBSTONE_MS,
            settle: SETTLE_MS,
            forever: EPOCH_FOREVER,
            max_purged: MAX_PURGED,
            max_marked: MAX_MARKED,
            watching: states.into_iter().filter(|state| state.is_watching()).collect(),
            now: None,
            offset: None,
            server: None,
        }
    }

    /// Says what a test says in place of Redis.
    pub(super) fn pin(&mut self, pinned: &Pinned) {
        self.now = pinned.now;
        self.offset = Some(pinned.offset_ms);
        // As long as Redis's own.
        self.server = pinned.server.map(|server| format!("{server:040x}"));
        if let Some(fresh) = pinned.fresh {
            self.fresh = Hex(fresh.0);
        }
    }
}

/// Generations that were never used, one for each call and hardly ever needed: `SplitMix64` (Steele, Lea and Flood 2014)
/// from a random start, which repeats none of its values and costs nothing beside the cryptographic generator.
pub(super) struct Fresh(AtomicU64);

impl Default for Fresh {
    fn default() -> Self {
        Self(AtomicU64::new(u64::from_ne_bytes(random())))
    }
}

impl Fresh {
    /// The next one.
    pub(super) fn next(&self) -> Generation {
        let mut value = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Generation((value ^ (value >> 31)).max(1))
    }
}

/// What tests say in place of Redis; a program never has one.
#[derive(Debug, Default)]
pub struct Pinned {
    /// The time.
    pub now: Option<Millis>,
    /// How far Redis's clock is moved on.
    pub offset_ms: Millis,
    /// The server's mark of its life.
    pub server: Option<u64>,
    /// The next generation.
    pub fresh: Option<Generation>,
}

/// A value of 16 lower-case hex digits.
#[derive(Clone, Copy)]
pub(super) struct Hex(pub(super) u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&keys::hex(self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        keys::parse_hex(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("not 16 hex digits"))
    }
}

/// A session's 22 characters.
#[derive(Clone, Copy)]
pub(super) struct SessionText(pub(super) SessionId);

impl Serialize for SessionText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        SessionId::parse(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("not a session"))
    }
}
