//! `POST /v1/plays/imports/{kind}`: the command `import`, by HTTP.
//!
//! Owns: taking the file, which is put on disk first, within its bounds. Does not: read it (`import` does).
//! Called by: `desk`'s router.

use std::io::Write;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::observe::Context;
use crate::api::page::bad_query;

use super::calendar::{ISO, Pattern};
use super::desk::{Desk, tenant_of};
use super::import::{
    Counts, Form, Format, ImportError, Kind, Place, Rejects, Scratch, columns_of, import as read_file,
};

/// The longest silence of whoever uploads.
const SILENCE: Duration = Duration::from_secs(30);

/// How a file is written.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    /// What stands between fields: one of `,`, `;`, `|`, or `tab`.
    #[param(nullable = false, pattern = "^([,;|]|tab)$", default = ",")]
    separator: Option<String>,
    /// The columns' names with commas between them, when the file has none and begins with the first row; of JSON, also
    /// when the keys of its records are the first record.
    #[param(nullable = false)]
    columns: Option<String>,
    /// Whether amounts are written 7,99.
    #[param(nullable = false, default = false)]
    decimal_comma: Option<bool>,
    /// How dates are written: `%Y`, `%m` and `%d` once each, at will `%H`, `%M` and `%S`.
    #[param(nullable = false, default = "%Y-%m-%d")]
    date_format: Option<String>,
    /// Another tenant; only with the scope `operator`.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_.-]{1,64}$")]
    tenant: Option<String>,
}

/// What came of a file.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerImport)]
pub(super) struct Imported {
    /// Rows read.
    read: u64,
    /// Rows that are new or changed something.
    taken: u64,
    /// Rows that changed nothing.
    already_there: u64,
    /// Rows that are not as they must be.
    rejected: u64,
    /// The first of them.
    rejects: Vec<RejectedRow>,
    /// An option that seems to be missing: every row was rejected for the lack of it.
    #[schema(required)]
    missing_option: Option<String>,
}

/// A row that was not taken.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerReject)]
pub(super) struct RejectedRow {
    /// Its line in the file, from 1.
    line: u64,
    /// Why.
    reason: String,
}

/// Takes a file of users, plays or tracks, as the command `usher import` does. Scope `finance` or `admin`.
///
/// The same file may be sent again: what is there stays, once.
#[utoipa::path(
    post,
    path = "/v1/plays/imports/{kind}",
    tag = "ledger",
    params(("kind" = String, Path, description = "`users`, `plays` or `tracks`"), ImportQuery),
    request_body(content((String = "text/csv"), (Vec<serde_json::Value> = "application/json"))),
    responses((status = 200, description = "What came of the rows", body = Imported)),
    security(("bearer" = []))
)]
pub(super) async fn import(
    State(desk): State<Arc<Desk>>,
    Extension(context): Extension<Context>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<ImportQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (claims, request) = desk.staff(&context, request).await?;
    let Query(query) = query.map_err(bad_query)?;
    let tenant = tenant_of(&claims, query.tenant.as_deref())?;
    let unknown = || ApiError::not_found("what is imported is users, plays or tracks");
    let kind = match &*path.map_err(|_| unknown())?.0 {
        "users" => Kind::Users,
        "plays" => Kind::Plays,
        "tracks" => Kind::Tracks,
        _ => return Err(unknown()),
    };
    let kind_of = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let media_type = kind_of
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default();
    let form = match media_type.trim().to_ascii_lowercase().as_str() {
        "text/csv" => Form::Csv,
        "application/json" => Form::Json,
        _ => {
            let (status, code) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
            let message = "the body must be text/csv or application/json";
            return Err(ApiError::new(status, code, message));
        }
    };
    let format = format(form, &query)?;
    desk.db()?;
    let place = desk.place("import", &claims, &tenant)?;
    let upload = take(&desk.scratch, request.into_body(), desk.settings.import_bytes);
    let upload = place.run(upload).await?;
    let (runtime, shared) = (Handle::current(), Arc::clone(&desk));
    // Files are read as rows are written: on a thread that may block.
    let work = tokio::task::spawn_blocking(move || {
        let (place, mut upload) = (place, upload);
        runtime.block_on(async { place.run(run(&shared, &tenant, kind, &format, &mut upload)).await })
    });
    let done = work
        .await
        .map_err(|_| ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR).unwrap_or_else(unknown))?;
    Ok(Json(done?).into_response())
}

async fn run(
    desk: &Desk,
    tenant: &str,
    kind: Kind,
    format: &Format,
    upload: &mut Scratch,
) -> Result<Imported, ApiError> {
    let place = Place {
        db: desk.db()?,
        tenant,
        terms: &desk.terms,
        scratch: &desk.scratch,
    };
    let (mut rejects, mut watch) = (Rejects::new(), |_: u64, _: &Counts| {});
    let source = upload.from_start().map_err(disk)?;
    let counts = read_file(place, kind, format, source, &mut rejects, &mut watch).await;
    let counts = counts.map_err(|error| match error {
        ImportError::Form(problem) => ApiError::bad_request("body", problem),
        ImportError::Io(error) => disk(error),
        ImportError::Db(error) => error.into(),
    })?;
    let rows = rejects.shown().iter().map(|(line, reason)| RejectedRow {
        line: *line,
        reason: reason.clone(),
    });
    Ok(Imported {
        read: counts.read,
        taken: counts.taken,
        already_there: counts.already,
        rejected: counts.rejected,
        rejects: rows.collect(),
        missing_option: rejects.missing_option(counts.read).map(parameter),
    })
}

/// The query's name of a command's option.
fn parameter(option: &str) -> String {
    option.trim_start_matches('-').replace('-', "_")
}

fn format(form: Form, query: &ImportQuery) -> Result<Format, ApiError> {
    let separator = match query.separator.as_deref() {
        None | Some(",") => b',',
        Some(";") => b';',
        Some("|") => b'|',
        Some("tab") => b'\t',
        Some(_) => {
            return Err(ApiError::bad_request(
                "separator",
                "separator is one of , ; | and tab",
            ));
        }
    };
    let dates: Pattern = query
        .date_format
        .as_deref()
        .unwrap_or(ISO)
        .parse()
        .map_err(|problem| ApiError::bad_request("date_format", format!("date_format {problem}")))?;
    let columns = query.columns.as_deref().unwrap_or_default();
    Ok(Format {
        form,
        columns: columns_of(columns)
            .map_err(|problem| ApiError::bad_request("columns", format!("columns {problem}")))?,
        separator,
        decimal_comma: query.decimal_comma.unwrap_or_default(),
        dates,
    })
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
fn disk(error: std::io::Error) -> ApiError {
    tracing::error!(%error, "an upload cannot be kept on disk");
    ApiError::unavailable("unavailable", "the file cannot be kept just now", 5)
}

/// Puts a body on disk.
async fn take(dir: &FilePath, body: Body, most: u64) -> Result<Scratch, ApiError> {
    let mut upload = Scratch::create(dir).map_err(disk)?;
    let (mut chunks, mut size) = (body.into_data_stream(), 0);
    loop {
        let chunk = timeout(SILENCE, chunks.next()).await.map_err(|_| {
            let message = "the file did not come in time";
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
        })?;
        let too_large = |message| ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
        let Some(chunk) = chunk else { return Ok(upload) };
        let chunk = chunk.map_err(|_| too_large("the file was cut off"))?;
        size += chunk.len() as u64;
        if size > most {
            return Err(too_large("the file is too large (ledger.import_bytes)"));
        }
        // Chunks are small, and go to the page cache.
        upload.file().write_all(&chunk).map_err(disk)?;
    }
}
