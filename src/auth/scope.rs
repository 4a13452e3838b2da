//! What a token may be used for.
//!
//! Owns: the scope words and sets of them.
//! Does not: check a scope against a route (the routes do).
//! Called by: claims, keys and every route.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Watch: sessions and messages of the token's account.
    Watch,
    /// Everything inside the token's tenant.
    Admin,
    /// The catalogue of the token's tenant.
    Editor,
    /// Sessions and accounts of the token's tenant.
    Support,
    /// Ledger and statements of the token's tenant.
    Finance,
    /// Asking whether a ticket is alive.
    Introspect,
    /// Operating the node, across tenants.
    Operator,
}

impl Scope {
    /// Every scope, in the order in which they are written.
    pub const ALL: [Self; 7] = [
        Self::Watch,
        Self::Admin,
        Self::Editor,
        Self::Support,
        Self::Finance,
        Self::Introspect,
        Self::Operator,
    ];

    /// The word in a token and in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Support => "support",
            Self::Finance => "finance",
            Self::Introspect => "introspect",
            Self::Operator => "operator",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The word names no scope.
#[derive(Debug, Error)]
#[error("unknown scope {0:?}")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(word: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|s| s.word() == word)
            .ok_or_else(|| UnknownScope(word.to_owned()))
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// None.
    pub const NONE: Self = Self(0);

    /// All of [`Scope::ALL`].
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// The known words of a `scope` claim (RFC 8693, section 4.2); unknown words are ignored.
    #[must_use]
    pub fn of_claim(words: &str) -> Self {
        words
            .split(' ')
            .filter_map(|word| word.parse::<Scope>().ok())
            .collect()
    }

    /// Whether `scope` is in the set.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// What is in both sets.
    #[must_use]
    pub fn within(self, limit: Self) -> Self {
        Self(self.0 & limit.0)
    }

    /// The scopes in the set.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(scope.bit())
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// Space-separated words, as in a token.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{}", scope.word())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_are_ignored_and_the_rest_survives_a_round_trip() {
        let scopes = Scopes::of_claim("finance  openid watch WATCH");
        assert_eq!(scopes.to_string(), "watch finance");
        assert_eq!(Scopes::of_claim(&scopes.to_string()), scopes);
        assert_eq!(Scopes::of_claim(""), Scopes::NONE);
        assert_eq!(Scopes::of_claim(&Scopes::all().to_string()), Scopes::all());
        assert!(!scopes.has(Scope::Operator));
    }
}
