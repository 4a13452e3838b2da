//! CSV for spreadsheets: a text that a spreadsheet would take for a formula is made harmless.
//!
//! Owns: the form of exports. Does not: read CSV (`import` does). Called by: `report`, the routes.

use csv::{ByteRecord, Writer};

/// Rows of CSV (RFC 4180), in memory: whoever has many writes them in parts.
pub(super) struct Sheet {
    writer: Writer<Vec<u8>>,
    row: ByteRecord,
}

impl Sheet {
    /// Begins with these titles.
    #[must_use]
    pub(super) fn new(titles: &[&str]) -> Self {
        let mut sheet = Self::part();
        titles
            .iter()
            .for_each(|title| sheet.row.push_field(title.as_bytes()));
        sheet.end();
        sheet
    }

    /// Rows that follow others.
    #[must_use]
    pub(super) fn part() -> Self {
        Self {
            writer: Writer::from_writer(Vec::new()),
            row: ByteRecord::new(),
        }
    }

    /// A field that somebody chose. What could begin a formula gets an apostrophe before it (OWASP, "CSV Injection").
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        if text.starts_with([
            '=', '+', '-', '@', '\t', '\r', '\n', '\u{FF1D}', '\u{FF0B}', '\u{FF0D}', '\u{FF20}',
        ]) {
            self.row.push_field(format!("'{text}").as_bytes());
        } else {
            self.row.push_field(text.as_bytes());
        }
        self
    }

    /// A number, a time or a name of ours, as it is.
    pub(super) fn number(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.row.push_field(text.as_ref());
        self
    }

    /// Ends the row.
    pub(super) fn end(&mut self) {
        // Writing to memory cannot fail, and the fields of a row may be as many as they like.
        let _ = self.writer.write_byte_record(&self.row);
        self.row.clear();
    }

    /// The text.
    #[must_use]
    pub(super) fn finish(self) -> Vec<u8> {
        self.writer.into_inner().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn no_field_is_a_formula() {
        let mut sheet = Sheet::new(&["label", "amount"]);
        for label in ["=1+1", "@x", "-2", "+3", "\t=4", "plain", "a,\"b\""] {
            sheet.text(label).number("-1.00").end();
        }
        let text = String::from_utf8(sheet.finish()).unwrap();
        let expected = "label,amount\n'=1+1,-1.00\n'@x,-1.00\n'-2,-1.00\n'+3,-1.00\n'\t=4,-1.00\nplain,-1.00\n\"a,\"\"b\"\"\",-1.00\n";
        assert_eq!(text, expected);
    }
}
