//! `GET /v1/files/stats`: who used what.
//!
//! Owns: the groups, their totals, and the floor below which people are not told apart. Does not: count accesses
//! (`visits` does). Called by: the router.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::error::{ApiError, ErrorBody};
use crate::api::observe::Context;
use crate::api::page::bad_query;
use crate::db::{Sql, Work};

use super::Media;
use super::counts::{Counts, Library, Month, Used, groups, library, months, most_used, open, total};
use super::viewer::{Person, no_file};

/// What accesses may be grouped by; each is a column.
const DIMENSIONS: [&str; 7] = [
    "nation", "company", "language", "role", "category", "month", "kind",
];

/// Dimensions at once.
const MOST_DIMENSIONS: usize = 2;

/// Groups of one answer: what is beyond is counted as `other`.
const MOST_GROUPS: usize = 1000;

/// Groups that are not told apart.
const OTHER: &str = "other";

/// The query of [`stats`].
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// One or two, different ones, of nation, company, language, role, category, month and kind, with a comma between.
    #[param(
        nullable = false,
        example = "nation,role",
        pattern = "^((nation|company|language|role|category|month|kind)(,(nation|company|language|role|category|month|kind))?)?$"
    )]
    by: Option<String>,
    /// From this month on.
    #[param(nullable = false, pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    from: Option<String>,
    /// Up to this month.
    #[param(nullable = false, pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    to: Option<String>,
    /// Of this file alone.
    #[param(nullable = false)]
    file: Option<String>,
}

/// One group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccessGroup)]
pub(super) struct Group {
    /// The dimensions by which it was asked, and their values.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    of: Map<String, Value>,
    #[serde(flatten)]
    counts: Counts,
}

/// The answer of [`stats`].
#[derive(Serialize, ToSchema)]
#[schema(as = FileStats)]
pub(super) struct Stats {
    by: Vec<&'static str>,
    /// Over all groups; none where they are fewer people than the floor.
    #[schema(required)]
    total: Option<Counts>,
    /// `completed` of `accesses`.
    #[schema(required)]
    completion_rate: Option<f64>,
    /// Accesses that are not closed, and not counted here.
    open: i64,
    rows: Vec<Group>,
    /// Groups of fewer people are counted together.
    floor: u32,
    files: Library,
    most_used: Vec<Used>,
    months: Vec<Month>,
}

/// Who used what: closed accesses of the token's tenant, in groups.
///
/// By one or two of nation, company, language, role, category, month and kind; the rows add up to the total. Needs the
/// scope editor, admin, operator, finance or support.
#[utoipa::path(
    get,
    path = "/v1/files/stats",
    tag = "media",
    params(Asked),
    responses(
        (status = 200, description = "The counts", body = Stats),
        (status = 404, description = "`not_found`: there is no such file", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn stats(
    State(media): State<Arc<Media>>,
    Extension(context): Extension<Context>,
    query: Result<Query<Asked>, QueryRejection>,
    request: Request,
) -> Result<Json<Stats>, ApiError> {
    let (parts, _) = request.into_parts();
    let person = allowed(media.person(&context, &parts).await?)?;
    let Query(query) = query.map_err(bad_query)?;
    let scope = Scope::of(
        &person,
        query.file.as_ref(),
        (query.from.as_ref(), query.to.as_ref()),
    )?;
    let by = dimensions(query.by.as_deref())?;
    let floor = media.settings.statistics.floor;
    let mut work = media.api.db()?.connect().await?;
    scope.check(&mut work).await?;
    let total = total(&mut work, &scope).await?;
    let shown = total.unique.unwrap_or_default() >= i64::from(floor);
    let rows = if shown && !by.is_empty() {
        let groups = groups(&mut work, &scope, &by).await?;
        told_apart(groups, &by, i64::from(floor))
    } else {
        Vec::new()
    };
    let completion_rate = (shown && total.accesses > 0).then(|| ratio(total.completed, total.accesses));
    Ok(Json(Stats {
        total: shown.then_some(total),
        completion_rate,
        open: open(&mut work, &scope).await?,
        rows,
        floor,
        files: library(&mut work, &scope).await?,
        most_used: most_used(&mut work, &scope, i64::from(floor)).await?,
        months: months(&mut work, &scope).await?,
        by,
    }))
}

/// Whoever may see what others fetched.
///
/// # Errors
/// 403.
pub(super) fn allowed(person: Person) -> Result<Person, ApiError> {
    if person.sees_statistics() {
        return Ok(person);
    }
    let message = "the token's scope does not allow to see accesses";
    Err(ApiError::forbidden("scope_forbidden", message))
}

/// Which accesses are asked about.
pub(super) struct Scope {
    pub(super) tenant: String,
    from: Option<String>,
    to: Option<String>,
    file: Option<String>,
}

impl Scope {
    /// Of this file alone, in these months.
    ///
    /// # Errors
    /// 400 for what is no month.
    pub(super) fn of(
        person: &Person,
        file: Option<&String>,
        (from, to): (Option<&String>, Option<&String>),
    ) -> Result<Self, ApiError> {
        let month = |field, text: Option<&String>| match text {
            Some(text) if !is_month(text) => Err(ApiError::bad_request(
                field,
                format!("{field} must be a month, such as 2026-11"),
            )),
            text => Ok(text.cloned()),
        };
        Ok(Self {
            tenant: person.tenant.to_string(),
            from: month("from", from)?,
            to: month("to", to)?,
            file: file.cloned(),
        })
    }

    /// Whether the tenant has, or had, the file that is asked about.
    ///
    /// # Errors
    /// 404: another tenant's file is as none.
    pub(super) async fn check(&self, work: &mut Work) -> Result<(), ApiError> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut sql = Sql::new("SELECT 1 FROM files WHERE state <> 'receiving' AND tenant = ");
        sql.bind(&*self.tenant).push(" AND id = ").bind(&**file);
        sql.push(" UNION ALL SELECT 1 FROM file_accesses WHERE tenant = ");
        sql.bind(&*self.tenant).push(" AND file_id = ").bind(&**file);
        sql.push(" LIMIT 1");
        let found = work.fetch_optional(sql.query()).await?;
        found.map(|_| ()).ok_or_else(no_file)
    }

    /// Goes on with the tenant and the rest.
    pub(super) fn narrow(&self, sql: &mut Sql) {
        sql.bind(&*self.tenant);
        if let Some(from) = &self.from {
            sql.push(" AND month >= ").bind(&**from);
        }
        if let Some(to) = &self.to {
            sql.push(" AND month <= ").bind(&**to);
        }
        if let Some(file) = &self.file {
            sql.push(" AND file_id = ").bind(&**file);
        }
    }
}

fn is_month(text: &str) -> bool {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-').is_some_and(|(year, month)| {
        year.len() == 4 && month.len() == 2 && number(year) && number(month) && ("01"..="12").contains(&month)
    })
}

fn dimensions(asked: Option<&str>) -> Result<Vec<&'static str>, ApiError> {
    let names = asked
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let mut found: Vec<&'static str> = Vec::new();
    for name in names {
        let known = DIMENSIONS.iter().find(|known| **known == name);
        let known = known.filter(|known| !found.contains(known) && found.len() < MOST_DIMENSIONS);
        found.push(known.ok_or_else(|| {
            let message = format!("by is at most two, different ones, of {}", DIMENSIONS.join(", "));
            ApiError::bad_request("by", message)
        })?);
    }
    Ok(found)
}

/// Counts groups below the floor together, with the smallest of the others, so that nobody learns them by subtracting;
/// the rows still add up to the total.
fn told_apart(groups: Vec<(Vec<String>, Counts)>, by: &[&'static str], floor: i64) -> Vec<Group> {
    let is_large = |counts: &Counts| counts.unique.unwrap_or_default() >= floor;
    let (mut large, mut small): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|(_, counts)| is_large(counts));
    if !small.is_empty()
        && let Some(smallest) = large.pop()
    {
        small.push(smallest);
    }
    if large.len() > MOST_GROUPS {
        small.extend(large.split_off(MOST_GROUPS));
    }
    let mut rows: Vec<Group> = large
        .into_iter()
        .map(|(of, counts)| group(by, &of, counts))
        .collect();
    if !small.is_empty() {
        let mut together = Counts::default();
        for (_, counts) in &small {
            together.accesses += counts.accesses;
            together.bytes += counts.bytes;
            together.completed += counts.completed;
        }
        let other = vec![OTHER.to_owned(); by.len()];
        rows.push(group(by, &other, together));
    }
    rows
}

fn group(by: &[&'static str], of: &[String], counts: Counts) -> Group {
    let of = by
        .iter()
        .zip(of)
        .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())));
    Group {
        of: of.collect(),
        counts,
    }
}

/// A share of a whole. Counts are far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(name: &str, accesses: i64, unique: i64) -> (Vec<String>, Counts) {
        let counts = Counts {
            accesses,
            unique: Some(unique),
            bytes: accesses * 10,
            completed: 0,
        };
        (vec![name.to_owned()], counts)
    }

    #[test]
    fn small_groups_are_counted_together_and_everything_adds_up() {
        let groups = || {
            vec![
                counted("IT", 7, 5),
                counted("FR", 4, 4),
                counted("DE", 2, 2),
                counted("AT", 1, 1),
            ]
        };
        for floor in 0..8 {
            let rows = told_apart(groups(), &["nation"], floor);
            assert_eq!(
                rows.iter().map(|row| row.counts.accesses).sum::<i64>(),
                14,
                "{floor}"
            );
            assert_eq!(rows.iter().map(|row| row.counts.bytes).sum::<i64>(), 140);
            for row in &rows {
                let other = row.of["nation"] == OTHER;
                assert_eq!(other, row.counts.unique.is_none());
                assert!(other || row.counts.unique >= Some(floor), "{floor}: {row:?}");
            }
        }
        let names = |floor| {
            let rows = told_apart(groups(), &["nation"], floor);
            rows.iter()
                .map(|row| row.of["nation"].to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names(0), "\"IT\" \"FR\" \"DE\" \"AT\"");
        // France is taken along: else the total less what is shown would tell of three people.
        assert_eq!(names(4), "\"IT\" \"other\"");
        assert_eq!(names(2), "\"IT\" \"FR\" \"other\"");
        assert_eq!(names(9), "\"other\"");
    }

    #[test]
    fn at_most_two_different_dimensions() {
        assert_eq!(dimensions(None).unwrap_or_default(), Vec::<&str>::new());
        assert_eq!(
            dimensions(Some("role, nation")).unwrap_or_default(),
            ["role", "nation"]
        );
        for bad in ["role,role", "role,nation,month", "account", "1; DROP"] {
            assert!(dimensions(Some(bad)).is_err(), "{bad}");
        }
        assert!(is_month("2026-11") && !is_month("2026-13") && !is_month("2026-1") && !is_month("x"));
    }
}
