//! What people's fields may hold.
//!
//! Owns: the rules and the refusals that name the field. Does not: know what is stored already.
//! Called by: the routes and the commands.

use http::Uri;

use super::common;
use crate::api::error::ApiError;
use crate::auth::{Scope, Scopes};
use crate::config::Accounts;
use crate::protocol::MAX_ID_BYTES;

/// RFC 5321, 4.5.3.1: a path of 256 bytes, less the two brackets.
const MAX_EMAIL_BYTES: usize = 254;
/// The same section.
const MAX_LOCAL_BYTES: usize = 64;
/// RFC 1035, 2.3.4.
const MAX_LABEL_BYTES: usize = 63;
const MAX_USER_NAME: usize = 64;
const MAX_NAME: usize = 100;
const MAX_PICTURE_BYTES: usize = 2048;
/// Most characters of a password, so that none takes long to hash (NIST asks for 64 at least).
const MAX_PASSWORD: usize = 128;

/// Scopes that a person may have beside `watch`. `operator` is across tenants and comes from the node's key alone.
const GIVEN: [Scope; 5] = [
    Scope::Admin,
    Scope::Editor,
    Scope::Support,
    Scope::Finance,
    Scope::Introspect,
];

fn check(holds: bool, field: &'static str, problem: &'static str) -> Result<(), ApiError> {
    if holds {
        Ok(())
    } else {
        Err(ApiError::bad_request(field, problem))
    }
}

/// An e-mail address that a mail server could take; whether anybody reads it is not asked.
///
/// # Errors
/// 400 for `email`.
pub(super) fn email(text: &str) -> Result<(), ApiError> {
    check(
        is_email(text),
        "email",
        "email must be an address as name@example.com",
    )
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    // The atom of RFC 5322, 3.2.3, and what is beyond ASCII (RFC 6531); quoted local parts are nobody's.
    let of_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_letter(c);
    let local_fits = local.len() <= MAX_LOCAL_BYTES
        && local
            .split('.')
            .all(|part| !part.is_empty() && part.chars().all(of_atom));
    let of_label = |c: char| c.is_ascii_alphanumeric() || c == '-' || is_letter(c);
    let is_label = |label: &str| {
        let hyphened = label.starts_with('-') || label.ends_with('-');
        (1..=MAX_LABEL_BYTES).contains(&label.len()) && !hyphened && label.chars().all(of_label)
    };
    let domain_fits = domain.contains('.') && domain.split('.').all(is_label);
    text.len() <= MAX_EMAIL_BYTES && local_fits && domain_fits
}

/// Beyond ASCII.
fn is_letter(c: char) -> bool {
    !c.is_ascii() && c.is_alphanumeric()
}

/// The second name by which somebody may sign in. It is never mistaken for an e-mail.
///
/// # Errors
/// 400 for `user_name`.
pub(super) fn user_name(text: &str) -> Result<(), ApiError> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let fits = (1..=MAX_USER_NAME).contains(&text.len()) && text.chars().all(of_name);
    check(
        fits,
        "user_name",
        "user_name must be 1 to 64 of a-z, 0-9, hyphen, underscore and dot",
    )
}

/// The name that others see, without the space around it.
///
/// # Errors
/// 400 for `name`.
pub(super) fn name(text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    let fits = (1..=MAX_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    check(fits, "name", "name must be 1 to 100 characters")?;
    Ok(text.to_owned())
}

/// The name of somebody who gave none: what stands before the @.
pub(super) fn name_of(email: &str) -> String {
    let local = email.rsplit_once('@').map_or(email, |(local, _)| local);
    local.chars().take(MAX_NAME).collect()
}

/// Where a picture is.
///
/// # Errors
/// 400 for `picture`.
pub(super) fn picture(text: &str) -> Result<(), ApiError> {
    let fits = text.len() <= MAX_PICTURE_BYTES
        && text.parse::<Uri>().is_ok_and(|url| {
            url.scheme_str() == Some("https")
                && url.host().is_some_and(is_host)
                && !url.authority().is_some_and(|host| host.as_str().contains('@'))
        });
    check(
        fits,
        "picture",
        "picture must be a URL https://.. of at most 2048 bytes",
    )
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))
}

/// A plan of the configuration; any name while there is none.
///
/// # Errors
/// 400 for `plan`.
pub(super) fn plan(text: &str, is_known: bool) -> Result<(), ApiError> {
    let fits = (1..=MAX_ID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    check(fits && is_known, "plan", "there is no such plan")
}

/// A new password. `own` are the names that it must not be.
///
/// # Errors
/// 400 for `password`.
pub(super) fn password(text: &str, own: &[&str], settings: &Accounts) -> Result<(), ApiError> {
    let refuse = |problem: String| Err(ApiError::bad_request("password", problem));
    let length = text.chars().count();
    let least = settings.password_min as usize;
    if !(least..=MAX_PASSWORD).contains(&length) {
        return refuse(format!("password must have {least} to {MAX_PASSWORD} characters"));
    }
    let lower = text.to_lowercase();
    if own.iter().any(|name| name.to_lowercase() == lower) {
        return refuse("password must not be a name of the account".to_owned());
    }
    if common::is_common(text) {
        return refuse("this password is too common: others would try it first".to_owned());
    }
    Ok(())
}

/// Scopes that somebody is given, as words with spaces between; `watch` is always among them and not stored.
///
/// # Errors
/// 400 for `scope`.
pub(super) fn scopes(words: &str) -> Result<Scopes, ApiError> {
    let refused = || {
        ApiError::bad_request(
            "scope",
            "scope is of watch, admin, editor, support, finance and introspect",
        )
    };
    let mut found = Vec::new();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let scope: Scope = word.parse().map_err(|_| refused())?;
        if GIVEN.contains(&scope) {
            found.push(scope);
        } else if scope != Scope::Watch {
            return Err(refused());
        }
    }
    Ok(found.into_iter().collect())
}

/// The id or the name of a device, as it calls itself.
///
/// # Errors
/// 400 for `field`.
pub(super) fn device(text: &str, field: &'static str) -> Result<(), ApiError> {
    let fits = (1..=MAX_ID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    check(fits, field, "a device and its name are 1 to 256 bytes")
}

/// What e-mails and user names are compared by. Case only: look-alikes stay different (Unicode is not normalized).
pub(super) fn key(name: &str) -> String {
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_sane_form() {
        for good in [
            "a@example.com",
            "first.last+tag@sub.example.co.uk",
            "o'neil@example.com",
            "jörg@müller.example",
            "x_y-z@a-b.example",
        ] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "@example.com",
            "a@",
            "a@b",
            "a b@example.com",
            " a@example.com",
            "a@example.com ",
            "a@@example.com",
            "a@b@example.com",
            ".a@example.com",
            "a..b@example.com",
            "a@example..com",
            "a@.example.com",
            "a@-x.example.com",
            "a@example.com\u{0}",
            "\"a\"@example.com",
            "a,b@example.com",
            &format!("{}@example.com", "a".repeat(65)),
            &format!("a@{}.com", "b".repeat(64)),
            &format!("a@{}com", "bcd.".repeat(70)),
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }

    #[test]
    fn scopes_that_may_be_given() {
        let words = |text: &str| scopes(text).ok().map(|found| found.to_string());
        assert_eq!(words("watch admin").as_deref(), Some("admin"));
        assert_eq!(words(""), Some(String::new()));
        assert_eq!(words("admin operator"), None);
        assert_eq!(words("root"), None);
    }
}
