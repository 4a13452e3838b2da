//! What an account has read: the list of its conversations, cursors and unread counts.

use serde::Serialize;
use sqlx::Row;
use utoipa::ToSchema;

use crate::db::{DbError, Sql};

use super::store::{Store, id_of, pair, signed};

/// Unread messages are counted up to this; more are as many.
pub const MOST_UNREAD: i64 = 1_000;

/// A conversation as one party sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Conversation {
    /// The other party.
    pub with: String,
    /// The id of its newest message.
    pub last_id: u64,
    /// Up to where it was read.
    pub read_id: u64,
    /// Messages of the other party after that, at most 1000.
    pub unread: u64,
}

impl Store {
    /// The conversations of an account, those with the newest messages first, and how many there are.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn conversations(
        &self,
        tenant: &str,
        account: &str,
        (skip, limit): (usize, usize),
    ) -> Result<(Vec<Conversation>, usize), DbError> {
        let mut work = self.db.connect().await?;
        let mut sql = Sql::new("SELECT count(*) FROM conversations WHERE tenant = ");
        sql.bind(tenant).push(" AND account = ").bind(account);
        let total: i64 = work.fetch_one(sql.query()).await?.try_get(0)?;
        let mut sql = Sql::new("SELECT peer, last_id, read_id FROM conversations WHERE tenant = ");
        sql.bind(tenant).push(" AND account = ").bind(account);
        sql.push(" ORDER BY last_id DESC, peer LIMIT ").bind(whole(limit));
        sql.push(" OFFSET ").bind(whole(skip));
        let rows = work.fetch_all(sql.query()).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let (with, read_id): (String, u64) = (row.try_get(0)?, id_of(row, 2)?);
            let row_of_unread = work
                .fetch_one(unread(tenant, account, &with, read_id).query())
                .await?;
            found.push(Conversation {
                unread: id_of(&row_of_unread, 0)?,
                last_id: id_of(row, 1)?,
                read_id,
                with,
            });
        }
        Ok((found, usize::try_from(total).unwrap_or_default()))
    }

    /// Moves the cursor of a conversation on to `id`, never back and never beyond the newest; the conversation as it is
    /// then, or none where there is none.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn mark_read(
        &self,
        tenant: &str,
        account: &str,
        with: &str,
        id: u64,
    ) -> Result<Option<Conversation>, DbError> {
        let mut work = self.db.connect().await?;
        let mut sql = Sql::new("UPDATE conversations SET read_id = CASE WHEN ");
        sql.bind(signed(id)).push(" > last_id THEN last_id WHEN ");
        sql.bind(signed(id)).push(" > read_id THEN ").bind(signed(id));
        sql.push(" ELSE read_id END WHERE tenant = ").bind(tenant);
        sql.push(" AND account = ")
            .bind(account)
            .push(" AND peer = ")
            .bind(with);
        sql.push(" RETURNING last_id, read_id");
        let Some(row) = work.fetch_optional(sql.query()).await? else {
            return Ok(None);
        };
        let (last_id, read_id) = (id_of(&row, 0)?, id_of(&row, 1)?);
        let row = work
            .fetch_one(unread(tenant, account, with, read_id).query())
            .await?;
        Ok(Some(Conversation {
            with: with.to_owned(),
            last_id,
            read_id,
            unread: id_of(&row, 0)?,
        }))
    }
}

/// Counts up to a bound: a conversation that nobody ever opened may hold any number.
fn unread(tenant: &str, account: &str, with: &str, read_id: u64) -> Sql {
    let (low, high) = pair(account, with);
    let mut sql = Sql::new("SELECT count(*) FROM (SELECT 1 AS one FROM messages WHERE tenant = ");
    sql.bind(tenant)
        .push(" AND low = ")
        .bind(low)
        .push(" AND high = ")
        .bind(high);
    sql.push(" AND id > ")
        .bind(signed(read_id))
        .push(" AND recipient = ")
        .bind(account);
    sql.push(" AND removed_at IS NULL LIMIT ")
        .bind(MOST_UNREAD)
        .push(") AS unread");
    sql
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
