//! The sections of group rules: what is counted beside an account's total, and what is not counted at all.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `[rules.<name>]`: a limit beside the account's total.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GroupRule {
    /// What sessions are grouped by.
    pub per: Per,
    /// Most of each group.
    pub limit: u32,
    /// The classes, contents or tags that the rule is about; empty: each of them.
    #[serde(default)]
    pub of: Vec<String>,
    /// Plans whose accounts it is about; empty: all accounts.
    #[serde(default)]
    pub plans: Vec<String>,
    /// With `per = "address"`: where nothing counts; empty: the account's first address.
    #[serde(default)]
    pub home: Vec<IpNet>,
    /// With `per = "device"`: devices count for this long after their last start; absent: while they play. With
    /// `per = "address"`: how long the first address is remembered.
    #[serde(
        default,
        with = "super::rules::duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub within: Option<Duration>,
    /// Whether it refuses nobody and only counts what it would have refused.
    #[serde(default)]
    pub shadow: bool,
    /// Whether sessions beyond a lowered limit end, newest first.
    #[serde(default)]
    pub enforce_running: bool,
}

/// `rules.<name>.per`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// The class that the device names.
    DeviceClass,
    /// The content.
    Content,
    /// A tag of the content.
    Tag,
    /// The profile that the token names.
    Profile,
    /// Where the player comes from.
    Address,
    /// The account's devices.
    Device,
}

/// `[exempt]`: what plays and takes no slot.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Exempt {
    /// Contents; a `*` at the end stands for any rest.
    pub contents: Vec<String>,
    /// Tags of contents.
    pub tags: Vec<String>,
    /// Accounts: `<account>` of the tenant `main`, or `<tenant>/<account>`.
    pub accounts: Vec<String>,
}

/// `[devices]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Devices {
    /// Classes that rules may name.
    pub classes: Vec<String>,
}

/// A duration that may be absent; written as every other.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Written(#[serde(with = "super::super::section::duration")] Duration);

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Written>::deserialize(from)?.map(|written| written.0))
    }

    #[allow(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => super::super::section::duration::serialize(duration, to),
            None => to.serialize_none(),
        }
    }
}
