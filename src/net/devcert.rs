//! A CA and a server certificate for development, made on first start.
//!
//! Owns: the directory `certs/` and the four files in it.
//! Does not: serve them ([`super::certificate`]) or install the CA anywhere.
//! Called by: `app` when `tls.cert` is not set, and `usher certs`.

mod file;
mod issue;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::certificate::CertPaths;

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const SERVER: &str = "server.pem";
const SERVER_KEY: &str = "server-key.pem";

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum DevCertError {
    /// A file or directory cannot be read or written.
    #[error("development certificate: {}: {error}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The cryptography failed.
    #[error("development certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// Gives the files of a server certificate for `localhost`, the loopback addresses, this host's name and `listen`,
/// in `<working_dir>/certs`, or in `<data_dir>/certs` when that is not writable.
///
/// What is there stays, so that a CA is trusted by hand once; the server's certificate is made again when it
/// nears its end or does not cover `listen`, the CA when it nears its own or its files are broken. Processes take
/// turns by a file lock. Blocks.
///
/// # Errors
/// When neither directory is writable; the error names the last file tried.
pub fn ensure(working_dir: &Path, data_dir: &Path, listen: IpAddr) -> Result<CertPaths, DevCertError> {
    match ensure_in(&working_dir.join("certs"), listen) {
        Err(DevCertError::File { path, error }) if is_unwritable(&error) => {
            tracing::debug!(path = %path.display(), %error, "not writable, certificates go to the data directory");
            ensure_in(&data_dir.join("certs"), listen)
        }
        result => result,
    }
}

fn ensure_in(dir: &Path, listen: IpAddr) -> Result<CertPaths, DevCertError> {
    let _lock = file::lock(dir)?;
    let ca = match read_pair(dir, CA, CA_KEY)?.and_then(|(cert, key)| issue::Ca::read(&cert, &key)) {
        Some(ca) => ca,
        None => {
            let (ca, pems) = issue::Ca::make()?;
            write_pair(dir, CA, CA_KEY, &pems)?;
            tracing::info!(path = %dir.join(CA).display(), "development CA made; trust it in browsers and tools");
            ca
        }
    };
    let present = read_pair(dir, SERVER, SERVER_KEY)?.and_then(|(cert, key)| ca.read_leaf(&cert, &key));
    if !present.as_ref().is_some_and(|leaf| leaf.is_good_for(listen)) {
        // Addresses of before are kept: another node of this directory may listen there.
        let pems = ca.make_leaf(listen, present.map(|leaf| leaf.addresses).unwrap_or_default())?;
        write_pair(dir, SERVER, SERVER_KEY, &pems)?;
        tracing::info!(path = %dir.join(SERVER).display(), "development certificate made");
    }
    Ok(CertPaths {
        cert: dir.join(SERVER),
        key: dir.join(SERVER_KEY),
        ca: Some(dir.join(CA)),
    })
}

fn read_pair(dir: &Path, cert: &str, key: &str) -> Result<Option<(String, String)>, DevCertError> {
    Ok(file::read(&dir.join(cert))?.zip(file::read(&dir.join(key))?))
}

/// A kill between the two leaves a pair that does not match, which the next start makes again.
fn write_pair(dir: &Path, cert: &str, key: &str, pems: &issue::Pems) -> Result<(), DevCertError> {
    file::write(dir, key, &pems.key)?;
    file::write(dir, cert, &pems.cert)
}

fn is_unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(
        error.kind(),
        PermissionDenied | ReadOnlyFilesystem | NotADirectory
    )
}

#[cfg(test)]
mod tests;
