//! Sums by day: what was watched of each content on each day that is over, so that a report of years stays cheap.
//!
//! Owns: making the sums of days whose plays changed, and telling which days of a period have theirs. Does not: add up
//! for reports (`figures` does), or notice changes (`versions` does).
//! Called by: `Ledger`, now and then; the command `import`, at its end; `figures`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::Row;

use crate::db::{Db, DbError, Inserts, Sql, Work};

use super::calendar::DAY_MS;

/// The longest wait for one day.
const PATIENCE: Duration = Duration::from_secs(60);

/// A day of more sums than this is added up play by play: its sums are written in one transaction, which must be short.
const MOST_SUMS: usize = 100_000;

/// The longest stretch of days with sums that is added up at once.
const STRETCH: i64 = 31;

/// A day of a tenant whose sums are missing, as of a version of its ledger.
struct Stale {
    tenant: String,
    day: i64,
    version: i64,
}

/// A content's seconds in a region.
struct Sum {
    content: String,
    region: String,
    seconds: i64,
}

/// Makes the sums of all days that are over and lack them, of one tenant or of all; how many were made. `watch` is told
/// that number as it grows.
///
/// # Errors
/// As [`DbError`] says; the days that were done stay done.
pub async fn roll(
    db: &Db,
    tenant: Option<&str>,
    watch: &mut (dyn FnMut(u64) + Send),
) -> Result<u64, DbError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let today = i64::try_from(since.as_millis()).unwrap_or(i64::MAX) / DAY_MS;
    let (mut done, mut after) = (0, (String::new(), i64::MIN));
    while let Some(stale) = next(db, tenant, &after, today).await? {
        if let Some(sums) = add_up(db, &stale).await?
            && keep(db, &stale, sums).await?
        {
            done += 1;
            watch(done);
        }
        after = (stale.tenant, stale.day);
    }
    Ok(done)
}

async fn next(
    db: &Db,
    tenant: Option<&str>,
    (last, day): &(String, i64),
    today: i64,
) -> Result<Option<Stale>, DbError> {
    let mut sql = Sql::new("SELECT tenant, day, version FROM stale_days WHERE day < ");
    sql.bind(today).push(" AND (tenant > ").bind(last.clone());
    sql.push(" OR tenant = ").bind(last.clone());
    sql.push(" AND day > ").bind(*day).push(")");
    if let Some(tenant) = tenant {
        sql.push(" AND tenant = ").bind(tenant.to_owned());
    }
    sql.push(" ORDER BY tenant, day LIMIT 1");
    let row = db.fetch_optional(sql.query()).await?;
    Ok(row.map(|row| Stale {
        tenant: row.get(0),
        day: row.get(1),
        version: row.get(2),
    }))
}

/// The sums of a day; none when there are too many.
async fn add_up(db: &Db, stale: &Stale) -> Result<Option<Vec<Sum>>, DbError> {
    let mut sql = Sql::new("SELECT content, region, CAST(sum(seconds) AS BIGINT) FROM plays WHERE tenant = ");
    sql.bind(stale.tenant.clone());
    push_day(&mut sql, stale.day);
    let most = i64::try_from(MOST_SUMS).unwrap_or(i64::MAX);
    sql.push(" GROUP BY content, region LIMIT ")
        .bind(most.saturating_add(1));
    let mut sums = Vec::new();
    let mut work = db.read_for(PATIENCE).await?;
    work.each(sql.query(), |row| {
        sums.push(Sum {
            content: row.get(0),
            region: row.get(1),
            seconds: row.get(2),
        });
    })
    .await?;
    Ok((sums.len() <= MOST_SUMS).then_some(sums))
}

/// Writes the sums, unless the day changed since they were made: whether it did not.
async fn keep(db: &Db, stale: &Stale, sums: Vec<Sum>) -> Result<bool, DbError> {
    let own = |sql: &mut Sql| {
        sql.bind(stale.tenant.clone()).push(" AND day = ").bind(stale.day);
    };
    let mut work = db.begin_for(PATIENCE).await?;
    // Whoever changes the tenant's ledger waits here, and marks the day afterwards.
    let mut lock = Sql::new("UPDATE ledger_versions SET version = version WHERE tenant = ");
    lock.bind(stale.tenant.clone());
    work.execute(lock.query()).await?;
    let mut unmark = Sql::new("DELETE FROM stale_days WHERE tenant = ");
    own(&mut unmark);
    unmark.push(" AND version = ").bind(stale.version);
    if work.execute(unmark.query()).await? == 0 {
        return Ok(false);
    }
    let mut clear = Sql::new("DELETE FROM play_days WHERE tenant = ");
    own(&mut clear);
    work.execute(clear.query()).await?;
    let mut inserts = Inserts::new(
        "INSERT INTO play_days (tenant, day, content, region, seconds) VALUES ",
        "",
    );
    for sum in sums {
        inserts.add(|sql, first| {
            if first {
                sql.push("(")
                    .bind(stale.tenant.clone())
                    .push(", ")
                    .bind(stale.day);
            } else {
                sql.push("($1, $2");
            }
            sql.push(", ").bind_all([sum.content, sum.region]);
            sql.push(", ").bind(sum.seconds).push(")");
        });
    }
    inserts.run(&mut work).await?;
    work.commit().await?;
    Ok(true)
}

/// Days of a period, from the first to the last one with plays, that are added up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Its first day.
    pub(super) from: i64,
    /// The day after its last.
    pub(super) to: i64,
    /// Whether its sums are there; otherwise it is a single day, to be added up play by play.
    pub(super) summed: bool,
}

/// The stretches of a period of days, as of the moment that `work` reads.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn stretches(
    work: &mut Work,
    tenant: &str,
    from: i64,
    to: i64,
    may_use_sums: bool,
) -> Result<Vec<Stretch>, DbError> {
    let mut sql = Sql::new("SELECT (SELECT min(started_at)");
    for part in [", (SELECT max(started_at)", ""] {
        sql.push(" FROM plays WHERE tenant = ").bind(tenant.to_owned());
        sql.push(" AND started_at >= ").bind(from.saturating_mul(DAY_MS));
        sql.push(" AND started_at < ").bind(to.saturating_mul(DAY_MS));
        sql.push(")").push(part);
    }
    let row = work.fetch_one(sql.query()).await?;
    let (Some(first), Some(last)) = (row.get::<Option<i64>, _>(0), row.get::<Option<i64>, _>(1)) else {
        return Ok(Vec::new());
    };
    let (from, to) = (first / DAY_MS, last / DAY_MS + 1);
    let mut stale: Vec<i64> = Vec::new();
    if may_use_sums {
        let mut sql = Sql::new("SELECT day FROM stale_days WHERE tenant = ");
        sql.bind(tenant.to_owned()).push(" AND day >= ").bind(from);
        sql.push(" AND day < ").bind(to).push(" ORDER BY day");
        let rows = work.fetch_all(sql.query()).await?;
        stale.extend(rows.iter().map(|row| row.get::<i64, _>(0)));
    } else {
        stale.extend(from..to);
    }
    Ok(cut(from, to, &stale))
}

/// Single days where the sums are stale, and stretches between them.
fn cut(from: i64, to: i64, stale: &[i64]) -> Vec<Stretch> {
    let mut cut = Vec::new();
    let mut from = from;
    for end in stale.iter().copied().chain([to]) {
        while from < end {
            let to = end.min(from + STRETCH);
            cut.push(Stretch {
                from,
                to,
                summed: true,
            });
            from = to;
        }
        if end < to {
            cut.push(Stretch {
                from: end,
                to: end + 1,
                summed: false,
            });
            from = end + 1;
        }
    }
    cut
}

/// The plays that started on a day.
fn push_day(sql: &mut Sql, day: i64) {
    sql.push(" AND started_at >= ").bind(day.saturating_mul(DAY_MS));
    sql.push(" AND started_at < ")
        .bind(day.saturating_add(1).saturating_mul(DAY_MS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_cut_into_stretches_without_a_gap() {
        for (from, to, stale) in [
            (0, 100, vec![]),
            (0, 1, vec![0]),
            (10, 50, vec![10, 11, 30, 49]),
            (5, 5, vec![]),
        ] {
            let cut = cut(from, to, &stale);
            let mut at = from;
            for stretch in &cut {
                assert_eq!(stretch.from, at);
                assert!(stretch.to > at && stretch.to - at <= STRETCH);
                assert_eq!(stretch.summed, !stale.contains(&at));
                assert!((at + 1..stretch.to).all(|day| !stale.contains(&day)));
                at = stretch.to;
            }
            assert_eq!(at, to);
        }
    }
}
