//! The SQL of contents. Every statement names the tenant: another tenant's content does not exist.
//!
//! Owns: the table `contents` and how its columns are read. Called by: the routes, import and export, `shelf`, `demo`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::db::{Db, DbError, Sql, Work, containing};
use crate::lease::shelf::Sight;

use super::item::{Item, Kind, Source, Stored, is_word};
use super::shelf::Known;

/// The columns of [`stored`].
const COLUMNS: &str = "id, name, type, source, file_id, description, category, language, tags, roles, plans, label, \
                       metadata, duration_ms, thumbnail, created_at, changed_at";

/// The columns of [`push_row`].
const INSERT: &str = "INSERT INTO contents (tenant, id, name, name_key, search_key, type, source, file_id, \
                      description, category, language, tags, roles, plans, label, metadata, duration_ms, thumbnail, \
                      demo, created_at, changed_at) VALUES ";

/// What a later import changes.
const REPLACE: &str = " ON CONFLICT (tenant, id) DO UPDATE SET name = excluded.name, name_key = excluded.name_key, \
                       search_key = excluded.search_key, type = excluded.type, source = excluded.source, \
                       file_id = excluded.file_id, description = excluded.description, \
                       category = excluded.category, language = excluded.language, tags = excluded.tags, \
                       roles = excluded.roles, plans = excluded.plans, label = excluded.label, \
                       metadata = excluded.metadata, duration_ms = excluded.duration_ms, \
                       thumbnail = excluded.thumbnail, demo = excluded.demo, changed_at = excluded.changed_at";

/// Which contents are listed.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) q: Option<String>,
    pub(super) kind: Option<Kind>,
    pub(super) category: Option<String>,
    pub(super) language: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) label: Option<String>,
}

/// The column of what a list is sorted by. Both engines agree on where nothing stands.
fn column(sort: &str) -> &'static str {
    match sort {
        "created_at" => "created_at",
        "changed_at" => "changed_at",
        "duration_ms" => "COALESCE(duration_ms, -1)",
        "type" => "type",
        "id" => "id",
        _ => "name_key",
    }
}

/// Adds a content.
///
/// # Errors
/// [`DbError::Taken`] when its id is.
pub(super) async fn add(work: &mut Work, tenant: &str, item: &Item) -> Result<Stored, DbError> {
    let now = now();
    let mut sql = Sql::new(INSERT);
    push_row(&mut sql, tenant, item, (false, now));
    work.execute(sql.query()).await?;
    Ok(Stored {
        item: item.clone(),
        created_at: now,
        changed_at: now,
    })
}

/// Writes contents, in the place of those that have the same ids. No id comes twice.
///
/// # Errors
/// As [`DbError`] says; nothing is written then.
pub(super) async fn put_all(
    work: &mut Work,
    tenant: &str,
    items: &[Item],
    demo: bool,
) -> Result<(), DbError> {
    let now = now();
    let mut sql = Sql::new(INSERT);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            sql.push(", ");
        }
        push_row(&mut sql, tenant, item, (demo, now));
    }
    sql.push(REPLACE);
    work.execute(sql.query()).await?;
    Ok(())
}

/// As [`put_all`], where what is there already stays as it is.
///
/// # Errors
/// As [`put_all`].
pub(super) async fn add_missing(work: &mut Work, tenant: &str, items: &[Item]) -> Result<u64, DbError> {
    let now = now();
    let mut added = 0;
    for item in items {
        let mut sql = Sql::new(INSERT);
        push_row(&mut sql, tenant, item, (true, now));
        sql.push(" ON CONFLICT (tenant, id) DO NOTHING");
        added += work.execute(sql.query()).await?;
    }
    Ok(added)
}

/// Writes a content in the place of the one that has its id; none when there is none.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn replace(work: &mut Work, tenant: &str, item: &Item) -> Result<Option<Stored>, DbError> {
    if one(work, tenant, &item.id).await?.is_none() {
        return Ok(None);
    }
    put_all(work, tenant, std::slice::from_ref(item), false).await?;
    one(work, tenant, &item.id).await
}

/// Whether there was such a content to take out.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn remove(db: &Db, tenant: &str, id: &str) -> Result<bool, DbError> {
    let mut sql = Sql::new("DELETE FROM contents WHERE tenant = ");
    sql.bind(tenant).push(" AND id = ").bind(id);
    Ok(db.execute(sql.query()).await? > 0)
}

/// One content.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn one(work: &mut Work, tenant: &str, id: &str) -> Result<Option<Stored>, DbError> {
    let mut sql = select();
    sql.bind(tenant).push(" AND id = ").bind(id);
    let row = work.fetch_optional(sql.query()).await?;
    row.as_ref().map(stored).transpose()
}

/// What a start needs to know of a content.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn known(db: &Db, tenant: &str, id: &str) -> Result<Option<Known>, DbError> {
    let mut sql = Sql::new("SELECT source, file_id, tags, roles, plans FROM contents WHERE tenant = ");
    sql.bind(tenant).push(" AND id = ").bind(id);
    let row = db.fetch_optional(sql.query()).await?;
    let known = row.map(|row| {
        Ok(Known {
            source: source(&row)?,
            tags: list(&row, "tags")?.into(),
            roles: list(&row, "roles")?,
            plans: list(&row, "plans")?,
        })
    });
    known.transpose()
}

/// One page of those that somebody sees, and how many there are on all pages. `sort`: by what, and whether it
/// descends.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn page(
    work: &mut Work,
    tenant: &str,
    (filter, sight): (&Filter, &Sight),
    (sort, descending): (&str, bool),
    (start, limit): (usize, usize),
) -> Result<(Vec<Stored>, usize), DbError> {
    let mut sql = Sql::new("SELECT count(*) FROM contents WHERE tenant = ");
    narrow(&mut sql, tenant, filter, sight);
    let total: i64 = work.fetch_one(sql.query()).await?.try_get(0)?;
    let mut sql = select();
    narrow(&mut sql, tenant, filter, sight);
    sql.push(" ORDER BY ").push(column(sort));
    sql.push(if descending { " DESC, id DESC" } else { ", id" });
    let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    sql.push(" LIMIT ").bind(whole(limit));
    sql.push(" OFFSET ").bind(whole(start));
    let rows = work.fetch_all(sql.query()).await?;
    let items: Result<Vec<_>, _> = rows.iter().map(stored).collect();
    Ok((items?, usize::try_from(total).unwrap_or_default()))
}

/// The contents after an id, in the order of their ids: at most so many.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn after(
    work: &mut Work,
    tenant: &str,
    id: &str,
    most: i64,
) -> Result<Vec<Stored>, DbError> {
    let mut sql = select();
    sql.bind(tenant).push(" AND id > ").bind(id);
    sql.push(" ORDER BY id LIMIT ").bind(most);
    let rows = work.fetch_all(sql.query()).await?;
    rows.iter().map(stored).collect()
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn select() -> Sql {
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS).push(" FROM contents WHERE tenant = ");
    sql
}

fn narrow(sql: &mut Sql, tenant: &str, filter: &Filter, sight: &Sight) {
    sql.bind(tenant);
    if let Some(q) = &filter.q {
        let pattern = containing(&q.to_lowercase());
        sql.push(" AND search_key LIKE ")
            .bind(pattern)
            .push(" ESCAPE '\\'");
    }
    let equal = [
        (" AND type = ", filter.kind.map(Kind::name)),
        (" AND category = ", filter.category.as_deref()),
        (" AND language = ", filter.language.as_deref()),
        (" AND label = ", filter.label.as_deref()),
    ];
    for (text, value) in equal {
        if let Some(value) = value {
            sql.push(text).bind(value);
        }
    }
    if let Some(tag) = &filter.tag {
        sql.push(" AND ");
        has(sql, "tags", tag);
    }
    if sight.all {
        return;
    }
    sql.push(" AND ((roles = '' AND plans = '')");
    // A role that no content can name shows nothing.
    for role in sight.roles.iter().filter(|role| is_word(role)) {
        sql.push(" OR ");
        has(sql, "roles", role);
    }
    if let Some(plan) = sight.plan.as_deref().filter(|plan| is_word(plan)) {
        sql.push(" OR ");
        has(sql, "plans", plan);
    }
    sql.push(")");
}

/// Whether a column's list has a word: unlike `LIKE`, `replace` tells upper from lower case on both engines.
fn has(sql: &mut Sql, column: &'static str, word: &str) {
    sql.push("replace(").push(column).push(", ").bind(joined(&[word]));
    sql.push(", '') <> ").push(column);
}

fn push_row(sql: &mut Sql, tenant: &str, item: &Item, (demo, now): (bool, i64)) {
    let (url, file) = match &item.source {
        Source::Url(url) => (Some(url.as_str()), None),
        Source::File(id) => (None, Some(id.as_str())),
    };
    let metadata = item
        .metadata
        .as_ref()
        .map(|metadata| Value::Object(metadata.clone()).to_string());
    sql.push("(").bind_all([tenant, &item.id, &item.name]);
    sql.push(", ")
        .bind_all([item.name.to_lowercase(), item.search_key()]);
    sql.push(", ").bind(item.kind.name());
    sql.push(", ").bind_all([url, file, item.description.as_deref()]);
    sql.push(", ")
        .bind_all([item.category.as_deref(), item.language.as_deref()]);
    sql.push(", ")
        .bind_all([joined(&item.tags), joined(&item.roles), joined(&item.plans)]);
    sql.push(", ")
        .bind_all([item.label.as_deref(), metadata.as_deref()]);
    sql.push(", ").bind(item.duration_ms);
    sql.push(", ").bind(item.thumbnail.as_deref());
    sql.push(", ").bind_all([i64::from(demo), now, now]).push(")");
}

/// A list as it is stored: each word stands between two line feeds, and no word has one.
pub(super) fn joined<T: AsRef<str>>(words: &[T]) -> String {
    let mut text = String::new();
    for word in words {
        text.push('\n');
        text.push_str(word.as_ref());
    }
    if !words.is_empty() {
        text.push('\n');
    }
    text
}

fn list(row: &AnyRow, column: &str) -> Result<Vec<String>, DbError> {
    let text: String = row.try_get(column)?;
    let words = text.split('\n').filter(|word| !word.is_empty());
    Ok(words.map(str::to_owned).collect())
}

fn source(row: &AnyRow) -> Result<Source, DbError> {
    let (url, file): (Option<String>, Option<String>) = (row.try_get("source")?, row.try_get("file_id")?);
    let source = url.map(Source::Url).or(file.map(Source::File));
    source.ok_or_else(|| DbError::Fault("a content without a source".to_owned()))
}

fn stored(row: &AnyRow) -> Result<Stored, DbError> {
    let kind: String = row.try_get("type")?;
    let kind = Kind::of(&kind).ok_or_else(|| DbError::Fault("a content of no known type".to_owned()))?;
    let metadata: Option<String> = row.try_get("metadata")?;
    let metadata: Option<Map<String, Value>> =
        metadata
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| DbError::Fault(format!("metadata of a content: {error}")))?;
    Ok(Stored {
        item: Item {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            kind,
            source: source(row)?,
            description: row.try_get("description")?,
            category: row.try_get("category")?,
            language: row.try_get("language")?,
            tags: list(row, "tags")?,
            label: row.try_get("label")?,
            metadata,
            duration_ms: row.try_get("duration_ms")?,
            thumbnail: row.try_get("thumbnail")?,
            roles: list(row, "roles")?,
            plans: list(row, "plans")?,
        },
        created_at: row.try_get("created_at")?,
        changed_at: row.try_get("changed_at")?,
    })
}
