//! `PROTOCOL.md` held against the code: every example, every table, every name.
//!
//! Over 400 lines: a test for each part of one document.
//!
//! Examples stand in fences ```` ```json server ````, ```` ```json player ```` and ```` ```json http ````; flows in
//! ```` ```text ```` have lines that begin with `>` (player) or `<` (server).
//!
//! Over 400 lines: each table and example of the one document has its own check.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod reading;

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::client::{ClientMessage, PlayState, decode};
use super::close::{Advice, EndCode};
use super::id::{ResumeSecret, SessionId};
use super::server::{ErrorCode, Granted, Holder, Screen, ServerMessage, Slots, TicketText, encode};
use super::start::{MAX_CLASS_BYTES, PARAMETERS, Start};
use super::{MAX_ID_BYTES, MAX_MESSAGE_BYTES, SUBPROTOCOL};
use reading::{DOCUMENT, fences, rows, section};

const CLIENT_TYPES: [&str; 7] = [
    "heartbeat",
    "switch",
    "takeover",
    "wait",
    "takeover_answer",
    "token",
    "stop",
];

const ERROR_CODES: [ErrorCode; 8] = [
    ErrorCode::BadMessage,
    ErrorCode::UnknownType,
    ErrorCode::BadState,
    ErrorCode::BadToken,
    ErrorCode::ContentForbidden,
    ErrorCode::ContentUnknown,
    ErrorCode::StreamLimitReached,
    ErrorCode::Unavailable,
];

/// The type of a player's message. A new variant does not compile before it is named here and in the lists above.
fn client_type(message: &ClientMessage<'_>) -> &'static str {
    match message {
        ClientMessage::Heartbeat { .. } => "heartbeat",
        ClientMessage::Switch { .. } => "switch",
        ClientMessage::Takeover { .. } => "takeover",
        ClientMessage::Wait => "wait",
        ClientMessage::TakeoverAnswer { .. } => "takeover_answer",
        ClientMessage::Token { .. } => "token",
        ClientMessage::Stop => "stop",
    }
}

/// The name of an error. Exhaustive for the same reason.
fn error_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadMessage => "bad_message",
        ErrorCode::UnknownType => "unknown_type",
        ErrorCode::BadState => "bad_state",
        ErrorCode::BadToken => "bad_token",
        ErrorCode::ContentForbidden => "content_forbidden",
        ErrorCode::ContentUnknown => "content_unknown",
        ErrorCode::StreamLimitReached => "stream_limit_reached",
        ErrorCode::Unavailable => "unavailable",
    }
}

/// Every form that the server's messages take on the wire.
fn server_messages() -> Vec<Value> {
    let session = SessionId::from_bytes([7; 16]);
    let slots = Slots { used: 2, limit: 3 };
    let named = Screen {
        device: "d",
        device_name: Some("D"),
    };
    let holder = |name: Option<&str>| Holder {
        session,
        device: "d".into(),
        device_name: name.map(str::to_owned),
        device_class: name.map(str::to_owned),
        content: "m".into(),
        started_at: UNIX_EPOCH,
        state: PlayState::Playing,
    };
    let ended = |by| ServerMessage::Ended {
        code: EndCode::Displaced,
        by,
        detail: "x",
    };
    let ticket = TicketText {
        token: "x",
        expires_at: UNIX_EPOCH,
    };
    let granted = Granted {
        session,
        slots,
        heartbeat_ms: 1,
        lease_ms: 2,
        resume: "x",
        resumed: false,
        provisional: false,
        ticket: Some(ticket.clone()),
        server_time: UNIX_EPOCH,
    };
    // A node that issues no tickets.
    let bare = Granted {
        ticket: None,
        ..granted.clone()
    };
    let denied = ServerMessage::Denied {
        code: "takeover_refused",
        rule: "account",
        slots,
        holders: vec![holder(Some("x")), holder(None)],
        may: &["takeover"],
    };
    let request = ServerMessage::TakeoverRequest {
        by: named,
        answer_within_ms: 1,
    };
    let error = ServerMessage::Error {
        code: ErrorCode::BadState,
        detail: "x",
    };
    let all = [
        ServerMessage::Granted(granted),
        ServerMessage::Granted(bare),
        ServerMessage::Ticket(ticket),
        denied,
        ServerMessage::Waiting { position: 1 },
        ServerMessage::Slots(slots),
        request,
        ended(None),
        ended(Some(named)),
        ended(Some(Screen {
            device_name: None,
            ..named
        })),
        ServerMessage::Draining {
            reconnect_within_ms: 1,
        },
        ServerMessage::SwitchRefused {
            code: ErrorCode::StreamLimitReached,
            rule: "sports",
            slots,
            holders: vec![holder(Some("x")), holder(None)],
            detail: "x",
        },
        error,
    ];
    for message in &all {
        match message {
            // A new variant does not compile before it is named here; then add it to the list above.
            ServerMessage::Granted(_)
            | ServerMessage::Denied { .. }
            | ServerMessage::Waiting { .. }
            | ServerMessage::Slots(_)
            | ServerMessage::Ticket(_)
            | ServerMessage::TakeoverRequest { .. }
            | ServerMessage::Ended { .. }
            | ServerMessage::Draining { .. }
            | ServerMessage::SwitchRefused { .. }
            | ServerMessage::Error { .. } => {}
        }
    }
    all.iter()
        .map(|message| serde_json::from_str(&encode(message, None)).unwrap())
        .collect()
}

/// Whether an example has the fields and the kinds of values of the real thing; else where it differs.
fn compare(example: &Value, real: &Value, path: &str) -> Result<(), String> {
    match (example, real) {
        (Value::Object(example), Value::Object(real)) => {
            let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            if keys(example) != keys(real) {
                return Err(format!("{path}: has {:?}, not {:?}", keys(example), keys(real)));
            }
            example
                .iter()
                .try_for_each(|(key, value)| compare(value, &real[key], &format!("{path}.{key}")))
        }
        (Value::Array(example), Value::Array(real)) => example.iter().try_for_each(|item| {
            let fits = real.iter().map(|real| compare(item, real, path));
            fits.reduce(Result::or).unwrap_or(Ok(()))
        }),
        (example, real) if std::mem::discriminant(example) == std::mem::discriminant(real) => Ok(()),
        (example, real) => Err(format!("{path}: {example} is not of the kind of {real}")),
    }
}

/// The values that must mean something.
fn check_values(value: &Value, path: &str) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| check_values(value, key)),
        Value::Array(items) => items.iter().for_each(|item| check_values(item, path)),
        Value::String(text) => match path {
            "session" => assert!(SessionId::parse(text).is_some(), "session: {text}"),
            "resume" => assert!(ResumeSecret::parse(text).is_some(), "resume: {text}"),
            "started_at" | "server_time" | "expires_at" => {
                let time = humantime::parse_rfc3339(text).unwrap();
                assert_eq!(humantime::format_rfc3339_millis(time).to_string(), *text);
            }
            "state" => assert!(
                serde_json::from_value::<PlayState>(value.clone()).is_ok(),
                "{text}"
            ),
            "may" => assert!(["takeover", "wait"].contains(&text.as_str()), "may: {text}"),
            _ => {}
        },
        _ => {}
    }
}

fn check_server(text: &str) -> String {
    let mut example: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let kind = example["type"].as_str().unwrap().to_owned();
    check_values(&example, "");
    let codes: Vec<&str> = match kind.as_str() {
        "ended" => EndCode::ALL.map(EndCode::name).to_vec(),
        "denied" => vec![EndCode::StreamLimitReached.name(), "takeover_refused"],
        "error" => ERROR_CODES.map(error_name).to_vec(),
        _ => vec![],
    };
    let code = example.get("code").and_then(Value::as_str);
    assert!(code.is_none_or(|code| codes.contains(&code)), "{text}");
    // The echo of the player's `id`, which any message may carry.
    example.as_object_mut().unwrap().remove("id");
    let real = server_messages().into_iter().filter(|real| real["type"] == kind);
    let outcome = real
        .map(|real| compare(&example, &real, &kind))
        .reduce(Result::or);
    if let Err(difference) = outcome.unwrap_or_else(|| Err(format!("no type {kind}"))) {
        panic!("{difference}: {text}");
    }
    kind
}

fn check_player(text: &str) -> String {
    assert!(text.len() <= MAX_MESSAGE_BYTES);
    let example: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let frame = decode(text);
    let message = frame
        .message
        .unwrap_or_else(|bad| panic!("{}: {text}", bad.detail));
    assert_eq!(frame.id.is_some(), example.get("id").is_some(), "{text}");
    // Unknown fields are ignored, so what an example shows must be looked for.
    let known: &[&str] = match message {
        ClientMessage::Heartbeat { .. } => &["position_ms", "state"],
        ClientMessage::Switch { .. } => &["content"],
        ClientMessage::Takeover { .. } => &["session"],
        ClientMessage::TakeoverAnswer { .. } => &["allow"],
        ClientMessage::Token { .. } => &["token"],
        ClientMessage::Wait | ClientMessage::Stop => &[],
    };
    for key in example.as_object().unwrap().keys() {
        assert!(
            ["type", "id"].contains(&key.as_str()) || known.contains(&key.as_str()),
            "{key}: {text}"
        );
    }
    assert_eq!(example["type"], client_type(&message));
    client_type(&message).to_owned()
}

#[test]
fn every_example_is_what_the_code_says_and_every_type_has_one() {
    let (mut from_server, mut from_player) = (BTreeSet::new(), BTreeSet::new());
    for (info, lines) in fences() {
        for line in lines {
            match info {
                "json server" => drop(from_server.insert(check_server(line))),
                "json player" => drop(from_player.insert(check_player(line))),
                "json http" => {
                    let error = serde_json::json!({"error": {"code": "", "message": "", "field": "", "request_id": ""}});
                    compare(&serde_json::from_str(line).unwrap(), &error, "").unwrap();
                }
                "text" | "js" => {}
                other => panic!("a fence of an unknown kind: {other:?}"),
            }
        }
    }
    let server_types: BTreeSet<String> = server_messages()
        .iter()
        .map(|message| message["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(from_server, server_types);
    assert_eq!(from_player, CLIENT_TYPES.map(str::to_owned).into());
    for kind in from_server {
        assert!(
            section("## Server to player").contains(&format!("### {kind}\n")),
            "{kind}"
        );
    }
    for kind in from_player {
        assert!(
            section("## Player to server").contains(&format!("### {kind}\n")),
            "{kind}"
        );
    }
}

/// A line of a flow is a message in full, a request, or a type with a remark.
#[test]
fn flows_name_only_what_exists() {
    let real = server_messages();
    let is_server = |word: &str| real.iter().any(|message| message["type"] == word);
    let mut steps = 0;
    for (_, lines) in fences().into_iter().filter(|(info, _)| *info == "text") {
        for line in lines {
            // Two columns, newcomer and victim, stand side by side.
            let columns = if line.contains('{') {
                vec![line]
            } else {
                line.split("   ").map(str::trim).collect()
            };
            for column in columns {
                let text = column.get(2..).unwrap_or_default();
                let word = text.split(' ').next().unwrap();
                match (column.get(..2), text.starts_with('{')) {
                    (Some("> "), true) => drop(check_player(text)),
                    (Some("< "), true) => drop(check_server(text)),
                    (Some("> "), false) if word == "GET" => {
                        let query = text.split(['?', ' ']).nth(2).unwrap();
                        Start::parse(query).unwrap();
                    }
                    (Some("> "), false) => assert!(CLIENT_TYPES.contains(&word), "{line}"),
                    (Some("< "), false) => assert!(is_server(word), "{line}"),
                    _ => continue,
                }
                steps += 1;
            }
        }
    }
    assert!(steps > 30, "the flows are read: {steps}");
}

#[test]
fn the_close_codes_are_the_codes_table() {
    let rows = rows("## Ends");
    let table: Vec<_> = rows.iter().filter(|row| row[0].parse::<u16>().is_ok()).collect();
    assert_eq!(table.len(), EndCode::ALL.len());
    for (row, code) in table.iter().zip(EndCode::ALL) {
        assert_eq!(
            (row[0], row[1]),
            (code.number().to_string().as_str(), code.name())
        );
        assert_eq!(row[2] == "kept", code.keeps_slot(), "{row:?}");
        let advised = row[4].starts_with("Reconnect");
        assert_eq!(advised, code.advice() == Advice::Reconnect, "{row:?}");
    }
    for range in ["4000-4099", "4100-4199", "4200-4299"] {
        assert!(rows.iter().any(|row| row[0] == range), "{range}");
    }
}

#[test]
fn the_errors_are_the_codes() {
    let documented: Vec<_> = rows("## Errors").into_iter().map(|row| row[0]).collect();
    assert_eq!(documented, ERROR_CODES.map(error_name));
    for code in ERROR_CODES {
        assert_eq!(serde_json::to_value(code).unwrap(), error_name(code));
    }
}

#[test]
fn the_parameters_are_the_starts() {
    let table = rows("### Parameters");
    let names: Vec<_> = table.iter().map(|row| row[0]).collect();
    assert_eq!(names, [&PARAMETERS[..], &["token"]].concat());
    for row in &table {
        let most = match row[0] {
            "content" | "device" | "device_name" => MAX_ID_BYTES,
            "device_class" => MAX_CLASS_BYTES,
            _ => continue,
        };
        assert!(row[1].starts_with(&format!("1 to {most} bytes")), "{row:?}");
        let parses = |length: usize| Start::parse(&format!("content=m&{}={}", row[0], "x".repeat(length)));
        if row[0] != "content" {
            assert!(parses(most).is_ok() && parses(most + 1).is_err() && parses(0).is_err());
        }
    }
    assert!(section("### Subprotocol").contains(&format!("`{SUBPROTOCOL}`")));
}

#[test]
fn the_bounds_are_the_defaults() {
    let defaults: toml::Table = toml::from_str(include_str!("../config/default.toml")).unwrap();
    let table = rows("## Bounds");
    assert!(table.len() >= 10);
    for row in table {
        let (section, key) = row[0].split_once('.').unwrap();
        let value = match &defaults[section][key] {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(row[1], value, "{}", row[0]);
    }
    let fixed = format!("{MAX_MESSAGE_BYTES} bytes");
    assert_eq!(
        DOCUMENT.matches("4096 bytes").count(),
        DOCUMENT.matches(&fixed).count()
    );
    assert!(section("## Bounds").contains(&fixed));
}
