//! Typed settings of one node.
//!
//! Owns: the shape of the configuration and its secrets' types; `default.toml` beside this file is the manual.
//! Does not: open files or sockets that a setting names (their owners do).
//! Called by: `main` and the commands, through [`load`].

mod secret;
mod section;

pub use secret::Secret;
pub use section::*;
