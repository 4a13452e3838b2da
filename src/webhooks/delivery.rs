//! Delivering one batch, in order for each account, until every event of it is done with.
//!
//! Owns: which event is next, pauses between tries, and when an event becomes a dead letter.
//! Does not: hold the lease or move the cursor (`courier` does); it can be stopped at any moment.
//! Called by: `courier`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;

use crate::lease::journal::{Batch, Cursor, DeadLetter, Record};
use crate::protocol::id::{AccountKey, random};
use crate::telemetry::Metrics;

use super::Pace;
use super::payload::{body_of, id_of};
use super::receiver::{Receiver, Sent};

/// A batch on its way to a receiver.
pub(super) struct Delivery<'a> {
    receiver: &'a Receiver,
    bucket: u16,
    pace: Pace,
    metrics: &'a Metrics,
    /// Where the receiver stood before.
    start: Cursor,
    events: usize,
    items: Vec<Item>,
    state: Mutex<State>,
}

/// An entry of the batch; no record is one that this receiver is not told.
struct Item {
    place: String,
    record: Option<Record>,
}

struct State {
    /// Of each item.
    done: Vec<bool>,
    /// Refusals of each item.
    tries: Vec<u32>,
    /// By item; kept until the cursor passes it, or whoever reads the item again would add it twice.
    dead: BTreeMap<usize, DeadLetter>,
    error: Option<String>,
}

/// Why an event could not be told now.
enum Held {
    /// The receiver is away: nothing of the bucket can be told.
    Line(Option<Duration>),
    /// It does not want this event, and may be asked again.
    Event,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(
        receiver: &'a Receiver,
        bucket: u16,
        pace: Pace,
        metrics: &'a Metrics,
        batch: Batch,
    ) -> Self {
        let events = batch.events.len();
        let entries = batch.events.into_iter().chain(batch.refusals);
        let items: Vec<_> = entries
            .map(|entry| Item {
                place: entry.id,
                record: entry.record.filter(|record| receiver.is_for(record)),
            })
            .collect();
        let state = State {
            done: items.iter().map(|item| item.record.is_none()).collect(),
            tries: vec![0; items.len()],
            dead: BTreeMap::new(),
            error: None,
        };
        Self {
            receiver,
            bucket,
            pace,
            metrics,
            start: batch.cursor,
            events,
            items,
            state: Mutex::new(state),
        }
    }

    /// Tries until every event is told or dead.
    pub(super) async fn run(&self) {
        let mut failures = 0;
        while let Some(retry_after) = self.round(failures > 0).await {
            failures += 1;
            let pause = pause(self.pace, failures);
            tokio::time::sleep(retry_after.map_or(pause, |asked| asked.max(pause))).await;
        }
    }

    /// Up to where everything is done with, and the dead letters that this took. Those are handed out once.
    pub(super) fn progress(&self) -> (Cursor, Vec<DeadLetter>) {
        let mut state = self.state();
        let (mut cursor, mut letters) = (self.start.clone(), Vec::new());
        for (range, place) in [
            (0..self.events, &mut cursor.events),
            (self.events..self.items.len(), &mut cursor.refusals),
        ] {
            for at in range {
                if !state.done[at] {
                    break;
                }
                place.clone_from(&self.items[at].place);
                letters.extend(state.dead.remove(&at));
            }
        }
        (cursor, letters)
    }

    /// What went wrong last; none while all is well.
    pub(super) fn error(&self) -> Option<String> {
        self.state().error.clone()
    }

    /// Tells what can be told now; some pause when something is left. `probe`: the receiver failed just now, so one event
    /// finds out whether it is back before the others follow.
    async fn round(&self, probe: bool) -> Option<Option<Duration>> {
        let mut held = None;
        let mut lines = self.lines();
        if probe && let Some(first) = lines.first_mut() {
            match self.attempt(first[0]).await {
                Ok(()) => {
                    first.remove(0);
                }
                Err(Held::Event) => {
                    held = Some(None);
                    lines.remove(0);
                }
                Err(Held::Line(retry_after)) => return Some(retry_after),
            }
        }
        let told = join_all(lines.iter().map(|line| self.tell(line))).await;
        for one in told.into_iter().filter_map(Result::err) {
            let retry_after = match one {
                Held::Line(retry_after) => retry_after,
                Held::Event => None,
            };
            held = Some(retry_after.max(held.flatten()));
        }
        held
    }

    /// What is left, by account, each in its order.
    fn lines(&self) -> Vec<Vec<usize>> {
        let state = self.state();
        let mut lines: Vec<Vec<usize>> = Vec::new();
        let mut line_of: HashMap<&AccountKey, usize> = HashMap::new();
        for (at, item) in self.items.iter().enumerate() {
            if let (Some(record), false) = (&item.record, state.done[at]) {
                let line = *line_of.entry(&record.account).or_insert_with(|| {
                    lines.push(Vec::new());
                    lines.len() - 1
                });
                lines[line].push(at);
            }
        }
        lines
    }

    async fn tell(&self, line: &[usize]) -> Result<(), Held> {
        for at in line {
            self.attempt(*at).await?;
        }
        Ok(())
    }

    async fn attempt(&self, at: usize) -> Result<(), Held> {
        let Some(record) = &self.items[at].record else {
            return Ok(());
        };
        let (id, body) = (id_of(self.bucket, record), body_of(record));
        // The semaphore is never closed.
        let place = self.receiver.places.acquire().await;
        let sent = self.receiver.deliver(&id, &body).await;
        drop(place);
        let count = &self.metrics.webhook_deliveries_total;
        let mut state = self.state();
        let (reason, held, is_dead) = match sent {
            Sent::Delivered => {
                count.inc("delivered");
                state.done[at] = true;
                state.error = None;
                return Ok(());
            }
            Sent::Failed { reason, retry_after } => {
                count.inc("failed");
                (reason, Held::Line(retry_after), self.is_old(record))
            }
            Sent::Refused { reason } => {
                count.inc("refused");
                state.tries[at] += 1;
                let enough = state.tries[at] >= self.pace.refused_tries;
                (reason, Held::Event, enough)
            }
        };
        let receiver = &*self.receiver.name;
        if state.error.is_none() {
            tracing::warn!(receiver, %reason, "a webhook was not delivered");
        }
        state.error = Some(reason.clone());
        if !is_dead {
            return Err(held);
        }
        count.inc("dead");
        tracing::warn!(receiver, id, %reason, "a webhook is a dead letter");
        state.done[at] = true;
        let letter = DeadLetter {
            receiver: receiver.to_owned(),
            id,
            reason,
            body,
        };
        state.dead.insert(at, letter);
        Ok(())
    }

    fn is_old(&self, record: &Record) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_millis(record.at)) > self.pace.give_up
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Doubles with each failure in a row, up to the longest; a random half of it, so that nodes do not come together.
fn pause(pace: Pace, failures: u32) -> Duration {
    let doubled = pace
        .first
        .saturating_mul(1 << (failures - 1).min(20))
        .min(pace.most);
    let part = f32::from(u16::from_ne_bytes(random())) / f32::from(u16::MAX);
    doubled / 2 + (doubled / 2).mul_f32(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pace = Pace {
            first: Duration::from_secs(1),
            most: Duration::from_secs(300),
            give_up: Duration::ZERO,
            refused_tries: 1,
        };
        for (failures, most) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (u32::MAX, 300)] {
            let most = Duration::from_secs(most);
            for _ in 0..100 {
                let pause = pause(pace, failures);
                assert!((most / 2..=most).contains(&pause), "{failures}: {pause:?}");
            }
        }
    }
}
