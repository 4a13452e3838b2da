//! Where a request carries its token.
//!
//! Owns: the three places and their order.
//! Does not: verify.
//! Called by: the watch socket and every route.

use std::borrow::Cow;
use std::fmt;

use axum::extract::Query;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use serde::Deserialize;

use super::error::Rejected;

/// Begins the WebSocket subprotocol in which a browser sends its token; it has no other header to set.
const SUBPROTOCOL_PREFIX: &str = "bearer.";

/// An unverified token; `Debug` masks it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token<'a>(Cow<'a, str>);

impl Token<'_> {
    /// The text itself, for [`super::Verifier::verify`].
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// The request's token, first found wins: `Authorization: Bearer` (RFC 6750), an offered subprotocol `bearer.<jwt>`,
/// and, where `query_token` allows it, `?token=`.
///
/// # Errors
/// [`Rejected::Malformed`]: the place where it should be holds something else, or more than one.
pub fn from_request(parts: &Parts, query_token: bool) -> Result<Option<Token<'_>>, Rejected> {
    if let Some(token) = from_authorization(parts)? {
        return Ok(Some(token));
    }
    if let Some(token) = from_subprotocol(parts)? {
        return Ok(Some(token));
    }
    if query_token { from_query(parts) } else { Ok(None) }
}

/// Another scheme, such as `Basic`, is somebody else's.
fn from_authorization(parts: &Parts) -> Result<Option<Token<'_>>, Rejected> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Rejected::Malformed);
    }
    let value = value.to_str().map_err(|_| Rejected::Malformed)?.trim();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        some(Cow::Borrowed(token.trim()))
    } else {
        Ok(None)
    }
}

fn from_subprotocol(parts: &Parts) -> Result<Option<Token<'_>>, Rejected> {
    let values = parts.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offers = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    match offers
        .filter_map(|offer| offer.trim().strip_prefix(SUBPROTOCOL_PREFIX))
        .next()
    {
        Some(token) => some(Cow::Borrowed(token)),
        None => Ok(None),
    }
}

fn from_query(parts: &Parts) -> Result<Option<Token<'_>>, Rejected> {
    #[derive(Deserialize)]
    struct Parameters {
        token: Option<String>,
    }
    let query = Query::<Parameters>::try_from_uri(&parts.uri).map_err(|_| Rejected::Malformed)?;
    query.0.token.map_or(Ok(None), |token| some(Cow::Owned(token)))
}

fn some(token: Cow<'_, str>) -> Result<Option<Token<'_>>, Rejected> {
    if token.is_empty() {
        Err(Rejected::Malformed)
    } else {
        Ok(Some(Token(token)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use http::Request;

    use super::*;

    fn find(uri: &str, headers: &[(&str, &str)], query_token: bool) -> Result<Option<String>, Rejected> {
        let request = headers
            .iter()
            .fold(Request::get(uri), |r, (name, value)| r.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let token = from_request(&parts, query_token)?;
        Ok(token.map(|token| token.expose().to_owned()))
    }

    fn found(token: &str) -> Result<Option<String>, Rejected> {
        Ok(Some(token.to_owned()))
    }

    #[test]
    fn first_found_wins() {
        let offered = ("sec-websocket-protocol", "usher.v1, bearer.b.b.b");
        let basic = ("authorization", "Basic eDp5");
        let bearer = ("authorization", "bEaReR  a.a.a ");
        assert_eq!(find("/?token=c.c.c", &[bearer, offered], true), found("a.a.a"));
        assert_eq!(find("/?token=c.c.c", &[basic, offered], true), found("b.b.b"));
        assert_eq!(find("/?token=c.c.c", &[basic], true), found("c.c.c"));
        assert_eq!(find("/?token=c.c.c", &[], false), Ok(None));
        assert_eq!(find("/", &[], true), Ok(None));
    }

    #[test]
    fn offers_may_be_spread_over_headers() {
        let first = ("sec-websocket-protocol", "usher.v1");
        let second = ("Sec-WebSocket-Protocol", "graphql-ws ,bearer.b.b.b,other");
        assert_eq!(find("/", &[first, second], false), found("b.b.b"));
        assert_eq!(find("/", &[first], false), Ok(None));
    }

    #[test]
    fn the_query_is_decoded() {
        assert_eq!(find("/?x=1&token=a%2Eb%2Ec&y=%zz", &[], true), found("a.b.c"));
        assert_eq!(find("/?Token=a.b.c", &[], true), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        let bad = Err(Rejected::Malformed);
        assert_eq!(find("/", &[("authorization", "Bearer")], true), bad);
        assert_eq!(find("/", &[("authorization", "Bearer  ")], true), bad);
        assert_eq!(
            find(
                "/",
                &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
                true
            ),
            bad
        );
        assert_eq!(find("/", &[("authorization", "Bearer \u{e9}")], true), bad);
        assert_eq!(find("/", &[("sec-websocket-protocol", "bearer.")], true), bad);
        assert_eq!(find("/?token=", &[], true), bad);
        assert_eq!(find("/?token=a&token=b", &[], true), bad);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Token(Cow::Borrowed("a.b.c"))), "Token(***)");
    }
}
