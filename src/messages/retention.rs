//! Messages that were kept for as long as their tenant wants are deleted.

use std::time::Duration;

use sqlx::Row;

use crate::config;
use crate::db::{DbError, Sql};

use super::now;
use super::store::Store;

/// How often old messages are looked for.
const EVERY: Duration = Duration::from_secs(30 * 60);

/// After a failure.
const AGAIN: Duration = Duration::from_secs(60);

/// Deleted by one statement, so that it holds no lock for long.
const BATCH: i64 = 1_000;

/// The longest time for one batch.
const PATIENCE: Duration = Duration::from_secs(30);

/// Deletes what is too old, for as long as the node runs. Nodes that do it at once only find less to do.
pub(super) async fn keep(store: Store, settings: config::Messages) {
    let periods = || settings.tenant_retention.values().map(|span| span.0);
    if periods()
        .chain([settings.retention])
        .all(|period| period.is_zero())
    {
        return;
    }
    loop {
        if let Err(error) = purge(&store, &settings, now()).await {
            tracing::warn!(%error, "old messages could not be deleted; trying again");
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Deletes what is too old at this time, in Unix milliseconds; how many.
///
/// # Errors
/// As [`DbError`] says.
pub async fn purge(store: &Store, settings: &config::Messages, now: i64) -> Result<u64, DbError> {
    let (mut deleted, mut tenant) = (0, String::new());
    while let Some(next) = next_tenant(store, &tenant).await? {
        tenant = next;
        let own = settings.tenant_retention.get(&tenant).map(|span| span.0);
        let period = own.unwrap_or(settings.retention);
        if period.is_zero() {
            continue;
        }
        let before = now.saturating_sub(i64::try_from(period.as_millis()).unwrap_or(i64::MAX));
        loop {
            let mut sql = Sql::new("DELETE FROM messages WHERE tenant = ");
            sql.bind(tenant.as_str());
            sql.push(" AND (low, high, id) IN (SELECT low, high, id FROM messages WHERE tenant = ");
            sql.bind(tenant.as_str()).push(" AND sent_at < ").bind(before);
            sql.push(" ORDER BY sent_at LIMIT ").bind(BATCH).push(")");
            let mut work = store.db.connect_for(PATIENCE).await?;
            let batch = work.execute(sql.query()).await?;
            deleted += batch;
            if batch == 0 {
                break;
            }
        }
    }
    Ok(deleted)
}

/// The tenants one by one, each by one step in the index.
async fn next_tenant(store: &Store, after: &str) -> Result<Option<String>, DbError> {
    let mut sql = Sql::new("SELECT min(tenant) FROM mailboxes WHERE tenant > ");
    sql.bind(after);
    let row = store.db.fetch_one(sql.query()).await?;
    Ok(row.try_get(0)?)
}
