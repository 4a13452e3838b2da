//! Heartbeats of sessions without a socket, on their way to the store.
//!
//! Owns: collecting what comes within a moment into one question, and comparing what the node heard last with the store.
//! Does not: remember sessions (`locals` does) or decide about them (the store does).
//! Called by: `gateway`'s sessions without a socket, and `keeper`.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::protocol::close::EndCode;
use crate::protocol::id::AccountKey;

use super::clock::tick;
use super::model::{Acquire, Acquired, Beaten, Heartbeat};
use super::service::Service;
use super::store::StoreError;

/// How long a heartbeat waits for others: one script answers all that come meanwhile.
const COLLECT: Duration = Duration::from_millis(25);

/// Heartbeats of one script: the store answers nobody else meanwhile.
const BATCH: usize = 100;

/// Heartbeats of one bucket that may wait; more are told to come again.
const MOST_WAITING: usize = 10_000;

/// How often the node looks for sessions whose time is over.
const GLANCE: Duration = Duration::from_millis(100);

/// Heartbeats of one bucket that wait for their script.
#[derive(Default)]
pub(super) struct Heartbeats {
    waiting: Mutex<VecDeque<Waiting>>,
    /// Rings when one comes.
    came: Notify,
}

struct Waiting {
    account: AccountKey,
    beat: Heartbeat,
    answer: oneshot::Sender<Result<Beaten, StoreError>>,
}

impl Heartbeats {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch; those whose asker has gone are dropped.
    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.lock();
        waiting.retain(|one| !one.answer.is_closed());
        let number = waiting.len().min(BATCH);
        waiting.drain(..number).collect()
    }
}

impl Service {
    /// Starts a session without a socket. A store that is away is not done without: no node could hold the slot.
    ///
    /// # Errors
    /// [`StoreError`]: nobody can tell.
    pub async fn acquire_lone(
        &self,
        account: &AccountKey,
        request: &Acquire,
    ) -> Result<Acquired, StoreError> {
        let answer = self.ask(account, || self.store.acquire(account, request)).await;
        if let Ok(Acquired::Ended(EndCode::AccountBlocked)) = answer {
            self.locals.heard_blocked().add(account);
        }
        answer
    }

    /// Sends a heartbeat, together with others.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: unknown whether it was heard.
    pub async fn heartbeat(&self, account: &AccountKey, beat: Heartbeat) -> Result<Beaten, StoreError> {
        let bucket = self.store.bucket(account);
        let state = &self.buckets[usize::from(bucket)];
        // Nobody waits for a store that is known to be away.
        if state.tenure().is_away(tick()) {
            return Err(StoreError::Unavailable);
        }
        let heartbeats = &state.heartbeats;
        let (answer, told) = oneshot::channel();
        {
            let mut waiting = heartbeats.lock();
            if waiting.len() >= MOST_WAITING {
                return Err(StoreError::Unavailable);
            }
            waiting.push_back(Waiting {
                account: account.clone(),
                beat,
                answer,
            });
        }
        heartbeats.came.notify_one();
        told.await.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Sends what waits, for ever. No bucket waits for another one.
    pub(super) async fn send_heartbeats(&self) {
        join_all((0..self.store.buckets()).map(|bucket| self.send_of(bucket))).await;
    }

    async fn send_of(&self, bucket: u16) {
        let heartbeats = &self.buckets[usize::from(bucket)].heartbeats;
        loop {
            heartbeats.came.notified().await;
            if self.store.is_shared() {
                sleep(COLLECT).await;
            }
            loop {
                let batch = heartbeats.take();
                if batch.is_empty() {
                    break;
                }
                let (beats, answers): (Vec<_>, Vec<_>) = batch
                    .into_iter()
                    .map(|one| ((one.account, one.beat), one.answer))
                    .unzip();
                match self.store.beat(bucket, &beats).await {
                    Ok(verdicts) => {
                        if verdicts.contains(&Beaten::Later) {
                            // Who knows these sessions writes them again the sooner the better.
                            self.buckets[usize::from(bucket)].wake.notify_one();
                        }
                        for (answer, verdict) in answers.into_iter().zip(verdicts) {
                            let _ = answer.send(Ok(verdict));
                        }
                    }
                    Err(error) => {
                        for answer in answers {
                            let _ = answer.send(Err(error));
                        }
                    }
                }
            }
        }
    }

    /// Looks at sessions whose time is over by this node's clock, for ever: whoever waits for their slots gets them.
    pub(super) async fn mind_expiries(&self) {
        let mut glances = interval(GLANCE);
        glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            glances.tick().await;
            let looks = (0..self.store.buckets()).map(|bucket| async move {
                let due = self.locals.lone_due(bucket, BATCH);
                if !due.is_empty() {
                    // What goes unanswered is asked again.
                    let _ = self.compare_lone(bucket, &due).await;
                }
            });
            join_all(looks).await;
        }
    }

    /// Compares sessions without a socket that this node heard last with the store, and writes again what another life of
    /// its data lost. True when none is to be compared again.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn compare_lone(
        &self,
        bucket: u16,
        beats: &[(AccountKey, Heartbeat)],
    ) -> Result<bool, StoreError> {
        let mut complete = true;
        for batch in beats.chunks(BATCH) {
            let verdicts = self.store.beat(bucket, batch).await?;
            for ((account, beat), verdict) in batch.iter().zip(&verdicts) {
                complete &= *verdict != Beaten::Later;
                self.locals.lone_compared(account, beat.session, verdict);
            }
        }
        Ok(complete)
    }
}
