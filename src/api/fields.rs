//! A JSON object, field by field: what is unknown is ignored, what is known has its type or is named in the refusal.

use axum::extract::Request;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::body::read_json;
use super::error::ApiError;

/// The fields of a body.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads the body.
    ///
    /// # Errors
    /// 415, 413 and 408 as [`read_json`]; 400 when it is no object.
    pub(crate) async fn read(request: Request, deadline: Instant) -> Result<Self, ApiError> {
        read_json(request, deadline, "body", "the body must be a JSON object")
            .await
            .map(Self)
    }

    /// A field of this type; `null` is as if it were left out.
    ///
    /// # Errors
    /// 400 that names the field; `usage` says what it must be.
    pub(crate) fn take<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
        usage: &'static str,
    ) -> Result<Option<T>, ApiError> {
        let value = self.0.remove(field).filter(|value| !value.is_null());
        let value = value.map(serde_json::from_value).transpose();
        value.map_err(|_| ApiError::bad_request(field, format!("{field} must be {usage}")))
    }

    /// The fields of a line of an import.
    #[must_use]
    pub(crate) fn of(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// A text of at most so many bytes on one line; an empty one is as if it were left out.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(crate) fn line(&mut self, field: &'static str, most: usize) -> Result<Option<String>, ApiError> {
        self.plain(field, most, char::is_control)
    }

    /// As [`Fields::line`], with line breaks and tabs.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(crate) fn prose(&mut self, field: &'static str, most: usize) -> Result<Option<String>, ApiError> {
        let barred = |one: char| one.is_control() && !matches!(one, '\n' | '\r' | '\t');
        self.plain(field, most, barred)
    }

    fn plain(
        &mut self,
        field: &'static str,
        most: usize,
        barred: impl Fn(char) -> bool,
    ) -> Result<Option<String>, ApiError> {
        let Some(text) = self.text(field)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        if text.len() > most {
            return Err(ApiError::bad_request(
                field,
                format!("{field} is longer than {most} bytes"),
            ));
        }
        if text.contains(barred) {
            return Err(ApiError::bad_request(
                field,
                format!("{field} has control characters"),
            ));
        }
        Ok(Some(text))
    }

    /// No body at all: no field.
    pub(crate) fn none() -> Self {
        Self(Map::new())
    }

    /// A text that may be cleared: `Some(None)` is a field that was sent as `null`.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(crate) fn nullable(&mut self, field: &'static str) -> Result<Option<Option<String>>, ApiError> {
        let cleared = self.0.get(field).is_some_and(Value::is_null);
        let text = self.text(field)?;
        Ok(if cleared { Some(None) } else { text.map(Some) })
    }

    /// A text.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<Option<String>, ApiError> {
        self.take(field, "a text")
    }
}
