//! People's rows.
//!
//! Owns: the SQL about `users`. Does not: judge fields (`rules` does) or who may ask (the routes do).
//! Called by: the routes, and `usher accounts`.

use std::collections::BTreeSet;

use sqlx::Row;

use super::person::{COLUMNS, Person, now};
use super::rules;
use crate::auth::Scopes;
use crate::db::{Db, DbError, Engine, Sql, Work, containing};

/// What a new row holds.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) email: String,
    pub(crate) user_name: Option<String>,
    pub(crate) name: String,
    pub(crate) picture: Option<String>,
    pub(crate) plan: Option<String>,
    pub(crate) scopes: Scopes,
    /// As it is stored.
    pub(crate) password: String,
}

/// Which name is somebody's already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Email,
    UserName,
}

/// Which people are listed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) tenant: String,
    /// A piece of the e-mail, the user name or the name.
    pub(crate) q: Option<String>,
    pub(crate) plan: Option<String>,
    /// Only these ids.
    pub(crate) among: Option<BTreeSet<String>>,
}

/// In which order, and which of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// One of [`SORTS`].
    pub(crate) sort: &'static str,
    pub(crate) descending: bool,
    pub(crate) start: usize,
    pub(crate) limit: usize,
}

/// What people may be sorted by.
pub(crate) const SORTS: &[&str] = &["created_at", "email", "user_name", "name", "plan"];

fn select() -> Sql {
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS).push(" FROM users u");
    sql
}

/// Somebody by id.
pub(crate) async fn by_id(db: &Db, tenant: &str, id: &str) -> Result<Option<Person>, DbError> {
    let mut sql = select();
    sql.push(" WHERE u.tenant = ").bind(tenant);
    sql.push(" AND u.id = ").bind(id);
    one(db, sql).await
}

/// Somebody by e-mail or user name, in any case.
pub(crate) async fn by_name(db: &Db, tenant: &str, name: &str) -> Result<Option<Person>, DbError> {
    let column = if name.contains('@') {
        " AND u.email_key = "
    } else {
        " AND u.user_name_key = "
    };
    let mut sql = select();
    sql.push(" WHERE u.tenant = ").bind(tenant);
    sql.push(column).bind(rules::key(name));
    one(db, sql).await
}

/// The person of a token, and whether the sign-in that the token comes from is still there.
pub(super) async fn of_token(
    db: &Db,
    tenant: &str,
    id: &str,
    sign_in: &str,
) -> Result<Option<(Person, bool)>, DbError> {
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS);
    sql.push(", (SELECT count(*) FROM sign_ins s WHERE s.user_id = u.id AND s.id = ");
    sql.bind(sign_in);
    sql.push(") AS present FROM users u WHERE u.tenant = ")
        .bind(tenant);
    sql.push(" AND u.id = ").bind(id);
    let row = db.fetch_optional(sql.query()).await?;
    let read = row.map(|row| Ok::<_, DbError>((Person::read(&row)?, row.try_get::<i64, _>("present")? > 0)));
    read.transpose()
}

async fn one(db: &Db, sql: Sql) -> Result<Option<Person>, DbError> {
    let row = db.fetch_optional(sql.query()).await?;
    row.map(|row| Person::read(&row)).transpose()
}

/// Which of these names somebody else than `except` has.
pub(super) async fn taken(
    db: &Db,
    tenant: &str,
    email: &str,
    user_name: Option<&str>,
    except: &str,
) -> Result<Option<Taken>, DbError> {
    let mut work = db.connect().await?;
    let mut sql = Sql::new("SELECT id FROM users WHERE tenant = ");
    sql.bind(tenant).push(" AND email_key = ").bind(rules::key(email));
    sql.push(" AND id <> ").bind(except);
    if work.fetch_optional(sql.query()).await?.is_some() {
        return Ok(Some(Taken::Email));
    }
    let Some(user_name) = user_name else {
        return Ok(None);
    };
    let mut sql = Sql::new("SELECT id FROM users WHERE tenant = ");
    sql.bind(tenant)
        .push(" AND user_name_key = ")
        .bind(rules::key(user_name));
    sql.push(" AND id <> ").bind(except);
    let found = work.fetch_optional(sql.query()).await?;
    Ok(found.map(|_| Taken::UserName))
}

/// Adds somebody.
///
/// # Errors
/// [`DbError::Taken`]: the e-mail or the user name is somebody's; [`taken`] tells which.
pub(super) async fn add(db: &Db, new: &New) -> Result<Person, DbError> {
    let mut sql = Sql::new(
        "INSERT INTO users (id, tenant, email, email_key, user_name, user_name_key, name, picture, plan, scopes, \
         password, created_at, changed_at) VALUES (",
    );
    let at = now();
    sql.bind_all([&new.id, &new.tenant, &new.email, &rules::key(&new.email)]);
    sql.push(", ").bind(new.user_name.clone());
    sql.push(", ").bind(new.user_name.as_deref().map(rules::key));
    sql.push(", ").bind(&new.name);
    sql.push(", ").bind(new.picture.clone());
    sql.push(", ").bind(new.plan.clone());
    sql.push(", ").bind(new.scopes.to_string());
    sql.push(", ").bind(&new.password);
    sql.push(", ").bind_all([at, at]);
    sql.push(")");
    db.execute(sql.query()).await?;
    by_id(db, &new.tenant, &new.id).await?.ok_or(DbError::Conflict)
}

/// Writes what may change of somebody, other than the password.
///
/// # Errors
/// [`DbError::Taken`] as [`add`].
pub(super) async fn change(db: &Db, person: &Person) -> Result<bool, DbError> {
    let mut sql = Sql::new("UPDATE users SET email = ");
    sql.bind(&person.email);
    sql.push(", email_key = ").bind(rules::key(&person.email));
    sql.push(", user_name = ").bind(person.user_name.clone());
    sql.push(", user_name_key = ")
        .bind(person.user_name.as_deref().map(rules::key));
    sql.push(", name = ").bind(&person.name);
    sql.push(", picture = ").bind(person.picture.clone());
    sql.push(", plan = ").bind(person.plan.clone());
    sql.push(", scopes = ").bind(person.scopes.to_string());
    sql.push(", changed_at = ").bind(person.changed_at);
    sql.push(" WHERE tenant = ").bind(&person.tenant);
    sql.push(" AND id = ").bind(&person.id);
    Ok(db.execute(sql.query()).await? > 0)
}

/// Stores the same password at another cost. Nothing happens when it was changed meanwhile.
pub(super) async fn rehash(db: &Db, person: &Person, password: &str) -> Result<bool, DbError> {
    let mut sql = Sql::new("UPDATE users SET password = ");
    sql.bind(password).push(" WHERE tenant = ").bind(&person.tenant);
    sql.push(" AND id = ").bind(&person.id);
    sql.push(" AND password = ").bind(person.password.expose());
    Ok(db.execute(sql.query()).await? > 0)
}

/// Stores another password and ends every sign-in but `kept`. Access tokens from before are not accepted any more.
pub(super) async fn set_password(
    work: &mut Work,
    tenant: &str,
    id: &str,
    password: &str,
    kept: Option<&str>,
) -> Result<bool, DbError> {
    let at = now();
    let mut sql = Sql::new("UPDATE users SET password = ");
    sql.bind(password).push(", changed_at = ").bind(at);
    sql.push(" WHERE tenant = ").bind(tenant);
    sql.push(" AND id = ").bind(id);
    let changed = work.execute(sql.query()).await? > 0;
    let mut sql = Sql::new("DELETE FROM password_resets WHERE user_id = ");
    work.execute({
        sql.bind(id);
        sql.query()
    })
    .await?;
    revoke(work, id, kept).await?;
    Ok(changed)
}

/// Ends every sign-in of somebody but `kept`, and access tokens of no sign-in.
pub(super) async fn revoke(work: &mut Work, id: &str, kept: Option<&str>) -> Result<u64, DbError> {
    let mut sql = Sql::new("UPDATE users SET tokens_after = ");
    sql.bind(now()).push(" WHERE id = ").bind(id);
    work.execute(sql.query()).await?;
    let mut sql = Sql::new("DELETE FROM sign_ins WHERE user_id = ");
    sql.bind(id).push(" AND id <> ").bind(kept.unwrap_or_default());
    work.execute(sql.query()).await
}

/// Removes somebody, with sign-ins and resets.
pub(super) async fn remove(db: &Db, tenant: &str, id: &str) -> Result<bool, DbError> {
    let mut sql = Sql::new("DELETE FROM users WHERE tenant = ");
    sql.bind(tenant).push(" AND id = ").bind(id);
    Ok(db.execute(sql.query()).await? > 0)
}

/// A part of those that `filter` leaves, and how many these are in all.
pub(crate) async fn list(db: &Db, filter: &Filter, part: Part) -> Result<(Vec<Person>, usize), DbError> {
    let mut work = db.connect().await?;
    let mut sql = Sql::new("SELECT count(*) FROM users u");
    narrow(&mut sql, filter, db.engine());
    let total: i64 = work.fetch_one(sql.query()).await?.try_get(0)?;
    let mut sql = select();
    narrow(&mut sql, filter, db.engine());
    sql.push(match part.sort {
        "email" => " ORDER BY u.email_key",
        // Nobody's name comes first, on both engines.
        "user_name" => " ORDER BY COALESCE(u.user_name_key, '')",
        "plan" => " ORDER BY COALESCE(u.plan, '')",
        "name" => " ORDER BY u.name",
        _ => " ORDER BY u.created_at",
    });
    sql.push(if part.descending {
        " DESC, u.id DESC"
    } else {
        ", u.id"
    });
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    sql.push(" LIMIT ").bind(number(part.limit));
    sql.push(" OFFSET ").bind(number(part.start));
    let rows = work.fetch_all(sql.query()).await?;
    let people: Result<_, _> = rows.iter().map(Person::read).collect();
    Ok((people?, usize::try_from(total).unwrap_or_default()))
}

fn narrow(sql: &mut Sql, filter: &Filter, engine: Engine) {
    sql.push(" WHERE u.tenant = ").bind(&filter.tenant);
    if let Some(q) = &filter.q {
        let pattern = containing(&q.to_lowercase());
        sql.push(" AND (u.email_key LIKE ").bind(pattern.clone());
        sql.push(r" ESCAPE '\' OR u.user_name_key LIKE ")
            .bind(pattern.clone());
        sql.push(r" ESCAPE '\' OR lower(u.name) LIKE ").bind(pattern);
        sql.push(r" ESCAPE '\')");
    }
    if let Some(plan) = &filter.plan {
        sql.push(" AND u.plan = ").bind(plan);
    }
    if let Some(among) = &filter.among {
        // One parameter, since a statement has room for some ten thousand: the one thing that the engines spell differently.
        let ids = serde_json::Value::from_iter(among.iter().map(String::as_str)).to_string();
        match engine {
            Engine::Sqlite => sql.push(" AND u.id IN (SELECT value FROM json_each(").bind(ids),
            Engine::Postgres => {
                sql.push(" AND u.id IN (SELECT json_array_elements_text(CAST(")
                    .bind(ids);
                sql.push(" AS json)")
            }
        };
        sql.push("))");
    }
}
