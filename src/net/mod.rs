//! The socket: from a listening port to a request, and to the raw stream behind an upgrade.
//!
//! Owns: accepting, limits on strangers, TLS and its certificates, client addresses, HTTP serving, origins.
//! Does not: route requests (`api`) or know sessions (`gateway`).
//! Called by: `app`, which builds the listeners and gives them their handlers.

pub mod address;
pub mod certificate;
pub mod devcert;
pub mod http;
pub mod lane;
pub mod limits;
pub mod listener;
pub mod origin;
pub mod proxy_protocol;
pub mod stream;
pub mod tls;

#[cfg(test)]
mod scratch;
