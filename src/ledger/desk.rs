//! The ledger's desk: who may ask, and how much is worked on at once.
//!
//! Owns: the state of the routes, their scopes, and the places for long work. Does not: answer (the routes do).
//! Called by: `app`, for the routes.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::Request;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::caller;
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::auth::{Claims, Scope};
use crate::config::{self, Config};
use crate::db::{Db, Work};

use super::cache::Cache;
use super::figures::Terms;
use super::running::{Place, Running};
use super::{
    anomalies, audience, concurrency, corrections, exports, insight, plays, positions, royalty_routes,
    running, sources, statements, uploads,
};

/// Scopes that see and change the ledger of their tenant.
const STAFF: [Scope; 3] = [Scope::Finance, Scope::Admin, Scope::Operator];

/// When to come again while as much is worked on as may be, in seconds.
const RETRY_BUSY: u16 = 5;

/// What the ledger's routes work with.
pub struct Desk {
    pub(super) api: Arc<Api>,
    pub(super) terms: Terms,
    pub(super) settings: config::Ledger,
    /// Where uploads wait to be read.
    pub(super) scratch: PathBuf,
    pub(super) cache: Cache,
    /// Slots of an account whose token and plan name none.
    pub(super) slots: u32,
    /// What is worked on.
    pub(super) running: Arc<Running>,
    places: Arc<Semaphore>,
}

impl Desk {
    /// The desk of a node.
    #[must_use]
    pub fn new(api: Arc<Api>, config: &Config) -> Self {
        let settings = config.ledger.clone();
        Self {
            api,
            terms: Terms::new(&settings),
            scratch: config.data.dir.clone(),
            cache: Cache::default(),
            slots: config.lease.limit,
            running: Arc::default(),
            places: Arc::new(Semaphore::new(usize::try_from(settings.reports).unwrap_or(1))),
            settings,
        }
    }

    /// Its routes.
    #[must_use]
    pub fn routes(self) -> OpenApiRouter {
        OpenApiRouter::default()
            .routes(routes!(plays::list, corrections::create))
            .routes(routes!(positions::positions))
            .routes(routes!(exports::export))
            .routes(routes!(uploads::import))
            .routes(routes!(sources::sources))
            .routes(routes!(plays::show, corrections::correct, corrections::delete))
            .routes(routes!(royalty_routes::royalties))
            .routes(routes!(statements::statements, statements::freeze))
            .routes(routes!(statements::statement))
            .routes(routes!(insight::user))
            .routes(routes!(insight::usage))
            .routes(routes!(audience::audience))
            .routes(routes!(anomalies::anomalies))
            .routes(routes!(concurrency::concurrency))
            .routes(routes!(running::under_way))
            .routes(routes!(running::cancel))
            .with_state(Arc::new(self))
    }

    /// The rows.
    pub(super) fn db(&self) -> Result<&Db, ApiError> {
        self.api.db()
    }

    /// The verified token of somebody who may see the ledger, and the request.
    pub(super) async fn staff(
        &self,
        context: &Context,
        request: Request,
    ) -> Result<(Claims, Request), ApiError> {
        self.api.caller_with(context, request, &STAFF).await
    }

    /// A place for long work of this kind.
    pub(super) fn place(&self, kind: &'static str, claims: &Claims, tenant: &str) -> Result<Place, ApiError> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_| {
            ApiError::unavailable(
                "busy",
                "as many reports and imports are under way as may be",
                RETRY_BUSY,
            )
        })?;
        Ok(Place::take(&self.running, permit, kind, claims, tenant))
    }

    /// Rows as they are at one moment, for a report, within the longest that one may take.
    pub(super) async fn rows(&self) -> Result<Work, ApiError> {
        Ok(self.db()?.read_for(self.settings.report_timeout).await?)
    }
}

/// The tenant to act in: the one that is asked for, else the token's.
pub(super) fn tenant_of(claims: &Claims, asked: Option<&str>) -> Result<String, ApiError> {
    Ok(caller::tenant_of(claims, asked)?.to_string())
}
