//! Whose a content is: the label of its track, or, of what is no track, the one that the catalogue names.
//!
//! Owns: how statements look it up. Called by: `figures`, `inputs` and the reports.

use crate::db::Sql;

/// The label; an empty text is none.
pub(super) const LABEL: &str = "coalesce(t.label, k.label, '')";

/// 1 where neither tracks nor the catalogue know the content.
pub(super) const MISSING: &str = "CAST(CASE WHEN t.id IS NULL AND k.id IS NULL THEN 1 ELSE 0 END AS BIGINT)";

/// Joins what is known of the content that this column names: [`LABEL`] and [`MISSING`] read it.
pub(super) fn push_labels(sql: &mut Sql, content: &'static str, tenant: &str) {
    sql.push(" LEFT JOIN tracks t ON t.id = ").push(content);
    sql.push(" AND t.tenant = ").bind(tenant.to_owned());
    sql.push(" LEFT JOIN contents k ON k.id = ").push(content);
    sql.push(" AND k.tenant = ").bind(tenant.to_owned());
}
