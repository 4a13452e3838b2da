//! The questions behind `GET /v1/files/stats`: accesses and files, counted by the database.

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::db::{DbError, Sql, Work};

use super::statistics::Scope;

/// Files in the list of the most used.
const TOP: i64 = 10;

/// Months in the list of uploads and usage.
const MONTHS: i64 = 120;

/// What was counted.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AccessCounts)]
pub(super) struct Counts {
    /// Closed accesses.
    pub(super) accesses: i64,
    /// Accounts among them; none where they are not told apart.
    #[schema(required)]
    pub(super) unique: Option<i64>,
    /// Bytes that were sent.
    pub(super) bytes: i64,
    /// Accesses that had nearly all of the file, and its end.
    pub(super) completed: i64,
}

/// The files themselves.
#[derive(Serialize, ToSchema)]
#[schema(as = FileTotals)]
pub(super) struct Library {
    count: i64,
    bytes: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FileUse)]
pub(super) struct Used {
    file: String,
    #[schema(required)]
    title: Option<String>,
    accesses: i64,
    unique: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FileMonth)]
pub(super) struct Month {
    month: String,
    uploads: i64,
    accesses: i64,
}

/// Over all groups.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn total(work: &mut Work, scope: &Scope) -> Result<Counts, DbError> {
    let mut sql = Sql::new(
        "SELECT count(*), count(DISTINCT account), CAST(COALESCE(sum(bytes), 0) AS BIGINT), \
         CAST(COALESCE(sum(completed), 0) AS BIGINT) FROM file_accesses WHERE closed_at IS NOT NULL AND tenant = ",
    );
    scope.narrow(&mut sql);
    let row = work.fetch_one(sql.query()).await?;
    Ok(Counts {
        accesses: row.get(0),
        unique: Some(row.get(1)),
        bytes: row.get(2),
        completed: row.get(3),
    })
}

/// The groups, the largest first.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn groups(
    work: &mut Work,
    scope: &Scope,
    by: &[&'static str],
) -> Result<Vec<(Vec<String>, Counts)>, DbError> {
    let mut sql = Sql::new("SELECT ");
    let names = |sql: &mut Sql| {
        for (at, name) in by.iter().enumerate() {
            sql.push(if at > 0 { ", " } else { "" }).push(name);
        }
    };
    names(&mut sql);
    sql.push(
        ", count(*), count(DISTINCT account), CAST(COALESCE(sum(bytes), 0) AS BIGINT), \
         CAST(COALESCE(sum(completed), 0) AS BIGINT) FROM file_accesses WHERE closed_at IS NOT NULL AND tenant = ",
    );
    scope.narrow(&mut sql);
    sql.push(" GROUP BY ");
    names(&mut sql);
    sql.push(" ORDER BY count(*) DESC, ");
    names(&mut sql);
    let rows = work.fetch_all(sql.query()).await?;
    let group = |row: &AnyRow| {
        let of = (0..by.len()).map(|at| row.get::<String, _>(at)).collect();
        let at = by.len();
        let counts = Counts {
            accesses: row.get(at),
            unique: Some(row.get(at + 1)),
            bytes: row.get(at + 2),
            completed: row.get(at + 3),
        };
        (of, counts)
    };
    Ok(rows.iter().map(group).collect())
}

/// How many are not closed.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn open(work: &mut Work, scope: &Scope) -> Result<i64, DbError> {
    let mut sql = Sql::new("SELECT count(*) FROM file_accesses WHERE closed_at IS NULL AND tenant = ");
    scope.narrow(&mut sql);
    Ok(work.fetch_one(sql.query()).await?.get(0))
}

/// The files themselves.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn library(work: &mut Work, scope: &Scope) -> Result<Library, DbError> {
    let mut sql = Sql::new(
        "SELECT count(*), CAST(COALESCE(sum(size), 0) AS BIGINT) FROM files WHERE state <> 'receiving' AND tenant = ",
    );
    sql.bind(&*scope.tenant);
    let row = work.fetch_one(sql.query()).await?;
    Ok(Library {
        count: row.get(0),
        bytes: row.get(1),
    })
}

/// The most used files, where enough people used them.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn most_used(work: &mut Work, scope: &Scope, floor: i64) -> Result<Vec<Used>, DbError> {
    let mut sql = Sql::new(
        "SELECT file_id, (SELECT title FROM files WHERE files.id = file_id AND files.tenant = file_accesses.tenant), \
         count(*), count(DISTINCT account) FROM file_accesses WHERE closed_at IS NOT NULL AND tenant = ",
    );
    scope.narrow(&mut sql);
    sql.push(" GROUP BY tenant, file_id HAVING count(DISTINCT account) >= ")
        .bind(floor);
    sql.push(" ORDER BY count(*) DESC, file_id LIMIT ").bind(TOP);
    let rows = work.fetch_all(sql.query()).await?;
    let used = rows.iter().map(|row| Used {
        file: row.get(0),
        title: row.get(1),
        accesses: row.get(2),
        unique: row.get(3),
    });
    Ok(used.collect())
}

/// Uploads beside usage, the latest month first.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn months(work: &mut Work, scope: &Scope) -> Result<Vec<Month>, DbError> {
    let mut sql = Sql::new(
        "SELECT month, CAST(sum(uploads) AS BIGINT), CAST(sum(accesses) AS BIGINT) FROM (\
         SELECT month, 1 AS uploads, 0 AS accesses FROM files WHERE state <> 'receiving' AND tenant = ",
    );
    sql.bind(&*scope.tenant);
    sql.push(" UNION ALL SELECT month, 0, 1 FROM file_accesses WHERE closed_at IS NOT NULL AND tenant = ");
    scope.narrow(&mut sql);
    sql.push(") AS both_of_them GROUP BY month ORDER BY month DESC LIMIT ")
        .bind(MONTHS);
    let rows = work.fetch_all(sql.query()).await?;
    let months = rows.iter().map(|row| Month {
        month: row.get(0),
        uploads: row.get(1),
        accesses: row.get(2),
    });
    Ok(months.collect())
}
