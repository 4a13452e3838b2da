//! The ledger: every second watched, and who is paid for it.
//!
//! Owns: plays, subscribers and tracks in SQL, the import of files, royalty reports and their frozen statements, and the
//! routes `/v1/plays` and `/v1/reports`. Does not: decide who may play (`lease` does); what it learns of sessions are the
//! facts of the store's journal (`scribe`).
//! Called by: `app`, which starts it, and the commands `import` and `report`. What it promises: docs/ledger.md.

pub mod calendar;
pub mod figures;
pub mod import;
pub mod money;
pub mod report;
pub mod royalties;
mod sheet;
mod versions;
pub mod scribe;
mod sessions;
