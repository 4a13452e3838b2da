//! Many rows in few statements.

use super::sql::Sql;
use super::{DbError, Work};

/// Rows in a statement. SQLite looks each parameter up among all of its statement: a statement of thousands of rows takes
/// many times as long as the same rows in short ones.
const ROWS: usize = 100;

/// Rows to be inserted, as statements of at most so many.
pub struct Inserts {
    head: &'static str,
    tail: &'static str,
    statements: Vec<Sql>,
    rows: usize,
}

impl Inserts {
    /// No rows yet. `head` is the statement up to `VALUES `, `tail` what comes after the rows.
    #[must_use]
    pub fn new(head: &'static str, tail: &'static str) -> Self {
        Self {
            head,
            tail,
            statements: Vec::new(),
            rows: 0,
        }
    }

    /// Adds a row. `row` writes it, its brackets included, and is told whether it is the first of its statement: the others
    /// may name its parameters again.
    pub fn add(&mut self, row: impl FnOnce(&mut Sql, bool)) {
        let first = self.rows.is_multiple_of(ROWS);
        if first {
            self.statements.push(Sql::new(self.head));
        }
        if let Some(sql) = self.statements.last_mut() {
            if !first {
                sql.push(", ");
            }
            row(sql, first);
        }
        self.rows += 1;
    }

    /// Inserts them; how many rows that changed.
    ///
    /// # Errors
    /// As [`DbError`] says. Within a transaction all or none are inserted.
    pub async fn run(self, work: &mut Work) -> Result<u64, DbError> {
        let mut changed = 0;
        for mut sql in self.statements {
            sql.push(self.tail);
            changed += work.execute(sql.query()).await?;
        }
        Ok(changed)
    }
}
