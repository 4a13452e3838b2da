//! `GET /v1/reports/royalties`: who is paid what.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use crate::api::error::{ApiError, ErrorBody};
use crate::api::observe::Context;
use crate::api::page::bad_query;
use crate::auth::Claims;

use super::calendar::Day;
use super::desk::{Desk, tenant_of};
use super::figures::{NoFigures, Question};
use super::money::Currency;
use super::report::Report;
use super::royalties::Model;
use super::versions;

/// What a report is asked about.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RoyaltyQuery {
    /// The first day.
    #[param(format = Date)]
    from: String,
    /// The day after the last.
    #[param(format = Date)]
    to: String,
    /// `pro_rata` or `user_centric`.
    #[param(pattern = "^(pro_rata|user_centric)$")]
    model: String,
    /// Labels of plays in this region only; the rest is one row.
    #[param(nullable = false, max_length = 64)]
    region: Option<String>,
    /// Fees in this currency; the installation's without it.
    #[param(nullable = false, pattern = "^[A-Za-z]{3}$")]
    currency: Option<String>,
    /// `json` or `csv`.
    #[param(nullable = false, pattern = "^(json|csv)$", default = "json")]
    format: Option<String>,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}

/// A period, a region and a currency, as requests name them.
pub(super) struct Asked<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) model: &'a str,
    pub(super) region: Option<&'a str>,
    pub(super) currency: Option<&'a str>,
}

/// A day out of a request.
pub(super) fn day(field: &'static str, text: &str) -> Result<Day, ApiError> {
    text.parse()
        .map_err(|problem| ApiError::bad_request(field, format!("{field} {problem}")))
}

/// A region as it is stored.
pub(super) fn region(text: &str) -> Result<String, ApiError> {
    let region = text.trim().to_uppercase();
    if region.len() > 64 || region.contains('\0') {
        return Err(ApiError::bad_request(
            "region",
            "a region is a text of at most 64 bytes",
        ));
    }
    Ok(region)
}

impl Asked<'_> {
    pub(super) fn question(&self, desk: &Desk, tenant: String) -> Result<(Question, Model), ApiError> {
        let model = Model::parse(self.model)
            .ok_or_else(|| ApiError::bad_request("model", "model is pro_rata or user_centric"))?;
        let (from, to) = (day("from", self.from)?, day("to", self.to)?);
        if from >= to {
            return Err(ApiError::bad_request(
                "to",
                "to is the day after the last, and after from",
            ));
        }
        let currency = match self.currency {
            Some(text) => Currency::parse(text)
                .ok_or_else(|| ApiError::bad_request("currency", "a currency has three letters"))?,
            None => desk.terms.home.clone(),
        };
        let question = Question {
            tenant,
            from,
            to,
            region: self.region.map(region).transpose()?,
            currency,
        };
        Ok((question, model))
    }
}

impl From<NoFigures> for ApiError {
    fn from(error: NoFigures) -> Self {
        match error {
            NoFigures::Db(error) => error.into(),
            NoFigures::NoShare(_) => Self::new(StatusCode::CONFLICT, "no_share", error.to_string()),
        }
    }
}

impl Desk {
    /// The report, as it was worked out before where nothing changed since.
    async fn report(&self, claims: &Claims, question: &Question, model: Model) -> Result<Report, ApiError> {
        let mut work = self.rows().await?;
        let version = versions::current(&mut work, &question.tenant).await?;
        if let Some(report) = self.cache.find(question, model, version) {
            return Ok(report);
        }
        let place = self.place("royalties", claims, &question.tenant)?;
        let report = Report::of(&mut work, question, model, &self.terms, place.steps());
        let report = place.run(report).await?;
        self.cache.keep(question, model, version, &report);
        Ok(report)
    }
}

/// Who is paid what for a period. Scope `finance` or `admin`.
///
/// Rows, unlabelled, outside the region and unallocated add up to the pool, to the cent.
#[utoipa::path(
    get,
    path = "/v1/reports/royalties",
    tag = "ledger",
    params(RoyaltyQuery),
    responses(
        (status = 200, description = "The report", content((Report = "application/json"), (String = "text/csv"))),
        (status = 409, description = "`no_share`: users came by a channel that `ledger.shares` lacks.", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn royalties(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    query: Result<Query<RoyaltyQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let csv = match query.format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(ApiError::bad_request("format", "format is json or csv")),
    };
    let asked = Asked {
        from: &query.from,
        to: &query.to,
        model: &query.model,
        region: query.region.as_deref(),
        currency: query.currency.as_deref(),
    };
    let (question, model) = asked.question(&desk, tenant)?;
    let report = desk.report(&claims, &question, model).await?;
    if csv {
        return Ok(spreadsheet(report.csv()));
    }
    Ok(Json(report).into_response())
}

/// A CSV answer.
pub(super) fn spreadsheet(body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    let kind = HeaderValue::from_static("text/csv; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
