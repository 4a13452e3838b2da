//! Long work that is under way on this node: how far it is, and how it is cancelled.
//!
//! Owns: the list of it, `GET /v1/reports/running` and `DELETE /v1/reports/running/{id}`. Does not: do any of it, or know of
//! other nodes'. Called by: `desk`, which gives places to it; the routes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::auth::Claims;
use crate::protocol::id::random;

use super::desk::{Desk, tenant_of};
use super::plays::{PageQuery, TenantQuery};
use super::steps::Steps;
use super::{now_ms, time};

/// What is under way, by its id.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<BTreeMap<String, Arc<Task>>>);

#[derive(Debug)]
struct Task {
    kind: &'static str,
    tenant: String,
    account: String,
    started_at: i64,
    steps: Arc<Steps>,
    cancel: CancellationToken,
}

/// A place for long work; whoever drops it leaves it.
pub(super) struct Place {
    id: String,
    task: Arc<Task>,
    running: Arc<Running>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Takes a place for somebody's work of this kind.
    pub(super) fn take(
        running: &Arc<Running>,
        permit: OwnedSemaphorePermit,
        kind: &'static str,
        claims: &Claims,
        tenant: &str,
    ) -> Self {
        let task = Arc::new(Task {
            kind,
            tenant: tenant.to_owned(),
            account: claims.account.to_string(),
            started_at: now_ms(),
            steps: Arc::default(),
            cancel: CancellationToken::new(),
        });
        let id = format!("{:016x}", u64::from_ne_bytes(random()));
        running.lock().insert(id.clone(), Arc::clone(&task));
        Self {
            id,
            task,
            running: Arc::clone(running),
            _permit: permit,
        }
    }

    /// How far it is: whoever works says so here.
    pub(super) fn steps(&self) -> &Arc<Steps> {
        &self.task.steps
    }

    /// Whether somebody cancelled it.
    pub(super) fn is_cancelled(&self) -> bool {
        self.task.cancel.is_cancelled()
    }

    /// Does the work, unless it is cancelled first: then it is dropped where it stands.
    pub(super) async fn run<T, E: Into<ApiError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ApiError> {
        let done = self.task.cancel.run_until_cancelled(work).await;
        done.map_or_else(|| Err(cancelled()), |done| done.map_err(Into::into))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Task>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cancelled() -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "cancelled", "somebody cancelled it")
}

/// Work that is under way.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerTask)]
pub(super) struct Shown {
    /// Its id.
    id: String,
    /// `royalties`, `statement`, `usage`, `audience`, `anomalies`, `concurrency`, `export` or `import`.
    kind: String,
    /// Whose it is.
    account: String,
    /// Since when.
    #[schema(format = DateTime)]
    started_at: String,
    /// Steps that are done: days of a royalty report, one for what has no steps.
    done: u64,
    /// Steps in all, as far as they are known yet.
    all: u64,
}

/// The tenant's reports, exports and imports that this node works on, and how far they are. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/reports/running",
    tag = "ledger",
    params(PageQuery),
    responses((status = 200, description = "What is under way", body = Listing<Shown>)),
    security(("bearer" = []))
)]
pub(super) async fn under_way(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<PageQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let page = List::new(query.page, query.limit)?;
    let shown: Vec<Shown> = {
        let tasks = desk.running.lock();
        let own = tasks.iter().filter(|(_, task)| task.tenant == tenant);
        own.map(|(id, task)| show(id, task)).collect()
    };
    let (total, (start, limit)) = (shown.len(), page.span());
    let items = shown.into_iter().skip(start).take(limit).collect();
    Ok(Json(page.answer(items, total)).into_response())
}

fn show(id: &str, task: &Task) -> Shown {
    let (done, all) = task.steps.seen();
    Shown {
        id: id.to_owned(),
        kind: task.kind.to_owned(),
        account: task.account.clone(),
        started_at: time(task.started_at),
        done,
        all,
    }
}

/// Cancels it: whoever waits for it is answered 409 `cancelled`. Scope `finance` or `admin`.
///
/// An import keeps the rows that it wrote; the same file may be sent again.
#[utoipa::path(
    delete,
    path = "/v1/reports/running/{id}",
    tag = "ledger",
    params(("id" = String, Path, description = "What is under way"), TenantQuery),
    responses((status = 204, description = "It ends now")),
    security(("bearer" = []))
)]
pub(super) async fn cancel(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<TenantQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let unknown = || ApiError::not_found("nothing of this id is under way");
    let Path(id) = path.map_err(|_| unknown())?;
    let task = desk.running.lock().get(&id).cloned();
    let task = task.filter(|task| task.tenant == tenant).ok_or_else(unknown)?;
    task.cancel.cancel();
    Ok(StatusCode::NO_CONTENT.into_response())
}
