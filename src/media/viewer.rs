//! Who asks for a file: a person with an access token, or a player with the ticket of a lease.
//!
//! Owns: what each may do. Does not: verify signatures (`auth` does) or judge leases (`lease` does).
//! Called by: every route of this room.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Query;
use http::request::Parts;
use serde::Deserialize;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::auth::{Claims, Rejected, Scope, Scopes, Ticket, from_request};
use crate::db::{Db, DbError};

use super::Media;
use super::file::{File, State};
use super::files::{self, Sight};

/// Scopes whose tokens work on every file of their tenant.
const STAFF: [Scope; 3] = [Scope::Editor, Scope::Admin, Scope::Operator];

/// When to come again while nobody can tell whether a session lives, in seconds.
const RETRY_AFTER: u16 = 1;

/// Somebody with an access token.
#[derive(Clone, Debug)]
pub(super) struct Person {
    /// The tenant of the token.
    pub(super) tenant: Arc<str>,
    /// Its account.
    pub(super) account: Arc<str>,
    /// Its roles.
    pub(super) roles: Vec<String>,
    scopes: Scopes,
}

/// A room above that shows files to people: whoever is shown a file by its owner may fetch it.
#[async_trait]
pub trait Showing: Send + Sync + 'static {
    /// Whether `owner` shows a file of this tenant to this account now.
    ///
    /// # Errors
    /// As [`DbError`] says.
    async fn shows(&self, tenant: &str, owner: &str, account: &str, file: &str) -> Result<bool, DbError>;
}

/// Whoever wants bytes.
#[derive(Clone, Debug)]
pub(super) enum Viewer {
    /// By an access token.
    Person(Person),
    /// By the ticket of a lease.
    Player(Ticket),
}

impl Person {
    fn of(claims: Claims) -> Self {
        Self {
            tenant: claims.tenant,
            account: claims.account,
            roles: claims.roles,
            scopes: claims.scopes,
        }
    }

    /// An account without its token, in whose name work that it began goes on.
    #[must_use]
    pub(super) fn named(tenant: &str, account: &str) -> Self {
        Self {
            tenant: tenant.into(),
            account: account.into(),
            roles: Vec::new(),
            scopes: Scopes::NONE,
        }
    }

    /// Whether the token works on every file of its tenant.
    #[must_use]
    pub(super) fn is_staff(&self) -> bool {
        STAFF.iter().any(|scope| self.scopes.has(*scope))
    }

    /// Whether the token sees what others fetched.
    #[must_use]
    pub(super) fn sees_statistics(&self) -> bool {
        self.is_staff() || self.scopes.has(Scope::Finance) || self.scopes.has(Scope::Support)
    }

    /// What it sees of the tenant's files.
    #[must_use]
    pub(super) fn sight(&self) -> Sight {
        Sight {
            tenant: self.tenant.to_string(),
            account: self.account.to_string(),
            roles: self.roles.clone(),
            all: self.is_staff(),
        }
    }

    /// Whether it may change a file.
    #[must_use]
    pub(super) fn owns(&self, file: &File) -> bool {
        self.is_staff() || *file.owner == *self.account
    }

    fn sees(&self, file: &File) -> bool {
        self.owns(file) || file.state == State::Ready && file.about.is_for(&self.roles)
    }
}

impl Viewer {
    /// Whose files it can see at all.
    #[must_use]
    pub(super) fn tenant(&self) -> &str {
        match self {
            Self::Person(person) => &person.tenant,
            Self::Player(ticket) => &ticket.account.tenant,
        }
    }

    /// The account.
    #[must_use]
    pub(super) fn account(&self) -> &str {
        match self {
            Self::Person(person) => &person.account,
            Self::Player(ticket) => &ticket.account.account,
        }
    }

    /// The roles of the token, or of the token that the ticket came from.
    #[must_use]
    pub(super) fn roles(&self) -> &[String] {
        match self {
            Self::Person(person) => &person.roles,
            Self::Player(ticket) => &ticket.roles,
        }
    }
}

impl Media {
    /// Whoever makes a request about files.
    ///
    /// # Errors
    /// 401, 403 for a foreign origin, 429 when the tenant asks too often.
    pub(super) async fn person(&self, context: &Context, parts: &Parts) -> Result<Person, ApiError> {
        self.api.check_origin(parts)?;
        let claims = self.api.authenticate(parts, context).await?;
        self.quota.check_request(&claims.tenant)?;
        Ok(Person::of(claims))
    }

    /// As [`Media::person`], who may upload.
    ///
    /// # Errors
    /// Also 403.
    pub(super) async fn uploader(&self, context: &Context, parts: &Parts) -> Result<Person, ApiError> {
        let person = self.person(context, parts).await?;
        if person.is_staff() || self.settings.viewers_upload && person.scopes.has(Scope::Watch) {
            return Ok(person);
        }
        let message = "the token's scope does not allow to upload";
        Err(ApiError::forbidden("scope_forbidden", message))
    }

    /// Whoever wants bytes: a bearer that is a ticket or an access token, or `?ticket=`.
    ///
    /// # Errors
    /// As [`Media::person`].
    pub(super) async fn viewer(&self, context: &Context, parts: &Parts) -> Result<Viewer, ApiError> {
        self.api.check_origin(parts)?;
        let refused = |rejected: Rejected| {
            self.api.metrics.tokens_rejected_total.inc(rejected.reason());
            ApiError::bad_ticket()
        };
        let in_head = from_request(parts, false).map_err(refused)?;
        let ticket = match &in_head {
            Some(token) => self.api.verifier.verify_ticket(token.expose()).ok(),
            None => match in_query(parts)? {
                Some(text) => Some(self.api.verifier.verify_ticket(&text).map_err(refused)?),
                None => None,
            },
        };
        match ticket {
            Some(ticket) => {
                self.quota.check_request(&ticket.account.tenant)?;
                Ok(Viewer::Player(ticket))
            }
            None => Ok(Viewer::Person(self.person(context, parts).await?)),
        }
    }

    /// A file that a person may see.
    ///
    /// # Errors
    /// 404 for every other one.
    pub(super) async fn seen(&self, person: &Person, id: &str) -> Result<File, ApiError> {
        let found = files::find(self.api.db()?, &person.tenant, id).await?;
        found.filter(|file| person.sees(file)).ok_or_else(no_file)
    }

    /// A file that a person may change.
    ///
    /// # Errors
    /// 404 for one that it cannot see, 403 for one that it may only see.
    pub(super) async fn owned(&self, person: &Person, id: &str) -> Result<File, ApiError> {
        let file = self.seen(person, id).await?;
        if person.owns(&file) {
            return Ok(file);
        }
        Err(ApiError::forbidden(
            "not_the_owner",
            "the file is somebody else's",
        ))
    }

    /// A file whose bytes a viewer may have now.
    ///
    /// # Errors
    /// 404 for another tenant's file and for none, 403 for a wrong ticket, role or an ended lease, 409 for a file that is
    /// not ready.
    pub(super) async fn opened(&self, viewer: &Viewer, id: &str) -> Result<File, ApiError> {
        let db = self.api.db()?;
        let file = files::find(db, viewer.tenant(), id).await?.ok_or_else(no_file)?;
        match viewer {
            Viewer::Person(person) if person.owns(&file) => {}
            Viewer::Person(person) if self.is_shown(person, &file).await? => {}
            Viewer::Person(person) if person.sees(&file) => {
                let message = "the bytes of a file need the ticket of a lease";
                return Err(ApiError::forbidden("ticket_required", message));
            }
            Viewer::Person(_) => return Err(no_file()),
            Viewer::Player(ticket) => self.admit(db, ticket, &file).await?,
        }
        match file.state {
            State::Ready => Ok(file),
            State::Quarantined => Err(not_ready(
                "file_quarantined",
                "the file is infected: nobody gets it",
            )),
            State::Scanning | State::Receiving => Err(not_ready(
                "file_scanning",
                "the file is not checked yet; come again",
            )),
        }
    }

    async fn is_shown(&self, person: &Person, file: &File) -> Result<bool, ApiError> {
        let Some(showing) = &self.showing else {
            return Ok(false);
        };
        let shown = showing.shows(&person.tenant, &file.owner, &person.account, &file.id);
        Ok(shown.await?)
    }

    async fn admit(&self, db: &Db, ticket: &Ticket, file: &File) -> Result<(), ApiError> {
        let content = &*ticket.content;
        let named = content == file.id || file.about.content.as_deref() == Some(content);
        if !named && !files::is_of_content(db, file, content).await? {
            let message = "the ticket is for another content";
            return Err(ApiError::forbidden("content_forbidden", message));
        }
        if !file.about.is_for(&ticket.roles) {
            return Err(ApiError::forbidden(
                "role_forbidden",
                "the file is for other roles",
            ));
        }
        let lease = &self.api.gateway.lease;
        match lease.lives(&ticket.account, ticket.session).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let message = "the session of this ticket has ended";
                Err(ApiError::forbidden("session_ended", message))
            }
            // An outage of the limiter blacks out no screen, unless the operator wants nobody let in then.
            Err(_) if !lease.is_refusing(&ticket.account) => Ok(()),
            Err(_) => {
                let message = "whether the session lives cannot be told just now";
                Err(ApiError::unavailable("unavailable", message, RETRY_AFTER))
            }
        }
    }
}

/// 404.
pub(super) fn no_file() -> ApiError {
    ApiError::not_found("there is no such file")
}

fn not_ready(code: &'static str, message: &'static str) -> ApiError {
    ApiError::new(http::StatusCode::CONFLICT, code, message)
}

/// The ticket of a request that has it in its URL, and no token in its head.
pub(super) fn ticket_in_url(parts: &Parts) -> Option<String> {
    let in_head = from_request(parts, false).ok()?;
    in_head
        .is_none()
        .then(|| in_query(parts).ok().flatten())
        .flatten()
}

fn in_query(parts: &Parts) -> Result<Option<String>, ApiError> {
    #[derive(Deserialize)]
    struct Asked {
        ticket: Option<String>,
    }
    let query = Query::<Asked>::try_from_uri(&parts.uri);
    let query = query.map_err(|error| ApiError::bad_request("ticket", error.body_text()))?;
    Ok(query.0.ticket)
}
