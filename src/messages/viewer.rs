//! Who makes a request about messages, and what the routes share.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::protocol::id::AccountKey;
use crate::protocol::message::{BadContent, ID_END, check_party, room};

use super::store::{SendError, Store};
use super::{Messages, SayError};

/// What the routes of messages work with.
pub(super) struct Desk {
    pub(super) api: Arc<Api>,
    /// None: this node has no database.
    pub(super) messages: Option<Arc<Messages>>,
}

/// Who asks.
pub(super) struct Viewer {
    pub(super) account: AccountKey,
    /// The device that the token names.
    device: Option<Arc<str>>,
}

impl Desk {
    /// The messages.
    ///
    /// # Errors
    /// 503 `needs_database`.
    pub(super) fn messages(&self) -> Result<&Arc<Messages>, ApiError> {
        match (&self.messages, self.api.db()) {
            (Some(messages), _) => Ok(messages),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(ApiError::unavailable("unavailable", "not just now", 1)),
        }
    }

    /// Who asks, and the SQL.
    ///
    /// # Errors
    /// As for every request of a viewer; 503 without a database, 429 when the account asks for too much.
    pub(super) async fn viewer(
        &self,
        context: &Context,
        request: Request,
    ) -> Result<(Viewer, &Store, Request), ApiError> {
        let (claims, request) = self.api.watcher(context, request).await?;
        let viewer = Viewer {
            account: AccountKey {
                tenant: claims.tenant,
                account: claims.account,
            },
            device: claims.device,
        };
        Ok((viewer, &self.messages()?.store, request))
    }

    /// Whether one may hear and speak here: everybody to accounts, in a room who has a live lease on its content.
    ///
    /// # Errors
    /// 403 `room_forbidden`, 503 while slots cannot be read.
    pub(super) async fn check_room(&self, viewer: &Viewer, to: &str) -> Result<(), ApiError> {
        let Some(content) = room(to) else { return Ok(()) };
        let entries = self.api.gateway.lease.list(&viewer.account).await?;
        let device = viewer.device.as_deref();
        let watches = entries.iter().any(|entry| {
            *entry.content == *content && device.is_none_or(|device| *device == *entry.device.id)
        });
        if watches {
            return Ok(());
        }
        Err(ApiError::forbidden(
            "room_forbidden",
            "only those who watch a content are in its room",
        ))
    }
}

/// The id of a message in a path.
///
/// # Errors
/// 404 for what cannot be one.
pub(super) fn id_of(path: Result<Path<String>, PathRejection>) -> Result<u64, ApiError> {
    let id = path.ok().and_then(|Path(text)| text.parse::<u64>().ok());
    id.filter(|id| *id < ID_END).ok_or_else(no_message)
}

pub(super) fn no_message() -> ApiError {
    ApiError::not_found("there is no such message")
}

pub(super) fn unknown_account() -> ApiError {
    ApiError::not_found("there is no such account")
}

/// The other party that a request names.
///
/// # Errors
/// 400 when it cannot be one.
pub(super) fn party(name: String, field: &'static str) -> Result<String, ApiError> {
    check_party(&name, field)?;
    Ok(name)
}

impl From<BadContent> for ApiError {
    fn from(bad: BadContent) -> Self {
        Self::bad_request(bad.field, bad.to_string())
    }
}

impl From<SayError> for ApiError {
    fn from(error: SayError) -> Self {
        match error {
            SayError::TooFast(pause) => {
                let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
                Self::rate_limited("this account sends too many messages", seconds)
            }
            SayError::Send(SendError::Unknown) => unknown_account(),
            SayError::Send(SendError::Blocked) => {
                Self::forbidden("blocked", "the account wants no messages of this one")
            }
            SayError::Send(SendError::Db(error)) => error.into(),
        }
    }
}
