//! `/v1/auth`: signing in, staying signed in, and signing out.
//!
//! Owns: the routes. Unknown names and wrong passwords take the same time: both cost one look-up and one hash.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::basic::{Credentials, refused};
use super::passwords::Verdict;
use super::person::{Own, Person, ms, now};
use super::shapes::{Refresh, SignInDevice};
use super::sign_ins::{self, Item, RefreshToken, Refreshed};
use super::{Accounts, people, rules};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::auth::{Grant, MAIN_TENANT, is_tenant};
use crate::config::Secret;
use crate::db::Db;

/// Most of a User-Agent that becomes a device's name, in bytes.
const AGENT_BYTES: usize = 100;

type Shared = State<Arc<Accounts>>;
type Asked = Extension<Context>;

/// The answer to a sign-in and to a refresh.
#[derive(Serialize, ToSchema)]
pub(super) struct SignedIn<'a> {
    /// The access token.
    token: String,
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
    /// For the next one.
    refresh_token: String,
    /// Who has signed in.
    user: Own<'a>,
}

/// Signs in with an e-mail or user name and the password, by HTTP Basic.
#[utoipa::path(
    post,
    path = "/v1/auth",
    tag = "auth",
    request_body = Option<SignInDevice>,
    responses((status = 201, description = "Signed in", body = SignedIn<'static>)),
    security(("basic" = [])),
)]
pub(super) async fn sign_in(
    State(accounts): Shared,
    Extension(context): Asked,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    accounts.api.check_origin(&parts)?;
    let credentials = Credentials::of(&parts.headers).inspect_err(|_| accounts.count("refused"))?;
    let agent = parts.headers.get(header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok()).map(str::to_owned);
    let has_body = !axum::body::HttpBody::is_end_stream(&body);
    let (tenant, caller) = if has_body {
        let request = Request::from_parts(parts, body);
        described(Fields::read(request, context.peer.deadline).await?, agent)?
    } else {
        described(Fields::none(), agent)?
    };
    let db = accounts.api.db()?;
    let person = accounts.prove(db, &context, &tenant, credentials).await?;
    let expires_at = now().saturating_add(ms(accounts.settings.refresh_ttl));
    let added = sign_ins::add(db, &person, &caller, expires_at).await?;
    // The password was changed within these milliseconds.
    let (sign_in, refresh) = added.ok_or_else(refused)?;
    accounts.count("granted");
    accounts.signed_in(&person, sign_in, &refresh)
}

/// The tenant and the device of a sign-in.
fn described(mut fields: Fields, agent: Option<String>) -> Result<(String, sign_ins::Caller), ApiError> {
    let tenant = fields.text("tenant")?.unwrap_or_else(|| MAIN_TENANT.to_owned());
    if !is_tenant(&tenant) {
        return Err(ApiError::bad_request("tenant", "no such name of a tenant"));
    }
    let [device, name] = ["device", "device_name"].map(|field| {
        let text = fields.text(field)?;
        text.as_deref()
            .map_or(Ok(()), |text| rules::device(text, field))?;
        Ok::<_, ApiError>(text)
    });
    let agent = agent.map(|mut agent| {
        agent.truncate(agent.floor_char_boundary(AGENT_BYTES));
        agent
    });
    let caller = sign_ins::Caller {
        device: device?,
        device_name: name?.or(agent.filter(|agent| !agent.is_empty())),
    };
    Ok((tenant, caller))
}

/// Stays signed in: each refresh token is good once, and used twice it ends its sign-in.
#[utoipa::path(
    post,
    path = "/v1/auth/refresh",
    tag = "auth",
    request_body = Refresh,
    responses((status = 201, description = "Still signed in", body = SignedIn<'static>), (status = 401, description = "`unauthorized`: the token is wrong, was used before, or its sign-in is over", body = ErrorBody)),
)]
pub(super) async fn refresh(
    State(accounts): Shared,
    Extension(context): Asked,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    accounts.api.check_origin(&parts)?;
    let request = Request::from_parts(parts, body);
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let text = fields.text("refresh_token")?;
    let text = text.ok_or_else(|| ApiError::bad_request("refresh_token", "refresh_token is required"))?;
    let db = accounts.api.db()?;
    let count = |outcome| accounts.api.metrics.refreshes_total.inc(outcome);
    let begun = accounts.tries.begin(context.client, Instant::now());
    let begun = begun.map_err(|limited| accounts.api.rate_limited(limited))?;
    let expires_at = now().saturating_add(ms(accounts.settings.refresh_ttl));
    let refreshed = match RefreshToken::parse(&text) {
        Some(token) => sign_ins::refresh(db, &token, expires_at).await,
        None => Ok(Refreshed::Unknown),
    };
    let refreshed = refreshed.inspect_err(|_| count("error"))?;
    if !matches!(refreshed, Refreshed::Next(..)) {
        accounts.tries.count(begun, Instant::now());
    }
    match refreshed {
        Refreshed::Next(next, person, sign_in) => {
            count("granted");
            accounts.signed_in(&person, sign_in, &next)
        }
        Refreshed::Reused => {
            count("reused");
            tracing::warn!(request_id = %context.id, "a refresh token was used twice: its sign-in is over");
            Err(over())
        }
        Refreshed::Unknown => {
            count("refused");
            Err(over())
        }
    }
}

/// 401 for a refresh token, whatever is wrong with it.
fn over() -> ApiError {
    let (status, message) = (StatusCode::UNAUTHORIZED, "sign in again with the password");
    ApiError::new(status, "unauthorized", message)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Ends the sign-in of this token, and what its device plays.
#[utoipa::path(
    delete,
    path = "/v1/auth",
    tag = "auth",
    responses((status = 204, description = "Signed out"), (status = 409, description = "`no_sign_in`: the token comes from no sign-in", body = ErrorBody)),
    security(("bearer" = [])),
)]
pub(super) async fn sign_out(
    State(accounts): Shared,
    Extension(context): Asked,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    let sign_in = caller.claims.sign_in.as_deref().ok_or_else(|| {
        let message = "this token comes from no sign-in; it ends by itself";
        ApiError::new(StatusCode::CONFLICT, "no_sign_in", message)
    })?;
    accounts.end_sign_in(caller.own()?, sign_in).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends every sign-in of the account, and whatever it plays.
#[utoipa::path(
    delete,
    path = "/v1/auth/all",
    tag = "auth",
    responses(
        (status = 204, description = "Signed out everywhere"),
        (status = 404, description = "`not_found`: the token is of no user of this node", body = ErrorBody),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn sign_out_everywhere(
    State(accounts): Shared,
    Extension(context): Asked,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    let person = caller.own()?;
    // In this order: when the second fails, the token is still good for another try.
    accounts.end_sessions(&person.account(), None).await?;
    let mut work = accounts.api.db()?.begin().await?;
    people::revoke(&mut work, &person.id, None).await?;
    work.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The query of [`devices`].
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
}

/// Where the account is signed in, the last used first.
#[utoipa::path(
    get,
    path = "/v1/auth/devices",
    tag = "auth",
    params(Listed),
    responses(
        (status = 200, description = "The sign-ins", body = Listing<Item>),
        (status = 404, description = "`not_found`: the token is of no user of this node", body = ErrorBody),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn devices(
    State(accounts): Shared,
    Extension(context): Asked,
    query: Result<Query<Listed>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let current = caller.claims.sign_in.as_deref();
    let (items, total) = sign_ins::list(accounts.api.db()?, &caller.own()?.id, current, page.span()).await?;
    Ok(Json(page.answer(items, total)).into_response())
}

/// Ends one sign-in of the account, and what its device plays.
#[utoipa::path(
    delete,
    path = "/v1/auth/devices/{id}",
    tag = "auth",
    params(("id" = String, Path, description = "The sign-in")),
    responses((status = 204, description = "It is over")),
    security(("bearer" = [])),
)]
pub(super) async fn forget_device(
    State(accounts): Shared,
    Extension(context): Asked,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    let unknown = || ApiError::not_found("there is no such sign-in");
    let Path(id) = path.map_err(|_| unknown())?;
    if id.contains('\0') || !accounts.end_sign_in(caller.own()?, &id).await? {
        return Err(unknown());
    }
    Ok(StatusCode::NO_CONTENT)
}

impl Accounts {
    /// Whose name and password these are.
    ///
    /// # Errors
    /// 401 when they do not fit, 429 when too many did not before, 503 when too many wait or the database is away.
    pub(super) async fn prove(
        &self,
        db: &Db,
        context: &Context,
        tenant: &str,
        credentials: Credentials,
    ) -> Result<Person, ApiError> {
        let account = (tenant, rules::key(&credentials.name));
        let begun = self.tries.begin_of(context.client, &account, Instant::now());
        let begun = begun.map_err(|limited| {
            self.count("limited");
            self.api.rate_limited(limited)
        })?;
        let judged = self.judged(db, tenant, credentials).await;
        match judged {
            Ok(Some(person)) => Ok(person),
            Ok(None) => {
                self.tries.count(begun, Instant::now());
                self.count("refused");
                tracing::debug!(request_id = %context.id, client = %context.client, "sign-in refused");
                Err(refused())
            }
            Err(error) => {
                self.count(if error.code == "busy" { "busy" } else { "error" });
                Err(error)
            }
        }
    }

    async fn judged(
        &self,
        db: &Db,
        tenant: &str,
        credentials: Credentials,
    ) -> Result<Option<Person>, ApiError> {
        let Credentials { name, password } = credentials;
        let found = people::by_name(db, tenant, &name).await?;
        let stored = found.as_ref().map(|person| person.password.expose());
        let Verdict { right, outdated } = self.passwords.verify(password.clone(), stored).await?;
        let Some(mut person) = found.filter(|_| right) else {
            return Ok(None);
        };
        if outdated {
            let hashed = self.passwords.hash(password).await?;
            if people::rehash(db, &person, &hashed).await? {
                person.password = Secret::from(hashed);
            }
        }
        Ok(Some(person))
    }

    pub(super) fn count(&self, outcome: &'static str) {
        self.api.metrics.sign_ins_total.inc(outcome);
    }

    /// The tokens of a sign-in.
    fn signed_in(
        &self,
        person: &Person,
        sign_in: String,
        refresh: &RefreshToken,
    ) -> Result<Response, ApiError> {
        let grant = Grant {
            tenant: person.tenant.clone(),
            plan: person.plan.clone(),
            scopes: Some(person.all_scopes()),
            sign_in: Some(sign_in),
            ..Grant::new(person.id.clone(), self.settings.token_ttl)
        };
        let expires_at = SystemTime::now() + grant.ttl;
        let token = self.api.verifier.issue(&grant).map_err(|error| {
            tracing::error!(%error, "no token could be issued");
            ApiError::unavailable("unavailable", "no token can be issued just now", 1)
        })?;
        let body = SignedIn {
            token: token.expose().to_owned(),
            expires_at: humantime::format_rfc3339_millis(expires_at).to_string(),
            refresh_token: refresh.expose(),
            user: person.own(),
        };
        let private = [(header::CACHE_CONTROL, "no-store")];
        Ok((StatusCode::CREATED, private, Json(body)).into_response())
    }

    /// Ends a sign-in, and what its device plays; false: there is none.
    async fn end_sign_in(&self, person: &Person, id: &str) -> Result<bool, ApiError> {
        let db = self.api.db()?;
        let Some(device) = sign_ins::device_of(db, &person.id, id).await? else {
            return Ok(false);
        };
        if let Some(device) = device {
            self.end_sessions(&person.account(), Some(&device)).await?;
        }
        Ok(sign_ins::remove(db, &person.id, id).await?)
    }
}
