//! `[messages]`: how viewers may talk.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[messages]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Messages {
    /// Messages of one account at once; 0: no limit.
    pub burst: u32,
    /// Messages per second of one account after that; 0: no limit.
    pub per_second: u32,
    /// Inbox sockets of one account on this node.
    pub sockets_per_account: u32,
    /// Least time between two messages of one account in one room; zero: none.
    #[serde(with = "super::section::duration")]
    pub slow_mode: Duration,
    /// How long messages are kept; zero: for ever.
    #[serde(with = "super::section::duration")]
    pub retention: Duration,
    /// The same for tenants that differ.
    pub tenant_retention: BTreeMap<String, Span>,
    /// How often a node asks the database whether a listener missed a message.
    #[serde(with = "super::section::duration")]
    pub poll: Duration,
}

/// A duration as a value of a map.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "super::section::duration")] pub Duration);
