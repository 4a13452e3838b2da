//! Rows put aside by their hash, so that equal ones meet again: in memory as long as they are few, then on disk.
//!
//! Owns: the parts, their files and the form of a row in them. Does not: know what a row's fields mean.
//! Called by: `import::plays`, which must count equal rows of a file of any length in bounded memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Parts that a file is divided into by the first byte of the rows' hashes.
const PARTS: usize = 256;

/// What is held in memory before it goes to disk, in bytes.
const HELD_BYTES: usize = 32 * 1024 * 1024;

/// A row with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spilled {
    pub(super) hash: [u8; 16],
    pub(super) at: i64,
    pub(super) seconds: i64,
    pub(super) texts: [String; 3],
}

/// Rows that were put aside. Its files go with it.
pub(super) struct Spill {
    /// Made when it is needed.
    dir: PathBuf,
    parts: Vec<Vec<u8>>,
    held: usize,
    on_disk: bool,
}

impl Spill {
    /// In a directory of its own below `scratch`.
    pub(super) fn new(scratch: &Path) -> Self {
        let name = format!(
            "import-{:016x}",
            u64::from_ne_bytes(crate::protocol::id::random())
        );
        Self {
            dir: scratch.join(name),
            parts: vec![Vec::new(); PARTS],
            held: 0,
            on_disk: false,
        }
    }

    /// Puts a row aside.
    pub(super) fn add(&mut self, row: &Spilled) -> io::Result<()> {
        let part = &mut self.parts[usize::from(row.hash[0])];
        let before = part.len();
        part.extend_from_slice(&row.hash);
        part.extend_from_slice(&row.at.to_le_bytes());
        part.extend_from_slice(&row.seconds.to_le_bytes());
        for text in &row.texts {
            let length = u16::try_from(text.len()).map_err(io::Error::other)?;
            part.extend_from_slice(&length.to_le_bytes());
            part.extend_from_slice(text.as_bytes());
        }
        self.held += part.len() - before;
        if self.held >= HELD_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.on_disk {
            fs::create_dir_all(&self.dir)?;
            self.on_disk = true;
        }
        for (number, part) in self.parts.iter_mut().enumerate() {
            let file = self.dir.join(number.to_string());
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(file)?;
            file.write_all(part)?;
            part.clear();
        }
        self.held = 0;
        Ok(())
    }

    /// The parts, one after another; equal rows are in one.
    pub(super) fn parts(&self) -> impl Iterator<Item = io::Result<Part<'_>>> {
        self.parts.iter().enumerate().map(|(number, held)| {
            let disk: Box<dyn Read> = if self.on_disk {
                Box::new(File::open(self.dir.join(number.to_string()))?)
            } else {
                Box::new(io::empty())
            };
            Ok(Part {
                source: BufReader::with_capacity(256 * 1024, Box::new(disk.chain(&held[..]))),
            })
        })
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.on_disk {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The rows of a part.
pub(super) struct Part<'a> {
    source: BufReader<Box<dyn Read + 'a>>,
}

impl Part<'_> {
    /// The next row, in the order of their coming; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Spilled>> {
        let mut hash = [0; 16];
        match self.source.read_exact(&mut hash) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        let (at, seconds) = (self.number()?, self.number()?);
        let texts = [self.text()?, self.text()?, self.text()?];
        Ok(Some(Spilled {
            hash,
            at,
            seconds,
            texts,
        }))
    }

    fn number(&mut self) -> io::Result<i64> {
        let mut bytes = [0; 8];
        self.source.read_exact(&mut bytes)?;
        Ok(i64::from_le_bytes(bytes))
    }

    fn text(&mut self) -> io::Result<String> {
        let mut length = [0; 2];
        self.source.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(u16::from_le_bytes(length))];
        self.source.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn row(number: u32) -> Spilled {
        let mut hash = [0; 16];
        hash[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
        Spilled {
            hash,
            at: number.into(),
            seconds: -i64::from(number),
            texts: [number.to_string(), String::new(), "ä".repeat(100)],
        }
    }

    #[test]
    fn every_row_comes_back_once_from_memory_and_from_disk() {
        let scratch = std::env::temp_dir().join(format!("usher-spill-{}", std::process::id()));
        for count in [0, 1000, 200_000] {
            let mut spill = Spill::new(&scratch);
            for number in 0..count {
                spill.add(&row(number)).unwrap();
            }
            assert_eq!(spill.on_disk, count > 100_000);
            let dir = spill.dir.clone();
            let mut seen = vec![false; count as usize];
            for (number, part) in spill.parts().enumerate() {
                let mut part = part.unwrap();
                while let Some(found) = part.next().unwrap() {
                    assert_eq!(usize::from(found.hash[0]), number);
                    let of = u32::try_from(found.at).unwrap();
                    assert_eq!(found, row(of));
                    assert!(!std::mem::replace(&mut seen[of as usize], true));
                }
            }
            assert!(seen.iter().all(|seen| *seen));
            drop(spill);
            assert!(!dir.exists());
        }
        let _ = fs::remove_dir_all(scratch);
    }
}
