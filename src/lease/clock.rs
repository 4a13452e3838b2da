//! The node's own clock, and chance.
//!
//! Owns: the moment at which something is sent or glanced at. Does not: know the store's clock.
//! Called by: the service and its keeper.

use std::time::Duration;

use crate::protocol::id::random;

use super::tenure::Tick;

/// The node's clock: it also runs while the machine sleeps (rule 4).
pub(super) fn tick() -> Tick {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// A random part of `most`.
pub(super) fn jitter(most: Duration) -> Duration {
    most.mul_f32(f32::from(u16::from_ne_bytes(random())) / f32::from(u16::MAX))
}
