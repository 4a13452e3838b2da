//! Another password: with the one before, or by a one-time token that staff handed over.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::basic::{Credentials, refused};
use super::caller::forbidden;
use super::person::{Person, written};
use super::shapes::{PasswordByToken, PasswordChange};
use super::sign_ins::{self, RefreshToken};
use super::users::{Id, id_of};
use super::{Accounts, people, resets, rules, staff};
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::auth::{MAIN_TENANT, is_tenant};
use crate::config::{RESET_TOKEN, Secret};

type Shared = State<Arc<Accounts>>;
type Asked = Extension<Context>;

/// The answer to [`grant`].
#[derive(Serialize, ToSchema)]
#[schema(as = PasswordToken)]
pub(super) struct Granted {
    /// The one-time token.
    token: String,
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
    /// `accounts.reset_url` with the token; null where it is not set.
    #[schema(required)]
    link: Option<String>,
}

/// Changes a password, by HTTP Basic with the one before.
///
/// Every sign-in ends, but the one of `refresh_token`.
#[utoipa::path(
    put,
    path = "/v1/users/{id}/password",
    tag = "users",
    params(("id" = String, Path, description = "The id, or `me`")),
    request_body = PasswordChange,
    responses((status = 204, description = "The password is another one")),
    security(("basic" = [])),
)]
pub(super) async fn change_password(
    State(accounts): Shared,
    Extension(context): Asked,
    path: Id,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, body) = request.into_parts();
    accounts.api.check_origin(&parts)?;
    let credentials = Credentials::of(&parts.headers)?;
    let request = Request::from_parts(parts, body);
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let password = new_password(&mut fields)?;
    let tenant = fields.text("tenant")?.unwrap_or_else(|| MAIN_TENANT.to_owned());
    if !is_tenant(&tenant) {
        return Err(ApiError::bad_request("tenant", "no such name of a tenant"));
    }
    let kept = fields.text("refresh_token")?;
    // Before the one before is judged, which costs more.
    rules::password(&password, &[&credentials.name], &accounts.settings)?;
    let id = id_of(path)?;
    let db = accounts.api.db()?;
    let person = accounts.prove(db, &context, &tenant, credentials).await?;
    if id != "me" && id != person.id {
        return Err(refused());
    }
    accounts.check_names(&password, &person)?;
    let kept = match kept.as_deref().and_then(RefreshToken::parse) {
        Some(token) => sign_ins::of_token(db, &person.id, &token).await?,
        None => None,
    };
    let stored = accounts.passwords.hash(Secret::from(password)).await?;
    let mut work = db.begin().await?;
    people::set_password(&mut work, &person.tenant, &person.id, &stored, kept.as_deref()).await?;
    work.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a one-time token for a new password, for `support` and `admin`.
#[utoipa::path(
    post,
    path = "/v1/users/{id}/password-reset",
    tag = "users",
    params(("id" = String, Path, description = "The id, or `me`")),
    responses((status = 201, description = "The token", body = Granted)),
    security(("bearer" = [])),
)]
pub(super) async fn grant_reset(
    State(accounts): Shared,
    Extension(context): Asked,
    path: Id,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    if !caller.is_staff() {
        return Err(forbidden());
    }
    let person = accounts.named(&caller, &id_of(path)?).await?;
    if !caller.may_help(&person) {
        return Err(forbidden());
    }
    let settings = &accounts.settings;
    let (token, expires_at) = resets::make(accounts.api.db()?, &person.id, settings.reset_ttl).await?;
    accounts
        .record(&context, &caller, staff::RESET, Some(&person.id))
        .await;
    let token = token.expose();
    let link = (!settings.reset_url.is_empty()).then(|| settings.reset_url.replace(RESET_TOKEN, token));
    let body = Granted {
        token: token.to_owned(),
        expires_at: written(expires_at),
        link,
    };
    let private = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, private, Json(body)).into_response())
}

/// Sets a password with a one-time token; every sign-in ends.
#[utoipa::path(
    post,
    path = "/v1/auth/reset",
    tag = "auth",
    request_body = PasswordByToken,
    responses((status = 204, description = "The password is another one")),
)]
pub(super) async fn reset(
    State(accounts): Shared,
    Extension(context): Asked,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, body) = request.into_parts();
    accounts.api.check_origin(&parts)?;
    let request = Request::from_parts(parts, body);
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let token = fields.text("token")?;
    let token = token.ok_or_else(|| ApiError::bad_request("token", "token is required"))?;
    let password = new_password(&mut fields)?;
    rules::password(&password, &[], &accounts.settings)?;
    let begun = accounts.tries.begin(context.client, Instant::now());
    let begun = begun.map_err(|limited| accounts.api.rate_limited(limited))?;
    let db = accounts.api.db()?;
    let void = || ApiError::bad_request("token", "the token is wrong, was used, or has run out");
    let Some(person) = resets::owner(db, &token).await? else {
        accounts.tries.count(begun, Instant::now());
        return Err(void());
    };
    accounts.check_names(&password, &person)?;
    let stored = accounts.passwords.hash(Secret::from(password)).await?;
    if !resets::spend(db, &token, &stored).await? {
        return Err(void());
    }
    Ok(StatusCode::NO_CONTENT)
}

fn new_password(fields: &mut Fields) -> Result<String, ApiError> {
    let password = fields.text("password")?;
    password.ok_or_else(|| ApiError::bad_request("password", "password is required"))
}

impl Accounts {
    fn check_names(&self, password: &str, person: &Person) -> Result<(), ApiError> {
        let names = [
            person.email.as_str(),
            person.user_name.as_deref().unwrap_or_default(),
        ];
        rules::password(password, &names, &self.settings)
    }
}
