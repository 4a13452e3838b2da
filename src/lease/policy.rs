//! What an account may do: its limit and the modes of its plan.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::auth::Claims;
use crate::config::{Config, Mode, Plan, TakeoverMode};

/// Limits and modes by plan, as configured.
#[derive(Clone, Debug)]
pub struct Policy {
    default_limit: u32,
    plans: BTreeMap<String, Plan>,
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
            consent: config.takeover.mode == TakeoverMode::Consent,
            line: config.waiting.max,
            answer_within: config.takeover.answer_within,
            ask_for: config.takeover.ask_for,
            wait_for: config.waiting.timeout,
        }
    }

    /// The limit is the token's `streams`, else its plan's, else the default. A plan that the table does not know
    /// has the default.
    #[must_use]
    pub fn entitlement(&self, claims: &Claims) -> Entitlement {
        let plan = claims.plan.as_deref().and_then(|name| self.plans.get(name));
        let allows = |mode: Mode| plan.is_none_or(|plan| plan.on_limit.contains(&mode));
        Entitlement {
            limit: claims
                .streams
                .or(plan.map(|plan| plan.limit))
                .unwrap_or(self.default_limit),
            may_take_over: allows(Mode::Ask) || allows(Mode::Oldest),
            may_end_oldest: allows(Mode::Oldest),
            may_wait: allows(Mode::Wait) && self.line > 0,
            may_ask: allows(Mode::Ask),
        }
    }
}
