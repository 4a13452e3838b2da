//! Calls that a node makes to servers of others: key sets, webhooks.
//!
//! Owns: which addresses may be called ([`Guard`]), and one HTTP client with bounds on time and size ([`Client`]).
//! Does not: know what is said, or when to say it again.
//! Called by: `auth` and `webhooks`.

mod client;
mod guard;

pub use client::{Answer, Client, OutboundError, Plain};
pub use guard::Guard;
