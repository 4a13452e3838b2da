//! `GET /v1/content/export`: the whole catalogue of a tenant, as a file that an import takes.
//!
//! It is read page by page, in the order of the ids: each page is as the database has it then, and no statement stays
//! open while a slow client reads. Owns: the route. Called by: the catalogue's router.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::bad_query;
use crate::db::{Db, DbError};

use super::item::Stored;
use super::records::Format;
use super::{Catalogue, EDITORS, sheet, store};

/// Contents that are read at once.
const PAGE: i64 = 200;

/// How long reading them may take: an export that was begun is not broken off because the database is slow for a moment.
const READING: Duration = Duration::from_secs(10);

/// The query of [`export`].
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// `csv` or `jsonl`, which is also what comes when nothing is asked for.
    #[param(nullable = false, pattern = "^(csv|jsonl)$", default = "jsonl")]
    format: Option<String>,
}

/// An export under way.
struct Run {
    db: Db,
    tenant: Arc<str>,
    format: Format,
    /// The last id that was read; the empty text is before all.
    last: String,
    over: bool,
    _turn: OwnedSemaphorePermit,
}

/// The whole catalogue, as a file that an import takes.
///
/// The scope is `editor` or `admin`. 503 `busy`: as many imports and exports are under way as may be.
#[utoipa::path(
    get,
    path = "/v1/content/export",
    tag = "content",
    params(Asked),
    responses((
        status = 200,
        description = "One content a line; a connection that breaks off is an export that did",
        content((String = "application/x-ndjson"), (String = "text/csv"))
    )),
    security(("bearer" = []))
)]
pub(super) async fn export(
    State(catalogue): State<Arc<Catalogue>>,
    Extension(context): Extension<Context>,
    query: Result<Query<Asked>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, _) = catalogue.api.caller_with(&context, request, &EDITORS).await?;
    let Query(asked) = query.map_err(bad_query)?;
    let (format, kind, name) = match asked.format.as_deref() {
        Some("csv") => (Format::Csv, "text/csv; charset=utf-8", "content.csv"),
        None | Some("jsonl") => (Format::Lines, "application/x-ndjson", "content.jsonl"),
        Some(_) => return Err(ApiError::bad_request("format", "format is csv or jsonl")),
    };
    let mut run = Run {
        db: catalogue.api.db()?.clone(),
        tenant: claims.tenant,
        format,
        last: String::new(),
        over: false,
        _turn: catalogue.begin_transfer()?,
    };
    // A database that is away is told before anything is promised.
    let mut first = run.header()?;
    first.extend(run.page().await?);
    let rest = stream::try_unfold(run, async |mut run| {
        if run.over {
            return Ok::<_, DbError>(None);
        }
        let page = run.page().await?;
        Ok(Some((Bytes::from(page), run)))
    });
    let first = stream::once(async { Ok(Bytes::from(first)) });
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    Ok((headers, body).into_response())
}

impl Run {
    fn header(&self) -> Result<Vec<u8>, DbError> {
        match self.format {
            Format::Csv => lines([sheet::header()]),
            Format::Lines => Ok(Vec::new()),
        }
    }

    async fn page(&mut self) -> Result<Vec<u8>, DbError> {
        let mut work = self.db.connect_for(READING).await?;
        let page = store::after(&mut work, &self.tenant, &self.last, PAGE).await?;
        match page.last() {
            Some(last) => self.last.clone_from(&last.item.id),
            None => self.over = true,
        }
        match self.format {
            Format::Csv => lines(page.iter().map(|stored| sheet::cells(&stored.item))),
            Format::Lines => {
                let line = |stored: &Stored| Value::Object(stored.item.fields()).to_string() + "\n";
                Ok(page.iter().map(line).collect::<String>().into_bytes())
            }
        }
    }
}

fn lines<R, C>(records: impl IntoIterator<Item = R>) -> Result<Vec<u8>, DbError>
where
    R: IntoIterator<Item = C>,
    C: AsRef<[u8]>,
{
    let mut writer = csv::Writer::from_writer(Vec::new());
    let fault = |error: &dyn std::fmt::Display| DbError::Fault(format!("a line of an export: {error}"));
    for record in records {
        writer.write_record(record).map_err(|error| fault(&error))?;
    }
    writer.into_inner().map_err(|error| fault(&error))
}
