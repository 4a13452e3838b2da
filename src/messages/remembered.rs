//! What messages keep of a person, for an export and for their leaving.
//!
//! Owns: telling it, and taking back what the person said. Reports stay, with what was reported. Does not: know people
//! (`accounts` does). Called by: `accounts`.

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::Row;

use crate::accounts::Remembered;
use crate::api::error::ApiError;
use crate::db::{Db, Sql};
use crate::protocol::id::AccountKey;

use super::store::{Message, SELECT, read};
use super::{now, text_of};

/// Most messages in an export, sent and received ones each, the newest.
const MOST: i64 = 10_000;

/// The memory of people that messages are.
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
        "messages"
    }

    async fn export(&self, account: &AccountKey) -> Result<Value, ApiError> {
        let mut work = self.0.connect().await?;
        let mut told = Vec::new();
        for side in [" AND sender = ", " AND recipient = "] {
            let mut sql = Sql::new(SELECT);
            sql.push("tenant = ").bind(&*account.tenant).push(side);
            sql.bind(&*account.account);
            sql.push(" AND removed_at IS NULL ORDER BY id DESC LIMIT ")
                .bind(MOST);
            let found: Vec<Message> = read(&work.fetch_all(sql.query()).await?)?;
            let shown: Vec<Value> = found
                .iter()
                .filter_map(text_of)
                .filter_map(|message| serde_json::to_value(message).ok())
                .collect();
            told.push(shown);
        }
        let mut sql = Sql::new("SELECT blocked FROM message_blocks WHERE tenant = ");
        sql.bind(&*account.tenant);
        sql.push(" AND account = ")
            .bind(&*account.account)
            .push(" ORDER BY blocked");
        let rows = work.fetch_all(sql.query()).await?;
        let blocked: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let received = told.pop();
        Ok(json!({"sent": told.pop(), "received": received, "blocked": blocked}))
    }

    async fn forget(&self, account: &AccountKey) -> Result<(), ApiError> {
        let mut work = self.0.begin().await?;
        let mut sql = Sql::new("UPDATE messages SET content = '{}', file_id = NULL, removed_at = ");
        sql.bind(now()).push(" WHERE removed_at IS NULL AND tenant = ");
        sql.bind(&*account.tenant)
            .push(" AND sender = ")
            .bind(&*account.account);
        work.execute(sql.query()).await?;
        for what in [
            "DELETE FROM conversations WHERE account = ",
            "DELETE FROM conversations WHERE peer = ",
            "DELETE FROM message_blocks WHERE account = ",
            "DELETE FROM message_blocks WHERE blocked = ",
        ] {
            let mut sql = Sql::new(what);
            sql.bind(&*account.account);
            sql.push(" AND tenant = ").bind(&*account.tenant);
            work.execute(sql.query()).await?;
        }
        work.commit().await?;
        Ok(())
    }
}
