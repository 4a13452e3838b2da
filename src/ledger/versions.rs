//! A number for each tenant that changes with everything that its reports rest on.
//!
//! Called by: whatever writes rows of the ledger, in the same transaction; `reports`, which keeps results.

use sqlx::Row;

use crate::db::{Db, DbError, Sql, Work};

/// Counts a change. Whoever changes several tenants' rows does it in their order, so that two never wait for each other.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn change(work: &mut Work, tenant: &str) -> Result<(), DbError> {
    let mut sql = Sql::new("INSERT INTO ledger_versions (tenant, version) VALUES (");
    sql.bind(tenant.to_owned())
        .push(", 1) ON CONFLICT (tenant) DO UPDATE SET version = ledger_versions.version + 1");
    work.execute(sql.query()).await.map(drop)
}

/// The number; 0 for a tenant without rows.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn current(db: &Db, tenant: &str) -> Result<i64, DbError> {
    let mut sql = Sql::new("SELECT version FROM ledger_versions WHERE tenant = ");
    sql.bind(tenant.to_owned());
    let row = db.fetch_optional(sql.query()).await?;
    Ok(row.map_or(0, |row| row.get(0)))
}
