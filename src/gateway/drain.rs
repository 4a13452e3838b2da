//! Leaving without breaking plays: everybody is told first, then closed at a bounded rate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config;

use super::Gateway;
use super::seat::Drain;

/// Ends every session of this node.
///
/// `draining` goes to all; over `settings.window`, or longer where `settings.rate` asks for it, their sockets are
/// closed with 4200; after `settings.deadline` the rest is left to the end of the process. Answers how many
/// sessions were told.
pub async fn run(gateway: &Arc<Gateway>, settings: &config::Drain) -> usize {
    let start = Instant::now();
    let deadline = start + settings.deadline;
    let seats = gateway.registry.seats();
    for seat in &seats {
        seat.tell(|news| news.drain = Some(Drain::Announce(settings.window)));
    }
    let count = u32::try_from(seats.len()).unwrap_or(u32::MAX).max(1);
    let at_rate = Duration::from_secs(1) / settings.rate;
    let pause = (settings.window / count)
        .max(at_rate)
        .min(settings.deadline / count);
    for (index, seat) in (1..).zip(&seats) {
        if gateway.registry.is_empty() {
            break;
        }
        sleep_until(start + pause * index).await;
        seat.tell(|news| news.drain = Some(Drain::Close));
    }
    // Whoever came in through an upgrade that was already under way, or is about to.
    gateway.registry.leaving().cancel();
    for seat in gateway.registry.seats() {
        seat.tell(|news| news.drain = Some(Drain::Close));
    }
    gateway.tasks.close();
    let _ = timeout_at(deadline, gateway.tasks.wait()).await;
    seats.len()
}
