//! The sessions whose sockets are on this node, by account; also where a store's word arrives.

use std::sync::Arc;

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use crate::lease::store::Mailbox;
use crate::protocol::id::{AccountKey, OwnerId, SessionId};

use super::inbox::{Drain, Inbox, News};

/// Local sessions.
#[derive(Default)]
pub struct Registry {
    accounts: DashMap<AccountKey, Vec<Local>>,
    leaving: CancellationToken,
}

struct Local {
    session: SessionId,
    inbox: Arc<Inbox>,
}

impl Registry {
    /// Adds a session, before its `acquire` or `resume` is sent (rule 12). The same session may be here twice for a
    /// moment: the old socket and the one that resumes it.
    pub fn add(&self, account: &AccountKey, session: SessionId, inbox: &Arc<Inbox>) {
        let inbox = Arc::clone(inbox);
        let mut locals = self.accounts.entry(account.clone()).or_default();
        // Most accounts play one stream: no room is kept for more.
        locals.reserve_exact(1);
        if self.leaving.is_cancelled() {
            inbox.tell(|news| news.drain = Some(Drain::Close));
        }
        locals.push(Local { session, inbox });
    }

    /// Cancelled when the node closes whatever is still open; who comes later is told at once.
    #[must_use]
    pub fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Takes a session out.
    pub fn remove(&self, account: &AccountKey, inbox: &Arc<Inbox>) {
        if let Some(mut locals) = self.accounts.get_mut(account) {
            locals.retain(|local| !Arc::ptr_eq(&local.inbox, inbox));
            locals.shrink_to_fit();
        }
        self.accounts.remove_if(account, |_, locals| locals.is_empty());
    }

    /// Every local inbox at this moment.
    #[must_use]
    pub fn inboxes(&self) -> Vec<Arc<Inbox>> {
        let collect = |locals: &Vec<Local>| locals.iter().map(|l| Arc::clone(&l.inbox)).collect::<Vec<_>>();
        self.accounts.iter().flat_map(|locals| collect(&locals)).collect()
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    fn tell(&self, account: &AccountKey, to: impl Fn(&Local) -> bool, change: impl Fn(&mut News)) {
        if let Some(locals) = self.accounts.get(account) {
            for local in locals.iter().filter(|local| to(local)) {
                local.inbox.tell(&change);
            }
        }
    }
}

impl Mailbox for Registry {
    fn look(&self, account: &AccountKey, _owner: OwnerId, session: SessionId) {
        self.tell(account, |local| local.session == session, |news| news.look = true);
    }

    fn slots(&self, account: &AccountKey, used: u32) {
        self.tell(account, |_| true, |news| news.used = Some(used));
    }
}
