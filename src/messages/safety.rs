//! What protects viewers from each other: blocks, messages taken back or removed, and reports to operators.

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::db::{DbError, Sql};

use super::store::{Store, id_of, pair, signed};

/// Accounts that one account may block.
pub const MOST_BLOCKS: i64 = 1_000;

/// A message, by its conversation.
#[derive(Clone, Copy, Debug)]
pub struct Which<'a> {
    /// Whose installation.
    pub tenant: &'a str,
    /// The two parties, in any order.
    pub parties: (&'a str, &'a str),
    /// Its id.
    pub id: u64,
}

/// What a viewer told operators about a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Report {
    /// Its own id.
    pub id: String,
    /// Who reports.
    pub reporter: String,
    /// Who wrote the message,
    pub from: String,
    /// and to whom.
    pub to: String,
    /// The message.
    pub message: u64,
    /// What it said when it was reported.
    #[schema(value_type = Object)]
    pub content: serde_json::Value,
    /// Why.
    pub reason: String,
    /// When it was reported.
    #[serde(serialize_with = "super::rfc3339_millis")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: i64,
    /// Who closed it; none: it is open.
    #[schema(required)]
    pub closed_by: Option<String>,
}

impl Store {
    /// Lets nothing of `blocked` reach `account` any more. False: it has blocked too many.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn block(&self, tenant: &str, account: &str, blocked: &str, now: i64) -> Result<bool, DbError> {
        let mut sql = Sql::new("SELECT count(*) FROM message_blocks WHERE tenant = ");
        sql.bind(tenant).push(" AND account = ").bind(account);
        let mut work = self.db.begin().await?;
        if work.fetch_one(sql.query()).await?.try_get::<i64, _>(0)? >= MOST_BLOCKS {
            return Ok(false);
        }
        let mut sql = Sql::new("INSERT INTO message_blocks (tenant, account, blocked, created_at) VALUES (");
        sql.bind_all([tenant, account, blocked]).push(", ").bind(now);
        sql.push(") ON CONFLICT (tenant, account, blocked) DO NOTHING");
        work.execute(sql.query()).await?;
        work.commit().await?;
        Ok(true)
    }

    /// Takes a block back; whether there was one.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn unblock(&self, tenant: &str, account: &str, blocked: &str) -> Result<bool, DbError> {
        let mut sql = Sql::new("DELETE FROM message_blocks WHERE tenant = ");
        sql.bind(tenant).push(" AND account = ").bind(account);
        sql.push(" AND blocked = ").bind(blocked);
        Ok(self.db.execute(sql.query()).await? > 0)
    }

    /// Whom an account has blocked, by name.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn blocked(&self, tenant: &str, account: &str) -> Result<Vec<String>, DbError> {
        let mut sql = Sql::new("SELECT blocked FROM message_blocks WHERE tenant = ");
        sql.bind(tenant).push(" AND account = ").bind(account);
        sql.push(" ORDER BY blocked LIMIT ").bind(MOST_BLOCKS);
        let rows = self.db.fetch_all(sql.query()).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Whether a message of `from` that stands shows this file to this account.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn shows_file(
        &self,
        tenant: &str,
        from: &str,
        account: &str,
        file: &str,
    ) -> Result<bool, DbError> {
        let mut sql = Sql::new("SELECT id FROM messages WHERE tenant = ");
        sql.bind(tenant).push(" AND file_id = ").bind(file);
        sql.push(" AND sender = ").bind(from);
        sql.push(" AND recipient = ").bind(account);
        sql.push(" AND removed_at IS NULL LIMIT 1");
        Ok(self.db.fetch_optional(sql.query()).await?.is_some())
    }

    /// Removes what a message says; of `sender` alone where one is named. Whether there was such a message.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn remove(&self, which: Which<'_>, sender: Option<&str>, now: i64) -> Result<bool, DbError> {
        let mut sql = Sql::new("UPDATE messages SET content = '{}', file_id = NULL, removed_at = ");
        sql.bind(now).push(" WHERE ");
        choose(&mut sql, which);
        if let Some(sender) = sender {
            sql.push(" AND sender = ").bind(sender);
        }
        Ok(self.db.execute(sql.query()).await? > 0)
    }

    /// Keeps a report, with what the message says now; the report's id, or none where there is no such message. The
    /// same reporter's second report of a message changes nothing.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn report(
        &self,
        which: Which<'_>,
        reporter: &str,
        reason: &str,
        (id, now): (&str, i64),
    ) -> Result<Option<String>, DbError> {
        let mut work = self.db.begin().await?;
        let mut sql = Sql::new("SELECT sender, recipient, content FROM messages WHERE ");
        choose(&mut sql, which);
        let Some(row) = work.fetch_optional(sql.query()).await? else {
            return Ok(None);
        };
        let text = |column: usize| Ok::<String, DbError>(row.try_get(column)?);
        let (sender, recipient, content) = (text(0)?, text(1)?, text(2)?);
        let mut sql = Sql::new(
            "INSERT INTO message_reports (tenant, id, reporter, sender, recipient, content, reason, message_id, \
             created_at) VALUES (",
        );
        sql.bind_all([which.tenant, id, reporter, &sender, &recipient, &content, reason]);
        sql.push(", ").bind_all([signed(which.id), now]);
        sql.push(
            ") ON CONFLICT (tenant, reporter, sender, recipient, message_id) DO UPDATE SET tenant = excluded.tenant \
             RETURNING id",
        );
        let kept = work.fetch_one(sql.query()).await?.try_get(0)?;
        work.commit().await?;
        Ok(Some(kept))
    }

    /// The reports of a tenant, open ones only unless `closed`, the oldest first, and how many there are.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn reports(
        &self,
        tenant: &str,
        closed: bool,
        (skip, limit): (usize, usize),
    ) -> Result<(Vec<Report>, usize), DbError> {
        let filter = |sql: &mut Sql| {
            sql.push(" FROM message_reports WHERE tenant = ").bind(tenant);
            if !closed {
                sql.push(" AND closed_at IS NULL");
            }
        };
        let mut work = self.db.connect().await?;
        let mut sql = Sql::new("SELECT count(*)");
        filter(&mut sql);
        let total: i64 = work.fetch_one(sql.query()).await?.try_get(0)?;
        let mut sql = Sql::new(
            "SELECT id, reporter, sender, recipient, message_id, content, reason, created_at, closed_by",
        );
        filter(&mut sql);
        let (limit, skip) = (limit.min(100) as u64, skip as u64);
        sql.push(" ORDER BY created_at, id LIMIT ").bind(signed(limit));
        sql.push(" OFFSET ").bind(signed(skip));
        let rows = work.fetch_all(sql.query()).await?;
        let found: Result<Vec<Report>, DbError> = rows.iter().map(report_of).collect();
        Ok((found?, usize::try_from(total).unwrap_or_default()))
    }

    /// Closes a report; whether it was open.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn close_report(&self, tenant: &str, id: &str, by: &str, now: i64) -> Result<bool, DbError> {
        let mut sql = Sql::new("UPDATE message_reports SET closed_at = ");
        sql.bind(now).push(", closed_by = ").bind(by);
        sql.push(" WHERE tenant = ")
            .bind(tenant)
            .push(" AND id = ")
            .bind(id);
        sql.push(" AND closed_at IS NULL");
        Ok(self.db.execute(sql.query()).await? > 0)
    }
}

fn choose(sql: &mut Sql, which: Which<'_>) {
    let (low, high) = pair(which.parties.0, which.parties.1);
    sql.push("tenant = ")
        .bind(which.tenant)
        .push(" AND low = ")
        .bind(low);
    sql.push(" AND high = ")
        .bind(high)
        .push(" AND id = ")
        .bind(signed(which.id));
    sql.push(" AND removed_at IS NULL");
}

fn report_of(row: &AnyRow) -> Result<Report, DbError> {
    let content: String = row.try_get(5)?;
    Ok(Report {
        id: row.try_get(0)?,
        reporter: row.try_get(1)?,
        from: row.try_get(2)?,
        to: row.try_get(3)?,
        message: id_of(row, 4)?,
        content: serde_json::from_str(&content).unwrap_or_default(),
        reason: row.try_get(6)?,
        created_at: row.try_get(7)?,
        closed_by: row.try_get(8)?,
    })
}
