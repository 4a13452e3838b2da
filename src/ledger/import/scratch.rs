//! A file for what does not fit into memory.
//!
//! Owns: that only its owner can read it, and that it goes when its value goes. Does not: know what is in it.
//! Called by: `json`, and by whoever keeps a file until it is read.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::protocol::id::random;

/// The file; removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    /// An empty file under a name of its own.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("upload-{:016x}", u64::from_ne_bytes(random())));
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { path, file })
    }

    /// The file, where it was left.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The file, from its beginning.
    ///
    /// # Errors
    /// The disk.
    pub fn from_start(&mut self) -> io::Result<&mut File> {
        self.file.rewind()?;
        Ok(&mut self.file)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
