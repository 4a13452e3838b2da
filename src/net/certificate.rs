//! The certificate that new connections are given, exchangeable while the node runs.
//!
//! Owns: the certificate and key in memory, reading them from their files, and noticing that the files changed.
//! Does not: make certificates ([`super::devcert`]) or configure TLS ([`super::tls`]).
//! Called by: `app` at start and on SIGHUP; rustls at each handshake.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::MissedTickBehavior;
use x509_parser::parse_x509_certificate;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertPaths {
    /// PEM file of the chain, the server's own certificate first.
    pub cert: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
    /// PEM file of the CA that clients must trust, where we made it ourselves.
    pub ca: Option<PathBuf>,
}

/// What [`Certificates::reload`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// New connections get another certificate from now on; open ones keep theirs.
    Changed,
    /// The files are as they were.
    Unchanged,
}

/// The current pair. Given to rustls, which asks it at each handshake.
pub struct Certificates {
    paths: CertPaths,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Pair>,
    /// Held while the files are read, so that an older reading never replaces a newer one.
    reading: Mutex<()>,
}

/// Why the files give no certificate. A pair loaded earlier stays in use.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A file holds something else or is broken.
    #[error("{}: {detail}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Both files are fine, but not for each other.
    #[error("the key in {} is not the key of the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

#[derive(Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    expires_at: SystemTime,
    /// SHA-256 of both files' contents: what tells a change, since a Kubernetes secret changes by a swap of
    /// symlinks and a file may be written again with the same content.
    hash: [u8; digest::SHA256_OUTPUT_LEN],
}

impl Certificates {
    /// Reads both files. Blocks.
    ///
    /// # Errors
    /// When they are no certificate and matching key; the error names the file.
    pub fn load(paths: CertPaths, provider: Arc<CryptoProvider>) -> Result<Self, CertificateError> {
        let pair = Pair::read(&Files::read(&paths)?, &paths, &provider)?;
        Ok(Self {
            paths,
            provider,
            current: ArcSwap::from_pointee(pair),
            reading: Mutex::default(),
        })
    }

    /// Reads both files again; for new connections only. Blocks.
    ///
    /// # Errors
    /// As for [`Certificates::load`]; the pair in use stays.
    pub fn reload(&self) -> Result<Reload, CertificateError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let files = Files::read(&self.paths)?;
        if files.hash() == self.current.load().hash {
            return Ok(Reload::Unchanged);
        }
        let pair = Pair::read(&files, &self.paths, &self.provider)?;
        self.current.store(Arc::new(pair));
        Ok(Reload::Changed)
    }

    /// When the server's certificate ends.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.current.load().expires_at
    }

    /// The files.
    #[must_use]
    pub fn paths(&self) -> &CertPaths {
        &self.paths
    }

    /// Logs what a reload came to.
    pub fn log(&self, result: &Result<Reload, CertificateError>) {
        let expires_at = humantime::format_rfc3339_seconds(self.expires_at());
        match result {
            Ok(Reload::Changed) => {
                tracing::info!(cert = %self.paths.cert.display(), %expires_at, "certificate reloaded");
            }
            Ok(Reload::Unchanged) => {}
            Err(error) => {
                tracing::warn!(%error, %expires_at, "certificate not reloaded, the old one stays");
            }
        }
    }

    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }
}

/// Looks at the files every `interval` and reloads them when they changed, for as long as it is polled. Each look
/// is handed to `report`, and a change or a new failure is logged. An interval of zero never looks.
pub async fn watch<F>(certificates: Arc<Certificates>, interval: Duration, mut report: F)
where
    F: FnMut(&Result<Reload, CertificateError>),
{
    if interval.is_zero() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // at once: the files were read just now
    let mut last_failure = None;
    loop {
        ticks.tick().await;
        let shared = Arc::clone(&certificates);
        // It fails only when the runtime shuts down.
        let Ok(result) = tokio::task::spawn_blocking(move || shared.reload()).await else {
            return;
        };
        // A broken file is one line in the log, not one at each look.
        let failure = result.as_ref().err().map(ToString::to_string);
        if failure.is_none() || failure != last_failure {
            certificates.log(&result);
        }
        last_failure = failure;
        report(&result);
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// The bytes of one reading, so that what was hashed is what is used.
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(paths: &CertPaths) -> Result<Self, CertificateError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| CertificateError::Read {
                path: path.to_owned(),
                error,
            })
        };
        Ok(Self {
            cert: read(&paths.cert)?,
            key: read(&paths.key)?,
        })
    }

    fn hash(&self) -> [u8; digest::SHA256_OUTPUT_LEN] {
        let mut both = [0; 2 * digest::SHA256_OUTPUT_LEN];
        let (cert, key) = both.split_at_mut(digest::SHA256_OUTPUT_LEN);
        cert.copy_from_slice(digest::digest(&digest::SHA256, &self.cert).as_ref());
        key.copy_from_slice(digest::digest(&digest::SHA256, &self.key).as_ref());
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &both).as_ref());
        hash
    }
}

impl Pair {
    fn read(files: &Files, paths: &CertPaths, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let in_cert = |detail: String| CertificateError::Content {
            path: paths.cert.clone(),
            detail,
        };
        let in_key = |detail: String| CertificateError::Content {
            path: paths.key.clone(),
            detail,
        };

        let chain = CertificateDer::pem_slice_iter(&files.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| in_cert(describe(&error)))?;
        let leaf = chain
            .first()
            .ok_or_else(|| in_cert("holds no PEM certificate".to_owned()))?;
        let expires_at = expiry(leaf).map_err(in_cert)?;
        let key = read_key(&files.key).map_err(in_key)?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| in_key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(CertificateError::Mismatch {
                    cert: paths.cert.clone(),
                    key: paths.key.clone(),
                });
            }
            Err(error) => return Err(in_cert(error.to_string())),
        }
        Ok(Self {
            certified: Arc::new(certified),
            expires_at,
            hash: files.hash(),
        })
    }
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let holds = |mark: &[u8]| text.windows(mark.len()).any(|part| part == mark);
    // PKCS#8 and the older PEM encryption of RFC 1421; neither can be told from broken PEM further down.
    if holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(
            "the private key is encrypted; decrypt it first (openssl pkey -in .. -out ..)".to_owned(),
        );
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => "holds no PEM private key (PKCS#8, PKCS#1 or SEC1)".to_owned(),
        error => describe(&error),
    })
}

/// The parser's own texts show bytes as lists of numbers.
fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "PEM section without its END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "malformed PEM BEGIN line".to_owned(),
        pem::Error::Base64Decode(_) => "PEM section is not valid base64".to_owned(),
        error => error.to_string(),
    }
}

fn expiry(leaf: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, leaf) =
        parse_x509_certificate(leaf).map_err(|error| format!("not an X.509 certificate: {error}"))?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
pub(super) mod tests;
