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
mod files;
mod import;
mod item;
mod list;
mod play;
mod records;
mod shape;
mod sheet;
mod shelf;
mod store;
mod terms;

use std::sync::Arc;

use tokio::sync::Semaphore;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

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
    pub fn routes(self) -> OpenApiRouter {
        OpenApiRouter::default()
            .routes(routes!(list::list, contents::create))
            .routes(routes!(import::import))
            .routes(routes!(export::export))
            .routes(routes!(terms::categories))
            .routes(routes!(terms::put_category, terms::delete_category))
            .routes(routes!(terms::languages))
            .routes(routes!(terms::put_language, terms::delete_language))
            .routes(routes!(terms::roles))
            .routes(routes!(terms::put_role, terms::delete_role))
            .routes(routes!(contents::show, contents::replace, contents::delete))
            // A play takes a slot: whoever only wants to know the headers gets none.
            .routes(routes!(play::play, play::play_by_post).map(|play| play.head(method_not_allowed)))
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
