//! The SQL database: accounts, catalogue, files, plays and messages live in it, and nothing that a slot depends on.
//!
//! Owns: the pool, its deadlines, transactions, migrations and the meaning of the database's errors.
//! Does not: know any table (each domain's room writes its own SQL). Called by: `app`, the domains' rooms, the commands.
//!
//! # One code path for SQLite and PostgreSQL
//!
//! What is written here runs on both: parameters are `$1`, `$2`; ids are `TEXT`; times are `BIGINT`, Unix milliseconds;
//! flags are `BIGINT`, 0 or 1; structured values are JSON in `TEXT`; `CAST(sum(x) AS BIGINT)`, since PostgreSQL adds up
//! to `NUMERIC`; what is compared without case is stored lower-cased beside the original, since SQLite's `lower` knows
//! ASCII only. `ON CONFLICT`, `RETURNING`, `LIKE .. ESCAPE '\'`, `WITH` and window functions mean the same on both.
//! Text never holds a NUL character: PostgreSQL refuses it ([`DbError::Unfit`]).

mod error;
mod inserts;
mod migrations;
mod pool;
mod sql;
mod work;

pub use error::{DbError, MigrationError, OpenError};
pub use inserts::Inserts;
pub use migrations::{Applied, Migrations};
pub use pool::{Db, Engine};
pub use sql::{Sql, containing};
pub use work::Work;
