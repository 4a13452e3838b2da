//! Asking sentinels for the master.
//!
//! Owns: whom to believe when they differ: the one with the highest epoch, which is that of the last failover.
//! Does not: keep connections to them, or check that the master is one (`server` does).
//! Called by: `server`, before it connects and now and then afterwards.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use tokio::time::Instant;

use super::dial::Dialer;
use super::failed::{reason_of, string_of, text_of};
use crate::config::HostPort;

/// How long the others may take after the first has answered.
const GRACE: Duration = Duration::from_millis(250);

/// The sentinels of one master.
pub(super) struct Sentinels {
    pub(super) master: String,
    hosts: Vec<HostPort>,
    dialer: Dialer,
}

impl Sentinels {
    pub(super) fn new(master: String, hosts: Vec<HostPort>, dialer: Dialer) -> Self {
        Self {
            master,
            hosts,
            dialer,
        }
    }

    /// Where the master is, as the best informed sentinel says.
    pub(super) async fn ask(&self) -> Result<HostPort, String> {
        let mut asked: FuturesUnordered<_> = self.hosts.iter().map(|host| self.ask_one(host)).collect();
        let mut deadline = Instant::now() + self.dialer.timeout();
        let mut best: Option<(u64, HostPort)> = None;
        let mut reason = "no sentinel answers in time".to_owned();
        while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, asked.next()).await {
            match answer {
                Ok(found) => {
                    deadline = deadline.min(Instant::now() + GRACE);
                    if best.as_ref().is_none_or(|(epoch, _)| found.0 > *epoch) {
                        best = Some(found);
                    }
                }
                Err(problem) => reason = problem,
            }
        }
        best.map(|(_, host)| host).ok_or(reason)
    }

    async fn ask_one(&self, host: &HostPort) -> Result<(u64, HostPort), String> {
        let problem = |reason: String| format!("sentinel {host}: {reason}");
        let connection = self.dialer.dial(host, None).await.map_err(problem)?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("MASTER").arg(&self.master);
        let mut commands = connection.commands.clone();
        let answer = commands.send_packed_command(&command).await;
        match answer.map_err(|e| problem(reason_of(&e)))? {
            Value::ServerError(error) => Err(problem(text_of(&error))),
            answer => read(answer).ok_or_else(|| problem("names no master".to_owned())),
        }
    }
}

/// Epoch and place out of the answer to SENTINEL MASTER.
fn read(answer: Value) -> Option<(u64, HostPort)> {
    let pairs: Vec<(Value, Value)> = match answer {
        Value::Map(pairs) => pairs,
        Value::Array(flat) => {
            let mut flat = flat.into_iter();
            std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
        }
        _ => return None,
    };
    let (mut host, mut port, mut epoch) = (None, None, 0);
    for (key, value) in pairs {
        let (key, value) = (string_of(key)?, string_of(value));
        match (key.as_str(), value) {
            ("ip", value) => host = value.filter(|host| !host.is_empty()),
            ("port", value) => port = value.and_then(|port| port.parse().ok()).filter(|port| *port != 0),
            ("config-epoch", Some(value)) => epoch = value.parse().ok()?,
            _ => {}
        }
    }
    let (host, port) = (host?, port?);
    Some((epoch, HostPort { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn the_answer_is_read_in_both_protocols() {
        let pairs = [
            ("name", "m"),
            ("ip", "10.0.0.1"),
            ("port", "7"),
            ("config-epoch", "3"),
        ];
        let map = pairs.map(|(key, value)| (text(key), text(value)));
        let flat = pairs.iter().flat_map(|(key, value)| [text(key), text(value)]);
        let expected = HostPort {
            host: "10.0.0.1".to_owned(),
            port: 7,
        };
        assert_eq!(read(Value::Map(map.to_vec())), Some((3, expected.clone())));
        assert_eq!(read(Value::Array(flat.collect())), Some((3, expected)));
        assert_eq!(read(Value::Map(map[..1].to_vec())), None);
        assert_eq!(read(Value::Nil), None);
    }
}
