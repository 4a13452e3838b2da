//! What operators do with accounts: see and end their sessions, block them, and change their limit.
//!
//! Owns: the routes. Does not: decide (`lease` does) or know who may call (`operator` does).
//! Called by: `admin`'s router. It acts on every node: the session's own node ends it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::lease::model::{Decision, Entry, Fenced, Order, Standing};
use crate::protocol::MAX_ID_BYTES;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId, SessionId};
use crate::protocol::server::Holder;

use super::admin::{Admin, BODY};
use super::body::read_json;
use super::error::ApiError;
use super::operator::{Operator, done, told};
use super::page::{InTenant, Listed, Listing, OfAccount, Page, PageQuery, bad_query};

/// Accounts looked through for a list of all sessions.
const MAX_ACCOUNTS: usize = 1_000_000;

/// What the path names.
const ACCOUNT: &str = "The account, its `sub` in tokens";

/// Most streams of one account, as in tokens and plans.
const MAX_LIMIT: u32 = 1_000;

/// A session, as operators see it.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionItem {
    /// Its tenant.
    tenant: Arc<str>,
    /// Its account.
    account: Arc<str>,
    #[serde(flatten)]
    session: Holder,
    /// How often it moved to another socket, from 1.
    epoch: u64,
    /// The node of its socket; none: it has no socket, and any node hears it.
    #[schema(required)]
    node: Option<String>,
}

/// What operators decided about an account.
#[derive(Serialize, ToSchema)]
pub(super) struct StandingBody {
    /// Its tenant.
    tenant: Arc<str>,
    /// The account.
    account: Arc<str>,
    /// Whether nobody of it may play.
    blocked: bool,
    /// The limit that operators set; none: tokens and plans say.
    #[schema(required)]
    limit: Option<u32>,
}

/// What a decision came to.
#[derive(Serialize, ToSchema)]
pub(super) struct DecidedBody {
    #[serde(flatten)]
    standing: StandingBody,
    /// Sessions that it ends.
    ended: u32,
}

/// Sessions that are ended.
#[derive(Serialize, ToSchema)]
pub(super) struct EndedBody {
    /// How many.
    ended: usize,
}

impl SessionItem {
    fn new(key: &AccountKey, entry: &Entry) -> Self {
        Self {
            tenant: Arc::clone(&key.tenant),
            account: Arc::clone(&key.account),
            session: entry.holder(),
            epoch: entry.epoch,
            node: (entry.owner != OwnerId::NONE).then(|| entry.owner.to_string()),
        }
    }
}

impl StandingBody {
    fn new(key: AccountKey, standing: &Standing) -> Self {
        Self {
            tenant: key.tenant,
            account: key.account,
            blocked: standing.blocked,
            limit: standing.limit,
        }
    }
}

type Shared = State<Arc<Admin>>;
type Who = Extension<Operator>;
type AccountPath = Result<Path<String>, PathRejection>;

/// Which of an account's sessions are meant.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The account's tenant; left out: the token's. Another one takes the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
    /// Only this device's; where the whole account is meant it is refused.
    #[param(nullable = false)]
    device: Option<String>,
}

type WhichQuery = Result<Query<Which>, QueryRejection>;

fn key_of(
    operator: &Operator,
    tenant: Option<&str>,
    account: Result<Path<String>, PathRejection>,
) -> Result<AccountKey, ApiError> {
    let bad = || ApiError::bad_request("account", "an account is a text of 1 to 256 bytes");
    let Path(account) = account.map_err(|_| bad())?;
    if account.is_empty() || account.len() > MAX_ID_BYTES {
        return Err(bad());
    }
    let tenant = operator.tenant(tenant)?;
    Ok(AccountKey {
        tenant,
        account: account.into(),
    })
}

/// Every session, of all tenants. The scope is `operator`.
#[utoipa::path(
    get,
    path = "/v1/admin/sessions",
    tag = "accounts",
    params(Listed),
    responses((status = 200, description = "The sessions", body = Listing<SessionItem>)),
    security(("bearer" = []))
)]
pub(super) async fn list_all(State(admin): Shared, query: PageQuery) -> Result<Response, ApiError> {
    let page = Page::of(query)?;
    let lease = &admin.api.gateway.lease;
    let tenant = page.tenant.as_deref();
    let mut accounts = match &page.account {
        Some(account) => vec![AccountKey::new(tenant.unwrap_or("main"), account)],
        None => lease.accounts(MAX_ACCOUNTS).await?,
    };
    accounts.retain(|key| tenant.is_none_or(|tenant| *key.tenant == *tenant));
    accounts.sort_unstable();
    let (start, limit) = page.span();
    let (mut items, mut total) = (Vec::new(), 0);
    for key in accounts {
        for entry in &lease.list(&key).await? {
            if (start..start.saturating_add(limit)).contains(&total) {
                items.push(SessionItem::new(&key, entry));
            }
            total += 1;
        }
    }
    Ok(Json(page.list(items, total)).into_response())
}

/// The sessions of an account, on all nodes; none for an account never seen.
#[utoipa::path(
    get,
    path = "/v1/admin/accounts/{account}/sessions",
    tag = "accounts",
    params(("account" = String, Path, min_length = 1, max_length = 256, description = ACCOUNT), OfAccount),
    responses((status = 200, description = "The sessions", body = Listing<SessionItem>)),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(admin): Shared,
    Extension(operator): Who,
    account: AccountPath,
    query: PageQuery,
) -> Result<Response, ApiError> {
    let page = Page::of(query)?;
    if page.account.is_some() {
        return Err(ApiError::bad_request("account", "the path names the account"));
    }
    let key = key_of(&operator, page.tenant.as_deref(), account)?;
    let entries = admin.api.gateway.lease.list(&key).await?;
    let (start, limit) = page.span();
    let shown = entries.iter().skip(start).take(limit);
    let items: Vec<SessionItem> = shown.map(|entry| SessionItem::new(&key, entry)).collect();
    Ok(Json(page.list(items, entries.len())).into_response())
}

/// What operators decided about an account.
#[utoipa::path(
    get,
    path = "/v1/admin/accounts/{account}",
    tag = "accounts",
    params(("account" = String, Path, min_length = 1, max_length = 256, description = ACCOUNT), Which),
    responses((status = 200, description = "Their decisions", body = StandingBody)),
    security(("bearer" = []))
)]
pub(super) async fn show(
    State(admin): Shared,
    Extension(operator): Who,
    account: AccountPath,
    query: WhichQuery,
) -> Result<Response, ApiError> {
    let which = query.map_err(bad_query)?.0;
    let key = key_of(&operator, which.tenant.as_deref(), account)?;
    let standing = admin.api.gateway.lease.standing(&key).await?;
    Ok(Json(StandingBody::new(key, &standing)).into_response())
}

/// Ends an account's sessions, or those of one device.
#[utoipa::path(
    delete,
    path = "/v1/admin/accounts/{account}/sessions",
    tag = "accounts",
    params(("account" = String, Path, min_length = 1, max_length = 256, description = ACCOUNT), Which),
    responses((status = 200, description = "How many", body = EndedBody)),
    security(("bearer" = []))
)]
pub(super) async fn end_all(
    State(admin): Shared,
    Extension(operator): Who,
    account: AccountPath,
    query: WhichQuery,
) -> Result<Response, ApiError> {
    let which = query.map_err(bad_query)?.0;
    let key = key_of(&operator, which.tenant.as_deref(), account)?;
    let lease = &admin.api.gateway.lease;
    let meant = |entry: &Entry| {
        which
            .device
            .as_deref()
            .is_none_or(|device| *entry.device.id == *device)
    };
    let mut ended = 0;
    for entry in lease.list(&key).await?.iter().filter(|entry| meant(entry)) {
        let answer = lease.order(&key, kick(entry.session)).await?;
        ended += usize::from(answer == Fenced::Done);
    }
    Ok(told(json!(EndedBody { ended })))
}

/// Ends one session.
#[utoipa::path(
    delete,
    path = "/v1/admin/accounts/{account}/sessions/{session}",
    tag = "accounts",
    params(
        ("account" = String, Path, min_length = 1, max_length = 256, description = ACCOUNT),
        ("session" = String, Path, description = "The session"),
        Which
    ),
    responses((status = 204, description = "It is ended")),
    security(("bearer" = []))
)]
pub(super) async fn end_one(
    State(admin): Shared,
    Extension(operator): Who,
    path: Result<Path<(String, String)>, PathRejection>,
    query: WhichQuery,
) -> Result<Response, ApiError> {
    let which = query.map_err(bad_query)?.0;
    let unknown = || ApiError::not_found("this account has no such session");
    let Path((account, session)) = path.map_err(|_| unknown())?;
    let key = key_of(&operator, which.tenant.as_deref(), Ok(Path(account)))?;
    let session = SessionId::parse(&session).ok_or_else(unknown)?;
    match admin.api.gateway.lease.order(&key, kick(session)).await? {
        Fenced::Done => Ok(done()),
        Fenced::Gone | Fenced::NotYours => Err(unknown()),
    }
}

fn kick(session: SessionId) -> Order {
    Order::Kick {
        session,
        code: EndCode::EndedByOperator,
    }
}

/// Nobody of the account plays any more.
#[utoipa::path(
    post,
    path = "/v1/admin/accounts/{account}/block",
    tag = "accounts",
    params(("account" = String, Path, min_length = 1, max_length = 256, description = ACCOUNT), InTenant),
    responses((status = 200, description = "What holds now", body = DecidedBody)),
    security(("bearer" = []))
)]
pub(super) async fn block(
    shared: Shared,
    who: Who,
    account: AccountPath,
    query: WhichQuery,
) -> Result<Response, ApiError> {
    decide(shared, who, account, query, Decision::Block).await
}

/// They may again.
#[utoipa::path(
    post,
    path = "/v1/admin/accounts/{account}/unblock",
    tag = "accounts",
    params(("account" = String, Path, min_length = 1, max_length = 256, description = ACCOUNT), InTenant),
    responses((status = 200, description = "What holds now", body = DecidedBody)),
    security(("bearer" = []))
)]
pub(super) async fn unblock(
    shared: Shared,
    who: Who,
    account: AccountPath,
    query: WhichQuery,
) -> Result<Response, ApiError> {
    decide(shared, who, account, query, Decision::Unblock).await
}

/// A limit in a body. `null` must be said: an empty body takes no limit away by accident.
#[derive(Deserialize, ToSchema)]
struct Limit {
    /// The slots; `null`: what tokens and plans say.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required, maximum = 1000)]
    limit: Option<u32>,
    /// Whether sessions beyond it are ended, the newest first.
    #[serde(default)]
    enforce_running: bool,
}

/// So many slots, whatever tokens and plans say; `null`: as they say again.
#[utoipa::path(
    put,
    path = "/v1/admin/accounts/{account}/limit",
    tag = "accounts",
    params(("account" = String, Path, min_length = 1, max_length = 256, description = ACCOUNT), InTenant),
    request_body = Limit,
    responses((status = 200, description = "What holds now", body = DecidedBody)),
    security(("bearer" = []))
)]
pub(super) async fn limit(
    shared: Shared,
    who: Who,
    account: AccountPath,
    query: WhichQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let usage =
        "the body must be {\"limit\": 2} or {\"limit\": null}, with \"enforce_running\": true at will";
    let body: Limit = read_json(request, Instant::now() + BODY, "limit", usage).await?;
    if body.limit.is_some_and(|limit| limit > MAX_LIMIT) {
        return Err(ApiError::bad_request("limit", "a limit is 0 to 1000"));
    }
    let decision = Decision::Limit {
        limit: body.limit,
        enforce: body.enforce_running,
    };
    decide(shared, who, account, query, decision).await
}

async fn decide(
    State(admin): Shared,
    Extension(operator): Who,
    account: AccountPath,
    query: WhichQuery,
    decision: Decision,
) -> Result<Response, ApiError> {
    let which = query.map_err(bad_query)?.0;
    if which.device.is_some() {
        return Err(ApiError::bad_request("device", "this is about the whole account"));
    }
    let key = key_of(&operator, which.tenant.as_deref(), account)?;
    let decided = admin.api.gateway.lease.decide(&key, decision).await?;
    Ok(told(json!(DecidedBody {
        standing: StandingBody::new(key, &decided.standing),
        ended: decided.ended,
    })))
}
