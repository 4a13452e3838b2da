//! Reports that were worked out, until what they rest on changes.
//!
//! Owns: a bounded number of them. Does not: know when something changed (`versions` does). Called by: the routes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::figures::Question;
use super::report::Report;
use super::royalties::Model;
use super::versions::Version;

/// Reports kept.
const MOST: usize = 64;

type Key = (Question, &'static str);

/// Reports by question and model, each with the version of its tenant's rows.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<BTreeMap<Key, (Version, Report)>>);

impl Cache {
    /// The report of this version.
    pub(super) fn find(&self, question: &Question, model: Model, version: Version) -> Option<Report> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, report) = kept.get(&(question.clone(), model.name()))?;
        (*of == version).then(|| report.clone())
    }

    /// Keeps a report; when there are too many, another one goes.
    pub(super) fn keep(&self, question: &Question, model: Model, version: Version, report: &Report) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (question.clone(), model.name());
        if kept.len() >= MOST && !kept.contains_key(&key) {
            kept.pop_first();
        }
        kept.insert(key, (version, report.clone()));
    }
}
