//! The two streams: results on stdout, everything else on stderr.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one place that writes to them"
)]

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar is drawn; the load must not pay for it.
const DRAWS_PER_SECOND: u8 = 4;

/// Writes a result.
pub fn result(text: &str) {
    println!("{}", text.trim_end());
}

/// Tells how it goes.
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// A bar on stderr; without a terminal, a line at the beginning of each step.
pub struct Progress {
    bar: ProgressBar,
    label: String,
}

impl Progress {
    /// For work of this name.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        let style = ProgressStyle::with_template("{spinner} {prefix} {wide_bar} {pos}/{len} {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(label.to_owned());
        Self {
            bar,
            label: label.to_owned(),
        }
    }

    /// A step of so many parts begins.
    pub fn step(&self, what: &str, parts: u64) {
        self.bar.set_length(parts);
        self.bar.set_position(0);
        self.bar.set_message(what.to_owned());
        if self.bar.is_hidden() {
            note(&format!("{}: {what}", self.label));
        }
    }

    /// How far it is.
    pub fn at(&self, part: u64, message: String) {
        self.bar.set_position(part);
        self.bar.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
