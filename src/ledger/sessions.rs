//! The plays of sessions, as rows.
//!
//! Owns: what of a journal's record becomes a row, and that a record that comes twice is one row. Does not: read the
//! journal (`scribe` does). Called by: `scribe`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::db::{Db, DbError, Inserts};
use crate::lease::journal::{Happened, Record};

use super::calendar::DAY_MS;
use super::{now_ms, versions};

/// The longest wait of one transaction; less than a reader's lease on its turn.
const PATIENCE: Duration = Duration::from_secs(8);

/// Rows in a transaction.
const ROWS: usize = 500;

/// What became of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// New rows.
    pub(super) written: u64,
    /// Records whose rows were there.
    pub(super) repeated: u64,
    /// Records that the database cannot hold.
    pub(super) unfit: u64,
}

/// Writes the ends among these records, all or none; one that the database cannot hold is left out.
///
/// # Errors
/// As [`DbError`] says: then nothing is known to be written, and the same may be written again.
pub(super) async fn write(db: &Db, records: &[Record], region: &str) -> Result<Written, DbError> {
    let ended: Vec<&Record> = records
        .iter()
        .filter(|record| record.happened == Happened::Ended)
        .collect();
    let mut sum = Written::default();
    for rows in ended.chunks(ROWS) {
        let done = match insert(db, rows, region).await {
            Err(DbError::Unfit | DbError::Fault(_)) => one_by_one(db, rows, region).await?,
            done => done?,
        };
        sum.written += done.written;
        sum.repeated += done.repeated;
        sum.unfit += done.unfit;
    }
    Ok(sum)
}

async fn one_by_one(db: &Db, records: &[&Record], region: &str) -> Result<Written, DbError> {
    let mut sum = Written::default();
    for record in records {
        match insert(db, &[*record], region).await {
            Ok(done) => {
                sum.written += done.written;
                sum.repeated += done.repeated;
            }
            Err(error @ (DbError::Unfit | DbError::Fault(_))) => {
                tracing::error!(%error, session = record.session, "a play cannot be written");
                sum.unfit += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

async fn insert(db: &Db, records: &[&Record], region: &str) -> Result<Written, DbError> {
    let mut inserts = Inserts::new(
        "INSERT INTO plays (recorded_at, region, kind, tenant, id, user_id, content, device, device_name, device_class, plan, code, \
         started_at, ended_at, seconds, position_ms) VALUES ",
        " ON CONFLICT DO NOTHING",
    );
    let mut changed: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    for record in records {
        let (row, account) = (Row::of(record), &record.account);
        let days = changed.entry(&account.tenant).or_default();
        days.insert(row.started_at / DAY_MS);
        inserts.add(|sql, first| {
            if first {
                sql.push("(").bind(now_ms()).push(", ").bind(region.to_owned());
            } else {
                sql.push("($1, $2");
            }
            let texts = [
                &account.tenant,
                &*record.session,
                &account.account,
                &record.content,
                &record.device,
            ]
            .map(clean);
            sql.push(", 'session', ").bind_all(texts).push(", ");
            let more = [
                record.device_name.as_deref(),
                record.device_class.as_deref(),
                row.plan,
                row.code,
            ];
            sql.bind_all(more.map(|text| text.map(clean))).push(", ");
            sql.bind_all([row.started_at, row.ended_at, row.seconds, row.position_ms])
                .push(")");
        });
    }
    let mut work = db.begin_for(PATIENCE).await?;
    let written = inserts.run(&mut work).await?;
    if written > 0 {
        for (tenant, days) in changed {
            versions::change(&mut work, tenant, &days).await?;
        }
    }
    work.commit().await?;
    Ok(Written {
        written,
        repeated: (records.len() as u64).saturating_sub(written),
        unfit: 0,
    })
}

/// PostgreSQL holds no NUL character.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

/// The numbers of a row.
struct Row<'a> {
    started_at: i64,
    ended_at: i64,
    seconds: i64,
    position_ms: i64,
    plan: Option<&'a str>,
    code: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn of(record: &'a Record) -> Self {
        let number = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let play = record.play.as_ref();
        let started_at = play.map_or(record.at, |play| play.started_at);
        let watched = play.map_or(0, |play| play.watched_ms);
        Self {
            started_at: number(started_at),
            ended_at: number(record.at),
            seconds: number(seconds(watched, record.at.saturating_sub(started_at))),
            position_ms: number(play.map_or(0, |play| play.position_ms)),
            plan: play.and_then(|play| play.plan.as_deref()),
            code: play.and_then(|play| play.code.as_deref()),
        }
    }
}

/// Whole seconds that were watched, rounded half up and never more than passed (I5).
fn seconds(watched_ms: u64, passed_ms: u64) -> u64 {
    (watched_ms.saturating_add(500) / 1000).min(passed_ms / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_never_exceed_the_time_that_passed() {
        for (watched, passed, expected) in [
            (60_000, 60_020, 60),
            (59_600, 60_020, 60),
            (59_499, 60_020, 59),
            (59_999, 59_999, 59),
            (90_000, 60_999, 60),
            (0, 5_000, 0),
            (u64::MAX, 1_000, 1),
        ] {
            assert_eq!(seconds(watched, passed), expected, "{watched} of {passed}");
        }
    }
}
