//! Every key that verifies tokens.
//!
//! Owns: the order in which keys are tried, and when a token is worth asking the identity providers.
//! Does not: read claims.
//! Called by: `verify`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use futures_util::future::join_all;

use super::error::{AuthError, Rejected};
use super::jwks::Source;
use super::jws::Jws;
use super::keys::{Algorithm, Authority, Key, Kid, parse_public_pem};
use crate::config::{Auth, PemKey};
use crate::outbound::Guard;

/// Most signatures checked for one token.
const MAX_TRIES: usize = 16;

/// Fixed keys and JWKS sources.
pub(crate) struct Keyring {
    /// The keys of this installation, which a rotation changes.
    own: ArcSwap<Vec<Arc<Key>>>,
    fixed: Vec<Arc<Key>>,
    sources: Vec<Arc<Source>>,
}

/// No key fits.
struct Miss {
    rejected: Rejected,
    /// Whether a key of the token's `kid` is known, so that a refresh would bring nothing new.
    named: bool,
}

impl Keyring {
    pub(crate) fn load(
        settings: &Auth,
        own: Vec<Arc<Key>>,
        secret: Option<Arc<hmac::Key>>,
        issuer: Option<&str>,
        guard: &Guard,
    ) -> Result<Self, AuthError> {
        let issuer = || issuer.map(str::to_owned);
        let mut fixed = Vec::new();
        if let Some(secret) = secret {
            fixed.push(Arc::new(Key::shared(secret, Authority::full(issuer()).into())));
        }
        for (i, key) in settings.keys.iter().enumerate() {
            fixed.push(Arc::new(load_pem(key, issuer(), &format!("auth.keys[{i}]"))?));
        }
        let mut sources = Vec::with_capacity(settings.jwks.len());
        for (i, jwks) in settings.jwks.iter().enumerate() {
            let at = format!("auth.jwks[{i}]");
            sources.push(Source::new(jwks, issuer(), at, guard.clone())?);
        }
        Ok(Self {
            own: ArcSwap::from_pointee(own),
            fixed,
            sources,
        })
    }

    /// Takes other keys of this installation into use.
    pub(crate) fn rotate(&self, own: Vec<Arc<Key>>) {
        self.own.store(Arc::new(own));
    }

    /// The key whose signature the token carries. Waits for the identity providers only when no known key fits
    /// and a new one might.
    pub(crate) async fn find(&self, jws: &Jws<'_>) -> Result<Arc<Key>, Rejected> {
        // No provider publishes a shared secret.
        let asks = jws.algorithm != Algorithm::Hs256;
        if asks {
            self.sources.iter().for_each(Source::refresh_if_old);
        }
        match self.find_known(jws) {
            Err(miss) if asks && !miss.named && !self.sources.is_empty() => {
                join_all(self.sources.iter().map(Source::refresh)).await;
                let unknown = self.sources.iter().any(|source| !source.is_known());
                self.find_known(jws).map_err(|miss| {
                    if unknown {
                        Rejected::Unavailable
                    } else {
                        miss.rejected
                    }
                })
            }
            found => found.map_err(|miss| miss.rejected),
        }
    }

    fn find_known(&self, jws: &Jws<'_>) -> Result<Arc<Key>, Miss> {
        let fetched: Vec<_> = self.sources.iter().map(|source| source.keys()).collect();
        let own = self.own.load();
        let all = || {
            own.iter()
                .chain(&self.fixed)
                .chain(fetched.iter().flat_map(|keys| keys.iter()))
        };
        let bears_kid = |key: &&Arc<Key>| match &key.kid {
            Kid::Any => false,
            Kid::Hint(kid) | Kid::Only(kid) => Some(kid) == jws.kid.as_ref(),
        };
        let named = all().any(|key| bears_kid(&key));
        let eligible = |key: &&Arc<Key>| {
            if named {
                bears_kid(key)
            } else {
                !matches!(key.kid, Kid::Only(_))
            }
        };
        let mut tries = all()
            .filter(eligible)
            .filter(|key| key.algorithm == jws.algorithm)
            .peekable();
        let rejected = match (tries.peek(), named) {
            (Some(_), _) => Rejected::Signature,
            (None, true) => Rejected::Algorithm,
            (None, false) => Rejected::UnknownKey,
        };
        let fits = |key: &&Arc<Key>| key.verifies(jws.message, &jws.signature);
        tries
            .take(MAX_TRIES)
            .find(fits)
            .cloned()
            .ok_or(Miss { rejected, named })
    }
}

fn load_pem(settings: &PemKey, issuer: Option<String>, at: &str) -> Result<Key, AuthError> {
    let algorithm = Algorithm::named(&settings.algorithm).filter(|a| *a != Algorithm::Hs256);
    let algorithm = algorithm.ok_or_else(|| {
        AuthError::setting(
            format!("{at}.algorithm"),
            "must be \"EdDSA\", \"ES256\" or \"RS256\"",
        )
    })?;
    let problem =
        |e: String| AuthError::setting(format!("{at}.file"), format!("{}: {e}", settings.file.display()));
    let pem = std::fs::read(&settings.file).map_err(|e| problem(e.to_string()))?;
    let public = parse_public_pem(algorithm, &pem).map_err(problem)?;
    let authority = Authority::from_settings(at, issuer, &settings.tenants, &settings.scopes)?;
    Ok(Key::public(
        algorithm,
        Kid::from_setting(&settings.kid),
        public,
        authority.into(),
    ))
}
