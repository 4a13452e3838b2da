//! The sessions whose sockets are on this node, by bucket and account; also where a store's word arrives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::lease::account::Account;
use crate::lease::blocked::Blocked;
use crate::lease::locals::Locals;
use crate::lease::model::{Acquired, Beaten, Fence, Generation, Heartbeat, Holding};
use crate::lease::store::{Mailbox, bucket_of};
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId, SessionId};
use crate::telemetry::Metrics;

use super::lones::Lones;
use super::seat::{Drain, News, Seat, Word};

type Accounts = HashMap<AccountKey, Vec<Arc<Seat>>>;

/// Local sessions.
pub struct Registry {
    buckets: Vec<Mutex<Accounts>>,
    leaving: CancellationToken,
    blocked: Blocked,
    pub(super) lones: Lones,
}

impl Registry {
    /// An empty registry for a store of so many buckets.
    #[must_use]
    pub fn new(buckets: u16, metrics: &Arc<Metrics>) -> Self {
        Self {
            buckets: (0..buckets.max(1)).map(|_| Mutex::default()).collect(),
            leaving: CancellationToken::new(),
            blocked: Blocked::default(),
            lones: Lones::new(buckets, Arc::clone(metrics)),
        }
    }

    /// Adds a session, before its `acquire` or `resume` is sent (rule 12). The same session may be here twice for a
    /// moment: the old socket and the one that resumes it.
    pub fn add(&self, account: &AccountKey, seat: &Arc<Seat>) {
        let mut accounts = self.of(account);
        let seats = accounts.entry(account.clone()).or_default();
        // Most accounts play one stream: no room is kept for more.
        seats.reserve_exact(1);
        if self.leaving.is_cancelled() {
            seat.tell(|news| news.drain = Some(Drain::Close));
        }
        seats.push(Arc::clone(seat));
    }

    /// Cancelled when the node closes whatever is still open; who comes later is told at once.
    #[must_use]
    pub fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Takes a session out.
    pub fn remove(&self, account: &AccountKey, seat: &Arc<Seat>) {
        let mut accounts = self.of(account);
        if let Some(seats) = accounts.get_mut(account) {
            seats.retain(|one| !Arc::ptr_eq(one, seat));
            if seats.is_empty() {
                accounts.remove(account);
            } else {
                seats.shrink_to_fit();
            }
        }
    }

    /// Every local seat at this moment.
    #[must_use]
    pub fn seats(&self) -> Vec<Arc<Seat>> {
        let of = |bucket: &Mutex<Accounts>| lock(bucket).values().flatten().cloned().collect::<Vec<_>>();
        self.buckets.iter().flat_map(of).collect()
    }

    /// The seats of an account.
    #[must_use]
    pub fn of_account(&self, account: &AccountKey) -> Vec<Arc<Seat>> {
        self.of(account).get(account).cloned().unwrap_or_default()
    }

    /// How many buckets there are.
    #[must_use]
    pub fn buckets(&self) -> u16 {
        u16::try_from(self.buckets.len()).unwrap_or(u16::MAX)
    }

    /// The seats of a bucket that hear messages.
    #[must_use]
    pub fn listeners(&self, bucket: u16) -> Vec<(AccountKey, Arc<Seat>)> {
        let accounts = lock(&self.buckets[usize::from(bucket) % self.buckets.len()]);
        let all = accounts.iter().flat_map(|(account, seats)| {
            let listening = seats.iter().filter(|seat| seat.listens());
            listening.map(|seat| (account.clone(), Arc::clone(seat)))
        });
        all.collect()
    }

    /// Tells of each session of a bucket that is watching now, whose socket is here or that was heard here last: its tenant,
    /// and its content.
    pub fn watching(&self, bucket: u16, mut tell: impl FnMut(&Arc<str>, &Arc<str>)) {
        {
            let accounts = lock(&self.buckets[usize::from(bucket) % self.buckets.len()]);
            for (account, seats) in &*accounts {
                for content in seats.iter().filter_map(|seat| seat.watching()) {
                    tell(&account.tenant, &content);
                }
            }
        }
        self.lones.watching(bucket, tell);
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| lock(bucket).is_empty())
    }

    /// Whose session without a socket this is, as far as this node heard of it.
    #[must_use]
    pub fn lone_account(&self, session: SessionId) -> Option<AccountKey> {
        self.lones.account_of(session)
    }

    /// Sockets of a tenant that play this content end: it may not be played any more.
    pub(super) fn withdraw(&self, tenant: &str, content: &str) {
        let code = EndCode::ContentUnavailable;
        for bucket in &self.buckets {
            let accounts = lock(bucket);
            let of_tenant = accounts.iter().filter(|(account, _)| *account.tenant == *tenant);
            let plays = |seat: &&Arc<Seat>| seat.held().is_some_and(|held| *held.content == *content);
            for seat in of_tenant.flat_map(|(_, seats)| seats).filter(plays) {
                seat.tell(|news| news.word = Some(Word::End(code)));
            }
        }
    }

    fn of(&self, account: &AccountKey) -> MutexGuard<'_, Accounts> {
        let buckets = u16::try_from(self.buckets.len()).unwrap_or(u16::MAX);
        lock(&self.buckets[usize::from(bucket_of(account, buckets))])
    }

    fn tell(&self, account: &AccountKey, to: impl Fn(&Seat) -> bool, change: impl Fn(&mut News)) {
        if let Some(seats) = self.of(account).get(account) {
            for seat in seats.iter().filter(|seat| to(seat)) {
                seat.tell(&change);
            }
        }
    }
}

/// The maps are whole whenever the lock is free: a panic elsewhere cannot leave them half changed.
fn lock(bucket: &Mutex<Accounts>) -> MutexGuard<'_, Accounts> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailbox for Registry {
    fn look(&self, account: &AccountKey, _owner: OwnerId, session: SessionId) {
        self.tell(account, |seat| seat.session() == session, |news| news.look = true);
    }

    fn slots(&self, account: &AccountKey, used: u32) {
        self.tell(account, |_| true, |news| news.used = Some(used));
    }

    fn blocked(&self, account: &AccountKey) {
        self.blocked.add(account);
    }
}

impl Locals for Registry {
    fn holdings(&self, bucket: u16) -> Vec<(AccountKey, Holding)> {
        let accounts = lock(&self.buckets[usize::from(bucket) % self.buckets.len()]);
        let held = accounts.iter().flat_map(|(account, seats)| {
            let held = seats.iter().filter_map(|seat| seat.held());
            held.map(|holding| (account.clone(), holding))
        });
        held.collect()
    }

    fn knows(&self, account: &AccountKey, session: SessionId) -> bool {
        let accounts = self.of(account);
        let mut seats = accounts.get(account).into_iter().flatten();
        seats.any(|seat| seat.session() == session)
    }

    fn holds(&self, account: &AccountKey, session: SessionId) -> bool {
        let accounts = self.of(account);
        let mut seats = accounts.get(account).into_iter().flatten();
        seats.any(|seat| seat.session() == session && seat.held().is_some())
    }

    fn heard_blocked(&self) -> &Blocked {
        &self.blocked
    }

    fn epoch(&self, account: &AccountKey, session: SessionId) -> u64 {
        let accounts = self.of(account);
        let seats = accounts.get(account).into_iter().flatten();
        let held = seats
            .filter(|seat| seat.session() == session)
            .filter_map(|seat| seat.holding());
        held.map(|holding| holding.fence.epoch).max().unwrap_or_default()
    }

    fn refresh(&self, account: &AccountKey, holding: &mut Holding) {
        let accounts = self.of(account);
        let mut seats = accounts.get(account).into_iter().flatten();
        let same = seats.find_map(|seat| seat.holding().filter(|held| held.fence == holding.fence));
        if let Some(held) = same {
            holding.content = held.content;
            holding.limit = held.limit;
            holding.terms = held.terms;
        }
    }

    fn confirm(&self, account: &AccountKey, fence: Fence, generation: Generation) {
        let accounts = self.of(account);
        for seat in accounts.get(account).into_iter().flatten() {
            seat.confirm(fence, generation);
        }
    }

    fn doubt(&self, account: &AccountKey, fence: Fence) {
        let accounts = self.of(account);
        for seat in accounts.get(account).into_iter().flatten() {
            seat.doubt(fence);
        }
    }

    fn claim(&self, account: &AccountKey, holding: &Holding) -> Result<u32, Box<Acquired>> {
        let accounts = self.of(account);
        let seats = accounts.get(account).map(Vec::as_slice).unwrap_or_default();
        let held: Vec<_> = seats
            .iter()
            .filter_map(|seat| seat.held().map(|held| (seat, held)))
            .collect();
        let (own, others): (Vec<_>, Vec<_>) = held
            .iter()
            .partition(|(_, held)| held.device.id == holding.device.id);
        let entries: Vec<_> = others
            .iter()
            .map(|(_, held)| held.entry(held.generation, held.started_at))
            .collect();
        let used = entries.iter().filter(|entry| !entry.exempt).count() + usize::from(!holding.terms.exempt);
        if let Some(denied) = Account::refusal_among(entries, holding) {
            return Err(Box::new(denied));
        }
        for (seat, _) in own {
            seat.tell(|news| news.word = Some(Word::End(EndCode::Moved)));
        }
        if let Some(seat) = seats.iter().find(|seat| seat.session() == holding.fence.session) {
            seat.sit(holding.clone());
        }
        Ok(u32::try_from(used).unwrap_or(u32::MAX))
    }

    fn move_here(
        &self,
        account: &AccountKey,
        session: SessionId,
        device: Option<&str>,
    ) -> Option<(Holding, u32)> {
        let accounts = self.of(account);
        let seats = accounts.get(account)?;
        let fits = |held: &Holding| {
            held.fence.session == session && device.is_none_or(|device| *device == *held.device.id)
        };
        let old = seats
            .iter()
            .find(|seat| seat.held().is_some_and(|held| fits(&held)))?;
        let used = seats.iter().filter(|seat| seat.held().is_some()).count();
        let mut holding = old.stand_up()?;
        old.tell(|news| news.word = Some(Word::Moved));
        holding.fence.epoch += 1;
        Some((holding, u32::try_from(used).unwrap_or(u32::MAX)))
    }

    fn lone(&self, bucket: u16) -> Vec<(AccountKey, Heartbeat)> {
        self.lones.all(bucket)
    }

    fn lone_due(&self, bucket: u16, most: usize) -> Vec<(AccountKey, Heartbeat)> {
        self.lones.due(bucket, most)
    }

    fn lone_compared(&self, account: &AccountKey, session: SessionId, verdict: &Beaten) {
        self.lones.compared(account, session, verdict);
    }

    fn end(&self, bucket: u16, code: EndCode) {
        let accounts = lock(&self.buckets[usize::from(bucket) % self.buckets.len()]);
        for seat in accounts.values().flatten().filter(|seat| seat.held().is_some()) {
            seat.tell(|news| news.word = Some(Word::End(code)));
        }
    }
}
