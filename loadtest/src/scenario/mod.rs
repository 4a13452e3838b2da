//! The scenarios, seen from the parent: what happens when, and which figures come of it.
//!
//! Owns: one module each. Does not: play (the workers do) or show results ([`crate::report`]).
//! Called by: `main`, and [`crate::compare`].

pub mod beat;
pub mod contend;
pub mod hold;
pub mod ramp;
pub mod soak;
pub mod storm;
pub mod takeover;
pub mod zap;

use std::time::Duration;

use crate::plan::{Beat, Hold, share};
use crate::stage::Against;

/// Sessions of one worker at most: a process may hold 20,000 files on a usual machine, some for itself.
const SESSIONS_OF_WORKER: u32 = 15_000;

/// The number of workers for so many sessions.
fn workers(against: &Against, sessions: u32) -> u32 {
    if against.workers > 0 {
        return against.workers;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let by_processors = u32::try_from(processors / 2).unwrap_or(1).clamp(1, 16);
    sessions
        .div_ceil(SESSIONS_OF_WORKER)
        .max(by_processors)
        .min(sessions.max(1))
}

/// The part of a worker in holding so many sessions.
fn hold_part(sessions: u32, worker: u32, workers: u32) -> Hold {
    let (first, count) = share(sessions, worker, workers);
    Hold {
        first,
        count,
        heartbeats: true,
        come_back: None,
        home: None,
        beat: Beat {
            texts: 0,
            pace_us: 25_000,
        },
    }
}

/// The longest that opening may take: the schedule's own time, and patience with a server that is slower.
fn opening(sessions: u32, rate: f64) -> Duration {
    Duration::from_secs_f64(f64::from(sessions) / rate * 6.0 + 120.0)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
