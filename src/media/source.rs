//! The bytes of a request as they come: bounded in silence, whoever sends them.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

/// Why no more bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SourceError {
    /// The sender fell silent.
    #[error("the body did not come in time")]
    Silent,
    /// The connection broke.
    #[error("the body was cut off")]
    Cut,
}

/// A body that is read piece by piece.
pub(super) struct Source {
    body: Body,
    silence: Duration,
    deadline: Instant,
}

impl Source {
    /// `silence` is the longest pause between two pieces, `longest` the most time for all of them.
    #[must_use]
    pub(super) fn new(body: Body, silence: Duration, longest: Duration) -> Self {
        Self {
            body,
            silence,
            deadline: Instant::now() + longest,
        }
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The sender is silent or gone.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let frame = timeout(self.silence, self.body.frame());
            let frame = timeout_at(self.deadline, frame).await;
            match frame
                .map_err(|_| SourceError::Silent)?
                .map_err(|_| SourceError::Silent)?
            {
                None => return Ok(None),
                Some(Err(_)) => return Err(SourceError::Cut),
                // Trailers are nothing to anybody here.
                Some(Ok(frame)) => {
                    if let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Passes over what still comes, for so long at most.
    pub(super) async fn linger(&mut self, most: Duration) {
        let rest = async { while let Ok(Some(_)) = self.next().await {} };
        let _ = timeout(most, rest).await;
    }
}
