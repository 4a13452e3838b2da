//! Loading: defaults, file, environment and flags become one [`Config`].
//!
//! Owns: the order of the sources, and the search for everything that is wrong in them.
//! Does not: read the process's arguments or environment (it is handed them), nor judge values (`validate` does).
//! Called by: the commands at start, and again on SIGHUP.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::environment::{self, Assignment};
use super::keys::{self, Step};
use super::origin::Origins;
use super::{Config, ConfigError, DEFAULT_TOML, DatabaseUrl, RedisUrl, validate};

/// Most values of a wrong type that are reported at once.
const MOST_TYPE_ERRORS: usize = 100;

/// Settings given as flags, stronger than every other source.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`: `listen.players`.
    pub listen: Option<SocketAddr>,
    /// `--admin-listen`: `listen.admin`.
    pub admin_listen: Option<SocketAddr>,
    /// `--redis`: `redis.url`.
    pub redis: Option<RedisUrl>,
    /// `--database`: `database.url`.
    pub database: Option<DatabaseUrl>,
    /// `--data-dir`: `data.dir`.
    pub data_dir: Option<PathBuf>,
}

/// Reads and checks the settings; `env` is the whole environment (`std::env::vars_os()`). Weakest first: defaults,
/// `file`, `env`, `overrides`.
///
/// # Errors
/// Everything that is wrong, as far as it can be judged: an unreadable or malformed file alone, else all unknown
/// keys, wrong types and bad values, each with its source and path.
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let defaults: Table = DEFAULT_TOML
        .parse()
        .expect("the embedded defaults are TOML: tested");
    let mut values = defaults.clone();
    let mut origins = Origins::new(&defaults);
    let mut problems = Vec::new();
    if let Some(path) = file {
        let table = read(path).map_err(|problem| ConfigError::new([problem]))?;
        let name = origins.add_file(path, &table);
        let mut wrong = Vec::new();
        merge(&mut values, table, "", &mut wrong);
        problems.extend(wrong.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    for new in environment::assignments(env, &defaults, &values, &mut problems) {
        if let Err(problem) = assign(&mut values, &new, &origins) {
            problems.push(format!("environment {}: {problem}", new.name));
        }
        origins.add(new);
    }
    match decode(values, &defaults, &origins, &mut problems) {
        Some(mut config) => {
            config.override_with(overrides);
            let wrong = validate::problems(&config);
            problems.extend(wrong.iter().map(|(path, message)| origins.blame(path, message)));
            if problems.is_empty() {
                Ok(config)
            } else {
                Err(ConfigError::new(problems))
            }
        }
        None => Err(ConfigError::new(problems)),
    }
}

/// Every key of a configuration with its value as TOML, secrets masked; entries of a list stand in one value.
#[must_use]
pub fn leaves(config: &Config) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(&path, value, found);
                }
            }
            other => {
                found.insert(path.to_owned(), other.to_string());
            }
        }
    }
    let mut found = BTreeMap::new();
    if let Ok(value) = Value::try_from(config) {
        walk("", &value, &mut found);
    }
    found
}

/// The effective configuration as TOML, secrets masked.
#[must_use]
pub fn to_toml(config: &Config) -> String {
    toml::to_string_pretty(config)
        .unwrap_or_else(|e| format!("# this configuration cannot be written as TOML: {e}\n"))
}

impl Config {
    fn override_with(&mut self, flags: &Overrides) {
        self.listen.players = flags.listen.unwrap_or(self.listen.players);
        self.listen.admin = flags.admin_listen.unwrap_or(self.listen.admin);
        if let Some(url) = &flags.database {
            self.database.url.clone_from(url);
        }
        if let Some(url) = &flags.redis {
            self.redis.url.clone_from(url);
        }
        if let Some(dir) = &flags.data_dir {
            self.data.dir.clone_from(dir);
        }
    }
}

/// Reads a file as TOML. The message of a syntax error gives the place and not the line, which may hold a secret.
fn read(path: &Path) -> Result<Table, String> {
    let name = path.display();
    let bytes = fs::read(path).map_err(|e| format!("{name}: cannot read the configuration file: {e}"))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{name}: not UTF-8"))?;
    text.parse::<Table>().map_err(|e| {
        let before = &text[..text.floor_char_boundary(e.span().map_or(0, |span| span.start))];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{name}: line {line}, column {column}: {}", e.message())
    })
}

/// Lays `from` over `into`, table by table. Where the defaults have a table, nothing else may replace it.
fn merge(into: &mut Table, from: Table, parent: &str, problems: &mut Vec<String>) {
    for (key, value) in from {
        let path = keys::join(parent, &key);
        match (into.get_mut(&key).and_then(Value::as_table_mut), value) {
            (Some(into), Value::Table(from)) => merge(into, from, &path, problems),
            (Some(_), other) => {
                problems.push(format!("{path}: expected a table, found {}", keys::kind(&other)));
            }
            (None, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Sets one value, making the tables on its way.
fn assign(values: &mut Table, new: &Assignment, origins: &Origins) -> Result<(), String> {
    let (last, parents) = new.path.split_last().expect("a variable's path has a key");
    let mut table = values;
    for key in parents {
        let next = table
            .entry(key.as_str())
            .or_insert_with(|| Value::Table(Table::new()));
        table = next
            .as_table_mut()
            .ok_or_else(|| origins.unknown_key(&new.key()))?;
    }
    if table.get(last).is_some_and(Value::is_table) && !new.value.is_table() {
        return Err(format!(
            "{}: expected a table, found {}",
            new.key(),
            keys::kind(&new.value)
        ));
    }
    table.insert(last.clone(), new.value.clone());
    Ok(())
}

/// Turns the merged values into the typed settings. A value of a wrong type is reported and replaced by its default,
/// so that the rest is judged too; then there is no result.
fn decode(
    mut values: Table,
    defaults: &Table,
    origins: &Origins,
    problems: &mut Vec<String>,
) -> Option<Config> {
    let known = keys::flatten(defaults);
    for tries in 0..MOST_TYPE_ERRORS {
        let mut unknown = BTreeSet::new();
        let mut track = serde_path_to_error::Track::new();
        let from = serde_path_to_error::Deserializer::new(Value::Table(values.clone()), &mut track);
        let decoded = serde_ignored::deserialize(from, |path| {
            unknown.insert(keys::display(&ignored_steps(&path)));
        });
        let error = match decoded {
            Ok(config) => {
                problems.extend(unknown.iter().flat_map(|path| origins.unknown(path)));
                return (tries == 0).then_some(config);
            }
            Err(error) => error,
        };
        let steps = failed_steps(&track.path());
        let path = keys::display(&steps);
        let message = describe(
            error.message(),
            keys::flatten(&values).get(&path),
            known.get(&path),
        );
        problems.push(origins.blame(&path, &message));
        if !reset(&mut values, defaults, &steps) {
            return None;
        }
    }
    None
}

/// What serde says, except that its "invalid type" repeats the value, which may be a secret.
fn describe(message: &str, found: Option<&&Value>, default: Option<&&Value>) -> String {
    let Some((_, expected)) = message
        .strip_prefix("invalid type: ")
        .and_then(|m| m.rsplit_once(", expected "))
    else {
        return message.to_owned();
    };
    let expected = match expected {
        _ if default.is_some() => default.map_or("", |value| keys::kind(value)),
        "a sequence" => "an array",
        record if record.starts_with("struct ") => "a table",
        other => other,
    };
    format!(
        "expected {expected}, found {}",
        found.map_or("another type", |value| keys::kind(value))
    )
}

/// Puts the default back at the deepest setting on the way of `steps`; what has none (a plan) is removed. False when
/// nothing changed.
fn reset(values: &mut Table, defaults: &Table, steps: &[Step]) -> bool {
    let Some((Step::Key(key), deeper)) = steps.split_first() else {
        return false;
    };
    let Some(default) = defaults.get(key) else {
        return values.remove(key).is_some();
    };
    if let (Value::Table(defaults), Some(Value::Table(values)), [_, ..]) =
        (default, values.get_mut(key), deeper)
    {
        return reset(values, defaults, deeper);
    }
    values.insert(key.clone(), default.clone()).as_ref() != Some(default)
}

fn failed_steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn ignored_steps(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    let (parent, step) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Step::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Step::Key(key.clone()))),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            (parent, None)
        }
    };
    let mut steps = ignored_steps(parent);
    steps.extend(step);
    steps
}
