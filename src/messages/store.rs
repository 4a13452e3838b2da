//! Messages in SQL, which are the truth of them.
//!
//! Owns: how ids are given, and reading conversations and mailboxes. Does not: deliver anything, or know who may speak.
//! Called by: the routes, and the desk that takes what players say.
//!
//! # Ids
//!
//! Every account and every room has a mailbox, a row with the newest id of anything from or to it. A message takes the
//! rows of both its parties (in the order of their bytes, so that no two messages wait for each other in a circle) and
//! gets the id after the newer of the two: a Lamport clock over mailboxes. So ids ascend in every conversation and in
//! every mailbox, an account never sees one twice, and, since the rows are held until the commit, they become visible
//! in their order: whoever has read up to an id misses nothing before it. There is no lock that strangers share.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::any::AnyRow;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::db::{Db, DbError, Engine, Sql, Work};
use crate::protocol::message::{Content, ID_END, room};

/// How often a message is stored again that another transaction stood in the way of.
const TRIES: u32 = 4;

/// The longest wait for other writers of this node.
const LONGEST_LINE: Duration = Duration::from_secs(5);

/// The SQL of messages.
#[derive(Clone)]
pub struct Store {
    pub(super) db: Db,
    /// Whether accounts are rows of this installation.
    accounts: bool,
    /// SQLite has one writer at a time and lets the others try again by chance: here they wait in a line.
    line: Option<Arc<Mutex<()>>>,
}

/// A message that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// Whose installation.
    pub tenant: &'a str,
    /// Who says it.
    pub from: &'a str,
    /// To whom: an account or a room.
    pub to: &'a str,
    /// What it says.
    pub content: &'a Content,
    /// The same again is the same message.
    pub client_id: Option<&'a str>,
    /// Unix milliseconds.
    pub now: i64,
}

/// A stored message, as far as its sender needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: u64,
    /// The id of the message to the same recipient before it; 0: there is none.
    pub before: u64,
    /// When it was stored first, in Unix milliseconds.
    pub sent_at: i64,
    /// Whether it was there already.
    pub again: bool,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: u64,
    /// Who said it.
    pub from: String,
    /// To whom.
    pub to: String,
    /// JSON.
    pub content: String,
    /// Unix milliseconds.
    pub sent_at: i64,
}

/// Why a message is not stored.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no such account.
    #[error("there is no such account")]
    Unknown,
    /// The recipient wants nothing from the sender.
    #[error("the recipient has blocked the sender")]
    Blocked,
    /// The database has it not; after [`DbError::Away`] it may, and the same `client_id` tells.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Store {
    /// Over this database. `accounts`: a recipient must be an account that it knows.
    #[must_use]
    pub fn new(db: Db, accounts: bool) -> Self {
        let line = (db.engine() == Engine::Sqlite).then(Arc::default);
        Self { db, accounts, line }
    }

    /// Stores a message.
    ///
    /// # Errors
    /// As [`SendError`] says.
    pub async fn send(&self, new: &New<'_>) -> Result<Stored, SendError> {
        let mut tries = 1;
        loop {
            match self.try_send(new).await {
                // A deadlock that the database broke, or another request with this `client_id` was first.
                Err(SendError::Db(DbError::Conflict | DbError::Taken)) if tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_send(&self, new: &New<'_>) -> Result<Stored, SendError> {
        let _turn = match &self.line {
            Some(line) => {
                let turn = timeout(LONGEST_LINE, line.lock()).await;
                Some(turn.map_err(|_| DbError::Away)?)
            }
            None => None,
        };
        let mut work = self.db.begin().await?;
        if let Some(client_id) = new.client_id {
            let mut sql = Sql::new("SELECT id, sent_at FROM messages WHERE tenant = ");
            sql.bind(new.tenant).push(" AND sender = ").bind(new.from);
            sql.push(" AND client_id = ").bind(client_id);
            if let Some(row) = work.fetch_optional(sql.query()).await? {
                return Ok(Stored {
                    id: id_of(&row, 0)?,
                    before: 0,
                    sent_at: row.try_get(1).map_err(DbError::from)?,
                    again: true,
                });
            }
        }
        if room(new.to).is_none() {
            self.check_recipient(&mut work, new).await?;
        }
        let (low, high) = pair(new.from, new.to);
        let held = hold(&mut work, new.tenant, low, high).await?;
        let newest = held
            .iter()
            .map(|mailbox| mailbox.last_id)
            .max()
            .unwrap_or_default();
        let id = newest + 1;
        let own = held.iter().find(|mailbox| mailbox.name == new.to);
        let before = own.map_or(0, |mailbox| mailbox.last_in);
        let mut sql = Sql::new("UPDATE mailboxes SET last_id = ");
        sql.bind(id).push(", last_in = CASE WHEN name = ").bind(new.to);
        sql.push(" THEN ")
            .bind(id)
            .push(" ELSE last_in END WHERE tenant = ");
        sql.bind(new.tenant).push(" AND name IN (").bind_all([low, high]);
        sql.push(")");
        work.execute(sql.query()).await?;
        insert(&mut work, new, id).await?;
        if room(new.to).is_none() {
            remember(&mut work, new, id).await?;
        }
        work.commit().await?;
        Ok(Stored {
            id: id.unsigned_abs(),
            before: before.unsigned_abs(),
            sent_at: new.now,
            again: false,
        })
    }

    async fn check_recipient(&self, work: &mut Work, new: &New<'_>) -> Result<(), SendError> {
        let mut sql = Sql::new("SELECT (SELECT count(*) FROM message_blocks WHERE tenant = ");
        sql.bind(new.tenant).push(" AND account = ").bind(new.to);
        sql.push(" AND blocked = ").bind(new.from).push("), ");
        self.count_known(&mut sql, new.tenant, new.to);
        let row = work.fetch_one(sql.query()).await?;
        let (blocks, known): (i64, i64) = (
            row.try_get(0).map_err(DbError::from)?,
            row.try_get(1).map_err(DbError::from)?,
        );
        if known == 0 && new.from != new.to {
            return Err(SendError::Unknown);
        }
        if blocks > 0 {
            return Err(SendError::Blocked);
        }
        Ok(())
    }

    /// Whether an account is one that can be written to.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn knows(&self, tenant: &str, account: &str) -> Result<bool, DbError> {
        let mut sql = Sql::new("SELECT ");
        self.count_known(&mut sql, tenant, account);
        let row = self.db.fetch_one(sql.query()).await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// The one place that looks at the table of accounts. Where another system keeps them, everybody is known.
    fn count_known(&self, sql: &mut Sql, tenant: &str, account: &str) {
        if !self.accounts {
            sql.push("CAST(1 AS BIGINT)");
            return;
        }
        sql.push("(SELECT count(*) FROM users WHERE tenant = ")
            .bind(tenant);
        sql.push(" AND id = ").bind(account).push(")");
    }

    /// Messages between two parties from the id `start` on, the oldest first.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn conversation(
        &self,
        tenant: &str,
        parties: (&str, &str),
        start: u64,
        limit: u32,
    ) -> Result<Vec<Message>, DbError> {
        let (low, high) = pair(parties.0, parties.1);
        let mut sql = Sql::new(SELECT);
        sql.push("tenant = ").bind(tenant).push(" AND low = ").bind(low);
        sql.push(" AND high = ")
            .bind(high)
            .push(" AND id >= ")
            .bind(signed(start));
        sql.push(" AND removed_at IS NULL ORDER BY id LIMIT ")
            .bind(i64::from(limit));
        read(&self.db.fetch_all(sql.query()).await?)
    }

    /// Messages to an account or a room after the id `after`, the oldest first. What was removed is left out.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn received(
        &self,
        tenant: &str,
        to: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Message>, DbError> {
        let mut sql = Sql::new(SELECT);
        sql.push("tenant = ")
            .bind(tenant)
            .push(" AND recipient = ")
            .bind(to);
        sql.push(" AND id > ").bind(signed(after));
        sql.push(" AND removed_at IS NULL ORDER BY id LIMIT ")
            .bind(i64::from(limit));
        read(&self.db.fetch_all(sql.query()).await?)
    }

    /// The newest messages to a room, the oldest of them first.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn newest(&self, tenant: &str, to: &str, limit: u32) -> Result<Vec<Message>, DbError> {
        let mut sql = Sql::new(SELECT);
        sql.push("tenant = ")
            .bind(tenant)
            .push(" AND recipient = ")
            .bind(to);
        sql.push(" AND removed_at IS NULL ORDER BY id DESC LIMIT ")
            .bind(i64::from(limit));
        let mut found = read(&self.db.fetch_all(sql.query()).await?)?;
        found.reverse();
        Ok(found)
    }

    /// The id of the newest message to each of these accounts of a tenant; who never got one is not among them.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn newest_ids(&self, tenant: &str, accounts: &[&str]) -> Result<Vec<(String, u64)>, DbError> {
        let mut sql = Sql::new("SELECT name, last_in FROM mailboxes WHERE tenant = ");
        sql.bind(tenant)
            .push(" AND name IN (")
            .bind_all(accounts.iter().copied());
        sql.push(")");
        let rows = self.db.fetch_all(sql.query()).await?;
        let all = rows.iter().map(|row| Ok((row.try_get(0)?, id_of(row, 1)?)));
        all.collect()
    }
}

/// The two parties of a conversation, in order.
pub(super) fn pair<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str) {
    if one <= other { (one, other) } else { (other, one) }
}

/// An id as SQL has it; what no message can have is beyond all.
pub(super) fn signed(id: u64) -> i64 {
    i64::try_from(id.min(ID_END)).unwrap_or(i64::MAX)
}

pub(super) const SELECT: &str = "SELECT id, sender, recipient, content, sent_at FROM messages WHERE ";

struct Mailbox {
    name: String,
    last_id: i64,
    last_in: i64,
}

/// Locks both mailboxes until the commit, in this order, and makes those that are not there. One statement: the fewer
/// words under the lock, the sooner the next message has its turn.
async fn hold(work: &mut Work, tenant: &str, low: &str, high: &str) -> Result<Vec<Mailbox>, DbError> {
    let mut sql = Sql::new("INSERT INTO mailboxes (tenant, name, last_id, last_in) VALUES (");
    sql.bind_all([tenant, low]).push(", 0, 0)");
    if low != high {
        sql.push(", (").bind_all([tenant, high]).push(", 0, 0)");
    }
    sql.push(
        " ON CONFLICT (tenant, name) DO UPDATE SET last_id = mailboxes.last_id RETURNING name, last_id, last_in",
    );
    let rows = work.fetch_all(sql.query()).await?;
    let mailbox = |row: &AnyRow| {
        Ok(Mailbox {
            name: row.try_get(0)?,
            last_id: row.try_get(1)?,
            last_in: row.try_get(2)?,
        })
    };
    rows.iter().map(mailbox).collect()
}

async fn insert(work: &mut Work, new: &New<'_>, id: i64) -> Result<(), DbError> {
    let (low, high) = pair(new.from, new.to);
    let mut sql = Sql::new(
        "INSERT INTO messages (tenant, low, high, id, sender, recipient, content, file_id, client_id, sent_at) VALUES (",
    );
    sql.bind_all([new.tenant, low, high])
        .push(", ")
        .bind(id)
        .push(", ");
    sql.bind_all([new.from, new.to, &new.content.json]).push(", ");
    for value in [new.content.file.as_deref(), new.client_id] {
        match value {
            Some(value) => sql.bind(value),
            None => sql.push("NULL"),
        };
        sql.push(", ");
    }
    sql.bind(new.now).push(")");
    work.execute(sql.query()).await?;
    Ok(())
}

/// The conversation is in the lists of both.
async fn remember(work: &mut Work, new: &New<'_>, id: i64) -> Result<(), DbError> {
    let mut sql = Sql::new("INSERT INTO conversations (tenant, account, peer, last_id, read_id) VALUES (");
    sql.bind_all([new.tenant, new.from, new.to]).push(", ").bind(id);
    sql.push(", 0)");
    if new.from != new.to {
        sql.push(", (").bind_all([new.tenant, new.to, new.from]);
        sql.push(", ").bind(id).push(", 0)");
    }
    sql.push(" ON CONFLICT (tenant, account, peer) DO UPDATE SET last_id = excluded.last_id");
    work.execute(sql.query()).await?;
    Ok(())
}

pub(super) fn id_of(row: &AnyRow, column: usize) -> Result<u64, DbError> {
    Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
}

pub(super) fn read(rows: &[AnyRow]) -> Result<Vec<Message>, DbError> {
    let message = |row: &AnyRow| {
        Ok(Message {
            id: id_of(row, 0)?,
            from: row.try_get(1)?,
            to: row.try_get(2)?,
            content: row.try_get(3)?,
            sent_at: row.try_get(4)?,
        })
    };
    rows.iter().map(message).collect()
}
