//! What a tenant may ask of this node: uploads at once and requests a second. Bytes are counted by the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::error::ApiError;
use crate::config::MediaQuota;

/// Tenants that are told apart; those beyond share one count.
const MOST_TENANTS: usize = 10_000;

/// The counts of every tenant.
#[derive(Debug)]
pub(super) struct Quota {
    settings: MediaQuota,
    tenants: Mutex<HashMap<Arc<str>, Used>>,
}

#[derive(Debug, Default)]
struct Used {
    uploads: u32,
    /// When the burst of requests is unused again.
    full_at: Option<Instant>,
}

/// An upload that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    quota: Arc<Quota>,
    tenant: Arc<str>,
}

impl Quota {
    /// Nothing used.
    #[must_use]
    pub(super) fn new(settings: &MediaQuota) -> Self {
        Self {
            settings: settings.clone(),
            tenants: Mutex::default(),
        }
    }

    /// Bytes that a tenant may have; 0 is no limit.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.settings.bytes
    }

    fn with<T>(&self, tenant: &Arc<str>, work: impl FnOnce(&mut Used) -> T) -> T {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= MOST_TENANTS && !tenants.contains_key(tenant) {
            let now = Instant::now();
            tenants.retain(|_, used| used.uploads > 0 || used.full_at.is_some_and(|at| at > now));
        }
        let shared = tenants.len() >= MOST_TENANTS && !tenants.contains_key(tenant);
        let key = if shared { Arc::from("") } else { Arc::clone(tenant) };
        work(tenants.entry(key).or_default())
    }

    /// Counts a request of a tenant, whose token is verified.
    ///
    /// # Errors
    /// 429 with the time after which to come again.
    pub(super) fn check_request(&self, tenant: &Arc<str>) -> Result<(), ApiError> {
        let (rate, burst) = (self.settings.requests_per_second, self.settings.requests_burst);
        let Some(pace) = Duration::from_secs(1).checked_div(rate).filter(|_| burst > 0) else {
            return Ok(());
        };
        let now = Instant::now();
        let ahead = self.with(tenant, |used| {
            let full_at = used.full_at.map_or(now, |at| at.max(now)) + pace;
            let ahead = full_at - now;
            if ahead <= pace * burst {
                used.full_at = Some(full_at);
                return None;
            }
            Some(ahead - pace * burst)
        });
        match ahead {
            None => Ok(()),
            Some(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let message = "the tenant sends too many requests about files";
                Err(ApiError::rate_limited(message, seconds))
            }
        }
    }

    /// A place for an upload of a tenant.
    ///
    /// # Errors
    /// 429: it uploads as much at once as it may.
    pub(super) fn begin_upload(self: &Arc<Self>, tenant: &Arc<str>) -> Result<Place, ApiError> {
        let most = self.settings.uploads;
        let granted = self.with(tenant, |used| {
            let free = most == 0 || used.uploads < most;
            used.uploads += u32::from(free);
            free
        });
        if granted {
            return Ok(Place {
                quota: Arc::clone(self),
                tenant: Arc::clone(tenant),
            });
        }
        Err(ApiError::rate_limited(
            "the tenant has too many uploads under way",
            1,
        ))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let tenant = Arc::clone(&self.tenant);
        self.quota
            .with(&tenant, |used| used.uploads = used.uploads.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    fn quota(uploads: u32, burst: u32, rate: u32) -> Arc<Quota> {
        Arc::new(Quota::new(&MediaQuota {
            bytes: 0,
            uploads,
            requests_burst: burst,
            requests_per_second: rate,
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn each_tenant_has_its_own_burst_and_pace() {
        let limited = quota(0, 3, 2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let passed = |tenant| (0..10).filter(|_| limited.check_request(tenant).is_ok()).count();
        assert_eq!((passed(&a), passed(&b), passed(&a)), (3, 3, 0));
        assert_eq!(limited.check_request(&a).unwrap_err().status, 429);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(passed(&a), 2);
        let free = quota(0, 0, 0);
        assert!((0..10_000).all(|_| free.check_request(&a).is_ok()));
    }

    #[test]
    fn places_are_given_back() {
        let quota = quota(2, 0, 0);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let held = [quota.begin_upload(&a).unwrap(), quota.begin_upload(&a).unwrap()];
        assert!(quota.begin_upload(&a).is_err());
        assert!(quota.begin_upload(&b).is_ok());
        drop(held);
        assert!(quota.begin_upload(&a).is_ok());
    }
}
