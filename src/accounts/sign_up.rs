//! `POST /v1/users`: somebody new.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use tokio::time::Instant;

use super::caller::{Caller, forbidden};
use super::people::{New, Taken};
use super::person::Own;
use super::shapes::NewUser;
use super::sign_ins::fresh_id;
use super::{Accounts, people, rules, staff};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::auth::{MAIN_TENANT, Scopes, from_request, is_tenant};
use crate::config::Secret;

/// What was asked for, judged.
struct Asked {
    tenant: String,
    email: String,
    password: String,
    user_name: Option<String>,
    name: String,
    picture: Option<String>,
    plan: Option<String>,
    scopes: Scopes,
}

/// Makes an account: a stranger's own, or by an admin one for somebody.
#[utoipa::path(
    post,
    path = "/v1/users",
    tag = "users",
    request_body = NewUser,
    responses((status = 201, description = "The account", body = Own<'static>, headers(("Location" = String, description = "Its path."))), (status = 409, description = "`exists`: `field` names whose value somebody has", body = ErrorBody)),
    security((), ("bearer" = [])),
)]
pub(super) async fn sign_up(
    State(accounts): State<Arc<Accounts>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    accounts.api.check_origin(&parts)?;
    // A token counts only where it gives more than a stranger has.
    let admin = match from_request(&parts, false) {
        Ok(None) => None,
        _ => Some(accounts.caller(&parts, &context).await?).filter(Caller::is_admin),
    };
    if admin.is_none() && !accounts.settings.sign_up {
        return Err(forbidden());
    }
    let db = accounts.api.db()?;
    let request = Request::from_parts(parts, body);
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let asked = accounts.judge(&mut fields, admin.as_ref())?;
    if admin.is_none() {
        // It counts whatever comes of it: each costs a hash and a row.
        let begun = accounts.tries.begin(context.client, Instant::now());
        let begun = begun.map_err(|limited| accounts.api.rate_limited(limited))?;
        accounts.tries.count(begun, Instant::now());
    }
    let taken = async || {
        let user_name = asked.user_name.as_deref();
        people::taken(db, &asked.tenant, &asked.email, user_name, "").await
    };
    if let Some(taken) = taken().await? {
        return Err(conflict(taken));
    }
    let password = accounts
        .passwords
        .hash(Secret::from(asked.password.clone()))
        .await?;
    let new = New {
        id: fresh_id(),
        tenant: asked.tenant.clone(),
        email: asked.email.clone(),
        user_name: asked.user_name.clone(),
        name: asked.name.clone(),
        picture: asked.picture.clone(),
        plan: asked.plan.clone(),
        scopes: asked.scopes,
        password,
    };
    let person = match people::add(db, &new).await {
        Ok(person) => person,
        // Somebody was faster.
        Err(crate::db::DbError::Taken) => {
            return Err(conflict(taken().await?.unwrap_or(Taken::Email)));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(admin) = &admin {
        accounts
            .record(&context, admin, staff::ADDED, Some(&person.id))
            .await;
    }
    let location = [(header::LOCATION, format!("/v1/users/{}", person.id))];
    Ok((StatusCode::CREATED, location, Json(person.own())).into_response())
}

impl Accounts {
    /// Reads the fields of somebody new. `role` and `scope` are no fields of a stranger's.
    fn judge(&self, fields: &mut Fields, admin: Option<&Caller>) -> Result<Asked, ApiError> {
        let required = |field| ApiError::bad_request(field, format!("{field} is required"));
        let email = fields.text("email")?.ok_or_else(|| required("email"))?;
        rules::email(&email)?;
        let user_name = fields.text("user_name")?;
        if let Some(user_name) = &user_name {
            rules::user_name(user_name)?;
        }
        let password = fields.text("password")?.ok_or_else(|| required("password"))?;
        let names = [email.as_str(), user_name.as_deref().unwrap_or_default()];
        rules::password(&password, &names, &self.settings)?;
        let name = fields.text("name")?;
        let name = name.map_or_else(|| Ok(rules::name_of(&email)), |name| rules::name(&name))?;
        let picture = fields.text("picture")?;
        picture.as_deref().map_or(Ok(()), rules::picture)?;
        let plan = fields.text("plan")?;
        if let Some(plan) = &plan {
            self.check_plan(plan, admin.is_some())?;
        }
        let scopes = match admin {
            Some(_) => fields.text("scope")?.map(|words| rules::scopes(&words)),
            None => None,
        };
        let tenant = match admin {
            Some(admin) => own_tenant(admin, fields.text("tenant")?)?,
            None => self.open_tenant(fields.text("tenant")?)?,
        };
        Ok(Asked {
            tenant,
            email,
            password,
            user_name,
            name,
            picture,
            plan,
            scopes: scopes.transpose()?.unwrap_or_default(),
        })
    }

    /// Whether somebody may have a plan: any by an admin, an open one by oneself.
    pub(super) fn check_plan(&self, plan: &str, by_admin: bool) -> Result<(), ApiError> {
        rules::plan(plan, self.knows_plan(plan))?;
        if by_admin || self.settings.is_open(plan) {
            return Ok(());
        }
        let message = "this plan cannot be chosen (accounts.open_plans)";
        Err(ApiError::bad_request("plan", message))
    }

    fn open_tenant(&self, asked: Option<String>) -> Result<String, ApiError> {
        let tenant = asked.unwrap_or_else(|| MAIN_TENANT.to_owned());
        let open = &self.settings.sign_up_tenants;
        if is_tenant(&tenant) && open.contains(&tenant) {
            return Ok(tenant);
        }
        Err(ApiError::bad_request("tenant", "nobody can sign up there"))
    }
}

/// An admin adds people to its own tenant.
fn own_tenant(admin: &Caller, asked: Option<String>) -> Result<String, ApiError> {
    let own = &*admin.claims.tenant;
    if asked.is_some_and(|asked| asked != *own) {
        let message = "an admin adds people to its own tenant";
        return Err(ApiError::bad_request("tenant", message));
    }
    Ok(own.to_owned())
}

/// 409: the name is somebody's.
pub(super) fn conflict(taken: Taken) -> ApiError {
    let (field, message) = match taken {
        Taken::Email => ("email", "somebody has signed up with this e-mail"),
        Taken::UserName => ("user_name", "somebody has this user name"),
    };
    ApiError::new(StatusCode::CONFLICT, "exists", message).with_field(field)
}
