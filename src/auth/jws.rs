//! The compact form of a token (RFC 7515, section 7.1), before anything in it is believed.
//!
//! Owns: the split into header, payload and signature, and what a header may say.
//! Does not: verify, read claims, or follow `jwk`, `jku`, `x5u` and `x5c`, which are not even looked at.
//! Called by: `verify` and `ticket`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::error::Rejected;
use super::keys::Algorithm;

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The `typ` of playback tickets.
pub(crate) const TICKET_TYPE: &str = "usher-ticket+jwt";

/// A token in its parts. `kid` is an index into our keys and nothing else.
pub(crate) struct Jws<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    /// What was signed: header and payload in base64url with the dot between them.
    pub(crate) message: &'a [u8],
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// An access token, which no ticket is.
    pub(crate) fn parse(token: &'a str) -> Result<Self, Rejected> {
        let (jws, ticket) = Self::read(token)?;
        if ticket { Err(Rejected::Ticket) } else { Ok(jws) }
    }

    /// A ticket, which no access token is.
    pub(crate) fn parse_ticket(token: &'a str) -> Result<Self, Rejected> {
        let (jws, ticket) = Self::read(token)?;
        if ticket { Ok(jws) } else { Err(Rejected::NoTicket) }
    }

    /// The parts, and whether its `typ` says that it is a ticket.
    fn read(token: &'a str) -> Result<(Self, bool), Rejected> {
        if token.is_empty() {
            return Err(Rejected::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejected::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Rejected::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Rejected::Malformed)?;
        let header: Map<String, Value> =
            serde_json::from_slice(&decode(header)?).map_err(|_| Rejected::Malformed)?;
        if header.contains_key("crit") {
            return Err(Rejected::Malformed);
        }
        let ticket = text(&header, "typ")?.is_some_and(is_ticket);
        let algorithm = text(&header, "alg")?.ok_or(Rejected::Malformed)?;
        let jws = Self {
            algorithm: Algorithm::named(algorithm).ok_or(Rejected::Algorithm)?,
            kid: text(&header, "kid")?.map(str::to_owned),
            message: message.as_bytes(),
            payload: decode(payload)?,
            signature: decode(signature)?,
        };
        Ok((jws, ticket))
    }
}

/// Base64url as RFC 7515 wants it: no padding, no stray bits, so that a token has one spelling only.
fn decode(segment: &str) -> Result<Vec<u8>, Rejected> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| Rejected::Malformed)
}

fn text<'h>(header: &'h Map<String, Value>, name: &str) -> Result<Option<&'h str>, Rejected> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Rejected::Malformed),
    }
}

/// A media type: letter case and a leading `application/` do not matter (RFC 7515, section 4.1.9).
fn is_ticket(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").unwrap_or(&typ) == TICKET_TYPE
}
