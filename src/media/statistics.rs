//! `GET /v1/files/stats` and `/v1/files/accesses`: who used what.
//!
//! Owns: the groups, their totals, and the floor below which people are not told apart. Does not: count accesses
//! (`visits` does). Called by: the router.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::db::{DbError, Sql, Work};

use super::Media;
use super::file::time;
use super::files::signed;
use super::viewer::Person;

/// What accesses may be grouped by; each is a column.
const DIMENSIONS: [&str; 7] = [
    "nation", "company", "language", "role", "category", "month", "kind",
];

/// Dimensions at once.
const MOST_DIMENSIONS: usize = 2;

/// Groups of one answer: what is beyond is counted as `other`.
const MOST_GROUPS: usize = 1000;

/// Files in the list of the most used.
const TOP: i64 = 10;

/// Months in the list of uploads and usage.
const MONTHS: i64 = 120;

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
        pattern = "^(nation|company|language|role|category|month|kind)$"
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

/// What was counted.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AccessCounts)]
pub(super) struct Counts {
    /// Closed accesses.
    accesses: i64,
    /// Accounts among them; none where they are not told apart.
    #[schema(required)]
    unique: Option<i64>,
    /// Bytes that were sent.
    bytes: i64,
    /// Accesses that had nearly all of the file, and its end.
    completed: i64,
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

/// The files themselves.
#[derive(Serialize, ToSchema)]
#[schema(as = FileTotals)]
struct Library {
    count: i64,
    bytes: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FileUse)]
struct Used {
    file: String,
    #[schema(required)]
    title: Option<String>,
    accesses: i64,
    unique: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FileMonth)]
struct Month {
    month: String,
    uploads: i64,
    accesses: i64,
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
    responses((status = 200, description = "The counts", body = Stats)),
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
    let scope = Scope::of(&person, &query)?;
    let by = dimensions(query.by.as_deref())?;
    let floor = media.settings.statistics.floor;
    let mut work = media.api.db()?.connect().await?;
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

/// The query of [`accesses`].
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
    /// Of this file alone.
    #[param(nullable = false)]
    file: Option<String>,
    /// From this month on.
    #[param(nullable = false, pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    from: Option<String>,
    /// Up to this month.
    #[param(nullable = false, pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    to: Option<String>,
}

/// One access.
#[derive(Serialize, ToSchema)]
#[schema(as = FileAccess)]
pub(super) struct Access {
    id: String,
    file: String,
    /// `play`, `stream` or `download`.
    kind: String,
    account: String,
    role: String,
    nation: String,
    provider: String,
    language: String,
    category: String,
    bytes: i64,
    /// Whether nearly all of the file was fetched, and its end.
    completed: bool,
    #[schema(format = DateTime)]
    opened_at: String,
    #[schema(required, format = DateTime)]
    closed_at: Option<String>,
}

/// Accesses one by one, the newest first.
///
/// Who, in which role, fetched which file of which provider, from when until when. Scopes as for the counts; with
/// `media.statistics.floor` editor, admin or operator.
#[utoipa::path(
    get,
    path = "/v1/files/accesses",
    tag = "media",
    params(Listed),
    responses((status = 200, description = "The accesses", body = Listing<Access>)),
    security(("bearer" = []))
)]
pub(super) async fn accesses(
    State(media): State<Arc<Media>>,
    Extension(context): Extension<Context>,
    query: Result<Query<Listed>, QueryRejection>,
    request: Request,
) -> Result<Json<Listing<Access>>, ApiError> {
    let (parts, _) = request.into_parts();
    let person = allowed(media.person(&context, &parts).await?)?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let asked = Asked {
        by: None,
        from: query.from,
        to: query.to,
        file: query.file,
    };
    let scope = Scope::of(&person, &asked)?;
    if media.settings.statistics.floor > 1 && !person.is_staff() {
        let message = "single accesses are shown to editors and admins only";
        return Err(ApiError::forbidden("scope_forbidden", message));
    }
    let mut work = media.api.db()?.connect().await?;
    let mut sql = Sql::new("SELECT count(*) FROM file_accesses WHERE tenant = ");
    scope.narrow(&mut sql);
    let found: i64 = work.fetch_one(sql.query()).await?.get(0);
    let (skip, most) = page.span();
    let mut sql = Sql::new(
        "SELECT id, file_id, kind, account, role, nation, company, language, category, bytes, completed, opened_at, \
         closed_at FROM file_accesses WHERE tenant = ",
    );
    scope.narrow(&mut sql);
    sql.push(" ORDER BY opened_at DESC, id LIMIT ")
        .bind(signed(most as u64));
    sql.push(" OFFSET ").bind(signed(skip as u64));
    let rows = work.fetch_all(sql.query()).await?;
    let items = rows.iter().map(Access::of).collect();
    Ok(Json(
        page.answer(items, usize::try_from(found).unwrap_or_default()),
    ))
}

impl Access {
    fn of(row: &AnyRow) -> Self {
        Self {
            id: row.get("id"),
            file: row.get("file_id"),
            kind: row.get("kind"),
            account: row.get("account"),
            role: row.get("role"),
            nation: row.get("nation"),
            provider: row.get("company"),
            language: row.get("language"),
            category: row.get("category"),
            bytes: row.get("bytes"),
            completed: row.get::<i64, _>("completed") == 1,
            opened_at: time(row.get("opened_at")),
            closed_at: row.get::<Option<i64>, _>("closed_at").map(time),
        }
    }
}

fn allowed(person: Person) -> Result<Person, ApiError> {
    if person.sees_statistics() {
        return Ok(person);
    }
    let message = "the token's scope does not allow to see accesses";
    Err(ApiError::forbidden("scope_forbidden", message))
}

/// Which accesses are asked about.
struct Scope {
    tenant: String,
    from: Option<String>,
    to: Option<String>,
    file: Option<String>,
}

impl Scope {
    fn of(person: &Person, asked: &Asked) -> Result<Self, ApiError> {
        let month = |field, text: &Option<String>| match text {
            Some(text) if !is_month(text) => Err(ApiError::bad_request(
                field,
                format!("{field} must be a month, such as 2026-11"),
            )),
            text => Ok(text.clone()),
        };
        Ok(Self {
            tenant: person.tenant.to_string(),
            from: month("from", &asked.from)?,
            to: month("to", &asked.to)?,
            file: asked.file.clone(),
        })
    }

    fn narrow(&self, sql: &mut Sql) {
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

async fn total(work: &mut Work, scope: &Scope) -> Result<Counts, DbError> {
    let mut sql = Sql::new(
        "SELECT count(*), count(DISTINCT account), CAST(COALESCE(sum(bytes), 0) AS BIGINT), \
         CAST(COALESCE(sum(completed), 0) AS BIGINT) FROM file_accesses WHERE closed_at IS NOT NULL AND tenant = ",
    );
    scope.narrow(&mut sql);
    let row = work.fetch_one(sql.query()).await?;
    Ok(Counts {
        accesses: row.get(0),
        unique: Some(row.get(1)),
        bytes: row.get(2),
        completed: row.get(3),
    })
}

/// The largest groups first.
async fn groups(
    work: &mut Work,
    scope: &Scope,
    by: &[&'static str],
) -> Result<Vec<(Vec<String>, Counts)>, DbError> {
    let mut sql = Sql::new("SELECT ");
    let names = |sql: &mut Sql| {
        for (at, name) in by.iter().enumerate() {
            sql.push(if at > 0 { ", " } else { "" }).push(name);
        }
    };
    names(&mut sql);
    sql.push(
        ", count(*), count(DISTINCT account), CAST(COALESCE(sum(bytes), 0) AS BIGINT), \
         CAST(COALESCE(sum(completed), 0) AS BIGINT) FROM file_accesses WHERE closed_at IS NOT NULL AND tenant = ",
    );
    scope.narrow(&mut sql);
    sql.push(" GROUP BY ");
    names(&mut sql);
    sql.push(" ORDER BY count(*) DESC, ");
    names(&mut sql);
    let rows = work.fetch_all(sql.query()).await?;
    let group = |row: &AnyRow| {
        let of = (0..by.len()).map(|at| row.get::<String, _>(at)).collect();
        let at = by.len();
        let counts = Counts {
            accesses: row.get(at),
            unique: Some(row.get(at + 1)),
            bytes: row.get(at + 2),
            completed: row.get(at + 3),
        };
        (of, counts)
    };
    Ok(rows.iter().map(group).collect())
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

async fn open(work: &mut Work, scope: &Scope) -> Result<i64, DbError> {
    let mut sql = Sql::new("SELECT count(*) FROM file_accesses WHERE closed_at IS NULL AND tenant = ");
    scope.narrow(&mut sql);
    Ok(work.fetch_one(sql.query()).await?.get(0))
}

async fn library(work: &mut Work, scope: &Scope) -> Result<Library, DbError> {
    let mut sql = Sql::new(
        "SELECT count(*), CAST(COALESCE(sum(size), 0) AS BIGINT) FROM files WHERE state <> 'receiving' AND tenant = ",
    );
    sql.bind(&*scope.tenant);
    let row = work.fetch_one(sql.query()).await?;
    Ok(Library {
        count: row.get(0),
        bytes: row.get(1),
    })
}

async fn most_used(work: &mut Work, scope: &Scope, floor: i64) -> Result<Vec<Used>, DbError> {
    let mut sql = Sql::new(
        "SELECT file_id, (SELECT title FROM files WHERE files.id = file_id AND files.tenant = file_accesses.tenant), \
         count(*), count(DISTINCT account) FROM file_accesses WHERE closed_at IS NOT NULL AND tenant = ",
    );
    scope.narrow(&mut sql);
    sql.push(" GROUP BY tenant, file_id HAVING count(DISTINCT account) >= ")
        .bind(floor);
    sql.push(" ORDER BY count(*) DESC, file_id LIMIT ").bind(TOP);
    let rows = work.fetch_all(sql.query()).await?;
    let used = rows.iter().map(|row| Used {
        file: row.get(0),
        title: row.get(1),
        accesses: row.get(2),
        unique: row.get(3),
    });
    Ok(used.collect())
}

/// Uploads beside usage.
async fn months(work: &mut Work, scope: &Scope) -> Result<Vec<Month>, DbError> {
    let mut sql = Sql::new(
        "SELECT month, CAST(sum(uploads) AS BIGINT), CAST(sum(accesses) AS BIGINT) FROM (\
         SELECT month, 1 AS uploads, 0 AS accesses FROM files WHERE state <> 'receiving' AND tenant = ",
    );
    sql.bind(&*scope.tenant);
    sql.push(" UNION ALL SELECT month, 0, 1 FROM file_accesses WHERE closed_at IS NOT NULL AND tenant = ");
    scope.narrow(&mut sql);
    sql.push(") AS both_of_them GROUP BY month ORDER BY month DESC LIMIT ")
        .bind(MONTHS);
    let rows = work.fetch_all(sql.query()).await?;
    let months = rows.iter().map(|row| Month {
        month: row.get(0),
        uploads: row.get(1),
        accesses: row.get(2),
    });
    Ok(months.collect())
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
