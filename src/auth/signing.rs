//! The keys of this installation: the one that signs, and those that signed before or will sign next.
//!
//! Owns: what a rotation changes at once: the signer of tokens and tickets, what verifies them, and the key set that is
//! published. Does not: verify access tokens (the keyring does).
//! Called by: `verify`, at the start and at each reload.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use serde_json::json;

use super::error::AuthError;
use super::issue::{Issuer, Signer};
use super::keys::{Authority, Key};
use super::own_key::OwnKey;
use super::public_key::PublicKey;
use crate::config::Auth;

/// What signs, and what verifies it.
pub(crate) struct Signing {
    pub(crate) own: Arc<OwnKey>,
    pub(crate) issuer: Issuer,
    /// The own key first.
    pub(crate) keys: Vec<Arc<Key>>,
    /// The key set document (RFC 7517).
    pub(crate) document: Arc<str>,
}

impl Signing {
    /// Reads `auth.signing_key` or the data directory's key, and `auth.rotation_keys`.
    pub(crate) fn load(
        settings: &Auth,
        data_dir: &Path,
        secret: Option<Arc<hmac::Key>>,
    ) -> Result<Self, AuthError> {
        let own = Arc::new(OwnKey::load(&settings.signing_key, data_dir)?);
        let mut publics = vec![own.public().clone()];
        for (i, file) in settings.rotation_keys.iter().enumerate() {
            let public = PublicKey::load(file).map_err(|problem| {
                AuthError::setting(
                    format!("auth.rotation_keys[{i}]"),
                    format!("{}: {problem}", file.display()),
                )
            })?;
            // The key that signs may be listed too, so that a rotation changes one setting at a time.
            if publics.iter().all(|known| known.kid != public.kid) {
                publics.push(public);
            }
        }
        let unless_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let (iss, aud) = (unless_empty(&settings.issuer), unless_empty(&settings.audience));
        let key = |public: &PublicKey| public.verifying_key(Authority::full(iss.clone())).map(Arc::new);
        let keys = publics.iter().map(key).collect::<Result<_, _>>()?;
        let jwks: Vec<_> = publics.iter().map(|public| &public.jwk).collect();
        let document = json!({"keys": jwks}).to_string().into();
        let signer = match secret {
            Some(secret) if settings.signing_key.as_os_str().is_empty() => Signer::Shared(secret),
            _ => Signer::Own(Arc::clone(&own)),
        };
        Ok(Self {
            issuer: Issuer::new(signer, iss, aud),
            own,
            keys,
            document,
        })
    }
}
