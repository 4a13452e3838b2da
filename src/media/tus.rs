//! Uploads that can be resumed: tus 1.0.0 with creation, expiration, checksum and termination (tus.io/protocols).
//!
//! Owns: the protocol's headers and answers. Does not: keep what came (`partial` does). Called by: the router.

use std::sync::Arc;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::{Extension, FromRequest, FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::api::error::{ApiError, ErrorBody};
use crate::api::observe::Context;

use super::Media;
use super::file::{About, accepted};
use super::kind::LEAST_BYTES;
use super::partial::{Checksum, Partial};
use super::upload::title_of;

/// The version that is spoken.
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const EXTENSIONS: HeaderValue = HeaderValue::from_static("creation,expiration,checksum,termination");
const ALGORITHMS: HeaderValue = HeaderValue::from_static("sha1,sha256");

static TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
static TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
static TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
static TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
static TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
static UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
static UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
static UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
static UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
static UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
/// Which method is meant, for clients that can send no other than POST.
static METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
/// The file that an upload became.
static USHER_FILE: HeaderName = HeaderName::from_static("usher-file");

/// `Upload-Metadata`, in bytes.
const MOST_METADATA: usize = 8 * 1024;

type Shared = State<Arc<Media>>;

/// The path of an upload.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described: `Ours` reads it")]
struct UploadPath {
    /// The upload's id.
    upload: String,
}

/// What every request of the protocol says.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described: `check_version` reads it")]
struct Spoken {
    /// 1.0.0
    #[param(rename = "Tus-Resumable", pattern = "^1\\.0\\.0$")]
    tus_resumable: String,
}

/// A request about an upload that whoever asks announced.
pub(super) struct Ours {
    partial: Partial,
    headers: HeaderMap,
    body: Body,
}

impl FromRequest<Arc<Media>> for Ours {
    type Rejection = ApiError;

    /// 401 and 403 as for every upload, 412 for another version, 404 for somebody else's upload and for none.
    async fn from_request(request: Request, media: &Arc<Media>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let Some(context) = parts.extensions.get::<Context>().copied() else {
            return Err(ApiError::unavailable(
                "unavailable",
                "the request was interrupted",
                1,
            ));
        };
        let person = media.uploader(&context, &parts).await?;
        check_version(&parts.headers)?;
        let upload = Path::<String>::from_request_parts(&mut parts, media).await;
        let id = upload.map(|Path(id)| id).unwrap_or_default();
        let found = media.find_partial(&person, &id).await?;
        let absent = || versioned(ApiError::not_found("there is no such upload; announce it again"));
        Ok(Self {
            partial: found.ok_or_else(absent)?,
            headers: parts.headers,
            body,
        })
    }
}

/// What of the protocol is spoken.
pub(super) async fn options(State(media): Shared) -> Response {
    let headers = [
        (TUS_RESUMABLE.clone(), VERSION),
        (TUS_VERSION.clone(), VERSION),
        (TUS_EXTENSION.clone(), EXTENSIONS),
        (TUS_CHECKSUM_ALGORITHM.clone(), ALGORITHMS),
        (TUS_MAX_SIZE.clone(), HeaderValue::from(media.settings.max_bytes)),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Announces an upload that can be resumed (tus 1.0.0).
///
/// `Upload-Metadata` has the `filetype` and any of the fields of `POST /v1/files`, as base64.
#[utoipa::path(
    post,
    path = "/v1/files/uploads",
    tag = "media",
    params(
        Spoken,
        ("Upload-Length" = u64, Header, description = "Bytes of the file"),
        ("Upload-Metadata" = String, Header, description = "Names and base64 values, with commas between"),
    ),
    responses(
        (status = 201, description = "Its path is in `Location`"),
        (status = 412, description = "`tus_version`: `Tus-Resumable` must be 1.0.0", body = ErrorBody),
        (status = 413, description = "`file_too_large`, `quota_exceeded`", body = ErrorBody),
        (status = 415, description = "`unsupported_media_type`: files of this type are not taken", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn create(
    State(media): Shared,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let person = media.uploader(&context, &parts).await?;
    check_version(&parts.headers)?;
    let length = number(&parts.headers, &UPLOAD_LENGTH)?;
    if length < LEAST_BYTES {
        let message = format!("a file has at least {LEAST_BYTES} bytes");
        return Err(versioned(ApiError::bad_request("upload-length", message)));
    }
    media.check_room(&person, Some(length)).await?;
    let metadata = parts.headers.get(&UPLOAD_METADATA);
    let metadata = metadata
        .map(HeaderValue::to_str)
        .transpose()
        .map_err(|_| bad_metadata())?;
    let metadata = metadata.unwrap_or_default();
    // What would be refused at the end is refused now.
    read_metadata(&media.settings.types, metadata)?;
    let partial = media.announce_partial(&person, length, metadata).await?;
    let location = format!("/v1/files/uploads/{}", partial.id);
    let mut response = (StatusCode::CREATED, [(header::LOCATION, location)]).into_response();
    tell(&mut response, &partial);
    Ok(response)
}

/// How far an upload is, in `Upload-Offset`.
#[utoipa::path(
    head,
    path = "/v1/files/uploads/{upload}",
    tag = "media",
    params(UploadPath, Spoken),
    responses(
        (status = 200, description = "It is there"),
        (status = 412, description = "`tus_version`: `Tus-Resumable` must be 1.0.0", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn offset(Ours { partial, .. }: Ours) -> Response {
    let mut response = StatusCode::OK.into_response();
    tell(&mut response, &partial);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(UPLOAD_LENGTH.clone(), partial.length.into());
    if let Ok(metadata) = HeaderValue::from_str(&partial.metadata) {
        headers.insert(UPLOAD_METADATA.clone(), metadata);
    }
    response
}

/// Goes on with an upload.
///
/// The body is `application/offset+octet-stream` and begins at `Upload-Offset`. What came is kept also when the connection
/// breaks. With the last byte the upload becomes a file, whose id is in `Usher-File`.
#[utoipa::path(
    patch,
    path = "/v1/files/uploads/{upload}",
    tag = "media",
    params(
        UploadPath,
        Spoken,
        ("Upload-Offset" = u64, Header, description = "Where the body begins"),
        ("Upload-Checksum" = Option<String>, Header, description = "sha1 or sha256 of the body, and base64", nullable = false),
    ),
    responses(
        (status = 204, description = "`Upload-Offset` says how far it is"),
        (status = 409, description = "`offset_mismatch`", body = ErrorBody),
        (status = 412, description = "`tus_version`: `Tus-Resumable` must be 1.0.0", body = ErrorBody),
        (status = 413, description = "`upload_too_long`", body = ErrorBody),
        (status = 415, description = "`unsupported_media_type`, and `type_mismatch` with the last byte", body = ErrorBody),
        (status = 423, description = "`upload_locked`: another request goes on with it", body = ErrorBody),
        (status = 460, description = "`checksum_mismatch`", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn append(State(media): Shared, ours: Ours) -> Result<Response, ApiError> {
    let kind = ours.headers.get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind.as_bytes() != b"application/offset+octet-stream") {
        let (status, code) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
        let message = "the body must be application/offset+octet-stream";
        return Err(versioned(ApiError::new(status, code, message)));
    }
    let offset = number(&ours.headers, &UPLOAD_OFFSET)?;
    let checksum = checksum(&ours.headers)?;
    let place = media.quota.begin_upload(&Arc::from(&*ours.partial.tenant))?;
    // A task of its own: what came before a connection broke is kept.
    let going_on = Arc::clone(&media).go_on(ours.partial, offset, ours.body, checksum, place);
    let partial = media.tasks.spawn(going_on).await;
    let partial = partial.unwrap_or_else(|_| {
        Err(ApiError::unavailable(
            "unavailable",
            "the upload was interrupted",
            1,
        ))
    })?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    tell(&mut response, &partial);
    Ok(response)
}

/// Gives an upload up.
#[utoipa::path(
    delete,
    path = "/v1/files/uploads/{upload}",
    tag = "media",
    params(UploadPath, Spoken),
    responses(
        (status = 204, description = "It is gone"),
        (status = 412, description = "`tus_version`: `Tus-Resumable` must be 1.0.0", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn terminate(
    State(media): Shared,
    Ours { partial, .. }: Ours,
) -> Result<Response, ApiError> {
    media.give_up(&partial).await?;
    Ok((StatusCode::NO_CONTENT, [(TUS_RESUMABLE.clone(), VERSION)]).into_response())
}

/// Does what `X-HTTP-Method-Override` says, for clients that can send no other method.
#[utoipa::path(
    post,
    path = "/v1/files/uploads/{upload}",
    tag = "media",
    params(
        UploadPath,
        Spoken,
        ("X-HTTP-Method-Override" = String, Header, description = "What the request does", pattern = "^(PATCH|DELETE|HEAD)$"),
    ),
    responses(
        (status = 204, description = "As the method says"),
        (status = 405, description = "`method_not_allowed`", body = ErrorBody),
        (status = 412, description = "`tus_version`: `Tus-Resumable` must be 1.0.0", body = ErrorBody),
    ),
    security(("bearer" = []))
)]
pub(super) async fn overridden(
    State(media): Shared,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let method = request.headers().get(&METHOD_OVERRIDE).cloned();
    let ours = async |request| Ours::from_request(request, &media).await;
    match method.as_ref().map(HeaderValue::as_bytes) {
        Some(b"PATCH") => append(State(Arc::clone(&media)), ours(request).await?).await,
        Some(b"DELETE") => terminate(State(Arc::clone(&media)), ours(request).await?).await,
        Some(b"HEAD") => Ok(offset(ours(request).await?).await),
        _ => {
            // A stranger learns nothing first.
            let (parts, _) = request.into_parts();
            media.uploader(&context, &parts).await?;
            let (status, code) = (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
            Err(ApiError::new(status, code, "this path does not take this method"))
        }
    }
}

/// What every answer about an upload says.
fn tell(response: &mut Response, partial: &Partial) {
    let headers = response.headers_mut();
    headers.insert(TUS_RESUMABLE.clone(), VERSION);
    headers.insert(UPLOAD_OFFSET.clone(), partial.received.into());
    match &partial.file {
        Some(file) => {
            if let Ok(file) = HeaderValue::from_str(file) {
                headers.insert(USHER_FILE.clone(), file);
            }
        }
        None => {
            let date = httpdate::fmt_http_date(super::range::to_second(partial.expires_at));
            if let Ok(date) = HeaderValue::from_str(&date) {
                headers.insert(UPLOAD_EXPIRES.clone(), date);
            }
        }
    }
}

/// An error of the protocol, which says the version too.
pub(super) fn versioned(error: ApiError) -> ApiError {
    error.with_header(TUS_RESUMABLE.clone(), VERSION)
}

fn check_version(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get(&TUS_RESUMABLE) == Some(&VERSION) {
        return Ok(());
    }
    let (status, code) = (StatusCode::PRECONDITION_FAILED, "tus_version");
    let error = ApiError::new(status, code, "Tus-Resumable must be 1.0.0");
    Err(error.with_header(TUS_VERSION.clone(), VERSION))
}

fn number(headers: &HeaderMap, name: &'static HeaderName) -> Result<u64, ApiError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    let digits = value.filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|value| value.parse::<u64>().ok());
    number
        .filter(|number| i64::try_from(*number).is_ok())
        .ok_or_else(|| {
            let message = format!("the header {name} must be a number of bytes");
            versioned(ApiError::bad_request(name.as_str(), message))
        })
}

fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, ApiError> {
    let Some(value) = headers.get(&UPLOAD_CHECKSUM) else {
        return Ok(None);
    };
    let usage = || {
        versioned(ApiError::bad_request(
            "upload-checksum",
            "Upload-Checksum must be sha1 or sha256 and base64",
        ))
    };
    let (name, sum) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(usage)?;
    let algorithm = match name {
        "sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => &digest::SHA256,
        _ => return Err(usage()),
    };
    let expected = STANDARD.decode(sum.trim()).map_err(|_| usage())?;
    Ok(Some(Checksum::new(algorithm, expected)))
}

fn bad_metadata() -> ApiError {
    let message = "Upload-Metadata must be names and base64 values, separated by commas, with a filetype";
    versioned(ApiError::bad_request("upload-metadata", message))
}

/// The type and what is said of a file, out of `Upload-Metadata`: `filetype` or `type`; `filename` or `name` stands for a
/// title where there is none.
pub(super) fn read_metadata(types: &[String], text: &str) -> Result<(String, About), ApiError> {
    if text.len() > MOST_METADATA {
        return Err(bad_metadata());
    }
    let (mut about, mut kind, mut name) = (About::default(), None, String::new());
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = STANDARD.decode(value.trim()).map_err(|_| bad_metadata())?;
        let value = String::from_utf8(value).map_err(|_| bad_metadata())?;
        match key {
            "filetype" | "type" => kind = Some(value),
            "filename" | "name" => name = title_of(&value),
            key => about.set(key, &value)?,
        }
    }
    if about.title.is_empty() {
        about.title = name;
    }
    let kind = accepted(types, &kind.ok_or_else(bad_metadata)?)?;
    Ok((kind, about))
}

#[cfg(test)]
mod tests;
