//! What others than the players ask of the lease: operators, who look and give orders, and those who check tickets.
//!
//! Owns: their questions to the store. Does not: know who may ask (`api` does).

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::protocol::id::{AccountKey, SessionId};

use super::model::{Decided, Decision, Entry, Fenced, Order, Standing};
use super::service::Service;
use super::store::{NodeLease, StoreError};

/// Most buckets that are asked for the nodes' leases: every node is in all of them.
const ASKED: u16 = 8;

impl Service {
    /// Gives an order about a session.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: unknown whether it was heard.
    pub async fn order(&self, account: &AccountKey, order: Order) -> Result<Fenced, StoreError> {
        self.ask(account, || self.store.order(account, order)).await
    }

    /// Takes an operator's decision about an account.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: unknown whether it was heard.
    pub async fn decide(&self, account: &AccountKey, decision: Decision) -> Result<Decided, StoreError> {
        let decided = self.ask(account, || self.store.decide(account, decision)).await?;
        if decided.standing.blocked {
            self.locals.heard_blocked().add(account);
        }
        Ok(decided)
    }

    /// What operators decided about an account.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the store is away.
    pub async fn standing(&self, account: &AccountKey) -> Result<Standing, StoreError> {
        self.ask(account, || self.store.standing(account)).await
    }

    /// Whether an account is known to be blocked. Asks the store only about accounts that were blocked when this node
    /// last heard of them: the start of another one is judged by the store anyway.
    pub async fn is_blocked(&self, account: &AccountKey) -> bool {
        let heard = self.locals.heard_blocked();
        if !heard.has(account) {
            return false;
        }
        match self.standing(account).await {
            Ok(standing) if !standing.blocked => {
                heard.remove(account);
                false
            }
            // A store that is away has not unblocked anybody.
            Ok(_) | Err(_) => true,
        }
    }

    /// The account's entries.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the store is away.
    pub async fn list(&self, account: &AccountKey) -> Result<Vec<Entry>, StoreError> {
        self.ask(account, || self.store.list(account)).await
    }

    /// Whether a session holds its slot. Waits for a bucket that recovers: what is not back yet may come back.
    ///
    /// # Errors
    /// [`StoreError`]: the store is away and the session is not on this node: nobody can tell.
    pub async fn lives(&self, account: &AccountKey, session: SessionId) -> Result<bool, StoreError> {
        let answer = self.ask(account, || self.store.lives(account, session)).await;
        answer.or_else(|error| {
            if self.locals.holds(account, session) {
                Ok(true)
            } else {
                Err(error)
            }
        })
    }

    /// The accounts that have entries, at most `most`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the store is away.
    pub async fn accounts(&self, most: usize) -> Result<Vec<AccountKey>, StoreError> {
        self.store.accounts(most).await
    }

    /// The nodes, each with its worst lease of the buckets that are asked: some, spread over all of them. A bucket that
    /// does not answer is left out while others do.
    ///
    /// # Errors
    /// [`StoreError`]: none answers.
    pub async fn nodes(&self) -> Result<Vec<NodeLease>, StoreError> {
        let buckets = self.store.buckets();
        let asked = (0..buckets).step_by(usize::from(buckets.div_ceil(ASKED)));
        let answers = join_all(asked.map(|bucket| self.store.leases(bucket))).await;
        let mut worst = BTreeMap::<_, NodeLease>::new();
        let mut answered = Err(StoreError::Unavailable);
        for answer in answers {
            match answer {
                Ok(leases) => {
                    answered = Ok(());
                    for lease in leases {
                        let known = worst.entry(lease.owner).or_insert(lease);
                        known.age = known.age.max(lease.age);
                        known.remaining = known.remaining.min(lease.remaining);
                    }
                }
                Err(error) if answered.is_err() => answered = Err(error),
                Err(_) => {}
            }
        }
        answered.map(|()| worst.into_values().collect())
    }
}
