//! What is watched now, before plays end: what the live view adds up.
//!
//! Owns: looking at this node's sessions every few seconds, and the rows of it (`live_watching`). Does not: count plays, or
//! pay anybody: `sessions` writes what was watched when a session ends.
//! Called by: `round`, and `insight` for the report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::db::{Db, DbError, Inserts, Sql};
use crate::gateway::registry::Registry;

use super::millis;

/// How often a node looks.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// A look that comes later counts no longer time than this.
const LONGEST: Duration = Duration::from_secs(30);

/// For how long a look is kept.
pub(super) const KEPT: Duration = Duration::from_secs(2 * 3600);

/// By tenant and content, how many sessions watch.
type Watching = BTreeMap<(Arc<str>, Arc<str>), i64>;

/// Adds what the sessions of this node watched in the time since the last look: those that play now are taken to have played
/// all of it.
///
/// # Errors
/// As [`DbError`] says: then it is not counted.
pub(super) async fn look(db: &Db, registry: &Registry, since: Duration, now_ms: i64) -> Result<(), DbError> {
    let mut watching = Watching::new();
    for bucket in 0..registry.buckets() {
        registry.watching(bucket, |tenant, content| {
            // The database could not hold it.
            if !content.contains('\0') {
                *watching
                    .entry((Arc::clone(tenant), Arc::clone(content)))
                    .or_default() += 1;
            }
        });
        // A bucket at a time: players come first.
        tokio::task::yield_now().await;
    }
    if watching.is_empty() {
        return Ok(());
    }
    let every = millis(EVERY);
    let took = millis(since.min(LONGEST));
    // In one order, so that two nodes never wait for each other.
    let mut inserts = Inserts::new(
        "INSERT INTO live_watching (at, tenant, content, watched_ms) VALUES ",
        " ON CONFLICT (tenant, at, content) DO UPDATE SET watched_ms = live_watching.watched_ms + excluded.watched_ms",
    );
    for ((tenant, content), sessions) in watching {
        inserts.add(|sql, first| {
            if first {
                sql.push("(").bind(now_ms - now_ms % every);
            } else {
                sql.push("($1");
            }
            sql.push(", ").bind_all([tenant.to_string(), content.to_string()]);
            sql.push(", ").bind(sessions * took).push(")");
        });
    }
    let mut work = db.begin().await?;
    inserts.run(&mut work).await?;
    work.commit().await
}

/// Forgets what is older than [`KEPT`].
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn forget(db: &Db, now_ms: i64) -> Result<(), DbError> {
    let mut sql = Sql::new("DELETE FROM live_watching WHERE at < ");
    sql.bind(now_ms.saturating_sub(millis(KEPT)));
    db.execute(sql.query()).await.map(drop)
}
