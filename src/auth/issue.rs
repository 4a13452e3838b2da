//! Issuing access tokens.
//!
//! Owns: what a token of ours says, and which key signs it.
//! Does not: decide who may have one.
//! Called by: `verify`'s [`super::Verifier::issue`]: the token command, the demo and sign-in.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

use super::claims::{Claims, Expected, MAIN_TENANT};
use super::error::{AuthError, Rejected};
use super::keys::Algorithm;
use super::own_key::{OwnKey, compact};
use super::scope::Scopes;
use crate::config::Secret;

/// The `typ` of our access tokens.
const TOKEN_TYPE: &str = "JWT";

/// What a token shall say; see [`Claims`] for the meaning and the bounds of each field.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `tenant`.
    pub tenant: String,
    /// `sub`.
    pub account: String,
    /// `device`.
    pub device: Option<String>,
    /// `profile`.
    pub profile: Option<String>,
    /// `plan`.
    pub plan: Option<String>,
    /// `streams`.
    pub streams: Option<u32>,
    /// `contents`.
    pub contents: Option<Vec<String>>,
    /// `scope`; without it the token is good for watching.
    pub scopes: Option<Scopes>,
    /// `sign_in`: the sign-in that it comes from.
    pub sign_in: Option<String>,
    /// From now to `exp`, which is rounded up to a second.
    pub ttl: Duration,
}

impl Grant {
    /// A token of the main tenant, good for watching.
    #[must_use]
    pub fn new(account: impl Into<String>, ttl: Duration) -> Self {
        Self {
            tenant: MAIN_TENANT.to_owned(),
            account: account.into(),
            device: None,
            profile: None,
            plan: None,
            streams: None,
            contents: None,
            scopes: None,
            sign_in: None,
            ttl,
        }
    }
}

pub(crate) enum Signer {
    Own(Arc<OwnKey>),
    Shared(Arc<hmac::Key>),
}

/// Signs grants.
pub(crate) struct Issuer {
    signer: Signer,
    iss: Option<String>,
    aud: Option<String>,
}

impl Issuer {
    pub(crate) fn new(signer: Signer, iss: Option<String>, aud: Option<String>) -> Self {
        Self { signer, iss, aud }
    }

    pub(crate) fn issue(&self, grant: &Grant, now: SystemTime) -> Result<Secret, AuthError> {
        let claims = self.claims(grant, now)?;
        self.check(&claims, now).map_err(AuthError::Grant)?;
        match &self.signer {
            Signer::Own(key) => key.sign(TOKEN_TYPE, &claims),
            Signer::Shared(key) => {
                let header = json!({"alg": Algorithm::Hs256.name(), "typ": TOKEN_TYPE});
                compact(&header, &claims, |message| {
                    Ok(hmac::sign(key, message).as_ref().to_vec())
                })
            }
        }
    }

    fn claims(&self, grant: &Grant, now: SystemTime) -> Result<Map<String, Value>, AuthError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let exp = now
            .checked_add(grant.ttl)
            .ok_or(AuthError::Grant(Rejected::Claims("exp")))?;
        let exp = exp.as_secs().saturating_add(u64::from(exp.subsec_nanos() > 0));
        let optional = [
            ("iss", self.iss.clone().map(Value::from)),
            ("aud", self.aud.clone().map(Value::from)),
            ("device", grant.device.clone().map(Value::from)),
            ("profile", grant.profile.clone().map(Value::from)),
            ("plan", grant.plan.clone().map(Value::from)),
            ("streams", grant.streams.map(Value::from)),
            ("contents", grant.contents.clone().map(Value::from)),
            ("sign_in", grant.sign_in.clone().map(Value::from)),
            ("scope", grant.scopes.map(|scopes| scopes.to_string().into())),
        ];
        let always = [
            ("sub", grant.account.as_str().into()),
            ("tenant", grant.tenant.as_str().into()),
            ("iat", now.as_secs().into()),
            ("exp", exp.into()),
        ];
        let optional = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        Ok(always
            .into_iter()
            .chain(optional)
            .map(|(name, value)| (name.to_owned(), value))
            .collect())
    }

    /// Holds the claims against the rules by which they will be read.
    fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<(), Rejected> {
        let expected = Expected {
            issuer: self.iss.as_deref(),
            audience: self.aud.as_deref(),
            now,
        };
        let payload = serde_json::to_vec(claims).map_err(|_| Rejected::Malformed)?;
        Claims::parse(&payload, &expected).map(|_| ())
    }
}
