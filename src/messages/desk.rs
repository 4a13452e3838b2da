//! What sockets ask, answered one after the other for each account.
//!
//! A socket's task only puts its question into a lane: no heartbeat waits for the database. A lane is one queue and one
//! task; an account has always the same, so that what it says is stored in the order in which it was said.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::db::DbError;
use crate::gateway::exchange::{Busy, Question, Speaker, Word};
use crate::protocol::message::{Draft, ROOM, room};
use crate::protocol::server::{ErrorCode, MessageText, ServerMessage};

use super::delivery::frame;
use super::store::{Message, SendError};
use super::{Messages, SayError, text_of, time};

/// Questions answered at once; each holds a connection to the database while it is.
const LANES: usize = 8;

/// Questions that wait in a lane; those beyond are refused.
const WAITING: usize = 128;

/// Who waited for longer than this hears that it was not to be had, without another look.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages of a room told to who enters or asks,
const HISTORY: u32 = 50;

/// and their bytes in one frame; the older ones are left out.
const HISTORY_BYTES: usize = 64 * 1024;

/// A question, and since when it waits.
pub(super) struct Waiting {
    since: Instant,
    what: What,
}

enum What {
    /// A socket waits for the answer.
    Asked(Question),
    /// Who enters a room is told what was said last.
    Entered(Speaker),
}

/// The lanes' ends.
pub(super) fn lanes() -> (Vec<mpsc::Sender<Waiting>>, Vec<mpsc::Receiver<Waiting>>) {
    (0..LANES).map(|_| mpsc::channel(WAITING)).unzip()
}

/// What a question that cannot be answered is told.
type Refusal = (ErrorCode, &'static str);

impl Messages {
    /// Puts a question into its lane.
    pub(super) fn queue(&self, question: Question) -> Result<(), Busy> {
        let lane = self.lane(&question.by);
        let waiting = Waiting {
            since: Instant::now(),
            what: What::Asked(question),
        };
        lane.try_send(waiting).map_err(|_| Busy)
    }

    /// Tells what was said last in its room to who enters, if there is time for it.
    pub(super) fn tell_room(&self, who: &Speaker) {
        let waiting = Waiting {
            since: Instant::now(),
            what: What::Entered(who.clone()),
        };
        let _ = self.lane(who).try_send(waiting);
    }

    fn lane(&self, who: &Speaker) -> &mpsc::Sender<Waiting> {
        let mut hasher = DefaultHasher::new();
        who.account.hash(&mut hasher);
        let count = self.lanes.len() as u64;
        &self.lanes[usize::try_from(hasher.finish() % count).unwrap_or_default()]
    }

    /// Answers the questions of a lane, for as long as the node runs.
    pub(super) async fn answer(self: Arc<Self>, mut lane: mpsc::Receiver<Waiting>) {
        while let Some(waiting) = lane.recv().await {
            let late = waiting.since.elapsed() > PATIENCE;
            match waiting.what {
                What::Entered(_) if late => {}
                What::Entered(who) => self.show_room(&who).await,
                What::Asked(question) => {
                    let refused = if late {
                        Err((ErrorCode::Unavailable, "not in time; try again"))
                    } else {
                        self.handle(&question).await
                    };
                    if let Err((code, detail)) = refused {
                        question.answer(&ServerMessage::Error { code, detail });
                    }
                }
            }
        }
    }

    async fn handle(&self, question: &Question) -> Result<(), Refusal> {
        match &question.word {
            Word::Say(draft) => self.say_for(question, draft).await,
            Word::Read { with, id } => self.read_for(question, with, *id).await,
            Word::Room => self.show_room_for(question).await,
        }
    }

    async fn say_for(&self, question: &Question, draft: &Draft) -> Result<(), Refusal> {
        if let Some(content) = room(&draft.to)
            && question.by.content.as_deref() != Some(content)
        {
            return Err((
                ErrorCode::RoomForbidden,
                "only those who watch a content are in its room",
            ));
        }
        let stored = self.say(&question.by.account, draft).await.map_err(refusal)?;
        question.answer(&ServerMessage::Sent {
            message: stored.id,
            to: &draft.to,
            sent_at: time(stored.sent_at),
            client_id: draft.client_id.as_deref(),
        });
        Ok(())
    }

    async fn read_for(&self, question: &Question, with: &str, id: u64) -> Result<(), Refusal> {
        let account = &question.by.account;
        self.check_pace(account).map_err(refusal)?;
        let read = self.store.mark_read(&account.tenant, &account.account, with, id);
        let read = read.await.map_err(|error| refusal(error.into()))?;
        let read = read.ok_or((ErrorCode::NotFound, "there is no such conversation"))?;
        question.answer(&ServerMessage::Read {
            with,
            message: read.read_id,
            unread: read.unread,
        });
        Ok(())
    }

    async fn show_room_for(&self, question: &Question) -> Result<(), Refusal> {
        let who = &question.by;
        self.check_pace(&who.account).map_err(refusal)?;
        let content = who.content.as_deref().unwrap_or_default();
        let (room, tenant) = (format!("{ROOM}{content}"), &who.account.tenant);
        let (found, present) = tokio::join!(
            self.store.newest(tenant, &room, HISTORY),
            self.delivery.present(tenant, content)
        );
        let found = found.map_err(|error| refusal(error.into()))?;
        question.answer(&ServerMessage::Room {
            room: &room,
            present,
            messages: newest_that_fit(&found),
        });
        Ok(())
    }

    async fn show_room(&self, who: &Speaker) {
        let room = format!("{ROOM}{}", who.content.as_deref().unwrap_or_default());
        // Who cannot be told now may ask.
        let Ok(found) = self.store.newest(&who.account.tenant, &room, HISTORY).await else {
            return;
        };
        for text in found.iter().filter_map(frame) {
            who.seat.overhear(text);
        }
    }
}

fn newest_that_fit(found: &[Message]) -> Vec<MessageText<'_>> {
    let mut bytes = 0;
    let newest = found.iter().rev().take_while(|message| {
        bytes += message.content.len();
        bytes <= HISTORY_BYTES
    });
    let mut texts: Vec<_> = newest.filter_map(text_of).collect();
    texts.reverse();
    texts
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
fn refusal(error: SayError) -> Refusal {
    match error {
        SayError::TooFast(_) => (ErrorCode::RateLimited, "messages come too fast"),
        SayError::Send(SendError::Unknown) => (ErrorCode::NotFound, "there is no such account"),
        SayError::Send(SendError::Blocked) => {
            (ErrorCode::Blocked, "the account wants no messages of this one")
        }
        SayError::Send(SendError::Db(DbError::Unfit)) => (ErrorCode::BadMessage, "a value cannot be stored"),
        SayError::Send(SendError::Db(_)) => (
            ErrorCode::Unavailable,
            "the message cannot be stored just now; try again",
        ),
    }
}
