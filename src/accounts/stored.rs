//! A password as it is stored: Argon2id in the PHC string format
//! (<https://github.com/P-H-C/phc-string-format>), `$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>`.
//!
//! Owns: the format and the computation. Does not: run off the async threads (`passwords` does).

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::protocol::id::random;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// RFC 9106 calls the version 0x13.
const VERSION: &str = "v=19";
/// One lane: a hash is one thread's work.
const LANES: u32 = 1;
/// A stored hash may not ask for more than this, in KiB: `accounts.hash_memory_kib` goes no further.
const MOST_MEMORY: u32 = 256 * 1024;
const MOST_PASSES: u32 = 20;

/// What a hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// Memory in KiB.
    pub(super) memory: u32,
    /// Passes over it.
    pub(super) passes: u32,
}

/// A password's salt and hash.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) cost: Cost,
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
}

impl Stored {
    /// What no password fits, and what takes as long to find out.
    pub(super) fn nobodys(cost: Cost) -> Self {
        Self {
            cost,
            salt: random(),
            hash: random(),
        }
    }

    /// Hashes a password with a fresh salt.
    pub(super) fn new(password: &str, cost: Cost, memory: &mut Vec<Block>) -> Option<Self> {
        let salt = random();
        let hash = compute(password, &salt, cost, memory)?;
        Some(Self { cost, salt, hash })
    }

    /// Whether the password is the one.
    pub(super) fn fits(&self, password: &str, memory: &mut Vec<Block>) -> bool {
        let hash = compute(password, &self.salt, self.cost, memory);
        hash.is_some_and(|hash| verify_slices_are_equal(&hash, &self.hash).is_ok())
    }

    /// Reads the text of a hash; none for anything that was not made here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("$argon2id$")?.split('$');
        let (version, cost) = (parts.next()?, parts.next()?);
        let (salt, hash) = (parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        let mut numbers = cost.split(',');
        let mut number = |name: &str| {
            let text = numbers.next()?.strip_prefix(name)?;
            text.parse::<u32>().ok()
        };
        let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
        let fits = (8..=MOST_MEMORY).contains(&memory) && (1..=MOST_PASSES).contains(&passes);
        if lanes != LANES || !fits {
            return None;
        }
        Some(Self {
            cost: Cost { memory, passes },
            salt: STANDARD_NO_PAD.decode(salt).ok()?.try_into().ok()?,
            hash: STANDARD_NO_PAD.decode(hash).ok()?.try_into().ok()?,
        })
    }

    /// The text of it.
    pub(super) fn text(&self) -> String {
        let Cost { memory, passes } = self.cost;
        let [salt, hash] = [&self.salt[..], &self.hash].map(|bytes| STANDARD_NO_PAD.encode(bytes));
        format!("$argon2id${VERSION}$m={memory},t={passes},p={LANES}${salt}${hash}")
    }
}

/// None: the machine has no memory for it.
fn compute(
    password: &str,
    salt: &[u8; SALT_BYTES],
    cost: Cost,
    memory: &mut Vec<Block>,
) -> Option<[u8; HASH_BYTES]> {
    let params = Params::new(cost.memory, cost.passes, LANES, Some(HASH_BYTES)).ok()?;
    let blocks = params.block_count();
    memory.try_reserve(blocks.saturating_sub(memory.len())).ok()?;
    memory.resize(blocks.max(memory.len()), Block::new());
    let mut hash = [0; HASH_BYTES];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let done =
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut hash, &mut memory[..blocks]);
    done.ok().map(|()| hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const CHEAP: Cost = Cost {
        memory: 64,
        passes: 1,
    };

    #[test]
    fn a_password_fits_its_own_hash_and_no_other() {
        let mut memory = Vec::new();
        let stored = Stored::new("correct horse", CHEAP, &mut memory).unwrap();
        let text = stored.text();
        assert!(text.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{text}");
        let read = Stored::parse(&text).unwrap();
        assert!(read.fits("correct horse", &mut memory));
        assert!(!read.fits("correct horsf", &mut memory));
        assert!(!Stored::nobodys(CHEAP).fits("correct horse", &mut memory));
        let again = Stored::new("correct horse", CHEAP, &mut memory).unwrap();
        assert_ne!(again.text(), text, "salted");
    }

    /// Computed by the reference implementation (`argon2-cffi` of Python is a binding to it).
    #[test]
    fn a_hash_of_another_program_is_understood() {
        let mut memory = Vec::new();
        let text =
            "$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$dPtrHTEawLtMiR9+/XloAkXZ+EtyrY+bvmHIbiufhk0";
        let stored = Stored::parse(text).unwrap();
        assert!(stored.fits("correct horse", &mut memory));
        assert!(!stored.fits("correct horsf", &mut memory));
        assert_eq!(stored.text(), text);
    }

    #[test]
    fn what_is_no_hash_is_none() {
        let mut memory = Vec::new();
        let good = Stored::new("x", CHEAP, &mut memory).unwrap().text();
        for text in [
            "",
            "plain",
            "$argon2i$v=19$m=64,t=1,p=1$AAAA$AAAA",
            "$argon2id$v=19$m=64,t=1,p=1$AAAA$AAAA",
            &good.replace("v=19", "v=16"),
            &good.replace("m=64", "m=4000000"),
            &good.replace("t=1", "t=4000000"),
            &good.replace("p=1", "p=2"),
            &format!("{good}$"),
        ] {
            assert!(Stored::parse(text).is_none(), "{text}");
        }
    }
}
