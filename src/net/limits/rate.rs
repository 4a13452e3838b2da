//! A rate with a burst, by the generic cell rate algorithm (ITU-T I.371, the "virtual scheduling" form).
//!
//! Owns: the arithmetic; one instant is the whole state of a token bucket.
//! Does not: read the clock or lock.
//! Called by: [`super::Admission`] for the node and [`super::table`] for each address, account and token.

use std::time::Duration;

use tokio::time::Instant;

/// A number of events per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Time between two events at this pace; zero is no limit.
    interval: Duration,
    /// How far events may run ahead of the pace.
    burst: Duration,
}

/// When the bucket will be full again; none is full since ever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace(Option<Instant>);

impl Rate {
    /// `per_second` events, and `burst` of them at once after a pause; 0 for either is no limit.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1)
            .checked_div(per_second)
            .filter(|_| burst > 0)
            .unwrap_or_default();
        Self {
            interval,
            burst: interval.saturating_mul(burst),
        }
    }

    /// The same for so many per minute.
    pub(super) fn per_minute(per_minute: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(60)
            .checked_div(per_minute)
            .filter(|_| burst > 0)
            .unwrap_or_default();
        Self {
            interval,
            burst: interval.saturating_mul(burst),
        }
    }

    /// Counts an event that has happened, also beyond the burst: the wait is the longer then.
    pub(super) fn charge(&self, pace: &mut Pace, now: Instant) {
        if !self.interval.is_zero() {
            pace.0 = Some(pace.0.map_or(now, |full_at| full_at.max(now)) + self.interval);
        }
    }

    /// Counts one event, or refuses it, which costs nothing.
    ///
    /// # Errors
    /// How long to wait until one is allowed again; never zero.
    pub(super) fn try_take(&self, pace: &mut Pace, now: Instant) -> Result<(), Duration> {
        if self.interval.is_zero() {
            return Ok(());
        }
        let full_at = pace.0.map_or(now, |full_at| full_at.max(now)) + self.interval;
        let ahead = full_at - now;
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        pace.0 = Some(full_at);
        Ok(())
    }

    /// Whether every event is allowed.
    pub(super) fn is_unlimited(&self) -> bool {
        self.interval.is_zero()
    }
}

impl Pace {
    /// Whether nothing of the burst is used, so that forgetting this state changes nothing.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.0.is_none_or(|full_at| full_at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &Rate, pace: &mut Pace, now: Instant) -> usize {
        (0..1_000)
            .take_while(|_| rate.try_take(pace, now).is_ok())
            .count()
    }

    #[test]
    fn a_burst_and_then_the_pace() {
        let start = Instant::now();
        for per_second in [1, 3, 7, 30] {
            let rate = Rate::new(per_second, per_second * 10);
            let mut pace = Pace::default();
            let burst = per_second as usize * 10;
            assert_eq!(taken(&rate, &mut pace, start), burst);
            assert!(!pace.is_full(start + Duration::from_secs(9)));
            assert_eq!(
                taken(&rate, &mut pace, start + Duration::from_secs(1)),
                per_second as usize
            );
            let much_later = start + Duration::from_secs(100);
            assert!(pace.is_full(much_later));
            assert_eq!(taken(&rate, &mut pace, much_later), burst);
        }
    }

    #[test]
    fn zero_is_no_limit_and_a_clock_behind_is_harmless() {
        let now = Instant::now();
        assert_eq!(taken(&Rate::new(0, 10), &mut Pace::default(), now), 1_000);
        assert_eq!(taken(&Rate::new(10, 0), &mut Pace::default(), now), 1_000);
        let rate = Rate::new(1, 2);
        let mut pace = Pace::default();
        assert_eq!(rate.try_take(&mut pace, now + Duration::from_secs(5)), Ok(()));
        assert_eq!(rate.try_take(&mut pace, now), Err(Duration::from_secs(5)));
    }

    #[test]
    fn a_refused_one_is_told_when_to_come_back() {
        let start = Instant::now();
        let rate = Rate::new(4, 2);
        let mut pace = Pace::default();
        assert_eq!(taken(&rate, &mut pace, start), 2);
        let wait = rate.try_take(&mut pace, start).err();
        assert_eq!(wait, Some(Duration::from_millis(250)));
        let almost = start + Duration::from_millis(249);
        assert_eq!(rate.try_take(&mut pace, almost), Err(Duration::from_millis(1)));
        assert_eq!(
            rate.try_take(&mut pace, start + Duration::from_millis(250)),
            Ok(())
        );
    }
}
