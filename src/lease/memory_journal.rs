//! The journal of a single node: bounded lists in this process, which end with it.
//!
//! Owns: the last facts and refusals of each bucket, where each reader stands, and dead letters.
//! Does not: need leases: one process reads.
//! Called by: the memory store, which adds facts, and the readers: `webhooks` and `ledger`. What the ledger has not taken
//! when the process ends is in the diary (`diary`).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::protocol::id::AccountKey;

use super::account::Fact;
use super::diary::Diary;
use super::journal::{
    Batch, Cursor, DeadLetter, Entry, Happened, Journal, Play, Record, Report, Standing, Turn, Turned,
};
use super::memory::BUCKETS;
use super::model::{self, Millis};
use super::redis::journal::Kept;
use super::store::StoreError;

/// The journal of a memory store.
#[derive(Debug)]
pub struct MemoryJournal {
    buckets: Vec<Mutex<Shelf>>,
    /// Facts kept in a bucket.
    facts: usize,
    /// This reader's are kept beyond that, up to so many.
    patient: Option<(&'static str, usize)>,
    kept: Kept,
    /// Where facts are written down, too.
    diary: OnceLock<Diary>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Entries so far: the place of the next one.
    written: u64,
    events: VecDeque<(u64, Record)>,
    refusals: VecDeque<(u64, Record)>,
    readers: HashMap<String, Reader>,
    letters: VecDeque<(Millis, DeadLetter)>,
    /// The last place that each of the two lists lost to its bound.
    lost: (u64, u64),
}

#[derive(Debug, Default)]
struct Reader {
    /// The last places that are done with.
    events: u64,
    refusals: u64,
    error: Option<(Millis, String)>,
    dead: u64,
}

impl MemoryJournal {
    /// An empty journal that keeps so many facts in a bucket.
    #[must_use]
    pub fn new(facts: u32, kept: Kept) -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            facts: usize::try_from(facts).unwrap_or(usize::MAX),
            patient: None,
            kept,
            diary: OnceLock::new(),
        }
    }

    /// The same, with up to `most` facts of a bucket for a reader that may be long about them.
    #[must_use]
    pub fn patient_with(self, reader: &'static str, most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            patient: Some((reader, most)),
            ..self
        }
    }

    /// From now on facts are written down, too. Once only.
    pub fn tell(&self, diary: Diary) {
        let _ = self.diary.set(diary);
    }

    /// Ends that this reader is not done with.
    pub(super) fn ends_before(&self, reader: &str) -> Vec<Record> {
        let mut found = Vec::new();
        for bucket in 0..BUCKETS {
            let shelf = self.lock(bucket);
            let place = shelf.readers.get(reader).map_or(0, |reader| reader.events);
            let ends = after(&shelf.events, place).filter(|(_, record)| record.happened == Happened::Ended);
            found.extend(ends.map(|(_, record)| record.clone()));
        }
        found
    }

    /// Adds what a step of the rules recorded, in the order of the steps.
    pub(super) fn add(&self, bucket: u16, account: &AccountKey, facts: &[Fact]) {
        if facts.is_empty() {
            return;
        }
        let mut shelf = self.lock(bucket);
        for fact in facts {
            let Shelf {
                written,
                events,
                readers,
                lost,
                ..
            } = &mut *shelf;
            let record = record(account, fact);
            if let Some(diary) = self.diary.get() {
                diary.note(account, fact);
            }
            let most = self.patient.map_or(self.facts, |(reader, most)| {
                let done = readers.get(reader).map_or(0, |reader| reader.events);
                let waits = events.front().is_some_and(|(place, _)| *place > done);
                if waits { most.max(self.facts) } else { self.facts }
            });
            push(events, written, &mut lost.0, most, record);
        }
    }

    fn lock(&self, bucket: u16) -> MutexGuard<'_, Shelf> {
        let shelf = &self.buckets[usize::from(bucket % BUCKETS)];
        shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(list: &mut VecDeque<(u64, Record)>, written: &mut u64, lost: &mut u64, most: usize, record: Record) {
    while list.len() >= most {
        let Some((place, _)) = list.pop_front() else { break };
        *lost = place;
    }
    *written += 1;
    let id = format!("{}-{written}", record.at);
    list.push_back((*written, Record { id, ..record }));
}

/// What a fact says.
pub(super) fn record(account: &AccountKey, fact: &Fact) -> Record {
    let (happened, entry, at, code): (_, &model::Entry, _, _) = match fact {
        Fact::Started(entry) => (Happened::Started, entry, entry.started_at, None),
        Fact::Ended { entry, code, at } => (Happened::Ended, entry, *at, Some(code.name().to_owned())),
    };
    Record {
        happened,
        id: String::new(),
        at,
        account: account.clone(),
        session: entry.session.to_string(),
        device: entry.device.id.to_string(),
        device_name: entry.device.name.as_ref().map(ToString::to_string),
        device_class: entry.device.class.as_ref().map(ToString::to_string),
        content: entry.content.to_string(),
        play: Some(Play {
            started_at: entry.started_at,
            watched_ms: entry.progress.watched_ms,
            position_ms: entry.progress.position_ms,
            plan: entry.device.plan.as_deref().map(str::to_owned),
            code,
        }),
        refusal: None,
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

fn age(oldest: Option<&(u64, Record)>) -> Duration {
    oldest.map_or(Duration::ZERO, |(_, record)| {
        Duration::from_millis(now().saturating_sub(record.at))
    })
}

/// What comes after this place.
fn after(list: &VecDeque<(u64, Record)>, place: u64) -> impl Iterator<Item = &(u64, Record)> {
    list.iter().skip(list.partition_point(|(at, _)| *at <= place))
}

fn page(list: &VecDeque<(u64, Record)>, place: u64, most: u32) -> Vec<Entry> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let entries = after(list, place).take(most).map(|(place, record)| Entry {
        id: place.to_string(),
        record: Some(record.clone()),
    });
    entries.collect()
}

#[async_trait]
impl Journal for MemoryJournal {
    fn buckets(&self) -> u16 {
        BUCKETS
    }

    async fn turn(&self, bucket: u16, turn: &Turn<'_>) -> Result<Turned, StoreError> {
        let mut shelf = self.lock(bucket);
        let Shelf {
            events,
            refusals,
            readers,
            letters,
            lost,
            ..
        } = &mut *shelf;
        // A reader of this process is there before anything happens: it begins with the first entry.
        let reader = readers.entry(turn.receiver.to_owned()).or_default();
        if let Some(done) = turn.done {
            let place = |text: &str| text.parse().unwrap_or_default();
            (reader.events, reader.refusals) = (place(&done.cursor.events), place(&done.cursor.refusals));
            for letter in &done.dead {
                if letters.len() >= usize::try_from(self.kept.dead_letters).unwrap_or(usize::MAX) {
                    letters.pop_front();
                }
                letters.push_back((now(), letter.clone()));
                reader.dead += 1;
            }
        }
        if turn.trim {
            let done = readers.values().map(|reader| reader.events).min().unwrap_or(0);
            let done = events.partition_point(|(place, _)| *place <= done);
            events.drain(..done);
        }
        let reader = readers.entry(turn.receiver.to_owned()).or_default();
        reader.error = turn.error.map(|error| (now(), error.to_owned()));
        let oldest = |reads: bool, list, place| {
            let next = after(list, place).next();
            age(next.filter(|_| reads))
        };
        let lag =
            oldest(turn.events, events, reader.events).max(oldest(turn.refusals, refusals, reader.refusals));
        let reads = |reads: bool, list, place| {
            if reads {
                page(list, place, turn.most)
            } else {
                Vec::new()
            }
        };
        Ok(Turned::Yours(Batch {
            fence: 0,
            cursor: Cursor {
                events: reader.events.to_string(),
                refusals: reader.refusals.to_string(),
            },
            lag,
            missed: turn.events && lost.0 > reader.events || turn.refusals && lost.1 > reader.refusals,
            dead: reader.dead,
            length: u64::try_from(events.len()).unwrap_or(u64::MAX),
            events: reads(turn.events, events, reader.events),
            refusals: reads(turn.refusals, refusals, reader.refusals),
        }))
    }

    async fn refuse(&self, bucket: u16, added: &[Record]) -> Result<(), StoreError> {
        let most = usize::try_from(self.kept.refusals).unwrap_or(usize::MAX);
        let mut shelf = self.lock(bucket);
        for record in added {
            let Shelf {
                written,
                refusals,
                lost,
                ..
            } = &mut *shelf;
            push(refusals, written, &mut lost.1, most, record.clone());
        }
        Ok(())
    }

    async fn report(&self, bucket: u16, receivers: &[String], most: u32) -> Result<Report, StoreError> {
        let shelf = self.lock(bucket);
        let nobody = Reader::default();
        let standings = receivers.iter().map(|name| {
            let reader = shelf.readers.get(name).unwrap_or(&nobody);
            let lag = age(after(&shelf.events, reader.events).next());
            Standing {
                receiver: name.clone(),
                lag: lag.max(age(after(&shelf.refusals, reader.refusals).next())),
                error: reader.error.clone(),
                dead: reader.dead,
            }
        });
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let letters = shelf.letters.iter().rev().take(most).cloned();
        Ok((standings.collect(), letters.collect()))
    }
}
