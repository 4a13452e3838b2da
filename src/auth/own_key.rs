//! The node's own signing key.
//!
//! Owns: `auth.signing_key`, or the key file in the data directory, made once even when processes start together.
//! Does not: know what it signs.
//! Called by: `verify` at the start, `issue`, and whatever else must carry the node's signature.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::AuthError;
use super::jws::TICKET_TYPE;
use super::keys::Algorithm;
use super::public_key::PublicKey;
use crate::config::Secret;

/// The key's name in the data directory.
pub const FILE_NAME: &str = "signing-key.pem";

/// An Ed25519 or P-256 key pair and its public face.
pub struct OwnKey {
    pair: Pair,
    public: PublicKey,
    /// The header of a ticket that it signs, in base64url: the same for all of them.
    ticket_header: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl OwnKey {
    /// Reads `configured`, or when that is empty the data directory's key, which is made when missing.
    pub(crate) fn load(configured: &Path, data_dir: &Path) -> Result<Self, AuthError> {
        if configured.as_os_str().is_empty() {
            let path = data_dir.join(FILE_NAME);
            let problem = |e: String| AuthError::setting("data.dir", format!("{}: {e}", path.display()));
            let pem = read_or_make(&path).map_err(|e| problem(e.to_string()))?;
            Self::from_pem(&pem).map_err(problem)
        } else {
            let problem =
                |e: String| AuthError::setting("auth.signing_key", format!("{}: {e}", configured.display()));
            let pem = fs::read(configured).map_err(|e| problem(e.to_string()))?;
            Self::from_pem(&pem).map_err(problem)
        }
    }

    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem)
            .map_err(|_| "holds no PEM section PRIVATE KEY (PKCS#8)".to_owned())?;
        let der = der.secret_pkcs8_der();
        let pair = if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            Pair::Ed25519(pair)
        } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            Pair::P256(pair)
        } else {
            return Err("neither an Ed25519 nor a P-256 private key".to_owned());
        };
        let public = match &pair {
            Pair::Ed25519(pair) => PublicKey::new(Algorithm::EdDsa, pair.public_key().as_ref()),
            Pair::P256(pair) => PublicKey::new(Algorithm::Es256, pair.public_key().as_ref()),
        }?;
        let header = header(&public, TICKET_TYPE).to_string();
        Ok(Self {
            pair,
            public,
            ticket_header: URL_SAFE_NO_PAD.encode(header),
        })
    }

    /// Its name in tokens: the JWK thumbprint (RFC 7638, SHA-256).
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.public.kid
    }

    /// The public key, for a JWKS document.
    #[must_use]
    pub fn public_jwk(&self) -> &Jwk {
        &self.public.jwk
    }

    /// A signed token (RFC 7515, compact form) whose header says `typ` and this key's `kid`.
    ///
    /// # Errors
    /// [`AuthError::Signing`]: the claims are no JSON, or the cryptography failed.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<Secret, AuthError> {
        let header = header(&self.public, typ);
        compact(&header, claims, |message| self.signature(message))
    }

    /// A signed ticket: as [`Self::sign`] does it, with a header that is ready.
    pub(crate) fn sign_ticket(&self, claims: &impl Serialize) -> Result<Secret, AuthError> {
        join(&self.ticket_header, claims, |message| self.signature(message))
    }

    /// What verifies its signatures.
    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, AuthError> {
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(message),
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message),
        };
        signature
            .map(|s| s.as_ref().to_vec())
            .map_err(|_| AuthError::Signing)
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey")
            .field("kid", &self.public.kid)
            .finish_non_exhaustive()
    }
}

fn header(public: &PublicKey, typ: &str) -> Value {
    json!({"alg": public.algorithm.name(), "typ": typ, "kid": public.kid})
}

/// Joins header, claims and the signature over both.
pub(crate) fn compact(
    header: &impl Serialize,
    claims: &impl Serialize,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, AuthError>,
) -> Result<Secret, AuthError> {
    let header = serde_json::to_vec(header).map_err(|_| AuthError::Signing)?;
    join(&URL_SAFE_NO_PAD.encode(header), claims, sign)
}

/// The same with a header that is in base64url already.
fn join(
    header: &str,
    claims: &impl Serialize,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, AuthError>,
) -> Result<Secret, AuthError> {
    let claims = serde_json::to_vec(claims).map_err(|_| AuthError::Signing)?;
    let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(Secret::from(token))
}

fn read_or_make(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            make(path)?;
            fs::read(path)
        }
        read => read,
    }
}

/// Writes a whole key beside `path` and links it there. A link never replaces a file, so of several processes
/// that start at once one wins and the others find its key; nobody ever reads half a key.
fn make(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let spare = spare_path(path)?;
    let linked = write_key(&spare).and_then(|()| match fs::hard_link(&spare, path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    fs::remove_file(&spare)?;
    linked?;
    File::open(directory)?.sync_all()
}

/// Random, since process ids repeat across containers that share a volume.
fn spare_path(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 12];
    rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(path.with_extension(format!("pem.{}", URL_SAFE_NO_PAD.encode(random))))
}

fn write_key(path: &Path) -> io::Result<()> {
    // PKCS#8 version 1 (no public key inside), which every OpenSSL reads; it fits one line of PEM.
    let pair = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
    let pair = pair.map_err(|_| io::Error::other("cannot make an Ed25519 key"))?;
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(pair.as_ref())
    );
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;

    use super::*;
    use crate::auth::tests::fixture::TempDir;

    #[test]
    fn those_who_start_together_end_with_one_key() {
        let dir = TempDir::new();
        let data = dir.path().join("made/on/the/way");
        let barrier = Barrier::new(16);
        let kids: Vec<String> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                OwnKey::load(Path::new(""), &data).unwrap().kid().to_owned()
            };
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(kids.iter().all(|kid| *kid == kids[0]));
        let files: Vec<_> = fs::read_dir(&data)
            .unwrap()
            .map(|f| f.unwrap().file_name())
            .collect();
        assert_eq!(files, [FILE_NAME], "no spare file is left");
        let mode = fs::metadata(data.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_bad_file_is_an_error_and_never_replaced() {
        let dir = TempDir::new();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, "not a key").unwrap();
        let error = OwnKey::load(Path::new(""), dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("data.dir: "), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
        let error = OwnKey::load(&dir.path().join("absent"), dir.path())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("auth.signing_key: "), "{error}");
    }

    #[test]
    fn kid_is_the_thumbprint_of_rfc_8037() {
        // The key pair of RFC 8037, appendix A.1, and its thumbprint, appendix A.3.
        let seed = URL_SAFE_NO_PAD
            .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
            .unwrap();
        let der = Ed25519KeyPair::from_seed_unchecked(&seed)
            .unwrap()
            .to_pkcs8v1()
            .unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        let key = OwnKey::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let jwk = serde_json::to_value(key.public_jwk()).unwrap();
        assert_eq!(jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!((&jwk["use"], &jwk["alg"]), (&"sig".into(), &"EdDSA".into()));
    }
}
