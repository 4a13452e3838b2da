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
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::error::{ApiError, ErrorBody};
use crate::api::observe::Context;
use crate::net::lane::Bulk;

use super::Media;
use super::file::File;
use super::flow::{Flow, Piece};
use super::kind::ending;
use super::playlist;
use super::pulse::Pulse;
use super::range::{Validators, Wanted, to_second, wanted};
use super::resource::{FilePath, file_id};
use super::store::StoreError;
use super::viewer::{Viewer, ticket_in_url};
use super::visits::{Kind, Meter};

/// A shorter answer is on its way before anybody else has to wait for it.
const BULK_BYTES: u64 = 64 * 1024;

type Shared = State<Arc<Media>>;

/// A route that gives out bytes; how they differ stands beside each.
macro_rules! route {
    ($(#[$about:meta])* $name:ident, $path:tt, $id:tt, $kind:expr) => {
        $(#[$about])*
        #[utoipa::path(
            get,
            path = $path,
            tag = "media",
            params(
                ($id = String, Path, description = "The file's id; an ending such as .mp4 may follow"),
                (
                    "ticket" = Option<String>,
                    Query,
                    description = "The ticket, for players that set no header",
                    nullable = false
                ),
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
        pub(super) async fn $name(
            State(media): Shared,
            Extension(context): Extension<Context>,
            id: FilePath,
            request: Request,
        ) -> Result<Response, ApiError> {
            deliver(media, &context, id, request, $kind).await
        }
    };
}

route! {
    /// A file's bytes for a player.
    ///
    /// With the ticket of a live lease, as bearer or `?ticket=`; they stop within a second of the lease's end. Or with the
    /// access token of the owner or of an editor. A playlist that was opened with `?ticket=` has it on the URIs of its
    /// segments.
    play, "/v1/media/{file}", "file", Kind::Play
}

route! {
    /// A file's bytes, to look at.
    stream, "/v1/files/{id}/stream", "id", Kind::Stream
}

route! {
    /// A file's bytes, to keep.
    download, "/v1/files/{id}/download", "id", Kind::Download
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
    let shown = media.shown(&parts, file, kind).await?;
    let headers = fixed_headers(&shown.file, &shown.validators, kind);
    let shape = match wanted(&parts.method, &parts.headers, &shown.validators, shown.size()) {
        Wanted::NotModified => return Ok((StatusCode::NOT_MODIFIED, headers).into_response()),
        Wanted::PreconditionFailed => {
            let (status, code) = (StatusCode::PRECONDITION_FAILED, "precondition_failed");
            let message = "the file is another one than you have";
            return Err(ApiError::new(status, code, message));
        }
        Wanted::Unsatisfiable => return Err(unsatisfiable(shown.size())),
        Wanted::Whole => Shape::Whole(0..shown.size()),
        Wanted::Parts(ranges) => match <[Range<u64>; 1]>::try_from(ranges) {
            Ok([range]) => Shape::Part(range),
            Err(ranges) => Shape::Parts(ranges),
        },
    };
    media.answer(&parts, viewer, &shown, kind, headers, shape).await
}

fn unsatisfiable(size: u64) -> ApiError {
    let message = format!("none of the ranges is within the {size} bytes, or they are more than 5");
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let error = ApiError::new(status, "range_not_satisfiable", message);
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(range) => error.with_header(header::CONTENT_RANGE, range),
        Err(_) => error,
    }
}

/// What of the file is in the answer.
enum Shape {
    Whole(Range<u64>),
    Part(Range<u64>),
    Parts(Vec<Range<u64>>),
}

/// A file as one viewer gets it: its own bytes, or the playlist that was made of them.
struct Shown {
    file: File,
    made: Option<Bytes>,
    validators: Validators,
}

impl Shown {
    fn size(&self) -> u64 {
        self.made
            .as_ref()
            .map_or(self.file.size, |made| made.len() as u64)
    }

    fn piece(&self, range: Range<u64>) -> Piece {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        match &self.made {
            None => Piece::File(range),
            Some(made) => Piece::Made(made.slice(place(range.start)..place(range.end)), range.end),
        }
    }
}

impl Media {
    /// A playlist that a ticket in the URL opened names the same ticket, so that players reach the segments with it.
    async fn shown(&self, parts: &Parts, file: File, kind: Kind) -> Result<Shown, ApiError> {
        let mut validators = Validators {
            etag: file.etag(),
            modified: to_second(file.created_at),
        };
        let is_small = file.size <= playlist::MOST_BYTES;
        let ticket = (file.kind == playlist::TYPE && kind == Kind::Play && is_small)
            .then(|| ticket_in_url(parts))
            .flatten();
        let made = match ticket {
            None => None,
            Some(ticket) => {
                let bytes = self.whole(&file).await?;
                validators.etag = format!("\"{}-with-ticket\"", file.sha256);
                Some(playlist::with_ticket(&String::from_utf8_lossy(&bytes), &ticket).into())
            }
        };
        Ok(Shown {
            file,
            made,
            validators,
        })
    }

    /// All bytes of a small file.
    async fn whole(&self, file: &File) -> Result<BytesMut, ApiError> {
        let read = async {
            let chunks = self.store.read(&file.key, 0..file.size).await?;
            let add = async |mut all: BytesMut, chunk: Bytes| {
                all.extend_from_slice(&chunk);
                Ok(all)
            };
            chunks.try_fold(BytesMut::new(), add).await
        };
        read.await.map_err(|error: StoreError| {
            tracing::error!(%error, "a playlist could not be read");
            ApiError::unavailable("store_away", "the file cannot be had just now", 5)
        })
    }

    async fn answer(
        &self,
        parts: &Parts,
        viewer: Viewer,
        shown: &Shown,
        kind: Kind,
        mut headers: HeaderMap,
        shape: Shape,
    ) -> Result<Response, ApiError> {
        let (s3, file) = (&self.settings.s3, &shown.file);
        if s3.redirect && parts.method == Method::GET && shown.made.is_none() {
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
        let (status, pieces, length) = plan(shown, &mut headers, shape);
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
        if length > BULK_BYTES {
            response.extensions_mut().insert(Bulk);
        }
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
fn plan(shown: &Shown, headers: &mut HeaderMap, shape: Shape) -> (StatusCode, Vec<Piece>, u64) {
    let size = shown.size();
    match shape {
        Shape::Whole(range) => {
            let length = range.end;
            (StatusCode::OK, vec![shown.piece(range)], length)
        }
        Shape::Part(range) => {
            insert(headers, &header::CONTENT_RANGE, &content_range(&range, size));
            let length = range.end - range.start;
            (StatusCode::PARTIAL_CONTENT, vec![shown.piece(range)], length)
        }
        Shape::Parts(ranges) => {
            let boundary = super::fresh_id();
            let kind = format!("multipart/byteranges; boundary={boundary}");
            insert(headers, &header::CONTENT_TYPE, &kind);
            let (mut pieces, mut length) = (Vec::new(), 0);
            for range in ranges {
                let head = format!(
                    "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
                    shown.file.kind,
                    content_range(&range, size)
                );
                length += head.len() as u64 + range.end - range.start;
                pieces.push(Piece::Text(Bytes::from(head)));
                pieces.push(shown.piece(range));
            }
            let end = format!("\r\n--{boundary}--\r\n");
            length += end.len() as u64;
            pieces.push(Piece::Text(Bytes::from(end)));
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
