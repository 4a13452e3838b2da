//! What can go wrong: settings at the start, tokens ever after.
//!
//! Owns: [`AuthError`] (an operator's to mend) and [`Rejected`] (a caller's to mend).
//! Does not: carry a token, a key or a claim's value in any message.
//! Called by: every file of this module.

use std::fmt::Display;

use thiserror::Error;

/// Why keys could not be loaded or a token not be issued.
#[derive(Debug, Error)]
pub enum AuthError {
    /// A setting cannot be used; the operator mends the named key and starts again.
    #[error("{key}: {problem}")]
    Setting {
        /// Path of the setting, such as `auth.keys[0].file`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The grant would make a token that no node accepts; the caller mends the grant.
    #[error("no such token can be issued: {0}")]
    Grant(Rejected),
    /// The cryptography failed; trying again may help.
    #[error("signing failed")]
    Signing,
}

impl AuthError {
    pub(crate) fn setting(key: impl Into<String>, problem: impl Display) -> Self {
        Self::Setting {
            key: key.into(),
            problem: problem.to_string(),
        }
    }
}

/// Why a token was not believed. For logs and metrics: a caller is told no more than that the token is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("token rejected: {}{}", self.reason(), self.detail())]
pub enum Rejected {
    /// There is none.
    Missing,
    /// Not three base64url segments holding JSON objects, or its place in the request cannot be read.
    Malformed,
    /// Longer than [`super::MAX_TOKEN_BYTES`].
    TooLong,
    /// An `alg` that is not ours, or not the one of the key that `kid` names.
    Algorithm,
    /// No key for it.
    UnknownKey,
    /// No key's signature fits.
    Signature,
    /// `exp` has passed; a fresh token helps.
    Expired,
    /// `nbf` is to come; waiting helps.
    NotYetValid,
    /// Not made for this service.
    Audience,
    /// Not made by the issuer that the key belongs to.
    Issuer,
    /// The named claim is absent though required, of a wrong type, or out of range.
    Claims(&'static str),
    /// A tenant that the key may not assert.
    Tenant,
    /// A playback ticket, which is no access token.
    Ticket,
    /// An access token, or what else is no playback ticket.
    NoTicket,
    /// An identity provider's keys could not be had yet: this says nothing about the token.
    Unavailable,
}

impl Rejected {
    /// The reason in one word: a metric's label and a log's field.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Claims(_) => "claims",
            Self::Tenant => "tenant",
            Self::Ticket => "ticket",
            Self::NoTicket => "no_ticket",
            Self::Unavailable => "unavailable",
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Claims(name) => format!(" ({name})"),
            _ => String::new(),
        }
    }
}
