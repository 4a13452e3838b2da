//! The bytes of a file: `/v1/media/{file}` for players, `/v1/files/{id}/stream` and `/download` beside it.
//!
//! Owns: the answer's status and headers (RFC 9110). Does not: read bytes (`flow` does) or decide who gets them (`viewer`
//! does). Called by: the router.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::error::{ApiError, ErrorBody};
use crate::api::observe::Context;

use super::Media;
use super::file::File;
use super::flow::{Flow, Piece};
use super::kind::ending;
use super::pulse::Pulse;
use super::range::{Validators, Wanted, to_second, wanted};
use super::resource::{FilePath, file_id};
use super::viewer::Viewer;
use super::visits::{Kind, Meter};

type Shared = State<Arc<Media>>;

/// A file's bytes for a player.
///
/// With the ticket of a live lease, as bearer or `?ticket=`; they stop within a second of the lease's end. Or with the
/// access token of the owner or of an editor.
#[utoipa::path(
    get,
    path = "/v1/media/{file}",
    tag = "media",
    params(
        ("file" = String, Path, description = "The file's id; an ending such as .mp4 may follow"),
        ("ticket" = Option<String>, Query, description = "The ticket, for players that set no header", nullable = false),
        ("Range" = Option<String>, Header, description = "At most 5 ranges (RFC 9110)", nullable = false),
    ),
    responses(
        (status = 200, description = "All bytes", content_type = "*/*", body = [u8]),
        (status = 206, description = "The bytes of the ranges", content_type = "*/*", body = [u8]),
        (status = 304, description = "The client has them"),
        (status = 307, description = "At the object store, with `media.s3.redirect`"),
        (
            status = 403,
            description = "`session_ended`, `content_forbidden`, `role_forbidden`, `ticket_required`, `origin_forbidden`",
            body = ErrorBody
        ),
        (status = 409, description = "`file_scanning`, `file_quarantined`: nobody gets it", body = ErrorBody),
        (status = 412, description = "`precondition_failed`", body = ErrorBody),
        (status = 416, description = "`range_not_satisfiable`", body = ErrorBody),
    ),
    security(("ticket" = []), ("bearer" = []))
)]
pub(super) async fn play(
    State(media): Shared,
    Extension(context): Extension<Context>,
    id: FilePath,
    request: Request,
) -> Result<Response, ApiError> {
    deliver(media, &context, id, request, Kind::Play).await
}

/// A file's bytes, to look at.
#[utoipa::path(
    get,
    path = "/v1/files/{id}/stream",
    tag = "media",
    params(
        ("id" = String, Path, description = "The file's id; an ending such as .mp4 may follow"),
        ("ticket" = Option<String>, Query, description = "The ticket, for players that set no header", nullable = false),
        ("Range" = Option<String>, Header, description = "At most 5 ranges (RFC 9110)", nullable = false),
    ),
    responses(
        (status = 200, description = "All bytes", content_type = "*/*", body = [u8]),
        (status = 206, description = "The bytes of the ranges", content_type = "*/*", body = [u8]),
        (status = 304, description = "The client has them"),
        (status = 307, description = "At the object store, with `media.s3.redirect`"),
        (
            status = 403,
            description = "`session_ended`, `content_forbidden`, `role_forbidden`, `ticket_required`, `origin_forbidden`",
            body = ErrorBody
        ),
        (status = 409, description = "`file_scanning`, `file_quarantined`: nobody gets it", body = ErrorBody),
        (status = 412, description = "`precondition_failed`", body = ErrorBody),
        (status = 416, description = "`range_not_satisfiable`", body = ErrorBody),
    ),
    security(("ticket" = []), ("bearer" = []))
)]
pub(super) async fn stream(
    State(media): Shared,
    Extension(context): Extension<Context>,
    id: FilePath,
    request: Request,
) -> Result<Response, ApiError> {
    deliver(media, &context, id, request, Kind::Stream).await
}

/// A file's bytes, to keep.
#[utoipa::path(
    get,
    path = "/v1/files/{id}/download",
    tag = "media",
    params(
        ("id" = String, Path, description = "The file's id; an ending such as .mp4 may follow"),
        ("ticket" = Option<String>, Query, description = "The ticket, for players that set no header", nullable = false),
        ("Range" = Option<String>, Header, description = "At most 5 ranges (RFC 9110)", nullable = false),
    ),
    responses(
        (status = 200, description = "All bytes", content_type = "*/*", body = [u8]),
        (status = 206, description = "The bytes of the ranges", content_type = "*/*", body = [u8]),
        (status = 304, description = "The client has them"),
        (status = 307, description = "At the object store, with `media.s3.redirect`"),
        (
            status = 403,
            description = "`session_ended`, `content_forbidden`, `role_forbidden`, `ticket_required`, `origin_forbidden`",
            body = ErrorBody
        ),
        (status = 409, description = "`file_scanning`, `file_quarantined`: nobody gets it", body = ErrorBody),
        (status = 412, description = "`precondition_failed`", body = ErrorBody),
        (status = 416, description = "`range_not_satisfiable`", body = ErrorBody),
    ),
    security(("ticket" = []), ("bearer" = []))
)]
pub(super) async fn download(
    State(media): Shared,
    Extension(context): Extension<Context>,
    id: FilePath,
    request: Request,
) -> Result<Response, ApiError> {
    deliver(media, &context, id, request, Kind::Download).await
}

async fn deliver(
    media: Arc<Media>,
    context: &Context,
    id: FilePath,
    request: Request,
    kind: Kind,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let viewer = media.viewer(context, &parts).await?;
    let file = media.opened(&viewer, &file_id(id)?).await?;
    let validators = Validators {
        etag: file.etag(),
        modified: to_second(file.created_at),
    };
    let headers = fixed_headers(&file, &validators, kind);
    match wanted(&parts.method, &parts.headers, &validators, file.size) {
        Wanted::NotModified => Ok((StatusCode::NOT_MODIFIED, headers).into_response()),
        Wanted::PreconditionFailed => {
            let (status, code) = (StatusCode::PRECONDITION_FAILED, "precondition_failed");
            Err(ApiError::new(
                status,
                code,
                "the file is another one than you have",
            ))
        }
        Wanted::Unsatisfiable => {
            let message = format!(
                "none of the ranges is within the {} bytes, or they are more than 5",
                file.size
            );
            let range = HeaderValue::try_from(format!("bytes */{}", file.size));
            let error = ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                message,
            );
            Err(match range {
                Ok(range) => error.with_header(header::CONTENT_RANGE, range),
                Err(_) => error,
            })
        }
        Wanted::Whole => {
            let whole = 0..file.size;
            media
                .answer(&parts, viewer, &file, kind, headers, Shape::Whole(whole))
                .await
        }
        Wanted::Parts(ranges) => {
            let shape = match <[Range<u64>; 1]>::try_from(ranges) {
                Ok([range]) => Shape::Part(range),
                Err(ranges) => Shape::Parts(ranges),
            };
            media.answer(&parts, viewer, &file, kind, headers, shape).await
        }
    }
}

/// What of the file is in the answer.
enum Shape {
    Whole(Range<u64>),
    Part(Range<u64>),
    Parts(Vec<Range<u64>>),
}

impl Media {
    async fn answer(
        &self,
        parts: &Parts,
        viewer: Viewer,
        file: &File,
        kind: Kind,
        mut headers: HeaderMap,
        shape: Shape,
    ) -> Result<Response, ApiError> {
        let s3 = &self.settings.s3;
        if s3.redirect && parts.method == Method::GET {
            let signed = self.store.signed_url(&file.key, s3.redirect_life).await;
            let url = signed.map_err(|error| {
                tracing::error!(%error, "a URL could not be signed");
                ApiError::unavailable("store_away", "the file cannot be had just now", 5)
            })?;
            if let Some(Ok(url)) = url.map(HeaderValue::try_from) {
                drop(self.meter(parts, &viewer, file, kind));
                headers.insert(header::LOCATION, url);
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                headers.remove(header::CONTENT_TYPE);
                return Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response());
            }
        }
        let (status, pieces, length) = plan(file, &mut headers, shape);
        headers.insert(header::CONTENT_LENGTH, length.into());
        let mut response = if parts.method == Method::HEAD {
            Response::new(Body::empty())
        } else {
            let meter = self.meter(parts, &viewer, file, kind);
            let pulse = match viewer {
                Viewer::Player(ticket) => Some(Pulse::new(Arc::clone(&self.api.gateway), ticket)),
                Viewer::Person(_) => None,
            };
            let flow = Flow::new(self.store.clone(), file.key.clone(), pieces, pulse, meter);
            Response::new(flow.body())
        };
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn meter(&self, parts: &Parts, viewer: &Viewer, file: &File, kind: Kind) -> Meter {
        let header = &self.settings.statistics.nation_header;
        let nation = (!header.is_empty()).then(|| parts.headers.get(header)).flatten();
        let nation = nation.and_then(|nation| nation.to_str().ok());
        self.visits.begin(viewer, file, kind, nation)
    }
}

/// Status, pieces and their length together.
fn plan(file: &File, headers: &mut HeaderMap, shape: Shape) -> (StatusCode, Vec<Piece>, u64) {
    match shape {
        Shape::Whole(range) => {
            let length = range.end;
            (StatusCode::OK, vec![Piece::File(range)], length)
        }
        Shape::Part(range) => {
            insert(headers, &header::CONTENT_RANGE, &content_range(&range, file.size));
            let length = range.end - range.start;
            (StatusCode::PARTIAL_CONTENT, vec![Piece::File(range)], length)
        }
        Shape::Parts(ranges) => {
            let boundary = super::fresh_id();
            insert(
                headers,
                &header::CONTENT_TYPE,
                &format!("multipart/byteranges; boundary={boundary}"),
            );
            let mut pieces = Vec::new();
            for range in ranges {
                let head = format!(
                    "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
                    file.kind,
                    content_range(&range, file.size)
                );
                pieces.push(Piece::Text(Bytes::from(head)));
                pieces.push(Piece::File(range));
            }
            pieces.push(Piece::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
            let length = |piece: &Piece| match piece {
                Piece::Text(text) => text.len() as u64,
                Piece::File(range) => range.end - range.start,
            };
            let length = pieces.iter().map(length).sum();
            (StatusCode::PARTIAL_CONTENT, pieces, length)
        }
    }
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// What every answer with this file says. The type is the one that its bytes were held against, and nothing a browser
/// may guess at.
fn fixed_headers(file: &File, validators: &Validators, kind: Kind) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert(&mut headers, &header::CONTENT_TYPE, &file.kind);
    insert(&mut headers, &header::ETAG, &validators.etag);
    let modified = httpdate::fmt_http_date(validators.modified.min(SystemTime::now()));
    insert(&mut headers, &header::LAST_MODIFIED, &modified);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // Nobody keeps for others what needs a lease; one's own copy is asked about each time, with the ticket.
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    let disposition = if kind == Kind::Download {
        "attachment"
    } else {
        "inline"
    };
    insert(
        &mut headers,
        &header::CONTENT_DISPOSITION,
        &named(disposition, file),
    );
    headers
}

/// RFC 6266: a plain name for everybody, and the title for whoever reads UTF-8.
fn named(disposition: &str, file: &File) -> String {
    let end = ending(&file.kind);
    let title = file.about.title.trim_end_matches(&format!(".{end}"));
    let title = if title.is_empty() { &file.id } else { title };
    let encoded = utf8_percent_encode(title, NON_ALPHANUMERIC);
    format!(
        "{disposition}; filename=\"{}.{end}\"; filename*=UTF-8''{encoded}.{end}",
        file.id
    )
}

fn insert(headers: &mut HeaderMap, name: &header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
