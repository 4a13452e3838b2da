//! What the routes of messages read and answer.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::protocol::message::ID_END;
use crate::protocol::server::rfc3339;

use super::store::{Message, Stored};
use super::{time, wire};

/// What a message says. Unknown members are dropped, but for those of `metadata`.
#[derive(ToSchema)]
#[schema(as = MessageContent)]
#[serde(tag = "type", rename_all = "lowercase")]
#[expect(
    dead_code,
    reason = "only described: `protocol::message` reads it, to name what is wrong with it"
)]
pub(super) enum ContentBody {
    /// Words, stored as given and never interpreted. `string` is taken for `text`.
    Text {
        /// The words.
        #[schema(min_length = 1, max_length = 2000)]
        text: String,
    },
    /// A picture.
    Image {
        /// `https://..`, `http://..`, or `/v1/media/` and the id of a file.
        #[schema(min_length = 1, max_length = 1000)]
        url: String,
        /// In pixels.
        #[schema(minimum = 1, maximum = 100_000)]
        width: u32,
        /// In pixels.
        #[schema(minimum = 1, maximum = 100_000)]
        height: u32,
    },
    /// A film.
    Video {
        /// As of a picture.
        #[schema(min_length = 1, max_length = 1000)]
        url: String,
        /// `youtube`, `vimeo`, `vevo` or `file`.
        #[schema(pattern = "^(youtube|vimeo|vevo|file)$")]
        source: String,
        /// Its length in milliseconds.
        #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
        duration_ms: Option<u64>,
        /// Kept as it is, at most 2 KiB.
        #[schema(value_type = Option<Object>)]
        metadata: Option<Map<String, Value>>,
    },
}

/// A message to be sent.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
pub(super) struct NewMessage {
    /// An account, or `room:` and a content that the account watches now.
    #[schema(min_length = 1, max_length = 256)]
    recipient: String,
    /// Who says it: nobody but the token's account.
    #[schema(min_length = 1, max_length = 256)]
    sender: Option<String>,
    /// What it says.
    content: ContentBody,
    /// The same again is the same message, whatever else is in it.
    #[schema(min_length = 1, max_length = 64)]
    client_id: Option<String>,
}

/// A message that is stored.
#[derive(Serialize, ToSchema)]
pub(super) struct SentBody {
    /// Its id.
    #[schema(minimum = 1)]
    id: u64,
    /// When it was stored.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    sent_at: SystemTime,
}

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub(super) struct MessageBody {
    /// Ascends in every conversation.
    #[schema(minimum = 1)]
    id: u64,
    /// Who said it.
    from: String,
    /// To whom.
    to: String,
    /// What it says.
    #[schema(value_type = ContentBody)]
    content: Box<RawValue>,
    /// When it was stored.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    sent_at: SystemTime,
}

/// A part of a conversation.
#[derive(Serialize, ToSchema)]
pub(super) struct PageBody {
    /// The messages, the oldest first.
    pub(super) items: Vec<MessageBody>,
    /// Where the next part begins, also when there is nothing there yet.
    pub(super) next_start: u64,
}

/// How far a conversation was read.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
pub(super) struct ReadBody {
    /// The other party.
    #[schema(min_length = 1, max_length = 256)]
    with: String,
    /// Up to this message.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    id: u64,
}

/// Why a message is reported.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
pub(super) struct ReasonBody {
    /// In the reporter's words.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// A report that is kept.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportedBody {
    /// Its id.
    pub(super) id: String,
}

/// Which part of a conversation.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    /// The other party: an account, or `room:` and a content that the account watches now.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    pub(super) with: Option<String>,
    /// The same as `with`.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    pub(super) recipient: Option<String>,
    /// Beside `recipient`: one of the two is the token's account.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    pub(super) sender: Option<String>,
    /// The first id, or the next one that exists.
    #[param(nullable = false, value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64, default = 1)]
    pub(super) start: Option<String>,
    /// The most messages.
    #[param(nullable = false, value_type = Option<u32>, minimum = 1, maximum = 100, default = 100)]
    pub(super) limit: Option<String>,
}

/// The other party of a conversation.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct With {
    /// The other party: an account, or `room:` and a content.
    #[param(min_length = 1, max_length = 256)]
    pub(super) with: String,
}

/// Which conversations.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Paged {
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, default = 1)]
    pub(super) page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    pub(super) limit: Option<u32>,
}

impl SentBody {
    pub(super) fn new(stored: &Stored) -> Self {
        Self {
            id: stored.id,
            sent_at: time(stored.sent_at),
        }
    }
}

impl PageBody {
    /// What was found from `start` on.
    pub(super) fn new(found: Vec<Message>, start: u64) -> Self {
        let next_start = found.last().map_or(start, |last| last.id + 1).min(ID_END - 1);
        let items = found.into_iter().filter_map(|message| {
            Some(MessageBody {
                id: message.id,
                content: wire::raw(&message.content)?.to_owned(),
                from: message.from,
                to: message.to,
                sent_at: time(message.sent_at),
            })
        });
        Self {
            items: items.collect(),
            next_start,
        }
    }
}
