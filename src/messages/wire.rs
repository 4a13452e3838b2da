//! Words between nodes, over the Redis that they share.
//!
//! Owns: their form, their channels (one for each bucket, heard by all nodes) and the order in which a node says them.
//! Does not: promise that anybody hears one: what is lost is found in the database (`delivery`).
//! Called by: `delivery`; `app` hands in what the subscription brings.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};

use crate::lease::redis::{Link, Script, keys};
use crate::lease::store::bucket_of;
use crate::protocol::id::{AccountKey, OwnerId};
use crate::telemetry::Metrics;

/// Words that wait to be said, and that wait to be heard; what comes beyond is lost, and found in the database.
const WAITING: usize = 8_192;

/// Words said with one question to Redis.
const AT_ONCE: usize = 256;

static PUBLISH: Script = Script::new("publish", include_str!("publish.lua"));

/// What is needed to talk to other nodes.
pub struct Wire {
    /// To the Redis that they share.
    pub link: Link,
    /// Before every channel.
    pub prefix: String,
    /// Buckets of the installation.
    pub buckets: u16,
    /// What was heard on the channels.
    pub heard: mpsc::Receiver<Vec<u8>>,
}

/// A word to all nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Word {
    /// Who says it.
    pub(super) node: String,
    pub(super) tenant: String,
    /// An account or a room.
    pub(super) to: String,
    #[serde(flatten)]
    pub(super) what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// A message was stored.
    Said(Said),
    /// How many are in the room?
    HowMany(bool),
    /// So many on this node.
    Present(u64),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) id: u64,
    pub(super) before: u64,
    pub(super) from: String,
    pub(super) content: String,
    pub(super) sent_at: i64,
}

/// The mouth of a node. Clones share it.
#[derive(Clone)]
pub(super) struct Mouth {
    pub(super) node: String,
    words: Option<mpsc::Sender<(String, String)>>,
    prefix: String,
    buckets: u16,
}

impl Wire {
    /// What the subscription's bytes go into, and the wire that hears them.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>) {
        mpsc::channel(WAITING)
    }
}

/// What `open` gives: the mouth, the ears, word of new subscriptions, and the task that speaks.
pub(super) struct Opened {
    pub(super) mouth: Mouth,
    pub(super) heard: Option<mpsc::Receiver<Vec<u8>>>,
    pub(super) renewed: Option<watch::Receiver<u64>>,
    pub(super) speak: Option<Speak>,
}

/// Says what waits to be said.
pub(super) struct Speak {
    link: Link,
    words: mpsc::Receiver<(String, String)>,
}

/// Listens on every channel from now on. Without a wire there is nobody to talk to.
pub(super) fn open(wire: Option<Wire>, owner: OwnerId) -> Opened {
    let node = keys::hex(owner.0);
    let Some(wire) = wire else {
        let mouth = Mouth {
            node,
            words: None,
            prefix: String::new(),
            buckets: 1,
        };
        return Opened {
            mouth,
            heard: None,
            renewed: None,
            speak: None,
        };
    };
    let channels = (0..wire.buckets).map(|bucket| keys::messages(&wire.prefix, bucket));
    wire.link.listen(channels.collect());
    let (say, words) = mpsc::channel(WAITING);
    let mouth = Mouth {
        node,
        words: Some(say),
        prefix: wire.prefix,
        buckets: wire.buckets,
    };
    Opened {
        mouth,
        heard: Some(wire.heard),
        renewed: Some(wire.link.subscriptions()),
        speak: Some(Speak {
            link: wire.link,
            words,
        }),
    }
}

impl Mouth {
    /// Whether there are other nodes to talk to.
    pub(super) fn reaches_others(&self) -> bool {
        self.words.is_some()
    }

    /// Tells all other nodes, if there are any and there is room.
    pub(super) fn say(&self, metrics: &Metrics, tenant: &str, to: &str, what: What) {
        let Some(words) = &self.words else { return };
        let bucket = bucket_of(&AccountKey::new(tenant, to), self.buckets);
        let word = Word {
            node: self.node.clone(),
            tenant: tenant.to_owned(),
            to: to.to_owned(),
            what,
        };
        let Ok(text) = serde_json::to_string(&word) else {
            return;
        };
        if words
            .try_send((keys::messages(&self.prefix, bucket), text))
            .is_err()
        {
            metrics.messages_lost_total.inc("wire");
        }
    }
}

impl Speak {
    /// Says what waits, the words of each channel in their order, until nobody can say any more.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::with_capacity(AT_ONCE);
        while self.words.recv_many(&mut waiting, AT_ONCE).await > 0 {
            let mut channels: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (channel, word) in waiting.drain(..) {
                channels.entry(channel).or_default().push(word);
            }
            let said = channels.into_iter().map(|(channel, words)| {
                let link = &self.link;
                async move {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    // Redis is away: the others find it in the database.
                    let _ = link.run(&PUBLISH, &[channel], &words).await;
                }
            });
            join_all(said).await;
        }
    }
}

/// Reads a word; none: it is of this node itself, or of a version that says it otherwise.
pub(super) fn read(payload: &[u8], own: &str) -> Option<Word> {
    let word: Word = serde_json::from_slice(payload).ok()?;
    (word.node != own).then_some(word)
}

/// Content as it stands in a message.
pub(super) fn raw(content: &str) -> Option<&RawValue> {
    serde_json::from_str(content).ok()
}
