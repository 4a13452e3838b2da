//! `POST /v1/content/import`: contents from a file, line by line, while it comes.
//!
//! Owns: batches, bounds and the report. A line whose id is there already replaces that content, so that the same file
//! twice is the same as once. Does not: cut the body (`records`). Called by: the catalogue's router.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::observe::Context;
use crate::db::{Db, DbError, Work};

use super::files::Files;
use super::item::Item;
use super::records::{Format, Record, Records};
use super::shape::{Reject, Report};
use super::terms::Terms;
use super::{Catalogue, EDITORS, store};

/// Lines that are written together.
const BATCH: usize = 100;

/// How long writing one batch may take.
const WRITING: Duration = Duration::from_secs(10);

/// A sender that sends nothing for this long has gone.
const SILENCE: Duration = Duration::from_secs(30);

/// Rejected lines that are told one by one.
const MOST_REJECTS: usize = 1000;

/// An import under way.
struct Run<'a> {
    catalogue: &'a Catalogue,
    db: &'a Db,
    tenant: &'a str,
    terms: Terms,
    /// What is written next, by id and with its line: of two lines with the same id the later one counts.
    batch: BTreeMap<String, (u64, Item)>,
    /// How many lines that is.
    lines: u64,
    read: u64,
    taken: u64,
    rejected: u64,
    rejects: Vec<Reject>,
}

/// Takes contents from a file: CSV with a header line, or one JSON object a line.
///
/// A record whose `id` is there already replaces that content. What is wrong with a record is in the report, and the
/// others are taken. A refusal has the report beside `error`: what was taken until then stays. The scope is `editor` or
/// `admin`. 503 `busy`: as many imports and exports are under way as may be.
#[utoipa::path(
    post,
    path = "/v1/content/import",
    tag = "content",
    request_body(content((String = "application/x-ndjson"), (String = "text/csv"))),
    responses((status = 200, description = "It was read to its end", body = Report)),
    security(("bearer" = []))
)]
pub(super) async fn import(
    State(catalogue): State<Arc<Catalogue>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = catalogue.api.caller_with(&context, request, &EDITORS).await?;
    let settings = &catalogue.settings;
    let format = format_of(request.headers())?;
    let size = axum::body::HttpBody::size_hint(request.body()).lower();
    if size > settings.import_max_bytes {
        return Err(too_large());
    }
    let db = catalogue.api.db()?;
    let _turn = catalogue.begin_transfer()?;
    let terms = Terms::read(&mut db.connect().await?, &claims.tenant).await?;
    let mut run = Run {
        catalogue: &catalogue,
        db,
        tenant: &claims.tenant,
        terms,
        batch: BTreeMap::new(),
        lines: 0,
        read: 0,
        taken: 0,
        rejected: 0,
        rejects: Vec::new(),
    };
    let done = run.read_all(request, format).await;
    let report = run.report();
    match done {
        Ok(()) => Ok(Json(report).into_response()),
        // What was taken until then stays taken.
        Err(error) => match json!(report) {
            Value::Object(report) => Err(error.beside(report)),
            _ => Err(error),
        },
    }
}

impl Run<'_> {
    async fn read_all(&mut self, request: Request, format: Format) -> Result<(), ApiError> {
        let settings = &self.catalogue.settings;
        let deadline = Instant::now() + settings.import_timeout;
        let mut records = Records::new(format, settings.import_max_line_bytes);
        let mut body = request.into_body().into_data_stream();
        let mut size = 0;
        loop {
            let until = deadline.min(Instant::now() + SILENCE);
            let next = timeout_at(until, body.next()).await;
            let next = next.map_err(|_| {
                let message = "the body did not come in time";
                ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
            })?;
            let Some(piece) = next else { break };
            let piece: Bytes = piece.map_err(|_| ApiError::bad_request("body", "the body was cut off"))?;
            size += piece.len() as u64;
            if size > settings.import_max_bytes {
                return Err(too_large());
            }
            self.take(records.read(&piece)?).await?;
        }
        self.take(records.finish()?).await?;
        self.write().await
    }

    async fn take(&mut self, records: Vec<Record>) -> Result<(), ApiError> {
        for record in records {
            self.read += 1;
            match record.fields.and_then(|fields| self.item(fields)) {
                Ok(item) => {
                    self.batch.insert(item.id.clone(), (record.line, item));
                    self.lines += 1;
                }
                Err(error) => self.reject(record.line, &error),
            }
            if self.batch.len() >= BATCH {
                self.write().await?;
            }
        }
        Ok(())
    }

    fn item(&self, fields: Map<String, Value>) -> Result<Item, ApiError> {
        if fields.get("id").is_none_or(|id| id.is_null() || id == "") {
            return Err(ApiError::bad_request("id", "id is required"));
        }
        let item = Item::read(&mut Fields::of(fields), None)?;
        self.terms.check(&item)?;
        Ok(item)
    }

    fn reject(&mut self, line: u64, error: &ApiError) {
        self.rejected += 1;
        if self.rejects.len() < MOST_REJECTS {
            let (field, reason) = (error.field, error.message.to_string());
            self.rejects.push(Reject { line, field, reason });
        }
    }

    async fn write(&mut self) -> Result<(), ApiError> {
        let batch: Vec<_> = std::mem::take(&mut self.batch).into_values().collect();
        let lines = std::mem::take(&mut self.lines);
        if batch.is_empty() {
            return Ok(());
        }
        let mut work = self.db.begin_for(WRITING).await?;
        let files = Files::named(&mut work, self.tenant, batch.iter().map(|(_, item)| item)).await?;
        let (mut items, mut refused) = (Vec::new(), Vec::new());
        for (line, item) in batch {
            match files.check(&item) {
                Ok(()) => items.push(item),
                Err(error) => refused.push((line, error)),
            }
        }
        self.put(work, &items).await?;
        self.taken += lines - refused.len() as u64;
        for (line, error) in refused {
            self.reject(line, &error);
        }
        for item in &items {
            self.catalogue.changed(self.tenant, &item.id);
        }
        Ok(())
    }

    async fn put(&self, mut work: Work, items: &[Item]) -> Result<(), DbError> {
        if items.is_empty() {
            return Ok(());
        }
        store::put_all(&mut work, self.tenant, items, false).await?;
        work.commit().await
    }

    fn report(mut self) -> Report {
        // Some are found only when a batch is written.
        self.rejects.sort_by_key(|reject| reject.line);
        Report {
            read: self.read,
            taken: self.taken,
            rejected: self.rejected,
            rejects: self.rejects,
        }
    }
}

fn format_of(headers: &HeaderMap) -> Result<Format, ApiError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    match kind.trim().to_ascii_lowercase().as_str() {
        "text/csv" => Ok(Format::Csv),
        "application/x-ndjson" | "application/jsonl" => Ok(Format::Lines),
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the body must be text/csv or application/x-ndjson",
        )),
    }
}

fn too_large() -> ApiError {
    let message = "the import is too large (catalogue.import_max_bytes)";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}
