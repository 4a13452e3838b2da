//! Lists by pages: `page` and `limit`, and the shape of their answers.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::{Deserialize, Serialize};

use crate::auth::is_tenant;

use super::error::ApiError;

/// The last page that may be asked for.
const MAX_PAGE: u32 = 1_000_000;

/// One page of a list.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Listing<T> {
    items: Vec<T>,
    /// The page's number, from 1.
    #[schema(minimum = 1)]
    page: u32,
    /// How many are on a page.
    #[schema(minimum = 1)]
    limit: u32,
    /// How many are on all pages.
    total: usize,
}

impl<T> Listing<T> {
    /// All of them on one page.
    #[must_use]
    pub fn whole(items: Vec<T>) -> Self {
        let total = items.len();
        Self {
            items,
            page: 1,
            limit: u32::try_from(total.max(1)).unwrap_or(u32::MAX),
            total,
        }
    }
}

/// The query of a list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Only this tenant's.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    pub(super) tenant: Option<String>,
    /// Only this account's.
    #[param(nullable = false)]
    pub(super) account: Option<String>,
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
}

/// The query of a list of one account, which the path names.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described: `Listed` reads it")]
pub(super) struct OfAccount {
    /// The account's tenant; left out: the token's. Another one takes the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
}

/// The query of what concerns a whole account.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described: `accounts::Which` reads it")]
pub(super) struct InTenant {
    /// The account's tenant; left out: the token's. Another one takes the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}

pub(super) type PageQuery = Result<Query<Listed>, QueryRejection>;

/// Which part of a list is shown.
pub(crate) struct List {
    page: u32,
    limit: u32,
}

/// One page of an operators' list.
pub(super) struct Page {
    list: List,
    /// Only this tenant's,
    pub(super) tenant: Option<String>,
    /// and only this account's.
    pub(super) account: Option<String>,
}

impl Page {
    /// # Errors
    /// 400 for a parameter that is unknown or out of range.
    pub(super) fn of(query: PageQuery) -> Result<Self, ApiError> {
        let Query(query) = query.map_err(bad_query)?;
        if query.tenant.as_deref().is_some_and(|tenant| !is_tenant(tenant)) {
            return Err(ApiError::bad_request("tenant", "no such name of a tenant"));
        }
        Ok(Self {
            list: List::new(query.page, query.limit)?,
            tenant: query.tenant,
            account: query.account,
        })
    }

    /// How many come before it, and how many are on it.
    pub(super) fn span(&self) -> (usize, usize) {
        self.list.span()
    }

    /// The answer; `total` counts what is on all pages.
    pub(super) fn list<T>(&self, items: Vec<T>, total: usize) -> Listing<T> {
        self.list.answer(items, total)
    }
}

impl List {
    /// The first 30, unless it is said otherwise.
    ///
    /// # Errors
    /// 400 for what is out of range.
    pub(crate) fn new(page: Option<u32>, limit: Option<u32>) -> Result<Self, ApiError> {
        let (page, limit) = (page.unwrap_or(1), limit.unwrap_or(30));
        if !(1..=MAX_PAGE).contains(&page) {
            return Err(ApiError::bad_request("page", "page is 1 to 1000000"));
        }
        if !(1..=100).contains(&limit) {
            return Err(ApiError::bad_request("limit", "limit is 1 to 100"));
        }
        Ok(Self { page, limit })
    }

    /// How many come before it, and how many are on it.
    #[must_use]
    pub(crate) fn span(&self) -> (usize, usize) {
        let limit = self.limit as usize;
        ((self.page as usize - 1).saturating_mul(limit), limit)
    }

    /// The answer; `total` counts what is on all pages.
    #[must_use]
    pub(crate) fn answer<T>(&self, items: Vec<T>, total: usize) -> Listing<T> {
        Listing {
            items,
            page: self.page,
            limit: self.limit,
            total,
        }
    }
}

/// 400 for a query that cannot be read.
#[must_use]
#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
pub(crate) fn bad_query(rejection: QueryRejection) -> ApiError {
    ApiError::bad_request("query", rejection.body_text())
}
