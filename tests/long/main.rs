//! What takes too long, or too much of a machine, for every run: `tests/run --long`, in release mode.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and tells what it measured"
)]

#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/chromium.rs"]
mod chromium;
#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/harness.rs"]
mod harness;
#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/library.rs"]
mod library;

mod background;
mod memory;
mod upload;
