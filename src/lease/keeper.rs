//! Keeping the node's leases: renewal, comparison and audit of every bucket.
//!
//! A cost per node that does not depend on the number of its sessions, and no command is caused by a heartbeat.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::protocol::close::EndCode;
use crate::protocol::id::AccountKey;
use crate::telemetry::Audit;

use super::bucket::RENEW_MS;
use super::clock::{jitter, tick};
use super::ended::End;
use super::model::{Generation, Held, Holding, NotNow, Renewed};
use super::service::{BucketState, Service};
use super::store::StoreError;
use super::tenure::{LEASE, Own};

/// Sessions compared by one audit: the store answers nobody else meanwhile.
const BATCH: usize = 100;

/// How often the clocks of the leases are looked at, and how long after a lost renewal the next one is sent, at least.
const GLANCE: Duration = Duration::from_millis(250);

/// Ends told again after one renewal.
const ENDS: usize = 200;

/// What a node holds in a bucket.
type Holdings = Vec<(AccountKey, Holding)>;

impl Service {
    /// Renews every bucket in its time, for ever. None waits for another one's audit.
    pub async fn keep(self: Arc<Self>) {
        let renewals = join_all((0..self.store.buckets()).map(|bucket| self.renew_for_ever(bucket)));
        let heartbeats = async { tokio::join!(self.send_heartbeats(), self.mind_expiries()) };
        tokio::join!(renewals, self.mind_lapses(), self.heed_alarms(), heartbeats);
    }

    async fn renew_for_ever(&self, bucket: u16) {
        let period = Duration::from_millis(RENEW_MS);
        let mut due = Instant::now() + period;
        loop {
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.buckets[usize::from(bucket)].wake.notified() => {}
            }
            let now = Instant::now();
            due = match self.renew(bucket).await {
                Ok(()) => now + period,
                // A renewal lost costs a fifth of the lease: it is repeated sooner.
                Err(_) => Instant::now() + GLANCE + jitter(GLANCE),
            };
        }
    }

    /// Word that data were lost: the sooner everybody writes what it holds again, the better.
    async fn heed_alarms(&self) {
        loop {
            self.store.alarm().await;
            for state in &self.buckets {
                state.wake.notify_one();
            }
        }
    }

    /// Begins the node's leases, and waits until no bucket recovers: the first start on an empty store takes the
    /// recovery's window, never a provisional grant.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the node starts without the store. [`StoreError::Foreign`]: it must not.
    pub async fn begin(&self) -> Result<(), StoreError> {
        loop {
            self.renew_all().await?;
            self.report();
            if self.is_ready() {
                return Ok(());
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Renews every bucket once.
    async fn renew_all(&self) -> Result<(), StoreError> {
        let renewals = join_all((0..self.store.buckets()).map(|bucket| self.renew(bucket))).await;
        let errors = renewals.iter().filter_map(|renewal| renewal.err());
        let foreign = |error: &StoreError| matches!(error, StoreError::Foreign(_));
        errors.max_by_key(foreign).map_or(Ok(()), Err)
    }

    /// The node leaves: nothing that it forgets from now on is taken for lost.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// The last renewal, so that those who resume elsewhere have the whole lease (rule 28).
    pub async fn farewell(&self) {
        if self.store.is_shared() {
            let _ = self.renew_all().await;
        }
    }

    /// Renews the node's lease in a bucket, and compares what both sides hold.
    ///
    /// # Errors
    /// The store is away.
    pub async fn renew(&self, bucket: u16) -> Result<(), StoreError> {
        let state = &self.buckets[usize::from(bucket)];
        let asked_for = tick();
        let _turn = state.renewing.lock().await;
        // Whoever waited for its turn has what the one before it got.
        if state.tenure().is_renewed_since(asked_for) {
            return Ok(());
        }
        let (answer, holdings) = self.beat(bucket, state).await?;
        if !self.store.is_shared() {
            state.tenure().audited(tick(), answer.generation, true);
            return Ok(());
        }
        // What ended while the store was away makes place before anything that is not certain is compared.
        self.tell(state, state.ends.untold(ENDS), answer.generation)
            .await?;
        let telling = state.ends.has_untold();
        let (unaudited, due) = {
            let tenure = state.tenure();
            (tenure.is_unaudited(), tenure.is_audit_due(tick()))
        };
        if unaudited || due {
            self.audit_all(bucket, state, &answer, holdings, telling).await?;
        }
        let forgotten = state.ends.forgotten(answer.generation, ENDS, tick());
        self.tell(state, forgotten, answer.generation).await?;
        let strangers = state.tenure().has_strangers();
        if strangers && !telling && !answer.phase.recovering() && !self.leaving.load(Ordering::Relaxed) {
            self.release_strangers(bucket).await?;
            state.tenure().strangers_seen();
        }
        Ok(())
    }

    /// Renews the lease alone, and looks where the numbers differ.
    async fn beat(&self, bucket: u16, state: &BucketState) -> Result<(Renewed, Holdings), StoreError> {
        let before = state.asked.load(Ordering::Acquire);
        let idle = before == state.answered.load(Ordering::Acquire);
        let sent = tick();
        let answer = match self.store.renew(bucket, self.owner).await {
            Ok(answer) => answer,
            Err(error) => {
                state
                    .foreign
                    .store(matches!(error, StoreError::Foreign(_)), Ordering::Relaxed);
                state.tenure().missed(sent, tick());
                return Err(error);
            }
        };
        state.foreign.store(false, Ordering::Relaxed);
        self.metrics
            .purged_sessions_total
            .inc_by(u64::from(answer.purged));
        let holdings = self.locals.holdings(bucket);
        let number = |generation: Generation| {
            let of = holdings
                .iter()
                .filter(|(_, holding)| holding.generation == generation);
            u32::try_from(of.count()).unwrap_or(u32::MAX)
        };
        let own = Own {
            confirmed: number(answer.generation),
            provisional: number(Generation::NONE),
            busy: !idle || before != state.asked.load(Ordering::Acquire),
        };
        state.tenure().renewed(sent, tick(), &answer, own);
        for (account, session) in &answer.marked {
            self.locals.look(account, self.owner, *session);
        }
        Ok((answer, holdings))
    }

    /// Compares every session of a bucket with the store: the firm first, then the oldest (rule 5). `telling`: only
    /// the firm, while ends are still to be told.
    async fn audit_all(
        &self,
        bucket: u16,
        state: &BucketState,
        renewed: &Renewed,
        mut holdings: Holdings,
        telling: bool,
    ) -> Result<(), StoreError> {
        let generation = renewed.generation;
        let doubtful = state.tenure().is_doubtful();
        for (_, holding) in &mut holdings {
            // Also what was confirmed in this life of the data: another may have begun since the renewal.
            holding.doubtful |= doubtful || holding.generation == Generation::NONE;
        }
        holdings.sort_by_key(|(_, holding)| (holding.doubtful, holding.started_at));
        let all = holdings.len();
        holdings.retain(|(_, holding)| !telling || !holding.doubtful);
        let mut complete = holdings.len() == all;
        for batch in holdings.chunks_mut(BATCH) {
            if state.tenure().is_renewal_due(tick()) {
                let (again, _) = self.beat(bucket, state).await?;
                if (again.generation, again.since) != (generation, renewed.since) {
                    // What was compared already is to be compared again.
                    state.tenure().surprised();
                    return Err(StoreError::NotNow(NotNow::RenewFirst));
                }
            }
            let _permit = self.audits.acquire().await;
            // A session that switched meanwhile is not to be written back.
            for (account, holding) in batch.iter_mut() {
                self.locals.refresh(account, holding);
            }
            let sent = tick();
            let audited = match self.store.audit(bucket, self.owner, batch).await {
                Ok(audited) => audited,
                Err(error) => {
                    if error == StoreError::Unavailable {
                        state.tenure().missed(sent, tick());
                    }
                    return Err(error);
                }
            };
            if audited.generation != generation {
                // The data were lost again meanwhile: the next renewal begins anew.
                state.tenure().surprised();
                return Err(StoreError::NotNow(NotNow::RenewFirst));
            }
            for ((account, holding), held) in batch.iter().zip(&audited.verdicts) {
                self.count(held);
                match held {
                    Held::Yours { mark, .. } => {
                        self.locals.confirm(account, holding.fence, generation);
                        if mark.is_some() {
                            self.locals.look(account, self.owner, holding.fence.session);
                        }
                    }
                    Held::Later => complete = false,
                    // Its socket asks again, and ends. Should the data be lost before it has, it is not written
                    // again as certain.
                    Held::Moved | Held::Gone(_) => {
                        self.locals.doubt(account, holding.fence);
                        self.locals.look(account, self.owner, holding.fence.session);
                    }
                }
            }
        }
        complete &= self.compare_lone(bucket, &self.locals.lone(bucket)).await?;
        state.tenure().audited(tick(), generation, complete);
        Ok(())
    }

    /// Releases what the store holds for this node and the node does not know (rule 12).
    async fn release_strangers(&self, bucket: u16) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.owned(bucket, self.owner, after.as_ref()).await?;
            let Some((account, fence)) = page.last() else {
                return Ok(());
            };
            after = Some((account.clone(), fence.session));
            let known: HashSet<_> = page
                .iter()
                .filter(|(account, fence)| self.locals.knows(account, fence.session))
                .map(|(_, fence)| fence.session)
                .collect();
            for (account, fence) in page.iter().filter(|(_, fence)| !known.contains(&fence.session)) {
                tracing::warn!(session = %fence.session, "the store held a session that is not here; released");
                let holding = Holding::stranger(*fence);
                self.store.release(account, &holding, EndCode::LeaseLost).await?;
            }
        }
    }

    /// Tells the store ends that it did not hear, or has lost.
    async fn tell(
        &self,
        state: &BucketState,
        ends: Vec<End>,
        generation: Generation,
    ) -> Result<(), StoreError> {
        for end in ends {
            self.store.release(&end.account, &end.holding, end.code).await?;
            state.ends.told(&end, generation);
        }
        Ok(())
    }

    /// Looks at the clocks of the leases: a node that stood still, or was cut off, knows it at once.
    async fn mind_lapses(&self) {
        self.report();
        if !self.store.is_shared() {
            return;
        }
        let mut glances = interval(GLANCE);
        glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            glances.tick().await;
            let now = tick();
            for (bucket, state) in (0..).zip(&self.buckets) {
                if state.tenure().mind_lapse(now) && self.outage.strict {
                    self.locals.end(bucket, EndCode::LeaseLost);
                }
            }
            self.report();
        }
    }

    pub(super) fn count(&self, held: &Held) {
        let outcome = match held {
            Held::Yours { repaired: false, .. } => Audit::Ok,
            Held::Yours { repaired: true, .. } => Audit::Repaired,
            Held::Moved | Held::Gone(_) => Audit::Lost,
            Held::Later => return,
        };
        self.metrics.audit_sessions_total.inc(outcome);
    }

    fn report(&self) {
        let now = tick();
        let remaining = self
            .buckets
            .iter()
            .map(|state| state.tenure().remaining(now))
            .min();
        let remaining = if self.store.is_shared() {
            remaining.unwrap_or_default()
        } else {
            LEASE
        };
        self.metrics
            .node_lease_remaining_seconds
            .set(remaining.as_secs_f64());
    }
}
