//! What the commands do with people's accounts, straight in the database, whether a node runs or not.

use super::passwords::cost_of;
use super::people::{self, New, Taken};
use super::person::Person;
use super::rules;
use super::sign_ins::fresh_id;
use super::stored::Stored;
use crate::api::error::ApiError;
use crate::auth::Scopes;
use crate::config::Accounts;
use crate::db::{Db, DbError};

/// Somebody to be added.
pub(crate) struct Asked {
    pub(crate) tenant: String,
    pub(crate) email: String,
    pub(crate) password: String,
    pub(crate) user_name: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) plan: Option<String>,
    /// Scopes beside `watch`, separated by spaces.
    pub(crate) scope: String,
}

/// Why it was not done, for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// A field, or a name that is taken.
    #[error("{0}")]
    Field(String),
    /// The database.
    #[error("database: {0}")]
    Db(#[from] DbError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Field(error.message.into_owned())
    }
}

/// Adds somebody, by the rules of a sign-up.
pub(crate) async fn add(db: &Db, settings: &Accounts, asked: Asked) -> Result<Person, Refused> {
    rules::email(&asked.email)?;
    asked.user_name.as_deref().map_or(Ok(()), rules::user_name)?;
    let names = [
        asked.email.as_str(),
        asked.user_name.as_deref().unwrap_or_default(),
    ];
    rules::password(&asked.password, &names, settings)?;
    let name = asked.name.as_deref();
    let name = name.map_or_else(|| Ok(rules::name_of(&asked.email)), rules::name)?;
    // The configuration of the nodes may know plans that this one does not.
    asked
        .plan
        .as_deref()
        .map_or(Ok(()), |plan| rules::plan(plan, true))?;
    let scopes: Scopes = rules::scopes(&asked.scope)?;
    let new = New {
        id: fresh_id(),
        password: hash(settings, &asked.password)?,
        tenant: asked.tenant,
        email: asked.email,
        user_name: asked.user_name,
        name,
        picture: None,
        plan: asked.plan,
        scopes,
    };
    match people::add(db, &new).await {
        Err(DbError::Taken) => {
            let user_name = new.user_name.as_deref();
            let taken = people::taken(db, &new.tenant, &new.email, user_name, "").await?;
            Err(Refused::Field(match taken {
                Some(Taken::UserName) => "somebody has this user name".to_owned(),
                _ => "somebody has this e-mail".to_owned(),
            }))
        }
        other => Ok(other?),
    }
}

/// Gives somebody another password; every sign-in ends.
pub(crate) async fn set_password(
    db: &Db,
    settings: &Accounts,
    person: &Person,
    password: &str,
) -> Result<(), Refused> {
    let names = [
        person.email.as_str(),
        person.user_name.as_deref().unwrap_or_default(),
    ];
    rules::password(password, &names, settings)?;
    let stored = hash(settings, password)?;
    let mut work = db.begin().await?;
    people::set_password(&mut work, &person.tenant, &person.id, &stored, None).await?;
    Ok(work.commit().await?)
}

fn hash(settings: &Accounts, password: &str) -> Result<String, Refused> {
    let stored = Stored::new(password, cost_of(settings), &mut Vec::new());
    let stored = stored.ok_or_else(|| Refused::Field("no memory to hash the password".to_owned()))?;
    Ok(stored.text())
}
