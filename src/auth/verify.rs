//! From a token to its claims.
//!
//! Owns: the order of the checks: form, key, signature, claims, authority of the key.
//! Does not: decide what the bearer may do with the claims.
//! Called by: everything that takes a token from outside.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;

use super::claims::{Claims, Expected};
use super::error::{AuthError, Rejected};
use super::issue::Grant;
use super::jws::Jws;
use super::keyring::Keyring;
use super::own_key::OwnKey;
use super::signing::Signing;
use super::ticket::{self, Ticket};
use crate::config::{Auth, Secret};
use crate::outbound::Guard;

/// A shared secret below this is weaker than its HMAC (RFC 7518, section 3.2), in bytes.
const SAFE_SECRET_BYTES: usize = 32;

/// Verifies tokens and issues them.
pub struct Verifier {
    keyring: Keyring,
    audience: Option<String>,
    secret: Option<Arc<hmac::Key>>,
    signing: ArcSwap<Signing>,
}

impl Verifier {
    /// Reads every key that `settings` name, and makes the data directory's when none is configured. Key sets are
    /// fetched later, when a token first needs them, from addresses that `guard` permits.
    ///
    /// # Errors
    /// [`AuthError::Setting`], naming the setting that cannot be used.
    pub fn new(settings: &Auth, data_dir: &Path, guard: &Guard) -> Result<Self, AuthError> {
        let unless_empty = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        let secret = shared_secret(&settings.hmac_secret);
        let signing = Signing::load(settings, data_dir, secret.clone())?;
        let issuer = unless_empty(&settings.issuer);
        let keyring = Keyring::load(
            settings,
            signing.keys.clone(),
            secret.clone(),
            issuer.as_deref(),
            guard,
        )?;
        Ok(Self {
            keyring,
            audience: unless_empty(&settings.audience),
            secret,
            signing: ArcSwap::from_pointee(signing),
        })
    }

    /// Reads `auth.signing_key` (or the data directory's key) and `auth.rotation_keys` again, and signs with what is
    /// there from now on. Whatever the listed keys signed stays good.
    ///
    /// # Errors
    /// [`AuthError::Setting`], naming the setting that cannot be used: nothing is changed then.
    pub fn rotate(&self, settings: &Auth, data_dir: &Path) -> Result<(), AuthError> {
        let signing = Signing::load(settings, data_dir, self.secret.clone())?;
        self.keyring.rotate(signing.keys.clone());
        let before = self.signing.swap(Arc::new(signing));
        let kid = self.own_key().kid().to_owned();
        if before.own.kid() != kid {
            tracing::info!(before = before.own.kid(), kid, "another key signs from now on");
        }
        Ok(())
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
        self.signing.load().issuer.issue(grant, SystemTime::now())
    }

    /// Signs a playback ticket with the own key; `iss` is who issues it.
    ///
    /// # Errors
    /// [`AuthError::Signing`]: the cryptography failed.
    pub fn issue_ticket(&self, iss: &str, ticket: &Ticket) -> Result<Secret, AuthError> {
        ticket::issue(&self.signing.load().own, iss, ticket, SystemTime::now())
    }

    /// What a ticket says that a key of this installation signed and that has not run out. Whether its session still
    /// lives is another question.
    ///
    /// # Errors
    /// Why the ticket is not believed; an access token never is.
    pub fn verify_ticket(&self, token: &str) -> Result<Ticket, Rejected> {
        ticket::verify(&self.signing.load().keys, token, SystemTime::now())
    }

    /// The key set document (RFC 7517) with all that verifies tickets of this installation.
    #[must_use]
    pub fn key_set(&self) -> Arc<str> {
        Arc::clone(&self.signing.load().document)
    }

    /// The node's own key pair: `auth.signing_key` or the data directory's.
    #[must_use]
    pub fn own_key(&self) -> Arc<OwnKey> {
        Arc::clone(&self.signing.load().own)
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
