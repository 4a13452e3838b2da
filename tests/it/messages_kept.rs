//! How long messages are kept, on both databases, at any time that the test chooses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use usher::config::{self, DatabaseUrl, Overrides, Span};
use usher::db::{Db, Migrations};
use usher::messages::retention::purge;
use usher::messages::store::{New, Store};
use usher::protocol::message::Content;
use usher::telemetry::Metrics;

use crate::postgres::Postgres;
use crate::redis_servers::directory;

const HOUR: i64 = 60 * 60 * 1000;

/// More than one statement deletes.
const MANY: i64 = 1_005;

async fn old_ones_go(mut settings: config::Database) {
    settings.timeout = Duration::from_secs(5);
    let dir = directory("kept");
    let db = Db::open(&settings, &dir, Migrations::all(), Arc::new(Metrics::new())).unwrap();
    db.prepare(true).await.unwrap();
    let store = Store::new(db, false);
    let content = Content::parse(r#"{"type":"text","text":"x"}"#).unwrap();
    let new = |tenant, from, now| New {
        tenant,
        from,
        to: "bob",
        content: &content,
        client_id: None,
        now,
    };
    for number in 0..MANY {
        store.send(&new("main", "ann", number)).await.unwrap();
    }
    for now in [0, 5 * HOUR, 9 * HOUR] {
        for tenant in ["main", "short", "never"] {
            store.send(&new(tenant, "cy", now)).await.unwrap();
        }
    }
    let mut config = config::load(None, [], &Overrides::default()).unwrap().messages;
    config.retention = Duration::from_secs(6 * 60 * 60);
    config.tenant_retention = BTreeMap::from([
        ("short".to_owned(), Span(Duration::from_secs(2 * 60 * 60))),
        ("never".to_owned(), Span(Duration::ZERO)),
    ]);
    let left = async |tenant: &str| store.received(tenant, "bob", 0, 2_000).await.unwrap().len();
    // Of `main` what is older than six hours, of `short` than two, of `never` nothing.
    let at = 10 * HOUR;
    assert_eq!(
        purge(&store, &config, at).await.unwrap(),
        MANY.unsigned_abs() + 1 + 2
    );
    assert_eq!(
        (left("main").await, left("short").await, left("never").await),
        (2, 1, 3)
    );
    assert_eq!(purge(&store, &config, at).await.unwrap(), 0, "once");
    // What went leaves its ids behind: nobody gets one twice.
    let newest = store
        .received("main", "bob", 0, 10)
        .await
        .unwrap()
        .pop()
        .unwrap()
        .id;
    assert_eq!(purge(&store, &config, 20 * HOUR).await.unwrap(), 3);
    assert_eq!(store.send(&new("main", "ann", at)).await.unwrap().id, newest + 1);
    std::fs::remove_dir_all(dir).unwrap();
}

fn settings(url: String) -> config::Database {
    let mut settings = config::load(None, [], &Overrides::default()).unwrap().database;
    settings.url = DatabaseUrl::from(url);
    settings
}

#[tokio::test]
async fn old_ones_go_on_sqlite() {
    old_ones_go(settings(String::new())).await;
}

#[tokio::test]
async fn old_ones_go_on_postgresql() {
    let server = Postgres::start().await;
    old_ones_go(settings(server.url())).await;
}
