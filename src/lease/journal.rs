//! The journal: what a store recorded, as others are told of it.
//!
//! Owns: what an entry says, and how readers take turns at a bucket's journal, which its twins in memory and in Redis
//! answer alike.
//! Does not: tell anybody (`webhooks` does), or record starts and ends (the steps of the store do, with the change itself).
//! Called by: `webhooks` and `ledger`, its two kinds of readers.

use std::time::Duration;

use async_trait::async_trait;

use crate::protocol::id::{AccountKey, OwnerId};

use super::model::Millis;
use super::store::StoreError;

/// How long a reader's lease on a bucket's journal lives without renewal.
pub const TURN_LEASE: Duration = Duration::from_secs(15);

/// A reader that nobody reads for any more, such as a receiver that was taken out of the settings, holds nothing back
/// after this time.
pub const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A session took a slot.
    Started,
    /// A session ended.
    Ended,
    /// A start was refused.
    Refused,
}

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What happened.
    pub happened: Happened,
    /// Its place in its stream: the same at every reading.
    pub id: String,
    /// When.
    pub at: Millis,
    /// Whose.
    pub account: AccountKey,
    /// The session; of a refusal, the one that did not come to be.
    pub session: String,
    /// The device.
    pub device: String,
    /// Its name for people.
    pub device_name: Option<String>,
    /// Its class.
    pub device_class: Option<String>,
    /// What was to play.
    pub content: String,
    /// The play; none for a refusal.
    pub play: Option<Play>,
    /// The refusal; none for a play.
    pub refusal: Option<Refusal>,
}

/// What is known of a play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Play {
    /// When it started.
    pub started_at: Millis,
    /// How long it was watched, in milliseconds.
    pub watched_ms: u64,
    /// Where it was, in milliseconds.
    pub position_ms: u64,
    /// The plan that its player's token named when it started.
    pub plan: Option<String>,
    /// How it ended; none when it started.
    pub code: Option<String>,
}

/// Why a start was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: String,
    /// Slots taken,
    pub used: u32,
    /// of so many.
    pub limit: u32,
}

/// Which entries of a bucket a reader is done with: the last one of each stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Of starts and ends.
    pub events: String,
    /// Of refusals.
    pub refusals: String,
}

/// What a reader could not be told for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The reader.
    pub receiver: String,
    /// The delivery's id.
    pub id: String,
    /// Why.
    pub reason: String,
    /// What it would have been told.
    pub body: String,
}

/// What a reader is done with.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its lease's.
    pub fence: u64,
    /// Up to here.
    pub cursor: Cursor,
    /// Some of it in vain.
    pub dead: Vec<DeadLetter>,
}

/// A reader asks for its turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Its name.
    pub receiver: &'a str,
    /// The process that reads for it.
    pub owner: OwnerId,
    /// Without a cursor: whether it begins with what is there, or with what comes.
    pub from_start: bool,
    /// Whether it reads starts and ends,
    pub events: bool,
    /// and refusals.
    pub refusals: bool,
    /// Entries of each that it takes; 0 only renews the lease.
    pub most: u32,
    /// What it is done with since its last turn. May be asked again when it was not answered.
    pub done: Option<&'a Done>,
    /// What went wrong last; none while all is well.
    pub error: Option<&'a str>,
    /// Whether it gives its lease up.
    pub leave: bool,
    /// Whether starts and ends are dropped that every reader is done with.
    pub trim: bool,
}

/// The answer to a turn.
#[derive(Clone, Debug)]
pub enum Turned {
    /// Another process reads for this receiver.
    Elsewhere {
        /// Dead letters so far.
        dead: u64,
    },
    /// The lease is the asker's.
    Yours(Batch),
}

/// What a reader is given.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The lease's fence; another one after it was held elsewhere.
    pub fence: u64,
    /// Where the reader stands.
    pub cursor: Cursor,
    /// What comes next: starts and ends in their order,
    pub events: Vec<Entry>,
    /// and refusals in theirs.
    pub refusals: Vec<Entry>,
    /// How long the oldest entry waits that is not done with.
    pub lag: Duration,
    /// Whether the journal lost entries, to its bound, that the reader had not seen.
    pub missed: bool,
    /// Dead letters so far.
    pub dead: u64,
    /// Starts and ends that the journal holds.
    pub length: u64,
}

/// An entry with its place; no record is one of a kind that this version does not know.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the stream.
    pub id: String,
    /// What it says.
    pub record: Option<Record>,
}

/// How a reader stands in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub receiver: String,
    /// How long the oldest entry waits that is not done with.
    pub lag: Duration,
    /// What went wrong last, and when; none while all is well.
    pub error: Option<(Millis, String)>,
    /// Dead letters so far.
    pub dead: u64,
}

/// The readers of a bucket and their dead letters, the newest first.
pub type Report = (Vec<Standing>, Vec<(Millis, DeadLetter)>);

/// The journal of a store, bucket by bucket. An account lies in one bucket, so that its entries come in their order.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Buckets of accounts.
    fn buckets(&self) -> u16;
    /// A reader's turn.
    async fn turn(&self, bucket: u16, turn: &Turn<'_>) -> Result<Turned, StoreError>;
    /// Adds refusals of accounts of this bucket; their ids are given here.
    async fn refuse(&self, bucket: u16, refusals: &[Record]) -> Result<(), StoreError>;
    /// How these readers stand, and at most so many dead letters.
    async fn report(&self, bucket: u16, receivers: &[String], most: u32) -> Result<Report, StoreError>;
}
