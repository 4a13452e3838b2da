//! Many rows in one statement.
//!
//! Owns: the form of such a statement, and that every change of the ledger is noticed (`versions`).
//! Called by: `import`'s kinds of files.

use crate::db::{Db, DbError, Sql};

use super::super::versions;
use super::PATIENCE;

/// Runs one insert of many rows; how many of them changed something.
pub(super) async fn insert(db: &Db, tenant: &str, sql: Sql) -> Result<u64, DbError> {
    let mut work = db.begin_for(PATIENCE).await?;
    let changed = work.execute(sql.query()).await?;
    if changed > 0 {
        versions::change(&mut work, tenant).await?;
    }
    work.commit().await?;
    Ok(changed)
}
