//! When a player has been silent for too long. Pure: the caller brings the clock.
//!
//! Any inbound frame renews the lease. After half a period of silence the node pings; after a whole one the lease
//! is over, at the same instant whether the ping was heard or not (I3).

use std::time::Duration;

use tokio::time::Instant;

/// A player that is pinged late, because the node itself was stalled, still gets this part of the period to answer.
const ANSWER_SHARE: u32 = 2;

/// A ping this much behind its due time means that the node was stalled, not that the timer was coarse.
const STALLED: Duration = Duration::from_millis(200);

/// The silence of one player.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    last_frame: Instant,
    pinged: Option<Instant>,
}

/// What the silence asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this instant.
    Wait(Instant),
    /// A ping, now.
    Ping,
    /// The lease is over; it was due at this instant.
    Expired(Instant),
}

impl Silence {
    /// The grant counts as the first frame.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            last_frame: now,
            pinged: None,
        }
    }

    /// A frame came in.
    pub fn heard(&mut self, now: Instant) {
        self.last_frame = now;
        self.pinged = None;
    }

    /// The last frame's instant.
    #[must_use]
    pub fn last_frame(&self) -> Instant {
        self.last_frame
    }

    /// A ping went out.
    pub fn pinged(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// What is due at `now` for a lease of `period`.
    #[must_use]
    pub fn due(&self, now: Instant, period: Duration) -> Due {
        let Some(pinged) = self.pinged else {
            let ping_at = self.last_frame + period / 2;
            return if now >= ping_at {
                Due::Ping
            } else {
                Due::Wait(ping_at)
            };
        };
        let mut end = self.last_frame + period;
        if pinged > self.last_frame + period / 2 + STALLED {
            end = end.max(pinged + period / ANSWER_SHARE);
        }
        if now >= end {
            Due::Expired(end)
        } else {
            Due::Wait(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn pings_at_half_and_ends_at_the_whole() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        assert_eq!(
            silence.due(after(start, 4_999), PERIOD),
            Due::Wait(after(start, 5_000))
        );
        assert_eq!(silence.due(after(start, 5_000), PERIOD), Due::Ping);
        silence.pinged(after(start, 5_020));
        assert_eq!(
            silence.due(after(start, 9_999), PERIOD),
            Due::Wait(after(start, 10_000))
        );
        assert_eq!(
            silence.due(after(start, 10_001), PERIOD),
            Due::Expired(after(start, 10_000))
        );
        silence.heard(after(start, 9_999));
        assert_eq!(
            silence.due(after(start, 10_001), PERIOD),
            Due::Wait(after(start, 14_999))
        );
    }

    #[test]
    fn a_stalled_node_asks_before_it_judges() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let woken = after(start, 17_000);
        assert_eq!(silence.due(woken, PERIOD), Due::Ping);
        silence.pinged(woken);
        assert_eq!(
            silence.due(after(start, 21_999), PERIOD),
            Due::Wait(after(start, 22_000))
        );
        assert_eq!(
            silence.due(after(start, 22_000), PERIOD),
            Due::Expired(after(start, 22_000))
        );
    }
}
