//! How often a sign-in may fail: of one account, and from one address.
//!
//! Owns: the counts; they are this node's alone. Only failures are counted, and after they were judged: any number may sign
//! in at once. How many guesses can be under way together is for the queue of hashes to bound; those beyond the burst make
//! the wait longer.
//! Does not: know what a try is about.
//! Called by: the room of accounts.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::rate::Rate;
use super::requests::Limited;
use super::table::Table;
use crate::config::Accounts;
use crate::net::address::{self, Addressing};
use crate::telemetry::RateRule;

/// The rates of tries.
#[derive(Debug)]
pub struct TryLimits {
    addressing: Arc<Addressing>,
    hasher: RandomState,
    addresses: Table<IpAddr>,
    accounts: Table<u64>,
}

/// A try that may be judged.
#[derive(Clone, Copy, Debug)]
#[must_use = "a try that fails is counted"]
pub struct Try {
    address: Option<IpAddr>,
    account: Option<u64>,
}

impl TryLimits {
    /// Every burst unused.
    #[must_use]
    pub fn new(settings: &Accounts, addressing: Arc<Addressing>) -> Self {
        let account = Rate::per_minute(settings.failures_per_minute, settings.failures_burst);
        let address = Rate::per_minute(
            settings.tries_per_minute_per_address,
            settings.tries_burst_per_address,
        );
        Self {
            addressing,
            hasher: RandomState::new(),
            addresses: Table::new(0, address),
            accounts: Table::new(0, account),
        }
    }

    /// Lets a try from this address begin. Exempt addresses and trusted proxies are free of the limit.
    ///
    /// # Errors
    /// [`Limited`] by [`RateRule::AddressTries`].
    pub fn begin(&self, client: IpAddr, now: Instant) -> Result<Try, Limited> {
        let free = self.addressing.is_exempt(client) || self.addressing.is_trusted(client);
        let address = (!free).then(|| address::key(client));
        let open = address.map_or(Ok(()), |address| self.addresses.check(address, now));
        open.map_err(|retry_after| Limited {
            rule: RateRule::AddressTries,
            retry_after,
        })?;
        Ok(Try {
            address,
            account: None,
        })
    }

    /// Lets a try of this account from this address begin, whether the account exists or not.
    ///
    /// # Errors
    /// [`Limited`] by [`RateRule::AddressTries`] or [`RateRule::AccountTries`].
    pub fn begin_of(&self, client: IpAddr, account: impl Hash, now: Instant) -> Result<Try, Limited> {
        let begun = self.begin(client, now)?;
        let account = self.hasher.hash_one(account);
        let open = self.accounts.check(account, now);
        open.map_err(|retry_after| Limited {
            rule: RateRule::AccountTries,
            retry_after,
        })?;
        Ok(Try {
            account: Some(account),
            ..begun
        })
    }

    /// Counts a try that failed, or one that costs whether it fails or not.
    pub fn count(&self, begun: Try, now: Instant) {
        if let Some(address) = begun.address {
            self.addresses.charge(address, now);
        }
        if let Some(account) = begun.account {
            self.accounts.charge(account, now);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::Duration;

    use super::*;
    use crate::net::address::tests::addressing;

    fn settings(account: (u32, u32), address: (u32, u32)) -> Accounts {
        let text = crate::config::DEFAULT_TOML.parse::<toml::Table>().unwrap();
        let accounts: Accounts = text["accounts"].clone().try_into().unwrap();
        Accounts {
            failures_burst: account.0,
            failures_per_minute: account.1,
            tries_burst_per_address: address.0,
            tries_per_minute_per_address: address.1,
            ..accounts
        }
    }

    #[test]
    fn failures_add_up_and_successes_do_not() {
        let limits = TryLimits::new(
            &settings((3, 1), (100, 1)),
            Arc::new(addressing(&[], &["127.0.0.0/8"])),
        );
        let now = Instant::now();
        let home: IpAddr = "127.0.0.1".parse().unwrap();
        for _ in 0..50 {
            let _right = limits.begin_of(home, ("main", "a@x.y"), now).unwrap();
        }
        for _ in 0..3 {
            limits.count(limits.begin_of(home, ("main", "a@x.y"), now).unwrap(), now);
        }
        let refused = limits.begin_of(home, ("main", "a@x.y"), now).unwrap_err();
        assert_eq!(refused.rule, RateRule::AccountTries);
        assert_eq!(refused.retry_after, Duration::from_secs(60));
        assert!(
            limits.begin_of(home, ("other", "a@x.y"), now).is_ok(),
            "tenants are apart"
        );
        let later = now + Duration::from_secs(61);
        assert!(limits.begin_of(home, ("main", "a@x.y"), later).is_ok());
    }

    /// Guesses that were under way together are all paid for.
    #[test]
    fn failures_side_by_side_make_the_wait_longer() {
        let limits = TryLimits::new(&settings((3, 60), (0, 0)), Arc::new(addressing(&[], &[])));
        let now = Instant::now();
        let home: IpAddr = "127.0.0.1".parse().unwrap();
        let begun: Vec<Try> = (0..20)
            .map(|_| limits.begin_of(home, "a", now).unwrap())
            .collect();
        for one in begun {
            limits.count(one, now);
        }
        let refused = limits.begin_of(home, "a", now).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(18));
    }

    #[test]
    fn an_address_is_counted_over_all_accounts_and_exempt_ones_are_not() {
        let limits = TryLimits::new(
            &settings((0, 0), (2, 60)),
            Arc::new(addressing(&[], &["127.0.0.0/8"])),
        );
        let now = Instant::now();
        let stranger: IpAddr = "192.0.2.1".parse().unwrap();
        for account in ["a", "b"] {
            limits.count(limits.begin_of(stranger, account, now).unwrap(), now);
        }
        let refused = limits.begin(stranger, now).unwrap_err();
        assert_eq!(refused.rule, RateRule::AddressTries);
        let home: IpAddr = "127.0.0.1".parse().unwrap();
        for _ in 0..10 {
            limits.count(limits.begin(home, now).unwrap(), now);
        }
    }
}
