//! The public face of a signing key: what verifies its signatures, and how a key set document shows it.
//!
//! Owns: the thumbprint by which such a key is called, and reading one from a PEM file.
//! Does not: sign, or decide what a key may assert.
//! Called by: `own_key`, and `signing` for the other keys of a rotation.

use std::path::Path;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::error::AuthError;
use super::keys::{Algorithm, Authority, Key, Kid, parse_public};
use super::own_key::OwnKey;

/// Bytes of an Ed25519 public key (RFC 8032, section 5.1.5).
const ED25519_BYTES: usize = 32;
/// Bytes of an uncompressed P-256 point (SEC 1, section 2.3.3).
const P256_BYTES: usize = 65;

/// An Ed25519 or P-256 public key.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    pub(crate) algorithm: Algorithm,
    /// The JWK thumbprint (RFC 7638, SHA-256).
    pub(crate) kid: String,
    pub(crate) jwk: Jwk,
    raw: Vec<u8>,
}

impl PublicKey {
    /// From the bytes of the key itself: 32 for Ed25519, an uncompressed point for P-256.
    pub(crate) fn new(algorithm: Algorithm, raw: &[u8]) -> Result<Self, String> {
        let (public, named) = match algorithm {
            Algorithm::EdDsa => (DecodingKey::from_ed_der(raw), jsonwebtoken::Algorithm::EdDSA),
            Algorithm::Es256 => (DecodingKey::from_ec_der(raw), jsonwebtoken::Algorithm::ES256),
            Algorithm::Rs256 | Algorithm::Hs256 => {
                return Err("neither an Ed25519 nor a P-256 key".to_owned());
            }
        };
        parse_public(algorithm, raw)?;
        let mut jwk = Jwk::from_decoding_key(&public, Some(named)).map_err(|e| e.to_string())?;
        let kid = jwk
            .thumbprint(ThumbprintHash::SHA256)
            .map_err(|e| e.to_string())?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self {
            algorithm,
            kid,
            jwk,
            raw: raw.to_vec(),
        })
    }

    /// Reads a PEM file that holds the public key, or the private one, as it was moved aside.
    pub(crate) fn load(file: &Path) -> Result<Self, String> {
        let pem = std::fs::read(file).map_err(|e| e.to_string())?;
        let Ok(der) = SubjectPublicKeyInfoDer::from_pem_slice(&pem) else {
            let own = OwnKey::from_pem(&pem);
            return own
                .map(|own| own.public().clone())
                .map_err(|e| format!("{e}, and no PEM section PUBLIC KEY"));
        };
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|e| e.to_string())?;
        let raw = &info.subject_public_key.data;
        let algorithm = match raw.len() {
            ED25519_BYTES => Algorithm::EdDsa,
            P256_BYTES => Algorithm::Es256,
            _ => return Err("neither an Ed25519 nor a P-256 key".to_owned()),
        };
        // The whole of it, which names its kind: a curve of another name has as many bytes.
        parse_public(algorithm, &der)?;
        Self::new(algorithm, raw)
    }

    /// The key that verifies, with what its tokens may say.
    pub(crate) fn verifying_key(&self, authority: Authority) -> Result<Key, AuthError> {
        let public = parse_public(self.algorithm, &self.raw).map_err(|_| AuthError::Signing)?;
        let kid = Kid::Hint(self.kid.clone());
        Ok(Key::public(self.algorithm, kid, public, authority.into()))
    }
}
