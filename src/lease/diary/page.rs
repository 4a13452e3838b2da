//! The lines of a diary: what they say, and reading back what a process left.
//!
//! Owns: their form. Does not: write the file (`diary` does). Called by: `diary`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::protocol::close::EndCode;
use crate::protocol::id::AccountKey;

use super::super::account::Fact;
use super::super::journal::{Happened, Play, Record};
use super::super::memory_journal::record;
use super::super::model::{Entry, Millis};

/// The longest line that is read back, in bytes.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// What a line says of a play.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Page {
    session: String,
    tenant: String,
    account: String,
    device: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    content: String,
    started: Millis,
    watched: u64,
    position: u64,
    /// Until when `watched` counts; of an end, when it was.
    at: Millis,
    /// Whether it is watched, and not paused.
    watching: bool,
    /// How it ended; none: it plays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Line {
    Alive { alive: Millis },
    Page(Box<Page>),
}

impl Page {
    pub(super) fn of(account: &AccountKey, entry: &Entry) -> Self {
        let mut page = Self::of_end(&record(account, &Fact::Started(entry.clone())));
        (page.at, page.watching) = (entry.checkpoint, entry.state.is_watching());
        page
    }

    pub(super) fn of_end(record: &Record) -> Self {
        let play = record.play.as_ref();
        Self {
            session: record.session.clone(),
            tenant: record.account.tenant.to_string(),
            account: record.account.account.to_string(),
            device: record.device.clone(),
            name: record.device_name.clone(),
            class: record.device_class.clone(),
            plan: play.and_then(|play| play.plan.clone()),
            content: record.content.clone(),
            started: play.map_or(record.at, |play| play.started_at),
            watched: play.map_or(0, |play| play.watched_ms),
            position: play.map_or(0, |play| play.position_ms),
            at: record.at,
            watching: false,
            code: play.and_then(|play| play.code.clone()),
        }
    }

    /// The end of the play; of one that was under way, at the last moment that its process was known to live.
    fn close(self, alive: Millis) -> Record {
        let until = match self.code {
            Some(_) => self.at,
            None => alive.max(self.at),
        };
        let watched = if self.watching { until - self.at } else { 0 };
        Record {
            happened: Happened::Ended,
            id: String::new(),
            at: until,
            account: AccountKey::new(&self.tenant, &self.account),
            session: self.session,
            device: self.device,
            device_name: self.name,
            device_class: self.class,
            content: self.content,
            play: Some(Play {
                started_at: self.started,
                watched_ms: self.watched + watched,
                position_ms: self.position,
                plan: self.plan,
                code: Some(self.code.unwrap_or_else(|| EndCode::LeaseLost.name().to_owned())),
            }),
            refusal: None,
        }
    }
}

/// What a file holds, as ends; nothing when there is none. A line that was cut off ends it.
pub(super) fn read(file: &Path) -> io::Result<Vec<Record>> {
    let source = match File::open(file) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (mut source, mut text) = (BufReader::new(source), Vec::new());
    let (mut pages, mut alive) = (BTreeMap::<String, Page>::new(), 0);
    loop {
        text.clear();
        let mut line = io::Read::take(&mut source, MAX_LINE_BYTES);
        if line.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        match serde_json::from_slice(&text) {
            Ok(Line::Alive { alive: at }) => alive = alive.max(at),
            Ok(Line::Page(page)) => {
                let ended = pages.get(&page.session).is_some_and(|known| known.code.is_some());
                if !ended {
                    pages.insert(page.session.clone(), *page);
                }
            }
            Err(error) => tracing::warn!(%error, file = %file.display(), "a line was not read"),
        }
    }
    Ok(pages.into_values().map(|page| page.close(alive)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs;

    use super::*;

    fn page(session: &str, at: Millis, watched: u64, code: Option<&str>) -> String {
        let page = Page {
            session: session.to_owned(),
            tenant: "main".to_owned(),
            account: "a".to_owned(),
            device: "tv".to_owned(),
            name: None,
            class: None,
            plan: Some("gold".to_owned()),
            content: "m".to_owned(),
            started: 1000,
            watched,
            position: 7,
            at,
            watching: code.is_none(),
            code: code.map(str::to_owned),
        };
        serde_json::to_string(&page).unwrap()
    }

    #[test]
    fn what_played_is_closed_when_the_process_was_last_alive() {
        let file = std::env::temp_dir().join(format!("usher-diary-{}", std::process::id()));
        assert!(read(&file).unwrap().is_empty(), "no file");
        let lines = [
            page("plays", 2000, 500, None),
            page("ended", 9000, 4000, Some("stopped")),
            // A start that was still on its way when the end was written anew.
            page("ended", 1000, 0, None),
            "{\"alive\":8000}".to_owned(),
            page("late", 8500, 100, None),
            "{\"session\":\"cut o".to_owned(),
        ];
        fs::write(&file, lines.join("\n")).unwrap();
        let found = read(&file).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|record| {
                let play = record.play.clone().unwrap();
                (&*record.session, record.at, play.watched_ms, play.code.unwrap())
            })
            .collect();
        let lost = || "lease_lost".to_owned();
        let expected = [
            ("ended", 9000, 4000, "stopped".to_owned()),
            ("late", 8500, 100, lost()),
            ("plays", 8000, 6500, lost()),
        ];
        assert_eq!(told, expected);
        fs::remove_file(file).unwrap();
    }
}
