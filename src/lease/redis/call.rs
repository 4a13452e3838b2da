//! One run of one script.
//!
//! Owns: EVALSHA, EVAL after a NOSCRIPT, ASKING, and reading the answer.
//! Does not: choose the server, or try again.
//! Called by: `link` and `cluster`.

use std::fmt::Write as _;
use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::failed::{Verdict, judge, string_of};
use super::wire::Wire;

/// Room for the keys of a bucket, a step and most questions, in bytes.
const COMMAND_BYTES: usize = 1_536;

/// A Lua script. It answers a bulk string. Make it a `static`: it remembers its digest.
#[derive(Debug)]
pub struct Script {
    /// What metrics and logs call it.
    pub name: &'static str,
    /// Its text.
    pub source: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    /// The script of this name and text.
    #[must_use]
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self {
            name,
            source,
            digest: OnceLock::new(),
        }
    }

    /// SHA-1 in hexadecimal, by which EVALSHA knows it.
    fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.source.as_bytes());
            digest.as_ref().iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        })
    }
}

/// A script with its keys, all of one slot, and its arguments.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) script: &'a Script,
    pub(super) keys: &'a [String],
    pub(super) arguments: &'a [&'a str],
}

impl Call<'_> {
    /// Runs it on this server. `asking`: the slot is on its way to it.
    pub(super) async fn run(self, wire: &Wire, asking: bool, deadline: Instant) -> Result<String, Verdict> {
        let known = self.command("EVALSHA", self.script.digest());
        match Self::send(wire, known, asking, deadline).await {
            // A server that restarted, was promoted or joined does not know the script yet.
            Err(Verdict::NoScript) => {
                Self::send(wire, self.command("EVAL", self.script.source), asking, deadline).await
            }
            answer => answer,
        }
    }

    fn command(self, name: &str, script: &str) -> Cmd {
        let mut command = Cmd::with_capacity(3 + self.keys.len() + self.arguments.len(), COMMAND_BYTES);
        command
            .arg(name)
            .arg(script)
            .arg(self.keys.len())
            .arg(self.keys)
            .arg(self.arguments);
        command
    }

    async fn send(wire: &Wire, command: Cmd, asking: bool, deadline: Instant) -> Result<String, Verdict> {
        let answers = if asking {
            wire.ask(&[redis::cmd("ASKING"), command], deadline).await
        } else {
            wire.ask(&[command], deadline).await
        };
        match answers.map_err(|_| Verdict::Silent)?.pop() {
            Some(Value::ServerError(error)) => {
                let verdict = judge(&error, &wire.host);
                if let Verdict::Leave(reason) = &verdict {
                    wire.give_up(reason);
                }
                Err(verdict)
            }
            answer => {
                let text = answer.and_then(string_of);
                text.ok_or_else(|| Verdict::Refused("the script answered no text".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_redis() {
        // SCRIPT LOAD "return 1" of Redis 7.0.15.
        assert_eq!(
            Script::new("one", "return 1").digest(),
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
    }
}
