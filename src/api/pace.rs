//! Rates of requests: who is answered 429 and told when to come back.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use crate::auth::{Claims, Scope, Token};
use crate::net::limits::Limited;
use crate::protocol::id::AccountKey;
use crate::telemetry::RateRule;

use super::Api;
use super::error::ApiError;
use super::observe::Context;

/// Before every route of the players' listener, unknown paths included.
pub(super) async fn pace(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let client = request
        .extensions()
        .get::<Context>()
        .map(|context| context.client);
    let checked = client.map_or(Ok(()), |client| {
        api.request_limits.check_address(client, Instant::now())
    });
    match checked {
        Ok(()) => next.run(request).await,
        Err(limited) => api.rate_limited(limited).into_response(),
    }
}

impl Api {
    /// Counts a request with this verified token. Who asks for many others, by its scope, is free of it.
    pub(super) fn check_token(&self, token: &Token<'_>, claims: &Claims) -> Result<(), ApiError> {
        if claims.scopes.has(Scope::Introspect) || claims.scopes.has(Scope::Operator) {
            return Ok(());
        }
        let checked = self.request_limits.check_token(token.expose(), Instant::now());
        checked.map_err(|limited| self.rate_limited(limited))
    }

    /// Counts a start of this account, whose token is verified.
    pub(super) fn check_start(&self, account: &AccountKey) -> Result<(), ApiError> {
        let checked = self.request_limits.check_start(account, Instant::now());
        checked.map_err(|limited| self.rate_limited(limited))
    }

    /// Counts a refusal, and says when to come back.
    pub(crate) fn rate_limited(&self, limited: Limited) -> ApiError {
        self.metrics.rate_limited_total.inc(limited.rule);
        let message = match limited.rule {
            RateRule::AccountStarts => "this account starts too many sessions a second",
            RateRule::AddressRequests => "too many requests from this address",
            RateRule::TokenRequests => "too many requests with this token",
            RateRule::AccountTries => "too many failed sign-ins of this account",
            RateRule::AddressTries => "too many failed sign-ins or sign-ups from this address",
        };
        // Whole seconds, upwards: who comes then is served.
        let seconds = limited.retry_after.as_secs() + u64::from(limited.retry_after.subsec_nanos() > 0);
        ApiError::rate_limited(message, seconds)
    }
}
