//! Fetching one key set document.
//!
//! Owns: the client of a JWKS URL, and the bounds on time and size.
//! Does not: decide when to fetch, or read what it fetched.
//! Called by: `jwks`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::error::AuthError;
use crate::config::Jwks;
use crate::outbound::{Client, Guard, OutboundError, Plain};

/// One fetch, from the name's resolution to the last byte.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Largest document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// A client for one URL.
pub(crate) struct Fetcher {
    client: Client,
}

impl Fetcher {
    /// From the settings under `at`, such as `auth.jwks[0]`.
    pub(crate) fn new(settings: &Jwks, at: &str, guard: Guard) -> Result<Self, AuthError> {
        // A kept connection would idle for minutes between two fetches.
        let client = Client::new(&settings.url, &settings.ca, guard, Plain::Loopback, 0);
        let client = client.map_err(|error| {
            let key = match error {
                OutboundError::Url(_) => "url",
                OutboundError::Ca(_) => "ca",
            };
            AuthError::setting(format!("{at}.{key}"), error)
        })?;
        Ok(Self { client })
    }

    /// The document, or what an operator should read in the log. Redirects are not followed.
    pub(crate) async fn fetch(&self) -> Result<Bytes, String> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/jwk-set+json, application/json"),
        );
        let sent = self
            .client
            .send(Method::GET, headers, Bytes::new(), TIMEOUT, MAX_DOCUMENT_BYTES);
        let answer = sent.await?;
        if answer.status != StatusCode::OK {
            return Err(format!("status {}", answer.status));
        }
        answer.body
    }
}
