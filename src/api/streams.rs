//! `/v1/accounts/{account}/streams`: for services that know nothing but how many streams an account watches.
//!
//! Owns: the two routes. Does not: hold anything of its own: a stream is a session, and a start is one without a socket.
//! Called by: the players' router. The account itself may call, and staff of its tenant; docs/catalogue.md describes it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Claims, Scope};
use crate::lease::model::Entry;
use crate::protocol::id::{AccountKey, SessionId};
use crate::protocol::server::Holder;
use crate::protocol::start::Start;

use super::Api;
use super::caller::{account_of, is_staff, on_behalf, scope_forbidden, tenant_of};
use super::error::{ApiError, ErrorWith};
use super::fields::Fields;
use super::grant::{Denied, Grant, Opening};
use super::observe::Context;
use super::page::bad_query;

type Shared = State<Arc<Api>>;
type AccountPath = Result<Path<String>, PathRejection>;
type AskedQuery = Result<Query<Asked>, QueryRejection>;

/// What staff may say of the account.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Its tenant, where the token reaches others (scope `operator`).
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
    /// Its plan, for `limit`; only staff name it.
    #[param(nullable = false)]
    plan: Option<String>,
}

/// The streams of an account.
#[derive(Serialize, ToSchema)]
struct Streams {
    /// How many it watches.
    count: usize,
    /// How many it may watch.
    limit: u32,
    /// What it watches.
    items: Vec<Holder>,
}

/// What starts to play.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
struct StreamOpening {
    #[serde(flatten)]
    opening: Opening,
    /// Only of staff: the account's plan, whose limit holds.
    plan: Option<String>,
    /// Only of staff: the account's roles, for what the catalogue shows.
    roles: Option<Vec<String>>,
}

/// For whom a request is made.
struct Behalf {
    claims: Claims,
    is_staff: bool,
}

impl Behalf {
    fn new(claims: Claims, account: AccountPath, asked: &Asked) -> Result<Self, ApiError> {
        let Path(account) = account.map_err(|_| ApiError::not_found("there is no such account"))?;
        let account = account_of(&account)?;
        let is_staff = is_staff(&claims);
        if !is_staff {
            if !claims.scopes.has(Scope::Watch) {
                return Err(scope_forbidden());
            }
            if claims.account != account {
                let message = "the token is another account's";
                return Err(ApiError::forbidden("account_forbidden", message));
            }
            tenant_of(&claims, asked.tenant.as_deref())?;
            return Ok(Self { claims, is_staff });
        }
        let tenant = tenant_of(&claims, asked.tenant.as_deref())?;
        let mut claims = on_behalf(claims, tenant, account);
        claims.plan = asked.plan.as_deref().map(Into::into);
        Ok(Self { claims, is_staff })
    }

    fn account(&self) -> AccountKey {
        AccountKey {
            tenant: Arc::clone(&self.claims.tenant),
            account: Arc::clone(&self.claims.account),
        }
    }
}

/// How many streams of how many an account watches, and which.
///
/// For the account itself (scope `watch`), and for staff: `support`, `admin` or `operator`.
#[utoipa::path(
    get,
    path = "/v1/accounts/{account}/streams",
    operation_id = "list_streams",
    tag = "sessions",
    params(("account" = String, Path, description = "The account: the `sub` of its tokens"), Asked),
    responses((status = 200, description = "Its streams, on all nodes", body = Streams)),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(api): Shared,
    Extension(context): Extension<Context>,
    account: AccountPath,
    query: AskedQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = api.caller(&context, request).await?;
    let Query(asked) = query.map_err(bad_query)?;
    let behalf = Behalf::new(claims, account, &asked)?;
    let account = behalf.account();
    let lease = &api.gateway.lease;
    let entries = lease.list(&account).await?;
    let standing = lease.standing(&account).await?;
    let entitled = api.gateway.policy.load().entitlement(&behalf.claims).limit;
    let body = Streams {
        count: entries.len(),
        limit: standing.limit.unwrap_or(entitled),
        items: entries.iter().map(Entry::holder).collect(),
    };
    Ok(Json(body).into_response())
}

/// Starts a stream of an account: a session without a socket.
///
/// For the account itself (scope `watch`), and for staff: `support`, `admin` or `operator`. Staff keeps and ends it by
/// the routes of `Location`, which names the account.
#[utoipa::path(
    post,
    path = "/v1/accounts/{account}/streams",
    operation_id = "open_stream",
    tag = "sessions",
    params(("account" = String, Path, description = "The account: the `sub` of its tokens"), Asked),
    request_body = StreamOpening,
    responses(
        (
            status = 201,
            description = "The slot is the account's",
            body = Grant<'static>,
            headers(("Location" = String, description = "The session's path."))
        ),
        (
            status = 403,
            description = "`stream_limit_reached`: no slot is free, with who holds them. Others, such as \
                           `account_forbidden`, `account_blocked` and `content_forbidden`, come without",
            body = ErrorWith<Denied>
        ),
    ),
    security(("bearer" = []))
)]
pub(super) async fn open(
    State(api): Shared,
    Extension(context): Extension<Context>,
    account: AccountPath,
    query: AskedQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = api.caller(&context, request).await?;
    let Query(asked) = query.map_err(bad_query)?;
    let mut behalf = Behalf::new(claims, account, &asked)?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let start = Start::new(
        fields.text("content")?,
        fields.text("device")?,
        fields.text("device_name")?,
        fields.text("device_class")?,
    )?;
    let victim = victim(&mut fields)?;
    let AccountKey { tenant, account } = behalf.account();
    if behalf.is_staff {
        let plan = fields.text("plan")?;
        behalf.claims.plan = plan.map(Into::into).or(behalf.claims.plan);
        behalf.claims.roles = fields.take("roles", "a list of texts")?.unwrap_or_default();
    }
    let begun = api.begin(&context, behalf.claims, start, victim).await?;
    let mut location = format!("/v1/sessions/{}", begun.session());
    if behalf.is_staff {
        // Whoever serves many accounts names the one whose session it means, on whichever node it asks next.
        let mut named = form_urlencoded::Serializer::new(String::new());
        named
            .append_pair("account", &account)
            .append_pair("tenant", &tenant);
        location = format!("{location}?{}", named.finish());
    }
    Ok(begun.created(location))
}

/// Whose slot a start takes when none is free.
pub(super) fn victim(fields: &mut Fields) -> Result<Option<SessionId>, ApiError> {
    let victim = fields.text("takeover")?.map(|text| {
        SessionId::parse(&text).ok_or_else(|| ApiError::bad_request("takeover", "takeover must be a session"))
    });
    victim.transpose()
}
