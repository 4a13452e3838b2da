//! Rows of a CSV file, one at a time, in memory of a fixed size whatever the file holds.
//!
//! Owns: finding fields and line numbers, and the names of the columns. Does not: know what a field means.
//! Called by: `import`.

use std::io::{self, Read};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::ImportError;

/// The longest row, in bytes.
const MAX_ROW_BYTES: usize = 64 * 1024;
const MAX_FIELDS: usize = 256;
const CHUNK_BYTES: usize = 64 * 1024;

/// What a reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A row, to be looked at with [`Rows::field`].
    Row,
    /// A row that does not fit.
    TooLong,
    /// No more.
    End,
}

/// A file, row by row.
pub(super) struct Rows<R> {
    source: R,
    core: Reader,
    chunk: Vec<u8>,
    /// What of the chunk is to be read.
    start: usize,
    end: usize,
    /// The fields of the row, one after another, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
    newlines: u64,
    line: u64,
    bytes: u64,
}

impl<R: Read> Rows<R> {
    pub(super) fn new(source: R, separator: u8) -> Self {
        Self {
            source,
            core: ReaderBuilder::new().delimiter(separator).build(),
            chunk: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            text: vec![0; MAX_ROW_BYTES],
            ends: vec![0; MAX_FIELDS],
            fields: 0,
            newlines: 0,
            line: 0,
            bytes: 0,
        }
    }

    /// Goes on to the next row; empty lines are none.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        self.skip_empty_lines()?;
        self.line = self.newlines + 1;
        let (mut written, mut fields, mut fits) = (0, 0, true);
        loop {
            if self.start == self.end {
                self.fill()?;
            }
            let input = &self.chunk[self.start..self.end];
            let (result, read, wrote, ended) =
                self.core
                    .read_record(input, &mut self.text[written..], &mut self.ends[fields..]);
            self.newlines += input[..read].iter().filter(|b| **b == b'\n').count() as u64;
            self.start += read;
            written += wrote;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    // The rest of the row is read, and thrown away.
                    (fits, written, fields) = (false, 0, 0);
                }
                ReadRecordResult::Record => {
                    self.fields = if fits { fields } else { 0 };
                    return Ok(if fits { Next::Row } else { Next::TooLong });
                }
                ReadRecordResult::End => return Ok(Next::End),
            }
        }
    }

    fn skip_empty_lines(&mut self) -> io::Result<()> {
        loop {
            if self.start == self.end {
                self.fill()?;
            }
            match self.chunk[self.start..self.end].first() {
                Some(b'\n') => self.newlines += 1,
                Some(b'\r') => {}
                _ => return Ok(()),
            }
            self.start += 1;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let first = self.bytes == 0;
        (self.start, self.end) = (0, 0);
        // Three bytes decide whether there is a mark of the byte order.
        while self.end == 0 || first && self.end < 3 {
            match self.source.read(&mut self.chunk[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes += self.end as u64;
        if first && self.chunk[..self.end].starts_with(b"\xEF\xBB\xBF") {
            self.start = 3;
        }
        Ok(())
    }

    /// A field of the row; empty when the row has none there.
    pub(super) fn field(&self, index: usize) -> &[u8] {
        if index >= self.fields {
            return &[];
        }
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[index]]
    }

    /// All fields of the row.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.fields).map(|index| self.field(index))
    }

    /// How many fields the row has.
    pub(super) fn width(&self) -> usize {
        self.fields
    }

    /// The line on which the row begins, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Bytes read from the source.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// `track id`, `Track ID` and `track_id` are one name.
pub(super) fn normal(name: &str) -> String {
    name.trim().to_lowercase().replace(' ', "_")
}

/// The columns' names.
pub(super) struct Header {
    names: Vec<String>,
}

impl Header {
    /// # Errors
    /// There is no first row.
    pub(super) fn read<R: Read>(rows: &mut Rows<R>) -> Result<Self, ImportError> {
        if rows.next()? != Next::Row {
            return Err(ImportError::Form("the file has no header".to_owned()));
        }
        let name = |field: &[u8]| normal(&String::from_utf8_lossy(field));
        Ok(Self {
            names: rows.fields().map(name).collect(),
        })
    }

    /// The header of a file that has none.
    pub(super) fn named(columns: &[String]) -> Self {
        Self {
            names: columns.iter().map(|name| normal(name)).collect(),
        }
    }

    /// Columns of the file.
    pub(super) fn width(&self) -> usize {
        self.names.len()
    }

    /// Where a column is that a file may lack.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|found| found == name)
    }

    /// Where the columns are.
    ///
    /// # Errors
    /// One is missing; when the header looks as if another separator was meant, it says so.
    pub(super) fn columns<const COUNT: usize>(
        &self,
        names: [&str; COUNT],
    ) -> Result<[usize; COUNT], ImportError> {
        let mut found = [0; COUNT];
        for (place, name) in found.iter_mut().zip(names) {
            *place = self.find(name).ok_or_else(|| self.missing(name))?;
        }
        Ok(found)
    }

    fn missing(&self, name: &str) -> ImportError {
        let has = self.names.join(", ");
        let hint = match &self.names[..] {
            [one] => [';', ',', '\t', '|'].into_iter().find(|mark| one.contains(*mark)),
            _ => None,
        };
        let hint = hint.map(|mark| {
            let mark = mark.escape_default();
            format!(" (is --separator '{mark}' missing?)")
        });
        let hint = hint.unwrap_or_default();
        ImportError::Form(format!("the header has no column {name}, but {has:.200}{hint}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// Gives a byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn read(source: impl Read, separator: u8) -> Vec<(u64, Next, Vec<String>)> {
        let (mut rows, mut found) = (Rows::new(source, separator), Vec::new());
        loop {
            let next = rows.next().unwrap();
            if next == Next::End {
                return found;
            }
            let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
            found.push((rows.line(), next, rows.fields().map(text).collect()));
        }
    }

    fn row(line: u64, fields: &[&str]) -> (u64, Next, Vec<String>) {
        (line, Next::Row, fields.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn fields_and_lines_whatever_the_chunks() {
        let text = "\u{FEFF}a;b\r\n\r\n\n1;\"x;\n\"\"y\"\"\"\n;\r\nlast".as_bytes();
        let expected = [
            row(1, &["a", "b"]),
            row(4, &["1", "x;\n\"y\""]),
            row(6, &["", ""]),
            row(7, &["last"]),
        ];
        assert_eq!(read(text, b';'), expected);
        assert_eq!(read(Slow(text), b';'), expected);
        assert_eq!(read(&b""[..], b','), []);
    }

    #[test]
    fn a_row_that_is_too_long_is_passed_over_in_bounded_memory() {
        let mut text = b"a,b\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 3 * MAX_ROW_BYTES));
        text.extend(b"\n1,2\n");
        text.extend(std::iter::repeat_n(b',', 1000));
        text.extend(b"\n3,4\n\"never ends,\n5,6\n");
        let found = read(&text[..], b',');
        assert_eq!(found[1].1, Next::TooLong);
        assert_eq!(found[2], row(3, &["1", "2"]));
        assert_eq!((found[3].0, found[3].1), (4, Next::TooLong));
        assert_eq!(found[4], row(5, &["3", "4"]));
        assert_eq!(found[5], row(6, &["never ends,\n5,6\n"]));
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn a_header_that_was_split_wrongly_is_named() {
        let mut rows = Rows::new(&b"date;user_id;region;track id;seconds\n"[..], b',');
        let header = Header::read(&mut rows).unwrap();
        let problem = header.columns(["date"]).unwrap_err().to_string();
        assert!(problem.contains("--separator ';'"), "{problem}");
        let mut rows = Rows::new(&b" Track ID ;Label\n"[..], b';');
        let header = Header::read(&mut rows).unwrap();
        assert_eq!(header.columns(["label", "track_id"]).unwrap(), [1, 0]);
    }
}
