//! What callers of this room send, as the document of the API describes it.
//!
//! Owns: the descriptions. Does not: read anything: the routes do, field by field, to name what is wrong.

#![expect(
    dead_code,
    reason = "only described: `Fields` reads them, to name what is wrong with them"
)]

use utoipa::ToSchema;

/// Somebody new.
#[derive(ToSchema)]
pub(super) struct NewUser {
    /// E-mail address, unique in any case.
    #[schema(
        max_length = 254,
        pattern = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,32}(\.[A-Za-z0-9_-]{1,8}){0,3}@([a-z0-9]{1,20}\.){1,3}[a-z]{2,10}$"
    )]
    email: String,
    /// Password: the fewest characters are `accounts.password_min`; common ones are refused.
    #[schema(min_length = 12, max_length = 128, format = Password)]
    password: String,
    /// A second name to sign in with, unique in any case.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    user_name: Option<String>,
    /// The name that others see; without it what stands before the @.
    #[schema(
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x1f\x7f-\x9f\s][^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: Option<String>,
    /// Where a picture is.
    #[schema(
        max_length = 2048,
        pattern = r"^https://[a-z0-9]{1,40}(\.[a-z0-9]{1,20}){1,3}(/[A-Za-z0-9._~!$&'()*+,;=:@-]{0,200}){0,5}$"
    )]
    picture: Option<String>,
    /// A plan; people choose among `accounts.open_plans`.
    #[schema(min_length = 1, max_length = 256)]
    plan: Option<String>,
    /// A tenant of `accounts.sign_up_tenants`. An admin adds people to its own.
    #[schema(pattern = "^main$", default = "main")]
    tenant: Option<String>,
    /// Scopes beside `watch`, with spaces between. Read from admins only; a stranger's is ignored.
    scope: Option<String>,
}

/// What changes of somebody. What is left out stays; `null` clears what may be missing.
#[derive(ToSchema)]
pub(super) struct UserChange {
    /// The name that others see.
    #[schema(
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x1f\x7f-\x9f\s][^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: Option<String>,
    /// Where a picture is.
    #[schema(
        max_length = 2048,
        pattern = r"^https://[a-z0-9]{1,40}(\.[a-z0-9]{1,20}){1,3}(/[A-Za-z0-9._~!$&'()*+,;=:@-]{0,200}){0,5}$"
    )]
    picture: Option<String>,
    /// The second name to sign in with.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    user_name: Option<String>,
    /// A plan; people choose among `accounts.open_plans`.
    #[schema(min_length = 1, max_length = 256)]
    plan: Option<String>,
    /// E-mail address. Only an admin may change it.
    #[schema(
        max_length = 254,
        pattern = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,32}(\.[A-Za-z0-9_-]{1,8}){0,3}@([a-z0-9]{1,20}\.){1,3}[a-z]{2,10}$"
    )]
    email: Option<String>,
    /// Scopes beside `watch`, with spaces between. Read from admins only.
    scope: Option<String>,
}

/// The device that signs in.
#[derive(ToSchema)]
pub(super) struct SignInDevice {
    /// Its id, as it plays. Ending the sign-in then ends what it plays.
    #[schema(max_length = 256, pattern = "^[ -~]{1,256}$")]
    device: Option<String>,
    /// Its name for people; without it the beginning of `User-Agent`.
    #[schema(max_length = 256, pattern = "^[ -~]{1,256}$")]
    device_name: Option<String>,
    /// The tenant in which the account is.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$", default = "main")]
    tenant: Option<String>,
}

/// What keeps a device signed in.
#[derive(ToSchema)]
pub(super) struct Refresh {
    /// `refresh_token` of the answer before.
    refresh_token: String,
}

/// Another password, by the one before.
#[derive(ToSchema)]
pub(super) struct PasswordChange {
    /// The next one.
    #[schema(min_length = 12, max_length = 128, format = Password)]
    password: String,
    /// The sign-in of this refresh token stays.
    refresh_token: Option<String>,
    /// The tenant in which the account is.
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$", default = "main")]
    tenant: Option<String>,
}

/// Another password, by a one-time token.
#[derive(ToSchema)]
pub(super) struct PasswordByToken {
    /// The one-time token.
    token: String,
    /// The next password.
    #[schema(min_length = 12, max_length = 128, format = Password)]
    password: String,
}

/// Somebody, as far as the caller may see: everybody sees `id`, `name` and `picture`.
#[derive(ToSchema)]
pub(super) struct ShownUser {
    id: String,
    #[schema(required = false)]
    name: String,
    picture: Option<String>,
    #[schema(required = false)]
    email: String,
    user_name: Option<String>,
    plan: Option<String>,
    #[schema(required = false)]
    scope: String,
    #[schema(required = false, value_type = String, format = DateTime)]
    created_at: String,
    #[schema(required = false, value_type = String, format = DateTime)]
    changed_at: String,
}
