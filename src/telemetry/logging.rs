//! The log of a node.
//!
//! Owns: its format, its output, and its level, which may change at run time.
//! Does not: decide what is logged: `tracing` macros stand where things happen.
//! Called by: `cli::serve`, before anything else that may log.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tracing::Dispatch;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::rotate::RotatedFile;
use crate::config::{Log, LogFormat, log_filter};

/// Lines that wait for the disk; more are dropped, so that a slow disk cannot hold up a socket.
const QUEUED_LINES: usize = 16 * 1024;

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;

/// Why the log cannot start. The configuration has to change; without a log the node should not run.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is wrong.
    #[error("log.level: {0}")]
    Level(String),
    /// `log.file` cannot be written.
    #[error("log.file: cannot write {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// A log was started before in this process.
    #[error("the log of this process has been started before")]
    Started,
}

/// The running log. Dropping it writes what is still queued: keep it until the process ends.
#[derive(Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<String>,
    _writer: WorkerGuard,
}

impl LogHandle {
    /// Changes what is logged, as `log.level` says it, from the next line on.
    ///
    /// # Errors
    /// What is wrong with `level`, for people; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        let filter = log_filter(level)?;
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(filter).map_err(|e| e.to_string())?;
        level.clone_into(&mut current);
        Ok(())
    }

    /// The level in force.
    #[must_use]
    pub fn level(&self) -> String {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts the log of the process.
///
/// # Errors
/// A wrong level, a file that cannot be written, or a log that was started before.
pub fn init(settings: &Log) -> Result<LogHandle, LogError> {
    let (dispatch, handle) = build(settings)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::Started)?;
    Ok(handle)
}

fn build(settings: &Log) -> Result<(Dispatch, LogHandle), LogError> {
    let filter = log_filter(&settings.level).map_err(LogError::Level)?;
    let (filter, reload) = reload::Layer::new(filter);
    let (writer, guard) = writer(settings)?;
    let ansi = settings.file.as_os_str().is_empty() && io::stdout().is_terminal();
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(lines(settings.format, writer, ansi));
    let level = Mutex::new(settings.level.clone());
    Ok((
        Dispatch::new(subscriber),
        LogHandle {
            filter: reload,
            level,
            _writer: guard,
        },
    ))
}

/// Hands lines to a thread of their own.
fn writer(settings: &Log) -> Result<(NonBlocking, WorkerGuard), LogError> {
    let output: Box<dyn Write + Send> = if settings.file.as_os_str().is_empty() {
        Box::new(io::stdout())
    } else {
        let opened = RotatedFile::open(&settings.file, settings.max_bytes, settings.files);
        Box::new(opened.map_err(|cause| LogError::File {
            path: settings.file.clone(),
            cause,
        })?)
    };
    let builder = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUED_LINES)
        .lossy(true);
    Ok(builder.thread_name("log").finish(output))
}

/// One line an event; times are RFC 3339 UTC in both formats.
fn lines(format: LogFormat, writer: NonBlocking, ansi: bool) -> Box<dyn Layer<Filtered> + Send + Sync> {
    let layer = fmt::layer().with_writer(writer).with_ansi(ansi);
    match format {
        LogFormat::Pretty => Box::new(layer.compact()),
        LogFormat::Json => Box::new(layer.json().flatten_event(true).with_span_list(false)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::scratch::Scratch;

    fn settings(path: &Path, format: LogFormat) -> Log {
        let file = path.to_owned();
        Log {
            format,
            level: "info".to_owned(),
            file,
            max_bytes: 1 << 20,
            files: 2,
            access: true,
        }
    }

    /// What `logged` leaves in the file once the handle is dropped.
    fn output(format: LogFormat, logged: impl FnOnce(&LogHandle)) -> String {
        let dir = Scratch::new();
        let path = dir.path().join("usher.log");
        let (dispatch, handle) = build(&settings(&path, format)).unwrap();
        tracing::dispatcher::with_default(&dispatch, || logged(&handle));
        drop(handle);
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn json_lines_are_flat_with_utc_times() {
        let text = output(LogFormat::Json, |_| {
            let span = tracing::info_span!("request", id = "00ff");
            span.in_scope(|| tracing::info!(port = 8443, "listening"));
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "listening");
        assert_eq!(line["port"], 8443);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["span"]["id"], "00ff");
        let time = line["timestamp"].as_str().unwrap();
        assert!(
            time.ends_with('Z') && humantime::parse_rfc3339(time).is_ok(),
            "{time}"
        );
    }

    #[test]
    fn pretty_lines_in_a_file_have_no_colours() {
        let text = output(LogFormat::Pretty, |_| tracing::warn!(node = "a", "draining"));
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains(" WARN ") && text.contains("draining node=\"a\""),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn the_level_changes_at_run_time_and_a_wrong_one_changes_nothing() {
        let text = output(LogFormat::Pretty, |handle| {
            tracing::debug!("one");
            handle.set_level("warn,usher=debug").unwrap();
            tracing::debug!("two");
            assert!(handle.set_level("loud").is_err());
            assert_eq!(handle.level(), "warn,usher=debug");
            tracing::debug!("three");
            handle.set_level("off").unwrap();
            tracing::error!("four");
        });
        let found: Vec<bool> = ["one", "two", "three", "four"]
            .iter()
            .map(|word| text.contains(word))
            .collect();
        assert_eq!(found, [false, true, true, false], "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let dir = Scratch::new();
        let path = dir.write("file", "").join("usher.log");
        let error = build(&settings(&path, LogFormat::Json)).unwrap_err();
        assert!(
            error.to_string().starts_with("log.file: cannot write "),
            "{error}"
        );
    }
}
