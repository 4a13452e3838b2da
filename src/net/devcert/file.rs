//! Files that several processes share and none sees half-written.
//!
//! Owns: the directory's lock and writing by rename.
//! Does not: know what is in the files.
//! Called by: [`super::ensure`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::DevCertError;

/// Makes the directory and takes its lock, which lasts until the file is dropped or the process dies.
pub(super) fn lock(dir: &Path) -> Result<File, DevCertError> {
    fs::create_dir_all(dir).map_err(named(dir))?;
    let path = dir.join(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(named(&path))?;
    file.lock().map_err(named(&path))?;
    Ok(file)
}

/// The file's text; none when it is missing or no text.
pub(super) fn read(path: &Path) -> Result<Option<String>, DevCertError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        Err(error) => Err(named(path)(error)),
    }
}

/// Replaces `dir/name` in one step; readable by its owner alone, the certificates too (interface section 1). Under the directory's lock nobody else has the temporary file.
pub(super) fn write(dir: &Path, name: &str, text: &str) -> Result<(), DevCertError> {
    let temporary = dir.join(format!(".new-{name}"));
    // Left by a kill, maybe with another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&temporary)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(named(&temporary))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(named(&temporary))?;
    let path = dir.join(name);
    fs::rename(&temporary, &path).map_err(named(&path))
}

fn named(path: &Path) -> impl Fn(io::Error) -> DevCertError {
    move |error| DevCertError::File {
        path: path.to_owned(),
        error,
    }
}
