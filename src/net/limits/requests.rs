//! How fast requests may come from an address or with a token, and how fast an account may start sessions.
//!
//! Owns: the rates and their counts; they are this node's alone.
//! Does not: verify tokens: the caller counts a token or an account only once it is believed, so that a stranger can
//! make no entries.
//! Called by: the HTTP layer.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::rate::Rate;
use super::table::Table;
use crate::config::Limits;
use crate::net::address::{self, Addressing};
use crate::protocol::id::AccountKey;
use crate::telemetry::RateRule;

/// A keyed hash of an account or a token: an entry weighs the same whatever a name's length, no token is kept, and
/// nobody outside can make two of them meet.
type Fingerprint = u64;

/// The rates of everybody who asks this node for something.
#[derive(Debug)]
pub struct RequestLimits {
    addressing: Arc<Addressing>,
    hasher: RandomState,
    addresses: Table<IpAddr>,
    tokens: Table<Fingerprint>,
    starts: Table<Fingerprint>,
}

/// A request that came too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The rule that refuses it.
    pub rule: RateRule,
    /// How long until one is allowed again; never zero.
    pub retry_after: Duration,
}

impl RequestLimits {
    /// Every burst unused.
    #[must_use]
    pub fn new(limits: &Limits, addressing: Arc<Addressing>) -> Self {
        let address = Rate::new(
            limits.requests_per_second_per_address,
            limits.requests_burst_per_address,
        );
        let token = Rate::new(
            limits.requests_per_second_per_token,
            limits.requests_burst_per_token,
        );
        let starts = Rate::new(limits.starts_per_second, limits.starts_burst);
        Self {
            addressing,
            hasher: RandomState::new(),
            addresses: Table::new(0, address),
            tokens: Table::new(0, token),
            starts: Table::new(0, starts),
        }
    }

    /// Counts a request of this client. Exempt addresses and trusted proxies are free of it.
    ///
    /// # Errors
    /// [`Limited`] by [`RateRule::AddressRequests`].
    pub fn check_address(&self, client: IpAddr, now: Instant) -> Result<(), Limited> {
        let free = || self.addressing.is_exempt(client) || self.addressing.is_trusted(client);
        if self.addresses.is_unlimited() || free() {
            return Ok(());
        }
        let taken = self.addresses.try_take(address::key(client), now);
        limited(taken, RateRule::AddressRequests)
    }

    /// Counts a request with this token, which is verified.
    ///
    /// # Errors
    /// [`Limited`] by [`RateRule::TokenRequests`].
    pub fn check_token(&self, token: &str, now: Instant) -> Result<(), Limited> {
        let taken = self.tokens.try_take(self.fingerprint(token), now);
        limited(taken, RateRule::TokenRequests)
    }

    /// Counts a start of this account, whose token is verified.
    ///
    /// # Errors
    /// [`Limited`] by [`RateRule::AccountStarts`].
    pub fn check_start(&self, account: &AccountKey, now: Instant) -> Result<(), Limited> {
        let taken = self.starts.try_take(self.fingerprint(account), now);
        limited(taken, RateRule::AccountStarts)
    }

    fn fingerprint(&self, of: impl Hash) -> Fingerprint {
        self.hasher.hash_one(of)
    }
}

fn limited(taken: Result<(), Duration>, rule: RateRule) -> Result<(), Limited> {
    taken.map_err(|retry_after| Limited { rule, retry_after })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::net::address::tests::addressing;
    use crate::net::limits::tests::limits;

    fn requests(limits: &Limits) -> RequestLimits {
        RequestLimits::new(limits, Arc::new(addressing(&["10.0.0.0/8"], &["127.0.0.0/8"])))
    }

    #[test]
    fn addresses_tokens_and_accounts_are_counted_apart() {
        let requests = requests(&Limits {
            starts_burst: 2,
            starts_per_second: 2,
            requests_per_second_per_address: 1,
            requests_burst_per_address: 1,
            requests_per_second_per_token: 1,
            requests_burst_per_token: 1,
            ..limits()
        });
        let now = Instant::now();
        let (a, b) = (AccountKey::new("main", "a"), AccountKey::new("other", "a"));
        for _ in 0..2 {
            assert_eq!(requests.check_start(&a, now), Ok(()));
            assert_eq!(requests.check_start(&b, now), Ok(()), "tenants are apart");
        }
        let refused = requests.check_start(&a, now).unwrap_err();
        assert_eq!(refused.rule, RateRule::AccountStarts);
        assert_eq!(refused.retry_after, Duration::from_millis(500));
        assert_eq!(requests.check_token("t", now), Ok(()));
        assert_eq!(
            requests.check_token("t", now).unwrap_err().rule,
            RateRule::TokenRequests
        );
        assert_eq!(requests.check_token("u", now), Ok(()));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(requests.check_address(ip("2001:db8::1"), now), Ok(()));
        assert_eq!(
            requests.check_address(ip("2001:db8::2"), now).unwrap_err().rule,
            RateRule::AddressRequests,
            "a /64 is one"
        );
        for free in ["127.0.0.1", "10.0.0.1"] {
            for _ in 0..10 {
                assert_eq!(requests.check_address(ip(free), now), Ok(()));
            }
        }
    }

    #[test]
    fn zero_switches_each_off_and_keeps_nothing() {
        let requests = requests(&limits());
        let now = Instant::now();
        for number in 0..1_000 {
            assert_eq!(requests.check_token("t", now), Ok(()));
            assert_eq!(requests.check_start(&AccountKey::new("main", "a"), now), Ok(()));
            let address = std::net::Ipv4Addr::from_bits(number).into();
            assert_eq!(requests.check_address(address, now), Ok(()));
        }
    }
}
