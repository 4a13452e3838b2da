//! A number for each tenant that changes with everything that its reports rest on, and the days that a change is about.
//!
//! Owns: noticing changes. Does not: add anything up again (`days` does).
//! Called by: whatever writes rows of the ledger, in the same transaction; the routes, which keep results.

use std::collections::BTreeSet;

use sqlx::Row;

use crate::db::{DbError, Inserts, Sql, Work};

/// What a tenant's reports rest on, at a moment: another one when anything changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Changes of the ledger so far.
    pub(super) rows: i64,
    /// The catalogue's contents, whose labels count where no track says another: how many there are, when one was changed
    /// last, and a sum over when each was.
    contents: [i64; 3],
}

/// Counts a change, which is about the plays that started on these days (since 1970-01-01). From here on until the
/// transaction ends nobody else changes the tenant's ledger. Whoever changes several tenants' rows does it in their order,
/// so that two never wait for each other.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn change(work: &mut Work, tenant: &str, days: &BTreeSet<i64>) -> Result<i64, DbError> {
    let mut sql = Sql::new("INSERT INTO ledger_versions (tenant, version) VALUES (");
    sql.bind(tenant.to_owned()).push(
        ", 1) ON CONFLICT (tenant) DO UPDATE SET version = ledger_versions.version + 1 RETURNING version",
    );
    let version: i64 = work.fetch_one(sql.query()).await?.get(0);
    let mut marks = Inserts::new(
        "INSERT INTO stale_days (tenant, version, day) VALUES ",
        " ON CONFLICT (tenant, day) DO UPDATE SET version = excluded.version",
    );
    for day in days {
        marks.add(|sql, first| {
            if first {
                sql.push("(").bind(tenant.to_owned()).push(", ").bind(version);
            } else {
                sql.push("($1, $2");
            }
            sql.push(", ").bind(*day).push(")");
        });
    }
    marks.run(work).await?;
    Ok(version)
}

/// What the tenant's reports rest on now.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn current(work: &mut Work, tenant: &str) -> Result<Version, DbError> {
    let mut sql = Sql::new("SELECT coalesce((SELECT version FROM ledger_versions WHERE tenant = ");
    sql.bind(tenant.to_owned()).push(
        "), 0), CAST(count(*) AS BIGINT), coalesce(max(changed_at), 0), \
         CAST(coalesce(sum(changed_at % 1000000007), 0) AS BIGINT) FROM contents WHERE tenant = ",
    );
    sql.bind(tenant.to_owned());
    let row = work.fetch_one(sql.query()).await?;
    Ok(Version {
        rows: row.get(0),
        contents: [row.get(1), row.get(2), row.get(3)],
    })
}
