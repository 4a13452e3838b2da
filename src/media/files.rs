//! The rows of files: what is there, whose it is, and what it counts against.
//!
//! Owns: the tables `files`, `file_roles` and `file_tenants`. Every statement names the tenant.
//! Does not: touch bytes, or decide who may ask. Called by: the routes, `tus`, `scan` and `sweep`.

use crate::db::{Db, DbError, Sql, Work, containing};

use super::file::{About, COLUMNS, File, State, now, time};
use super::intake::Taken;

/// Rows that one pass of the background takes.
const BATCH: i64 = 100;

/// Why a file is not written down.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotWritten {
    /// The tenant has as many bytes as it may.
    #[error("the tenant's quota is used up")]
    Full,
    /// The database fails.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// As whom somebody looks at files.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    /// Of this tenant alone.
    pub(super) tenant: String,
    /// Whose own files are seen in every state.
    pub(super) account: String,
    /// What else is seen when it is ready.
    pub(super) roles: Vec<String>,
    /// Whether every file of the tenant is seen.
    pub(super) all: bool,
}

/// Which files, in which order.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    /// A text in title or description.
    pub(super) q: Option<String>,
    /// Equal to these: columns of [`FILTERS`].
    pub(super) equal: Vec<(&'static str, String)>,
    /// For this role, or for everybody.
    pub(super) role: Option<String>,
    /// A column of [`SORTS`].
    pub(super) sort: &'static str,
    /// Whether the largest comes first.
    pub(super) descending: bool,
}

/// What a list may be filtered by: the parameter and what it compares.
pub(super) const FILTERS: [(&str, &str); 7] = [
    ("type", " AND type = "),
    ("state", " AND state = "),
    ("category", " AND category = "),
    ("language", " AND language = "),
    ("provider", " AND provider = "),
    ("content", " AND content = "),
    ("owner", " AND owner = "),
];

/// What a list may be sorted by, and its orders.
pub(super) const SORTS: [(&str, &str, &str); 4] = [
    (
        "created_at",
        " ORDER BY created_at, id",
        " ORDER BY created_at DESC, id DESC",
    ),
    (
        "changed_at",
        " ORDER BY changed_at, id",
        " ORDER BY changed_at DESC, id DESC",
    ),
    (
        "title",
        " ORDER BY search_key, id",
        " ORDER BY search_key DESC, id DESC",
    ),
    ("size", " ORDER BY size, id", " ORDER BY size DESC, id DESC"),
];

/// Writes a file down whose bytes are about to come: what is left of it is found after a crash.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn announce(db: &Db, file: &File) -> Result<(), DbError> {
    let mut sql = Sql::new(
        "INSERT INTO files (id, tenant, object_key, owner, state, type, size, sha256, title, search_key, description, \
         roles, month, created_at, changed_at) VALUES (",
    );
    sql.bind_all([
        &*file.id,
        &*file.tenant,
        &*file.key,
        &*file.owner,
        State::Receiving.word(),
        &*file.kind,
    ]);
    sql.push(", 0, '', '', '', '', '[]', ")
        .bind(month(file.created_at));
    sql.push(", ")
        .bind(file.created_at)
        .push(", ")
        .bind(file.created_at)
        .push(")");
    db.execute(sql.query()).await?;
    Ok(())
}

/// The bytes are there: from now on the file is seen. `quota`: what the tenant may have, 0 for no limit, and whether this
/// file is charged now.
///
/// # Errors
/// [`NotWritten::Full`], or the database fails: the file stays unseen.
pub(super) async fn publish(
    db: &Db,
    file: &File,
    taken: &Taken,
    charge_up_to: Option<u64>,
) -> Result<(), NotWritten> {
    let mut work = db.begin().await?;
    publish_in(&mut work, file, taken, charge_up_to).await?;
    work.commit().await?;
    Ok(())
}

/// As [`publish`], within a transaction.
///
/// # Errors
/// As [`publish`].
pub(super) async fn publish_in(
    work: &mut Work,
    file: &File,
    taken: &Taken,
    charge_up_to: Option<u64>,
) -> Result<(), NotWritten> {
    let size = signed(taken.size);
    if let Some(quota) = charge_up_to
        && !charge(work, &file.tenant, size, quota).await?
    {
        return Err(NotWritten::Full);
    }
    let mut sql = Sql::new("UPDATE files SET state = ");
    sql.bind(file.state.word()).push(", size = ").bind(size);
    sql.push(", sha256 = ").bind(&*taken.sha256);
    describe(&mut sql, &file.about);
    sql.push(" WHERE tenant = ")
        .bind(&*file.tenant)
        .push(" AND id = ")
        .bind(&*file.id);
    if work.execute(sql.query()).await? == 0 {
        // Swept meanwhile: it took longer than anybody waits.
        return Err(DbError::Conflict.into());
    }
    write_roles(work, &file.id, &file.about).await?;
    Ok(())
}

/// Changes what is said of a file.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn change(db: &Db, file: &File) -> Result<(), DbError> {
    let mut work = db.begin().await?;
    let mut sql = Sql::new("UPDATE files SET changed_at = ");
    sql.bind(file.changed_at);
    describe(&mut sql, &file.about);
    sql.push(" WHERE tenant = ")
        .bind(&*file.tenant)
        .push(" AND id = ")
        .bind(&*file.id);
    work.execute(sql.query()).await?;
    let mut sql = Sql::new("DELETE FROM file_roles WHERE file_id = ");
    sql.bind(&*file.id);
    work.execute(sql.query()).await?;
    write_roles(&mut work, &file.id, &file.about).await?;
    work.commit().await
}

fn describe(sql: &mut Sql, about: &About) {
    sql.push(", title = ").bind(&*about.title);
    sql.push(", search_key = ").bind(about.search_key());
    sql.push(", description = ").bind(&*about.description);
    sql.push(", category = ").bind(about.category.as_deref());
    sql.push(", language = ").bind(about.language.as_deref());
    sql.push(", provider = ").bind(about.provider.as_deref());
    sql.push(", content = ").bind(about.content.as_deref());
    sql.push(", roles = ").bind(about.roles_json());
}

async fn write_roles(work: &mut Work, id: &str, about: &About) -> Result<(), DbError> {
    for role in &about.roles {
        let mut sql = Sql::new("INSERT INTO file_roles (file_id, role) VALUES (");
        sql.bind_all([id, &**role]).push(")");
        work.execute(sql.query()).await?;
    }
    Ok(())
}

/// Counts bytes of a tenant, unless they are more than its quota; 0 is none.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn charge(work: &mut Work, tenant: &str, bytes: i64, quota: u64) -> Result<bool, DbError> {
    let mut sql = Sql::new("INSERT INTO file_tenants (tenant, bytes) VALUES (");
    sql.bind(tenant).push(", 0) ON CONFLICT (tenant) DO NOTHING");
    work.execute(sql.query()).await?;
    let most = if quota == 0 { i64::MAX } else { signed(quota) };
    let mut sql = Sql::new("UPDATE file_tenants SET bytes = bytes + ");
    sql.bind(bytes).push(" WHERE tenant = ").bind(tenant);
    sql.push(" AND bytes <= ").bind(most.saturating_sub(bytes.max(0)));
    Ok(work.execute(sql.query()).await? > 0)
}

/// Bytes that a tenant has.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn used(db: &Db, tenant: &str) -> Result<u64, DbError> {
    use sqlx::Row;
    let mut sql = Sql::new("SELECT bytes FROM file_tenants WHERE tenant = ");
    sql.bind(tenant);
    let row = db.fetch_optional(sql.query()).await?;
    Ok(row.map_or(0, |row| u64::try_from(row.get::<i64, _>(0)).unwrap_or_default()))
}

/// A file of a tenant by its id; one whose bytes are still coming is none.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn find(db: &Db, tenant: &str, id: &str) -> Result<Option<File>, DbError> {
    let mut sql = selecting();
    sql.bind(tenant)
        .push(" AND state <> 'receiving' AND id = ")
        .bind(id);
    let row = db.fetch_optional(sql.query()).await?;
    Ok(row.as_ref().map(File::of))
}

fn selecting() -> Sql {
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS).push(" FROM files WHERE tenant = ");
    sql
}

/// The files that somebody sees: one page of them, and how many there are.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn list(
    db: &Db,
    sight: &Sight,
    wish: &Wish,
    (skip, most): (usize, usize),
) -> Result<(Vec<File>, usize), DbError> {
    use sqlx::Row;
    let mut work = db.connect().await?;
    let mut sql = Sql::new("SELECT count(*) FROM files WHERE tenant = ");
    narrow(&mut sql, sight, wish);
    let total: i64 = work.fetch_one(sql.query()).await?.get(0);
    let mut sql = selecting();
    narrow(&mut sql, sight, wish);
    let order = SORTS
        .iter()
        .find(|(name, ..)| *name == wish.sort)
        .unwrap_or(&SORTS[0]);
    sql.push(if wish.descending { order.2 } else { order.1 });
    sql.push(" LIMIT ").bind(signed(most as u64));
    sql.push(" OFFSET ").bind(signed(skip as u64));
    let rows = work.fetch_all(sql.query()).await?;
    Ok((
        rows.iter().map(File::of).collect(),
        usize::try_from(total).unwrap_or_default(),
    ))
}

fn narrow(sql: &mut Sql, sight: &Sight, wish: &Wish) {
    sql.bind(&*sight.tenant).push(" AND state <> 'receiving'");
    if !sight.all {
        sql.push(" AND (owner = ").bind(&*sight.account);
        sql.push(" OR (state = 'ready' AND ");
        open_to(sql, sight.roles.iter());
        sql.push("))");
    }
    if let Some(q) = &wish.q {
        sql.push(" AND search_key LIKE ")
            .bind(containing(&q.to_lowercase()));
        sql.push(" ESCAPE '\\'");
    }
    for (name, value) in &wish.equal {
        if let Some((_, text)) = FILTERS.iter().find(|(known, _)| known == name) {
            sql.push(text).bind(&**value);
        }
    }
    if let Some(role) = &wish.role {
        sql.push(" AND ");
        open_to(sql, [role].into_iter());
    }
}

/// For everybody, or for one of these roles.
fn open_to<'r>(sql: &mut Sql, roles: impl ExactSizeIterator<Item = &'r String>) {
    sql.push("(NOT EXISTS (SELECT 1 FROM file_roles WHERE file_id = files.id)");
    if roles.len() > 0 {
        sql.push(" OR EXISTS (SELECT 1 FROM file_roles WHERE file_id = files.id AND role IN (");
        sql.bind_all(roles.map(|role| &**role)).push("))");
    }
    sql.push(")");
}

/// Removes a file's row and what it counted; its bytes are the caller's to remove.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn remove(db: &Db, file: &File) -> Result<bool, DbError> {
    let mut work = db.begin().await?;
    let mut sql = Sql::new("DELETE FROM files WHERE tenant = ");
    sql.bind(&*file.tenant).push(" AND id = ").bind(&*file.id);
    if work.execute(sql.query()).await? == 0 {
        return Ok(false);
    }
    if file.state != State::Receiving {
        charge(&mut work, &file.tenant, -signed(file.size), 0).await?;
    }
    work.commit().await?;
    Ok(true)
}

/// Files in this state whose last change is before then, the oldest first; of all tenants, for the background.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn in_state(db: &Db, state: State, before: i64) -> Result<Vec<File>, DbError> {
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS)
        .push(" FROM files WHERE state = ")
        .bind(state.word());
    sql.push(" AND changed_at < ").bind(before);
    sql.push(" ORDER BY changed_at LIMIT ").bind(BATCH);
    let rows = db.fetch_all(sql.query()).await?;
    Ok(rows.iter().map(File::of).collect())
}

/// Moves a file from `scanning` to another state; whether it was there.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn judged(db: &Db, file: &File, state: State) -> Result<bool, DbError> {
    let mut sql = Sql::new("UPDATE files SET state = ");
    sql.bind(state.word()).push(", changed_at = ").bind(now());
    sql.push(" WHERE state = 'scanning' AND tenant = ")
        .bind(&*file.tenant);
    sql.push(" AND id = ").bind(&*file.id);
    Ok(db.execute(sql.query()).await? > 0)
}

/// Whether an item of the catalogue with this id names this file.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn is_of_content(db: &Db, file: &File, content: &str) -> Result<bool, DbError> {
    // The catalogue's table comes with its own step.
    if !db.has_step("catalogue") {
        return Ok(false);
    }
    let mut sql = Sql::new("SELECT 1 FROM contents WHERE tenant = ");
    sql.bind(&*file.tenant).push(" AND id = ").bind(content);
    sql.push(" AND file_id = ").bind(&*file.id);
    Ok(db.fetch_optional(sql.query()).await?.is_some())
}

/// `2026-11`
#[must_use]
pub(super) fn month(unix_millis: i64) -> String {
    time(unix_millis)[..7].to_owned()
}

/// As the database counts.
#[must_use]
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
