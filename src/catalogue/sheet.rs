//! Contents as lines of a CSV file: its columns, and each cell in both directions.
//!
//! A program that shows a table takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return for a
//! formula. An export puts one apostrophe before such a cell, and before one that begins so after apostrophes; an
//! import takes one away there. So what was exported comes back as it was, and nothing in it is run.
//! Called by: `records` and `export`.

use serde_json::{Map, Value};

use crate::api::error::ApiError;

use super::item::Item;

/// The columns of an export.
const COLUMNS: [(&str, Cell); 14] = [
    ("id", Cell::Text),
    ("name", Cell::Text),
    ("type", Cell::Text),
    ("source", Cell::Text),
    ("description", Cell::Text),
    ("category", Cell::Text),
    ("language", Cell::Text),
    ("tags", Cell::List),
    ("label", Cell::Text),
    ("metadata", Cell::Json),
    ("duration_ms", Cell::Number),
    ("thumbnail", Cell::Text),
    ("roles", Cell::List),
    ("plans", Cell::List),
];

/// Most columns of an import: those that are unknown are passed over.
pub(super) const MOST_COLUMNS: usize = 256;

/// What separates the words of a list.
const BETWEEN: char = ';';

/// What a cell holds.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Text,
    List,
    Number,
    Json,
}

/// The columns of an import, in its order; none: one that is passed over.
pub(super) struct Columns(Vec<Option<(&'static str, Cell)>>);

impl Columns {
    /// Reads the header line.
    ///
    /// # Errors
    /// 400 when it names no `id`, or a column twice.
    pub(super) fn read(cells: &[&[u8]]) -> Result<Self, ApiError> {
        let known = |cell: &&[u8]| {
            let mut columns = COLUMNS.into_iter();
            columns.find(|(name, _)| name.as_bytes() == cell.trim_ascii())
        };
        let columns: Vec<_> = cells.iter().map(known).collect();
        for (name, _) in COLUMNS {
            let times = columns
                .iter()
                .flatten()
                .filter(|(column, _)| *column == name)
                .count();
            if times > 1 || times == 0 && name == "id" {
                let problem = format!("the first line must name the columns, {name} once");
                return Err(ApiError::bad_request("header", problem));
            }
        }
        Ok(Self(columns))
    }

    /// The fields of a line, as in JSON; an empty cell is left out.
    ///
    /// # Errors
    /// 400 that names what cannot be read.
    pub(super) fn fields(&self, cells: &[&[u8]]) -> Result<Map<String, Value>, ApiError> {
        if cells.len() != self.0.len() {
            let (found, wanted) = (cells.len(), self.0.len());
            let problem = format!("the line has {found} cells, and the header {wanted}");
            return Err(ApiError::bad_request("line", problem));
        }
        let mut fields = Map::new();
        for (column, cell) in self.0.iter().zip(cells) {
            let Some((name, kind)) = column else { continue };
            let bad = |problem| ApiError::bad_request(name, format!("{name} {problem}"));
            let text = str::from_utf8(cell).map_err(|_| bad("is not UTF-8"))?;
            let text = revealed(text);
            if text.is_empty() {
                continue;
            }
            let value = match kind {
                Cell::Text => text.into(),
                Cell::List => text.split(BETWEEN).collect(),
                // What is no number is refused with the other fields.
                Cell::Number => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
                Cell::Json => serde_json::from_str(text).map_err(|_| bad("must be a JSON object"))?,
            };
            fields.insert((*name).to_owned(), value);
        }
        Ok(fields)
    }
}

/// The names of the columns.
pub(super) fn header() -> [&'static str; COLUMNS.len()] {
    COLUMNS.map(|(name, _)| name)
}

/// The cells of a content.
pub(super) fn cells(item: &Item) -> Vec<String> {
    let fields = item.fields();
    let cell = |(name, _): (&str, Cell)| match fields.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => hidden(text),
        Some(Value::Array(words)) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            hidden(&words.join(&BETWEEN.to_string()))
        }
        Some(other) => hidden(&other.to_string()),
    };
    COLUMNS.into_iter().map(cell).collect()
}

/// Whether a cell would be taken for a formula, but for the apostrophes before it.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'')
        .starts_with(['=', '+', '-', '@', '\t', '\r'])
}

fn hidden(text: &str) -> String {
    if is_formula(text) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

fn revealed(text: &str) -> &str {
    match text.strip_prefix('\'') {
        Some(rest) if is_formula(rest) => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_hidden_and_every_text_comes_back() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("'=1+1", "''=1+1"),
            ("''@x", "'''@x"),
            ("-", "'-"),
            ("\tx", "'\tx"),
            ("'quoted'", "'quoted'"),
            ("'", "'"),
            ("1+1", "1+1"),
            ("", ""),
        ] {
            assert_eq!(hidden(text), cell);
            assert_eq!(revealed(cell), text);
        }
        assert_eq!(revealed("=1+1"), "=1+1", "a file that nobody exported");
    }
}
