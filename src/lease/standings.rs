//! The file in which a single node keeps what operators decided about accounts, over its restarts.
//!
//! Owns: its form, and that it is whole whenever the process ends. Does not: decide (the account's rules do). With Redis
//! there is no such file: Redis has it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::protocol::id::AccountKey;

use super::model::Standing;

/// A file of decisions.
pub(super) struct Standings(Arc<Kept>);

struct Kept {
    file: PathBuf,
    known: Mutex<BTreeMap<AccountKey, Standing>>,
}

/// A decision as it is written.
#[derive(Serialize, Deserialize)]
struct Row {
    tenant: String,
    account: String,
    #[serde(default)]
    blocked: bool,
    limit: Option<u32>,
}

impl Standings {
    /// Reads what is in the file, if there is one.
    pub(super) fn open(file: PathBuf) -> io::Result<Self> {
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => b"[]".to_vec(),
            read => read?,
        };
        let rows: Vec<Row> = serde_json::from_slice(&text)?;
        let known = rows.into_iter().map(|row| {
            let (blocked, limit) = (row.blocked, row.limit);
            (
                AccountKey::new(&row.tenant, &row.account),
                Standing { blocked, limit },
            )
        });
        let known = Mutex::new(known.collect());
        Ok(Self(Arc::new(Kept { file, known })))
    }

    /// Every account about which something was decided.
    pub(super) fn known(&self) -> BTreeMap<AccountKey, Standing> {
        self.0
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Writes a decision down. One that cannot be written holds until the process ends, and the log says so.
    pub(super) async fn keep(&self, account: &AccountKey, standing: Standing) {
        let (kept, account) = (Arc::clone(&self.0), account.clone());
        let written = tokio::task::spawn_blocking(move || {
            // Under the lock, so that an older state is never written over a newer one.
            let mut known = kept.known.lock().unwrap_or_else(PoisonError::into_inner);
            if standing == Standing::default() {
                known.remove(&account);
            } else {
                known.insert(account, standing);
            }
            write(&kept.file, &known)
        });
        if let Err(error) = written.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            let file = self.0.file.display();
            tracing::error!(%file, %error, "an operator's decision is lost with the next restart");
        }
    }
}

/// A whole new file takes the place of the old one.
fn write(file: &Path, known: &BTreeMap<AccountKey, Standing>) -> io::Result<()> {
    let row = |(key, standing): (&AccountKey, &Standing)| Row {
        tenant: key.tenant.to_string(),
        account: key.account.to_string(),
        blocked: standing.blocked,
        limit: standing.limit,
    };
    let rows: Vec<_> = known.iter().map(row).collect();
    let partial = file.with_extension("json.part");
    let mut new = std::fs::File::create(&partial)?;
    new.write_all(&serde_json::to_vec_pretty(&rows)?)?;
    new.sync_all()?;
    std::fs::rename(&partial, file)
}
