//! What viewers say to each other: kinds of content with their bounds, and whom it is for. Pure.
//!
//! Text is stored and passed on as given and never interpreted. What a kind does not know is dropped, except in
//! `metadata`, which is kept as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::MAX_ID_BYTES;

/// Ids are below this, so that every JSON reader keeps them exact (RFC 8259 section 6).
pub const ID_END: u64 = 1 << 53;

/// Longest text, in characters. On a socket the bound of its messages comes before it.
pub const MAX_TEXT: usize = 2_000;

/// Longest URL, in characters.
pub const MAX_URL: usize = 1_000;

/// Largest `metadata`, in bytes of compact JSON.
pub const MAX_METADATA_BYTES: usize = 2 * 1024;

/// Longest `client_id`, in characters.
pub const MAX_CLIENT_ID: usize = 64;

/// What the name of a room begins with; the content follows.
pub const ROOM: &str = "room:";

/// Where files of the installation's own library are.
const OWN_MEDIA: &str = "/v1/media/";

/// Larger pictures than any screen shows, in pixels.
const MAX_PIXELS: u64 = 100_000;

const SOURCES: [&str; 4] = ["youtube", "vimeo", "vevo", "file"];

/// A kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `text`
    Text,
    /// `image`
    Image,
    /// `video`
    Video,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Text, Self::Image, Self::Video];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Video => "video",
        }
    }
}

/// Checked content, in the one form in which it is stored and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// What it is.
    pub kind: Kind,
    /// Compact JSON with `type` inside.
    pub json: String,
    /// The file of the own library that it shows.
    pub file: Option<String>,
}

/// A message as a viewer writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// An account, or `room:` and a content.
    pub to: String,
    /// What it says.
    pub content: Content,
    /// The same again means the same message.
    pub client_id: Option<String>,
}

/// What of a message cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadContent {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it; quotes nothing of the message.
    pub problem: String,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Form<'a> {
    Text {
        text: &'a str,
    },
    Image {
        url: &'a str,
        width: u64,
        height: u64,
    },
    Video {
        url: &'a str,
        source: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Value>,
    },
}

impl Content {
    /// Reads and checks the JSON of a content.
    ///
    /// # Errors
    /// The first field that cannot be used; an unknown kind is answered with the list of kinds.
    pub fn parse(json: &str) -> Result<Self, BadContent> {
        let map: Map<String, Value> =
            serde_json::from_str(json).map_err(|_| bad("content", "must be an object"))?;
        Self::of(&map)
    }

    /// Checks a content that was read before.
    ///
    /// # Errors
    /// As [`Content::parse`].
    pub fn of(map: &Map<String, Value>) -> Result<Self, BadContent> {
        let (kind, form) = match map.get("type").and_then(Value::as_str) {
            // The name that other APIs give a text.
            Some("text" | "string") => (
                Kind::Text,
                Form::Text {
                    text: text(map, "text", "content.text", MAX_TEXT)?,
                },
            ),
            Some("image") => (
                Kind::Image,
                Form::Image {
                    url: url(map)?,
                    width: pixels(map, "width", "content.width")?,
                    height: pixels(map, "height", "content.height")?,
                },
            ),
            Some("video") => (Kind::Video, video(map)?),
            _ => {
                let known = Kind::ALL.map(Kind::name).join(", ");
                return Err(bad("content.type", format!("must be one of {known}")));
            }
        };
        let file = match form {
            Form::Image { url, .. } | Form::Video { url, .. } => own_file(url).map(str::to_owned),
            Form::Text { .. } => None,
        };
        let json = serde_json::to_string(&form).map_err(|_| bad("content", "cannot be written"))?;
        Ok(Self { kind, json, file })
    }
}

impl Draft {
    /// Checks a message's recipient and `client_id`.
    ///
    /// # Errors
    /// The field that cannot be used; `to` is what the recipient's field is called.
    pub fn new(
        to: String,
        content: Content,
        client_id: Option<String>,
        field: &'static str,
    ) -> Result<Self, BadContent> {
        check_party(&to, field)?;
        if let Some(id) = &client_id {
            let fits = (1..=MAX_CLIENT_ID).contains(&id.chars().count()) && !id.contains('\0');
            if !fits {
                let problem = format!("must have 1 to {MAX_CLIENT_ID} characters, none of them NUL");
                return Err(bad("client_id", problem));
            }
        }
        Ok(Self {
            to,
            content,
            client_id,
        })
    }
}

/// Whether this names an account or a room.
///
/// # Errors
/// What is wrong with it; `field` is what it is called.
pub fn check_party(name: &str, field: &'static str) -> Result<(), BadContent> {
    let id = room(name).unwrap_or(name);
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.contains('\0') {
        let problem = format!("must be an account or room:<content>, 1 to {MAX_ID_BYTES} bytes");
        return Err(bad(field, problem));
    }
    Ok(())
}

/// The content whose room this is.
#[must_use]
pub fn room(name: &str) -> Option<&str> {
    name.strip_prefix(ROOM)
}

fn video(map: &Map<String, Value>) -> Result<Form<'_>, BadContent> {
    let source = map.get("source").and_then(Value::as_str);
    let source = source.filter(|source| SOURCES.contains(source)).ok_or_else(|| {
        let known = SOURCES.join(", ");
        bad("content.source", format!("must be one of {known}"))
    })?;
    let duration_ms = match map.get("duration_ms").filter(|value| !value.is_null()) {
        None => None,
        Some(value) => {
            let duration = value.as_u64().filter(|duration| *duration < ID_END);
            Some(duration.ok_or_else(|| bad("content.duration_ms", "must be whole milliseconds"))?)
        }
    };
    let metadata = map.get("metadata").filter(|value| !value.is_null());
    if let Some(metadata) = metadata {
        let fits = metadata.is_object() && metadata.to_string().len() <= MAX_METADATA_BYTES;
        if !fits {
            let problem = format!("must be an object of at most {MAX_METADATA_BYTES} bytes");
            return Err(bad("content.metadata", problem));
        }
    }
    Ok(Form::Video {
        url: url(map)?,
        source,
        duration_ms,
        metadata,
    })
}

fn text<'a>(
    map: &'a Map<String, Value>,
    key: &str,
    field: &'static str,
    most: usize,
) -> Result<&'a str, BadContent> {
    let text = map.get(key).and_then(Value::as_str);
    text.filter(|text| (1..=most).contains(&text.chars().count()))
        .ok_or_else(|| bad(field, format!("must be a text of 1 to {most} characters")))
}

/// A web address, or a file of the own library. Nothing that a page would run, such as `javascript:`.
fn url(map: &Map<String, Value>) -> Result<&str, BadContent> {
    let url = text(map, "url", "content.url", MAX_URL)?;
    let web = url
        .parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some());
    if web || own_file(url).is_some() {
        return Ok(url);
    }
    Err(bad(
        "content.url",
        "must be https://.., http://.., or /v1/media/ and the id of a file",
    ))
}

/// The id of the own file that a URL names.
fn own_file(url: &str) -> Option<&str> {
    let id = url.strip_prefix(OWN_MEDIA)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(fits)).then_some(id)
}

fn pixels(map: &Map<String, Value>, key: &str, field: &'static str) -> Result<u64, BadContent> {
    let pixels = map.get(key).and_then(Value::as_u64);
    pixels
        .filter(|pixels| (1..=MAX_PIXELS).contains(pixels))
        .ok_or_else(|| bad(field, format!("must be a whole number from 1 to {MAX_PIXELS}")))
}

fn bad(field: &'static str, problem: impl Into<String>) -> BadContent {
    BadContent {
        field,
        problem: problem.into(),
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let map = Map::deserialize(from)?;
        Self::of(&map).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_has_one_form() {
        for (given, stored) in [
            (
                r#"{"text":"<b>\u0000 hi","type":"string","x":1}"#,
                r#"{"type":"text","text":"<b>\u0000 hi"}"#,
            ),
            (
                r#"{"type":"image","url":"https://a.example/x.png","width":1,"height":100000}"#,
                r#"{"type":"image","url":"https://a.example/x.png","width":1,"height":100000}"#,
            ),
            (
                r#"{"type":"video","url":"/v1/media/f-1","source":"file","metadata":{"z":1,"a":{"b":[2]}},"duration_ms":null}"#,
                r#"{"type":"video","url":"/v1/media/f-1","source":"file","metadata":{"a":{"b":[2]},"z":1}}"#,
            ),
        ] {
            assert_eq!(Content::parse(given).unwrap().json, stored);
            let again = Content::parse(stored).unwrap();
            assert_eq!(again.json, stored, "what is stored can be sent");
        }
        let video = r#"{"type":"video","url":"/v1/media/f-1","source":"file"}"#;
        assert_eq!(Content::parse(video).unwrap().file.as_deref(), Some("f-1"));
    }

    #[test]
    fn bad_contents_name_their_field() {
        let long = "x".repeat(MAX_TEXT + 1);
        let wide = "y".repeat(MAX_METADATA_BYTES);
        for (given, field) in [
            ("[]".to_owned(), "content"),
            ("{}".to_owned(), "content.type"),
            (r#"{"type":"gif"}"#.to_owned(), "content.type"),
            (r#"{"type":"text"}"#.to_owned(), "content.text"),
            (r#"{"type":"text","text":""}"#.to_owned(), "content.text"),
            (format!(r#"{{"type":"text","text":"{long}"}}"#), "content.text"),
            (
                r#"{"type":"image","url":"javascript:alert(1)"}"#.to_owned(),
                "content.url",
            ),
            (
                r#"{"type":"image","url":"/v1/media/../x"}"#.to_owned(),
                "content.url",
            ),
            (
                r#"{"type":"image","url":"https://a/b","width":0}"#.to_owned(),
                "content.width",
            ),
            (
                r#"{"type":"image","url":"https://a/b","width":1,"height":1.5}"#.to_owned(),
                "content.height",
            ),
            (
                r#"{"type":"video","url":"https://a/b","source":"tv"}"#.to_owned(),
                "content.source",
            ),
            (
                r#"{"type":"video","url":"https://a/b","source":"vevo","duration_ms":-1}"#.to_owned(),
                "content.duration_ms",
            ),
            (
                format!(
                    r#"{{"type":"video","url":"https://a/b","source":"vevo","metadata":{{"k":"{wide}"}}}}"#
                ),
                "content.metadata",
            ),
        ] {
            assert_eq!(Content::parse(&given).unwrap_err().field, field, "{given}");
        }
        let kinds = Content::parse(r#"{"type":"gif"}"#).unwrap_err().problem;
        assert_eq!(kinds, "must be one of text, image, video");
    }

    #[test]
    fn parties_are_accounts_and_rooms() {
        for name in ["a", "room:m1", "roomy", "\u{1f980}"] {
            assert!(check_party(name, "to").is_ok(), "{name}");
        }
        for name in [
            "",
            "room:",
            "a\0",
            &"x".repeat(257),
            &format!("room:{}", "x".repeat(257)),
        ] {
            assert!(check_party(name, "to").is_err(), "{name}");
        }
        assert!(check_party(&format!("room:{}", "x".repeat(256)), "to").is_ok());
    }

    proptest! {
        #[test]
        fn any_content_is_answered(text in r#"\{"type":"(text|image|video|x)","[a-z]{1,8}":[^{}]{0,20}\}|.{0,100}"#) {
            if let Ok(content) = Content::parse(&text) {
                prop_assert!(content.json.len() < 20_000);
            }
        }
    }
}
