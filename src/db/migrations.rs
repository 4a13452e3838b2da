//! The steps that make the tables, and undo them.
//!
//! A step is a pair of files in `migrations/`, `1_name.up.sql` and `1_name.down.sql`, in SQL that both engines
//! understand. A step that was released is never changed: the next one mends it.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::{Any, SqlSafeStr};
use tokio::time::timeout;

use super::{DbError, MigrationError};

/// Declares steps by number and name.
macro_rules! steps {
    ($($number:literal $name:literal),* $(,)?) => {
        &[$(Step {
            number: $number,
            name: $name,
            up: include_str!(concat!("migrations/", stringify!($number), "_", $name, ".up.sql")),
            down: include_str!(concat!("migrations/", stringify!($number), "_", $name, ".down.sql")),
        }),*]
    };
}

struct Step {
    number: i64,
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

/// Every step of this program, in order.
const STEPS: &[Step] = steps![1 "accounts", 2 "catalogue", 3 "media", 4 "ledger", 5 "messages", 6 "ledger_days", 7 "ledger_sources", 8 "ledger_live"];

/// Where sqlx keeps what was applied.
const TABLE: &str = "_sqlx_migrations";

/// Steps in order.
#[derive(Debug)]
pub struct Migrations {
    migrator: Migrator,
}

/// A step, and whether the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub number: i64,
    /// What it is about.
    pub name: Cow<'static, str>,
    /// Whether it was applied.
    pub applied: bool,
}

impl Migrations {
    /// The steps of this program.
    #[must_use]
    pub fn all() -> Self {
        let steps = STEPS.iter().flat_map(|step| {
            let half = |direction, sql: &'static str| {
                Migration::new(
                    step.number,
                    step.name.into(),
                    direction,
                    sql.into_sql_str(),
                    false,
                )
            };
            [
                half(MigrationType::ReversibleUp, step.up),
                half(MigrationType::ReversibleDown, step.down),
            ]
        });
        let mut migrator = Migrator::with_migrations(steps.collect());
        // A node of the version before may start while the tables are already those of the next.
        migrator.set_ignore_missing(true);
        Self { migrator }
    }

    /// Whether there is a step of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.migrator.iter().any(|step| step.description == name)
    }

    pub(super) async fn run(
        &self,
        link: &mut PoolConnection<Any>,
        patience: Duration,
    ) -> Result<(), MigrationError> {
        within(link, patience, async |link| {
            self.migrator.run_direct(None, link, false).await
        })
        .await
    }

    pub(super) async fn undo(
        &self,
        link: &mut PoolConnection<Any>,
        target: i64,
        patience: Duration,
    ) -> Result<(), MigrationError> {
        within(link, patience, async |link| {
            self.migrator.undo(link, target).await
        })
        .await
    }

    pub(super) async fn applied(
        &self,
        link: &mut PoolConnection<Any>,
    ) -> Result<Vec<Applied>, MigrationError> {
        link.ensure_migrations_table(TABLE).await?;
        let found = link.list_applied_migrations(TABLE).await?;
        let steps = self
            .migrator
            .iter()
            .filter(|step| step.migration_type.is_up_migration());
        let steps = steps.map(|step| Applied {
            number: step.version,
            name: step.description.clone(),
            applied: found.iter().any(|applied| applied.version == step.version),
        });
        Ok(steps.collect())
    }
}

/// A connection that failed half-way may hold the lock of migrations: it is not used again.
async fn within(
    link: &mut PoolConnection<Any>,
    patience: Duration,
    work: impl AsyncFnOnce(&mut sqlx::AnyConnection) -> Result<(), sqlx::migrate::MigrateError>,
) -> Result<(), MigrationError> {
    let done = timeout(patience, work(link)).await;
    if !matches!(done, Ok(Ok(()))) {
        link.close_on_drop();
    }
    done.map_err(|_| DbError::Away)??;
    Ok(())
}
