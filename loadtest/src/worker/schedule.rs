//! Attempts at a rate, whatever becomes of the earlier ones.
//!
//! Owns: when each attempt is meant to start, and the bound on those under way. An attempt's time counts from when
//! it was meant to start, also when it had to wait for its turn: nothing is omitted because the server was slow.
//! Called by: the jobs with an open loop.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use super::book::Book;

/// What the timer may be late.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// What an attempt is told.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Its number, from 0.
    pub(super) number: u64,
    /// When it was meant to start.
    pub(super) meant: Instant,
    /// When the schedule ends.
    pub(super) end: Instant,
}

/// How fast, how long and how many.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Attempts per second.
    pub(super) rate: f64,
    /// Nothing starts after this.
    pub(super) length: Duration,
    /// Attempts under way at most.
    pub(super) in_flight: u32,
    /// Attempts at most.
    pub(super) most: u64,
}

/// Runs `attempt` `rate` times a second for `length`; returns when all have ended. What could not start within `length` is counted as "not started".
pub(super) async fn run<F, W>(book: &Rc<Book>, pace: Pace, attempt: F)
where
    F: Fn(Slot) -> W,
    W: Future<Output = ()> + 'static,
{
    let Pace {
        rate,
        length,
        in_flight,
        most,
    } = pace;
    if rate <= 0.0 {
        return tokio::time::sleep(length).await;
    }
    let places = Arc::new(Semaphore::new(in_flight.max(1) as usize));
    let begun = Instant::now();
    let end = begun + length;
    let mut number: u64 = 0;
    loop {
        let meant = begun + Duration::from_secs_f64(number_as_f64(number) / rate);
        if meant >= end || number >= most {
            break;
        }
        // The timer has steps of a millisecond and fires late rather than early.
        sleep_until(meant - TIMER_STEP).await;
        let Ok(Ok(place)) = tokio::time::timeout_at(end, Arc::clone(&places).acquire_owned()).await else {
            let rest = ((end - meant).as_secs_f64() * rate).ceil();
            book.count_many("not started", f64_as_number(rest));
            break;
        };
        book.count("started");
        book.time("behind schedule", meant.elapsed());
        // An attempt that starts before its time, which the timer's step makes of some, counts from its start.
        let meant = meant.min(Instant::now());
        let work = attempt(Slot { number, meant, end });
        tokio::task::spawn_local(async move {
            work.await;
            drop(place);
        });
        number += 1;
    }
    // All places free: all have ended.
    let _ = places.acquire_many(in_flight.max(1)).await;
}

#[allow(clippy::cast_precision_loss, reason = "attempts stay far below 2^53")]
fn number_as_f64(number: u64) -> f64 {
    number as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that was rounded"
)]
fn f64_as_number(number: f64) -> u64 {
    number as u64
}
