//! One HTTP client of one URL.
//!
//! Owns: the URL's form, its trust anchors, the guard on its addresses, and the bounds on time and size of an exchange.
//! Does not: follow redirects or try again.
//! Called by: `auth::fetch`, `webhooks` and `ledger::fetch`.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::time::timeout;

use super::Guard;

/// A kept connection is closed after this long without a request.
const IDLE: Duration = Duration::from_secs(30);

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL; the text is for people.
    #[error("{0}")]
    Url(String),
    /// The file of the CA; the text is for people.
    #[error("{0}")]
    Ca(String),
}

/// Whether plain HTTP is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// https alone; loopback is an address like any other that is not public.
    Never,
    /// http too, and https on whatever address, when the URL itself names loopback: a server of this machine.
    Loopback,
}

/// A client of one URL.
#[derive(Clone, Debug)]
pub struct Client {
    client: legacy::Client<HttpsConnector<HttpConnector<Guard>>, Full<Bytes>>,
    url: Uri,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, or why it could not be read to its end.
    pub body: Result<Bytes, String>,
}

impl Client {
    /// A client that trusts the CA in this PEM file, or the system's when the path is empty, and keeps at most so many
    /// connections open without a request.
    ///
    /// # Errors
    /// See [`OutboundError`].
    pub fn new(url: &str, ca: &Path, guard: Guard, plain: Plain, kept: usize) -> Result<Self, OutboundError> {
        let url = checked_url(url, plain).map_err(OutboundError::Url)?;
        let host = host(&url);
        let guard = if plain == Plain::Loopback && is_loopback(host) {
            guard.with_loopback()
        } else {
            guard
        };
        // hyper resolves no literal address: it is judged here.
        if host.parse::<IpAddr>().is_ok_and(|ip| !guard.permits(ip)) {
            let message =
                "must not be an address that is not public, unless outbound.allowed_private lists it";
            return Err(OutboundError::Url(message.to_owned()));
        }
        let secure = url.scheme() == Some(&Scheme::HTTPS);
        let roots = roots(ca, secure).map_err(OutboundError::Ca)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| OutboundError::Url(e.to_string()))?;
        let tls = match roots {
            Roots::System => tls
                .with_native_roots()
                .map_err(|e| OutboundError::Ca(e.to_string()))?,
            Roots::Given(store) => tls.with_root_certificates(store),
        };
        let mut tcp = HttpConnector::new_with_resolver(guard);
        // The URL's scheme was judged above.
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(kept)
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { client, url })
    }

    /// One exchange: everything from the name's resolution to the last byte of the answer within `limit`. Of a longer
    /// body than `most` bytes nothing is kept, and its connection is closed. Redirects are not followed.
    ///
    /// # Errors
    /// What an operator should read in the log.
    pub async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
        most: usize,
    ) -> Result<Answer, String> {
        let exchange = async {
            let request = self.request(method, headers, body);
            let answer = self.client.request(request).await.map_err(|e| with_causes(&e))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, most).collect().await;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body
                    .map(http_body_util::Collected::to_bytes)
                    .map_err(|e| with_causes(&*e)),
            })
        };
        match timeout(limit, exchange).await {
            Ok(done) => done,
            Err(_) => Err(format!(
                "no complete answer within {}",
                humantime::format_duration(limit)
            )),
        }
    }

    /// A GET whose answer may be large: its body goes to `take` as it comes, when the status is 200. No wait, for the answer
    /// or for more of it, is longer than `patience`. Redirects are not followed. Answers the status and the headers.
    ///
    /// # Errors
    /// What an operator should read in the log; a body of more than `most` bytes is one.
    pub async fn download(
        &self,
        headers: HeaderMap,
        patience: Duration,
        most: u64,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(StatusCode, HeaderMap), String> {
        let silent = |_| format!("nothing came for {}", humantime::format_duration(patience));
        let request = self.request(Method::GET, headers, Bytes::new());
        let answer = timeout(patience, self.client.request(request)).await;
        let answer = answer.map_err(silent)?.map_err(|e| with_causes(&e))?;
        let (parts, mut body) = answer.into_parts();
        if parts.status != StatusCode::OK {
            return Ok((parts.status, parts.headers));
        }
        let mut size = 0;
        while let Some(frame) = timeout(patience, body.frame()).await.map_err(silent)? {
            let Ok(data) = frame.map_err(|e| with_causes(&e))?.into_data() else {
                continue;
            };
            size += data.len() as u64;
            if size > most {
                return Err(format!("the answer has more than {most} bytes"));
            }
            take(&data).map_err(|e| e.to_string())?;
        }
        Ok((parts.status, parts.headers))
    }

    fn request(&self, method: Method, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        let agent = header::HeaderValue::from_static("usher");
        request.headers_mut().insert(header::USER_AGENT, agent);
        request
    }
}

enum Roots {
    System,
    Given(RootCertStore),
}

fn checked_url(text: &str, plain: Plain) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|e| format!("not a URL: {e}"))?;
    let authority = url
        .authority()
        .map(http::uri::Authority::as_str)
        .unwrap_or_default();
    let host = host(&url);
    match url.scheme_str() {
        _ if host.is_empty() || authority.contains('@') => {}
        Some("https") => return Ok(url),
        Some("http") if plain == Plain::Loopback && is_loopback(host) => return Ok(url),
        _ => {}
    }
    Err(match plain {
        Plain::Never => "must be https://.., without credentials",
        Plain::Loopback => "must be https://.., or http:// on a loopback address, without credentials",
    }
    .to_owned())
}

fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_matches(['[', ']'])
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
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
            assert!(checked_url(good, Plain::Loopback).is_ok(), "{good}");
            let secure = good.starts_with("https");
            assert_eq!(checked_url(good, Plain::Never).is_ok(), secure, "{good}");
        }
        for bad in [
            "http://id.example/jwks",
            "http://127.0.0.1@id.example/jwks",
            "https://user:pass@id.example/",
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
            assert!(checked_url(bad, Plain::Loopback).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_literal_address_is_judged_at_once() {
        let made = |url: &str, plain| {
            let guard = Guard::new(&[]);
            Client::new(url, Path::new(""), guard, plain, 0).err()
        };
        for url in [
            "https://10.0.0.1/",
            "https://[fd00::1]/",
            "https://169.254.169.254/latest",
            "https://[::ffff:192.168.0.1]/",
        ] {
            for plain in [Plain::Never, Plain::Loopback] {
                assert!(matches!(made(url, plain), Some(OutboundError::Url(_))), "{url}");
            }
        }
        assert!(made("https://127.0.0.1/", Plain::Never).is_some());
        assert_eq!(made("http://127.0.0.1/", Plain::Loopback), None);
    }
}
