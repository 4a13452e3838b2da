//! `/v1/reports/statements`: reports that are frozen, and what was changed afterwards.
//!
//! Owns: freezing, and that a frozen report never changes: what comes later is a revision of its own, with the difference.
//! Does not: work reports out (`report` does). Called by: `desk`'s router.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::api::error::{ApiError, ErrorBody};
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::api::page::{List, Listing, bad_query};
use crate::db::{DbError, Sql};
use crate::protocol::id::random;

use super::desk::{Desk, tenant_of};
use super::figures::Question;
use super::inputs::fingerprint;
use super::money::Currency;
use super::plays::{PageQuery, TenantQuery};
use super::report::Report;
use super::royalties::Model;
use super::royalty_routes::Asked;
use super::steps::Steps;
use super::{now_ms, time, versions};

/// How often freezing begins anew because rows came in between.
const TRIES: u32 = 3;

/// What is to be frozen.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `Fields` reads it, to name what is wrong with it"
)]
#[schema(as = RoyaltyFreeze)]
pub(super) struct Freeze {
    /// The first day.
    #[schema(format = Date)]
    from: String,
    /// The day after the last.
    #[schema(format = Date)]
    to: String,
    /// `pro_rata` or `user_centric`.
    #[schema(pattern = "^(pro_rata|user_centric)$")]
    model: String,
    /// Labels of plays in this region only.
    #[schema(max_length = 64)]
    region: Option<String>,
    /// Fees in this currency.
    #[schema(pattern = "^[A-Za-z]{3}$")]
    currency: Option<String>,
}

/// A frozen report.
#[derive(Serialize, ToSchema)]
#[schema(as = RoyaltyStatement)]
pub(super) struct Statement {
    /// Its id.
    id: String,
    /// 0: the statement; 1 and on: what it became later.
    revision: i64,
    /// The report.
    report: Report,
    /// By label, what this revision adds to the one before; absent for the first. Amounts may be negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<BTreeMap<String, String>>,
    /// SHA-256 of everything that the report rests on, in hex (docs/ledger.md).
    inputs: String,
    /// When it was frozen.
    #[schema(format = DateTime)]
    created_at: String,
    /// By whom.
    created_by: String,
}

const COLUMNS: &str =
    "SELECT id, revision, report, difference, inputs, created_at, created_by FROM statements WHERE tenant = ";

impl Statement {
    fn of(row: &AnyRow) -> Result<Self, ApiError> {
        let broken = |_| ApiError::from(DbError::Fault("a statement cannot be read".to_owned()));
        let difference: Option<String> = row.get(3);
        Ok(Self {
            id: row.get(0),
            revision: row.get(1),
            report: serde_json::from_str(&row.get::<String, _>(2)).map_err(broken)?,
            difference: difference
                .map(|text| serde_json::from_str(&text))
                .transpose()
                .map_err(broken)?,
            inputs: row.get(4),
            created_at: time(row.get(5)),
            created_by: row.get(6),
        })
    }
}

/// Freezes a report. Scope `finance` or `admin`.
///
/// When it was frozen before and nothing changed since, that one is answered; otherwise a revision is made beside it.
#[utoipa::path(
    post,
    path = "/v1/reports/statements",
    tag = "ledger",
    params(TenantQuery),
    request_body = Freeze,
    responses(
        (status = 200, description = "It was frozen before, and nothing changed", body = Statement),
        (status = 201, description = "The statement, or its new revision", body = Statement),
        (status = 409, description = "`no_share`: users came by a channel that `ledger.shares` lacks.", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn freeze(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<TenantQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let mut fields = Fields::read(request, context.peer.deadline).await?;
    let mut required = |field| {
        let missing = || ApiError::bad_request(field, format!("{field} is missing"));
        fields.text(field)?.ok_or_else(missing)
    };
    let (from, to, model) = (required("from")?, required("to")?, required("model")?);
    let (region, currency) = (fields.text("region")?, fields.text("currency")?);
    let asked = Asked {
        from: &from,
        to: &to,
        model: &model,
        region: region.as_deref(),
        currency: currency.as_deref(),
    };
    let (question, model) = asked.question(&desk, tenant)?;
    let place = desk.place("statement", &claims, &question.tenant)?;
    for _ in 0..TRIES {
        let work = desk.freeze(&question, model, &claims.account, place.steps());
        if let Some((status, statement)) = place.run(work).await? {
            return Ok((status, Json(statement)).into_response());
        }
    }
    Err(ApiError::unavailable(
        "busy",
        "rows of the ledger change just now",
        5,
    ))
}

impl Desk {
    /// None when rows came in between.
    async fn freeze(
        &self,
        question: &Question,
        model: Model,
        by: &str,
        steps: &Steps,
    ) -> Result<Option<(StatusCode, Statement)>, ApiError> {
        let (db, mut work) = (self.db()?, self.rows().await?);
        let version = versions::current(&mut work, &question.tenant).await?;
        let report = Report::of(&mut work, question, model, &self.terms, steps).await?;
        let inputs = fingerprint(&mut work, db.engine(), question, &self.terms).await?;
        drop(work);
        let mut work = db.begin().await?;
        // Whoever else freezes or writes waits here.
        let now = versions::change(&mut work, &question.tenant, &BTreeSet::new()).await?;
        if now != version.rows + 1 {
            return Ok(None);
        }
        let mut sql = Sql::new(COLUMNS);
        sql.bind(question.tenant.clone())
            .push(" AND model = ")
            .bind(model.name());
        sql.push(" AND first_day = ").bind(report.from.clone());
        sql.push(" AND end_day = ").bind(report.to.clone());
        sql.push(" AND region = ")
            .bind(question.region.clone().unwrap_or_default());
        sql.push(" AND currency = ").bind(report.currency.clone());
        sql.push(" ORDER BY revision DESC LIMIT 1");
        let before = work.fetch_optional(sql.query()).await?;
        let before = before.as_ref().map(Statement::of).transpose()?;
        if let Some(same) = before.as_ref().filter(|before| before.inputs == inputs) {
            let id = same.id.clone();
            drop(work);
            let found = self.statement(&question.tenant, &id).await?;
            return Ok(found.map(|statement| (StatusCode::OK, statement)));
        }
        let statement = Statement {
            id: format!("{:024x}", u128::from_be_bytes(random()) >> 32),
            revision: before.as_ref().map_or(0, |before| before.revision + 1),
            difference: before
                .as_ref()
                .map(|before| difference(&before.report, &report, &question.currency)),
            inputs,
            created_at: String::new(),
            created_by: by.to_owned(),
            report,
        };
        self.keep(work, question, model, &statement).await?;
        let found = self.statement(&question.tenant, &statement.id).await?;
        Ok(found.map(|statement| (StatusCode::CREATED, statement)))
    }

    async fn keep(
        &self,
        mut work: crate::db::Work,
        question: &Question,
        model: Model,
        statement: &Statement,
    ) -> Result<(), ApiError> {
        let difference = statement
            .difference
            .as_ref()
            .map(|difference| serde_json::json!(difference).to_string());
        let mut sql = Sql::new(
            "INSERT INTO statements (tenant, id, model, first_day, end_day, region, currency, report, inputs, created_by, \
             difference, revision, created_at) VALUES (",
        );
        sql.bind_all([
            question.tenant.clone(),
            statement.id.clone(),
            model.name().to_owned(),
            question.from.to_string(),
            question.to.to_string(),
            question.region.clone().unwrap_or_default(),
            question.currency.to_string(),
            statement.report.json(),
            statement.inputs.clone(),
            statement.created_by.clone(),
        ]);
        sql.push(", ").bind(difference).push(", ");
        sql.bind_all([statement.revision, now_ms()]).push(")");
        work.execute(sql.query()).await?;
        work.commit().await?;
        Ok(())
    }

    async fn statement(&self, tenant: &str, id: &str) -> Result<Option<Statement>, ApiError> {
        if id.contains('\0') {
            return Ok(None);
        }
        let mut sql = Sql::new(COLUMNS);
        sql.bind(tenant.to_owned()).push(" AND id = ").bind(id.to_owned());
        let row = self.db()?.fetch_optional(sql.query()).await?;
        row.as_ref().map(Statement::of).transpose()
    }
}

/// What changed by label; what is no label's under `(unlabelled)`, `(outside_region)`, `(unallocated)` and `(pool)`.
fn difference(before: &Report, after: &Report, currency: &Currency) -> BTreeMap<String, String> {
    let (mut changed, before) = (amounts(after, currency), amounts(before, currency));
    for (name, amount) in before {
        *changed.entry(name).or_default() -= amount;
    }
    changed.retain(|_, amount| *amount != 0);
    changed
        .into_iter()
        .map(|(name, amount)| (name, currency.write(amount)))
        .collect()
}

fn amounts(report: &Report, currency: &Currency) -> BTreeMap<String, i128> {
    let lines = report.lines().into_iter().map(|[kind, label, _, amount]| {
        let name = if kind == "label" {
            label
        } else {
            format!("({kind})")
        };
        (name, currency.parse_amount(&amount))
    });
    lines.collect()
}

/// The frozen reports, the latest first. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/reports/statements",
    tag = "ledger",
    params(PageQuery),
    responses((status = 200, description = "The statements", body = Listing<Statement>)),
    security(("bearer" = []))
)]
pub(super) async fn statements(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<PageQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let page = List::new(query.page, query.limit)?;
    let (start, limit) = page.span();
    let bounded = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let mut work = desk.db()?.connect().await?;
    let mut count = Sql::new("SELECT CAST(count(*) AS BIGINT) FROM statements WHERE tenant = ");
    count.bind(tenant.clone());
    let total: i64 = work.fetch_one(count.query()).await?.get(0);
    let mut sql = Sql::new(COLUMNS);
    sql.bind(tenant)
        .push(" ORDER BY created_at DESC, id LIMIT ")
        .bind(bounded(limit));
    sql.push(" OFFSET ").bind(bounded(start));
    let rows = work.fetch_all(sql.query()).await?;
    let items: Vec<_> = rows.iter().map(Statement::of).collect::<Result<_, _>>()?;
    Ok(Json(page.answer(items, usize::try_from(total).unwrap_or_default())).into_response())
}

/// One frozen report. Scope `finance` or `admin`.
#[utoipa::path(
    get,
    path = "/v1/reports/statements/{id}",
    tag = "ledger",
    params(("id" = String, Path, description = "The statement"), TenantQuery),
    responses((status = 200, description = "The statement", body = Statement)),
    security(("bearer" = []))
)]
pub(super) async fn statement(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<TenantQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let unknown = || ApiError::not_found("there is no such statement");
    let Path(id) = path.map_err(|_| unknown())?;
    let statement = desk.statement(&tenant, &id).await?.ok_or_else(unknown)?;
    Ok(Json(statement).into_response())
}
