//! Demo contents: something to play for whoever tries Usher out.
//!
//! Owns: what they are, and that they are made once: a row tells that they were, so that what is taken out does not come
//! back. Does not: decide where they are wanted (`app` does). Called by: `app` on a development node, and `cli`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::fields::Fields;
use crate::db::{Db, DbError, Sql, Work};

use super::item::Item;
use super::store;
use super::terms::{self, Kind};

/// Whose catalogue they are in: that of tokens that name no tenant.
const TENANT: &str = crate::auth::MAIN_TENANT;

/// How soon a database that was away is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Public test streams of Apple and Mux.
fn items() -> Vec<Item> {
    let contents = [
        json!({
            "id": "demo", "name": "Demo channel", "type": "livestream", "category": "demo", "language": "en",
            "source": "https://devstreaming-cdn.apple.com/videos/streaming/examples/bipbop_4x3/bipbop_4x3_variant.m3u8",
            "description": "A test picture with a clock.", "tags": ["demo"],
        }),
        json!({
            "id": "demo-film", "name": "Demo film", "type": "vod", "category": "demo", "language": "en",
            "source": "https://test-streams.mux.dev/x36xhzz/x36xhzz.m3u8",
            "description": "Big Buck Bunny, by the Blender Foundation (CC BY 3.0).", "tags": ["demo", "film"],
            "duration_ms": 634_000, "label": "Blender Foundation", "metadata": {"year": 2008},
        }),
        json!({
            "id": "demo-series-1-1", "name": "Demo series, episode 1", "type": "vod", "category": "demo",
            "language": "en", "tags": ["demo", "series"],
            "source": "https://devstreaming-cdn.apple.com/videos/streaming/examples/bipbop_16x9/bipbop_16x9_variant.m3u8",
            "duration_ms": 1_800_000, "metadata": {"series": "Demo series", "season": 1, "episode": 1},
        }),
    ];
    let item = |content: Value| {
        let content = content.as_object().cloned().unwrap_or_default();
        Item::read(&mut Fields::of(content), None).ok()
    };
    contents.into_iter().filter_map(item).collect()
}

/// Makes them unless that was done before, as soon as there is a database.
pub async fn make_once(db: Db) {
    loop {
        if db.is_ready() {
            match first(&db).await {
                Ok(0) => return,
                Ok(made) => {
                    tracing::info!(made, "demo contents; `usher content demo remove` takes them out");
                    return;
                }
                Err(error) => tracing::warn!(%error, "no demo contents yet"),
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn first(db: &Db) -> Result<u64, DbError> {
    let mut work = db.begin().await?;
    if !mark(&mut work).await? {
        return Ok(0);
    }
    let made = put(&mut work).await?;
    work.commit().await?;
    Ok(made)
}

/// Adds those that are missing; how many.
///
/// # Errors
/// As [`DbError`] says.
pub async fn add(db: &Db) -> Result<u64, DbError> {
    let mut work = db.begin().await?;
    mark(&mut work).await?;
    let made = put(&mut work).await?;
    work.commit().await?;
    Ok(made)
}

/// Takes out those that no editor changed; how many.
///
/// # Errors
/// As [`DbError`] says.
pub async fn remove(db: &Db) -> Result<u64, DbError> {
    let mut work = db.begin().await?;
    mark(&mut work).await?;
    let mut sql = Sql::new("DELETE FROM contents WHERE demo = 1 AND tenant = ");
    sql.bind(TENANT);
    let removed = work.execute(sql.query()).await?;
    terms::remove_demo(&mut work, TENANT).await?;
    work.commit().await?;
    Ok(removed)
}

/// Notes that demo contents were made; whether that is new.
async fn mark(work: &mut Work) -> Result<bool, DbError> {
    let mut sql = Sql::new("INSERT INTO content_demo (tenant, made_at) VALUES (");
    sql.bind(TENANT).push(", ").bind(store::now());
    sql.push(") ON CONFLICT (tenant) DO NOTHING");
    Ok(work.execute(sql.query()).await? > 0)
}

async fn put(work: &mut Work) -> Result<u64, DbError> {
    let named = [
        (Kind::Category, "demo", "Demo"),
        (Kind::Language, "en", "English"),
    ];
    terms::add_missing(work, TENANT, &named).await?;
    store::add_missing(work, TENANT, &items()).await
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_one_of_them_is_a_content() {
        assert_eq!(super::items().len(), 3);
    }
}
