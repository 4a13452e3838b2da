//! `redis.url`: where Redis is.
//!
//! Owns: the forms of the URL, what they mean, and hiding the password in them.
//! Does not: resolve names or connect (`lease::redis` does).
//! Called by: `validate`, and `lease::redis` when it opens its link.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize, Serializer};

use super::Secret;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// More hosts than anybody lists.
const MOST_HOSTS: usize = 100;

/// The URL as it was written. `Debug` and serialisation mask its password.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RedisUrl(String);

/// What a [`RedisUrl`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    /// Whether every connection is TLS.
    pub tls: bool,
    /// The servers.
    pub servers: RedisServers,
    /// User of the servers; empty: none is named.
    pub username: String,
    /// Password of the servers; empty: none is given.
    pub password: Secret,
    /// Number of the database.
    pub database: u16,
}

/// How the servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    /// One server.
    Single(HostPort),
    /// Nodes of a cluster, by which the others are found.
    Cluster(Vec<HostPort>),
    /// The master of this name, whom the sentinels know.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<HostPort>,
        /// Name of the master.
        master: String,
    },
}

/// A server's host name or address, and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl RedisUrl {
    /// The text itself, for the code that must use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether no Redis is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the URL says.
    ///
    /// # Errors
    /// What is wrong with it, for people; never repeats the URL.
    pub fn parse(&self) -> Result<RedisAddress, String> {
        let (scheme, rest) = self
            .0
            .split_once("://")
            .ok_or("must be redis://host:port, or another form that the manual shows")?;
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", kind) => (false, kind),
            ("rediss", kind) => (true, kind),
            _ => {
                return Err(
                    "must begin with redis:// or rediss://, or these with +cluster or +sentinel".to_owned(),
                );
            }
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let mut database = database(query)?;
        let servers = match kind {
            "" => {
                if !path.is_empty() {
                    database = number(path)?;
                }
                let mut hosts = host_list(hosts, REDIS_PORT)?;
                match (hosts.pop(), hosts.is_empty()) {
                    (Some(host), true) => RedisServers::Single(host),
                    _ => return Err("several hosts need redis+cluster:// or redis+sentinel://".to_owned()),
                }
            }
            "cluster" => {
                if database != 0 || !path.is_empty() && number(path)? != 0 {
                    return Err("a cluster has only database 0".to_owned());
                }
                RedisServers::Cluster(host_list(hosts, REDIS_PORT)?)
            }
            "sentinel" => {
                let master = decode(path)?;
                if master.is_empty() || master.contains('/') {
                    return Err("needs the master's name: redis+sentinel://host:port/name".to_owned());
                }
                let sentinels = host_list(hosts, SENTINEL_PORT)?;
                RedisServers::Sentinel { sentinels, master }
            }
            _ => return Err("knows +cluster and +sentinel after redis or rediss".to_owned()),
        };
        Ok(RedisAddress {
            tls,
            servers,
            username: decode(username)?,
            password: decode(password)?.into(),
            database,
        })
    }
}

/// The URL with `***` in place of the password.
pub(super) fn masked(url: &str) -> String {
    // A password that was not percent-encoded may hold any character: the last @ ends it.
    let Some((secret, place)) = url.rsplit_once('@') else {
        return url.to_owned();
    };
    let (scheme, user) = secret.split_once("://").unwrap_or(("", secret));
    let name = user.split_once(':').map_or("", |(name, _)| name);
    let colon = if user.contains(':') { ":" } else { "" };
    format!("{scheme}://{name}{colon}***@{place}")
}

impl From<String> for RedisUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&masked(&self.0), f)
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&masked(&self.0))
    }
}

impl HostPort {
    /// Reads `host`, `host:port`, `[::1]` or `[::1]:port`. Names are kept as they are written.
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, after.strip_prefix(':').or(after.is_empty().then_some("")))
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
                None => (text, Some("")),
            },
        };
        let strange = |c: char| !(c.is_ascii_alphanumeric() || ".-_:".contains(c));
        let port = match port? {
            "" => default_port,
            text => text.parse().ok().filter(|port| *port != 0)?,
        };
        let host = host.to_owned();
        (!host.is_empty() && !host.contains(strange)).then_some(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn host_list(text: &str, port: u16) -> Result<Vec<HostPort>, String> {
    let hosts: Option<Vec<_>> = text
        .split(',')
        .take(MOST_HOSTS)
        .map(|host| HostPort::parse(host.trim(), port))
        .collect();
    hosts.ok_or_else(|| "must name hosts as host, host:port or [IPv6]:port".to_owned())
}

fn database(query: &str) -> Result<u16, String> {
    match query.split_once('=') {
        None if query.is_empty() => Ok(0),
        Some(("db", text)) => number(text),
        _ => Err("knows no parameter but ?db=<number>".to_owned()),
    }
}

fn number(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| "the database is not a number".to_owned())
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map_or_else(
        |_| Err("what is percent-encoded is not UTF-8".to_owned()),
        |text| Ok(text.into_owned()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    fn address(url: &str) -> RedisAddress {
        RedisUrl::from(url.to_owned()).parse().unwrap()
    }

    fn host(host: &str, port: u16) -> HostPort {
        let host = host.to_owned();
        HostPort { host, port }
    }

    #[test]
    fn every_form_is_read() {
        let one = address("redis://a.example");
        assert_eq!(one.servers, RedisServers::Single(host("a.example", 6379)));
        assert!(!one.tls && one.username.is_empty() && one.password.is_empty() && one.database == 0);
        let full = address("rediss://us%65r:p%40ss%2F@[::1]:7000/3");
        assert_eq!(full.servers, RedisServers::Single(host("::1", 7000)));
        assert_eq!(
            (full.username.as_str(), full.password.expose()),
            ("user", "p@ss/")
        );
        assert!(full.tls && full.database == 3);
        assert_eq!(address("redis://:p@h").password.expose(), "p");
        assert_eq!(address("redis://h?db=2").database, 2);
        let nodes = vec![host("h1", 1), host("h2", 6379)];
        let cluster = address("rediss+cluster://h1:1,h2");
        assert!(cluster.tls);
        assert_eq!(cluster.servers, RedisServers::Cluster(nodes));
        let set = address("redis+sentinel://u:p@h1,h2:2/main?db=4");
        let sentinels = vec![host("h1", 26379), host("h2", 2)];
        let master = "main".to_owned();
        assert_eq!(set.servers, RedisServers::Sentinel { sentinels, master });
        assert_eq!((set.database, set.username.as_str()), (4, "u"));
        assert_eq!(host("::1", 1).to_string(), "[::1]:1");
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for bad in [
            "",
            "h:6379",
            "http://u:hunter2@h",
            "redis+x://u:hunter2@h",
            "redis://",
            "redis://u:hunter2@",
            "redis://u:hunter2@h1,h2",
            "redis://u:hunter2@h:0",
            "redis://u:hunter2@h:x",
            "redis://u:hunter2@h/x",
            "redis://u:hunter2@h/-1",
            "redis://u:hunter2@h?x=hunter2",
            "redis://u:hunter2@[::1",
            "redis://u:hunter2@[x]:1",
            "redis://u:hunter2@h h",
            "redis://u:%ff@h",
            "redis+cluster://u:hunter2@h/1",
            "redis+sentinel://u:hunter2@h",
            "redis+sentinel://u:hunter2@h/",
        ] {
            let problem = RedisUrl::from(bad.to_owned()).parse().unwrap_err();
            assert!(!problem.contains("hunter2"), "{bad}: {problem}");
        }
    }

    #[test]
    fn the_password_is_masked_in_every_form() {
        let masked = |url: &str| format!("{:?}", RedisUrl::from(url.to_owned()));
        assert_eq!(masked("redis://u:p@h/1"), "\"redis://u:***@h/1\"");
        assert_eq!(masked("redis://:p/@x@h"), "\"redis://:***@h\"");
        assert_eq!(masked("redis://secret@h"), "\"redis://***@h\"");
        assert_eq!(masked("u:p@h"), "\"://u:***@h\"");
        assert_eq!(masked("redis://h"), "\"redis://h\"");
    }
}
