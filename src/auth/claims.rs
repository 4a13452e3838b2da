//! What a verified token says.
//!
//! Owns: the claims' names, types and bounds, and the checks of time, issuer and audience.
//! Does not: look at signatures or keys.
//! Called by: `verify` after the signature fits, and `issue` on what it is about to sign.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::error::Rejected;
use super::scope::{Scope, Scopes};

/// By how much the clocks of issuer and node may differ.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// The tenant of a token that names none.
pub const MAIN_TENANT: &str = "main";
/// The `aud` of playback tickets.
pub(crate) const TICKET_AUDIENCE: &str = "usher-ticket";
/// Longest account, device, plan and profile, in bytes.
const MAX_NAME_BYTES: usize = 256;
const MAX_TENANT_BYTES: usize = 64;
const MAX_STREAMS: u64 = 1000;
/// Roles of one token; the rest opens nothing.
const MAX_ROLES: usize = 64;
/// The end of the year 9999, after which RFC 3339 has no way to write a date; a later `exp` counts as this.
const LATEST_EXPIRY: Duration = Duration::from_secs(253_402_300_799);

/// The believed content of an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `tenant`, or [`MAIN_TENANT`].
    pub tenant: Arc<str>,
    /// `sub`: the account.
    pub account: Arc<str>,
    /// `device`: the only device that may use the token.
    pub device: Option<Arc<str>>,
    /// `profile` within the account.
    pub profile: Option<Arc<str>>,
    /// `plan`: names the section of the configuration with the account's limits.
    pub plan: Option<Arc<str>>,
    /// `streams`: concurrent streams, whatever the plan says.
    pub streams: Option<u32>,
    /// `contents`: the only contents that may be watched; absent: all.
    pub contents: Option<Vec<String>>,
    /// `roles`: what the catalogue may show; a list, or words with spaces between them.
    pub roles: Vec<String>,
    /// `scope`, less what the key may not assert; without the claim: watch.
    pub scopes: Scopes,
    /// `exp`, without the leeway.
    pub expires_at: SystemTime,
    /// `iat`, if it can be read.
    pub issued_at: Option<SystemTime>,
    /// `sign_in`: the sign-in of ours that it came from.
    pub sign_in: Option<Arc<str>>,
}

/// What the claims are held against.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: Option<&'a str>,
    pub(crate) audience: Option<&'a str>,
    pub(crate) now: SystemTime,
}

impl Claims {
    /// Reads and checks a payload whose signature fits.
    pub(crate) fn parse(payload: &[u8], expected: &Expected<'_>) -> Result<Self, Rejected> {
        let map: Map<String, Value> = serde_json::from_slice(payload).map_err(|_| Rejected::Malformed)?;
        let claims = Self {
            account: name(&map, "sub")?.ok_or(Rejected::Claims("sub"))?,
            tenant: tenant(&map)?,
            device: name(&map, "device")?,
            profile: name(&map, "profile")?,
            plan: name(&map, "plan")?,
            streams: streams(&map)?,
            contents: contents(&map)?,
            roles: roles(&map),
            scopes: scopes(&map)?,
            expires_at: expiry(&map, expected.now)?,
            issued_at: issue(&map),
            sign_in: name(&map, "sign_in")?,
        };
        check_not_before(&map, expected.now)?;
        check_issuer(&map, expected.issuer)?;
        check_audience(&map, expected.audience)?;
        Ok(claims)
    }
}

/// Whether `text` can be a tenant: it becomes part of keys and of metric labels.
#[must_use]
pub fn is_tenant(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !text.is_empty() && text.len() <= MAX_TENANT_BYTES && text.bytes().all(fits)
}

fn name(map: &Map<String, Value>, claim: &'static str) -> Result<Option<Arc<str>>, Rejected> {
    match map.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_NAME_BYTES => {
            Ok(Some(text.as_str().into()))
        }
        Some(_) => Err(Rejected::Claims(claim)),
    }
}

fn tenant(map: &Map<String, Value>) -> Result<Arc<str>, Rejected> {
    match map.get("tenant") {
        None => Ok(MAIN_TENANT.into()),
        Some(Value::String(text)) if is_tenant(text) => Ok(text.as_str().into()),
        Some(_) => Err(Rejected::Claims("tenant")),
    }
}

fn streams(map: &Map<String, Value>) -> Result<Option<u32>, Rejected> {
    let Some(value) = map.get("streams") else {
        return Ok(None);
    };
    let streams = value.as_u64().filter(|n| *n <= MAX_STREAMS);
    streams
        .and_then(|n| n.try_into().ok())
        .map(Some)
        .ok_or(Rejected::Claims("streams"))
}

fn contents(map: &Map<String, Value>) -> Result<Option<Vec<String>>, Rejected> {
    let Some(value) = map.get("contents") else {
        return Ok(None);
    };
    let text = |item: &Value| item.as_str().map(str::to_owned);
    let list = value
        .as_array()
        .and_then(|items| items.iter().map(text).collect::<Option<_>>());
    list.map(Some).ok_or(Rejected::Claims("contents"))
}

/// Identity providers put their own things under this name: what is no role opens nothing, and refuses nobody.
fn roles(map: &Map<String, Value>) -> Vec<String> {
    let words: Vec<&str> = match map.get("roles") {
        Some(Value::String(words)) => words.split(' ').collect(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let fits = |word: &&str| !word.is_empty() && word.len() <= MAX_NAME_BYTES;
    words
        .into_iter()
        .filter(fits)
        .take(MAX_ROLES)
        .map(str::to_owned)
        .collect()
}

fn scopes(map: &Map<String, Value>) -> Result<Scopes, Rejected> {
    match map.get("scope") {
        None => Ok(Scope::Watch.into()),
        Some(Value::String(words)) => Ok(Scopes::of_claim(words)),
        Some(_) => Err(Rejected::Claims("scope")),
    }
}

/// A `NumericDate` (RFC 7519, section 2): seconds since 1970, possibly with a fraction.
fn seconds(map: &Map<String, Value>, claim: &'static str) -> Result<Option<f64>, Rejected> {
    let Some(value) = map.get(claim) else {
        return Ok(None);
    };
    let number = value.as_f64().filter(|n| n.is_finite());
    number.map(Some).ok_or(Rejected::Claims(claim))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn expiry(map: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, Rejected> {
    let exp = seconds(map, "exp")?.ok_or(Rejected::Claims("exp"))?;
    let exp = Duration::try_from_secs_f64(exp.max(0.0)).map_err(|_| Rejected::Claims("exp"))?;
    let exp = exp.min(LATEST_EXPIRY);
    if exp + LEEWAY <= since_epoch(now) {
        return Err(Rejected::Expired);
    }
    Ok(UNIX_EPOCH + exp)
}

/// Nothing is refused for it: whoever compares it has a use for it.
fn issue(map: &Map<String, Value>) -> Option<SystemTime> {
    let iat = map.get("iat")?.as_f64()?;
    let iat = Duration::try_from_secs_f64(iat).ok()?;
    Some(UNIX_EPOCH + iat.min(LATEST_EXPIRY))
}

fn check_not_before(map: &Map<String, Value>, now: SystemTime) -> Result<(), Rejected> {
    match seconds(map, "nbf")? {
        Some(nbf) if nbf > (since_epoch(now) + LEEWAY).as_secs_f64() => Err(Rejected::NotYetValid),
        _ => Ok(()),
    }
}

fn check_issuer(map: &Map<String, Value>, expected: Option<&str>) -> Result<(), Rejected> {
    let iss = match map.get("iss") {
        None => None,
        Some(Value::String(iss)) => Some(iss.as_str()),
        Some(_) => return Err(Rejected::Claims("iss")),
    };
    if expected.is_some() && iss != expected {
        Err(Rejected::Issuer)
    } else {
        Ok(())
    }
}

fn check_audience(map: &Map<String, Value>, expected: Option<&str>) -> Result<(), Rejected> {
    let audiences: Option<Vec<&str>> = match map.get("aud") {
        None => Some(Vec::new()),
        Some(Value::String(aud)) => Some(vec![aud]),
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    let audiences = audiences.ok_or(Rejected::Claims("aud"))?;
    if audiences.contains(&TICKET_AUDIENCE) {
        return Err(Rejected::Ticket);
    }
    if expected.is_some_and(|audience| !audiences.contains(&audience)) {
        return Err(Rejected::Audience);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn parse(claims: &Value) -> Result<Claims, Rejected> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW_S);
        let expected = Expected {
            issuer: None,
            audience: None,
            now,
        };
        Claims::parse(claims.to_string().as_bytes(), &expected)
    }

    #[test]
    fn absent_claims_have_their_defaults() {
        let claims = parse(&json!({"sub": "a", "exp": NOW_S + 60})).unwrap();
        assert_eq!((&*claims.tenant, &*claims.account), ("main", "a"));
        assert_eq!(claims.scopes, Scope::Watch.into());
        assert_eq!(
            (claims.device, claims.streams, claims.contents),
            (None, None, None)
        );
    }

    #[test]
    fn every_claim_is_read() {
        let claims = json!({
            "sub": "a", "exp": NOW_S as f64 + 0.5, "tenant": "t-1.b_C", "device": "d", "profile": "p", "plan": "gold",
            "streams": 0, "contents": ["m1", "m2"], "scope": "support", "iss": "x", "aud": ["y", "z"],
        });
        let claims = parse(&claims).unwrap();
        assert_eq!((&*claims.tenant, claims.streams), ("t-1.b_C", Some(0)));
        assert_eq!(claims.contents.unwrap(), ["m1", "m2"]);
        assert_eq!(claims.scopes.to_string(), "support");
        assert_eq!(
            since_epoch(claims.expires_at),
            Duration::from_millis(NOW_S * 1000 + 500)
        );
    }

    #[test]
    fn roles_are_a_list_or_words_and_what_is_neither_refuses_nobody() {
        let roles = |value: Value| {
            parse(&json!({"sub": "a", "exp": NOW_S + 60, "roles": value}))
                .unwrap()
                .roles
        };
        assert_eq!(roles(json!(["kids", 7, "", "two words"])), ["kids", "two words"]);
        assert_eq!(roles(json!("kids  sports")), ["kids", "sports"]);
        assert!(roles(json!({"kids": true})).is_empty());
        assert_eq!(roles(json!(vec!["r"; 100])).len(), MAX_ROLES);
    }

    #[test]
    fn leeway_ends_to_the_second() {
        let exp = |at: u64| parse(&json!({"sub": "a", "exp": at})).err();
        assert_eq!(exp(NOW_S - 29), None);
        assert_eq!(exp(NOW_S - 30), Some(Rejected::Expired));
        let nbf = |at: u64| parse(&json!({"sub": "a", "exp": NOW_S + 60, "nbf": at})).err();
        assert_eq!(nbf(NOW_S + 30), None);
        assert_eq!(nbf(NOW_S + 31), Some(Rejected::NotYetValid));
    }

    #[test]
    fn a_far_expiry_stays_printable_and_an_impossible_one_is_refused() {
        let far = parse(&json!({"sub": "a", "exp": 1e15})).unwrap();
        assert_eq!(far.expires_at, UNIX_EPOCH + LATEST_EXPIRY);
        assert_eq!(
            parse(&json!({"sub": "a", "exp": 1e30})),
            Err(Rejected::Claims("exp"))
        );
        assert_eq!(parse(&json!({"sub": "a", "exp": -1e30})), Err(Rejected::Expired));
    }
}
