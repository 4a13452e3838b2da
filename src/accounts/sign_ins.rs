//! Sign-ins: who may come again without a password, from which device, and until when.
//!
//! A refresh token is two secrets of 128 bits. The first stays for the life of the sign-in and finds its row, the second
//! changes with each use; both are stored as their SHA-256. Whoever shows the first with another second one has a token
//! that was used before: it was stolen, or the thief was first. Nobody can tell which, so the sign-in is over
//! (RFC 9700, 4.14.2).
//!
//! Owns: the SQL about `sign_ins`, and the tokens. Does not: issue access tokens (the routes do).

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::person::{COLUMNS, Person, now, written};
use crate::db::{Db, DbError, Sql};
use crate::protocol::id::random;

const SECRET_BYTES: usize = 16;

/// What a device shows to stay signed in. `Debug` hides it.
#[derive(Clone)]
pub(super) struct RefreshToken {
    lasting: [u8; SECRET_BYTES],
    current: [u8; SECRET_BYTES],
}

/// The device that signs in, as it calls itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    pub(super) device: Option<String>,
    pub(super) device_name: Option<String>,
}

/// A sign-in in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignIn)]
pub(super) struct Item {
    id: String,
    #[schema(required)]
    device: Option<String>,
    #[schema(required)]
    device_name: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    #[schema(value_type = String, format = DateTime)]
    last_used_at: String,
    /// When it is over unless it is refreshed before.
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
    /// Whether the request's own token comes from it.
    current: bool,
}

/// What a refresh token came to.
#[derive(Debug)]
pub(super) enum Refreshed {
    /// The next one, for the sign-in of this person.
    Next(RefreshToken, Box<Person>, String),
    /// It was used before: the sign-in is over.
    Reused,
    /// It is nobody's, or its sign-in is over.
    Unknown,
}

impl RefreshToken {
    fn fresh() -> Self {
        Self {
            lasting: random(),
            current: random(),
        }
    }

    /// Reads the 43 characters of a token.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = (text.len() == 43).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
        let (lasting, current) = bytes.split_at_checked(SECRET_BYTES)?;
        Some(Self {
            lasting: lasting.try_into().ok()?,
            current: current.try_into().ok()?,
        })
    }

    /// The text that the device keeps.
    pub(super) fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode([self.lasting, self.current].concat())
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(***)")
    }
}

/// How secrets of this room are stored: they are random, so that no salt is needed.
pub(super) fn hashed(secret: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, secret))
}

/// A fresh id of a row.
pub(super) fn fresh_id() -> String {
    URL_SAFE_NO_PAD.encode(random::<16>())
}

/// Signs somebody in, if the password is still the one that was judged; the sign-in's id and its refresh token.
pub(super) async fn add(
    db: &Db,
    person: &Person,
    caller: &Caller,
    expires_at: i64,
) -> Result<Option<(String, RefreshToken)>, DbError> {
    let (id, token, at) = (fresh_id(), RefreshToken::fresh(), now());
    let mut sql = Sql::new(
        "INSERT INTO sign_ins (id, user_id, device, device_name, created_at, used_at, expires_at, lasting_hash, \
         current_hash) SELECT ",
    );
    sql.bind_all([&id, &person.id]);
    sql.push(", ").bind(caller.device.clone());
    sql.push(", ").bind(caller.device_name.clone());
    sql.push(", ").bind_all([at, at, expires_at]);
    sql.push(", ")
        .bind_all([hashed(&token.lasting), hashed(&token.current)]);
    sql.push(" FROM users WHERE tenant = ").bind(&person.tenant);
    sql.push(" AND id = ").bind(&person.id);
    sql.push(" AND password = ").bind(person.password.expose());
    let added = db.execute(sql.query()).await? > 0;
    Ok(added.then_some((id, token)))
}

/// Uses a refresh token up.
pub(super) async fn refresh(db: &Db, token: &RefreshToken, expires_at: i64) -> Result<Refreshed, DbError> {
    let lasting = hashed(&token.lasting);
    let next = RefreshToken {
        current: random(),
        ..token.clone()
    };
    let mut work = db.begin().await?;
    // One statement decides between two that come at once.
    let mut sql = Sql::new("UPDATE sign_ins SET current_hash = ");
    sql.bind(hashed(&next.current));
    sql.push(", used_at = ").bind(now());
    sql.push(", expires_at = ").bind(expires_at);
    sql.push(" WHERE lasting_hash = ").bind(lasting.clone());
    sql.push(" AND current_hash = ").bind(hashed(&token.current));
    sql.push(" AND expires_at > ").bind(now());
    if work.execute(sql.query()).await? == 0 {
        let mut sql = Sql::new("DELETE FROM sign_ins WHERE lasting_hash = ");
        sql.bind(lasting);
        sql.push(" AND current_hash <> ").bind(hashed(&token.current));
        let ended = work.execute(sql.query()).await? > 0;
        work.commit().await?;
        return Ok(if ended {
            Refreshed::Reused
        } else {
            Refreshed::Unknown
        });
    }
    let mut sql = Sql::new("SELECT s.id AS sign_in, ");
    sql.push(COLUMNS);
    sql.push(" FROM sign_ins s JOIN users u ON u.id = s.user_id WHERE s.lasting_hash = ");
    sql.bind(lasting);
    let row = work.fetch_one(sql.query()).await?;
    work.commit().await?;
    let id = row.try_get("sign_in")?;
    Ok(Refreshed::Next(next, Box::new(Person::read(&row)?), id))
}

/// The sign-in that a refresh token belongs to.
pub(super) async fn of_token(
    db: &Db,
    user_id: &str,
    token: &RefreshToken,
) -> Result<Option<String>, DbError> {
    let mut sql = Sql::new("SELECT id FROM sign_ins WHERE user_id = ");
    sql.bind(user_id);
    sql.push(" AND lasting_hash = ").bind(hashed(&token.lasting));
    let row = db.fetch_optional(sql.query()).await?;
    row.map(|row| Ok(row.try_get("id")?)).transpose()
}

/// Sign-ins of somebody, the last used first, and how many there are in all.
pub(super) async fn list(
    db: &Db,
    user_id: &str,
    current: Option<&str>,
    (start, limit): (usize, usize),
) -> Result<(Vec<Item>, usize), DbError> {
    let mut work = db.connect().await?;
    let mut sql = Sql::new("SELECT count(*) FROM sign_ins WHERE user_id = ");
    sql.bind(user_id).push(" AND expires_at > ").bind(now());
    let total: i64 = work.fetch_one(sql.query()).await?.try_get(0)?;
    let mut sql = Sql::new(
        "SELECT id, device, device_name, created_at, used_at, expires_at FROM sign_ins WHERE user_id = ",
    );
    sql.bind(user_id).push(" AND expires_at > ").bind(now());
    sql.push(" ORDER BY used_at DESC, id LIMIT ");
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    sql.bind(number(limit)).push(" OFFSET ").bind(number(start));
    let rows = work.fetch_all(sql.query()).await?;
    let items: Result<_, DbError> = rows.iter().map(|row| item(row, current)).collect();
    Ok((items?, usize::try_from(total).unwrap_or_default()))
}

fn item(row: &AnyRow, current: Option<&str>) -> Result<Item, DbError> {
    let id: String = row.try_get("id")?;
    Ok(Item {
        current: current == Some(id.as_str()),
        id,
        device: row.try_get("device")?,
        device_name: row.try_get("device_name")?,
        created_at: written(row.try_get("created_at")?),
        last_used_at: written(row.try_get("used_at")?),
        expires_at: written(row.try_get("expires_at")?),
    })
}

/// The device of one sign-in of somebody; none: there is no such sign-in.
pub(super) async fn device_of(db: &Db, user_id: &str, id: &str) -> Result<Option<Option<String>>, DbError> {
    let mut sql = Sql::new("SELECT device FROM sign_ins WHERE user_id = ");
    sql.bind(user_id).push(" AND id = ").bind(id);
    let row = db.fetch_optional(sql.query()).await?;
    row.map(|row| Ok(row.try_get("device")?)).transpose()
}

/// Ends one sign-in of somebody.
pub(super) async fn remove(db: &Db, user_id: &str, id: &str) -> Result<bool, DbError> {
    let mut sql = Sql::new("DELETE FROM sign_ins WHERE user_id = ");
    sql.bind(user_id).push(" AND id = ").bind(id);
    Ok(db.execute(sql.query()).await? > 0)
}

/// Forgets what has run out, some of it.
pub(super) async fn sweep(db: &Db) -> Result<(), DbError> {
    const MOST: i64 = 1000;
    let mut sql = Sql::new("DELETE FROM sign_ins WHERE id IN (SELECT id FROM sign_ins WHERE expires_at <= ");
    sql.bind(now()).push(" LIMIT ").bind(MOST).push(")");
    db.execute(sql.query()).await?;
    let mut sql = Sql::new("DELETE FROM password_resets WHERE expires_at <= ");
    sql.bind(now());
    db.execute(sql.query()).await?;
    Ok(())
}
