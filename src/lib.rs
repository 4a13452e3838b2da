//! Usher: a WebSocket streaming-session gateway. The connection is the lease.

pub mod auth;
pub mod config;
pub mod net;
pub mod telemetry;
