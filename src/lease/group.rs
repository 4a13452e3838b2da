//! Groups: what a session counts in beside its account's total.
//!
//! A rule of the configuration puts a start into groups (`policy` does). An entry keeps the names of its groups, and
//! every store counts them from the entries themselves, so that no counter can leak.

use std::sync::Arc;

use super::model::{Device, Millis};

/// The rule that is always there: the account's total.
pub const ACCOUNT: &str = crate::config::ACCOUNT_RULE;

/// Sessions of an account, counted or not, beyond which also a start is refused that its total does not limit (it is
/// exempt, or the total only watches): a table is read and written whole at every step.
pub const MAX_UNCOUNTED: u32 = 100;

/// On what terms a session plays, beside the limit of its account. The default: it counts in the total alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// It takes no slot and counts in no group.
    pub exempt: bool,
    /// The account's total refuses nobody; what it would have refused is told.
    pub shadow: bool,
    /// Whether it ends when the account's limit becomes smaller than its place.
    pub enforce: bool,
    /// Its groups, in the order in which they refuse.
    pub groups: Groups,
}

/// The terms of a session on a device, which decides them too.
pub type TermsOf<'a> = &'a (dyn Fn(&Device) -> Terms + Sync);

/// Groups of one start; most have none, and cost nothing then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Groups(Option<Arc<[Group]>>);

/// A group that a session counts in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// `<rule>/<value>`: all sessions of the account with the same key are one group.
    pub key: Arc<str>,
    /// Most of what is measured.
    pub limit: u32,
    /// What is measured.
    pub measure: Measure,
    /// It refuses nobody; what it would have refused is told.
    pub shadow: bool,
    /// Whether a session ends when the limit becomes smaller than its place.
    pub enforce: bool,
}

/// What a group counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Sessions of the same key.
    Sessions,
    /// Sessions of the rule whose value is not the account's home. The first value is the home, until nothing started
    /// there for this long.
    Away(Millis),
    /// Values of the rule that started something within this time, those that play or not.
    Known(Millis),
}

impl Terms {
    /// Whether they are those of a session that counts in the total alone.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The names of the groups, as an entry keeps them.
    #[must_use]
    pub fn keys(&self) -> Vec<Arc<str>> {
        self.groups.iter().map(|group| Arc::clone(&group.key)).collect()
    }
}

impl Groups {
    /// The groups one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Group> {
        self.0.as_deref().unwrap_or_default().iter()
    }
}

impl From<Vec<Group>> for Groups {
    fn from(groups: Vec<Group>) -> Self {
        Self((!groups.is_empty()).then(|| groups.into()))
    }
}

impl<'a> IntoIterator for &'a Groups {
    type Item = &'a Group;
    type IntoIter = std::slice::Iter<'a, Group>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Group {
    /// The rule that made it.
    #[must_use]
    pub fn rule(&self) -> &str {
        rule_of(&self.key)
    }
}

/// The rule of a group's key.
#[must_use]
pub fn rule_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(rule, _)| rule)
}
