//! `GET /v1/users`: the tenant's people, for staff.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::forbidden;
use super::people::{self, Filter, Part, SORTS};
use super::shapes::ShownUser;
use super::{Accounts, staff};
use crate::api::choice::{chosen, only, sorting};
use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};

/// What may be asked for of each; `id` always comes.
const FIELDS: &[&str] = &[
    "id",
    "name",
    "picture",
    "email",
    "user_name",
    "plan",
    "scope",
    "created_at",
    "changed_at",
];

/// Accounts looked through for those that watch. More of them than this on one installation: ask the metrics.
const MOST_WATCHING: usize = 100_000;

/// The query of [`list`].
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
    /// A part of the e-mail, the user name or the name.
    #[param(nullable = false)]
    q: Option<String>,
    /// `created_at`, `email`, `user_name`, `name` or `plan`, with `-` before it for descending.
    #[param(
        nullable = false,
        pattern = "^-?(created_at|email|user_name|name|plan)$",
        default = "-created_at"
    )]
    sort: Option<String>,
    /// Which members of the items, with commas between; `id` always comes.
    #[param(
        nullable = false,
        pattern = "^(id|name|picture|email|user_name|plan|scope|created_at|changed_at)\
                   (,(id|name|picture|email|user_name|plan|scope|created_at|changed_at))*$"
    )]
    fields: Option<String>,
    /// Only those of this plan.
    #[param(nullable = false)]
    plan: Option<String>,
    /// `now`: only those who play, on any node.
    #[param(nullable = false, pattern = "^now$")]
    watching: Option<String>,
}

/// The people of the tenant, for `support` and `admin`.
#[utoipa::path(
    get,
    path = "/v1/users",
    tag = "users",
    params(Listed),
    responses((status = 200, description = "The people", body = Listing<ShownUser>)),
    security(("bearer" = [])),
)]
pub(super) async fn list(
    State(accounts): State<Arc<Accounts>>,
    Extension(context): Extension<Context>,
    query: Result<Query<Listed>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    if !caller.is_staff() {
        return Err(forbidden());
    }
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let (sort, descending) = sorting(query.sort.as_deref().unwrap_or("-created_at"), SORTS)?;
    let fields = chosen(query.fields.as_deref(), FIELDS, "id")?;
    let tenant = caller.claims.tenant.to_string();
    let among = match query.watching.as_deref() {
        None => None,
        Some("now") => Some(accounts.watching(&tenant).await?),
        Some(_) => return Err(ApiError::bad_request("watching", "watching is now, or left out")),
    };
    let filter = Filter {
        tenant,
        q: query.q,
        plan: query.plan,
        among,
    };
    let (start, limit) = page.span();
    let part = Part {
        sort,
        descending,
        start,
        limit,
    };
    let (found, total) = people::list(accounts.api.db()?, &filter, part).await?;
    accounts.record(&context, &caller, staff::LISTED, None).await;
    let items: Vec<Value> = found
        .iter()
        .map(|person| only(json!(person.own()), &fields))
        .collect();
    Ok(Json(page.answer(items, total)).into_response())
}

impl Accounts {
    /// Ids of the tenant's accounts that hold a slot on any node.
    async fn watching(&self, tenant: &str) -> Result<std::collections::BTreeSet<String>, ApiError> {
        let found = self.api.gateway.lease.accounts(MOST_WATCHING).await?;
        if found.len() >= MOST_WATCHING {
            let message = "too many accounts watch to be listed";
            return Err(ApiError::unavailable("too_many_watching", message, 60));
        }
        let own = found.into_iter().filter(|key| *key.tenant == *tenant);
        // Ids of other issuers may hold anything; people of this room have ids that are plain.
        let plain = own.filter(|key| !key.account.contains('\0'));
        Ok(plain.map(|key| key.account.to_string()).collect())
    }
}
