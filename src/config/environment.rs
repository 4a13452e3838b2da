//! Settings from the environment: `USHER_<SECTION>__<KEY>` and `.._FILE`.
//!
//! Owns: which variables are settings, their paths, and how their text becomes a typed value.
//! Does not: know whether a key exists (`load` judges all sources alike) or read the process's environment itself.
//! Called by: `load`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;

use toml::{Table, Value};

use super::keys;

const PREFIX: &str = "USHER_";
const INDIRECT: &str = "_file";
/// Deeper than any setting lies; bounds the recursion over a hostile name.
const DEEPEST: usize = 8;
/// Largest file behind a `_FILE` variable.
const LARGEST_FILE_BYTES: u64 = 1024 * 1024;

/// A variable that sets something.
pub(super) struct Assignment {
    /// Name of the variable.
    pub(super) name: String,
    /// Keys from the root; never empty.
    pub(super) path: Vec<String>,
    /// What it sets.
    pub(super) value: Value,
}

impl Assignment {
    /// The path as written in messages.
    pub(super) fn key(&self) -> String {
        self.path
            .iter()
            .fold(String::new(), |parent, key| keys::join(&parent, key))
    }
}

/// The settings among `env`, in the order of their names. `current` (defaults and file) tells the names of plans,
/// whose case the environment cannot tell; `defaults` tells the types.
pub(super) fn assignments(
    env: impl IntoIterator<Item = (OsString, OsString)>,
    defaults: &Table,
    current: &Table,
    problems: &mut Vec<String>,
) -> Vec<Assignment> {
    let variables: BTreeMap<OsString, OsString> = env.into_iter().collect();
    let mut found: Vec<Assignment> = Vec::new();
    for (name, value) in &variables {
        let Some((name, rest)) = name.to_str().and_then(|name| Some((name, settings_part(name)?))) else {
            continue;
        };
        match assignment(name, rest, value, defaults, current) {
            Ok(new) => match found.iter().find(|old| old.path == new.path) {
                Some(old) => {
                    problems.push(format!(
                        "environment {name}: {} is also set by {}",
                        new.key(),
                        old.name
                    ));
                }
                None => found.push(new),
            },
            Err(problem) => problems.push(format!("environment {name}: {problem}")),
        }
    }
    found
}

/// What follows the prefix, when `name` is meant for us. Without a double underscore it is not: Kubernetes sets
/// `USHER_PORT` for a service called usher.
fn settings_part(name: &str) -> Option<&str> {
    let (prefix, rest) = name.split_at_checked(PREFIX.len())?;
    (prefix.eq_ignore_ascii_case(PREFIX) && rest.contains("__")).then_some(rest)
}

fn assignment(
    name: &str,
    rest: &str,
    value: &OsString,
    defaults: &Table,
    current: &Table,
) -> Result<Assignment, String> {
    let lower = rest.to_ascii_lowercase();
    let path: Vec<&str> = lower.split("__").collect();
    if path.len() > DEEPEST || path.contains(&"") {
        return Err("not the name of a setting".to_owned());
    }
    let (path, indirect) = match direct_path(&path, defaults) {
        Some(direct) => (direct, true),
        None => (path, false),
    };
    let text = value.to_str().ok_or("the value is not UTF-8")?;
    let text = if indirect { read(text)? } else { text.to_owned() };
    let value = typed(&text, lookup(defaults, &path))?;
    Ok(Assignment {
        name: name.to_owned(),
        path: spelled(&path, current),
        value,
    })
}

/// The path that a `_FILE` variable stands for; none for a key of the schema that really ends so.
fn direct_path<'a>(path: &[&'a str], defaults: &Table) -> Option<Vec<&'a str>> {
    let (last, parents) = path.split_last()?;
    let direct = last.strip_suffix(INDIRECT).filter(|key| !key.is_empty())?;
    lookup(defaults, path)
        .is_none()
        .then(|| [parents, &[direct]].concat())
}

fn lookup<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, parents) = path.split_last()?;
    parents
        .iter()
        .try_fold(table, |table, key| table.get(*key)?.as_table())?
        .get(*last)
}

/// `path` with each key spelled as `current` has it, when it differs only in case.
fn spelled(path: &[&str], current: &Table) -> Vec<String> {
    let mut table = Some(current);
    let mut spelled = Vec::with_capacity(path.len());
    for key in path {
        let entry = table.and_then(|table| {
            table
                .get_key_value(*key)
                .or_else(|| table.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)))
        });
        spelled.push(entry.map_or(*key, |(name, _)| name).to_owned());
        table = entry.and_then(|(_, value)| value.as_table());
    }
    spelled
}

/// Reads the value out of a file; one newline at its end is the editor's, not the value's. No message repeats the
/// path: whoever forgot that it should be one has put the secret itself there.
fn read(path: &str) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("cannot read the file that it names: {e}");
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LARGEST_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > LARGEST_FILE_BYTES {
        return Err(format!(
            "the file that it names is larger than {LARGEST_FILE_BYTES} bytes"
        ));
    }
    let value = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(value.to_owned())
}

/// The value of the type that the default has. Never repeats the text: it may be a secret.
fn typed(text: &str, default: Option<&Value>) -> Result<Value, String> {
    let parsed = || text.trim().parse::<Value>().ok();
    match default {
        Some(Value::String(_)) => Ok(Value::String(text.to_owned())),
        Some(Value::Array(_)) if text.trim_start().starts_with('[') => parsed()
            .filter(Value::is_array)
            .ok_or_else(|| "not a TOML array".to_owned()),
        Some(Value::Array(_)) => Ok(Value::Array(listed(text))),
        Some(Value::Table(_)) | None => Ok(parsed().unwrap_or_else(|| Value::String(text.to_owned()))),
        Some(scalar) => parsed()
            .filter(|value| value.same_type(scalar))
            .ok_or_else(|| format!("expected {}", keys::kind(scalar))),
    }
}

fn listed(text: &str) -> Vec<Value> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Value::String(item.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    #[test]
    fn only_names_with_a_double_underscore_are_settings() {
        assert_eq!(settings_part("USHER_LOG__LEVEL"), Some("LOG__LEVEL"));
        assert_eq!(settings_part("usher_log__level"), Some("log__level"));
        assert_eq!(settings_part("USHER_PORT_8443_TCP_ADDR"), None);
        assert_eq!(settings_part("USHERS__X"), None);
        assert_eq!(settings_part("HOME"), None);
        assert_eq!(settings_part("ÜÜÜÜ"), None);
    }

    #[test]
    fn the_default_chooses_the_type() {
        let string = Value::String(String::new());
        assert_eq!(
            typed("12345", Some(&string)),
            Ok(Value::String("12345".to_owned()))
        );
        assert_eq!(typed("", Some(&string)), Ok(string));
        assert_eq!(typed(" 5 ", Some(&Value::Integer(0))), Ok(Value::Integer(5)));
        assert_eq!(
            typed("true", Some(&Value::Boolean(false))),
            Ok(Value::Boolean(true))
        );
        assert_eq!(
            typed("hunter2", Some(&Value::Integer(0))),
            Err("expected an integer".to_owned())
        );
        let list = Value::Array(vec![]);
        let ab = "[\"a\", \"b\"]".parse::<Value>().unwrap();
        assert_eq!(typed("a, b,", Some(&list)), Ok(ab.clone()));
        assert_eq!(typed(" ['a', 'b']", Some(&list)), Ok(ab));
        assert_eq!(typed("", Some(&list)), Ok(list.clone()));
        assert_eq!(typed("[hunter2", Some(&list)), Err("not a TOML array".to_owned()));
        assert_eq!(typed("5", None), Ok(Value::Integer(5)));
        assert_eq!(typed("five", None), Ok(Value::String("five".to_owned())));
    }
}
