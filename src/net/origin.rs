//! Which web pages may open sockets and read answers.
//!
//! Owns: `http.origins` and the comparison with a request's `Origin` (RFC 6454, section 7).
//! Does not: answer 403 (the HTTP layer does).
//! Called by: `api::cors`, for sockets and requests alike.

use std::net::Ipv6Addr;

use http::HeaderValue;

use crate::config::Http;

/// The origins that are let in.
#[derive(Clone, Debug)]
pub struct Origins {
    rule: Rule,
    allow_missing: bool,
}

/// An entry of `http.origins` that is no origin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "http.origins: {0:?} is not an origin such as \"https://example.com\" (no path, no trailing slash) or \"*\""
)]
pub struct OriginError(String);

#[derive(Clone, Debug)]
enum Rule {
    Any,
    SameHost,
    Listed(Vec<Origin>),
}

/// Scheme, host and port in one spelling; the port is none for a scheme without a default one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    authority: Authority,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Authority {
    host: String,
    port: Option<u16>,
}

impl Origins {
    /// From the configuration.
    ///
    /// # Errors
    /// When an entry is not an origin; the error names it.
    pub fn new(http: &Http) -> Result<Self, OriginError> {
        let rule = if http.origins.iter().any(|entry| entry == "*") {
            Rule::Any
        } else if http.origins.is_empty() {
            Rule::SameHost
        } else {
            let parse = |entry: &String| Origin::parse(entry).ok_or_else(|| OriginError(entry.clone()));
            Rule::Listed(http.origins.iter().map(parse).collect::<Result<_, _>>()?)
        };
        Ok(Self {
            rule,
            allow_missing: http.allow_missing_origin,
        })
    }

    /// Whether a request with this `Origin`, sent to this `Host` (or `:authority`), may go on. `null` never may:
    /// sandboxed frames and `data:` pages of anybody send it.
    #[must_use]
    pub fn allows(&self, origin: Option<&HeaderValue>, host: Option<&str>) -> bool {
        let Some(origin) = origin else {
            return self.allow_missing;
        };
        let Ok(origin) = origin.to_str() else { return false };
        match &self.rule {
            Rule::Any => !origin.eq_ignore_ascii_case("null"),
            Rule::SameHost => Origin::parse(origin).is_some_and(|origin| origin.is_at(host)),
            Rule::Listed(list) => Origin::parse(origin).is_some_and(|origin| list.contains(&origin)),
        }
    }
}

impl Origin {
    /// `scheme://host[:port]` and nothing around it.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let authority = Authority::parse(authority, default_port(&scheme))?;
        Some(Self { scheme, authority })
    }

    /// Whether the page came from the host that is now asked.
    fn is_at(&self, host: Option<&str>) -> bool {
        let default_port = default_port(&self.scheme);
        let asked = host.and_then(|host| Authority::parse(host, default_port));
        default_port.is_some() && asked.is_some_and(|asked| asked == self.authority)
    }
}

impl Authority {
    /// `host[:port]`; userinfo, paths and whatever else a host name does not hold are refused.
    fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, rest) = if let Some(text) = text.strip_prefix('[') {
            let (host, rest) = text.split_once(']')?;
            (format!("[{}]", host.parse::<Ipv6Addr>().ok()?), rest)
        } else {
            let end = text.find(':').unwrap_or(text.len());
            let (host, rest) = text.split_at(end);
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(is_name) {
                return None;
            }
            (host.to_ascii_lowercase(), rest)
        };
        let port = match rest.strip_prefix(':') {
            // `parse` alone would take a plus sign.
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
            None if rest.is_empty() => default_port,
            _ => return None,
        };
        Some(Self { host, port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn origins(list: &[&str], allow_missing_origin: bool) -> Result<Origins, OriginError> {
        let origins = list.iter().map(|&entry| entry.to_owned()).collect();
        Origins::new(&Http {
            origins,
            allow_missing_origin,
        })
    }

    fn check(origins: &Origins, rows: &[(&str, &str, bool)]) {
        for (origin, host, expected) in rows {
            let value = HeaderValue::from_bytes(origin.as_bytes()).unwrap();
            assert_eq!(
                origins.allows(Some(&value), Some(host)),
                *expected,
                "{origin} at {host}"
            );
        }
    }

    #[test]
    fn same_host() {
        let origins = origins(&[], true).unwrap();
        check(
            &origins,
            &[
                ("https://example.com", "example.com", true),
                ("https://example.com", "example.com:443", true),
                ("https://example.com:443", "example.com", true),
                ("https://EXAMPLE.com", "Example.COM", true),
                ("HTTPS://example.com", "example.com", true),
                ("http://example.com", "example.com", true),
                ("http://example.com", "example.com:80", true),
                ("http://example.com", "example.com:443", false),
                ("https://example.com", "example.com:8443", false),
                ("https://example.com:8443", "example.com:8443", true),
                ("https://example.com:8444", "example.com:8443", false),
                ("https://example.com:8443", "example.com", false),
                ("https://evil.com", "example.com", false),
                ("https://evil.com.example.com", "example.com", false),
                ("https://example.com.evil.com", "example.com", false),
                ("https://evilexample.com", "example.com", false),
                ("https://example.co", "example.com", false),
                ("https://sub.example.com", "example.com", false),
                ("https://user@example.com", "example.com", false),
                ("https://example.com@evil.com", "example.com", false),
                ("https://example.com", "user@example.com", false),
                ("https://example.com/", "example.com", false),
                ("https://example.com/path", "example.com", false),
                ("https://example.com?q", "example.com", false),
                ("https://example.com#f", "example.com", false),
                ("https://example.com\\.evil.com", "example.com", false),
                ("https://example.com https://evil.com", "example.com", false),
                (" https://example.com", "example.com", false),
                ("https://[::1]:8443", "[::1]:8443", true),
                ("https://[::1]", "[0:0::1]:443", true),
                ("https://[::1]", "[::2]", false),
                ("https://[::1", "[::1", false),
                ("https://[::1]x", "[::1]", false),
                ("https://::1", "::1", false),
                ("https://127.0.0.1:8443", "127.0.0.1:8443", true),
                ("https://127.0.0.1:8443", "localhost:8443", false),
                ("https://example.com:", "example.com", false),
                ("https://example.com:+443", "example.com", false),
                ("https://example.com:65979", "example.com", false),
                ("https://", "", false),
                ("https:///", "example.com", false),
                ("//example.com", "example.com", false),
                ("example.com", "example.com", false),
                ("ftp://example.com", "example.com", false),
                ("file://", "", false),
                ("null", "null", false),
                ("null", "example.com", false),
                ("", "", false),
                ("https://ex\u{e4}mple.com", "ex\u{e4}mple.com", false),
            ],
        );
        assert!(!origins.allows(Some(&HeaderValue::from_static("https://example.com")), None));
    }

    #[test]
    fn listed() {
        let list = [
            "https://Play.Example.com",
            "http://localhost:3000",
            "capacitor://localhost",
            "https://[::1]",
        ];
        check(
            &origins(&list, true).unwrap(),
            &[
                ("https://play.example.com", "gateway.example.com", true),
                ("https://play.example.com:443", "gateway.example.com", true),
                ("https://play.example.com:444", "gateway.example.com", false),
                ("http://play.example.com", "gateway.example.com", false),
                ("https://xplay.example.com", "gateway.example.com", false),
                ("https://play.example.com.evil.com", "gateway.example.com", false),
                ("https://evil.com.play.example.com", "gateway.example.com", false),
                ("https://gateway.example.com", "gateway.example.com", false),
                ("http://localhost:3000", "gateway.example.com", true),
                ("http://localhost", "gateway.example.com", false),
                ("capacitor://localhost", "gateway.example.com", true),
                ("ionic://localhost", "gateway.example.com", false),
                ("https://[0::1]:443", "gateway.example.com", true),
                ("null", "gateway.example.com", false),
            ],
        );
    }

    #[test]
    fn any_but_null() {
        check(
            &origins(&["https://a.example", "*"], true).unwrap(),
            &[
                ("https://evil.com", "example.com", true),
                ("chrome-extension://abcdef", "example.com", true),
                ("null", "example.com", false),
                ("NULL", "example.com", false),
            ],
        );
    }

    #[test]
    fn missing_is_a_setting() {
        assert!(origins(&[], true).unwrap().allows(None, Some("example.com")));
        assert!(!origins(&[], false).unwrap().allows(None, Some("example.com")));
        assert!(!origins(&["*"], false).unwrap().allows(None, Some("example.com")));
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for entry in [
            "https://example.com/",
            "example.com",
            "null",
            "https://*.example.com",
            "https://a@b",
            "",
        ] {
            let error = origins(&[entry], true).unwrap_err();
            assert_eq!(error, OriginError(entry.to_owned()));
            assert!(error.to_string().contains(entry));
        }
    }
}
