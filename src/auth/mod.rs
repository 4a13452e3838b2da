//! Who is asking: access tokens (JWT), the keys that verify them, and issuing them; playback tickets.
//!
//! Owns: the node's signing key, the keyring with its JWKS sources, the claims, and the place of a token in a request.
//! Does not: decide what an account may watch, answer HTTP, or know passwords, or whether a ticket's session lives.
//! Called by: `app` and the commands, which build a [`Verifier`], and everything that takes a token from outside.

mod claims;
mod error;
mod fetch;
mod issue;
mod jwk;
mod jwks;
mod jws;
mod keyring;
mod keys;
mod own_key;
mod public_key;
mod scope;
mod signing;
mod ticket;
mod token;
mod verify;

#[cfg(test)]
mod tests;

pub use claims::{Claims, LEEWAY, MAIN_TENANT, is_tenant};
pub use error::{AuthError, Rejected};
pub use issue::Grant;
pub use jws::MAX_TOKEN_BYTES;
pub use own_key::{FILE_NAME as SIGNING_KEY_FILE, OwnKey};
pub use scope::{Scope, Scopes, UnknownScope};
pub use ticket::Ticket;
pub use token::{Token, from_request};
pub use verify::Verifier;
