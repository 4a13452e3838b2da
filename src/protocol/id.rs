//! Ids of the lease world.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An account inside its tenant: whose streams are limited. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// The isolated customer of the installation.
    pub tenant: Arc<str>,
    /// The token's `sub`.
    pub account: Arc<str>,
}

/// A session. It is a one-way hash of the session's resume secret, so that the secret alone finds its session and
/// the stored id is the only, hashed, trace of the secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

/// What a player shows to take its session over to another socket: 128 random bits, constant for the session's
/// life. `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResumeSecret([u8; 16]);

/// One life of a gateway process, under which it holds entries; fresh at each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u64);

/// One try to resume, so that a repeated request gets the same answer (lease rule 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt(pub u64);

impl AccountKey {
    /// The key of `account` in `tenant`.
    #[must_use]
    pub fn new(tenant: &str, account: &str) -> Self {
        Self {
            tenant: tenant.into(),
            account: account.into(),
        }
    }
}

impl ResumeSecret {
    /// A fresh secret.
    #[must_use]
    pub fn generate() -> Self {
        Self(random())
    }

    /// Reads the 22 characters of a secret; anything else is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }

    /// The session that this secret belongs to.
    #[must_use]
    pub fn session(&self) -> SessionId {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"usher session v1:");
        context.update(&self.0);
        let mut id = [0; 16];
        id.copy_from_slice(&context.finish().as_ref()[..16]);
        SessionId(id)
    }

    /// The text that the player keeps.
    #[must_use]
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl SessionId {
    /// Reads the 22 characters of an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }

    /// An id of the given bytes, for tests and models.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl OwnerId {
    /// No process: what is held under it lives by a time of its own, not by a node's lease.
    pub const NONE: Self = Self(0);

    /// A fresh owner.
    #[must_use]
    pub fn generate() -> Self {
        Self(u64::from_ne_bytes(random()).max(1))
    }
}

impl Attempt {
    /// A fresh attempt.
    #[must_use]
    pub fn generate() -> Self {
        Self(u64::from_ne_bytes(random()))
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for ResumeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.account)
    }
}

/// Random bytes of the system's generator.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system's random generator answers once the process has started");
    bytes
}

fn decode(text: &str) -> Option<[u8; 16]> {
    (text.len() == 22)
        .then(|| URL_SAFE_NO_PAD.decode(text).ok())??
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_finds_its_session_and_hides_itself() {
        let secret = ResumeSecret::generate();
        let again = ResumeSecret::parse(&secret.expose()).expect("own text parses");
        assert_eq!(again.session(), secret.session());
        assert_ne!(secret.session().to_string(), secret.expose());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(
            SessionId::parse(&secret.session().to_string()),
            Some(secret.session())
        );
    }

    #[test]
    fn malformed_secrets_are_none() {
        for text in [
            "",
            "short",
            "AAAAAAAAAAAAAAAAAAAAA!",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "é".repeat(11).as_str(),
        ] {
            assert!(ResumeSecret::parse(text).is_none(), "{text}");
        }
    }
}
