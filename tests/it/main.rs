//! The gateway from outside: real processes, real sockets, real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod chromium;
mod harness;
mod raw;
mod stage;

mod admin;
mod browser;
mod cli;
mod conformance;
mod doors;
mod frames;
mod http;
mod lifecycle;
mod refusals;
mod resources;
mod rooms;
mod sessions;
mod silence;
mod store_contract;
mod tokens;
