//! Playback tickets: short-lived signed tokens that tell a CDN, a licence server or a media route that a lease lives.
//!
//! Owns: what a ticket says, and checking one offline. Does not: know whether its session still lives, or when a player
//! needs the next one. A ticket is never an access token, nor the reverse: `typ` and `aud` tell them apart.
//! Called by: `verify`'s [`super::Verifier::issue_ticket`] and [`super::Verifier::verify_ticket`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::claims::{TICKET_AUDIENCE, is_tenant};
use super::error::{AuthError, Rejected};
use super::jws::Jws;
use super::keys::{Key, Kid};
use super::own_key::OwnKey;
use crate::config::Secret;
use crate::protocol::id::{AccountKey, SessionId};

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// `tenant` and `sub`: whose session.
    pub account: AccountKey,
    /// `sid`: the session.
    pub session: SessionId,
    /// `content`: what may be fetched with it.
    pub content: Arc<str>,
    /// `roles` of the access token, for files that are for some roles only.
    pub roles: Vec<String>,
    /// `exp`, a whole second. No leeway: it is the installation's own clock that wrote it.
    pub expires_at: SystemTime,
}

/// The payload on the wire.
#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    tenant: &'a str,
    sid: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [String],
    iat: u64,
    exp: u64,
}

/// The same as it is read: other people's JSON may be escaped.
#[derive(Deserialize)]
struct Claimed {
    aud: String,
    sub: String,
    tenant: String,
    sid: String,
    content: String,
    #[serde(default)]
    roles: Vec<String>,
    exp: u64,
}

pub(crate) fn issue(key: &OwnKey, iss: &str, ticket: &Ticket, now: SystemTime) -> Result<Secret, AuthError> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    key.sign_ticket(&Payload {
        iss,
        aud: TICKET_AUDIENCE,
        sub: &ticket.account.account,
        tenant: &ticket.account.tenant,
        sid: &ticket.session.to_string(),
        content: &ticket.content,
        roles: &ticket.roles,
        iat: seconds(now),
        exp: seconds(ticket.expires_at),
    })
}

pub(crate) fn verify(keys: &[Arc<Key>], token: &str, now: SystemTime) -> Result<Ticket, Rejected> {
    let jws = Jws::parse_ticket(token)?;
    let called = |key: &&Arc<Key>| matches!(&key.kid, Kid::Hint(kid) if Some(kid) == jws.kid.as_ref());
    // Every ticket names its key.
    let key = keys.iter().find(called).ok_or(Rejected::UnknownKey)?;
    if key.algorithm != jws.algorithm {
        return Err(Rejected::Algorithm);
    }
    if !key.verifies(jws.message, &jws.signature) {
        return Err(Rejected::Signature);
    }
    let claimed: Claimed = serde_json::from_slice(&jws.payload).map_err(|_| Rejected::Malformed)?;
    if claimed.aud != TICKET_AUDIENCE {
        return Err(Rejected::NoTicket);
    }
    if !is_tenant(&claimed.tenant) {
        return Err(Rejected::Claims("tenant"));
    }
    let expires_at = UNIX_EPOCH
        .checked_add(Duration::from_secs(claimed.exp))
        .ok_or(Rejected::Claims("exp"))?;
    if expires_at <= now {
        return Err(Rejected::Expired);
    }
    Ok(Ticket {
        account: AccountKey::new(&claimed.tenant, &claimed.sub),
        session: SessionId::parse(&claimed.sid).ok_or(Rejected::Claims("sid"))?,
        content: claimed.content.into(),
        roles: claimed.roles,
        expires_at,
    })
}
