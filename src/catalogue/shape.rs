//! What the catalogue's routes take and answer, as the API document describes it.
//!
//! Owns: the descriptions; `item` reads and writes the members themselves, to name what is wrong with them.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::grant::Grant;

/// A content as editors write it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `item` reads it, to name what is wrong with it"
)]
pub(super) struct ContentBody {
    /// Its id, which players name; without it, or with an empty one, a random one. In a PUT it is the one of the path.
    #[schema(max_length = 256)]
    id: Option<String>,
    /// Its name for people.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// `livestream` or `vod`.
    #[schema(pattern = "^(livestream|vod)$")]
    r#type: String,
    /// Where it comes from: `https://..`, or `file:` and the id of a file.
    #[schema(max_length = 1024)]
    source: String,
    /// What it is about.
    #[schema(max_length = 4000)]
    description: Option<String>,
    /// One of `/v1/content/categories`.
    #[schema(max_length = 64)]
    category: Option<String>,
    /// One of `/v1/content/languages`.
    #[schema(max_length = 64)]
    language: Option<String>,
    /// What rules and filters know it by.
    #[schema(max_items = 20)]
    tags: Option<Vec<String>>,
    /// Who holds the rights.
    #[schema(max_length = 256)]
    label: Option<String>,
    /// Of a track, an episode or whatever it is; at most 4096 bytes.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// How long it is, in milliseconds.
    #[schema(minimum = 0, maximum = 316_224_000_000_i64)]
    duration_ms: Option<i64>,
    /// A picture: as `source`.
    #[schema(max_length = 1024)]
    thumbnail: Option<String>,
    /// Whoever has one of these roles sees it. Each is one of `/v1/content/roles`.
    #[schema(max_items = 20)]
    roles: Option<Vec<String>>,
    /// So does whoever has one of these plans. Without roles and plans everybody sees it.
    #[schema(max_items = 20)]
    plans: Option<Vec<String>>,
}

/// A content as it is shown.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: `item` writes it")]
pub(super) struct Content {
    /// Its id, which players name.
    id: String,
    /// Its name for people.
    #[schema(required = false)]
    name: String,
    /// `livestream` or `vod`.
    #[schema(required = false)]
    r#type: String,
    /// Where it comes from. Only editors see it.
    #[schema(required = false)]
    source: String,
    /// What it is about.
    description: Option<String>,
    /// One of `/v1/content/categories`.
    category: Option<String>,
    /// One of `/v1/content/languages`.
    language: Option<String>,
    /// What rules and filters know it by.
    #[schema(required = false)]
    tags: Vec<String>,
    /// Who holds the rights.
    label: Option<String>,
    /// Of a track, an episode or whatever it is.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// How long it is, in milliseconds.
    duration_ms: Option<i64>,
    /// A picture.
    thumbnail: Option<String>,
    /// Whoever has one of these roles sees it.
    #[schema(required = false)]
    roles: Vec<String>,
    /// So does whoever has one of these plans.
    #[schema(required = false)]
    plans: Vec<String>,
    /// When it was made.
    #[schema(required = false, format = DateTime)]
    created_at: String,
    /// When it was last written.
    #[schema(required = false, format = DateTime)]
    changed_at: String,
}

/// A place to play, and what plays.
#[derive(Serialize, ToSchema)]
pub(super) struct Play<'a> {
    /// The session, its secret and its ticket.
    #[serde(flatten)]
    pub(super) grant: Grant<'a>,
    /// Where the content comes from. A file of the installation is fetched with the ticket.
    pub(super) source: String,
    /// The watch socket that takes the session over, without the token.
    pub(super) watch_url: String,
}

/// An entry of a managed list.
#[derive(Serialize, ToSchema)]
pub(super) struct Term {
    /// What contents name.
    pub(super) id: String,
    /// What people read.
    pub(super) name: String,
}

/// The name of an entry.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: `Fields` reads it")]
pub(super) struct TermBody {
    /// What people read; left out: the id.
    #[schema(max_length = 256)]
    name: Option<String>,
}

/// What became of an import.
#[derive(Serialize, ToSchema)]
pub(super) struct Report {
    /// Records that were read.
    pub(super) read: u64,
    /// Those that are in the catalogue now.
    pub(super) taken: u64,
    /// Those that are not.
    pub(super) rejected: u64,
    /// The first thousand of these.
    pub(super) rejects: Vec<Reject>,
}

/// A record that was not taken.
#[derive(Serialize, ToSchema)]
pub(super) struct Reject {
    /// The line on which it began, from 1.
    pub(super) line: u64,
    /// The field that is wrong.
    #[schema(required)]
    pub(super) field: Option<&'static str>,
    /// Why, for people.
    pub(super) reason: String,
}
