//! One connection in use: statements within a deadline, and transactions that end whatever happens.

use futures_util::TryStreamExt;
use sqlx::any::AnyRow;
use sqlx::pool::PoolConnection;
use sqlx::{Any, Executor};
use tokio::time::{Instant, timeout_at};

use super::DbError;
use super::pool::LAST_WORDS;
use super::sql::Query;

/// A connection, within a transaction when it was got by [`super::Db::begin`]. Dropping it undoes what was not
/// committed.
pub struct Work {
    link: Option<PoolConnection<Any>>,
    deadline: Instant,
    /// Whether a transaction is open.
    open: bool,
    /// Whether a statement was sent and its answer not read: nobody knows in which state the connection is.
    astray: bool,
}

impl Work {
    pub(super) fn new(link: PoolConnection<Any>, deadline: Instant) -> Self {
        Self {
            link: Some(link),
            deadline,
            open: false,
            astray: false,
        }
    }

    pub(super) async fn open(&mut self, statement: &'static str) -> Result<(), DbError> {
        self.execute(sqlx::query(statement).persistent(false)).await?;
        self.open = true;
        Ok(())
    }

    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn execute(&mut self, query: Query<'_>) -> Result<u64, DbError> {
        let done = self.run(async |link| link.execute(query).await).await?;
        Ok(done.rows_affected())
    }

    /// All rows. The statement bounds them.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn fetch_all(&mut self, query: Query<'_>) -> Result<Vec<AnyRow>, DbError> {
        self.run(async |link| link.fetch_all(query).await).await
    }

    /// The first row, if there is one.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn fetch_optional(&mut self, query: Query<'_>) -> Result<Option<AnyRow>, DbError> {
        self.run(async |link| link.fetch_optional(query).await).await
    }

    /// The one row of a statement that always has one.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn fetch_one(&mut self, query: Query<'_>) -> Result<AnyRow, DbError> {
        self.run(async |link| link.fetch_one(query).await).await
    }

    /// Hands every row to `take`, one after another, and keeps none.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub async fn each(&mut self, query: Query<'_>, mut take: impl FnMut(&AnyRow)) -> Result<(), DbError> {
        self.run(async |link| {
            let mut rows = link.fetch(query);
            while let Some(row) = rows.try_next().await? {
                take(&row);
            }
            Ok(())
        })
        .await
    }

    /// Makes the transaction's effects last.
    ///
    /// # Errors
    /// As [`DbError`] says. After [`DbError::Away`] they may last or not.
    pub async fn commit(mut self) -> Result<(), DbError> {
        self.execute(sqlx::query("COMMIT").persistent(false)).await?;
        self.open = false;
        Ok(())
    }

    async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut sqlx::AnyConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, DbError> {
        let Some(link) = self.link.as_mut().filter(|_| !self.astray) else {
            return Err(DbError::Away);
        };
        self.astray = true;
        let done = timeout_at(self.deadline, statement(link)).await;
        let Ok(done) = done else {
            return Err(DbError::Away);
        };
        // A server that reported an error is still in step; a broken connection finds itself out when it is tested.
        self.astray = false;
        Ok(done?)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        if self.astray {
            link.close_on_drop();
        } else if self.open {
            tokio::spawn(async move {
                let undone = sqlx::query("ROLLBACK").persistent(false).execute(&mut *link);
                let undone = tokio::time::timeout(LAST_WORDS, undone).await;
                if !matches!(undone, Ok(Ok(_))) {
                    link.close_on_drop();
                }
            });
        }
    }
}
