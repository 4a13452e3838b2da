//! What can go wrong with the database, as far as callers have to tell it apart.

use std::borrow::Cow;

use sqlx::error::ErrorKind;
use sqlx::migrate::MigrateError;

/// Why a statement had no effect, or, for [`DbError::Away`] at a commit, may have had one unseen.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database does not answer in time, or cannot be reached: try again later.
    #[error("the database does not answer")]
    Away,
    /// A unique constraint refuses the row.
    #[error("this exists already")]
    Taken,
    /// A row that is named does not exist, or one that is removed is still named.
    #[error("a row that is referred to does not exist, or is still referred to")]
    Dangling,
    /// Two transactions stood in each other's way: doing the same again may work.
    #[error("another transaction stood in the way")]
    Conflict,
    /// The database cannot hold a value, such as a text with a NUL character.
    #[error("a value cannot be stored")]
    Unfit,
    /// A fault of this program: the statement is wrong, or a column holds what it should not.
    #[error("{0}")]
    Fault(String),
}

/// Why there is no database to work with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is wrong.
    #[error("database.url: {0}")]
    Setting(String),
    /// The file cannot be made or opened.
    #[error("{0}")]
    File(String),
}

/// Why the tables are not as this program needs them.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database does not answer.
    #[error(transparent)]
    Db(#[from] DbError),
    /// What was applied is not what this program would have applied, or a step fails.
    #[error("{0}")]
    Step(String),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        let found = judge(&error);
        if let Self::Fault(problem) = &found {
            tracing::error!(problem, "a statement failed in a way that it should not");
        } else if matches!(found, Self::Away) {
            tracing::debug!(%error, "the database is away");
        }
        found
    }
}

fn judge(error: &sqlx::Error) -> DbError {
    let sqlx::Error::Database(told) = error else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => DbError::Away,
            other => DbError::Fault(other.to_string()),
        };
    };
    match told.kind() {
        ErrorKind::UniqueViolation => return DbError::Taken,
        ErrorKind::ForeignKeyViolation => return DbError::Dangling,
        _ => {}
    }
    let code = told.code().unwrap_or(Cow::Borrowed(""));
    of_code(&code).unwrap_or_else(|| DbError::Fault(told.to_string()))
}

/// SQLSTATE has five characters; SQLite's extended result codes are numbers, whose low byte is the primary code.
fn of_code(code: &str) -> Option<DbError> {
    if code.len() == 5 {
        return Some(match code {
            "40001" | "40P01" => DbError::Conflict,
            // A server that starts, stops, is a standby, is full, or lets nobody in.
            _ if ["08", "28", "3D", "53", "57", "58"].contains(&&code[..2]) || code == "25006" => {
                DbError::Away
            }
            _ if code.starts_with("22") => DbError::Unfit,
            _ => return None,
        });
    }
    match code.parse::<u32>().ok()? & 0xff {
        // BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL
        5 | 6 | 8 | 10 | 13 | 14 | 15 => Some(DbError::Away),
        // TOOBIG
        18 => Some(DbError::Unfit),
        _ => None,
    }
}

impl From<MigrateError> for MigrationError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => match judge(&error) {
                DbError::Away => Self::Db(DbError::Away),
                _ => Self::Step(error.to_string()),
            },
            MigrateError::VersionMismatch(version) => Self::Step(format!(
                "migration {version} was applied in another form than this program has it"
            )),
            MigrateError::Dirty(version) => {
                Self::Step(format!("migration {version} was begun and not finished"))
            }
            other => Self::Step(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        let kind = |code| of_code(code).map(|error| error.to_string());
        let away = Some(DbError::Away.to_string());
        for code in [
            "08006", "57P01", "57P03", "53300", "25006", "28P01", "3D000", "5", "261", "14", "13",
        ] {
            assert_eq!(kind(code), away, "{code}");
        }
        assert_eq!(kind("40001"), Some(DbError::Conflict.to_string()));
        assert_eq!(kind("22021"), Some(DbError::Unfit.to_string()));
        for code in ["42P01", "1", "", "19", "x"] {
            assert!(kind(code).is_none(), "{code}");
        }
    }
}
