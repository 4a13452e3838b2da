//! Sockets.

pub mod address;
pub mod certificate;
pub mod devcert;
pub mod limits;
pub mod origin;
pub mod proxy_protocol;
pub mod tls;

#[cfg(test)]
mod scratch;
