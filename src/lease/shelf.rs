//! What the catalogue says of a content, as far as a start asks: its tags, and who may see it.
//!
//! Owns: the question and its answers. Does not: keep contents (the room `catalogue` does) or know SQL.
//! Called by: `policy` for tags; `gateway` before a content is started or switched to.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::auth::{Claims, Scope};

/// Scopes whose tokens see every content of their tenant.
const ALL_SEEING: [Scope; 3] = [Scope::Editor, Scope::Admin, Scope::Operator];

/// As what somebody looks at contents.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The plan that the token names.
    pub plan: Option<Arc<str>>,
    /// The roles that the token names.
    pub roles: Box<[String]>,
    /// Whether its scope shows everything.
    pub all: bool,
}

/// Why a content is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// The tenant's catalogue does not have it.
    Unknown,
    /// It is there, for other plans and roles.
    Hidden,
    /// Nobody can tell: the catalogue does not answer and nothing is remembered.
    Away,
}

/// A catalogue that remembers what it was asked for lately.
#[async_trait]
pub trait Shelf: fmt::Debug + Send + Sync {
    /// Whether only what it has may be played.
    fn enforces(&self) -> bool;

    /// The tags of a content as last heard of, in any order; none when nothing was. Never waits.
    fn tags(&self, tenant: &str, content: &str) -> Arc<[String]>;

    /// Hears of a content, so that [`Shelf::tags`] knows it, unless that was lately.
    async fn learn(&self, tenant: &str, content: &str);

    /// Whether somebody may play a content.
    ///
    /// # Errors
    /// Why not.
    async fn admit(&self, tenant: &str, sight: &Sight, content: &str) -> Result<(), Barred>;
}

impl Sight {
    /// What a token shows.
    #[must_use]
    pub fn of(claims: &Claims) -> Self {
        Self {
            plan: claims.plan.clone(),
            roles: claims.roles.clone().into_boxed_slice(),
            all: ALL_SEEING.iter().any(|scope| claims.scopes.has(*scope)),
        }
    }

    /// Whether it shows a content that is for these roles and plans: for everybody when there are none of either, else
    /// for whoever has one of them.
    #[must_use]
    pub fn shows(&self, roles: &[String], plans: &[String]) -> bool {
        let open = roles.is_empty() && plans.is_empty();
        let by_plan = || {
            self.plan
                .as_deref()
                .is_some_and(|own| plans.iter().any(|plan| plan == own))
        };
        let by_role = || self.roles.iter().any(|own| roles.contains(own));
        self.all || open || by_plan() || by_role()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_role_or_the_plan_is_enough_and_neither_is_needed_where_none_is_named() {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let sight = Sight {
            plan: Some("gold".into()),
            roles: list(&["kids"]).into(),
            all: false,
        };
        for (roles, plans, seen) in [
            (&[][..], &[][..], true),
            (&["kids", "more"], &[], true),
            (&["more"], &["gold"], true),
            (&["more"], &[], false),
            (&[], &["basic"], false),
            (&["gold"], &["kids"], false),
        ] {
            assert_eq!(
                sight.shows(&list(roles), &list(plans)),
                seen,
                "{roles:?} {plans:?}"
            );
        }
        assert!(!Sight::default().shows(&list(&["kids"]), &[]));
        let all = Sight {
            all: true,
            ..Sight::default()
        };
        assert!(all.shows(&list(&["kids"]), &[]));
    }
}
