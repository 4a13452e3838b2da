//! `/v1/users/{id}`, where `{id}` may be `me`: seeing, changing and removing one person.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::caller::{Caller, forbidden};
use super::people::{self, Taken};
use super::person::{Own, Person, now};
use super::shapes::{ShownUser, UserChange};
use super::sign_up::conflict;
use super::{Accounts, nobody, rules, staff};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::db::DbError;

type Shared = State<Arc<Accounts>>;
type Asked = Extension<Context>;
pub(super) type Id = Result<Path<String>, PathRejection>;

/// The id of a path.
pub(super) fn id_of(path: Id) -> Result<String, ApiError> {
    path.map(|Path(id)| id).map_err(|_| nobody())
}

/// A person: all of oneself, and for `support` and `admin` of others; else what everybody sees.
#[utoipa::path(
    get,
    path = "/v1/users/{id}",
    tag = "users",
    params(("id" = String, Path, description = "The id, or `me`")),
    responses((status = 200, description = "The person", body = ShownUser)),
    security(("bearer" = [])),
)]
pub(super) async fn show(
    State(accounts): Shared,
    Extension(context): Asked,
    path: Id,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    let id = id_of(path)?;
    let person = accounts.named(&caller, &id).await?;
    if caller.is_named(&id) || caller.is_staff() {
        accounts
            .record(&context, &caller, staff::SHOWN, Some(&person.id))
            .await;
        return Ok(Json(person.own()).into_response());
    }
    Ok(Json(person.public()).into_response())
}

/// Changes a person: oneself, or for `support` and `admin` others.
///
/// Fields that are left out stay as they are; `null` clears the picture, the plan and the user name.
#[utoipa::path(
    put,
    path = "/v1/users/{id}",
    tag = "users",
    params(("id" = String, Path, description = "The id, or `me`")),
    request_body = UserChange,
    responses((status = 200, description = "The person as it is now", body = Own<'static>), (status = 409, description = "`exists`: `field` names whose value somebody has", body = ErrorBody)),
    security(("bearer" = [])),
)]
pub(super) async fn change(
    State(accounts): Shared,
    Extension(context): Asked,
    path: Id,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    let id = id_of(path)?;
    let person = accounts.named(&caller, &id).await?;
    if !caller.is_named(&id) && !caller.may_help(&person) {
        return Err(forbidden());
    }
    let request = Request::from_parts(parts, body);
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let changed = accounts.changed(&caller, &person, &mut fields)?;
    let db = accounts.api.db()?;
    match people::change(db, &changed).await {
        Ok(true) => {
            accounts
                .record(&context, &caller, staff::CHANGED, Some(&changed.id))
                .await;
            Ok(Json(changed.own()).into_response())
        }
        Ok(false) => Err(nobody()),
        Err(DbError::Taken) => {
            let user_name = changed.user_name.as_deref();
            let taken = people::taken(db, &changed.tenant, &changed.email, user_name, &changed.id).await?;
            Err(conflict(taken.unwrap_or(Taken::UserName)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes a person: oneself, or for `admin` others.
///
/// What the account plays ends, and what must be kept is kept without the person.
#[utoipa::path(
    delete,
    path = "/v1/users/{id}",
    tag = "users",
    params(("id" = String, Path, description = "The id, or `me`")),
    responses((status = 204, description = "The account is gone")),
    security(("bearer" = [])),
)]
pub(super) async fn remove(
    State(accounts): Shared,
    Extension(context): Asked,
    path: Id,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, _) = request.into_parts();
    let caller = accounts.caller(&parts, &context).await?;
    let id = id_of(path)?;
    if !caller.is_named(&id) && !caller.is_admin() {
        return Err(forbidden());
    }
    let person = accounts.named(&caller, &id).await?;
    let account = person.account();
    // The row goes last: whatever fails before, the same request may be made again.
    accounts.end_sessions(&account, None).await?;
    for other in &accounts.others {
        other.forget(&account).await?;
    }
    people::remove(accounts.api.db()?, &person.tenant, &person.id).await?;
    accounts
        .record(&context, &caller, staff::REMOVED, Some(&person.id))
        .await;
    tracing::info!(request_id = %context.id, "an account was removed");
    Ok(StatusCode::NO_CONTENT)
}

impl Accounts {
    /// The person with the fields that may change. What a person may not change of itself stays when it is sent as it
    /// is, so that what was read can be sent back.
    fn changed(&self, caller: &Caller, person: &Person, fields: &mut Fields) -> Result<Person, ApiError> {
        let mut changed = person.clone();
        if let Some(name) = fields.text("name")? {
            changed.name = rules::name(&name)?;
        }
        if let Some(picture) = fields.nullable("picture")? {
            picture.as_deref().map_or(Ok(()), rules::picture)?;
            changed.picture = picture;
        }
        if let Some(user_name) = fields.nullable("user_name")? {
            user_name.as_deref().map_or(Ok(()), rules::user_name)?;
            changed.user_name = user_name;
        }
        if let Some(plan) = fields.nullable("plan")?
            && plan != person.plan
        {
            if let Some(plan) = &plan {
                self.check_plan(plan, caller.is_admin())?;
            }
            changed.plan = plan;
        }
        if let Some(email) = fields.text("email")?
            && email != person.email
        {
            rules::email(&email)?;
            // It is what somebody signs in with, and nobody here can tell whose mailbox it is.
            if !caller.is_admin() {
                let error = ApiError::forbidden("email_forbidden", "an admin changes an e-mail");
                return Err(error.with_field("email"));
            }
            changed.email = email;
        }
        if caller.is_admin()
            && let Some(words) = fields.text("scope")?
        {
            changed.scopes = rules::scopes(&words)?;
        }
        changed.changed_at = now();
        Ok(changed)
    }
}
