//! Tests of the module as a whole: tokens against a verifier, and key sets over a real socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_claims;
mod bad_form;
mod bad_tokens;
pub(crate) mod fixture;
mod good_tokens;
mod key_server;
mod rotation;
mod settings;
mod tickets;
