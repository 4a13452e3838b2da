//! One reading of a source: a file of this machine, or what a server answers.
//!
//! Owns: trying again, with longer and longer pauses. Does not: read what came (`import` does), or know when (`sources` does).
//! Called by: `sources`, and the command `import`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::{sleep, timeout};

use crate::outbound::{Client, Guard, OutboundError, Plain};

use super::import::Scratch;

/// The longest silence of a server.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest that one try may take.
const LONGEST: Duration = Duration::from_secs(3600);

/// How often a server is asked before it is given up.
const TRIES: u32 = 5;

/// The pause before the second try; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A server cannot put a try off for longer with `Retry-After`.
const MOST_PAUSE: Duration = Duration::from_secs(60);

/// Where rows come from.
pub struct Origin(At);

enum At {
    File(PathBuf),
    Server(Box<Client>, HeaderMap),
}

/// What came, to be read from its beginning.
pub enum Fetched {
    /// The file itself.
    File(File),
    /// A copy, as long as it is read.
    Copy(Scratch),
}

impl Fetched {
    /// The rows.
    ///
    /// # Errors
    /// The disk.
    pub fn source(&mut self) -> io::Result<&mut File> {
        match self {
            Self::File(file) => Ok(file),
            Self::Copy(scratch) => scratch.from_start(),
        }
    }
}

/// A try that was in vain.
struct Failed {
    reason: String,
    /// Whether another one may help, and how long the server asks to wait.
    again: Option<Option<Duration>>,
}

/// Whether this names a server, and not a file.
#[must_use]
pub fn is_url(from: &str) -> bool {
    ["https://", "http://"]
        .iter()
        .any(|scheme| from.starts_with(scheme))
}

impl Origin {
    /// A source at this URL or path. `authorization` is sent as it is, unless it is empty.
    ///
    /// # Errors
    /// The setting, one of `from`, `ca` and `authorization`, and what is wrong with it.
    pub fn new(
        from: &str,
        ca: &Path,
        authorization: &str,
        guard: Guard,
    ) -> Result<Self, (&'static str, String)> {
        if !is_url(from) {
            return Ok(Self(At::File(from.into())));
        }
        let mut headers = HeaderMap::new();
        let accepted = HeaderValue::from_static("application/json, text/csv");
        headers.insert(header::ACCEPT, accepted);
        if !authorization.is_empty() {
            let value = HeaderValue::try_from(authorization);
            let mut value = value.map_err(|_| ("authorization", "cannot be a header's value".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let client = Client::new(from, ca, guard, Plain::Loopback, 0);
        let client = client.map_err(|error| match error {
            OutboundError::Url(problem) => ("from", problem),
            OutboundError::Ca(problem) => ("ca", problem),
        })?;
        Ok(Self(At::Server(Box::new(client), headers)))
    }

    /// Reads it, at most so many bytes of what a server answers; a copy lies in `dir`.
    ///
    /// # Errors
    /// What an operator should read in the log, after the last try.
    pub async fn fetch(&self, dir: &Path, most: u64) -> Result<Fetched, String> {
        let (client, headers) = match &self.0 {
            At::File(path) => {
                let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
                return Ok(Fetched::File(file));
            }
            At::Server(client, headers) => (client, headers),
        };
        let (mut pause, mut tries) = (FIRST_PAUSE, 1);
        loop {
            let failed = match timeout(LONGEST, try_once(client, headers, dir, most)).await {
                Ok(Ok(scratch)) => return Ok(Fetched::Copy(scratch)),
                Ok(Err(failed)) => failed,
                Err(_) => Failed {
                    reason: "not all of it came within an hour".to_owned(),
                    again: None,
                },
            };
            let Some(asked) = failed.again.filter(|_| tries < TRIES) else {
                return Err(format!("{} (try {tries})", failed.reason));
            };
            tracing::debug!(
                reason = failed.reason,
                tries,
                "a source of the ledger is asked again"
            );
            sleep(asked.unwrap_or(pause).min(MOST_PAUSE)).await;
            pause *= 2;
            tries += 1;
        }
    }
}

async fn try_once(client: &Client, headers: &HeaderMap, dir: &Path, most: u64) -> Result<Scratch, Failed> {
    let later = |reason| Failed {
        reason,
        again: Some(None),
    };
    let mut scratch = Scratch::create(dir).map_err(|error| later(error.to_string()))?;
    let take = |data: &[u8]| scratch.file().write_all(data);
    let answer = client.download(headers.clone(), PATIENCE, most, take).await;
    let (status, headers) = answer.map_err(later)?;
    if status == StatusCode::OK {
        return Ok(scratch);
    }
    let may_help = status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT;
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Err(Failed {
        reason: format!("status {status}"),
        again: may_help.then(|| seconds.map(Duration::from_secs)),
    })
}
