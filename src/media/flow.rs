//! The body of a response with bytes of a file: read as fast as the viewer takes them, stopped when the lease ends.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::pulse::Pulse;
use super::store::{Chunks, Store, StoreError};
use super::visits::Meter;

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// These bytes, such as the head of a part.
    Text(Bytes),
    /// These bytes of the file.
    File(Range<u64>),
    /// These bytes, which were made of the file, and how far they go.
    Made(Bytes, u64),
}

/// A body on its way.
pub(super) struct Flow {
    store: Store,
    key: String,
    pieces: VecDeque<Piece>,
    /// The piece under way, and where it is in the file.
    reading: Option<(Chunks, u64)>,
    pulse: Option<Pulse>,
    meter: Meter,
    over: bool,
}

impl Flow {
    /// These pieces of an object; `pulse` is the lease that they hang on, if there is one.
    #[must_use]
    pub(super) fn new(
        store: Store,
        key: String,
        pieces: Vec<Piece>,
        pulse: Option<Pulse>,
        meter: Meter,
    ) -> Self {
        Self {
            store,
            key,
            pieces: pieces.into(),
            reading: None,
            pulse,
            meter,
            over: false,
        }
    }

    /// As a body. An error ends the connection, so that the viewer sees that there should be more.
    pub(super) fn body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut flow| async move {
            let next = flow.next().await;
            next.map(|next| (next, flow))
        }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        loop {
            if self.over {
                return None;
            }
            let found = match &mut self.pulse {
                None => self.read().await,
                Some(_) => match self.read_alive().await {
                    Some(found) => found,
                    // Confirmed: on with it.
                    None => continue,
                },
            };
            self.over = !matches!(found, Some(Ok(_)));
            return found;
        }
    }

    /// As [`Flow::read`] while the lease lives; none when it was only confirmed.
    async fn read_alive(&mut self) -> Option<Option<Result<Bytes, io::Error>>> {
        let mut pulse = self.pulse.take()?;
        let stale = pulse.is_stale();
        let found = tokio::select! {
            biased;
            lives = pulse.next() => {
                if lives {
                    None
                } else {
                    self.meter.stopped();
                    Some(Some(Err(io::Error::other("the lease has ended"))))
                }
            }
            found = self.read(), if !stale => Some(found),
        };
        self.pulse = Some(pulse);
        found
    }

    /// The next bytes. Safe to cancel: what was not returned is still there.
    async fn read(&mut self) -> Option<Result<Bytes, io::Error>> {
        loop {
            if let Some((chunks, at)) = &mut self.reading {
                match chunks.next().await {
                    Some(Ok(bytes)) => {
                        *at += bytes.len() as u64;
                        self.meter.sent(bytes.len() as u64, *at);
                        return Some(Ok(bytes));
                    }
                    Some(Err(error)) => return Some(Err(failed(&error))),
                    None => self.reading = None,
                }
            }
            match self.pieces.front()? {
                Piece::Text(bytes) => {
                    let bytes = bytes.clone();
                    self.pieces.pop_front();
                    return Some(Ok(bytes));
                }
                Piece::Made(bytes, end) => {
                    let (bytes, end) = (bytes.clone(), *end);
                    self.meter.sent(bytes.len() as u64, end);
                    self.pieces.pop_front();
                    return Some(Ok(bytes));
                }
                Piece::File(range) => {
                    let (range, start) = (range.clone(), range.start);
                    match self.store.read(&self.key, range).await {
                        Ok(chunks) => self.reading = Some((chunks, start)),
                        Err(error) => return Some(Err(failed(&error))),
                    }
                    self.pieces.pop_front();
                }
            }
        }
    }
}

fn failed(error: &StoreError) -> io::Error {
    tracing::warn!(%error, "a file's bytes stop in the middle");
    io::Error::other("the store failed")
}
