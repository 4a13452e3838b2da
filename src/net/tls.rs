//! TLS as this node speaks it.
//!
//! Owns: versions, protocols and session tickets; `stream` the bytes of a connection.
//! Does not: hold the certificate ([`super::certificate`]), accept connections or time handshakes.
//! Called by: `app`, once; the listener wraps each connection with it.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, ServerConfig};

use super::certificate::Certificates;

pub mod stream;

/// The cryptography that every part of the node is given, rather than a default of the process.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The server's side: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, no early data (a replayed request would start
/// a session twice).
///
/// Sessions resume by stateless tickets alone, whose keys live in this process and rotate every six hours; clients
/// that come back after a network loss, all at once, then cost no signature.
///
/// # Errors
/// When the system gives no randomness for the tickets' keys.
pub fn server_config(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(certificates.provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // One suffices: a player opens one socket at a time.
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
