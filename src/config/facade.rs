//! `[facade]`: the API of another product, for players that were written for it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::validate::Problems;
use super::{Config, keys};

/// Applications: a list that people keep.
const MOST_APPLICATIONS: usize = 1_000;

/// `[facade]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Facade {
    /// Whether the API of Adobe Pass Concurrency Monitoring is served.
    pub adobe: bool,
    /// What its paths begin with; empty: nothing.
    pub path: String,
    /// How often its players are told to be heard; a session lives for one and a half of it.
    #[serde(with = "super::section::duration")]
    pub heartbeat: Duration,
    /// Who may call it, by application id.
    pub applications: BTreeMap<String, Application>,
}

/// `[facade.applications.<id>]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// The tenant whose accounts its subjects are.
    pub tenant: String,
    /// The plan of its subjects; left out: the default limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

pub(super) fn check(config: &Config, found: &mut Problems) {
    let facade = &config.facade;
    let second = Duration::from_secs(1);
    found.span("facade.heartbeat", facade.heartbeat, 2 * second..=300 * second);
    let segments = facade.path.split('/').skip(1);
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let path = facade.path.is_empty() || facade.path.starts_with('/') && segments.clone().all(plain);
    found.check(
        "facade.path",
        path,
        "must be empty, or as /v2: no / at its end, nothing to be escaped",
    );
    let own = segments
        .clone()
        .next()
        .is_some_and(|first| ["v1", "debug", ".well-known"].contains(&first));
    found.check("facade.path", !own, "is where this server's own routes are");
    let number = facade.applications.len();
    let message = format!("must be at most {MOST_APPLICATIONS}");
    found.check("facade.applications", number <= MOST_APPLICATIONS, message);
    let served = !facade.adobe || number > 0;
    found.check(
        "facade.applications",
        served,
        "must name who may call, with facade.adobe",
    );
    for (id, application) in &facade.applications {
        let path = keys::join("facade.applications", id);
        let named = (1..=256).contains(&id.len()) && !id.contains(':');
        found.check(&path, named, "its id must have 1 to 256 bytes, and no colon");
        let tenant = &application.tenant;
        let of_tenant = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let fits = (1..=64).contains(&tenant.len()) && tenant.chars().all(of_tenant);
        found.check(format!("{path}.tenant"), fits, "must be the name of a tenant");
        if let Some(plan) = &application.plan {
            let known = config.plans.contains_key(plan);
            found.check(
                format!("{path}.plan"),
                known,
                format!("no plan {plan:?} in [plans]"),
            );
        }
    }
}
