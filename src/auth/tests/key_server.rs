//! An identity provider on a loopback port, as well or badly behaved as a test needs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// A good document that would take every key away, were it believed.
pub(super) const NO_KEYS: &str = "{\"keys\":[]}";

/// How the server answers.
#[derive(Clone)]
pub(super) enum Answer {
    Keys(Value),
    Status(u16),
    Redirect(String),
    Raw(Vec<u8>),
    /// Not at all.
    Never,
}

pub(super) struct KeyServer {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
    arrived: Notify,
}

impl KeyServer {
    pub(super) async fn start(answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            asked: AtomicUsize::new(0),
            arrived: Notify::new(),
        });
        let served = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (served, tls) = (served.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, served).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, served).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, shared }
    }

    pub(super) fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Publishes these keys.
    pub(super) fn publish(&self, keys: &[Value]) {
        self.answer(Answer::Keys(json!({"keys": keys})));
    }

    /// Requests so far.
    pub(super) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Waits until that many requests have come, and not for long.
    pub(super) async fn wait_asked(&self, times: usize) {
        let asked = async {
            while self.asked() < times {
                self.shared.arrived.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(2), asked).await.unwrap();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: Arc<Shared>) {
    let service = service_fn(|_: Request<Incoming>| respond(&shared));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(shared: &Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    shared.arrived.notify_one();
    let answer = shared.answer.lock().unwrap().clone();
    let response = Response::builder();
    let (response, body) = match answer {
        Answer::Keys(keys) => (response, keys.to_string().into()),
        Answer::Status(status) => (response.status(status), NO_KEYS.into()),
        Answer::Redirect(to) => (response.status(302).header("location", to), NO_KEYS.into()),
        Answer::Raw(body) => (response, body.into()),
        Answer::Never => std::future::pending().await,
    };
    Ok(response.body(Full::new(body)).unwrap())
}
