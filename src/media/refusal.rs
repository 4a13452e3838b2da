//! Why an upload fails, and what its sender is told.

use http::StatusCode;

use crate::api::error::ApiError;

use super::form::FormError;
use super::source::SourceError;

/// Why an upload fails.
pub(super) enum Refused {
    /// Its sender is told, and can do something about it.
    Api(ApiError),
    /// It is this installation's fault.
    Failed(ApiError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        if error.status.is_server_error() {
            Self::Failed(error)
        } else {
            Self::Api(error)
        }
    }
}

impl From<FormError> for Refused {
    fn from(error: FormError) -> Self {
        Self::Api(match error {
            FormError::Source(error) => cut(error),
            FormError::Malformed => ApiError::bad_request("body", error.to_string()),
            FormError::TooLarge => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", error.to_string())
            }
        })
    }
}

/// What is told to a sender who fell silent; one that is gone hears nothing.
pub(super) fn cut(error: SourceError) -> ApiError {
    match error {
        SourceError::Silent => ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", error.to_string()),
        SourceError::Cut => ApiError::bad_request("body", error.to_string()),
    }
}

/// 413: the tenant has as much as it may.
pub(super) fn full() -> ApiError {
    let message = "the tenant's quota of bytes is used up";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "quota_exceeded", message)
}

/// A field that is no text is told by its name, when it is one that is known.
pub(super) fn field_error(error: FormError, name: &str) -> Refused {
    let known = [
        "title",
        "description",
        "category",
        "language",
        "provider",
        "content",
        "roles",
    ];
    let field = known.into_iter().find(|known| *known == name);
    match (error, field) {
        (FormError::TooLarge, Some(field)) => {
            ApiError::bad_request(field, format!("{field} is too long")).into()
        }
        (FormError::Malformed, Some(field)) => {
            ApiError::bad_request(field, format!("{field} is no UTF-8, or the form is cut off")).into()
        }
        (error, _) => error.into(),
    }
}
