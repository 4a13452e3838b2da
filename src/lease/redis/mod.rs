//! The lease in Redis.
//!
//! Owns: the connections to Redis ([`link`]): one server, the master that sentinels name, or a cluster; the keys
//! ([`keys`]); the scripts, which are the rules of `account` and `bucket` once more; and the store over them ([`store`]).
//! Does not: decide anything in Rust.
//! Called by: `app`, which chooses between this and the memory twin.

mod answer;
mod backoff;
mod call;
mod cluster;
mod dial;
mod failed;
mod health;
pub mod journal;
pub mod keys;
pub mod link;
pub mod mail;
mod question;
mod refusals;
mod scripts;
mod sentinel;
mod server;
mod slots;
pub mod store;
mod subscription;
mod tls;
mod wire;

pub use call::Script;
pub use failed::Failed;
pub use link::{Link, LinkError};
