//! What is wrong with a configuration, in words for the person who wrote it.
//!
//! Owns: the list of problems and the rule of one line each.
//! Does not: find them (`load` and `validate` do), nor carry a setting's value that may be secret.
//! Called by: the commands, which print it and exit with 2.

use std::fmt;

/// Every problem of a configuration, one a line. The settings have to be corrected; trying again does not help.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// Control characters, which a key or a value may hold, are escaped: one problem stays one line.
    pub(super) fn new(problems: impl IntoIterator<Item = String>) -> Self {
        Self {
            problems: problems.into_iter().map(|problem| one_line(&problem)).collect(),
        }
    }

    /// The problems in the order of the sources: file, environment, then both together.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

fn one_line(text: &str) -> String {
    let escaped = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escaped).collect()
}
