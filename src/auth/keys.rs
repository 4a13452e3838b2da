//! One key that verifies tokens.
//!
//! Owns: the four algorithms, a key's one algorithm, its `kid`, and what it may assert.
//! Does not: choose between keys (`keyring` does) or fetch them (`jwks` does).
//! Called by: `keyring`, `jwk` and `own_key`, which make keys.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

use super::claims::is_tenant;
use super::error::AuthError;
use super::scope::{Scope, Scopes};

/// Shortest RSA modulus (NIST SP 800-131A), in bytes.
pub(crate) const MIN_RSA_BYTES: usize = 2048 / 8;

/// Signature algorithms (RFC 7518, RFC 8037); nothing else exists here, `none` least of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
    Hs256,
}

impl Algorithm {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "EdDSA" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            "HS256" => Some(Self::Hs256),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }
}

/// How a token's `kid` bears on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kid {
    /// The key has none: it is tried when a token's `kid` names no key, or is absent.
    Any,
    /// As `Any`, and found by this as well: the own key's thumbprint, which nobody configured.
    Hint(String),
    /// The key is tried for tokens with this `kid` only.
    Only(String),
}

impl Kid {
    pub(crate) fn from_setting(kid: &str) -> Self {
        if kid.is_empty() {
            Self::Any
        } else {
            Self::Only(kid.to_owned())
        }
    }
}

/// What the tokens of a key may say.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Required `iss`.
    pub(crate) issuer: Option<String>,
    /// `None`: all.
    tenants: Option<Vec<String>>,
    pub(crate) scopes: Scopes,
}

impl Authority {
    /// All tenants and scopes: the own key and the shared secret.
    pub(crate) fn full(issuer: Option<String>) -> Self {
        Self {
            issuer,
            tenants: None,
            scopes: Scopes::all(),
        }
    }

    /// From the settings under `at`, such as `auth.keys[0]`.
    pub(crate) fn from_settings(
        at: &str,
        issuer: Option<String>,
        tenants: &[String],
        scopes: &[String],
    ) -> Result<Self, AuthError> {
        if tenants.is_empty() {
            return Err(AuthError::setting(format!("{at}.tenants"), "names no tenant"));
        }
        if let Some(bad) = tenants.iter().find(|t| *t != "*" && !is_tenant(t)) {
            return Err(AuthError::setting(
                format!("{at}.tenants"),
                format!("{bad:?} cannot be a tenant"),
            ));
        }
        let scopes = scopes
            .iter()
            .map(|word| word.parse::<Scope>())
            .collect::<Result<Scopes, _>>();
        Ok(Self {
            issuer,
            tenants: (!tenants.iter().any(|t| t == "*")).then(|| tenants.to_vec()),
            scopes: scopes.map_err(|e| AuthError::setting(format!("{at}.scopes"), e))?,
        })
    }

    pub(crate) fn covers(&self, tenant: &str) -> bool {
        self.tenants
            .as_ref()
            .is_none_or(|tenants| tenants.iter().any(|t| t == tenant))
    }
}

/// A verifying key; its algorithm is its own and never the token's choice.
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Kid,
    pub(crate) authority: Arc<Authority>,
    material: Material,
}

enum Material {
    Public(ParsedPublicKey),
    Shared(Arc<hmac::Key>),
}

impl Key {
    /// The shared secret of HS256.
    pub(crate) fn shared(secret: Arc<hmac::Key>, authority: Arc<Authority>) -> Self {
        Self {
            algorithm: Algorithm::Hs256,
            kid: Kid::Any,
            authority,
            material: Material::Shared(secret),
        }
    }

    /// A public key of `algorithm` that is parsed and checked already.
    pub(crate) fn public(
        algorithm: Algorithm,
        kid: Kid,
        key: ParsedPublicKey,
        authority: Arc<Authority>,
    ) -> Self {
        Self {
            algorithm,
            kid,
            authority,
            material: Material::Public(key),
        }
    }

    /// Whether `signature` over `message` is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
            Material::Shared(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// Parses a raw or `SubjectPublicKeyInfo` public key (RSA: either DER form) of just this algorithm.
pub(crate) fn parse_public(algorithm: Algorithm, bytes: &[u8]) -> Result<ParsedPublicKey, String> {
    let scheme: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::EdDsa => &ED25519,
        Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Hs256 => return Err("HS256 has no public key".to_owned()),
    };
    let unfit = || format!("not a public key for {}", algorithm.name());
    if algorithm == Algorithm::Rs256 {
        // aws-lc-rs checks the size only when a signature is verified.
        let modulus_bytes = rsa::PublicKey::from_der(bytes)
            .map_err(|_| unfit())?
            .modulus_len();
        if modulus_bytes < MIN_RSA_BYTES {
            return Err(format!(
                "an RSA key of {} bits; at least 2048 are needed",
                modulus_bytes * 8
            ));
        }
    }
    ParsedPublicKey::new(scheme, bytes).map_err(|_| unfit())
}

/// Parses the first `PUBLIC KEY` of a PEM file.
pub(crate) fn parse_public_pem(algorithm: Algorithm, pem: &[u8]) -> Result<ParsedPublicKey, String> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .map_err(|_| "holds no PEM section PUBLIC KEY (SubjectPublicKeyInfo)".to_owned())?;
    parse_public(algorithm, &der)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const RSA_1024: &[u8] = b"-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDDUe+TCthoAwS3CpOO8wEoFE/D
229A4tD3K2p8GTSNsJCpkgJHeou+1q5NlqNt+8185Xrhi/EDjOsFjyn946pYWpU7
cQMQ1Th50/rRAU9z2fgDQqXg0fSMw/qQqE7SjQwQiGFpLtsVZIGkHOWTUhABx3l/
9WtMgw+UgypDOaTCNQIDAQAB
-----END PUBLIC KEY-----
";

    #[test]
    fn a_short_rsa_key_is_refused() {
        let problem = parse_public_pem(Algorithm::Rs256, RSA_1024).err().unwrap();
        assert!(problem.contains("1024 bits"), "{problem}");
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Hs256] {
            assert!(parse_public_pem(algorithm, RSA_1024).is_err(), "{algorithm:?}");
        }
        assert!(parse_public_pem(Algorithm::Rs256, b"-----BEGIN PRIVATE KEY-----").is_err());
    }

    #[test]
    fn settings_name_their_key() {
        let words = |list: &[&str]| list.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let problem = |tenants: &[&str], scopes: &[&str]| {
            let made = Authority::from_settings("auth.keys[1]", None, &words(tenants), &words(scopes));
            made.unwrap_err().to_string()
        };
        assert_eq!(
            problem(&["main"], &["root"]),
            "auth.keys[1].scopes: unknown scope \"root\""
        );
        assert_eq!(problem(&[], &[]), "auth.keys[1].tenants: names no tenant");
        assert!(problem(&["a b"], &[]).starts_with("auth.keys[1].tenants: "));
    }
}
