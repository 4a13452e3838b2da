//! The lease: who may play.
//!
//! Owns: the rules of slots and of the nodes' leases (pure: `account`, `bucket`, `tenure`, `silence`), the store
//! interface with its twins in memory and in Redis, and the service through which sockets start and end sessions.
//! Does not: know sockets, frames or HTTP.
//! Called by: `gateway` (players) and `api` (operators).

pub mod account;
pub mod blocked;
pub mod bucket;
mod change;
mod clock;
pub mod diary;
mod ended;
pub mod group;
mod heartbeats;
mod inquiry;
pub mod journal;
mod keeper;
pub mod locals;
pub mod memory;
pub mod memory_journal;
pub mod model;
#[cfg(test)]
mod model_check;
pub mod policy;
pub mod redis;
mod rule;
pub mod service;
pub mod shelf;
pub mod silence;
mod standings;
pub mod store;
pub mod tenure;
