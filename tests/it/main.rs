//! The gateway from outside: real processes, real sockets, real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod harness;
mod raw;

mod conformance;
mod frames;
mod resources;
mod sessions;
mod silence;
