//! The watch socket's language, typed; `PROTOCOL.md` beside this file is its description for people.
//!
//! Owns: messages, close codes, start parameters, ids. Pure: no I/O, no clock.
//! Does not: know sockets, leases or stores.
//! Called by: `gateway` (sockets), `api` (HTTP twins of the same messages), `lease` (ids).

pub mod client;
pub mod close;
pub mod id;
pub mod message;
pub mod server;
pub mod start;

#[cfg(test)]
mod document;

/// Largest text message a player may send, in bytes (interface section 2).
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// Largest content id, device id or device name, in bytes (interface section 2).
pub const MAX_ID_BYTES: usize = 256;

/// The one subprotocol that is echoed.
pub const SUBPROTOCOL: &str = "usher.v1";
