//! Records of a JSON array as rows of CSV, one at a time.
//!
//! Owns: which records are understood, and that a source which uses its first record as key names loses none.
//! Does not: judge what is in a field. Called by: `import`.
//!
//! With names, a record is an object with the columns' names as its keys, or all are arrays and the first has the names.
//! Without (`columns` says them), records are arrays, or objects whose values stand in the columns' order: their keys are
//! the first record.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use csv::{Writer, WriterBuilder};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::rows::normal;
use super::scratch::Scratch;
use super::{Format, ImportError, Kind};

/// The largest record, in bytes.
const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Writes the records as rows, with a header unless `format` has the columns' names.
pub(super) fn rows(
    source: impl Read,
    kind: Kind,
    format: &Format,
    dir: &Path,
) -> Result<Scratch, ImportError> {
    let mut scratch = Scratch::create(dir)?;
    let left = Cell::new(MAX_RECORD_BYTES);
    let source = Bounded {
        inner: BufReader::new(source),
        left: &left,
    };
    let mut parser = serde_json::Deserializer::from_reader(source);
    let records = Records {
        kind,
        format,
        out: WriterBuilder::new().flexible(true).from_writer(scratch.file()),
        left: &left,
        first: None,
    };
    let read = records.deserialize(&mut parser).and_then(|()| parser.end());
    read.map_err(|error| {
        if error.is_io() {
            ImportError::Io(error.into())
        } else {
            ImportError::Form(error.to_string())
        }
    })?;
    Ok(scratch)
}

/// Ends a reading that goes on for too long without the end of a record.
struct Bounded<'a, R> {
    inner: R,
    left: &'a Cell<usize>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left.get());
        if most == 0 && !buffer.is_empty() {
            let problem = "a record of the JSON is larger than 1 MiB";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read);
        Ok(read)
    }
}

/// A record, its fields in the order in which they came.
enum Record {
    Object(Vec<(String, Value)>),
    Array(Vec<Value>),
}

struct Records<'a, W: Write> {
    kind: Kind,
    format: &'a Format,
    out: Writer<W>,
    left: &'a Cell<usize>,
    /// The keys of the first record; none of an array.
    first: Option<Vec<String>>,
}

impl<W: Write> Records<'_, W> {
    fn write(&mut self, record: Record) -> Result<(), String> {
        let keys = match &record {
            Record::Object(fields) => fields.iter().map(|(key, _)| key.clone()).collect(),
            Record::Array(_) => Vec::new(),
        };
        let is_first = self.first.is_none();
        let first = self.first.get_or_insert(keys);
        let named = self.format.columns.is_empty();
        let row = match record {
            Record::Object(fields) if named => {
                if is_first {
                    self.out
                        .write_record(self.kind.columns())
                        .map_err(|e| e.to_string())?;
                }
                let row = by_name(&fields, self.kind, self.format);
                match row {
                    Err(missing) if is_first => {
                        let has = first.join(", ");
                        return Err(format!(
                            "the first record has no {missing}, but {has:.200} (a source without names needs columns)"
                        ));
                    }
                    row => row.unwrap_or_else(|_| whole(&fields)),
                }
            }
            Record::Object(fields) => {
                if is_first {
                    self.out.write_record(&*first).map_err(|e| e.to_string())?;
                }
                if fields.iter().map(|(key, _)| key).eq(&*first) {
                    fields.iter().map(|(_, value)| text(value, self.format)).collect()
                } else {
                    whole(&fields)
                }
            }
            Record::Array(values) => values.iter().map(|value| text(value, self.format)).collect(),
        };
        self.out.write_record(row).map_err(|e| e.to_string())
    }
}

/// The fields in the order of the columns; the name of one that is missing.
fn by_name(fields: &[(String, Value)], kind: Kind, format: &Format) -> Result<Vec<String>, &'static str> {
    let columns = kind.columns().iter().map(|column| {
        let named = fields.iter().find(|(key, _)| normal(key) == *column);
        match named {
            Some((_, value)) => Ok(text(value, format)),
            None if kind.may_lack(column) => Ok(String::new()),
            None => Err(*column),
        }
    });
    columns.collect()
}

/// A record that does not fit, as one field: the width gives it away, and whoever looks at the rejects sees it whole.
fn whole(fields: &[(String, Value)]) -> Vec<String> {
    let fields = fields.iter().map(|(key, value)| format!("{key}: {value}"));
    vec![fields.collect::<Vec<_>>().join(", ")]
}

fn text(value: &Value, format: &Format) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if format.decimal_comma => number.to_string().replace('.', ","),
        // What is neither text nor number is told as it is, and fits nowhere: no field may have a NUL character.
        Value::Number(number) => number.to_string(),
        other => format!("{other}\0"),
    }
}

impl<'de, W: Write> DeserializeSeed<'de> for Records<'_, W> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, W: Write> Visitor<'de> for Records<'_, W> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut records: A) -> Result<(), A::Error> {
        while let Some(record) = records.next_element()? {
            self.write(record).map_err(A::Error::custom)?;
            self.left.set(MAX_RECORD_BYTES);
        }
        self.out.flush().map_err(A::Error::custom)
    }
}

impl<'de> serde::Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneRecord)
    }
}

struct OneRecord;

impl<'de> Visitor<'de> for OneRecord {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record: an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Record::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Record, A::Error> {
        let mut fields = Vec::new();
        while let Some(value) = values.next_element()? {
            fields.push(value);
        }
        Ok(Record::Array(fields))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn told(text: &str, columns: &[&str]) -> Result<String, String> {
        let format = Format {
            columns: columns.iter().map(ToString::to_string).collect(),
            ..Format::default()
        };
        let mut rows = rows(text.as_bytes(), Kind::Tracks, &format, &std::env::temp_dir())
            .map_err(|error| error.to_string())?;
        let mut found = String::new();
        rows.from_start().unwrap().read_to_string(&mut found).unwrap();
        Ok(found)
    }

    const COLUMNS: [&str; 3] = ["track id", "track name", "label"];

    #[test]
    fn records_with_names() {
        let expected = "track_id,track_name,label\n1,\"a, b\",L\n2,,\n";
        let objects = r#"[{"Track ID":1,"label":"L","x":[],"track name":"a, b"},
                          {"label":null,"track_name":"","track id":"2"}]"#;
        assert_eq!(told(objects, &[]).unwrap(), expected);
        let arrays = r#"[["track_id","track_name","label"],[1,"a, b","L"],["2","",null]]"#;
        assert_eq!(told(arrays, &[]).unwrap(), expected);
        assert_eq!(told("[]", &[]).unwrap(), "");
    }

    #[test]
    fn the_first_record_as_key_names_is_a_record() {
        let swallowed = r#"[{"t1":"t2","One":"Two","L1":"L2"},{"t1":"t3","One":"Three","L1":"L1"}]"#;
        let expected = "t1,One,L1\nt2,Two,L2\nt3,Three,L1\n";
        assert_eq!(told(swallowed, &COLUMNS).unwrap(), expected);
        let arrays = r#"[["t1","One","L1"],["t2","Two","L2"],["t3","Three","L1"]]"#;
        assert_eq!(told(arrays, &COLUMNS).unwrap(), expected);
        // Equal keys are two fields.
        let equal = r#"[{"t1":"t2","Same":"Two","Same":"L2"}]"#;
        assert_eq!(told(equal, &COLUMNS).unwrap(), "t1,Same,Same\nt2,Two,L2\n");
        let problem = told(swallowed, &[]).unwrap_err();
        assert!(problem.contains("has no track_id, but t1, One, L1"), "{problem}");
        assert!(problem.contains("needs columns"), "{problem}");
    }

    #[test]
    fn what_does_not_fit_is_one_field_or_has_a_nul() {
        let later = r#"[["track_id","track_name","label"],{"track id":7}]"#;
        assert!(told(later, &[]).unwrap().ends_with("label\ntrack id: 7\n"));
        let lacks = r#"[{"track id":1,"track name":"a","label":"b"},{"track id":2,"track name":"c"}]"#;
        assert!(
            told(lacks, &[])
                .unwrap()
                .contains("\n\"track id: 2, track name: \"\"c\"\"\"\n")
        );
        let strange = r#"[{"track id":1,"track name":true,"label":["b"]}]"#;
        assert!(
            told(strange, &[])
                .unwrap()
                .contains("1,true\0,\"[\"\"b\"\"]\0\"\n")
        );
    }

    #[test]
    fn what_is_no_array_of_records_is_refused() {
        for bad in ["", "{}", "[1]", "[\"a\"]", "[{}", "[[]] x", "null", "[{\"a\":}]"] {
            assert!(told(bad, &[]).is_err(), "{bad}");
        }
        let long = format!("[[\"{}\"]]", "x".repeat(MAX_RECORD_BYTES));
        assert!(told(&long, &[]).unwrap_err().contains("1 MiB"));
        let many = format!("[{}[]]", "[\"x\"],".repeat(MAX_RECORD_BYTES / 4));
        assert!(told(&many, &COLUMNS).is_ok(), "only one record is bounded");
        let deep = format!("[[{}", "[".repeat(100_000));
        assert!(told(&deep, &[]).is_err());
    }
}
