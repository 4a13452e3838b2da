//! Files: upload, delivery to those who hold a lease, and who used what.
//!
//! Owns: the tables of step `media`, the objects with the bytes, `/v1/files` and `/v1/media`. Does not: judge leases
//! (`lease` does) or know contents (`catalogue` does). Called by: `app`, which merges [`routes()`] and runs [`Media::keep`].
//!
//! # From a form to a player
//!
//! `upload` reads a form piece by piece (`form`), or `tus` an upload that may be resumed; `intake` counts, hashes and judges
//! the bytes (`kind`) on their way into the `store`. The row (`files`) is seen only when the last byte is in the store, and
//! its bytes are given out only when the scanner (`scan`), if there is one, found nothing. `delivery` answers with ranges
//! (`range`) to whoever `viewer` lets in, with the ticket in a `playlist`; `flow` sends while `pulse` says that the lease lives, and `visits` counts it.

mod accesses;
mod assembly;
mod counts;
mod delivery;
mod file;
mod files;
mod flow;
mod form;
mod intake;
mod kind;
mod partial;
mod playlist;
mod pulse;
mod quota;
mod range;
mod refusal;
mod resource;
mod scan;
mod source;
mod statistics;
mod store;
mod sweep;
mod tus;
mod upload;
mod viewer;
mod visits;

use std::path::Path;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::api::Api;
use crate::config;

use quota::Quota;
use store::Store;
use visits::Visits;

pub use viewer::Showing;

/// What the routes of files work with.
pub struct Media {
    api: Arc<Api>,
    settings: config::Media,
    store: Store,
    quota: Arc<Quota>,
    visits: Visits,
    /// Rings when there is a file to scan.
    scanner: Notify,
    /// Uploads that go on when their connection is gone, to tidy up.
    tasks: TaskTracker,
    /// Who else may fetch a file; none: nobody.
    showing: Option<Arc<dyn Showing>>,
}

impl Media {
    /// The room of a node. Makes the directory of the files when it is missing.
    ///
    /// `showing` may show files to people who could not fetch them else.
    ///
    /// # Errors
    /// What is wrong with the settings or the directory, for people.
    pub fn open(
        api: &Arc<Api>,
        settings: &config::Media,
        data_dir: &Path,
        showing: Option<Arc<dyn Showing>>,
    ) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            api: Arc::clone(api),
            settings: settings.clone(),
            store: Store::open(settings, data_dir)?,
            quota: Arc::new(Quota::new(&settings.quota)),
            visits: Visits::new(settings.statistics.idle, Arc::clone(&api.metrics)),
            scanner: Notify::new(),
            tasks: TaskTracker::new(),
            showing,
        }))
    }

    /// The node leaves: accesses that are open here are closed.
    pub async fn leave(&self) {
        let Some(db) = &self.api.db else { return };
        if let Err(error) = self.visits.close(db).await {
            tracing::warn!(%error, "open accesses to files are closed by other nodes");
        }
    }
}

/// The routes.
pub fn routes(media: &Arc<Media>) -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(routes!(resource::list, upload::upload))
        .routes(routes!(statistics::stats))
        .routes(routes!(accesses::accesses))
        .routes(routes!(tus::create).map(|uploads| uploads.options(tus::options)))
        .routes(
            routes!(tus::offset, tus::append, tus::terminate, tus::overridden)
                .map(|upload| upload.options(tus::options)),
        )
        .routes(routes!(resource::show, resource::change, resource::remove))
        .routes(routes!(delivery::stream))
        .routes(routes!(delivery::download))
        .routes(routes!(delivery::play))
        // Uploads are bounded piece by piece.
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(media))
}

/// An id that nobody can guess: 128 random bits.
fn fresh_id() -> String {
    URL_SAFE_NO_PAD.encode(store::random())
}
