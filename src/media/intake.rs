//! Bytes on their way into the store: counted, hashed, and held against their declared type.
//!
//! Owns: when a file is refused for what it is. Does not: know where the bytes come from, or write rows.
//! Called by: `upload`, and `tus` when an upload is whole.

use aws_lc_rs::digest;

use super::kind::{HEAD_BYTES, LEAST_BYTES, Utf8, fits, is_text};
use super::store::{StoreError, Writer};

/// Why bytes do not become a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// More than one file may have.
    #[error("the file is too large")]
    TooLarge,
    /// Empty, or fewer than any file has.
    #[error("the file is empty, or has fewer than {LEAST_BYTES} bytes")]
    TooSmall,
    /// They are not what they are declared to be.
    #[error("the bytes are not of the declared type")]
    OtherType,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes.
    pub(super) size: u64,
    /// Their SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// A file that is being taken in.
pub(super) struct Intake {
    writer: Writer,
    kind: String,
    most: u64,
    size: u64,
    hash: digest::Context,
    /// The first bytes, until they are enough to judge by.
    head: Vec<u8>,
    judged: bool,
    text: Option<Utf8>,
}

impl Intake {
    /// Takes at most `most` bytes of this type.
    #[must_use]
    pub(super) fn new(writer: Writer, kind: &str, most: u64) -> Self {
        Self {
            writer,
            kind: kind.to_owned(),
            most,
            size: 0,
            hash: digest::Context::new(&digest::SHA256),
            head: Vec::new(),
            judged: false,
            text: is_text(kind).then(Utf8::default),
        }
    }

    /// Goes on with these bytes.
    ///
    /// # Errors
    /// What is wrong with them. Dropping the intake then leaves nothing behind.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> Result<(), Unfit> {
        self.size += bytes.len() as u64;
        if self.size > self.most {
            return Err(Unfit::TooLarge);
        }
        if !self.judged {
            let room = HEAD_BYTES - self.head.len();
            self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if self.head.len() == HEAD_BYTES {
                self.judge()?;
            }
        }
        if self.text.as_mut().is_some_and(|text| !text.feed(bytes)) {
            return Err(Unfit::OtherType);
        }
        self.hash.update(bytes);
        self.writer.push(bytes).await?;
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Unfit> {
        self.judged = true;
        let head = std::mem::take(&mut self.head);
        if fits(&self.kind, &head) {
            Ok(())
        } else {
            Err(Unfit::OtherType)
        }
    }

    /// The file is whole: it is in the store from now on.
    ///
    /// # Errors
    /// What is wrong with it; nothing is in the store then.
    pub(super) async fn finish(mut self) -> Result<Taken, Unfit> {
        if self.size < LEAST_BYTES {
            return Err(Unfit::TooSmall);
        }
        if !self.judged {
            self.judge()?;
        }
        if self.text.as_ref().is_some_and(|text| !text.is_whole()) {
            return Err(Unfit::OtherType);
        }
        self.writer.finish().await?;
        let sha256 = self.hash.finish();
        let sha256 = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Taken {
            size: self.size,
            sha256,
        })
    }
}
