//! A string that never shows itself.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What a secret looks like from outside.
const MASK: &str = "***";

/// A secret setting or credential. `Debug` and serialisation mask it, so that neither a log line nor
/// `check-config` can leak it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the code that must use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is what [`fmt::Debug`] and serialisation show of a secret: a printed configuration holds none.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.0 == MASK
    }

    /// Whether the secret is unset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if self.0.is_empty() { "" } else { MASK })
    }
}
