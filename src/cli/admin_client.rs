//! Asks a running node through its admin listener, with a token that the command mints for itself.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;

use crate::app::addresses_file;
use crate::auth::{Grant, Scope, Verifier};
use crate::config::Config;
use crate::outbound::Guard;

use super::{Failure, Settings};

/// Life of the minted token.
const TOKEN: Duration = Duration::from_secs(60);

/// A node that does not answer by then is not well.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

pub(super) struct AdminClient {
    config: Config,
    admin: SocketAddr,
}

#[derive(Deserialize)]
struct Addresses {
    admin: SocketAddr,
}

impl AdminClient {
    /// The node of these settings: where `--admin-listen` says, else where the data directory says it runs.
    pub(super) fn new(settings: &Settings) -> Result<Self, Failure> {
        let config = settings.load()?;
        let written = fs::read(addresses_file(&config.data.dir)).ok();
        let written = written.and_then(|text| serde_json::from_slice::<Addresses>(&text).ok());
        let admin = settings
            .admin_listen
            .or(written.map(|a| a.admin))
            .unwrap_or(config.listen.admin);
        Ok(Self { config, admin })
    }

    /// Asks without a token.
    pub(super) async fn ask_openly(&self, path: &str) -> Result<(StatusCode, String), Failure> {
        self.send(Method::GET, path, None, None).await
    }

    /// Asks as an operator and reads the JSON answer.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Value), Failure> {
        self.tell(method, path, None).await
    }

    /// The same with a JSON body.
    pub(super) async fn tell(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Failure> {
        let verifier = Verifier::new(
            &self.config.auth,
            &self.config.data.dir,
            &Guard::new(&self.config.outbound.allowed_private),
        )
        .map_err(Failure::other)?;
        let scopes = Some([Scope::Operator].into_iter().collect());
        let token = verifier
            .issue(&Grant {
                scopes,
                // Who it was is in the audit trail.
                ..Grant::new(format!("cli:uid={}", rustix::process::getuid().as_raw()), TOKEN)
            })
            .map_err(Failure::other)?;
        let (status, text) = self.send(method, path, Some(token.expose()), body).await?;
        let answer = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).map_err(Failure::other)?
        };
        if status.is_success() {
            return Ok((status, answer));
        }
        let message = answer["error"]["message"].as_str().unwrap_or("no reason given");
        Err(Failure::Other(format!("{}: {status}: {message}", self.admin)))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(StatusCode, String), Failure> {
        let client =
            Client::builder(TokioExecutor::new()).build::<_, Full<bytes::Bytes>>(HttpConnector::new());
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::from(body)).map_err(Failure::other)?;
        let answer = async {
            let response = client
                .request(request)
                .await
                .map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(Failure::other)?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        tokio::time::timeout(TIMEOUT, answer)
            .await
            .map_err(|_| self.unreachable(&"no answer in 5 s"))?
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::Other(format!("no node answers on http://{}: {error}", self.admin))
    }
}
