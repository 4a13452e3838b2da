//! Paths of settings, such as `limits.connections` or `auth.keys[0].algorithm`.
//!
//! Owns: how a path is written, which paths a table has, and which known path a mistyped one may mean.
//! Does not: know the settings themselves.
//! Called by: `load`, `environment` and `origin`.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

/// One level of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A key of a table.
    Key(String),
    /// An index of an array.
    Index(usize),
}

/// Writes a path as the user would.
pub(super) fn display<'a>(steps: impl IntoIterator<Item = &'a Step>) -> String {
    steps.into_iter().fold(String::new(), |parent, step| match step {
        Step::Key(key) => join(&parent, key),
        Step::Index(index) => format!("{parent}[{index}]"),
    })
}

/// The path of `key` inside `parent`; a key that is not bare is quoted, so that a path stays one line.
pub(super) fn join(parent: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if parent.is_empty() {
        key
    } else {
        format!("{parent}.{key}")
    }
}

/// Every path of `table` with its value: tables, arrays, and what is in them.
pub(super) fn flatten(table: &Table) -> BTreeMap<String, &Value> {
    fn visit<'a>(path: String, value: &'a Value, found: &mut BTreeMap<String, &'a Value>) {
        match value {
            Value::Table(table) => table
                .iter()
                .for_each(|(key, value)| visit(join(&path, key), value, found)),
            Value::Array(array) => {
                array
                    .iter()
                    .enumerate()
                    .for_each(|(i, value)| visit(format!("{path}[{i}]"), value, found));
            }
            _ => {}
        }
        found.insert(path, value);
    }
    let mut found = BTreeMap::new();
    table
        .iter()
        .for_each(|(key, value)| visit(join("", key), value, &mut found));
    found
}

/// Whether `path` is `parent` or lies inside it.
pub(super) fn is_within(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What a value is, with its article: "an integer".
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

/// The known path that a mistyped one may mean: the nearest by spelling, else the only one of its name in another
/// section.
pub(super) fn nearest<'a>(path: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let similar = known
        .iter()
        .map(|candidate| (distance(path, candidate), candidate))
        .filter(|(distance, candidate)| distance * 4 <= candidate.len())
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, candidate)) = similar {
        return Some(candidate);
    }
    let name = path.rsplit('.').next();
    let mut namesakes = known
        .iter()
        .filter(|c| c.contains('.') && c.rsplit('.').next() == name);
    namesakes
        .next()
        .filter(|_| namesakes.next().is_none())
        .map(String::as_str)
}

/// Edits (insert, delete, replace) between two texts: Levenshtein's distance, by rows. Long texts are far from
/// everything, so that a hostile name costs nothing.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 100;
    if a.len() > LONGEST {
        return a.len().abs_diff(b.len());
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_written() {
        let steps = [
            Step::Key("auth".to_owned()),
            Step::Key("keys".to_owned()),
            Step::Index(2),
            Step::Key("a b\n".to_owned()),
        ];
        assert_eq!(display(&steps), "auth.keys[2].\"a b\\n\"");
        assert!(is_within("auth.keys[2]", "auth.keys"));
        assert!(is_within("auth", "auth"));
        assert!(!is_within("auth.keyset", "auth.keys"));
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_namesake_of_another_section_is_suggested_when_unique() {
        let known = ["limits.handshakes", "tls.key", "lease.limit", "a.limit"]
            .map(str::to_owned)
            .into();
        assert_eq!(nearest("http.handshakes", &known), Some("limits.handshakes"));
        assert_eq!(nearest("waiting.limit", &known), None);
        assert_eq!(nearest("tls.kee", &known), Some("tls.key"));
    }
}
