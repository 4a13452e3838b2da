//! What one socket has yet to be told of its account's messages and its room's. Pure.
//!
//! Direct messages are numbered, and each names the one before it: an ear takes only the one that follows what it has
//! heard, so that nothing is heard twice or out of order, and a gap is seen. Whatever does not fit is not lost: the ear
//! stays where it was, and is read to out of the database later. Room messages have no such promise and go first.
//!
//! Over 400 lines: half of it are its tests.

use std::collections::VecDeque;

use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Direct messages that may wait for a socket, and their bytes.
const MOST_DIRECT: usize = 64;
const MOST_BYTES: usize = 64 * 1024;

/// Room messages that may wait; beyond it the oldest are lost.
const MOST_ROOM: usize = 64;

/// Answers that a socket may wait for at once.
const MOST_ANSWERS: u8 = 16;

/// The ear of one socket. It costs an idle socket its few words and no buffer.
#[derive(Debug, Default)]
pub(super) struct Ear {
    cursor: Cursor,
    reading: Reading,
    /// Whether the queue was full when there was more to say.
    late: bool,
    /// Whether messages up to the cursor may have been said after it began to listen, and their word is still to come.
    unsure: bool,
    queue: Option<Box<Queue>>,
}

/// How far an ear has heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cursor {
    /// It does not listen.
    #[default]
    Deaf,
    /// It listens from now on; nobody knows yet what the newest message was.
    Fresh,
    /// It wants what came after this id, and has heard nothing yet.
    Since(u64),
    /// It has heard everything up to this id.
    At(u64),
}

/// Whether somebody reads to it out of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    No,
    Yes,
    /// And is to begin again afterwards.
    Again,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(Sort, Utf8Bytes)>,
    /// Of direct messages.
    bytes: usize,
    direct: usize,
    room: usize,
    answers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Direct,
    Room,
    Answer,
}

/// A message to an account, and its place among them.
#[derive(Clone, Debug)]
pub struct Direct {
    /// Its id.
    pub id: u64,
    /// The id of the one before it; 0: there is none.
    pub before: u64,
    /// The frame.
    pub text: Utf8Bytes,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It waits for the socket.
    Taken,
    /// It is known, or is read out of the database anyhow.
    Known,
    /// Something before it is missing.
    Gap,
    /// There is no room for it now.
    Full,
}

/// What a socket does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Sends this.
    Frame(Utf8Bytes),
    /// Has somebody read on.
    ReadOn,
    /// Waits.
    Nothing,
}

impl Ear {
    /// Listens from now on, to what came after `since` first.
    pub(super) fn listen(&mut self, since: Option<u64>) {
        self.cursor = since.map_or(Cursor::Fresh, Cursor::Since);
        self.unsure = false;
    }

    /// Listens no more, and forgets what waits.
    pub(super) fn hush(&mut self) {
        *self = Self::default();
    }

    pub(super) fn listens(&self) -> bool {
        self.cursor != Cursor::Deaf
    }

    /// The newest message to the account has this id; whether something is missing here.
    pub(super) fn compare(&mut self, newest: u64) -> bool {
        match self.cursor {
            Cursor::Deaf => false,
            Cursor::Fresh => {
                self.cursor = Cursor::At(newest);
                self.unsure = true;
                false
            }
            // Nobody has heard what was never said.
            Cursor::Since(since) => {
                self.cursor = Cursor::At(since.min(newest));
                since < newest
            }
            Cursor::At(heard) => heard < newest && !self.late,
        }
    }

    /// A message that was just said.
    pub(super) fn offer(&mut self, message: &Direct) -> Heard {
        match self.cursor {
            Cursor::Deaf | Cursor::Since(_) => Heard::Known,
            Cursor::At(heard) if message.id <= heard && self.unsure => {
                // A word is said once; the newest of them is the last that was under way.
                self.unsure = message.id < heard;
                self.take_direct(heard, &message.text)
            }
            Cursor::At(heard) if message.id <= heard || self.late => Heard::Known,
            Cursor::At(heard) if message.before > heard => Heard::Gap,
            Cursor::Fresh | Cursor::At(_) => self.take_direct(message.id, &message.text),
        }
    }

    /// The next message out of the database.
    pub(super) fn read(&mut self, id: u64, text: &Utf8Bytes) -> Heard {
        match self.cursor {
            Cursor::At(heard) if id > heard => self.take_direct(id, text),
            _ => Heard::Known,
        }
    }

    /// All up to this id was read.
    pub(super) fn pass(&mut self, newest: u64) {
        if let Cursor::At(heard) = &mut self.cursor
            && !self.late
        {
            *heard = newest.max(*heard);
        }
    }

    /// Where reading to it begins: after this id. None: somebody does so already, or it does not listen.
    pub(super) fn begin_reading(&mut self) -> Option<u64> {
        let Cursor::At(heard) = self.cursor else {
            return None;
        };
        if self.reading != Reading::No {
            self.reading = Reading::Again;
            return None;
        }
        self.reading = Reading::Yes;
        self.unsure = false;
        Some(heard)
    }

    /// Reading is over; whether it is to begin again.
    pub(super) fn end_reading(&mut self) -> bool {
        let again = self.reading == Reading::Again;
        self.reading = Reading::No;
        again && !self.late
    }

    /// A message in the room; how many older ones it pushed out.
    pub(super) fn overhear(&mut self, text: Utf8Bytes) -> usize {
        if !self.listens() {
            return 0;
        }
        let queue = self.queue.get_or_insert_default();
        queue.frames.push_back((Sort::Room, text));
        queue.room += 1;
        if queue.room <= MOST_ROOM {
            return 0;
        }
        let oldest = queue.frames.iter().position(|(sort, _)| *sort == Sort::Room);
        if let Some(oldest) = oldest {
            queue.frames.remove(oldest);
            queue.room -= 1;
        }
        1
    }

    /// Keeps room for an answer; false: too many are awaited already.
    pub(super) fn await_answer(&mut self) -> bool {
        let queue = self.queue.get_or_insert_default();
        let may = queue.answers < MOST_ANSWERS;
        queue.answers += u8::from(may);
        may
    }

    /// The answer; none: there will be none.
    pub(super) fn answer(&mut self, text: Option<Utf8Bytes>) {
        let Some(queue) = &mut self.queue else { return };
        match text {
            Some(text) => queue.frames.push_back((Sort::Answer, text)),
            None => queue.answers = queue.answers.saturating_sub(1),
        }
    }

    pub(super) fn next(&mut self) -> Next {
        if let Some(queue) = &mut self.queue {
            if let Some((sort, text)) = queue.frames.pop_front() {
                match sort {
                    Sort::Direct => {
                        queue.direct -= 1;
                        queue.bytes -= text.len();
                    }
                    Sort::Room => queue.room -= 1,
                    Sort::Answer => queue.answers = queue.answers.saturating_sub(1),
                }
                return Next::Frame(text);
            }
            if queue.answers == 0 {
                self.queue = None;
            }
        }
        if std::mem::take(&mut self.late) {
            return Next::ReadOn;
        }
        Next::Nothing
    }

    fn take_direct(&mut self, id: u64, text: &Utf8Bytes) -> Heard {
        let queue = self.queue.get_or_insert_default();
        if queue.direct >= MOST_DIRECT || (queue.direct > 0 && queue.bytes + text.len() > MOST_BYTES) {
            self.late = true;
            return Heard::Full;
        }
        queue.frames.push_back((Sort::Direct, text.clone()));
        queue.direct += 1;
        queue.bytes += text.len();
        if self.cursor != Cursor::At(id) {
            self.cursor = Cursor::At(id);
            self.unsure = false;
        }
        Heard::Taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn direct(id: u64, before: u64) -> Direct {
        let text = id.to_string().into();
        Direct { id, before, text }
    }

    fn drain(ear: &mut Ear) -> Vec<String> {
        let mut all = Vec::new();
        while let Next::Frame(text) = ear.next() {
            all.push(text.to_string());
        }
        all
    }

    #[test]
    fn a_gap_is_seen_and_nothing_is_heard_twice() {
        let mut ear = Ear::default();
        assert_eq!(ear.offer(&direct(1, 0)), Heard::Known, "deaf");
        ear.listen(None);
        assert!(!ear.compare(4), "what was before is not wanted");
        assert_eq!(ear.offer(&direct(5, 4)), Heard::Taken);
        assert_eq!(ear.offer(&direct(5, 4)), Heard::Known);
        assert_eq!(ear.offer(&direct(9, 7)), Heard::Gap);
        assert!(ear.compare(9));
        assert_eq!(ear.begin_reading(), Some(5));
        assert_eq!(ear.begin_reading(), None, "one reader");
        assert_eq!(ear.read(7, &"7".into()), Heard::Taken);
        assert_eq!(ear.offer(&direct(9, 7)), Heard::Taken, "live again");
        assert_eq!(ear.read(9, &"9".into()), Heard::Known);
        assert!(ear.end_reading(), "asked for meanwhile");
        assert!(!ear.end_reading());
        assert_eq!(drain(&mut ear), ["5", "7", "9"]);
        assert!(ear.queue.is_none(), "an idle ear keeps no buffer");
    }

    /// The newest was asked for after the socket had opened: what was said between is not old.
    #[test]
    fn what_was_said_while_it_opened_is_heard() {
        let mut ear = Ear::default();
        ear.listen(None);
        assert!(!ear.compare(3));
        assert_eq!(ear.offer(&direct(2, 0)), Heard::Taken);
        assert_eq!(ear.offer(&direct(3, 2)), Heard::Taken);
        assert_eq!(ear.offer(&direct(3, 2)), Heard::Known);
        assert_eq!(ear.offer(&direct(4, 3)), Heard::Taken);
        assert_eq!(ear.offer(&direct(2, 0)), Heard::Known);
        assert_eq!(drain(&mut ear), ["2", "3", "4"]);
    }

    #[test]
    fn since_is_read_first_and_never_beyond_the_newest() {
        let mut ear = Ear::default();
        ear.listen(Some(1 << 60));
        assert!(!ear.compare(7));
        assert_eq!(ear.offer(&direct(8, 7)), Heard::Taken);
        ear.listen(Some(3));
        assert_eq!(
            ear.offer(&direct(9, 8)),
            Heard::Known,
            "it comes out of the database"
        );
        assert!(ear.compare(9));
        assert_eq!(ear.begin_reading(), Some(3));
    }

    #[test]
    fn a_full_ear_loses_room_messages_and_reads_the_others_later() {
        let mut ear = Ear::default();
        ear.listen(Some(0));
        assert!(ear.compare(1_000));
        ear.begin_reading().unwrap();
        let lost: usize = (0..100).map(|n| ear.overhear(format!("r{n}").into())).sum();
        assert_eq!(lost, 100 - MOST_ROOM);
        let mut id = 1;
        while ear.read(id, &id.to_string().into()) == Heard::Taken {
            id += 1;
        }
        assert_eq!(id, MOST_DIRECT as u64 + 1);
        assert!(!ear.end_reading());
        assert_eq!(ear.offer(&direct(1_001, 1_000)), Heard::Known, "while it is late");
        assert!(!ear.compare(1_001), "nor does a look at the newest help");
        let heard = drain(&mut ear);
        assert_eq!(heard.len(), MOST_ROOM + MOST_DIRECT);
        assert_eq!(heard[0], "r36");
        // `drain` has taken the word to read on.
        assert_eq!(ear.begin_reading(), Some(MOST_DIRECT as u64));
    }

    #[test]
    fn answers_are_bounded_and_give_their_place_back() {
        let mut ear = Ear::default();
        for _ in 0..MOST_ANSWERS {
            assert!(ear.await_answer());
        }
        assert!(!ear.await_answer());
        ear.answer(None);
        assert!(ear.await_answer());
        for _ in 0..MOST_ANSWERS {
            ear.answer(Some("x".into()));
        }
        assert_eq!(drain(&mut ear).len(), usize::from(MOST_ANSWERS));
        assert!(ear.queue.is_none() && ear.await_answer());
    }

    proptest! {
        /// Words get lost, come twice and out of order; reading mends it: all are heard once, in order.
        #[test]
        fn everything_is_heard_once_in_order(words in proptest::collection::vec((0..40_usize, 0..4_u8), 0..120)) {
            let ids: Vec<u64> = (1..=40).map(|n| n * 3).collect();
            let before = |at: usize| if at == 0 { 0 } else { ids[at - 1] };
            let mut ear = Ear::default();
            ear.listen(Some(0));
            let (mut said, mut heard) = (0, Vec::new());
            let read = |ear: &mut Ear, said: usize| {
                while let Some(after) = ear.begin_reading() {
                    for id in ids[..said].iter().filter(|id| **id > after) {
                        if ear.read(*id, &id.to_string().into()) == Heard::Full { break; }
                    }
                    if !ear.end_reading() { break; }
                }
            };
            for (at, what) in words {
                // A word is of something that was said.
                said = said.max(at + 1);
                match what {
                    0 => {}
                    1 => { heard.extend(drain(&mut ear)); }
                    _ => if ear.offer(&direct(ids[at], before(at))) == Heard::Gap { read(&mut ear, said); }
                }
            }
            for _ in 0..3 {
                let newest = if said == 0 { 0 } else { ids[said - 1] };
                if ear.compare(newest) { read(&mut ear, said); }
                heard.extend(drain(&mut ear));
            }
            let expected: Vec<String> = ids[..said].iter().map(u64::to_string).collect();
            prop_assert_eq!(heard, expected);
        }
    }
}
