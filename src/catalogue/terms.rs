//! The managed lists: which categories, languages and roles the contents of a tenant may name.
//!
//! Owns: the table `content_terms`, its routes, and the check of a content against it. A term has an id, which contents
//! name, and a name for people. Called by: the catalogue's router, import, `demo`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::Row;

use crate::api::error::{ApiError, ErrorBody};
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::db::{DbError, Sql, Work};

use super::item::{Item, MAX_WORD_BYTES, is_word};
use super::shape::{Term, TermBody};
use super::store::joined;
use super::{Catalogue, EDITORS, VIEWERS};

/// Longest name of a term, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Most terms of a kind and tenant: an import knows all of them.
const MOST: i64 = 1000;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Category,
    Language,
    Role,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Category => "category",
            Self::Language => "language",
            Self::Role => "role",
        }
    }

    const ALL: [Self; 3] = [Self::Category, Self::Language, Self::Role];
}

/// The terms of a tenant.
#[derive(Debug, Default)]
pub(super) struct Terms(HashSet<(Kind, String)>);

impl Terms {
    /// All of them.
    pub(super) async fn read(work: &mut Work, tenant: &str) -> Result<Self, DbError> {
        let mut sql = Sql::new("SELECT kind, id FROM content_terms WHERE tenant = ");
        sql.bind(tenant);
        Self::of(work, sql).await
    }

    /// Those that a content names.
    async fn named(work: &mut Work, tenant: &str, item: &Item) -> Result<Self, DbError> {
        let ids = item.category.iter().chain(&item.language).chain(&item.roles);
        let ids: Vec<&str> = ids.map(String::as_str).collect();
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let mut sql = Sql::new("SELECT kind, id FROM content_terms WHERE tenant = ");
        sql.bind(tenant).push(" AND id IN (").bind_all(ids).push(")");
        Self::of(work, sql).await
    }

    async fn of(work: &mut Work, sql: Sql) -> Result<Self, DbError> {
        let mut terms = HashSet::new();
        for row in work.fetch_all(sql.query()).await? {
            let (kind, id): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
            terms.extend(kind.map(|kind| (kind, id)));
        }
        Ok(Self(terms))
    }

    /// Whether a content names only what there is.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) fn check(&self, item: &Item) -> Result<(), ApiError> {
        let named = [
            ("category", Kind::Category, item.category.as_slice()),
            ("language", Kind::Language, item.language.as_slice()),
            ("roles", Kind::Role, &item.roles),
        ];
        for (field, kind, ids) in named {
            let unknown = ids.iter().find(|id| !self.0.contains(&(kind, (*id).clone())));
            if let Some(id) = unknown {
                let problem = format!("{field} names the unknown {} {id:?}", kind.name());
                return Err(ApiError::bad_request(field, problem));
            }
        }
        Ok(())
    }
}

/// As [`Terms::check`], for one content.
///
/// # Errors
/// 400 that names the field, or the database's.
pub(super) async fn check(work: &mut Work, tenant: &str, item: &Item) -> Result<(), ApiError> {
    Terms::named(work, tenant, item).await?.check(item)
}

/// Adds terms that are missing.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn add_missing(
    work: &mut Work,
    tenant: &str,
    terms: &[(Kind, &str, &str)],
) -> Result<(), DbError> {
    for (kind, id, name) in terms {
        let mut sql = Sql::new("INSERT INTO content_terms (tenant, kind, id, name, demo) VALUES (");
        sql.bind_all([tenant, kind.name(), id, name])
            .push(", ")
            .bind(1_i64);
        sql.push(") ON CONFLICT (tenant, kind, id) DO NOTHING");
        work.execute(sql.query()).await?;
    }
    Ok(())
}

/// Takes out what was added as a demo and no content names.
///
/// # Errors
/// As [`DbError`] says.
pub(super) async fn remove_demo(work: &mut Work, tenant: &str) -> Result<(), DbError> {
    let mut sql = Sql::new("SELECT kind, id FROM content_terms WHERE demo = 1 AND tenant = ");
    sql.bind(tenant);
    let terms = Terms::of(work, sql).await?;
    for (kind, id) in terms.0 {
        if !is_used(work, tenant, kind, &id).await? {
            remove(work, tenant, kind, &id).await?;
        }
    }
    Ok(())
}

async fn remove(work: &mut Work, tenant: &str, kind: Kind, id: &str) -> Result<bool, DbError> {
    let mut sql = Sql::new("DELETE FROM content_terms WHERE tenant = ");
    sql.bind(tenant).push(" AND kind = ").bind(kind.name());
    sql.push(" AND id = ").bind(id);
    Ok(work.execute(sql.query()).await? > 0)
}

async fn is_used(work: &mut Work, tenant: &str, kind: Kind, id: &str) -> Result<bool, DbError> {
    let mut sql = Sql::new("SELECT id FROM contents WHERE tenant = ");
    sql.bind(tenant);
    match kind {
        Kind::Category => sql.push(" AND category = ").bind(id),
        Kind::Language => sql.push(" AND language = ").bind(id),
        Kind::Role => sql
            .push(" AND replace(roles, ")
            .bind(joined(&[id]))
            .push(", '') <> roles"),
    };
    sql.push(" LIMIT 1");
    Ok(work.fetch_optional(sql.query()).await?.is_some())
}

type Shared = State<Arc<Catalogue>>;
type Who = Extension<Context>;
type TermPath = Result<Path<String>, PathRejection>;

/// The query of a list of terms.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Which page, from 1.
    #[param(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    page: Option<u32>,
    /// How many are on a page.
    #[param(nullable = false, minimum = 1, maximum = 100, default = 30)]
    limit: Option<u32>,
}

type ListedQuery = Result<Query<Listed>, QueryRejection>;

async fn list(
    kind: Kind,
    State(catalogue): Shared,
    Extension(context): Who,
    query: ListedQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = catalogue.api.caller_with(&context, request, &VIEWERS).await?;
    let Query(query) = query.map_err(bad_query)?;
    let page = List::new(query.page, query.limit)?;
    let mut sql = Sql::new("SELECT id, name FROM content_terms WHERE tenant = ");
    sql.bind(&*claims.tenant).push(" AND kind = ").bind(kind.name());
    sql.push(" ORDER BY id");
    let rows = catalogue.api.db()?.fetch_all(sql.query()).await?;
    let (start, limit) = page.span();
    let mut items = Vec::new();
    for row in rows.iter().skip(start).take(limit) {
        let read = |at: usize| row.try_get::<String, _>(at).map_err(DbError::from);
        items.push(Term {
            id: read(0)?,
            name: read(1)?,
        });
    }
    Ok(Json(page.answer(items, rows.len())).into_response())
}

/// Adds a term, or gives it another name. The body may be left out: its name is its id then.
async fn put(
    kind: Kind,
    State(catalogue): Shared,
    Extension(context): Who,
    term: TermPath,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = catalogue.api.caller_with(&context, request, &EDITORS).await?;
    let id = term
        .ok()
        .map(|Path(id)| id)
        .filter(|id| is_word(id))
        .ok_or_else(|| {
            let problem =
                format!("an id is 1 to {MAX_WORD_BYTES} bytes without semicolons and control characters");
            ApiError::bad_request("id", problem)
        })?;
    let mut name = None;
    if !axum::body::HttpBody::is_end_stream(request.body()) {
        let mut fields = Fields::read(request, context.peer.deadline).await?;
        name = fields.line("name", MAX_NAME_BYTES)?;
    }
    let name = name.unwrap_or_else(|| id.clone());
    let tenant = &*claims.tenant;
    let mut work = catalogue.api.db()?.begin().await?;
    let mut sql = Sql::new("UPDATE content_terms SET demo = 0, name = ");
    sql.bind(&*name).push(" WHERE tenant = ").bind(tenant);
    sql.push(" AND kind = ").bind(kind.name());
    sql.push(" AND id = ").bind(&*id);
    let is_new = work.execute(sql.query()).await? == 0;
    if is_new {
        let mut sql = Sql::new("SELECT count(*) FROM content_terms WHERE tenant = ");
        sql.bind(tenant).push(" AND kind = ").bind(kind.name());
        let count: i64 = work
            .fetch_one(sql.query())
            .await?
            .try_get(0)
            .map_err(DbError::from)?;
        if count >= MOST {
            return Err(ApiError::bad_request("id", format!("there are {MOST} already")));
        }
        let mut sql = Sql::new("INSERT INTO content_terms (tenant, kind, id, name, demo) VALUES (");
        sql.bind_all([tenant, kind.name(), &id, &name])
            .push(", ")
            .bind(0_i64);
        sql.push(") ON CONFLICT (tenant, kind, id) DO UPDATE SET name = excluded.name, demo = 0");
        work.execute(sql.query()).await?;
    }
    work.commit().await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(Term { id, name })).into_response())
}

/// Takes a term out that no content names.
async fn delete(
    kind: Kind,
    State(catalogue): Shared,
    Extension(context): Who,
    term: TermPath,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (claims, _) = catalogue.api.caller_with(&context, request, &EDITORS).await?;
    let unknown = || ApiError::not_found("there is no such entry");
    let id = term
        .ok()
        .map(|Path(id)| id)
        .filter(|id| is_word(id))
        .ok_or_else(unknown)?;
    let mut work = catalogue.api.db()?.begin().await?;
    if is_used(&mut work, &claims.tenant, kind, &id).await? {
        return Err(DbError::Dangling.into());
    }
    if !remove(&mut work, &claims.tenant, kind, &id).await? {
        return Err(unknown());
    }
    work.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The three routes of one list. Its parts are token trees: the description reads them as they are written.
macro_rules! lists {
    ($kind:expr, $list:tt, $one:tt, $all:ident, $put:ident, $delete:ident) => {
        /// The entries of this list, which contents may name.
        ///
        /// The scope is `watch`, `editor` or `admin`.
        #[utoipa::path(
                    get,
                    path = $list,
                    tag = "content",
                    params(Listed),
                    responses((status = 200, description = "The entries", body = Listing<Term>)),
                    security(("bearer" = []))
                )]
        pub(super) async fn $all(
            shared: Shared,
            who: Who,
            query: ListedQuery,
            request: Request,
        ) -> Result<Response, ApiError> {
            list($kind, shared, who, query, request).await
        }

        /// Adds an entry, or gives it another name.
        ///
        /// The scope is `editor` or `admin`. Without a body its name is its id.
        #[utoipa::path(
                    put,
                    path = $one,
                    tag = "content",
                    params(("term" = String, Path, description = "Its id", max_length = 64)),
                    request_body = Option<TermBody>,
                    responses(
                        (status = 200, description = "It was there", body = Term),
                        (status = 201, description = "It is new", body = Term),
                    ),
                    security(("bearer" = []))
                )]
        pub(super) async fn $put(
            shared: Shared,
            who: Who,
            term: TermPath,
            request: Request,
        ) -> Result<Response, ApiError> {
            put($kind, shared, who, term, request).await
        }

        /// Takes an entry out that no content names.
        ///
        /// The scope is `editor` or `admin`.
        #[utoipa::path(
                    delete,
                    path = $one,
                    tag = "content",
                    params(("term" = String, Path, description = "Its id", max_length = 64)),
                    responses(
                        (status = 204, description = "It is gone"),
                        (status = 409, description = "`in_use`: a content names it", body = ErrorBody),
                    ),
                    security(("bearer" = []))
                )]
        pub(super) async fn $delete(
            shared: Shared,
            who: Who,
            term: TermPath,
            request: Request,
        ) -> Result<StatusCode, ApiError> {
            delete($kind, shared, who, term, request).await
        }
    };
}

lists!(
    Kind::Category,
    "/v1/content/categories",
    "/v1/content/categories/{term}",
    categories,
    put_category,
    delete_category
);
lists!(
    Kind::Language,
    "/v1/content/languages",
    "/v1/content/languages/{term}",
    languages,
    put_language,
    delete_language
);
lists!(
    Kind::Role,
    "/v1/content/roles",
    "/v1/content/roles/{term}",
    roles,
    put_role,
    delete_role
);
