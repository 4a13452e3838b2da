//! What operators do about messages, on their own listener. Every call is in the audit trail.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::operator::{Operator, done};
use crate::api::page::{List, Listing, bad_query};

use super::safety::{Report, Which};
use super::viewer::{Desk, id_of, no_message, party};
use super::{Messages, now};

type Shared = State<Arc<Desk>>;
type Who = Extension<Operator>;
type QueryOf<T> = Result<Query<T>, QueryRejection>;

/// The routes of operators about messages.
pub fn operator_routes<S>(api: &Arc<Api>, messages: Option<Arc<Messages>>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let desk = Desk {
        api: Arc::clone(api),
        messages,
    };
    OpenApiRouter::default()
        .routes(routes!(reports))
        .routes(routes!(close))
        .routes(routes!(remove))
        .with_state(Arc::new(desk))
}

/// Which reports.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Reports {
    /// The tenant; left out: the token's. Another one takes the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
    /// Whether closed ones are shown too.
    #[param(nullable = false, default = false)]
    closed: Option<bool>,
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
}

/// Whose message.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Whose {
    /// The tenant; left out: the token's. Another one takes the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
    /// The other party: an account, or `room:` and a content.
    #[param(min_length = 1, max_length = 256)]
    with: String,
}

/// A tenant.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Tenant {
    /// The tenant; left out: the token's. Another one takes the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}

/// What viewers reported, the oldest first.
#[utoipa::path(
    get,
    path = "/v1/admin/messages/reports",
    tag = "messages",
    params(Reports),
    responses((status = 200, description = "The reports", body = Listing<Report>)),
    security(("bearer" = []))
)]
async fn reports(
    State(desk): Shared,
    Extension(operator): Who,
    query: QueryOf<Reports>,
) -> Result<Json<Listing<Report>>, ApiError> {
    let Query(query) = query.map_err(bad_query)?;
    let tenant = operator.tenant(query.tenant.as_deref())?;
    let page = List::new(query.page, query.limit)?;
    let store = &desk.messages()?.store;
    let (found, total) = store
        .reports(&tenant, query.closed.unwrap_or_default(), page.span())
        .await?;
    Ok(Json(page.answer(found, total)))
}

/// Closes a report: somebody has looked at it.
#[utoipa::path(
    post,
    path = "/v1/admin/messages/reports/{report}/close",
    tag = "messages",
    params(("report" = String, Path, description = "The report"), Tenant),
    responses((status = 204, description = "It is closed")),
    security(("bearer" = []))
)]
async fn close(
    State(desk): Shared,
    Extension(operator): Who,
    report: Result<Path<String>, PathRejection>,
    query: QueryOf<Tenant>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(bad_query)?;
    let tenant = operator.tenant(query.tenant.as_deref())?;
    let none = || ApiError::not_found("there is no such open report");
    let Path(report) = report.map_err(|_| none())?;
    let store = &desk.messages()?.store;
    if store
        .close_report(&tenant, &report, operator.account(), now())
        .await?
    {
        return Ok(done());
    }
    Err(none())
}

/// Removes a message, whoever wrote it.
#[utoipa::path(
    delete,
    path = "/v1/admin/accounts/{account}/messages/{id}",
    tag = "messages",
    params(
        ("account" = String, Path, description = "One party"),
        ("id" = u64, Path, description = "The message"),
        Whose
    ),
    responses((status = 204, description = "What it said is gone")),
    security(("bearer" = []))
)]
async fn remove(
    State(desk): Shared,
    Extension(operator): Who,
    path: Result<Path<(String, String)>, PathRejection>,
    query: QueryOf<Whose>,
) -> Result<Response, ApiError> {
    let Query(whose) = query.map_err(bad_query)?;
    let tenant = operator.tenant(whose.tenant.as_deref())?;
    let Path((account, id)) = path.map_err(|_| no_message())?;
    let (account, with) = (party(account, "account")?, party(whose.with, "with")?);
    let which = Which {
        tenant: &tenant,
        parties: (&account, &with),
        id: id_of(Ok(Path(id)))?,
    };
    if desk.messages()?.store.remove(which, None, now()).await? {
        return Ok(done());
    }
    Err(no_message())
}
