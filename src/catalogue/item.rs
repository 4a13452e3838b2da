//! A content as editors write it: its fields, their bounds, and both directions of its JSON.
//!
//! Owns: what a content may be. Does not: know which lookups a tenant has (`terms`) or SQL (`store`).
//! Called by: the routes, import and export, demo contents.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use http::Uri;
use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::lease::shelf::{Barred, Sight};
use crate::protocol::MAX_ID_BYTES;
use crate::protocol::id::ResumeSecret;

/// Longest name and label, in bytes.
const MAX_NAME_BYTES: usize = 256;
const MAX_DESCRIPTION_BYTES: usize = 4000;
const MAX_URL_BYTES: usize = 1024;
/// Largest metadata, as JSON without spaces, in bytes.
const MAX_METADATA_BYTES: usize = 4096;
/// Most tags, roles and plans, each.
const MAX_WORDS: usize = 20;
/// Longest tag, role, plan, category and language, in bytes.
pub(super) const MAX_WORD_BYTES: usize = 64;
/// Ten years.
const MAX_DURATION_MS: i64 = 10 * 366 * 24 * 60 * 60 * 1000;
/// What `source` begins with when it names a file of the installation.
const FILE: &str = "file:";
/// Paths below `/v1/content` that are no content.
const RESERVED: [&str; 7] = [".", "..", "import", "export", "categories", "languages", "roles"];

/// What plays: a stream that goes on, or a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Livestream,
    Vod,
}

/// Where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An `https://` URL.
    Url(String),
    /// A file of the installation, by its id.
    File(String),
}

/// A content.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) source: Source,
    pub(super) description: Option<String>,
    pub(super) category: Option<String>,
    pub(super) language: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) label: Option<String>,
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) duration_ms: Option<i64>,
    pub(super) thumbnail: Option<String>,
    pub(super) roles: Vec<String>,
    pub(super) plans: Vec<String>,
}

/// A content as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) item: Item,
    pub(super) created_at: i64,
    pub(super) changed_at: i64,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Livestream => "livestream",
            Self::Vod => "vod",
        }
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        [Self::Livestream, Self::Vod]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl Source {
    /// As editors write it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Url(url) => url.clone(),
            Self::File(id) => format!("{FILE}{id}"),
        }
    }

    fn read(field: &'static str, text: String) -> Result<Self, ApiError> {
        if let Some(id) = text.strip_prefix(FILE) {
            if id.is_empty() || id.len() > MAX_ID_BYTES {
                return Err(bad(field, "must name a file after file:"));
            }
            return Ok(Self::File(id.to_owned()));
        }
        let url = text.parse::<Uri>().ok();
        let fits = url.is_some_and(|url| {
            let host = url.host().is_some_and(|host| !host.is_empty());
            let private = url.authority().is_some_and(|place| !place.as_str().contains('@'));
            url.scheme_str() == Some("https") && host && private
        });
        if fits {
            Ok(Self::Url(text))
        } else {
            Err(bad(field, "must be https://.. or file:<id>"))
        }
    }
}

impl Item {
    /// Reads and checks the fields; `id` is the one of the path, where there is one. What is unknown is ignored.
    ///
    /// # Errors
    /// 400 that names the first field that does not fit.
    pub(super) fn read(fields: &mut Fields, id: Option<&str>) -> Result<Self, ApiError> {
        let said = fields.text("id")?.filter(|said| !said.is_empty());
        let id = match (id, said) {
            (Some(id), Some(said)) if id != said => return Err(bad("id", "must be the id of the path")),
            (Some(id), _) => id.to_owned(),
            (None, Some(said)) => said,
            (None, None) => ResumeSecret::generate().session().to_string(),
        };
        if !is_id(&id) {
            return Err(bad("id", "must be 1 to 256 bytes without control characters"));
        }
        if RESERVED.contains(&id.as_str()) {
            return Err(bad("id", "is a word of this API"));
        }
        let name = fields.line("name", MAX_NAME_BYTES)?;
        let name = name.filter(|name| !name.trim().is_empty());
        let kind = fields.line("type", MAX_WORD_BYTES)?;
        let kind = kind.as_deref().and_then(Kind::of);
        let source = fields.line("source", MAX_URL_BYTES)?;
        let source = source.ok_or_else(|| bad("source", "is required"))?;
        let thumbnail = fields.line("thumbnail", MAX_URL_BYTES)?;
        let thumbnail = thumbnail
            .map(|text| Source::read("thumbnail", text))
            .transpose()?;
        Ok(Self {
            id,
            name: name.ok_or_else(|| bad("name", "is required"))?,
            kind: kind.ok_or_else(|| bad("type", "must be livestream or vod"))?,
            source: Source::read("source", source)?,
            description: fields.prose("description", MAX_DESCRIPTION_BYTES)?,
            category: fields.line("category", MAX_WORD_BYTES)?,
            language: fields.line("language", MAX_WORD_BYTES)?,
            tags: words(fields, "tags")?,
            label: fields.line("label", MAX_NAME_BYTES)?,
            metadata: metadata(fields)?,
            duration_ms: duration(fields)?,
            thumbnail: thumbnail.map(|thumbnail| thumbnail.text()),
            roles: words(fields, "roles")?,
            plans: words(fields, "plans")?,
        })
    }

    /// Files of the installation that it names, with the field.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let source = match &self.source {
            Source::File(id) => Some(id.as_str()),
            Source::Url(_) => None,
        };
        let thumbnail = self.thumbnail.as_deref().and_then(|text| text.strip_prefix(FILE));
        let source = source.map(|file| ("source", file));
        source
            .into_iter()
            .chain(thumbnail.map(|file| ("thumbnail", file)))
    }

    /// What editors write and exports hold.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let fields = json!({
            "id": self.id,
            "name": self.name,
            "type": self.kind.name(),
            "source": self.source.text(),
            "description": self.description,
            "category": self.category,
            "language": self.language,
            "tags": self.tags,
            "label": self.label,
            "metadata": self.metadata,
            "duration_ms": self.duration_ms,
            "thumbnail": self.thumbnail,
            "roles": self.roles,
            "plans": self.plans,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// What its name and description are searched by.
    pub(super) fn search_key(&self) -> String {
        let description = self.description.as_deref().unwrap_or_default();
        format!("{}\n{}\n{description}", self.name, self.id).to_lowercase()
    }
}

impl Stored {
    /// As somebody sees it: who sees everything sees the source too.
    pub(super) fn shown(&self, sight: &Sight) -> Map<String, Value> {
        let mut fields = self.item.fields();
        if !sight.all {
            fields.remove("source");
        }
        for (name, at) in [("created_at", self.created_at), ("changed_at", self.changed_at)] {
            fields.insert(name.to_owned(), time(at).into());
        }
        fields
    }
}

/// Whether a text can be a content's id.
pub(super) fn is_id(text: &str) -> bool {
    let fits = (1..=MAX_ID_BYTES).contains(&text.len());
    fits && !text.contains(|one: char| one.is_control() || one == '\u{FFFD}')
}

/// The content that a path names; what can be none is as unknown as what is none.
pub(super) fn named(content: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let content = content.ok().map(|Path(content)| content);
    content.filter(|content| is_id(content)).ok_or_else(unknown)
}

/// 404: this tenant has no such content.
pub(super) fn unknown() -> ApiError {
    Barred::Unknown.into()
}

fn bad(field: &'static str, problem: &str) -> ApiError {
    ApiError::bad_request(field, format!("{field} {problem}"))
}

/// A list of words, without those that are said twice.
fn words(fields: &mut Fields, field: &'static str) -> Result<Vec<String>, ApiError> {
    let said: Vec<String> = fields.take(field, "a list of texts")?.unwrap_or_default();
    let mut words: Vec<String> = Vec::new();
    for word in said {
        if !is_word(&word) {
            let problem =
                "has an entry that is empty, longer than 64 bytes, or has a semicolon or control characters";
            return Err(bad(field, problem));
        }
        if !words.contains(&word) {
            words.push(word);
        }
    }
    if words.len() > MAX_WORDS {
        return Err(bad(field, "has more than 20 entries"));
    }
    Ok(words)
}

/// Whether a text can be a tag, a role or a plan. A semicolon separates them in a CSV file.
pub(super) fn is_word(text: &str) -> bool {
    let fits = (1..=MAX_WORD_BYTES).contains(&text.len());
    fits && !text.contains(|one: char| one.is_control() || one == ';')
}

fn metadata(fields: &mut Fields) -> Result<Option<Map<String, Value>>, ApiError> {
    let metadata: Option<Map<String, Value>> = fields.take("metadata", "an object")?;
    let metadata = metadata.filter(|metadata| !metadata.is_empty());
    let size = metadata
        .as_ref()
        .map(|metadata| json!(metadata).to_string().len());
    if size.is_some_and(|size| size > MAX_METADATA_BYTES) {
        return Err(bad("metadata", "is larger than 4096 bytes"));
    }
    Ok(metadata)
}

fn duration(fields: &mut Fields) -> Result<Option<i64>, ApiError> {
    let usage = "a whole number of milliseconds, at most ten years";
    let duration: Option<i64> = fields.take("duration_ms", usage)?;
    match duration {
        Some(duration) if !(0..=MAX_DURATION_MS).contains(&duration) => Err(bad(
            "duration_ms",
            "must be a whole number of milliseconds, at most ten years",
        )),
        duration => Ok(duration),
    }
}

fn time(millis: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}
