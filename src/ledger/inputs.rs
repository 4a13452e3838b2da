//! The fingerprint of everything that a statement rests on, so that anybody can show that nothing was changed since.
//!
//! Owns: the lines and their order. Does not: keep them (`statements` does). Called by: `statements`.
//!
//! SHA-256 over lines of JSON, each ended by a line feed, in the order of their ids' bytes: `["terms", threshold, floor]`,
//! `["share", origin, share]`, `["subscriber", user, fee, currency, origin]`, `["label", content, label]` of the contents
//! that were watched, `["play", id, user, content, region, started_at, seconds]` of the period.

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Value, json};
use sqlx::Row;

use crate::db::{DbError, Engine, Sql, Work};

use super::figures::{Question, Terms};
use super::labels::{LABEL, push_labels};

/// The fingerprint, in hex.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn fingerprint(
    work: &mut Work,
    engine: Engine,
    question: &Question,
    terms: &Terms,
) -> Result<String, DbError> {
    let mut hash = Context::new(&SHA256);
    let mut line = |value: Value| {
        hash.update(value.to_string().as_bytes());
        hash.update(b"\n");
    };
    line(json!(["terms", terms.threshold, terms.floor]));
    for (origin, share) in &terms.shares {
        line(json!(["share", origin, share]));
    }
    // SQLite compares bytes; PostgreSQL as its locale says, unless it is told.
    let bytes = match engine {
        Engine::Sqlite => "",
        Engine::Postgres => " COLLATE \"C\"",
    };
    let tenant = || question.tenant.clone();
    let mut sql = Sql::new("SELECT user_id, fee, currency, origin FROM subscribers WHERE tenant = ");
    sql.bind(tenant()).push(" ORDER BY user_id").push(bytes);
    work.each(sql.query(), |row| {
        let (user, fee): (String, i64) = (row.get(0), row.get(1));
        let (currency, origin): (String, String) = (row.get(2), row.get(3));
        line(json!(["subscriber", user, fee, currency, origin]));
    })
    .await?;
    let period = |sql: &mut Sql| {
        sql.push(" FROM plays WHERE tenant = ").bind(tenant());
        sql.push(" AND started_at >= ").bind(question.from.start_ms());
        sql.push(" AND started_at < ").bind(question.to.start_ms());
    };
    let mut sql = Sql::new("SELECT c.content, ");
    sql.push(LABEL).push(" FROM (SELECT DISTINCT content");
    period(&mut sql);
    sql.push(") c");
    push_labels(&mut sql, "c.content", &question.tenant);
    sql.push(" WHERE t.id IS NOT NULL OR k.id IS NOT NULL ORDER BY c.content")
        .push(bytes);
    work.each(sql.query(), |row| {
        line(json!(["label", row.get::<String, _>(0), row.get::<String, _>(1)]));
    })
    .await?;
    let mut sql = Sql::new("SELECT id, user_id, content, region, started_at, seconds");
    period(&mut sql);
    sql.push(" ORDER BY id").push(bytes);
    work.each(sql.query(), |row| {
        let [id, user, content, region] = [0, 1, 2, 3].map(|column| row.get::<String, _>(column));
        let (at, seconds): (i64, i64) = (row.get(4), row.get(5));
        line(json!(["play", id, user, content, region, at, seconds]));
    })
    .await?;
    Ok(hash
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
