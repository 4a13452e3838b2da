//! The database: its steps, transactions and deadlines on both engines, and a node whose database goes away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Row;
use usher::config::{self, DatabaseUrl};
use usher::db::{Db, DbError, Migrations, Sql};
use usher::telemetry::Metrics;

use crate::postgres::Postgres;
use crate::redis_servers::{directory, until};

fn settings(url: &str) -> config::Database {
    config::Database {
        url: DatabaseUrl::from(url.to_owned()),
        password: String::new().into(),
        connections: 4,
        timeout: Duration::from_millis(800),
        migrate: true,
    }
}

fn open(url: &str, dir: &Path) -> Db {
    Db::open(&settings(url), dir, Migrations::all(), Arc::new(Metrics::new())).unwrap()
}

async fn add(db: &Db, id: &str, email: &str) -> Result<u64, DbError> {
    let mut sql = Sql::new("INSERT INTO users (id, tenant, email, email_key, created_at) VALUES (");
    sql.bind_all([id, "main", email, &email.to_lowercase()])
        .push(", ")
        .bind(1_i64)
        .push(")");
    db.execute(sql.query()).await
}

async fn count(db: &Db) -> i64 {
    let row = db.fetch_one(sqlx::query("SELECT count(*) FROM users")).await;
    row.unwrap().get(0)
}

/// Steps go up, down and up; rows of the first survive undoing the later ones; transactions and constraints hold.
async fn works(db: &Db) {
    assert!(
        matches!(add(db, "1", "a@x").await, Err(DbError::Away)),
        "no tables yet"
    );
    db.migrate().await.unwrap();
    db.migrate().await.unwrap();
    let steps = db.applied().await.unwrap();
    assert!(!steps.is_empty() && steps.iter().all(|step| step.applied));
    assert_eq!(add(db, "1", "A@x").await.unwrap(), 1);
    assert!(matches!(add(db, "2", "a@X").await, Err(DbError::Taken)));
    assert!(
        matches!(add(db, "2", "nul\0").await, Err(DbError::Unfit))
            || db.engine() == usher::db::Engine::Sqlite
    );

    // Dropped without a commit: undone, and the connection serves the next one.
    for round in 0..10 {
        let mut work = db.begin().await.unwrap();
        let sql = sqlx::query("DELETE FROM users WHERE tenant = $1").bind("main");
        assert!(work.execute(sql).await.unwrap() >= 1, "round {round}");
        drop(work);
        assert!(count(db).await >= 1, "round {round}");
    }
    let mut work = db.begin().await.unwrap();
    let sql = sqlx::query("UPDATE users SET created_at = created_at + $1").bind(41_i64);
    work.execute(sql).await.unwrap();
    work.commit().await.unwrap();
    let row = db
        .fetch_one(sqlx::query("SELECT created_at FROM users WHERE id = '1'"))
        .await;
    assert_eq!(row.unwrap().get::<i64, _>(0), 42);

    let before = count(db).await;
    db.undo(1).await.unwrap();
    db.migrate().await.unwrap();
    assert_eq!(
        count(db).await,
        before,
        "undoing later steps keeps the rows of the first"
    );
    db.undo(0).await.unwrap();
    assert!(db.applied().await.unwrap().iter().all(|step| !step.applied));
    assert!(matches!(add(db, "3", "c@x").await, Err(DbError::Away)));
    db.migrate().await.unwrap();
    assert_eq!(count(db).await, 0);
}

#[tokio::test]
async fn steps_and_transactions_on_sqlite() {
    let dir = directory("sqlite");
    let db = open("", &dir);
    works(&db).await;
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(dir.join("usher.db"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "hashes of passwords are the node's alone");
    db.close().await;
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn steps_and_transactions_on_postgresql() {
    let server = Postgres::start().await;
    let db = open(&server.url(), Path::new("."));
    works(&db).await;
    db.close().await;
}

/// Nodes that start at once make the tables once.
#[tokio::test]
async fn several_nodes_migrate_at_once() {
    let server = Postgres::start().await;
    let nodes: Vec<_> = (0..4).map(|_| open(&server.url(), Path::new("."))).collect();
    let all = nodes.iter().map(Db::migrate);
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    assert_eq!(server.sql("usher", "SELECT count(*) FROM users"), "0");
}

/// Writers that meet on SQLite wait for each other.
#[tokio::test]
async fn writers_meet_on_sqlite() {
    let dir = directory("sqlite");
    let db = open("", &dir);
    db.migrate().await.unwrap();
    let writers = (0..40).map(|number| {
        let db = db.clone();
        tokio::spawn(async move { add(&db, &number.to_string(), &format!("{number}@x")).await })
    });
    for writer in futures_util::future::join_all(writers).await {
        writer.unwrap().unwrap();
    }
    assert_eq!(count(&db).await, 40);
    db.close().await;
    std::fs::remove_dir_all(dir).unwrap();
}

/// A server that hangs, dies or refuses: an error within a second, and good answers as soon as it is back.
#[tokio::test]
async fn postgresql_goes_away_and_comes_back() {
    let mut server = Postgres::start().await;
    let db = open(&server.url(), Path::new("."));
    db.migrate().await.unwrap();
    add(&db, "1", "a@x").await.unwrap();
    let away = async |what: &str| {
        for _ in 0..6 {
            let begun = Instant::now();
            let told = add(&db, "2", "b@x").await;
            let took = begun.elapsed();
            assert!(matches!(told, Err(DbError::Away)), "{what}: {told:?}");
            assert!(took < Duration::from_millis(1500), "{what}: {took:?}");
        }
    };
    let back = async || {
        until("rows again", || async {
            let sql = sqlx::query("SELECT id FROM users WHERE id = '1'");
            db.fetch_optional(sql).await.ok().flatten().map(|_| ())
        })
        .await;
    };
    server.stop();
    away("stands still").await;
    server.cont();
    back().await;
    server.kill();
    away("is dead").await;
    server.restart().await;
    back().await;
    db.close().await;
}
