//! Where the bytes are: a directory of this machine, or a bucket of an object store.
//!
//! Owns: objects by their random keys; one that is being written is invisible until it is whole. Does not: know what is
//! in them, or whose they are. Called by: `intake` and `tus` to write, `delivery` and `scan` to read, `sweep` to remove.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{
    ClientOptions, GetOptions, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, RetryConfig,
};

use crate::config::Media;

/// Bytes of a file that are read at once.
const READ_BYTES: usize = 128 * 1024;

/// A piece of an object that is written: S3 takes none below 5 MiB but the last, and at most 10,000.
const S3_PART_BYTES: usize = 8 * 1024 * 1024;

/// The same for a directory, which takes any size.
const LOCAL_PART_BYTES: usize = 1024 * 1024;

/// An object store's longest silence.
const S3_SILENCE: Duration = Duration::from_secs(20);

/// How long a request to an object store is repeated.
const S3_RETRY: Duration = Duration::from_secs(30);

/// A file that is being written changes with every piece of it; one that did not for so long is nobody's.
const ABANDONED: Duration = Duration::from_secs(2 * 3600);

/// Why the store does not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// There is no such object.
    #[error("there is no such object")]
    Absent,
    /// It does not answer, is full, or refuses.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Absent,
            other => Self::Failed(other.to_string()),
        }
    }
}

/// The bytes of an object, as they come.
pub(super) type Chunks = BoxStream<'static, Result<Bytes, StoreError>>;

/// The objects of an installation.
#[derive(Clone)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Signs URLs of the store; none: there is nobody to send a player to.
    signer: Option<Arc<AmazonS3>>,
    /// The directory, when it is one.
    root: Option<PathBuf>,
    prefix: String,
}

impl Store {
    /// The store that `settings` name, or `media` in the data directory.
    ///
    /// # Errors
    /// What is wrong with the settings or the directory, for people.
    pub(super) fn open(settings: &Media, data_dir: &Path) -> Result<Self, String> {
        if settings.s3.bucket.is_empty() {
            let root = match settings.dir.as_os_str().is_empty() {
                true => data_dir.join("media"),
                false => settings.dir.clone(),
            };
            return Self::local(&root).map_err(|error| format!("{}: {error}", root.display()));
        }
        let s3 = &settings.s3;
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&s3.bucket)
            .with_region(&s3.region)
            .with_retry(RetryConfig {
                retry_timeout: S3_RETRY,
                ..RetryConfig::default()
            })
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(s3.endpoint.starts_with("http://"))
                    .with_timeout_disabled()
                    .with_read_timeout(S3_SILENCE),
            );
        if !s3.endpoint.is_empty() {
            builder = builder.with_endpoint(&s3.endpoint);
        }
        if !s3.access_key.is_empty() {
            builder = builder
                .with_access_key_id(&s3.access_key)
                .with_secret_access_key(s3.secret_key.expose());
        }
        let store = Arc::new(builder.build().map_err(|error| error.to_string())?);
        Ok(Self {
            objects: Arc::<AmazonS3>::clone(&store),
            signer: Some(store),
            root: None,
            prefix: s3.prefix.clone(),
        })
    }

    /// The objects of a directory, which is made when it is missing.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(super) fn local(root: &Path) -> Result<Self, String> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|error| error.to_string())?;
        let root = root.canonicalize().map_err(|error| error.to_string())?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(|error| error.to_string())?;
        Ok(Self {
            objects: Arc::new(files.with_fsync(true)),
            signer: None,
            root: Some(root),
            prefix: String::new(),
        })
    }

    /// A key that nobody can guess and that no client chose.
    #[must_use]
    pub(super) fn fresh_key() -> String {
        let bytes = random();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}/{hex}", &hex[..2])
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}{key}", self.prefix))
    }

    /// Begins an object. It is there when [`Writer::finish`] says so, and never in part.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn write(&self, key: &str) -> Result<Writer, StoreError> {
        let part = if self.root.is_some() {
            LOCAL_PART_BYTES
        } else {
            S3_PART_BYTES
        };
        let upload = self.objects.put_multipart(&self.key(key)).await?;
        Ok(Writer {
            upload: Some(upload),
            buffer: BytesMut::new(),
            part,
        })
    }

    /// Writes a small object at once.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.objects.put(&self.key(key), bytes.into()).await?;
        Ok(())
    }

    /// These bytes of an object.
    ///
    /// # Errors
    /// [`StoreError::Absent`], or the store does not answer.
    pub(super) async fn read(&self, key: &str, range: Range<u64>) -> Result<Chunks, StoreError> {
        let options = GetOptions::new().with_range(Some(range));
        let found = self.objects.get_opts(&self.key(key), options).await?;
        let range = found.range.clone();
        match found.payload {
            GetResultPayload::File(file, _) => Ok(pieces(file, range)),
            GetResultPayload::Stream(stream) => Ok(stream.map_err(StoreError::from).boxed()),
        }
    }

    /// Removes an object; one that is not there is as good.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn remove(&self, key: &str) -> Result<(), StoreError> {
        match self
            .objects
            .delete(&self.key(key))
            .await
            .map_err(StoreError::from)
        {
            Err(StoreError::Absent) => Ok(()),
            done => done,
        }
    }

    /// A URL of the store itself under which an object is for so long; none: it has no URLs.
    ///
    /// # Errors
    /// It cannot be signed.
    pub(super) async fn signed_url(&self, key: &str, life: Duration) -> Result<Option<String>, StoreError> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let url = signer.signed_url(http::Method::GET, &self.key(key), life).await?;
        Ok(Some(url.into()))
    }

    /// Removes what writers that died left behind in the directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) async fn tidy(&self) -> Result<usize, StoreError> {
        let Some(root) = self.root.clone() else {
            return Ok(0);
        };
        let tidied = tokio::task::spawn_blocking(move || tidy(&root, SystemTime::now() - ABANDONED)).await;
        let tidied = tidied.map_err(|error| StoreError::Failed(error.to_string()))?;
        tidied.map_err(|error| StoreError::Failed(error.to_string()))
    }
}

/// 128 random bits.
///
/// # Panics
/// Never: the system's source of randomness does not fail once it is seeded.
pub(super) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// What the local store writes before it is whole has a `#` in its name, which no key has.
fn tidy(root: &Path, before: SystemTime) -> std::io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            removed += tidy(&entry.path(), before)?;
        } else if entry.file_name().to_string_lossy().contains('#') && entry.metadata()?.modified()? < before
        {
            // Whoever wrote it may have removed it just now.
            removed += usize::from(std::fs::remove_file(entry.path()).is_ok());
        }
    }
    Ok(removed)
}

/// Reads a range of a file, so many bytes at once: each read makes the buffer that is sent.
fn pieces(file: std::fs::File, range: Range<u64>) -> Chunks {
    let failed = |error: &dyn std::error::Error| StoreError::Failed(error.to_string());
    let read = stream::try_unfold((Arc::new(file), range), move |(file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let (source, at) = (Arc::clone(&file), range.start);
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = BytesMut::zeroed(left.min(READ_BYTES));
            let count = source.read_at(&mut buffer, at)?;
            buffer.truncate(count);
            std::io::Result::Ok(buffer.freeze())
        });
        let bytes = read.await.map_err(|error| failed(&error))?;
        let bytes = bytes.map_err(|error| failed(&error))?;
        if bytes.is_empty() {
            return Err(StoreError::Failed("the file is shorter than it was".to_owned()));
        }
        let rest = range.start + bytes.len() as u64..range.end;
        Ok(Some((bytes, (file, rest))))
    });
    read.boxed()
}

/// An object that is being written.
pub(super) struct Writer {
    upload: Option<Box<dyn MultipartUpload>>,
    buffer: BytesMut,
    part: usize,
}

impl Writer {
    /// Goes on with these bytes; waits while the store is slower than they come.
    ///
    /// # Errors
    /// The store does not take them.
    pub(super) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve(self.part);
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.part - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == self.part {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        if let Some(upload) = self.upload.as_mut().filter(|_| !self.buffer.is_empty()) {
            upload.put_part(self.buffer.split().freeze().into()).await?;
        }
        Ok(())
    }

    /// Makes the object be there.
    ///
    /// # Errors
    /// The store does not take it: nothing is there.
    pub(super) async fn finish(mut self) -> Result<(), StoreError> {
        self.flush().await?;
        if let Some(upload) = self.upload.as_mut() {
            upload.complete().await?;
            self.upload = None;
        }
        Ok(())
    }
}

/// Whoever gives up in the middle leaves nothing behind.
impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            tokio::spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::debug!(%error, "an upload that was given up is not removed yet");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
