//! One connection to one server.
//!
//! Owns: name resolution, TCP, TLS, HELLO with AUTH, each within one deadline.
//! Does not: know what the connection is for, or try again.
//! Called by: `server`, `subscription` and `sentinel`.

use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::failed::reason_of;
use crate::config::HostPort;

/// How to reach servers that share credentials and trust.
pub(super) struct Dialer {
    tls: Option<TlsConnector>,
    login: RedisConnectionInfo,
    timeout: Duration,
}

/// An authenticated connection that ends when it is dropped.
pub(super) struct Connection {
    /// Commands; clones share the connection.
    pub(super) commands: MultiplexedConnection,
    /// Cancelled when the connection is lost.
    pub(super) lost: CancellationToken,
    _driver: AbortOnDropHandle<()>,
}

impl Dialer {
    pub(super) fn new(
        tls: Option<TlsConnector>,
        (username, password): (&str, &str),
        database: u16,
        timeout: Duration,
    ) -> Self {
        // CLIENT SETINFO would be one more command for the ACL to allow.
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(i64::from(database))
            .set_skip_set_lib_name();
        if !username.is_empty() {
            login = login.set_username(username);
        }
        if !password.is_empty() {
            login = login.set_password(password);
        }
        Self { tls, login, timeout }
    }

    /// How long [`Dialer::dial`] takes at most.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects, or says why not. What the server pushes goes to `pushes`, which must not block.
    pub(super) async fn dial(
        &self,
        host: &HostPort,
        pushes: Option<Box<dyn AsyncPushSender>>,
    ) -> Result<Connection, String> {
        let attempt = Box::pin(self.attempt(host, pushes));
        tokio::time::timeout(self.timeout, attempt)
            .await
            .unwrap_or_else(|_| Err("no connection in time".to_owned()))
    }

    async fn attempt(
        &self,
        host: &HostPort,
        pushes: Option<Box<dyn AsyncPushSender>>,
    ) -> Result<Connection, String> {
        let stream = TcpStream::connect((host.host.as_str(), host.port))
            .await
            .map_err(|e| format!("cannot connect: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let Some(tls) = &self.tls else {
            return self.log_in(stream, pushes).await;
        };
        let name = ServerName::try_from(host.host.clone()).map_err(|e| e.to_string())?;
        let stream = tls.connect(name, stream).await;
        self.log_in(stream.map_err(|e| format!("TLS: {e}"))?, pushes)
            .await
    }

    async fn log_in<S>(
        &self,
        stream: S,
        pushes: Option<Box<dyn AsyncPushSender>>,
    ) -> Result<Connection, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Whoever asks sets the time: the crate's own limit (500 ms) would cut in before ours.
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if let Some(pushes) = pushes {
            config = config.set_push_sender(move |push| pushes.send(push));
        }
        let (commands, driver) = MultiplexedConnection::new_with_config(&self.login, stream, config)
            .await
            .map_err(|e| reason_of(&e))?;
        let lost = CancellationToken::new();
        let ended = lost.clone();
        let driver = tokio::spawn(async move {
            driver.await;
            ended.cancel();
        });
        Ok(Connection {
            commands,
            lost,
            _driver: AbortOnDropHandle::new(driver),
        })
    }
}
