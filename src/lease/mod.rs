//! The lease: who may play.
//!
//! Owns: the rules of an account's slots (pure, in `account` and `silence`), the store interface with its memory
//! twin, and the service through which sockets start and end sessions.
//! Does not: know sockets, frames or HTTP.
//! Called by: `gateway` (players) and `api` (operators).

pub mod account;
pub mod memory;
pub mod model;
pub mod policy;
pub mod silence;
pub mod store;

#[cfg(test)]
mod account_properties;
