//! HTTP Basic (RFC 7617): a name and a password in a header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::api::error::ApiError;
use crate::config::Secret;

/// What stands for any name and password that nobody has.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"usher\", charset=\"UTF-8\"");

/// A name and a password, not judged yet.
pub(super) struct Credentials {
    /// E-mail or user name.
    pub(super) name: String,
    pub(super) password: Secret,
}

impl Credentials {
    /// Reads the one `Authorization` header.
    ///
    /// # Errors
    /// 401 when there is none, more than one, or another scheme.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = values.next().filter(|_| values.next().is_none());
        value.and_then(Self::parse).ok_or_else(refused)
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = value.to_str().ok()?.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        // PostgreSQL has no text with a NUL, and nobody such a name.
        let name = (!name.contains('\0')).then(|| name.to_owned())?;
        Some(Self {
            name,
            password: Secret::from(password.to_owned()),
        })
    }
}

/// 401: one answer, whether the name or the password is wrong.
pub(super) fn refused() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the e-mail (or user name) and the password do not fit",
    )
    .with_header(header::WWW_AUTHENTICATE, CHALLENGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<(String, String)> {
        let found = Credentials::parse(&HeaderValue::from_str(value).ok()?)?;
        Some((found.name, found.password.expose().to_owned()))
    }

    #[test]
    fn names_end_at_the_first_colon() {
        let encoded = STANDARD.encode("a@x.y:p:q ä");
        let found = Some(("a@x.y".to_owned(), "p:q ä".to_owned()));
        assert_eq!(read(&format!("Basic {encoded}")), found);
        assert_eq!(read(&format!("bAsIc  {encoded} ")), found);
    }

    #[test]
    fn what_cannot_be_read_is_none() {
        let latin1 = STANDARD.encode(b"a:\xe4");
        let nul = STANDARD.encode("a\0:b");
        for value in ["", "Basic", "Basic !", "Bearer YTpi", "Basic YQ=="] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(read(&format!("Basic {latin1}")), None);
        assert_eq!(read(&format!("Basic {nul}")), None);
    }
}
