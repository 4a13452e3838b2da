//! How far a command is, on stderr: a line that changes on a terminal, now and then a line in a log.

use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::ledger::import::Counts;
use crate::ledger::steps::Steps;

/// How often it is shown: on a terminal, and in a log.
const PACE: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// How far something is, on stderr.
pub(super) struct Progress {
    size: Option<u64>,
    terminal: bool,
    shown: Instant,
}

impl Progress {
    /// Of a file of this size.
    pub(super) fn new(size: Option<u64>) -> Self {
        Self {
            size,
            terminal: io::stderr().is_terminal(),
            shown: Instant::now(),
        }
    }

    /// Bytes read, and what came of them.
    pub(super) fn show(&mut self, bytes: u64, counts: &Counts) {
        if !self.is_due() {
            return;
        }
        let read = self
            .size
            .filter(|size| *size > 0)
            .map_or_else(String::new, |size| {
                let percent = bytes.min(size) * 100 / size;
                let filled = usize::try_from(percent / 5).unwrap_or_default();
                format!("[{:<20}] {percent:3} % read, ", "#".repeat(filled))
            });
        let written = counts.taken + counts.already;
        let line = format!(
            "{read}{} rows, {written} written, {} rejected",
            counts.read, counts.rejected
        );
        self.print(&line);
    }

    /// So many days have their sums.
    pub(super) fn days(&mut self, days: u64) {
        if self.is_due() {
            self.print(&format!("sums of {days} days"));
        }
    }

    fn is_due(&mut self) -> bool {
        let due = self.shown.elapsed() >= PACE[usize::from(!self.terminal)];
        if due {
            self.shown = Instant::now();
        }
        due
    }

    fn print(&self, line: &str) {
        if self.terminal {
            eprint!("\r{line:<79}");
            let _ = io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Nothing is shown any more.
    pub(super) fn end(&self) {
        if self.terminal {
            eprint!("\r{:<79}\r", "");
        }
    }
}

/// Does the work, and shows meanwhile how far it is.
pub(super) async fn shown<T>(work: impl Future<Output = T>, steps: &Steps) -> T {
    let mut work = pin!(work);
    let mut progress = Progress::new(None);
    loop {
        if let Ok(done) = timeout(PACE[0], &mut work).await {
            progress.end();
            return done;
        }
        if progress.is_due() {
            let (done, all) = steps.seen();
            progress.print(&format!("{done} of {all} steps"));
        }
    }
}
