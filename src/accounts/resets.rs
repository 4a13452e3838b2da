//! One-time tokens for a new password, which an operator hands over: there is no mail server here.
//!
//! Owns: the SQL about `password_resets`. A person has one at most, the newest; it is stored as its SHA-256.
//! Called by: the routes, and `usher accounts reset-password`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::Row;

use super::people;
use super::person::{COLUMNS, Person, ms, now};
use super::sign_ins::hashed;
use crate::config::Secret;
use crate::db::{Db, DbError, Sql};
use crate::protocol::id::random;

const TOKEN_BYTES: usize = 32;

/// Makes a token for somebody; it and its end. The one before is void.
pub(crate) async fn make(db: &Db, user_id: &str, life: Duration) -> Result<(Secret, i64), DbError> {
    let token = URL_SAFE_NO_PAD.encode(random::<TOKEN_BYTES>());
    let expires_at = now().saturating_add(ms(life));
    let mut sql =
        Sql::new("INSERT INTO password_resets (user_id, token_hash, created_at, expires_at) VALUES (");
    sql.bind_all([user_id, &hashed(token.as_bytes())]);
    sql.push(", ").bind_all([now(), expires_at]);
    sql.push(
        ") ON CONFLICT (user_id) DO UPDATE SET token_hash = excluded.token_hash, \
         created_at = excluded.created_at, expires_at = excluded.expires_at",
    );
    db.execute(sql.query()).await?;
    Ok((Secret::from(token), expires_at))
}

/// Whose token this is; none: it is nobody's, was used, or has run out.
pub(super) async fn owner(db: &Db, token: &str) -> Result<Option<Person>, DbError> {
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS);
    sql.push(" FROM password_resets r JOIN users u ON u.id = r.user_id WHERE r.token_hash = ");
    sql.bind(hashed(token.as_bytes()));
    sql.push(" AND r.expires_at > ").bind(now());
    let row = db.fetch_optional(sql.query()).await?;
    row.map(|row| Person::read(&row)).transpose()
}

/// Uses a token up for this password, as it is stored. False: somebody was faster.
pub(super) async fn spend(db: &Db, token: &str, password: &str) -> Result<bool, DbError> {
    let mut work = db.begin().await?;
    let mut sql = Sql::new("DELETE FROM password_resets WHERE token_hash = ");
    sql.bind(hashed(token.as_bytes()));
    sql.push(" AND expires_at > ").bind(now());
    sql.push(" RETURNING user_id");
    let Some(row) = work.fetch_optional(sql.query()).await? else {
        return Ok(false);
    };
    let id: String = row.try_get("user_id")?;
    let mut sql = Sql::new("SELECT tenant FROM users WHERE id = ");
    sql.bind(&id);
    let tenant: String = work.fetch_one(sql.query()).await?.try_get("tenant")?;
    let changed = people::set_password(&mut work, &tenant, &id, password, None).await?;
    work.commit().await?;
    Ok(changed)
}
