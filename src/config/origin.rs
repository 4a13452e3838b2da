//! Who set what: the file and the variables behind the effective settings.
//!
//! Owns: naming the source of a problem.
//! Does not: change a setting.
//! Called by: `load`.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Table;

use super::environment::Assignment;
use super::keys;

/// Every path that exists, and the sources that were read beside the defaults.
pub(super) struct Origins {
    known: BTreeSet<String>,
    file: String,
    in_file: BTreeSet<String>,
    assignments: Vec<Assignment>,
}

impl Origins {
    /// The defaults alone.
    pub(super) fn new(defaults: &Table) -> Self {
        Self {
            known: paths(defaults),
            file: String::new(),
            in_file: BTreeSet::new(),
            assignments: Vec::new(),
        }
    }

    /// Notes a file and tells its name.
    pub(super) fn add_file(&mut self, path: &Path, table: &Table) -> String {
        self.file = path.display().to_string();
        self.in_file = paths(table);
        self.file.clone()
    }

    /// Notes a variable.
    pub(super) fn add(&mut self, assignment: Assignment) {
        self.assignments.push(assignment);
    }

    /// `path: message` after the source that set `path`: a variable, else the file; none when it is a default that
    /// clashes with another setting.
    pub(super) fn blame(&self, path: &str, message: &str) -> String {
        let set_by = self.assignments.iter().rev().find(|a| touches(&a.key(), path));
        let is_default = self.known.contains(path) && !self.in_file.contains(path);
        match set_by {
            Some(assignment) => format!("environment {}: {path}: {message}", assignment.name),
            None if is_default || self.file.is_empty() => format!("{path}: {message}"),
            None => format!("{}: {path}: {message}", self.file),
        }
    }

    /// One problem for each place that names the unknown `path` or something inside it.
    pub(super) fn unknown(&self, path: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if self.in_file.contains(path) {
            problems.push(format!("{}: {}", self.file, self.unknown_key(path)));
        }
        for assignment in &self.assignments {
            let key = assignment.key();
            if touches(&key, path) {
                let longer = if key.len() > path.len() { &key } else { path };
                problems.push(format!(
                    "environment {}: {}",
                    assignment.name,
                    self.unknown_key(longer)
                ));
            }
        }
        problems
    }

    /// "unknown key X", with the known key that was probably meant.
    pub(super) fn unknown_key(&self, path: &str) -> String {
        match keys::nearest(path, &self.known) {
            Some(meant) => format!("unknown key {path} (did you mean {meant}?)"),
            None => format!("unknown key {path}"),
        }
    }
}

fn paths(table: &Table) -> BTreeSet<String> {
    keys::flatten(table).into_keys().collect()
}

/// Whether setting one path changes the other.
fn touches(a: &str, b: &str) -> bool {
    keys::is_within(a, b) || keys::is_within(b, a)
}
