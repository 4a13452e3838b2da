//! Files of the installation that contents name: a content names only those that its tenant has.
//!
//! Owns: that check. Does not: keep files (`media` does) or give them out. Called by: the routes and the import.

use std::collections::HashSet;

use sqlx::Row;

use crate::api::error::ApiError;
use crate::db::{DbError, Sql, Work};

use super::item::Item;

/// Files of a tenant.
pub(super) struct Files(HashSet<String>);

impl Files {
    /// Those that contents name and the tenant has, in whatever state but half-way.
    ///
    /// # Errors
    /// As [`DbError`] says.
    pub(super) async fn named<'i>(
        work: &mut Work,
        tenant: &str,
        items: impl IntoIterator<Item = &'i Item>,
    ) -> Result<Self, DbError> {
        let ids: HashSet<&str> = items
            .into_iter()
            .flat_map(Item::files)
            .map(|(_, file)| file)
            .collect();
        if ids.is_empty() {
            return Ok(Self(HashSet::new()));
        }
        let mut sql = Sql::new("SELECT id FROM files WHERE state <> 'receiving' AND tenant = ");
        sql.bind(tenant).push(" AND id IN (").bind_all(ids).push(")");
        let rows = work.fetch_all(sql.query()).await?;
        let found: Result<_, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
        Ok(Self(found?))
    }

    /// Whether a content names only files that are there.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) fn check(&self, item: &Item) -> Result<(), ApiError> {
        let unknown = item.files().find(|(_, file)| !self.0.contains(*file));
        unknown.map_or(Ok(()), |(field, file)| {
            let problem = format!("{field} names the unknown file {file:?}");
            Err(ApiError::bad_request(field, problem))
        })
    }
}

/// As [`Files::check`], for one content.
///
/// # Errors
/// 400 that names the field, or the database's.
pub(super) async fn check(work: &mut Work, tenant: &str, item: &Item) -> Result<(), ApiError> {
    Files::named(work, tenant, [item]).await?.check(item)
}
