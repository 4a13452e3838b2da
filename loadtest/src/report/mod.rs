//! Results for people and for programs.
//!
//! Owns: the forms. Does not: measure. Called by: `main`.

pub mod chart;
pub mod html;
pub mod table;

use std::path::Path;

use crate::outcome::Report;
use crate::output;

/// Writes a report to wherever the options say; the table goes to stdout unless the JSON does.
///
/// # Errors
/// When a file cannot be written.
pub fn write(report: &Report, json: Option<&Path>, html: Option<&Path>) -> Result<(), String> {
    let save = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = html {
        save(path, html::page(report))?;
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
        if path == Path::new("-") {
            output::result(&text);
            return Ok(());
        }
        save(path, text + "\n")?;
    }
    output::result(&table::text(report));
    Ok(())
}
