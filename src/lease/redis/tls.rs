//! TLS to Redis.
//!
//! Owns: whom the link trusts and what certificate it shows.
//! Does not: connect. Called by: `link`, once.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

use super::link::LinkError;
use crate::config::Redis;

/// The client's side of TLS as the settings want it.
pub(super) fn connector(settings: &Redis) -> Result<TlsConnector, LinkError> {
    let wrong = |key| move |message: String| LinkError { key, message };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong("redis.url")(e.to_string()))?;
    let builder = if settings.ca.as_os_str().is_empty() {
        builder
            .with_native_roots()
            .map_err(|e| wrong("redis.ca")(e.to_string()))?
    } else {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&settings.ca).map_err(wrong("redis.ca"))? {
            let added = roots.add(certificate);
            added.map_err(|e| wrong("redis.ca")(format!("{}: {e}", settings.ca.display())))?;
        }
        builder.with_root_certificates(roots)
    };
    let config = if settings.cert.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = certificates(&settings.cert).map_err(wrong("redis.cert"))?;
        let key = PrivateKeyDer::from_pem_file(&settings.key)
            .map_err(|e| wrong("redis.key")(format!("{}: {e}", settings.key.display())))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| wrong("redis.cert")(format!("does not fit redis.key: {e}")))?
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |e: rustls_pki_types::pem::Error| format!("{}: {e}", file.display());
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(problem)?
        .map(|certificate| certificate.map_err(problem))
        .collect();
    let found = found?;
    if found.is_empty() {
        return Err(format!("{}: holds no PEM section CERTIFICATE", file.display()));
    }
    Ok(found)
}
