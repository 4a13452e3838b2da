//! Lists by pages: `page` and `limit`, and the shape of their answers.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ApiError;

/// The query of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Only this tenant's,
    pub tenant: Option<String>,
    /// and only this account's.
    pub account: Option<String>,
    page: Option<u32>,
    limit: Option<u32>,
}

/// The query, as axum reads it.
pub type PageQuery = Result<Query<Listed>, QueryRejection>;

/// Which part of a list is shown.
pub struct List {
    page: u32,
    limit: u32,
}

/// One page of an operators' list.
pub struct Page {
    list: List,
    /// Only this tenant's,
    pub tenant: Option<String>,
    /// and only this account's.
    pub account: Option<String>,
}

impl Page {
    /// The page that a query asks for.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown or out of range.
    pub fn of(query: PageQuery) -> Result<Self, ApiError> {
        let Query(query) = query.map_err(bad_query)?;
        Ok(Self {
            list: List::new(query.page, query.limit)?,
            tenant: query.tenant,
            account: query.account,
        })
    }

    /// How many come before it, and how many are on it.
    #[must_use]
    pub fn span(&self) -> (usize, usize) {
        self.list.span()
    }

    /// The answer; `total` counts what is on all pages.
    #[must_use]
    pub fn list(&self, items: &[impl Serialize], total: usize) -> Value {
        self.list.answer(items, total)
    }
}

impl List {
    /// The first 30, unless it is said otherwise.
    ///
    /// # Errors
    /// 400 for what is out of range.
    pub fn new(page: Option<u32>, limit: Option<u32>) -> Result<Self, ApiError> {
        let (page, limit) = (page.unwrap_or(1), limit.unwrap_or(30));
        if page == 0 {
            return Err(ApiError::bad_request("page", "page starts at 1"));
        }
        if !(1..=100).contains(&limit) {
            return Err(ApiError::bad_request("limit", "limit is 1 to 100"));
        }
        Ok(Self { page, limit })
    }

    /// How many come before it, and how many are on it.
    #[must_use]
    pub fn span(&self) -> (usize, usize) {
        let limit = self.limit as usize;
        ((self.page as usize - 1).saturating_mul(limit), limit)
    }

    /// The answer; `total` counts what is on all pages.
    #[must_use]
    pub fn answer(&self, items: &[impl Serialize], total: usize) -> Value {
        json!({"items": items, "page": self.page, "limit": self.limit, "total": total})
    }
}

/// 400 for a query that cannot be read.
#[must_use]
#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
pub fn bad_query(rejection: QueryRejection) -> ApiError {
    ApiError::bad_request("query", rejection.body_text())
}
