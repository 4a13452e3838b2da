//! What the ledger knows of a person, for an export and for their leaving.
//!
//! Owns: telling it, and taking the person out of it: seconds and fees stay, since statements rest on them, under a name that
//! leads to nobody. Does not: know people (`accounts` does). Called by: `accounts`.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::Row;

use crate::accounts::Remembered;
use crate::api::error::ApiError;
use crate::db::{Db, Sql};
use crate::protocol::id::{AccountKey, random};

use super::plays::{COLUMNS, Play};
use super::versions;

/// Most plays in an export, the newest.
const MOST: i64 = 10_000;

/// The ledger's memory of people.
pub struct Memory(Db);

impl Memory {
    /// That of this database.
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self(db)
    }
}

#[async_trait]
impl Remembered for Memory {
    fn name(&self) -> &'static str {
        "ledger"
    }

    async fn export(&self, account: &AccountKey) -> Result<Value, ApiError> {
        let whose = |sql: &mut Sql| {
            sql.push("tenant = ").bind(account.tenant.to_string());
            sql.push(" AND user_id = ").bind(account.account.to_string());
        };
        let mut work = self.0.connect().await?;
        let mut sql = Sql::new("SELECT product_type, fee, currency, origin FROM subscribers WHERE ");
        whose(&mut sql);
        let subscription = work.fetch_optional(sql.query()).await?.map(|row| {
            let [product, currency, origin] = [0, 2, 3].map(|column| row.get::<String, _>(column));
            let fee: i64 = row.get(1);
            json!({"product_type": product, "fee_minor": fee, "currency": currency, "origin": origin})
        });
        let mut sql = Sql::new("SELECT ");
        sql.push(COLUMNS).push(" FROM plays p WHERE p.");
        whose(&mut sql);
        sql.push(" ORDER BY p.started_at DESC, p.id LIMIT ").bind(MOST);
        let plays = work.fetch_all(sql.query()).await?;
        let plays: Vec<_> = plays.iter().map(Play::of).collect();
        Ok(json!({"subscription": subscription, "plays": plays}))
    }

    async fn forget(&self, account: &AccountKey) -> Result<(), ApiError> {
        let nobody = format!("forgotten-{:032x}", u128::from_be_bytes(random()));
        let mut work = self.0.begin().await?;
        let mut changed = 0;
        for what in [
            "UPDATE plays SET device = NULL, device_name = NULL, user_id = ",
            "UPDATE subscribers SET user_id = ",
        ] {
            let mut sql = Sql::new(what);
            sql.bind(nobody.clone());
            sql.push(" WHERE tenant = ").bind(account.tenant.to_string());
            sql.push(" AND user_id = ").bind(account.account.to_string());
            changed += work.execute(sql.query()).await?;
        }
        if changed > 0 {
            // What was watched of which content stays as it is.
            versions::change(&mut work, &account.tenant, &BTreeSet::new()).await?;
        }
        work.commit().await?;
        Ok(())
    }
}
