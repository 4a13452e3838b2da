//! Word from the scripts to the nodes: who must look again, how many slots of an account are taken, and that a bucket's
//! data were lost.
//!
//! Owns: reading a message. Does not: subscribe (the link does) or act (the mailbox does). A message carries no truth
//! (lease rule 29): one that is lost or malformed costs seconds, never a wrong state.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Notify;

use crate::protocol::id::{AccountKey, OwnerId};

use super::super::store::Mailbox;
use super::keys;
use super::scripts::SessionText;

/// Delivers what comes on a node's channels.
pub struct Mail {
    mailbox: Arc<dyn Mailbox>,
    owner: OwnerId,
    alarm: Arc<Notify>,
}

#[derive(Deserialize)]
struct Word {
    account: (String, String),
    #[serde(default)]
    looks: Vec<SessionText>,
    used: Option<u32>,
}

/// Word to all nodes about an account.
#[derive(Deserialize)]
struct Notice {
    blocked: (String, String),
}

impl Mail {
    /// Word for this node.
    #[must_use]
    pub fn new(mailbox: Arc<dyn Mailbox>, owner: OwnerId) -> Self {
        let alarm = Arc::default();
        Self {
            mailbox,
            owner,
            alarm,
        }
    }

    /// Rings when a bucket recovers.
    #[must_use]
    pub fn alarm(&self) -> Arc<Notify> {
        Arc::clone(&self.alarm)
    }

    /// Reads a message and passes it on. A malformed one is ignored: it may be of a later version.
    pub fn deliver(&self, channel: &str, payload: &[u8]) {
        if channel.ends_with(keys::NOTICES) {
            // What begins otherwise is the generation of a recovery.
            if payload.first() != Some(&b'{') {
                self.alarm.notify_one();
            } else if let Ok(Notice {
                blocked: (tenant, account),
            }) = serde_json::from_slice(payload)
            {
                self.mailbox.blocked(&AccountKey::new(&tenant, &account));
            }
            return;
        }
        let word: Word = match serde_json::from_slice(payload) {
            Ok(word) => word,
            Err(error) => {
                tracing::debug!(channel, %error, "unreadable word");
                return;
            }
        };
        let account = AccountKey::new(&word.account.0, &word.account.1);
        for session in word.looks {
            self.mailbox.look(&account, self.owner, session.0);
        }
        if let Some(used) = word.used {
            self.mailbox.slots(&account, used);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    use std::sync::Mutex;

    use super::*;
    use crate::protocol::id::SessionId;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Mailbox for Heard {
        fn look(&self, account: &AccountKey, owner: OwnerId, session: SessionId) {
            self.0
                .lock()
                .unwrap()
                .push(format!("look {account} {} {session}", owner.0));
        }

        fn slots(&self, account: &AccountKey, used: u32) {
            self.0.lock().unwrap().push(format!("slots {account} {used}"));
        }

        fn blocked(&self, account: &AccountKey) {
            self.0.lock().unwrap().push(format!("blocked {account}"));
        }
    }

    #[test]
    fn word_is_passed_on_and_nonsense_ignored() {
        let heard = Arc::new(Heard::default());
        let mail = Mail::new(heard.clone(), OwnerId(7));
        let word = r#"{"account":["t","a"],"looks":["AAAAAAAAAAAAAAAAAAAAAA"],"used":2,"later":[]}"#;
        for payload in [
            word,
            "",
            "{}",
            r#"{"account":["t","a"],"looks":["short"]}"#,
            r#"{"account":["t"]}"#,
        ] {
            mail.deliver("mail", payload.as_bytes());
        }
        mail.deliver("mail", b"\xff");
        for payload in [
            r#"{"blocked":["t","a"]}"#,
            r#"{"later":1}"#,
            "{",
            "0123456789abcdef",
        ] {
            mail.deliver("{usher:7}:v1:notices", payload.as_bytes());
        }
        let expected = ["look t/a 7 AAAAAAAAAAAAAAAAAAAAAA", "slots t/a 2", "blocked t/a"];
        assert_eq!(*heard.0.lock().unwrap(), expected);
    }
}
