//! Starting a session without a socket: what `/v1/sessions`, `/v1/accounts/{account}/streams` and a catalogue's play share.
//!
//! Owns: the checks before a slot is asked for, the refusals, and the body of the answer. Does not: decide (`lease` does).
//! Called by: `lone`, `streams` and the room `catalogue`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use crate::auth::Claims;
use crate::gateway::lone::{NotOpened, Opened};
use crate::gateway::player::Player;
use crate::lease::shelf::Barred;
use crate::lease::store::StoreError;
use crate::protocol::close::EndCode;
use crate::protocol::id::SessionId;
use crate::protocol::start::Start;

use super::Api;
use super::error::ApiError;
use super::grant::{Denied, Grant, Lease};
use super::observe::Context;

/// When to come again while nobody can tell, in seconds.
const RETRY_AFTER: u16 = 1;

/// A session that was started without a socket.
pub struct Begun {
    opened: Opened,
    period: Duration,
}

impl Begun {
    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.opened.state.session
    }

    /// Its resume secret, as its player gets it.
    #[must_use]
    pub fn secret(&self) -> String {
        self.opened.secret.expose()
    }

    /// What its player is answered.
    #[must_use]
    pub fn grant(&self) -> Grant<'_> {
        Grant {
            lease: Lease::new(&self.opened.state, self.period),
            resume: self.secret(),
        }
    }

    /// 201, with the session's place.
    #[must_use]
    pub fn created(&self, location: String) -> Response {
        let headers = [
            (header::LOCATION, location),
            (header::CACHE_CONTROL, "no-store".to_owned()),
        ];
        (StatusCode::CREATED, headers, Json(self.grant())).into_response()
    }
}

impl Api {
    /// A node that leaves takes nobody in any more.
    ///
    /// # Errors
    /// 503 `draining`.
    pub fn check_staying(&self) -> Result<(), ApiError> {
        if self.draining.load(Ordering::Relaxed) {
            let message = "this node is leaving; ask again";
            return Err(ApiError::unavailable("draining", message, RETRY_AFTER));
        }
        Ok(())
    }

    /// Whether the catalogue lets this player start its content; where it is not enforced, it does.
    ///
    /// # Errors
    /// 404 `content_unknown`, 403 `content_forbidden`, 503 `catalogue_away`.
    pub async fn check_content(&self, player: &Player) -> Result<(), ApiError> {
        let (tenant, sight) = (&player.account.tenant, &player.sight);
        let admitted = self.gateway.admit(tenant, sight, &player.content).await;
        admitted.map_err(Into::into)
    }

    /// Starts a session without a socket, for the account of these claims. `victim`: whose slot it takes when none is
    /// free.
    ///
    /// # Errors
    /// Why there is none, with `holders` beside `error` at the limit.
    pub async fn begin(
        &self,
        context: &Context,
        claims: Claims,
        start: Start,
        victim: Option<SessionId>,
    ) -> Result<Begun, ApiError> {
        self.check_staying()?;
        let entitlement = self.gateway.policy.load().entitlement(&claims);
        let player = Player::new(claims, start, entitlement, context.id, context.client)?;
        self.check_start(&player.account)?;
        self.check_content(&player).await?;
        let period = self.gateway.lone_period();
        let opened = self.gateway.open_lone(player, victim, period).await;
        let opened = opened.map_err(refused)?;
        Ok(Begun { opened, period })
    }
}

/// What a start without a socket is refused with.
fn refused(reason: NotOpened) -> ApiError {
    match reason {
        NotOpened::Denied {
            refusal,
            holders,
            may_take_over,
        } => {
            let denied = Denied::new(&refusal, &holders, may_take_over);
            let code = EndCode::StreamLimitReached.name();
            ApiError::forbidden(code, "no slot is free").beside(object(json!(denied)))
        }
        NotOpened::Blocked => ApiError::forbidden("account_blocked", "the account is blocked"),
        NotOpened::TakeoverForbidden => ApiError::forbidden(
            "takeover_forbidden",
            "the plan does not allow to take a slot over",
        ),
        NotOpened::Store(error) => away(error),
    }
}

impl From<Barred> for ApiError {
    fn from(barred: Barred) -> Self {
        match barred {
            Barred::Unknown => Self::new(
                StatusCode::NOT_FOUND,
                "content_unknown",
                "there is no such content",
            ),
            Barred::Hidden => Self::forbidden(
                "content_forbidden",
                "the catalogue shows this content to other plans and roles only",
            ),
            Barred::Away => Self::unavailable(
                "catalogue_away",
                "whether this may be played cannot be told just now; try again",
                RETRY_AFTER,
            ),
        }
    }
}

/// 503: nobody can tell whether there is a slot.
#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
pub(super) fn away(error: StoreError) -> ApiError {
    match error {
        StoreError::Unavailable | StoreError::NotNow(_) | StoreError::Foreign(_) => ApiError::unavailable(
            "unavailable",
            "slots cannot be judged just now; try again",
            RETRY_AFTER,
        ),
    }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
