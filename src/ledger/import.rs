//! Files of history: users, plays and tracks, as other systems write them.
//!
//! Owns: the steps from a file to rows, and what came of each line. Does not: guess: separators, decimal commas and
//! forms of dates are said by whoever imports.
//! Called by: the command `import`, and the routes, on a thread that may block: files are read as the rows are written.

mod json;
mod plays;
mod rejects;
mod rows;
mod scratch;
mod spill;
mod tracks;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use crate::db::{Db, DbError, Inserts, Sql};

use super::calendar::Pattern;
use super::figures::Terms;
use super::versions;

pub use rejects::{Reject, Rejects};
use rows::{Header, Next, Rows};
pub use scratch::Scratch;

/// Rows in a transaction: short, so that others can write in between.
const BATCH: usize = 4000;

/// The longest wait of one transaction of an import.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest id of a user or track and longest name of a label, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `user_id;product_type;fee;origin`, at will `currency`.
    Users,
    /// `date;user_id;region;track id;seconds`
    Plays,
    /// `track id;track name;label`
    Tracks,
}

impl Kind {
    /// Its columns.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Users => &["user_id", "product_type", "fee", "origin", "currency"],
            Self::Plays => &["date", "user_id", "region", "track_id", "seconds"],
            Self::Tracks => &["track_id", "track_name", "label"],
        }
    }

    /// Whether a file may be without this column.
    fn may_lack(self, column: &str) -> bool {
        self == Self::Users && column == "currency"
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Rows of fields with a separator.
    #[default]
    Csv,
    /// An array of records.
    Json,
}

/// How a file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// What it is.
    pub form: Form,
    /// The columns' names, when the file has none and begins with the first record; empty: it has them.
    pub columns: Vec<String>,
    /// Between fields.
    pub separator: u8,
    /// `7,99` instead of `7.99`.
    pub decimal_comma: bool,
    /// The form of dates.
    pub dates: Pattern,
}

/// What stands between fields: one character, or `tab`.
///
/// # Errors
/// What is wrong, for people.
pub fn separator_of(text: &str) -> Result<u8, &'static str> {
    match text.as_bytes() {
        _ if text == "tab" || text == "\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n".contains(byte) => Ok(*byte),
        _ => Err("must be one character such as ; or \"tab\""),
    }
}

/// Names of columns with commas between them; none of an empty text.
///
/// # Errors
/// What is wrong, for people: a name is empty, or there twice.
pub fn columns_of(text: &str) -> Result<Vec<String>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = text.split(',').map(rows::normal).collect();
    let once: BTreeSet<&String> = names.iter().collect();
    if names.iter().any(String::is_empty) {
        return Err("has an empty name");
    } else if once.len() < names.len() {
        return Err("has a name twice");
    }
    Ok(names)
}

impl Default for Format {
    fn default() -> Self {
        Self {
            form: Form::default(),
            columns: Vec::new(),
            separator: b',',
            decimal_comma: false,
            dates: Pattern::iso(),
        }
    }
}

/// What came of the lines so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows read.
    pub read: u64,
    /// Rows that are new or changed something.
    pub taken: u64,
    /// Rows that changed nothing.
    pub already: u64,
    /// Rows that are not as they must be.
    pub rejected: u64,
}

/// Why an import stopped. Rows that were taken stay: the same import can be run again.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file as a whole cannot be read as it was said.
    #[error("{0}")]
    Form(String),
    /// Reading it, or writing what is kept meanwhile.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Where rows go, and on which terms.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The database.
    pub db: &'a Db,
    /// Whose rows.
    pub tenant: &'a str,
    /// Currencies and channels.
    pub terms: &'a Terms,
    /// A directory for what does not fit into memory.
    pub scratch: &'a Path,
}

/// Reads `source` to its end. `watch` is told how far it is: bytes read, and the counts so far.
///
/// # Errors
/// As [`ImportError`] says.
pub async fn import(
    place: Place<'_>,
    kind: Kind,
    format: &Format,
    source: impl Read,
    rejects: &mut Rejects,
    watch: &mut dyn FnMut(u64, &Counts),
) -> Result<Counts, ImportError> {
    if format.form == Form::Csv {
        return read(place, kind, format, source, rejects, watch).await;
    }
    let mut rows = json::rows(source, kind, format, place.scratch)?;
    let format = Format {
        form: Form::Csv,
        separator: b',',
        ..format.clone()
    };
    read(place, kind, &format, rows.from_start()?, rejects, watch).await
}

async fn read(
    place: Place<'_>,
    kind: Kind,
    format: &Format,
    source: impl Read,
    rejects: &mut Rejects,
    watch: &mut dyn FnMut(u64, &Counts),
) -> Result<Counts, ImportError> {
    let mut rows = Rows::new(source, format.separator);
    let header = if format.columns.is_empty() {
        Header::read(&mut rows)?
    } else {
        Header::named(&format.columns)
    };
    let mut run = Run {
        place,
        format,
        rows,
        rejects,
        watch,
        counts: Counts::default(),
    };
    match kind {
        Kind::Users => users::import(&mut run, &header).await?,
        Kind::Plays => plays::import(&mut run, &header).await?,
        Kind::Tracks => tracks::import(&mut run, &header).await?,
    }
    let counts = run.counts;
    rejects.finish()?;
    Ok(counts)
}

/// An import under way.
struct Run<'a, R> {
    place: Place<'a>,
    format: &'a Format,
    rows: Rows<R>,
    rejects: &'a mut Rejects,
    watch: &'a mut dyn FnMut(u64, &Counts),
    counts: Counts,
}

impl<R: Read> Run<'_, R> {
    /// The next row that can be read as `T`; the others are rejected.
    fn next<T>(&mut self, parse: impl Fn(&Rows<R>) -> Result<T, Reject>) -> Result<Option<T>, ImportError> {
        loop {
            let parsed = match self.rows.next()? {
                Next::End => return Ok(None),
                Next::Row => parse(&self.rows),
                Next::TooLong => Err(Reject::new("row", "is too long, or its quotes do not end")),
            };
            self.counts.read += 1;
            if self.counts.read.is_multiple_of(BATCH as u64) {
                (self.watch)(self.rows.bytes(), &self.counts);
            }
            match parsed {
                Ok(row) => return Ok(Some(row)),
                Err(reject) => {
                    self.counts.rejected += 1;
                    self.rejects.add(self.rows.line(), &reject, self.rows.fields())?;
                }
            }
        }
    }

    /// The next rows by their key: of two with one key the later counts.
    fn batch<T>(
        &mut self,
        parse: impl Fn(&Rows<R>) -> Result<(String, T), Reject>,
    ) -> Result<BTreeMap<String, T>, ImportError> {
        let mut batch = BTreeMap::new();
        while batch.len() < BATCH {
            let Some((key, row)) = self.next(&parse)? else {
                break;
            };
            if batch.insert(key, row).is_some() {
                self.counts.already += 1;
            }
        }
        Ok(batch)
    }

    /// Counts rows that were written, of which so many changed something.
    fn wrote(&mut self, rows: usize, changed: u64) {
        self.counts.taken += changed;
        self.counts.already += (rows as u64).saturating_sub(changed);
        (self.watch)(self.rows.bytes(), &self.counts);
    }
}

/// Inserts rows; how many that changed. `days` are those of the plays among them.
async fn insert(place: Place<'_>, days: &BTreeSet<i64>, inserts: Inserts) -> Result<u64, DbError> {
    let mut work = place.db.begin_for(PATIENCE).await?;
    let changed = inserts.run(&mut work).await?;
    if changed > 0 {
        versions::change(&mut work, place.tenant, days).await?;
    }
    work.commit().await?;
    Ok(changed)
}

/// Begins a row with its tenant.
fn push_first(sql: &mut Sql, first: bool, tenant: &str) {
    if first {
        sql.push("(").bind(tenant.to_owned()).push(", ");
    } else {
        sql.push("($1, ");
    }
}

/// An id as it is: it means nothing to us.
fn id(field: &'static str, bytes: &[u8]) -> Result<String, Reject> {
    let id = text(field, bytes)?;
    if id.is_empty() {
        return Err(Reject::new(field, "is empty"));
    }
    Ok(id.to_owned())
}

/// A text that the database can hold.
fn text<'t>(field: &'static str, bytes: &'t [u8]) -> Result<&'t str, Reject> {
    let text = std::str::from_utf8(bytes).map_err(|_| Reject::new(field, "is not UTF-8"))?;
    if text.len() > MAX_TEXT_BYTES {
        return Err(Reject::new(field, "is longer than 256 bytes"));
    }
    if text.contains('\0') {
        return Err(Reject::new(field, "has a NUL character"));
    }
    Ok(text)
}
