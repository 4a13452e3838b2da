//! What an answer that is none means.
//!
//! Owns: which errors of a server pass by themselves, which need another server, and which are final.
//! Does not: retry. Called by: `link`, `server` and `cluster`.

use redis::{RedisError, ServerError, Value};

use crate::config::HostPort;

/// Why a script did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// No answer: not connected, too slow, failing over, loading, without a quorum. Unknown whether it was done;
    /// repeat.
    #[error("Redis does not answer")]
    Unavailable,
    /// The server answered with an error that repeating does not mend: its text.
    #[error("Redis refused: {0}")]
    Refused(String),
}

/// What an error of a server asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The slot has another owner from now on.
    Moved(Option<HostPort>),
    /// Ask that server, this once.
    Ask(Option<HostPort>),
    /// The slot is on its way: ask again shortly.
    TryAgain,
    /// The cluster has no owner of the slot, or no quorum.
    ClusterDown,
    /// The script is not in the server's cache.
    NoScript,
    /// This server cannot serve now, and perhaps another can: connect anew.
    Leave(String),
    /// Not now, on the same connection.
    Later,
    /// No answer came.
    Silent,
    /// Final.
    Refused(String),
}

/// Judges an error. `asked` is the server that answered: a redirection without a host names another port of it.
pub(super) fn judge(error: &ServerError, asked: &HostPort) -> Verdict {
    let text = text_of(error);
    let target = || {
        let place = text.split(' ').nth(2)?;
        place_of(place, asked)
    };
    match error.code() {
        "MOVED" => Verdict::Moved(target()),
        "ASK" => Verdict::Ask(target()),
        "TRYAGAIN" => Verdict::TryAgain,
        "CLUSTERDOWN" => Verdict::ClusterDown,
        "NOSCRIPT" => Verdict::NoScript,
        "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH" => Verdict::Leave(text),
        "NOREPLICAS" | "BUSY" => Verdict::Later,
        _ => Verdict::Refused(text),
    }
}

/// A place as a server writes it: `host:port`, an IPv6 address without brackets, or `:port` of the server itself.
pub(super) fn place_of(text: &str, asked: &HostPort) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let host = if host.is_empty() { &asked.host } else { host };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = host.to_owned();
    Some(HostPort { host, port })
}

/// An error as the server wrote it.
pub(super) fn text_of(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// A failure of a connection, for logs.
pub(super) fn reason_of(error: &RedisError) -> String {
    match error.clone().into_server_errors() {
        Some(errors) => errors.iter().map(|(_, error)| text_of(error)).collect(),
        None => error.to_string(),
    }
}

/// What a server wrote as text, whichever form it chose.
pub(super) fn string_of(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        Value::Okay => Some("OK".to_owned()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    fn verdict(line: &str) -> Verdict {
        let asked = HostPort {
            host: "10.0.0.1".to_owned(),
            port: 1,
        };
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => judge(&error, &asked),
            other => unreachable!("{other:?}"),
        }
    }

    fn at(host: &str, port: u16) -> Option<HostPort> {
        let host = host.to_owned();
        Some(HostPort { host, port })
    }

    #[test]
    fn errors_are_told_apart() {
        assert_eq!(verdict("MOVED 5 10.0.0.2:7"), Verdict::Moved(at("10.0.0.2", 7)));
        assert_eq!(verdict("MOVED 5 fe80::1:7"), Verdict::Moved(at("fe80::1", 7)));
        assert_eq!(verdict("ASK 5 :7"), Verdict::Ask(at("10.0.0.1", 7)));
        assert_eq!(verdict("MOVED 5"), Verdict::Moved(None));
        assert_eq!(verdict("TRYAGAIN Multiple keys"), Verdict::TryAgain);
        assert_eq!(verdict("CLUSTERDOWN The cluster is down"), Verdict::ClusterDown);
        assert_eq!(verdict("NOSCRIPT No matching script."), Verdict::NoScript);
        assert_eq!(verdict("LOADING x"), Verdict::Leave("LOADING x".to_owned()));
        assert_eq!(verdict("READONLY x y"), Verdict::Leave("READONLY x y".to_owned()));
        assert_eq!(verdict("NOREPLICAS x"), Verdict::Later);
        for line in [
            "NOPERM a b",
            "ERR x",
            "OOM x",
            "WRONGTYPE x",
            "BAD_LIMIT x",
            "FINAL",
        ] {
            assert_eq!(verdict(line), Verdict::Refused(line.to_owned()));
        }
    }
}
