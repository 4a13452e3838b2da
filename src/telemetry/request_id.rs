//! The id of one request.
//!
//! Owns: how it is made and written.
//! Does not: travel by itself; whoever answers a request puts it into the log span and the error body.
//! Called by: the HTTP layer and the socket's opening.

use std::fmt;

/// 64 random bits, written as 16 hex digits. Unique enough to find a request in the logs; no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).expect("AWS-LC's generator aborts rather than fail once seeded");
        Self(u64::from_ne_bytes(bytes))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sixteen_digits_and_random() {
        assert_eq!(RequestId(0xab).to_string(), "00000000000000ab");
        assert_ne!(RequestId::random(), RequestId::random());
    }
}
