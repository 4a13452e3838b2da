//! A log file that is rotated by its size.
//!
//! Owns: `usher.log`, `usher.log.1`, `usher.log.2` and so on, the higher the older.
//! Does not: buffer or format; each write is whole lines, as the log writer hands them over.
//! Called by: `logging`, on the thread that writes the log.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A rotated file; a line is never split over two.
#[derive(Debug)]
pub(super) struct RotatedFile {
    path: PathBuf,
    /// Size at which it is rotated.
    max_bytes: u64,
    /// Files kept, this one included; at least 1.
    files: u32,
    file: File,
    /// Size of the current file.
    bytes: u64,
    /// Whether what was written last ended a line.
    line_ended: bool,
    /// Size at which the next rotation is tried: `max_bytes`, or more after one that failed.
    rotate_at: u64,
}

impl RotatedFile {
    /// Opens `path`, continuing what is there; makes its directory. Behind a symbolic link its target is rotated.
    pub(super) fn open(path: &Path, max_bytes: u64, files: u32) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = append(path)?;
        let found = file.metadata()?;
        let bytes = found.len();
        // Renaming a device such as /dev/stdout would break the machine.
        let rotate_at = if found.is_file() { max_bytes } else { u64::MAX };
        let mut log = Self {
            path: fs::canonicalize(path)?,
            max_bytes,
            files: files.max(1),
            file,
            bytes,
            line_ended: true,
            rotate_at,
        };
        if !ends_with_newline(path, bytes) {
            log.write_all(b"\n")?;
        }
        Ok(log)
    }

    /// Waits until the disk has everything that was written.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Moves the files up by one and begins a new one. On an error the current file is written on.
    fn rotate(&mut self) -> io::Result<()> {
        if self.files == 1 {
            self.file.set_len(0)?;
        } else {
            for number in (1..self.files).rev() {
                match fs::rename(self.numbered(number - 1), self.numbered(number)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            self.file = append(&self.path)?;
        }
        self.bytes = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

impl Write for RotatedFile {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let after = self.bytes.saturating_add(text.len() as u64);
        if self.line_ended && self.bytes > 0 && after > self.rotate_at {
            // A full disk or a read-only directory must not stop the log: write on, and try again some lines later.
            self.rotate_at = match self.rotate() {
                Ok(()) => self.max_bytes,
                Err(_) => self.bytes.saturating_add(self.max_bytes / 8),
            };
        }
        let written = self.file.write(text)?;
        self.bytes = self.bytes.saturating_add(written as u64);
        if let Some(last) = text[..written].last() {
            self.line_ended = *last == b'\n';
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Whether the file ends a line; true for what cannot be read or sought, such as a pipe.
fn ends_with_newline(path: &Path, bytes: u64) -> bool {
    let last = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(bytes - 1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(last[0])
    };
    bytes == 0 || last().map_or(true, |last| last == b'\n')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;
    use crate::config::scratch::Scratch;

    fn read(dir: &Scratch, name: &str) -> Option<String> {
        fs::read_to_string(dir.path().join(name)).ok()
    }

    fn write_lines(log: &mut RotatedFile, lines: impl IntoIterator<Item = u32>) {
        lines
            .into_iter()
            .for_each(|n| log.write_all(format!("line {n:04}\n").as_bytes()).unwrap());
    }

    #[test]
    fn the_newest_lines_are_kept_in_so_many_files() {
        let dir = Scratch::new();
        let mut log = RotatedFile::open(&dir.path().join("sub/usher.log"), 25, 3).unwrap();
        write_lines(&mut log, 0..9);
        assert_eq!(read(&dir, "sub/usher.log").unwrap(), "line 0008\n");
        assert_eq!(read(&dir, "sub/usher.log.1").unwrap(), "line 0006\nline 0007\n");
        assert_eq!(read(&dir, "sub/usher.log.2").unwrap(), "line 0004\nline 0005\n");
        assert_eq!(read(&dir, "sub/usher.log.3"), None);
    }

    #[test]
    fn a_single_file_is_emptied_when_full() {
        let dir = Scratch::new();
        let mut log = RotatedFile::open(&dir.path().join("usher.log"), 25, 1).unwrap();
        write_lines(&mut log, 0..3);
        assert_eq!(read(&dir, "usher.log").unwrap(), "line 0002\n");
        assert_eq!(read(&dir, "usher.log.1"), None);
    }

    #[test]
    fn an_existing_file_is_continued_and_a_torn_line_ended() {
        let dir = Scratch::new();
        let path = dir.write("usher.log", "old line\ntorn");
        let mut log = RotatedFile::open(&path, 30, 2).unwrap();
        write_lines(&mut log, [1]);
        assert_eq!(read(&dir, "usher.log").unwrap(), "old line\ntorn\nline 0001\n");
        write_lines(&mut log, [2]);
        assert_eq!(read(&dir, "usher.log").unwrap(), "line 0002\n", "its size counts");
    }

    #[test]
    fn a_link_stays_and_a_device_is_not_renamed() {
        let dir = Scratch::new();
        let target = dir.write("target.log", "");
        let link = dir.path().join("usher.log");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_lines(&mut RotatedFile::open(&link, 15, 2).unwrap(), 0..2);
        assert!(link.is_symlink());
        assert_eq!(read(&dir, "usher.log").unwrap(), "line 0001\n");
        assert_eq!(read(&dir, "target.log.1").unwrap(), "line 0000\n");

        write_lines(
            &mut RotatedFile::open(Path::new("/dev/null"), 1, 2).unwrap(),
            0..3,
        );
        assert!(!Path::new("/dev/null").is_file());
    }

    #[test]
    fn a_line_written_in_parts_stays_in_one_file() {
        let dir = Scratch::new();
        let mut log = RotatedFile::open(&dir.path().join("usher.log"), 10, 3).unwrap();
        log.write_all(b"begins here, ").unwrap();
        log.write_all(b"ends here\n").unwrap();
        log.write_all(b"next\n").unwrap();
        assert_eq!(read(&dir, "usher.log.1").unwrap(), "begins here, ends here\n");
        assert_eq!(read(&dir, "usher.log").unwrap(), "next\n");
    }

    #[test]
    fn a_rotation_that_fails_goes_on_in_the_same_file_and_is_tried_again() {
        let dir = Scratch::new();
        let mut log = RotatedFile::open(&dir.path().join("usher.log"), 40, 2).unwrap();
        let obstacle = dir.path().join("usher.log.1");
        fs::create_dir(&obstacle).unwrap();
        write_lines(&mut log, 0..10);
        assert_eq!(
            read(&dir, "usher.log").unwrap().lines().count(),
            10,
            "nothing is lost"
        );
        fs::remove_dir(&obstacle).unwrap();
        write_lines(&mut log, 10..12);
        assert!(obstacle.is_file());
        assert!(read(&dir, "usher.log").unwrap().lines().count() <= 2);
    }
}
