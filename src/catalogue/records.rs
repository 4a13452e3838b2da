//! An import's body, cut into records while it comes: JSON lines or CSV, in bounded memory.
//!
//! Owns: where a record ends and on which line it began. Does not: know what a content is (`item`) or which columns
//! there are (`sheet`). Called by: `import`.

use csv_core::{ReadRecordResult, Reader};
use serde_json::{Map, Value};

use crate::api::error::ApiError;

use super::sheet::{Columns, MOST_COLUMNS};

/// A byte order mark, which some programs begin a text with.
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// What a body is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `text/csv`, RFC 4180, with a header line.
    Csv,
    /// `application/x-ndjson`: one JSON object a line.
    Lines,
}

/// A record: the line on which it began, from 1, and its fields.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) line: u64,
    pub(super) fields: Result<Map<String, Value>, ApiError>,
}

/// Cuts a body.
pub(super) struct Records {
    cutter: Cutter,
    /// The first bytes, while they may still be a byte order mark.
    head: Option<Vec<u8>>,
}

enum Cutter {
    Csv(Box<Sheet>),
    Lines(Lines),
}

impl Records {
    /// Nothing was read yet. A record has at most so many bytes.
    pub(super) fn new(format: Format, most: usize) -> Self {
        let cutter = match format {
            Format::Csv => Cutter::Csv(Box::new(Sheet::new(most))),
            Format::Lines => Cutter::Lines(Lines::new(most)),
        };
        let head = Some(Vec::new());
        Self { cutter, head }
    }

    /// Reads on; the records that are whole now.
    ///
    /// # Errors
    /// 400 for a body that has no readable header.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Vec<Record>, ApiError> {
        let Some(mut head) = self.head.take() else {
            return self.cut(bytes);
        };
        head.extend_from_slice(bytes);
        if head.len() < MARK.len() && MARK.starts_with(&head) {
            self.head = Some(head);
            return Ok(Vec::new());
        }
        let text = head.strip_prefix(MARK).unwrap_or(&head);
        self.cut(text)
    }

    /// The body is over; the records that are whole now.
    ///
    /// # Errors
    /// As [`Records::read`].
    pub(super) fn finish(mut self) -> Result<Vec<Record>, ApiError> {
        let mut records = match self.head.take() {
            Some(head) => self.cut(&head)?,
            None => Vec::new(),
        };
        match &mut self.cutter {
            Cutter::Csv(sheet) => sheet.finish(&mut records)?,
            Cutter::Lines(lines) => records.extend(lines.end()),
        }
        Ok(records)
    }

    fn cut(&mut self, bytes: &[u8]) -> Result<Vec<Record>, ApiError> {
        let mut records = Vec::new();
        match &mut self.cutter {
            Cutter::Csv(sheet) => sheet.read(bytes, &mut records)?,
            Cutter::Lines(lines) => lines.read(bytes, &mut records),
        }
        Ok(records)
    }
}

fn too_long() -> ApiError {
    ApiError::bad_request("line", "the record is too long (catalogue.import_max_line_bytes)")
}

struct Lines {
    most: usize,
    begun: Vec<u8>,
    /// Whether the line that began is too long: its rest is passed over.
    long: bool,
    line: u64,
}

impl Lines {
    fn new(most: usize) -> Self {
        let (begun, long, line) = (Vec::new(), false, 1);
        Self {
            most,
            begun,
            long,
            line,
        }
    }

    fn read(&mut self, mut bytes: &[u8], records: &mut Vec<Record>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.push(&bytes[..end]);
            records.extend(self.end());
            self.line += 1;
            bytes = &bytes[end + 1..];
        }
        self.push(bytes);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.long |= self.begun.len() + bytes.len() > self.most;
        if !self.long {
            self.begun.extend_from_slice(bytes);
        }
    }

    fn end(&mut self) -> Option<Record> {
        let (begun, long) = (std::mem::take(&mut self.begun), std::mem::take(&mut self.long));
        if !long && begun.trim_ascii().is_empty() {
            return None;
        }
        let fields = if long {
            Err(too_long())
        } else {
            serde_json::from_slice(&begun)
                .map_err(|_| ApiError::bad_request("line", "the line is no JSON object"))
        };
        let line = self.line;
        Some(Record { line, fields })
    }
}

struct Sheet {
    reader: Reader,
    columns: Option<Columns>,
    /// The cells of the record that began, one after the other, and where each ends.
    cells: Vec<u8>,
    ends: Vec<usize>,
    /// How much of both is used.
    filled: usize,
    ended: usize,
    long: bool,
    /// Line feeds that were read.
    feeds: u64,
    /// The line on which the record began; none between two.
    begun: Option<u64>,
}

impl Sheet {
    fn new(most: usize) -> Self {
        Self {
            reader: Reader::new(),
            columns: None,
            cells: vec![0; most],
            ends: vec![0; MOST_COLUMNS],
            filled: 0,
            ended: 0,
            long: false,
            feeds: 0,
            begun: None,
        }
    }

    fn read(&mut self, mut bytes: &[u8], records: &mut Vec<Record>) -> Result<(), ApiError> {
        loop {
            if self.begun.is_none() {
                // Line ends between records, which the reader passes over too: the record begins after them.
                let ends = bytes
                    .iter()
                    .take_while(|byte| matches!(byte, b'\n' | b'\r'))
                    .count();
                self.count(&bytes[..ends]);
                bytes = &bytes[ends..];
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.begun.get_or_insert(self.feeds + 1);
            let read = self.step(bytes, records)?;
            bytes = &bytes[read..];
        }
    }

    fn finish(&mut self, records: &mut Vec<Record>) -> Result<(), ApiError> {
        if self.begun.is_some() {
            // The reader is told by an empty input that nothing comes any more; it may have to make room first.
            while self.begun.is_some() {
                self.step(&[], records)?;
            }
        }
        if self.columns.is_none() {
            return Err(ApiError::bad_request(
                "header",
                "the first line must name the columns",
            ));
        }
        Ok(())
    }

    fn step(&mut self, bytes: &[u8], records: &mut Vec<Record>) -> Result<usize, ApiError> {
        let (cells, ends) = (&mut self.cells[self.filled..], &mut self.ends[self.ended..]);
        let (result, read, filled, ended) = self.reader.read_record(bytes, cells, ends);
        self.count(&bytes[..read]);
        self.filled += filled;
        self.ended += ended;
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                // What was read of it is of no use any more, and makes room for its rest.
                self.long = true;
                (self.filled, self.ended) = (0, 0);
            }
            ReadRecordResult::Record => self.close(records)?,
            ReadRecordResult::End => self.begun = None,
        }
        Ok(read)
    }

    fn count(&mut self, bytes: &[u8]) {
        self.feeds += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    }

    fn close(&mut self, records: &mut Vec<Record>) -> Result<(), ApiError> {
        let line = self.begun.take().unwrap_or_default();
        let ended = std::mem::take(&mut self.ended);
        self.filled = 0;
        if std::mem::take(&mut self.long) {
            // Where its cells ended says nothing about what is left of them.
            if self.columns.is_none() {
                return Err(too_long());
            }
            let fields = Err(too_long());
            records.push(Record { line, fields });
            return Ok(());
        }
        let mut start = 0;
        let cut = |end: &usize| &self.cells[std::mem::replace(&mut start, *end)..*end];
        let cells: Vec<&[u8]> = self.ends[..ended].iter().map(cut).collect();
        match &self.columns {
            None => self.columns = Some(Columns::read(&cells)?),
            Some(columns) => {
                let fields = columns.fields(&cells);
                records.push(Record { line, fields });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Lines, and the id or the problem of each, however the body is cut into pieces.
    fn cut(format: Format, body: &[u8]) -> Vec<(u64, String)> {
        let told = |record: Record| match record.fields {
            Ok(fields) => (record.line, fields["id"].as_str().unwrap().to_owned()),
            Err(error) => (record.line, format!("! {}", error.message)),
        };
        let in_pieces = |size: usize| -> Vec<_> {
            let mut records = Records::new(format, 64);
            let mut found = Vec::new();
            for piece in body.chunks(size) {
                found.extend(records.read(piece).unwrap());
            }
            found.extend(records.finish().unwrap());
            found.into_iter().map(told).collect()
        };
        let whole = in_pieces(body.len().max(1));
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(in_pieces(size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn json_lines_are_cut_at_line_feeds() {
        let long = "x".repeat(100);
        let body = format!("\u{FEFF}{{\"id\":\"a\"}}\r\n\n[1]\n{long}\n{{\"id\":\"b\"}}");
        let found = cut(Format::Lines, body.as_bytes());
        let ids: Vec<_> = found.iter().map(|(line, id)| (*line, &id[..1])).collect();
        assert_eq!(ids, [(1, "a"), (3, "!"), (4, "!"), (5, "b")]);
        assert!(found[2].1.contains("too long"), "{found:?}");
        assert!(cut(Format::Lines, b"").is_empty());
    }

    #[test]
    fn csv_records_may_hold_line_feeds_and_quotes() {
        let long = "x".repeat(100);
        let body = format!(
            "\u{FEFF}name,id\r\n\"two\nlines, \"\"quoted\"\"\",a\r\n\r\nn,b\nn,\"{long}\n\"\nonly one\n\"open,c\n"
        );
        let found = cut(Format::Csv, body.as_bytes());
        let ids: Vec<_> = found.iter().map(|(line, id)| (*line, &id[..1])).collect();
        assert_eq!(ids, [(2, "a"), (5, "b"), (6, "!"), (8, "!"), (9, "!")]);
        assert!(found[2].1.contains("too long"), "{found:?}");
        assert!(found[3].1.contains("cells"), "{found:?}");
    }

    #[test]
    fn a_header_is_needed() {
        let read = |body: &[u8]| {
            let mut records = Records::new(Format::Csv, 64);
            records.read(body).and_then(|_| records.finish())
        };
        for body in [&b""[..], b"\n", b"name,type\n", b"id,id\n", b"\xff\n"] {
            assert_eq!(read(body).unwrap_err().field, Some("header"), "{body:?}");
        }
        assert!(read(b"id\n").unwrap().is_empty());
    }
}
