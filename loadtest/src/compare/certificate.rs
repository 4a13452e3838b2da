//! Certificates of a comparison, the same for every server in it.
//!
//! Owns: making them. Does not: serve them. Called by: [`super::servers`].

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};

/// Whose key the certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    P256,
    Rsa2048,
}

impl Key {
    /// The files of the certificate and its key.
    pub(super) fn files(self, dir: &Path) -> (PathBuf, PathBuf) {
        (
            dir.join(format!("{self:?}.pem")),
            dir.join(format!("{self:?}-key.pem")),
        )
    }
}

/// Makes a self-signed certificate with such a key, for this machine's loopback.
pub(super) fn certify(dir: &Path, key: Key) -> Result<(), String> {
    let pair = match key {
        Key::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        Key::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    };
    let pair = pair.map_err(|error| error.to_string())?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let params = CertificateParams::new(names).map_err(|error| error.to_string())?;
    let cert = params.self_signed(&pair).map_err(|error| error.to_string())?;
    let (cert_file, key_file) = key.files(dir);
    let saved = fs::write(cert_file, cert.pem()).and_then(|()| fs::write(key_file, pair.serialize_pem()));
    saved.map_err(|error| format!("{}: {error}", dir.display()))
}
