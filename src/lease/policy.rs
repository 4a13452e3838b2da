//! What an account may do: its limit, the modes of its plan, and the groups that a start counts in.

mod rules;
mod tags;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Claims;
use crate::config::{Config, Mode, Plan, TakeoverMode};
use crate::protocol::id::AccountKey;

use super::group::{ACCOUNT, Terms};
use super::model::Device;
use super::shelf::Shelf;
use rules::Rule;
use tags::{Contents, Tags};

/// Limits and modes by plan, as configured.
#[derive(Clone, Debug)]
pub struct Policy {
    default_limit: u32,
    plans: BTreeMap<String, Plan>,
    /// In the order in which they refuse: that of their names.
    rules: Vec<Rule>,
    tags: Tags,
    exempt: Exempt,
    /// The account's total refuses nobody.
    shadow: bool,
    /// Sessions beyond a lowered limit of the account end.
    enforce: bool,
    /// Whether a take-over asks its victim.
    pub consent: bool,
    /// Most waiters of an account.
    pub line: u32,
    /// How long a victim that is asked may think.
    pub answer_within: Duration,
    /// How long a refused player may decide.
    pub ask_for: Duration,
    /// The longest wait in the line.
    pub wait_for: Duration,
}

/// What plays and takes no slot.
#[derive(Clone, Debug)]
struct Exempt {
    contents: Contents,
    tags: BTreeSet<String>,
    accounts: BTreeSet<AccountKey>,
}

/// A start, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Viewer<'a> {
    /// Whose streams are limited.
    pub account: &'a AccountKey,
    /// The plan that the token names.
    pub plan: Option<&'a str>,
    /// The profile that the token names.
    pub profile: Option<&'a str>,
    /// What plays.
    pub device: &'a Device,
    /// What it plays.
    pub content: &'a str,
    /// Where it comes from.
    pub address: IpAddr,
}

/// What one token entitles to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// Concurrent streams of the account.
    pub limit: u32,
    /// Whether the player may take a slot over, whichever way its plan allows.
    pub may_take_over: bool,
    /// Whether it may do so without choosing whose (`on_limit=oldest`).
    pub may_end_oldest: bool,
    /// Whether it may wait.
    pub may_wait: bool,
    /// Whether it may stay and decide after a refusal.
    pub may_ask: bool,
}

impl Policy {
    /// The policy of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            default_limit: config.lease.limit,
            plans: config.plans.clone(),
            rules: config
                .rules
                .iter()
                .map(|(name, rule)| Rule::new(name, rule))
                .collect(),
            tags: Tags::new(&config.tags),
            exempt: Exempt {
                contents: Contents::new(&config.exempt.contents),
                tags: config.exempt.tags.iter().cloned().collect(),
                accounts: config.exempt.accounts.iter().map(|text| account(text)).collect(),
            },
            shadow: config.lease.shadow,
            enforce: config.lease.enforce_running,
            consent: config.takeover.mode == TakeoverMode::Consent,
            line: config.waiting.max,
            answer_within: config.takeover.answer_within,
            ask_for: config.takeover.ask_for,
            wait_for: config.waiting.timeout,
        }
    }

    /// The same policy, with the tags that a catalogue gives beside those of the configuration.
    #[must_use]
    pub fn with_shelf(mut self, shelf: Option<Arc<dyn Shelf>>) -> Self {
        self.tags.ask(shelf);
        self
    }

    /// Whether a start depends on the tags of its content.
    #[must_use]
    pub fn uses_tags(&self) -> bool {
        !self.exempt.tags.is_empty() || self.rules.iter().any(Rule::uses_tags)
    }

    /// Whether a plan is configured; every one is known while none is.
    #[must_use]
    pub fn knows_plan(&self, plan: &str) -> bool {
        self.plans.is_empty() || self.plans.contains_key(plan)
    }

    /// The limit is the token's `streams`, else its plan's, else the default. A plan that the table does not know
    /// has the default.
    #[must_use]
    pub fn entitlement(&self, claims: &Claims) -> Entitlement {
        self.entitlement_of(claims.plan.as_deref(), claims.streams)
    }

    /// The same for a token that was read before: its `plan` and its `streams`.
    #[must_use]
    pub fn entitlement_of(&self, plan: Option<&str>, streams: Option<u32>) -> Entitlement {
        let plan = plan.and_then(|name| self.plans.get(name));
        let allows = |mode: Mode| plan.is_none_or(|plan| plan.on_limit.contains(&mode));
        Entitlement {
            limit: streams
                .or(plan.map(|plan| plan.limit))
                .unwrap_or(self.default_limit),
            may_take_over: allows(Mode::Ask) || allows(Mode::Oldest),
            may_end_oldest: allows(Mode::Oldest),
            may_wait: allows(Mode::Wait) && self.line > 0,
            may_ask: allows(Mode::Ask),
        }
    }

    /// What a start counts in beside its account's total.
    #[must_use]
    pub fn terms(&self, viewer: &Viewer<'_>) -> Terms {
        let plain = Terms {
            shadow: self.shadow,
            enforce: self.enforce,
            ..Terms::default()
        };
        if self.is_exempt(viewer) {
            return Terms {
                exempt: true,
                ..plain
            };
        }
        let mut groups = Vec::new();
        for rule in &self.rules {
            rule.groups(viewer, &self.tags, &mut groups);
        }
        Terms {
            groups: groups.into(),
            ..plain
        }
    }

    fn is_exempt(&self, viewer: &Viewer<'_>) -> bool {
        let exempt = &self.exempt;
        exempt.accounts.contains(viewer.account)
            || exempt.contents.has(viewer.content)
            || !exempt.tags.is_empty() && {
                let tags = self.tags.of(&viewer.account.tenant, viewer.content);
                tags.iter().any(|tag| exempt.tags.contains(tag))
            }
    }

    /// What the metric of refusals calls every rule.
    pub fn labels(&self) -> impl Iterator<Item = String> {
        let total = self.shadow.then(|| rules::label(ACCOUNT, true));
        self.rules.iter().map(Rule::label).chain(total)
    }
}

/// What the metric of refusals calls a rule that refuses nobody.
#[must_use]
pub fn shadow_label(rule: &str) -> String {
    rules::label(rule, true)
}

/// `<account>` of the main tenant, or `<tenant>/<account>`.
fn account(text: &str) -> AccountKey {
    let (tenant, account) = text.split_once('/').unwrap_or(("main", text));
    AccountKey::new(tenant, account)
}
