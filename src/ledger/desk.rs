//! The ledger's desk: who may ask, and how much is worked on at once.
//!
//! Owns: the state of the routes, their scopes, and the places for long work. Does not: answer (the routes do).
//! Called by: `app`, for the routes.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::auth::{Claims, Scope, is_tenant};
use crate::config::{self, Config};
use crate::db::Db;

use super::cache::Cache;
use super::figures::Terms;
use super::{corrections, exports, insight, plays, positions, royalty_routes, statements, uploads};

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
            .routes(routes!(plays::show, corrections::correct, corrections::delete))
            .routes(routes!(royalty_routes::royalties))
            .routes(routes!(statements::statements, statements::freeze))
            .routes(routes!(statements::statement))
            .routes(routes!(insight::user))
            .routes(routes!(insight::usage))
            .routes(routes!(insight::audience))
            .routes(routes!(insight::anomalies))
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
        self.caller(context, request, &STAFF).await
    }

    /// The verified token of a viewer, and the request.
    pub(super) async fn viewer(
        &self,
        context: &Context,
        request: Request,
    ) -> Result<(Claims, Request), ApiError> {
        self.caller(context, request, &[Scope::Watch]).await
    }

    async fn caller(
        &self,
        context: &Context,
        request: Request,
        scopes: &[Scope],
    ) -> Result<(Claims, Request), ApiError> {
        let (parts, body) = request.into_parts();
        self.api.check_origin(&parts)?;
        let claims = self.api.authenticate(&parts, context).await?;
        if !scopes.iter().any(|scope| claims.scopes.has(*scope)) {
            return Err(ApiError::forbidden(
                "scope_forbidden",
                "the token's scope does not allow this",
            ));
        }
        Ok((claims, Request::from_parts(parts, body)))
    }

    /// A place for long work.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            ApiError::unavailable(
                "busy",
                "as many reports and imports are under way as may be",
                RETRY_BUSY,
            )
        })
    }
}

/// The tenant to act in: the one that is asked for, else the token's.
pub(super) fn tenant_of(claims: &Claims, asked: Option<&str>) -> Result<String, ApiError> {
    match asked {
        None => Ok(claims.tenant.to_string()),
        Some(tenant) if !is_tenant(tenant) => {
            Err(ApiError::bad_request("tenant", "no such name of a tenant"))
        }
        Some(tenant) if *tenant == *claims.tenant || claims.scopes.has(Scope::Operator) => {
            Ok(tenant.to_owned())
        }
        Some(_) => Err(ApiError::forbidden(
            "tenant_forbidden",
            "the token is for another tenant",
        )),
    }
}
