//! The audit trail: every operator's call, one JSON object a line, in a file that is only appended to.
//!
//! Owns: that a line is on the disk before its call is answered, the bounds of the file, and reading it. Does not: know
//! what a call is. A disk that is full or hangs holds up no player, and an operator's call for [`PATIENCE`] at most; that
//! a line could not be written is for the caller to say aloud.
//! Called by: the admin routes.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::Trail;

use super::rotate::RotatedFile;

/// The longest wait for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lines on their way to the disk at once.
const UNDER_WAY: usize = 64;

/// Lines read at once: the newest of the current file.
const READ: usize = 10_000;

/// The trail's name in the data directory; older files are `audit.log.1`, `audit.log.2` and so on.
const FILE: &str = "audit.log";

/// An audit trail.
pub struct AuditTrail {
    path: PathBuf,
    file: Arc<Mutex<RotatedFile>>,
    under_way: Arc<Semaphore>,
}

impl AuditTrail {
    /// Opens the trail in a data directory, and goes on with what is there.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(settings: &Trail, data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let file = RotatedFile::open(&path, settings.max_bytes, settings.files)?;
        Ok(Self {
            path,
            file: Arc::new(Mutex::new(file)),
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        })
    }

    /// Writes a line, and waits until the disk has it.
    ///
    /// # Errors
    /// Why it is not certain that the disk has it.
    pub async fn append(&self, line: String) -> Result<(), String> {
        let permit = Arc::clone(&self.under_way).try_acquire_owned();
        let permit = permit.map_err(|_| "the disk does not keep up".to_owned())?;
        let file = Arc::clone(&self.file);
        let write = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync()
        });
        match tokio::time::timeout(PATIENCE, write).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the disk does not answer in time".to_owned()),
        }
    }

    /// The newest lines of the current file, a bounded number of them, the newest first.
    ///
    /// # Errors
    /// Why the file cannot be read.
    pub async fn newest(&self) -> Result<Vec<String>, String> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut lines = VecDeque::new();
            for line in BufReader::new(std::fs::File::open(path)?).lines() {
                if lines.len() == READ {
                    lines.pop_front();
                }
                lines.push_back(line?);
            }
            Ok::<_, io::Error>(lines.into_iter().rev().collect())
        });
        let read = read.await.map_err(|error| error.to_string())?;
        read.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;
    use crate::config::scratch::Scratch;

    fn settings(max_bytes: u64) -> Trail {
        Trail { max_bytes, files: 2 }
    }

    #[tokio::test]
    async fn lines_are_kept_over_a_restart_and_read_backwards() {
        let dir = Scratch::new();
        for round in 0..2 {
            let trail = AuditTrail::open(&settings(1 << 20), dir.path()).unwrap();
            for line in 0..3 {
                trail.append(format!("{round}{line}")).await.unwrap();
            }
            let newest = trail.newest().await.unwrap();
            assert_eq!(newest.len(), 3 * (round + 1));
            assert_eq!(newest[0], format!("{round}2"));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_said() {
        let full = Path::new("/dev/full");
        let trail = AuditTrail {
            path: full.to_owned(),
            file: Arc::new(Mutex::new(RotatedFile::open(full, 4096, 1).unwrap())),
            under_way: Arc::new(Semaphore::new(1)),
        };
        assert!(trail.append("line".to_owned()).await.is_err());
        trail.under_way.close();
        assert!(trail.append("line".to_owned()).await.is_err());
    }
}
