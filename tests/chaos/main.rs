//! Faults on purpose: three gateways, a real Redis, a crowd of players with their own log, and one checker that judges
//! it. `cargo test --test chaos` runs short forms of all scenarios; `tests/run --long` also the ignored long ones.
//!
//! `USHER_CHAOS_SEED` repeats the chances of a run. Every scenario prints one line `figures:` (`--nocapture`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and tells what it measured"
)]

#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/harness.rs"]
mod harness;

#[allow(dead_code, reason = "shared with the other test binary, which uses the rest")]
#[path = "../it/redis_servers.rs"]
mod redis_servers;

mod audience;
mod checker;
mod cutter;
mod dice;
mod eager;
mod events;
mod figures;
mod fleet;
mod life;
mod log;
mod resp;
mod servers;
mod swarm;

mod checker_tests;
mod failover;
mod losses;
mod mail;
mod nodes;
mod operations;
mod outages;
mod starts;
mod steady;
mod workshop;
