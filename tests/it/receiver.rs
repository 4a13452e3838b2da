//! A receiver of webhooks: an HTTPS server on a port of 127.0.0.1, as well or badly behaved as a test needs.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::harness::eventually_within;
use crate::stage::Place;

/// The secret that receivers share with the nodes under test.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

/// How the receiver answers.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// With this status, and these header lines.
    Status(u16, &'static str),
    /// With 200 and a body of this many bytes.
    Verbose(usize),
    /// Not at all: it reads the request and keeps the connection.
    Hang,
}

/// What was delivered and taken (2xx).
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) id: String,
    pub(crate) body: Value,
}

/// A receiver.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    place: Place,
    tls: TlsAcceptor,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

struct Shared {
    mood: Mutex<Mood>,
    taken: Mutex<Vec<Delivered>>,
    /// Requests, taken or not.
    asked: Mutex<usize>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let place = Place::new();
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        place.write("ca.pem", &made.cert.pem());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let mut receiver = Self {
            port: 0,
            place,
            tls: TlsAcceptor::from(Arc::new(config)),
            shared: Arc::new(Shared {
                mood: Mutex::new(Mood::Status(204, "")),
                taken: Mutex::default(),
                asked: Mutex::default(),
            }),
            task: None,
        };
        receiver.come_back().await;
        receiver
    }

    /// PEM file of the CA to trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.place.path().join("ca.pem")
    }

    /// The tables of a configuration in which this is the only receiver, and tries are quick; `more` is of the receiver.
    pub(crate) fn settings(&self, more: &str) -> String {
        settings(self.port, &self.ca(), more)
    }

    /// The same, with a receiver that is given up on soon.
    pub(crate) fn impatient(&self) -> String {
        let toml = self.settings("");
        toml.replace("timeout = \"5s\"", "timeout = \"500ms\"")
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// Closes the port and every connection.
    pub(crate) async fn goes_away(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens, on the same port as before.
    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let (tls, shared) = (self.tls.clone(), Arc::clone(&self.shared));
        self.task = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, shared) = (tls.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, &shared).await;
                    }
                });
            }
        }));
    }

    pub(crate) fn taken(&self) -> Vec<Delivered> {
        self.shared.taken.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> usize {
        *self.shared.asked.lock().unwrap()
    }

    /// Waits until so many different deliveries were taken; the first of each, in the order of their coming.
    pub(crate) async fn takes(&self, count: usize, limit: Duration) -> Vec<Delivered> {
        self.takes_of("", count, limit).await
    }

    /// The same of accounts whose names begin so.
    pub(crate) async fn takes_of(&self, account: &str, count: usize, limit: Duration) -> Vec<Delivered> {
        eventually_within(limit, &format!("{count} deliveries"), || {
            let mut seen = HashSet::new();
            let mut first = self.taken();
            first.retain(|one| {
                let of = one.body["data"]["account"].as_str().unwrap().starts_with(account);
                of && seen.insert(one.id.clone())
            });
            (first.len() >= count).then_some(first)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

pub(crate) fn settings(port: u16, ca: &Path, more: &str) -> String {
    format!(
        "[outbound]\nallowed_private = [\"127.0.0.0/8\", \"::1/128\"]\n\
         [webhooks]\nretry_first = \"50ms\"\nretry_most = \"200ms\"\nrefused_tries = 2\n\
         [webhooks.receivers.test]\nurl = \"https://localhost:{port}/hook\"\nsecret = \"{WEBHOOK_SECRET}\"\n\
         ca = {ca:?}\ntimeout = \"5s\"\n{more}\n"
    )
}

async fn serve(mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, shared: &Shared) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let headers: HashMap<String, String> = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        *shared.asked.lock().unwrap() += 1;
        let mood = shared.mood.lock().unwrap().clone();
        let (status, lines, length) = match mood {
            Mood::Status(status, lines) => (status, lines, 0),
            Mood::Verbose(length) => (200, "", length),
            Mood::Hang => {
                std::future::pending::<()>().await;
                return;
            }
        };
        if (200..300).contains(&status) {
            assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
            let body = String::from_utf8(body).unwrap();
            verify(&headers, &body);
            shared.taken.lock().unwrap().push(Delivered {
                id: headers["webhook-id"].clone(),
                body: serde_json::from_str(&body).unwrap(),
            });
        }
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{lines}\r\n");
        let answer = head + &"x".repeat(length);
        if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// As a receiver checks a delivery, by the specification's text.
fn verify(headers: &HashMap<String, String>, body: &str) {
    let (id, timestamp) = (&headers["webhook-id"], &headers["webhook-timestamp"]);
    let key = STANDARD
        .decode(WEBHOOK_SECRET.strip_prefix("whsec_").unwrap())
        .unwrap();
    let signature = headers["webhook-signature"].strip_prefix("v1,").unwrap();
    let signature = STANDARD.decode(signature).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    hmac::verify(&key, format!("{id}.{timestamp}.{body}").as_bytes(), &signature)
        .expect("the signature is the body's");
    assert!(crate::harness::now().abs_diff(timestamp.parse().unwrap()) < 60);
}
