//! Rows that were not taken, with their lines and reasons.
//!
//! Owns: the rejects file, and noticing that an option may be missing. Does not: judge rows.
//! Called by: `import`, and whoever asked for it, who shows the first of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, Writer, WriterBuilder};

/// Rejects that are shown, not only written to the file.
const SHOWN: usize = 20;

/// Why a row was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    field: &'static str,
    problem: String,
    /// The option that would have made it good, if there is one.
    option: Option<&'static str>,
}

impl Reject {
    pub(super) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
            option: None,
        }
    }

    /// The same, as what a missing option looks like.
    pub(super) fn for_lack_of(self, option: &'static str) -> Self {
        Self {
            option: Some(option),
            ..self
        }
    }
}

/// What was rejected so far.
#[derive(Debug, Default)]
pub struct Rejects {
    file: Option<PathBuf>,
    writer: Option<Writer<File>>,
    count: u64,
    shown: Vec<(u64, String)>,
    by_option: BTreeMap<&'static str, u64>,
}

impl Rejects {
    /// Rejects that are only counted, and the first of them shown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, written to this file, which is made with the first of them.
    #[must_use]
    pub fn to(file: PathBuf) -> Self {
        Self {
            file: Some(file),
            ..Self::default()
        }
    }

    pub(super) fn add<'f>(
        &mut self,
        line: u64,
        reject: &Reject,
        fields: impl Iterator<Item = &'f [u8]>,
    ) -> io::Result<()> {
        let reason = format!("{} {}", reject.field, reject.problem);
        self.count += 1;
        if let Some(option) = reject.option {
            *self.by_option.entry(option).or_default() += 1;
        }
        if let Some(file) = &self.file {
            if self.writer.is_none() {
                let mut writer = WriterBuilder::new()
                    .flexible(true)
                    .from_writer(File::create(file)?);
                writer.write_record(["line", "reason", "row"])?;
                self.writer = Some(writer);
            }
            if let Some(writer) = &mut self.writer {
                let mut record = ByteRecord::from(vec![line.to_string(), reason.clone()]);
                fields.for_each(|field| record.push_field(field));
                writer.write_byte_record(&record)?;
            }
        }
        if self.shown.len() < SHOWN {
            self.shown.push((line, reason));
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Writer::flush)
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first of them: line and reason.
    #[must_use]
    pub fn shown(&self) -> &[(u64, String)] {
        &self.shown
    }

    /// The file that they were written to, if there are any.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.writer.as_ref().and(self.file.as_deref())
    }

    /// The option that is missing, as it seems: every row read was rejected for the lack of it.
    #[must_use]
    pub fn missing_option(&self, read: u64) -> Option<&'static str> {
        let all = |(option, count): (&&'static str, &u64)| (read > 0 && *count == read).then_some(*option);
        self.by_option.iter().find_map(all)
    }
}
