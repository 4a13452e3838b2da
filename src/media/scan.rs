//! The scanner: each file is shown to clamd before anybody gets a byte of it.
//!
//! Owns: the INSTREAM conversation (clamd(8)) and the task that goes through what is `scanning`. Does not: decide whether
//! files are scanned (the settings do). Called by: `Media::keep`.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::db::Db;

use super::Media;
use super::file::{File, State, now};
use super::files;
use super::store::{Chunks, StoreError};

/// A scanner's answer, in bytes.
const MOST_ANSWER: u64 = 4096;

/// What a scanner says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was found.
    Clean,
    /// This was found.
    Infected(String),
}

/// Why it says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    /// It cannot be reached, or stops in the middle.
    #[error("the scanner does not answer: {0}")]
    Away(String),
    /// It answers that it cannot judge this file.
    #[error("the scanner cannot judge the file: {0}")]
    Unjudged(String),
    /// The file's bytes cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Shows bytes to the clamd at `address`, which may be silent for `patience`.
///
/// # Errors
/// As [`ScanError`] says.
pub(super) async fn scan(
    address: &str,
    patience: Duration,
    mut chunks: Chunks,
) -> Result<Verdict, ScanError> {
    let away = |error: std::io::Error| ScanError::Away(error.to_string());
    let silent = |_| ScanError::Away("it is silent".to_owned());
    let link = timeout(patience, TcpStream::connect(address)).await;
    let mut link = link.map_err(silent)?.map_err(away)?;
    let said = async {
        link.write_all(b"zINSTREAM\0").await.map_err(away)?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let sent = async {
                link.write_all(&length.to_be_bytes()).await?;
                link.write_all(&chunk).await
            };
            // One that has heard enough closes its half: its answer says why.
            if timeout(patience, sent).await.map_err(silent)?.is_err() {
                return Ok(());
            }
        }
        // Told of in the same way.
        let _ = link.write_all(&0_u32.to_be_bytes()).await;
        Ok::<(), ScanError>(())
    };
    said.await?;
    let mut answer = Vec::new();
    let mut link = link.take(MOST_ANSWER);
    let read = timeout(patience, link.read_to_end(&mut answer))
        .await
        .map_err(silent)?;
    if answer.is_empty() {
        read.map_err(away)?;
    }
    verdict(&String::from_utf8_lossy(&answer))
}

/// `stream: OK`, `stream: Name FOUND`, or anything else with `ERROR`.
fn verdict(answer: &str) -> Result<Verdict, ScanError> {
    let answer = answer.trim_end_matches(['\0', '\n', '\r']);
    let said = answer.strip_prefix("stream: ").unwrap_or(answer);
    if said == "OK" {
        return Ok(Verdict::Clean);
    }
    match said.strip_suffix(" FOUND") {
        Some(name) => Ok(Verdict::Infected(name.to_owned())),
        None if answer.is_empty() => Err(ScanError::Away("it closed without an answer".to_owned())),
        None => Err(ScanError::Unjudged(said.to_owned())),
    }
}

impl Media {
    /// Scans what waits to be scanned, for as long as the node runs.
    pub(super) async fn scan_all(&self) {
        if self.settings.scan.clamd.is_empty() {
            return;
        }
        loop {
            if let Some(db) = &self.api.db {
                self.scan_round(db).await;
            }
            let _ = timeout(self.settings.scan.retry, self.scanner.notified()).await;
        }
    }

    async fn scan_round(&self, db: &Db) {
        let waiting = match files::in_state(db, State::Scanning, now() + 1).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::debug!(%error, "the scanner's work cannot be read");
                return;
            }
        };
        for file in waiting {
            match self.scan_one(&file).await {
                Ok(verdict) => self.take_verdict(db, &file, &verdict).await,
                Err(error) => {
                    self.api.metrics.media_scans_total.inc("error");
                    tracing::warn!(file = file.id, %error, "a file stays unplayable until it is scanned");
                    // Nor will it answer about the others.
                    if matches!(error, ScanError::Away(_)) {
                        return;
                    }
                }
            }
        }
    }

    async fn scan_one(&self, file: &File) -> Result<Verdict, ScanError> {
        let scan = &self.settings.scan;
        let chunks = self.store.read(&file.key, 0..file.size).await?;
        super::scan::scan(&scan.clamd, scan.timeout, chunks).await
    }

    async fn take_verdict(&self, db: &Db, file: &File, verdict: &Verdict) {
        let (state, word) = match verdict {
            Verdict::Clean => (State::Ready, "clean"),
            Verdict::Infected(_) => (State::Quarantined, "infected"),
        };
        match files::judged(db, file, state).await {
            Ok(true) => {
                self.api.metrics.media_scans_total.inc(word);
                if let Verdict::Infected(name) = verdict {
                    let (tenant, owner) = (&*file.tenant, &*file.owner);
                    tracing::warn!(
                        file = file.id,
                        tenant,
                        owner,
                        name,
                        "a file is infected: quarantined"
                    );
                }
            }
            // Another node was faster, or the file is gone.
            Ok(false) => {}
            Err(error) => tracing::warn!(file = file.id, %error, "a verdict could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clamd_says() {
        assert!(matches!(verdict("stream: OK\0"), Ok(Verdict::Clean)));
        let found = verdict("stream: Win.Test.EICAR_HDB-1 FOUND\0");
        assert!(matches!(found, Ok(Verdict::Infected(name)) if name == "Win.Test.EICAR_HDB-1"));
        let large = verdict("INSTREAM size limit exceeded. ERROR\0");
        assert!(matches!(large, Err(ScanError::Unjudged(_))));
        assert!(matches!(verdict(""), Err(ScanError::Away(_))));
        assert!(matches!(verdict("OKAY"), Err(ScanError::Unjudged(_))));
    }
}
