//! The one shape of errors, and the one place where errors become status codes.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::auth::Rejected;
use crate::db::DbError;
use crate::gateway::player::Forbidden;
use crate::lease::store::StoreError;
use crate::protocol::start::BadParameter;
use crate::telemetry::RequestId;

/// The body of every refusal. Some have more beside `error`; their routes say so.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

/// A refusal with more beside `error`, for the document.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorWith<T> {
    error: ErrorDetail,
    /// What stands beside it; some refusals of the same status come without.
    #[serde(flatten)]
    beside: T,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs.
    #[schema(example = "bad_request")]
    code: &'static str,
    /// For people; it may change.
    message: Cow<'static, str>,
    /// The parameter or field that is meant.
    #[schema(required)]
    field: Option<&'static str>,
    /// Finds the request in the logs; also in the header `X-Request-Id`.
    request_id: String,
}

/// An error as a client sees it. Handlers return it; `observe` writes its body, with the request's id.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people. Holds nothing of a token.
    pub message: Cow<'static, str>,
    /// The parameter or field that is meant.
    pub field: Option<&'static str>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    /// What stands beside `error` in the body.
    beside: Option<Arc<Map<String, Value>>>,
}

impl ApiError {
    /// An error of this status.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            field: None,
            header: None,
            beside: None,
        }
    }

    /// 401: one constant answer, whatever is wrong with the token.
    #[must_use]
    pub fn unauthorized() -> Self {
        let error = Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a valid access token is required",
        );
        error.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 401 for a playback ticket, whatever is wrong with it.
    #[must_use]
    pub fn bad_ticket() -> Self {
        let error = Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a valid ticket is required",
        );
        error.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403.
    #[must_use]
    pub fn forbidden(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 400 for a parameter.
    #[must_use]
    pub fn bad_request(field: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "bad_request", message);
        Self {
            field: Some(field),
            ..error
        }
    }

    /// What stands for an error that no handler of ours made, such as an extractor's of axum.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Option<Self> {
        let (code, message) = match status {
            StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is too large"),
            status if status.is_client_error() => ("bad_request", "the request cannot be read"),
            status if status.is_server_error() => ("internal", "the request could not be answered"),
            _ => return None,
        };
        Some(Self::new(status, code, message))
    }

    /// 404.
    #[must_use]
    pub fn not_found(message: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 503 with a time after which to come back, in seconds.
    #[must_use]
    pub fn unavailable(code: &'static str, message: &'static str, retry_after: u16) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after))
    }

    /// 429 with a time after which to come back, in seconds.
    #[must_use]
    pub fn rate_limited(message: &'static str, retry_after: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message)
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after))
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self {
            header: Some(Box::new((name, value))),
            ..self
        }
    }

    /// Names the field that is meant.
    #[must_use]
    pub fn with_field(self, field: &'static str) -> Self {
        Self {
            field: Some(field),
            ..self
        }
    }

    /// Puts more beside `error` into the body.
    #[must_use]
    pub fn beside(self, more: Map<String, Value>) -> Self {
        Self {
            beside: Some(Arc::new(more)),
            ..self
        }
    }

    /// The response with its body.
    #[must_use]
    pub fn render(&self, request: RequestId) -> Response {
        let error = ErrorDetail {
            code: self.code,
            message: self.message.clone(),
            field: self.field,
            request_id: request.to_string(),
        };
        let mut body = json!(ErrorBody { error });
        if let (Some(more), Some(body)) = (&self.beside, body.as_object_mut()) {
            body.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = self.header.as_deref() {
            headers.insert(name, value.clone());
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Unavailable => Self::unavailable(
                "unavailable",
                "the keys to check the token with cannot be had just now",
                5,
            ),
            _ => Self::unauthorized(),
        }
    }
}

impl From<BadParameter> for ApiError {
    fn from(bad: BadParameter) -> Self {
        Self::bad_request(bad.field, bad.to_string())
    }
}

impl From<Forbidden> for ApiError {
    fn from(forbidden: Forbidden) -> Self {
        match forbidden {
            Forbidden::Device => Self::forbidden("device_forbidden", "the token is bound to another device"),
            Forbidden::Content => {
                Self::forbidden("content_forbidden", "the token does not allow this content")
            }
        }
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Away | DbError::Conflict => {
                Self::unavailable("database_away", "the database does not answer just now", 1)
            }
            DbError::Taken => Self::new(StatusCode::CONFLICT, "exists", "this exists already"),
            DbError::Dangling => Self::new(
                StatusCode::CONFLICT,
                "in_use",
                "this is still referred to, or refers to nothing",
            ),
            DbError::Unfit => Self::new(StatusCode::BAD_REQUEST, "bad_request", "a value cannot be stored"),
            DbError::Fault(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the request could not be answered",
            ),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable | StoreError::NotNow(_) | StoreError::Foreign(_) => {
                Self::unavailable("unavailable", "the store does not answer", 1)
            }
        }
    }
}

/// 404 for paths that do not exist.
pub async fn not_found() -> ApiError {
    ApiError::not_found("there is nothing at this path")
}

/// 405; axum adds `Allow`.
pub async fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not take this method",
    )
}

/// 405 where HEAD is refused too: a socket is opened by GET alone.
pub(super) async fn only_get() -> ApiError {
    method_not_allowed()
        .await
        .with_header(header::ALLOW, HeaderValue::from_static("GET"))
}
