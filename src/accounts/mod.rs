//! People's accounts: sign-up, sign-in, passwords, and what is known about a person.
//!
//! Owns: the tables `users`, `sign_ins` and `password_resets`, the rules of their fields, the hashing of passwords, and the
//! routes under `/v1/users` and `/v1/auth`. docs/accounts.md says what they promise.
//! Does not: decide who may play. A signed token is enough for that, whatever this room knows; it only issues some.
//! Called by: `app`, which merges the routes, and `usher accounts`.

mod basic;
mod caller;
mod common;
mod entry;
mod export;
mod list;
mod new_password;
mod passwords;
pub(crate) mod people;
pub(crate) mod person;
mod remembered;
pub(crate) mod resets;
mod rules;
mod shapes;
mod sign_ins;
mod sign_up;
mod staff;
mod stored;
pub(crate) mod tools;
mod users;

use std::sync::Arc;
use std::time::Duration;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::config;
use crate::lease::model::Order;
use crate::lease::store::StoreError;
use crate::net::limits::TryLimits;
use crate::protocol::close::EndCode;
use crate::protocol::id::AccountKey;

pub use remembered::Remembered;

use passwords::Passwords;

/// How often rows that have run out are forgotten.
const SWEEP: Duration = Duration::from_secs(600);

/// What the routes of this room work with.
pub struct Accounts {
    api: Arc<Api>,
    settings: config::Accounts,
    passwords: Passwords,
    tries: TryLimits,
    /// What other rooms know about people.
    others: Vec<Arc<dyn Remembered>>,
}

impl Accounts {
    /// The room, with threads of its own for passwords. `others` are the rooms that remember people too.
    #[must_use]
    pub fn new(api: &Arc<Api>, settings: &config::Accounts, others: Vec<Arc<dyn Remembered>>) -> Self {
        Self {
            passwords: Passwords::new(settings, Arc::clone(&api.metrics)),
            tries: TryLimits::new(settings, Arc::clone(&api.addressing)),
            settings: settings.clone(),
            api: Arc::clone(api),
            others,
        }
    }

    /// Forgets what has run out, from time to time, for as long as the node lives.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(db) = &self.api.db else { return };
            if let Err(error) = sign_ins::sweep(db).await {
                tracing::debug!(%error, "sign-ins that ran out stay for now");
            }
        }
    }

    /// Ends what an account plays, on all nodes, or what one device of it plays.
    async fn end_sessions(&self, account: &AccountKey, device: Option<&str>) -> Result<(), StoreError> {
        let lease = &self.api.gateway.lease;
        let meant = |id: &str| device.is_none_or(|device| device == id);
        for entry in lease.list(account).await? {
            if meant(&entry.device.id) {
                let order = Order::Kick {
                    session: entry.session,
                    code: EndCode::EndedByOperator,
                };
                lease.order(account, order).await?;
            }
        }
        Ok(())
    }

    /// Whether there is such a plan. While none is configured any name is one: a token may name it all the same.
    fn knows_plan(&self, plan: &str) -> bool {
        self.api.gateway.policy.load().knows_plan(plan)
    }
}

/// The routes under `/v1/users` and `/v1/auth`.
pub fn routes(accounts: &Arc<Accounts>) -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(routes!(sign_up::sign_up, list::list))
        .routes(routes!(users::show, users::change, users::remove))
        .routes(routes!(export::export))
        .routes(routes!(new_password::change_password))
        .routes(routes!(new_password::grant_reset))
        .routes(routes!(entry::sign_in, entry::sign_out))
        .routes(routes!(entry::sign_out_everywhere))
        .routes(routes!(entry::refresh))
        .routes(routes!(new_password::reset))
        .routes(routes!(entry::devices))
        .routes(routes!(entry::forget_device))
        .with_state(Arc::clone(accounts))
}

/// 404 for a person, whether there never was one or it is another tenant's.
fn nobody() -> ApiError {
    ApiError::not_found("there is no such user")
}
