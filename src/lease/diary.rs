//! The diary of a single node: what plays and what ended, on disk, so that plays survive the process.
//!
//! Owns: the file, its writer's thread, and reading what the process before left. Does not: keep slots (a restart ends
//! every connection, and so frees them), or write to SQL (`ledger` does, and says when it has).
//! Called by: `app`, and the memory store's journal, which notes facts without waiting.
//!
//! The file has one JSON text a line: a page for each start and end, and `{"alive":ms}`, which says that whatever was
//! playing then still did. Once a minute it is written anew, with what plays and what no row has yet. A page of an end
//! stands above one of the same session's start, whatever their order.

mod page;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::protocol::id::AccountKey;

use super::account::Fact;
use super::journal::Record;
use super::memory::Memory;
use super::memory_journal::{MemoryJournal, record};

use page::{Line, Page, read};

/// How often the file is written anew: sessions are audited, and their progress with them, as often.
const ANEW: Duration = Duration::from_secs(60);

/// Facts that wait for the writer; what comes when it is that far behind is in the next writing anew.
const QUEUE: usize = 65_536;

/// Takes facts for the writer.
#[derive(Debug)]
pub struct Diary {
    words: SyncSender<Word>,
}

#[derive(Debug)]
enum Word {
    Page(Box<Page>),
    Close,
}

/// The writer of a diary.
#[derive(Debug)]
pub struct Writer {
    words: SyncSender<Word>,
    thread: Mutex<Option<JoinHandle<()>>>,
    left: Arc<Mutex<Vec<Record>>>,
}

impl Diary {
    /// Notes a fact. Never waits.
    pub(super) fn note(&self, account: &AccountKey, fact: &Fact) {
        let page = match fact {
            Fact::Started(entry) => Page::of(account, entry),
            Fact::Ended { .. } => Page::of_end(&record(account, fact)),
        };
        let _ = self.words.try_send(Word::Page(Box::new(page)));
    }
}

impl Writer {
    /// Reads what the process before left in `file`, and begins to write: every `pace` that the process lives, and each
    /// fact that `journal` gets. `reader` is who takes ends from the journal for good.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn start(
        file: PathBuf,
        pace: Duration,
        store: Arc<Memory>,
        journal: Arc<MemoryJournal>,
        reader: &'static str,
    ) -> io::Result<Self> {
        let left = Arc::new(Mutex::new(read(&file)?));
        let (words, heard) = sync_channel(QUEUE);
        journal.tell(Diary { words: words.clone() });
        let mut book = Book {
            file,
            pace,
            store,
            journal,
            reader,
            left: Arc::clone(&left),
            out: None,
        };
        book.write_anew()?;
        let thread = std::thread::Builder::new()
            .name("diary".to_owned())
            .spawn(move || book.run(&heard))?;
        Ok(Self {
            words,
            thread: Mutex::new(Some(thread)),
            left,
        })
    }

    /// Plays of the process before that are in no row yet, closed with their last checkpoint.
    #[must_use]
    pub fn left(&self) -> Vec<Record> {
        lock(&self.left).clone()
    }

    /// These are rows now.
    pub fn settle(&self) {
        lock(&self.left).clear();
    }

    /// Writes a last time. Blocks for as long as the disk takes.
    pub fn close(&self) {
        let _ = self.words.send(Word::Close);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

/// A node that did not come to be, or was dropped, leaves no thread behind.
impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.words.try_send(Word::Close);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Book {
    file: PathBuf,
    pace: Duration,
    store: Arc<Memory>,
    journal: Arc<MemoryJournal>,
    reader: &'static str,
    left: Arc<Mutex<Vec<Record>>>,
    out: Option<BufWriter<File>>,
}

impl Book {
    fn run(mut self, heard: &Receiver<Word>) {
        let (mut alive_at, mut anew_at) = (Instant::now() + self.pace, Instant::now() + ANEW);
        let mut failing = false;
        loop {
            let wait = alive_at.saturating_duration_since(Instant::now());
            let mut closing = false;
            let mut done = match heard.recv_timeout(wait) {
                Ok(Word::Page(page)) => self.write(&Line::Page(page)),
                Ok(Word::Close) | Err(RecvTimeoutError::Disconnected) => {
                    closing = true;
                    Ok(())
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
            };
            // Whatever else is there goes out with the same writing.
            while let Ok(word) = heard.try_recv() {
                match word {
                    Word::Page(page) => done = done.and(self.write(&Line::Page(page))),
                    Word::Close => closing = true,
                }
            }
            done = done.and(self.out.as_mut().map_or(Ok(()), BufWriter::flush));
            let now = Instant::now();
            if now >= anew_at || closing || done.is_err() {
                anew_at = now + ANEW;
                done = done.and(self.write_anew());
            }
            if now >= alive_at || closing {
                alive_at = now + self.pace;
                done = done.and(self.write_alive());
            }
            if let (Err(error), false) = (&done, failing) {
                tracing::error!(%error, file = %self.file.display(), "plays are not on disk: a crash would lose them");
            }
            failing = done.is_err();
            if closing {
                return;
            }
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        // A file that failed is written anew in its time.
        let Some(out) = &mut self.out else { return Ok(()) };
        serde_json::to_writer(&mut *out, line)?;
        out.write_all(b"\n")
    }

    fn write_alive(&mut self) -> io::Result<()> {
        let alive = self.store.time();
        self.write(&Line::Alive { alive })?;
        let Some(out) = &mut self.out else { return Ok(()) };
        out.flush()?;
        out.get_ref().sync_data()
    }

    /// Writes what is known into another file, which takes the place of this one.
    fn write_anew(&mut self) -> io::Result<()> {
        self.out = None;
        let partial = self.file.with_extension("part");
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&partial)?;
        self.out = Some(BufWriter::new(file));
        let done = self.write_all();
        if done.is_err() {
            self.out = None;
        }
        done?;
        fs::rename(&partial, &self.file)
    }

    fn write_all(&mut self) -> io::Result<()> {
        // Plays first: one that ends meanwhile is among the ends as well, or in the queue.
        for (account, entry) in self.store.plays() {
            self.write(&Line::Page(Box::new(Page::of(&account, &entry))))?;
        }
        let ends = self.journal.ends_before(self.reader);
        let left = lock(&self.left).clone();
        for record in ends.iter().chain(&left) {
            self.write(&Line::Page(Box::new(Page::of_end(record))))?;
        }
        self.write_alive()
    }
}
