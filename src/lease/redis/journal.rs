//! The journal in Redis: the streams that the scripts write, read through `lua/webhooks.lua`.
//!
//! Owns: the form of the script's questions and answers, and of an entry's fields.
//! Does not: decide who reads (the script does) or what is told (`webhooks`).
//! Called by: `webhooks` and `ledger`, as a [`Journal`].
//!
//! Over 400 lines: the form of every question beside that of its answer.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::protocol::id::AccountKey;

use super::super::journal::{
    Batch, Cursor, DeadLetter, Done, Entry, FORGOTTEN, Happened, Journal, Play, Record, Refusal, Report,
    Standing, TURN_LEASE, Turn, Turned,
};
use super::super::model::Millis;
use super::super::store::StoreError;
use super::refusals::Refusals;
use super::scripts::Hex;
use super::{Failed, Link, Script, keys};

static WEBHOOKS: Script = Script::new("webhooks", include_str!("lua/webhooks.lua"));

/// Bounds of what is kept in a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Refusals.
    pub refusals: u32,
    /// Dead letters.
    pub dead_letters: u32,
}

/// The journal of all nodes.
pub struct RedisJournal {
    link: Link,
    keys: Vec<[String; 4]>,
    kept: Kept,
    said: Refusals,
}

/// Fields and values in turn.
type Fields = Vec<String>;

#[derive(Serialize)]
struct TurnAsk<'a> {
    receiver: &'a str,
    owner: Hex,
    lease: u128,
    from_start: bool,
    events: bool,
    refusals: bool,
    most: u32,
    leave: bool,
    trim: bool,
    forgotten: u128,
    kept: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<DoneAsk<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct DoneAsk<'a> {
    fence: u64,
    events: &'a str,
    refusals: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dead: Vec<Fields>,
}

#[derive(Serialize)]
struct RefuseAsk {
    refused: Vec<Fields>,
    most: u32,
}

#[derive(Serialize)]
struct ReportAsk<'a> {
    report: &'a [String],
    most: u32,
}

#[derive(Deserialize)]
struct TurnDone {
    #[serde(default)]
    elsewhere: bool,
    #[serde(default)]
    fence: u64,
    #[serde(default)]
    cursor: CursorText,
    #[serde(default)]
    stale: bool,
    #[serde(default)]
    missed: bool,
    #[serde(default)]
    lag: u64,
    dead: u64,
    #[serde(default)]
    length: u64,
    #[serde(default)]
    events: Vec<(String, Fields)>,
    #[serde(default)]
    refusals: Vec<(String, Fields)>,
}

#[derive(Default, Deserialize)]
struct CursorText {
    events: String,
    refusals: String,
}

#[derive(Deserialize)]
struct ReportDone {
    #[serde(default)]
    receivers: Vec<StandingText>,
    #[serde(default)]
    letters: Vec<(String, Fields)>,
}

#[derive(Deserialize)]
struct StandingText {
    name: String,
    lag: u64,
    error: Option<String>,
    dead: u64,
}

#[derive(Deserialize)]
struct Nothing {}

impl RedisJournal {
    /// The journal over this link.
    #[must_use]
    pub fn new(link: Link, prefix: &str, buckets: u16, kept: Kept) -> Self {
        Self {
            link,
            keys: (0..buckets)
                .map(|bucket| keys::of_journal(prefix, bucket))
                .collect(),
            kept,
            said: Refusals::default(),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, bucket: u16, ask: &impl Serialize) -> Result<T, StoreError> {
        let run = async {
            let text = |problem: serde_json::Error| Failed::Refused(format!("unreadable: {problem}"));
            let keys = self.keys.get(usize::from(bucket));
            let keys = keys.ok_or_else(|| Failed::Refused(format!("there is no bucket {bucket}")))?;
            let ask = serde_json::to_string(ask).map_err(text)?;
            let reply = self.link.run(&WEBHOOKS, keys, &[&ask]).await?;
            serde_json::from_str(&reply).map_err(text)
        };
        run.await.map_err(|failed| {
            if let Failed::Refused(text) = failed {
                self.said.say(WEBHOOKS.name, text);
            }
            StoreError::Unavailable
        })
    }
}

#[async_trait]
impl Journal for RedisJournal {
    fn buckets(&self) -> u16 {
        u16::try_from(self.keys.len()).unwrap_or(u16::MAX)
    }

    async fn turn(&self, bucket: u16, turn: &Turn<'_>) -> Result<Turned, StoreError> {
        let done = |done: &'_ Done| -> Vec<Fields> { done.dead.iter().map(letter_fields).collect() };
        let ask = TurnAsk {
            receiver: turn.receiver,
            owner: Hex(turn.owner.0),
            lease: TURN_LEASE.as_millis(),
            from_start: turn.from_start,
            events: turn.events,
            refusals: turn.refusals,
            most: turn.most,
            leave: turn.leave,
            trim: turn.trim,
            forgotten: FORGOTTEN.as_millis(),
            kept: self.kept.dead_letters,
            done: turn.done.map(|it| DoneAsk {
                fence: it.fence,
                events: &it.cursor.events,
                refusals: &it.cursor.refusals,
                dead: done(it),
            }),
            error: turn.error,
        };
        let done: TurnDone = self.ask(bucket, &ask).await?;
        if done.elsewhere {
            return Ok(Turned::Elsewhere { dead: done.dead });
        }
        if done.stale {
            tracing::debug!(receiver = turn.receiver, bucket, "the turn was lost meanwhile");
        }
        Ok(Turned::Yours(Batch {
            fence: done.fence,
            cursor: Cursor {
                events: done.cursor.events,
                refusals: done.cursor.refusals,
            },
            events: done.events.into_iter().map(entry).collect(),
            refusals: done.refusals.into_iter().map(entry).collect(),
            lag: Duration::from_millis(done.lag),
            missed: done.missed,
            dead: done.dead,
            length: done.length,
        }))
    }

    async fn refuse(&self, bucket: u16, refusals: &[Record]) -> Result<(), StoreError> {
        let ask = RefuseAsk {
            refused: refusals.iter().map(refusal_fields).collect(),
            most: self.kept.refusals,
        };
        self.ask::<Nothing>(bucket, &ask).await.map(|_| ())
    }

    async fn report(&self, bucket: u16, receivers: &[String], most: u32) -> Result<Report, StoreError> {
        let ask = ReportAsk {
            report: receivers,
            most,
        };
        let done: ReportDone = self.ask(bucket, &ask).await?;
        let standings = done.receivers.into_iter().map(|text| Standing {
            receiver: text.name,
            lag: Duration::from_millis(text.lag),
            error: text.error.and_then(|error| {
                let (at, what) = error.split_once(' ')?;
                Some((at.parse().ok()?, what.to_owned()))
            }),
            dead: text.dead,
        });
        let letters = done.letters.into_iter().map(|(id, fields)| {
            let mut fields = by_name(fields);
            let mut take = |name| fields.remove(name).unwrap_or_default();
            let letter = DeadLetter {
                receiver: take("receiver"),
                id: take("id"),
                reason: take("reason"),
                body: take("body"),
            };
            (millis_of(&id), letter)
        });
        Ok((standings.collect(), letters.collect()))
    }
}

fn letter_fields(letter: &DeadLetter) -> Fields {
    let DeadLetter {
        receiver,
        id,
        reason,
        body,
    } = letter;
    let fields = [
        ("receiver", receiver),
        ("id", id),
        ("reason", reason),
        ("body", body),
    ];
    fields
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value.clone()])
        .collect()
}

fn refusal_fields(record: &Record) -> Fields {
    let mut fields = vec![
        ("kind", "refused".to_owned()),
        ("tenant", record.account.tenant.to_string()),
        ("account", record.account.account.to_string()),
        ("session", record.session.clone()),
        ("device", record.device.clone()),
        ("content", record.content.clone()),
        ("at", record.at.to_string()),
    ];
    if let Some(refusal) = &record.refusal {
        fields.push(("rule", refusal.rule.clone()));
        fields.push(("used", refusal.used.to_string()));
        fields.push(("limit", refusal.limit.to_string()));
    }
    fields.extend(record.device_name.clone().map(|name| ("name", name)));
    fields.extend(record.device_class.clone().map(|class| ("class", class)));
    fields
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
}

fn entry((id, fields): (String, Fields)) -> Entry {
    let record = record(&id, by_name(fields));
    Entry { id, record }
}

/// None when it is of a kind that this version does not know, or lacks what every one has.
fn record(id: &str, mut fields: HashMap<String, String>) -> Option<Record> {
    let happened = match fields.get("kind")?.as_str() {
        "started" => Happened::Started,
        "ended" => Happened::Ended,
        "refused" => Happened::Refused,
        _ => return None,
    };
    let mut take = |name: &str| fields.remove(name);
    let (tenant, account) = (take("tenant")?, take("account")?);
    let (plan, code) = (take("plan"), take("code"));
    let mut number = |name: &str| take(name)?.parse::<u64>().ok();
    let play = |number: &mut dyn FnMut(&str) -> Option<u64>| {
        Some(Play {
            started_at: number("started")?,
            watched_ms: number("watched").unwrap_or_default(),
            position_ms: number("position").unwrap_or_default(),
            plan,
            code,
        })
    };
    let at = number("at")?;
    let (play, counts) = match happened {
        Happened::Started | Happened::Ended => (Some(play(&mut number)?), None),
        Happened::Refused => (None, Some((number("used")?, number("limit")?))),
    };
    let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
    let refusal = match counts {
        Some((used, limit)) => Some(Refusal {
            rule: take("rule")?,
            used: small(used),
            limit: small(limit),
        }),
        None => None,
    };
    Some(Record {
        happened,
        id: id.to_owned(),
        at,
        account: AccountKey::new(&tenant, &account),
        session: take("session")?,
        device: take("device")?,
        device_name: take("name"),
        device_class: take("class"),
        content: take("content")?,
        play,
        refusal,
    })
}

fn by_name(fields: Fields) -> HashMap<String, String> {
    let mut fields = fields.into_iter();
    let mut found = HashMap::new();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        found.insert(name, value);
    }
    found
}

/// The time of a stream's entry.
fn millis_of(id: &str) -> Millis {
    id.split('-')
        .next()
        .and_then(|ms| ms.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_refusal_comes_back_from_its_fields() {
        let refused = Record {
            happened: Happened::Refused,
            id: "5-1".to_owned(),
            at: 5,
            account: AccountKey::new("main", "a"),
            session: "s".to_owned(),
            device: "tv".to_owned(),
            device_name: Some("Living room".to_owned()),
            device_class: None,
            content: "m".to_owned(),
            play: None,
            refusal: Some(Refusal {
                rule: "account".to_owned(),
                used: 3,
                limit: 3,
            }),
        };
        let read = entry(("5-1".to_owned(), refusal_fields(&refused)));
        assert_eq!(read.record, Some(refused));
    }

    #[test]
    fn a_kind_of_a_later_version_is_no_record() {
        let fields = ["kind", "paused", "tenant", "main", "account", "a"];
        let read = entry(("5-1".to_owned(), fields.map(str::to_owned).into()));
        assert!(read.record.is_none());
    }
}
