//! The content catalogue: what there is to play, who may see it, and where it comes from.
//!
//! Owns: contents and the managed lists that they name (categories, languages, roles), their SQL and their routes under
//! `/v1/content`; what a node remembers of contents, so that a start waits for no database.
//! Does not: give slots (`lease` does; a play asks `api` for one) or keep files (`media` does).
//! Called by: `app`, which hands its shelf to the gateway and its routes to the listener; `cli` for demo contents.
//! docs/catalogue.md describes it for its users.

mod contents;
pub mod demo;
mod export;
mod import;
mod item;
mod list;
mod play;
mod records;
mod sheet;
mod shelf;
mod store;
mod terms;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post, put};
use tokio::sync::Semaphore;

use crate::api::Api;
use crate::api::error::{ApiError, method_not_allowed};
use crate::auth::Scope;
use crate::config;

pub use shelf::Remembered;

/// Scopes that see everything and change it.
const EDITORS: [Scope; 3] = [Scope::Editor, Scope::Admin, Scope::Operator];

/// Scopes that see something.
const VIEWERS: [Scope; 4] = [Scope::Watch, Scope::Editor, Scope::Admin, Scope::Operator];

/// When to come again while as many transfers are under way as may be, in seconds.
const RETRY_TRANSFER: u16 = 10;

/// What the catalogue's routes work with.
pub struct Catalogue {
    api: Arc<Api>,
    /// What the node remembers; none: there is no database.
    shelf: Option<Arc<Remembered>>,
    settings: config::Catalogue,
    /// Imports and exports that may begin.
    transfers: Arc<Semaphore>,
}

impl Catalogue {
    /// The catalogue of a node.
    #[must_use]
    pub fn new(api: Arc<Api>, shelf: Option<Arc<Remembered>>, settings: config::Catalogue) -> Self {
        let transfers = Arc::new(Semaphore::new(settings.transfers));
        Self {
            api,
            shelf,
            settings,
            transfers,
        }
    }

    /// Its routes.
    #[must_use]
    pub fn routes(self) -> Router {
        Router::new()
            .route("/v1/content", get(list::list).post(contents::create))
            .route("/v1/content/import", post(import::import))
            .route("/v1/content/export", get(export::export))
            .route("/v1/content/categories", get(terms::categories))
            .route("/v1/content/languages", get(terms::languages))
            .route("/v1/content/roles", get(terms::roles))
            .route(
                "/v1/content/categories/{term}",
                put(terms::put_category).delete(terms::delete_category),
            )
            .route(
                "/v1/content/languages/{term}",
                put(terms::put_language).delete(terms::delete_language),
            )
            .route(
                "/v1/content/roles/{term}",
                put(terms::put_role).delete(terms::delete_role),
            )
            .route(
                "/v1/content/{content}",
                get(contents::show)
                    .put(contents::replace)
                    .delete(contents::delete),
            )
            .route(
                "/v1/content/{content}/play",
                get(play::play).post(play::play).head(method_not_allowed),
            )
            .with_state(Arc::new(self))
    }

    /// A content was changed: whoever asks next asks the database.
    fn changed(&self, tenant: &str, content: &str) {
        if let Some(shelf) = &self.shelf {
            shelf.forget(tenant, content);
        }
    }

    fn begin_transfer(&self) -> Result<tokio::sync::OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.transfers).try_acquire_owned().map_err(|_| {
            let message = "too many imports and exports are under way";
            ApiError::unavailable("busy", message, RETRY_TRANSFER)
        })
    }
}
