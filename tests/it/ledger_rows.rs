//! The rows of an installation, past its gateways.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use usher::config::{self, DatabaseUrl};
use usher::db::{Db, Migrations};
use usher::telemetry::Metrics;

/// The database in this data directory, or of the server at `url`.
pub(crate) async fn open(data: &Path, url: &str) -> Db {
    let settings = config::Database {
        url: DatabaseUrl::from(url.to_owned()),
        password: String::new().into(),
        connections: 2,
        timeout: Duration::from_secs(5),
        migrate: false,
    };
    let db = Db::open(&settings, data, Migrations::all(), Arc::new(Metrics::new())).unwrap();
    db.prepare(false).await.unwrap();
    db
}
