//! The parameters of `GET /v1/watch`.

use crate::config::Mode;

use super::MAX_ID_BYTES;
use super::id::ResumeSecret;
use super::message::ID_END;

/// Largest device class, in bytes.
pub(super) const MAX_CLASS_BYTES: usize = 64;

/// Every parameter; `token` is read by `auth`, not here.
pub(super) const PARAMETERS: [&str; 7] = [
    "content",
    "device",
    "device_name",
    "device_class",
    "on_limit",
    "resume",
    "since",
];

/// What a player asks for when it opens the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What it wants to play.
    pub content: String,
    /// Its device id; none: every start is a device of its own.
    pub device: Option<String>,
    /// The device's name for people.
    pub device_name: Option<String>,
    /// The device's class.
    pub device_class: Option<String>,
    /// What to do at the limit.
    pub on_limit: Mode,
    /// The session that it had before. Malformed secrets are none (an ordinary start).
    pub resume: Option<ResumeSecret>,
    /// Messages after this id are replayed.
    pub since: Option<u64>,
}

/// A parameter that cannot be used: answered with 400 and the field's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadParameter {
    /// The parameter.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl Start {
    /// A start whose values do not come from a query: what is not said here is as if it were left out there.
    ///
    /// # Errors
    /// The first value that is missing or out of bounds.
    pub fn new(
        content: Option<String>,
        device: Option<String>,
        device_name: Option<String>,
        device_class: Option<String>,
    ) -> Result<Self, BadParameter> {
        Ok(Self {
            content: text("content", content, MAX_ID_BYTES)?.ok_or_else(|| bad("content", "is required"))?,
            device: text("device", device, MAX_ID_BYTES)?,
            device_name: text("device_name", device_name, MAX_ID_BYTES)?,
            device_class: text("device_class", device_class, MAX_CLASS_BYTES)?,
            on_limit: Mode::Reject,
            resume: None,
            since: None,
        })
    }

    /// Reads a query string. Unknown parameters are ignored; a known one twice is refused, because two readers of
    /// one request must not see different values.
    ///
    /// # Errors
    /// The first parameter that is missing, double or out of bounds.
    pub fn parse(query: &str) -> Result<Self, BadParameter> {
        let mut found: [Option<String>; PARAMETERS.len()] = Default::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(index) = PARAMETERS.iter().position(|known| *known == name) else {
                continue;
            };
            if found[index].replace(value.into_owned()).is_some() {
                return Err(bad(PARAMETERS[index], "given twice"));
            }
        }
        let [
            content,
            device,
            device_name,
            device_class,
            on_limit,
            resume,
            since,
        ] = found;
        Ok(Self {
            on_limit: on_limit.as_deref().map_or(Ok(Mode::Reject), mode)?,
            resume: resume.as_deref().and_then(ResumeSecret::parse),
            since: since.as_deref().map(message_id).transpose()?,
            ..Self::new(content, device, device_name, device_class)?
        })
    }
}

fn mode(value: &str) -> Result<Mode, BadParameter> {
    match value {
        "reject" => Ok(Mode::Reject),
        "ask" => Ok(Mode::Ask),
        "wait" => Ok(Mode::Wait),
        "oldest" => Ok(Mode::Oldest),
        _ => Err(bad("on_limit", "must be reject, ask, wait or oldest")),
    }
}

/// `since`: the id of a message.
///
/// # Errors
/// No message has it.
pub fn message_id(value: &str) -> Result<u64, BadParameter> {
    let id = value.parse().ok().filter(|id| *id < ID_END);
    id.ok_or_else(|| bad("since", "must be a message id (a whole number below 2^53)"))
}

/// A text of 1 to `max` bytes. `form_urlencoded` decodes bytes that are not UTF-8 to U+FFFD, and two different ids
/// must not become one.
fn text(field: &'static str, value: Option<String>, max: usize) -> Result<Option<String>, BadParameter> {
    match value {
        Some(text) if text.is_empty() => Err(bad(field, "must not be empty")),
        Some(text) if text.len() > max => Err(bad(field, &format!("is longer than {max} bytes"))),
        Some(text) if text.contains('\u{FFFD}') => Err(bad(field, "is not valid UTF-8")),
        other => Ok(other),
    }
}

fn bad(field: &'static str, problem: &str) -> BadParameter {
    BadParameter {
        field,
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_full_query() {
        let start = Start::parse(
            "content=m%201&device=tv-1&device_name=Living+room&device_class=tv&on_limit=ask&since=7&x=y",
        );
        let start = start.unwrap();
        assert_eq!(start.content, "m 1");
        assert_eq!(start.device_name.as_deref(), Some("Living room"));
        assert_eq!((start.on_limit, start.since), (Mode::Ask, Some(7)));
    }

    #[test]
    fn bad_parameters_name_their_field() {
        let long = format!("content={}", "x".repeat(257));
        for (query, field) in [
            ("", "content"),
            ("content=", "content"),
            (long.as_str(), "content"),
            ("content=a&content=b", "content"),
            ("content=%FF", "content"),
            ("content=a&device=", "device"),
            ("content=a&on_limit=kill", "on_limit"),
            ("content=a&since=-1", "since"),
            ("content=a&since=9007199254740992", "since"),
        ] {
            assert_eq!(Start::parse(query).unwrap_err().field, field, "{query}");
        }
    }

    #[test]
    fn a_malformed_resume_is_an_ordinary_start() {
        assert_eq!(Start::parse("content=a&resume=%00").unwrap().resume, None);
    }
}
