//! Whom to call, how, and as whom.
//!
//! Owns: addresses, trust and tokens, as they travel to the workers. Does not: connect (`worker::dial`).
//! Called by: the command line, which builds a target, and the workers, which are given it.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use usher::config::Secret;

/// A server or several, all good for any account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Where; sessions are spread over all.
    pub nodes: Vec<Node>,
    /// What is spoken there.
    pub dialect: Dialect,
    /// Whose certificates are good.
    pub trust: Trust,
    /// As whom.
    pub tokens: Tokens,
    /// Loopback addresses to call from; 0: whatever the system chooses.
    pub sources: u32,
    /// Whether TLS sessions are resumed.
    pub resumption: bool,
    /// Longest wait for one connection or answer, in milliseconds.
    pub timeout_ms: u64,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, for TLS and `Host`.
    pub host: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The socket's path, with its query if it has one.
    pub path: String,
}

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Dialect {
    /// Usher's watch socket: `granted`, heartbeats, `resume`.
    Usher,
    /// A WebSocket that is only held: open is all there is.
    Plain,
    /// The WebSocket of a NATS server: `CONNECT`, then `PING` and `PONG` inside.
    Nats,
}

/// Whose certificates are good.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trust {
    /// CAs in PEM; with none, the system's.
    pub ca: Option<String>,
    /// Nothing is verified.
    pub insecure: bool,
}

/// As whom to start.
#[derive(Clone, Serialize, Deserialize)]
pub enum Tokens {
    /// None.
    None,
    /// These, in turn.
    Given(Vec<String>),
    /// One for each account, signed by HS256.
    Signed {
        /// The secret that the nodes have as `auth.hmac_secret`.
        secret: String,
        /// Claim `tenant`.
        tenant: Option<String>,
        /// Claim `streams`: the limit of the account.
        streams: Option<u32>,
        /// Life of a token.
        life_s: u64,
    },
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Given(_) => "Given(***)",
            Self::Signed { .. } => "Signed(***)",
        })
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<u32>,
}

impl Tokens {
    /// The token of an account; `None` when none is needed.
    #[must_use]
    pub fn of(&self, account: u32) -> Option<Secret> {
        match self {
            Self::None => None,
            Self::Given(tokens) => {
                let turn = account as usize % tokens.len().max(1);
                tokens.get(turn).cloned().map(Secret::from)
            }
            Self::Signed {
                secret,
                tenant,
                streams,
                life_s,
            } => {
                let now = UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
                let claims = Claims {
                    sub: &account_name(account),
                    exp: now.saturating_add(*life_s),
                    tenant: tenant.as_deref(),
                    streams: *streams,
                };
                let key = EncodingKey::from_secret(secret.as_bytes());
                let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
                token.ok().map(Secret::from)
            }
        }
    }
}

/// The name of an account, where the tool makes the tokens.
#[must_use]
pub fn account_name(account: u32) -> String {
    format!("load-{account}")
}

impl Target {
    /// Longest wait for one connection or answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// A `wss://` URL that was taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchUrl {
    /// The host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query; empty when the URL has none.
    pub path: String,
}

impl std::str::FromStr for WatchUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("wss://")
            .or_else(|| text.strip_prefix("https://"))
            .ok_or("must begin with wss://: the tool speaks TLS")?;
        let uri: http::Uri = format!("https://{rest}").parse().map_err(|_| "is no URL")?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err("has no host".to_owned());
        }
        let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(443),
            path: if path == "/" {
                String::new()
            } else {
                path.to_owned()
            },
        })
    }
}

impl WatchUrl {
    /// The servers behind the name, one for each address.
    ///
    /// # Errors
    /// When the name has no address.
    pub async fn resolve(&self, dialect: Dialect) -> Result<Vec<Node>, String> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<SocketAddr> = found
            .map_err(|error| format!("{}: {error}", self.host))?
            .collect();
        // A name that is both 127.0.0.1 and ::1 is one server.
        let ipv4 = addresses.iter().any(SocketAddr::is_ipv4);
        let path = match (self.path.as_str(), dialect) {
            ("", Dialect::Usher) => "/v1/watch",
            ("", Dialect::Plain | Dialect::Nats) => "/",
            (path, _) => path,
        };
        let mut nodes: Vec<Node> = Vec::new();
        for address in addresses {
            let node = Node {
                host: self.host.clone(),
                address,
                path: path.to_owned(),
            };
            if address.is_ipv4() == ipv4 && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        if nodes.is_empty() {
            return Err(format!("{} has no address", self.host));
        }
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url: WatchUrl = "wss://[::1]:8443".parse().unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("::1", 8443, "")
        );
        let url: WatchUrl = "wss://play.example.com/sub?id=1".parse().unwrap();
        assert_eq!((url.port, url.path.as_str()), (443, "/sub?id=1"));
        for bad in ["ws://a", "a:8443", "wss://", "wss://a b"] {
            assert!(bad.parse::<WatchUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn given_tokens_take_turns_and_never_show() {
        let tokens = Tokens::Given(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(tokens.of(3).unwrap().expose(), "b");
        assert!(!format!("{tokens:?}").contains('b'));
    }

    #[test]
    fn a_signed_token_names_its_account() {
        let tokens = Tokens::Signed {
            secret: "a secret for tests, 32 bytes long".to_owned(),
            tenant: None,
            streams: Some(5),
            life_s: 60,
        };
        assert!(!format!("{tokens:?}").contains("32 bytes"));
        let token = tokens.of(7).unwrap();
        let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(token.expose())
            .unwrap()
            .claims;
        assert_eq!(
            (&claims["sub"], &claims["streams"]),
            (&"load-7".into(), &5.into())
        );
    }
}
