//! `[database]` and `[modules]`: where rows are, and which parts use them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::Secret;
use super::redis_url::masked;

/// `[database]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Database {
    /// Where it is; empty: `usher.db` in the data directory.
    pub url: DatabaseUrl,
    /// Password of the user in the URL; empty: the URL's.
    pub password: Secret,
    /// Most connections of this node.
    pub connections: u32,
    /// The longest wait of a request for everything that it asks of the database.
    #[serde(with = "super::section::duration")]
    pub timeout: Duration,
    /// Whether a node makes and changes the tables when it starts.
    pub migrate: bool,
}

impl Database {
    /// Whether it is a server that nodes can share, not a file of this one.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !self.url.0.is_empty() && !self.url.0.starts_with("sqlite:")
    }
}

/// `[modules]`: the parts that can be switched off.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Modules {
    /// People's accounts, sign-up and sign-in.
    pub accounts: bool,
    /// The content catalogue.
    pub catalogue: bool,
    /// Upload and delivery of files.
    pub media: bool,
    /// Plays and statements.
    pub ledger: bool,
    /// Messages between viewers.
    pub messages: bool,
}

impl Modules {
    /// Whether any part needs a database.
    #[must_use]
    pub fn any(self) -> bool {
        self.accounts || self.catalogue || self.media || self.ledger || self.messages
    }
}

/// The URL as it was written. `Debug` and serialisation mask its password.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The text itself, for the code that must use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is wrong with it, for people; never repeats it.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let url = &self.0;
        if url.is_empty() || url.starts_with("sqlite:") {
            return url
                .contains('?')
                .then_some("a file takes no parameters: sqlite:path/to/usher.db");
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Some("must be postgres://user@host:port/name, or sqlite:path/to/usher.db");
        };
        if !matches!(scheme, "postgres" | "postgresql") {
            return Some("must begin with postgres:// or sqlite:");
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
        if host.is_empty() || host.starts_with('/') {
            return Some("names no host");
        }
        query
            .contains("password=")
            .then_some("must not hold a password as a parameter: use database.password")
    }
}

impl From<String> for DatabaseUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&masked(&self.0), f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&masked(&self.0))
    }
}
