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
#[path = "../it/ledger_deaths.rs"]
mod ledger_deaths;
#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/ledger_rows.rs"]
mod ledger_rows;
#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/library.rs"]
mod library;
#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/redis_servers.rs"]
mod redis_servers;
#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/stage.rs"]
mod stage;

mod background;
mod crowd;
mod ledger;
mod memory;
mod room;
mod trio;
mod upload;
