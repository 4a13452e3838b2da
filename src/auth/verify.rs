//! From a token to its claims.
//!
//! Owns: the order of the checks: form, key, signature, claims, authority of the key.
//! Does not: decide what the bearer may do with the claims.
//! Called by: everything that takes a token from outside.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;

use super::claims::{Claims, Expected};
use super::error::{AuthError, Rejected};
use super::issue::{Grant, Issuer, Signer};
use super::jws::Jws;
use super::keyring::Keyring;
use super::own_key::OwnKey;
use crate::config::{Auth, Secret};
use crate::outbound::Guard;

/// A shared secret below this is weaker than its HMAC (RFC 7518, section 3.2), in bytes.
const SAFE_SECRET_BYTES: usize = 32;

/// Verifies tokens and issues them.
pub struct Verifier {
    keyring: Keyring,
    audience: Option<String>,
    issuer: Issuer,
    own_key: Arc<OwnKey>,
}

impl Verifier {
    /// Reads every key that `settings` name, and makes the data directory's when none is configured. Key sets are
    /// fetched later, when a token first needs them, from addresses that `guard` permits.
    ///
    /// # Errors
    /// [`AuthError::Setting`], naming the setting that cannot be used.
    pub fn new(settings: &Auth, data_dir: &Path, guard: &Guard) -> Result<Self, AuthError> {
        let unless_empty = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        let (iss, audience) = (unless_empty(&settings.issuer), unless_empty(&settings.audience));
        let own_key = Arc::new(OwnKey::load(&settings.signing_key, data_dir)?);
        let secret = shared_secret(&settings.hmac_secret);
        let keyring = Keyring::load(settings, &own_key, secret.clone(), iss.as_deref(), guard)?;
        let signer = match secret {
            Some(secret) if settings.signing_key.as_os_str().is_empty() => Signer::Shared(secret),
            _ => Signer::Own(own_key.clone()),
        };
        Ok(Self {
            keyring,
            issuer: Issuer::new(signer, iss, audience.clone()),
            audience,
            own_key,
        })
    }

    /// The claims of an access token. May wait for an identity provider, at most for the fetch's time-out (3 s).
    ///
    /// # Errors
    /// Why the token is not believed; nothing of it is in the message.
    pub async fn verify(&self, token: &str) -> Result<Claims, Rejected> {
        let jws = Jws::parse(token)?;
        let key = self.keyring.find(&jws).await?;
        let expected = Expected {
            issuer: key.authority.issuer.as_deref(),
            audience: self.audience.as_deref(),
            now: SystemTime::now(),
        };
        let mut claims = Claims::parse(&jws.payload, &expected)?;
        if !key.authority.covers(&claims.tenant) {
            return Err(Rejected::Tenant);
        }
        claims.scopes = claims.scopes.within(key.authority.scopes);
        Ok(claims)
    }

    /// Signs an access token, which every node with the same settings verifies: with `auth.signing_key` when that is
    /// set, else with `auth.hmac_secret` when that is set, else with the data directory's key.
    ///
    /// # Errors
    /// [`AuthError::Grant`]: the token would be rejected. [`AuthError::Signing`]: the cryptography failed.
    pub fn issue(&self, grant: &Grant) -> Result<Secret, AuthError> {
        self.issuer.issue(grant, SystemTime::now())
    }

    /// The node's own key pair: `auth.signing_key` or the data directory's.
    #[must_use]
    pub fn own_key(&self) -> &Arc<OwnKey> {
        &self.own_key
    }
}

fn shared_secret(secret: &Secret) -> Option<Arc<hmac::Key>> {
    if secret.is_empty() {
        return None;
    }
    if secret.expose().len() < SAFE_SECRET_BYTES {
        tracing::warn!("auth.hmac_secret is shorter than {SAFE_SECRET_BYTES} bytes: it can be guessed");
    }
    Some(Arc::new(hmac::Key::new(
        hmac::HMAC_SHA256,
        secret.expose().as_bytes(),
    )))
}
