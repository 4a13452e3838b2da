//! Messages from the player to the server.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::MAX_ID_BYTES;
use super::id::SessionId;
use super::server::ErrorCode;

/// A message of a player.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage<'a> {
    /// It lives; where it stands.
    Heartbeat {
        /// Position in the content, in milliseconds.
        position_ms: Option<u64>,
        /// What it does.
        state: Option<PlayState>,
    },
    /// It plays something else from now on.
    Switch {
        /// What.
        content: Cow<'a, str>,
    },
    /// It wants this session's slot.
    Takeover {
        /// Whose.
        session: SessionId,
    },
    /// It waits for a slot.
    Wait,
    /// Its answer to `takeover_request`.
    TakeoverAnswer {
        /// Whether the other may have the slot.
        allow: bool,
    },
    /// A fresh access token.
    Token {
        /// The JWT.
        token: Cow<'a, str>,
    },
    /// It is done.
    Stop,
}

/// What a player does with its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlayState {
    /// Playing.
    #[default]
    Playing,
    /// Paused by the viewer.
    Paused,
    /// Waiting for data.
    Buffering,
    /// In the background, as a phone in the pocket.
    Background,
}

impl PlayState {
    /// Whether its time counts as watched.
    #[must_use]
    pub fn is_watching(self) -> bool {
        self != Self::Paused
    }
}

/// A text frame, decoded.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The player's `id`, to be echoed in the answer.
    pub id: Option<&'a RawValue>,
    /// The message, or what to answer.
    pub message: Result<ClientMessage<'a>, BadMessage>,
}

/// A text that is no usable message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMessage {
    /// `bad_message` or `unknown_type`.
    pub code: ErrorCode,
    /// For people; quotes nothing of the message's values.
    pub detail: String,
}

/// Every field that some message has, unread: a field is looked at only by the type that uses it, and unknown ones
/// are skipped, in one pass over the text.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    position_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    allow: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
}

/// Decodes one text frame. Never panics, whatever the text.
#[must_use]
pub fn decode(text: &str) -> Frame<'_> {
    // serde would also take an array for the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Frame {
            id: None,
            message: Err(bad("a message is a JSON object".to_owned())),
        };
    }
    match serde_json::from_str::<Fields<'_>>(text) {
        Ok(fields) => Frame {
            id: fields.id.filter(|id| is_scalar(id)),
            message: message(&fields),
        },
        Err(error) => {
            let detail = format!(
                "not a JSON object: line {} column {}",
                error.line(),
                error.column()
            );
            Frame {
                id: None,
                message: Err(bad(detail)),
            }
        }
    }
}

fn message<'a>(fields: &Fields<'a>) -> Result<ClientMessage<'a>, BadMessage> {
    let kind: Cow<'a, str> = string("type", fields.kind)?;
    Ok(match kind.as_ref() {
        "heartbeat" => ClientMessage::Heartbeat {
            position_ms: fields.position_ms.filter(not_null).map(position).transpose()?,
            state: fields.state.filter(not_null).map(state).transpose()?,
        },
        "switch" => ClientMessage::Switch {
            content: content(fields.content)?,
        },
        "takeover" => ClientMessage::Takeover {
            session: SessionId::parse(&string("session", fields.session)?)
                .ok_or_else(|| bad("session: not a session id".to_owned()))?,
        },
        "wait" => ClientMessage::Wait,
        "takeover_answer" => ClientMessage::TakeoverAnswer {
            allow: typed("allow", fields.allow, "expected true or false")?,
        },
        "token" => ClientMessage::Token {
            token: string("token", fields.token)?,
        },
        "stop" => ClientMessage::Stop,
        _ => {
            return Err(BadMessage {
                code: ErrorCode::UnknownType,
                detail: "type: expected heartbeat, switch, takeover, wait, takeover_answer, token or stop"
                    .to_owned(),
            });
        }
    })
}

fn content<'a>(raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, BadMessage> {
    let content = string("content", raw)?;
    if content.is_empty() || content.len() > MAX_ID_BYTES {
        return Err(bad(format!("content: must have 1 to {MAX_ID_BYTES} bytes")));
    }
    Ok(content)
}

/// Players report whole or broken milliseconds; the fraction is dropped.
fn position(raw: &RawValue) -> Result<u64, BadMessage> {
    /// Above this a JSON number is no exact integer (RFC 8259 section 6).
    const MAX: f64 = 9_007_199_254_740_992.0;
    let value: f64 = typed("position_ms", Some(raw), "expected a number")?;
    if !(0.0..=MAX).contains(&value) {
        return Err(bad("position_ms: out of range".to_owned()));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked above"
    )]
    Ok(value as u64)
}

fn state(raw: &RawValue) -> Result<PlayState, BadMessage> {
    typed(
        "state",
        Some(raw),
        "expected playing, paused, buffering or background",
    )
}

fn string<'a>(field: &'static str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, BadMessage> {
    // `Cow<str>` itself always copies; the wrapper borrows where the text has no escapes.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    typed::<Text<'a>>(field, raw, "expected a string").map(|text| text.0)
}

fn typed<'a, T: Deserialize<'a>>(
    field: &'static str,
    raw: Option<&'a RawValue>,
    expected: &str,
) -> Result<T, BadMessage> {
    let raw = raw.ok_or_else(|| bad(format!("{field}: is required")))?;
    serde_json::from_str(raw.get()).map_err(|_| bad(format!("{field}: {expected}")))
}

/// Strings and numbers are echoed; anything larger is not worth the bytes.
fn is_scalar(raw: &RawValue) -> bool {
    !raw.get().starts_with(['{', '[', 'n'])
}

fn not_null(raw: &&RawValue) -> bool {
    raw.get() != "null"
}

fn bad(detail: String) -> BadMessage {
    BadMessage {
        code: ErrorCode::BadMessage,
        detail,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_heartbeat_with_an_id_and_unknown_fields() {
        let frame =
            decode(r#" {"type":"heartbeat","position_ms":83500.7,"state":"paused","id":"a","x":{"y":[1]}}"#);
        assert_eq!(frame.id.unwrap().get(), r#""a""#);
        let expected = ClientMessage::Heartbeat {
            position_ms: Some(83_500),
            state: Some(PlayState::Paused),
        };
        assert_eq!(frame.message.unwrap(), expected);
    }

    #[test]
    fn bad_messages_say_which_field() {
        for (text, starts) in [
            ("", "a message is"),
            ("[]", "a message is"),
            (
                r#"["heartbeat",null,null,null,null,null,null,null]"#,
                "a message is",
            ),
            ("null", "a message is"),
            ("{", "not a JSON object"),
            ("{}", "type"),
            (r#"{"type":1}"#, "type"),
            (r#"{"type":"fly"}"#, "type: expected"),
            (r#"{"type":"switch"}"#, "content"),
            (r#"{"type":"switch","content":""}"#, "content"),
            (r#"{"type":"switch","content":{"a":1}}"#, "content"),
            (r#"{"type":"takeover","session":"short"}"#, "session"),
            (r#"{"type":"takeover_answer","allow":"yes"}"#, "allow"),
            (r#"{"type":"heartbeat","position_ms":-1}"#, "position_ms"),
            (r#"{"type":"heartbeat","position_ms":1e400}"#, "position_ms"),
            (r#"{"type":"heartbeat","state":"dead"}"#, "state"),
            (r#"{"type":"stop","type":"stop"}"#, "not a JSON object"),
        ] {
            let detail = decode(text).message.unwrap_err().detail;
            assert!(detail.starts_with(starts), "{text}: {detail}");
        }
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let frame = decode(r#"{"type":"heartbeat","position_ms":null,"state":null,"id":null}"#);
        assert!(frame.id.is_none());
        assert_eq!(
            frame.message.unwrap(),
            ClientMessage::Heartbeat {
                position_ms: None,
                state: None
            }
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = decode(&text);
        }

        /// Near misses: a valid message with one piece replaced, doubled or cut.
        #[test]
        fn mangled_messages_are_answered(
            which in 0..6usize, at in 0..200usize, cut in 0..20usize, insert in r#"[\[\]{}",:0-9a-z\\\u{0}-\u{ff}]{0,12}"#,
        ) {
            let base = [
                r#"{"type":"heartbeat","position_ms":83500,"state":"playing","id":1}"#,
                r#"{"type":"switch","content":"m2\u0041\ud83d\ude00"}"#,
                r#"{"type":"takeover","session":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
                r#"{"type":"takeover_answer","allow":true}"#,
                r#"{"type":"token","token":"a.b.c"}"#,
                r#"{"id":[[[[[[[[]]]]]]]],"type":"stop"}"#,
            ][which];
            let chars: Vec<char> = base.chars().collect();
            let at = at.min(chars.len());
            let rest = (at + cut).min(chars.len());
            let text: String = chars[..at].iter().copied().chain(insert.chars()).chain(chars[rest..].iter().copied()).collect();
            let frame = decode(&text);
            if let Ok(ClientMessage::Switch { content }) = frame.message {
                prop_assert!(!content.is_empty() && content.len() <= MAX_ID_BYTES);
            }
        }
    }
}
