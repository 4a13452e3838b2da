//! Fetching one key set document.
//!
//! Owns: the HTTP client of a JWKS URL, its trust anchors, and the bounds on time and size.
//! Does not: decide when to fetch, or read what it fetched.
//! Called by: `jwks`.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::error::AuthError;
use crate::config::Jwks;

/// One fetch, from the name's resolution to the last byte.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Largest document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// A client for one URL.
pub(crate) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: Uri,
}

impl Fetcher {
    /// From the settings under `at`, such as `auth.jwks[0]`.
    pub(crate) fn new(settings: &Jwks, at: &str) -> Result<Self, AuthError> {
        let url = checked_url(&settings.url).map_err(|e| AuthError::setting(format!("{at}.url"), e))?;
        let secure = url.scheme() == Some(&Scheme::HTTPS);
        let roots = roots(&settings.ca, secure).map_err(|e| AuthError::setting(format!("{at}.ca"), e))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| AuthError::setting(format!("{at}.url"), e))?;
        let tls = match roots {
            Roots::System => tls
                .with_native_roots()
                .map_err(|e| AuthError::setting(format!("{at}.ca"), e))?,
            Roots::Given(store) => tls.with_root_certificates(store),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1();
        // A kept connection would idle for minutes between two fetches.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector.build());
        Ok(Self { client, url })
    }

    /// The document, or what an operator should read in the log. Redirects are not followed.
    pub(crate) async fn fetch(&self) -> Result<Bytes, String> {
        match tokio::time::timeout(TIMEOUT, self.exchange()).await {
            Ok(done) => done,
            Err(_) => Err(format!("no complete answer within {} s", TIMEOUT.as_secs())),
        }
    }

    async fn exchange(&self) -> Result<Bytes, String> {
        let request = Request::get(self.url.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, "usher")
            .body(Empty::new())
            .map_err(|e| e.to_string())?;
        let answer = self.client.request(request).await.map_err(|e| with_causes(&e))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("status {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES)
            .collect()
            .await;
        Ok(body.map_err(|e| with_causes(&*e))?.to_bytes())
    }
}

enum Roots {
    System,
    Given(RootCertStore),
}

fn checked_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|e| format!("not a URL: {e}"))?;
    let host = url.host().unwrap_or_default();
    match url.scheme_str() {
        Some("https") if !host.is_empty() => Ok(url),
        Some("http") if is_loopback(host) => Ok(url),
        _ => Err("must be https://.., or http:// on a loopback address".to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

/// Plain HTTP trusts nobody, so that it works where the system has no certificates.
fn roots(ca: &Path, secure: bool) -> Result<Roots, String> {
    let mut store = RootCertStore::empty();
    if ca.as_os_str().is_empty() {
        return Ok(if secure {
            Roots::System
        } else {
            Roots::Given(store)
        });
    }
    let problem = |e: String| format!("{}: {e}", ca.display());
    let pem = std::fs::read(ca).map_err(|e| problem(e.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| problem(e.to_string()))?;
        store.add(certificate).map_err(|e| problem(e.to_string()))?;
    }
    if store.is_empty() {
        return Err(problem("holds no PEM section CERTIFICATE".to_owned()));
    }
    Ok(Roots::Given(store))
}

/// A client error alone says "connect"; its causes say why.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_loopback() {
        for good in [
            "https://id.example/jwks",
            "http://127.0.0.1:1/jwks",
            "http://[::1]/k",
            "http://localhost:8080/jwks",
            "http://127.9.9.9/",
        ] {
            assert!(checked_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://id.example/jwks",
            "http://127.0.0.1@id.example/jwks",
            "http://127.0.0.1.id.example/",
            "http://localhost.id.example/",
            "http://10.0.0.1/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "https://",
            "/jwks",
            "id.example",
            "",
        ] {
            assert!(checked_url(bad).is_err(), "{bad}");
        }
    }
}
