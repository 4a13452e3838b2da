//! Typed settings of one node.
//!
//! Owns: the shape of the configuration and its secrets' types; `default.toml` beside this file is the manual.
//! Does not: open files or sockets that a setting names (their owners do).
//! Called by: the commands, through [`load`].

mod accounts;
mod catalogue;
mod database;
mod environment;
mod error;
mod facade;
mod keys;
mod ledger;
mod load;
#[cfg(test)]
mod load_tests;
mod media;
mod media_validate;
mod messages;
mod origin;
mod redis_url;
mod rules;
mod rules_validate;
#[cfg(test)]
pub(crate) mod scratch;
mod secret;
mod section;
mod validate;
#[cfg(test)]
mod validate_tests;

pub use accounts::{Accounts, RESET_TOKEN};
pub use catalogue::Catalogue;
pub use database::{Database, DatabaseUrl, Modules};
pub use error::ConfigError;
pub use facade::{Application, Facade};
pub use ledger::{Ledger, Source, SourceForm, SourceKind};
pub use load::{Overrides, leaves, load, to_toml};
pub use media::{Media, MediaQuota, MediaScan, MediaStatistics, MediaStore};
pub use messages::{Messages, Span};
pub use redis_url::{HostPort, RedisAddress, RedisServers, RedisUrl};
pub use rules::{Devices, Exempt, GroupRule, Per};
pub use secret::Secret;
pub use section::*;
pub use validate::log_filter;

/// What the account's total is called where rules are named; no rule of the configuration may be called so.
pub const ACCOUNT_RULE: &str = "account";

/// The defaults, which are also the manual: what `usher` runs with when nothing is configured.
pub const DEFAULT_TOML: &str = include_str!("default.toml");
