//! What a store under test must bring, and how a test lets its time pass.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use usher::lease::bucket::{LEASE_MS, RENEW_MS};
use usher::lease::store::Store;
use usher::protocol::id::OwnerId;

use super::Mail;

/// As often as a node renews.
const RENEWAL: Duration = Duration::from_millis(RENEW_MS);

/// A store under test, fresh and empty for each test.
pub(crate) trait Bench: Sized + 'static {
    /// Random histories of each kind.
    const HISTORIES: u32;
    /// Runs a test that lets time pass.
    fn run(test: impl AsyncFnOnce(Self));
    /// Runs a test on several threads. It does not let time pass.
    fn race(test: impl AsyncFnOnce(Self));
    /// One more process that shares the slots, under an owner of its own ([`Kept::next_owner`]). Its buckets are
    /// open; it has no lease yet.
    async fn join(&self) -> Node;
    /// The nodes whose leases the test keeps.
    fn kept(&self) -> &Kept;
    /// Lets this much of the store's time pass, and nothing else.
    async fn sleep(&self, time: Duration);

    /// One more process, with a lease in every bucket that is kept from now on.
    async fn node(&self) -> Node {
        let node = self.join().await;
        self.keep(&node).await;
        node
    }

    /// Renews a node's leases, and goes on to.
    async fn keep(&self, node: &Node) {
        let node = (node.owner, Arc::clone(&node.store));
        renew(&node).await;
        let mut nodes = self.kept().nodes.borrow_mut();
        nodes.retain(|one| one.0 != node.0);
        nodes.push(node);
    }

    /// Lets this much of the store's time pass. The leases of the nodes that are kept are renewed meanwhile, as
    /// often as a node does; nobody else's are.
    async fn pass(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(RENEWAL.saturating_sub(self.kept().since.get()));
            self.sleep(step).await;
            left -= step;
            self.kept().since.set(self.kept().since.get() + step);
            if self.kept().since.get() >= RENEWAL {
                self.kept().renew().await;
            }
        }
    }

    /// Lets this node's leases run out while those of the others, of which there must be one, are kept. Afterwards
    /// nobody has purged yet what was under them. It takes [`LAPSE`].
    async fn lapse(&self, node: &Node) {
        self.kept().renew().await;
        renew(&(node.owner, Arc::clone(&node.store))).await;
        let kept = self.kept();
        kept.nodes.borrow_mut().retain(|(owner, _)| *owner != node.owner);
        assert!(
            !kept.nodes.borrow().is_empty(),
            "without any renewal the store was away"
        );
        let last = Duration::from_millis(LEASE_MS) - Duration::from_millis(500);
        self.pass(last).await;
        kept.renew().await;
        self.pass(LAPSE - last).await;
    }
}

/// How long [`Bench::lapse`] takes. No sum of it and of the 7 s of the random histories comes near the 15 s of a
/// waiter or the 60 s of a tombstone.
pub(crate) const LAPSE: Duration = Duration::from_millis(13_500);

/// A process, as its store knows it.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) owner: OwnerId,
    pub(crate) store: Arc<dyn Store>,
    /// The word that comes to this process; that of others may come here too.
    pub(crate) mail: Arc<Mail>,
}

/// The nodes whose leases a test keeps.
#[derive(Default)]
pub(crate) struct Kept {
    nodes: RefCell<Vec<(OwnerId, Arc<dyn Store>)>>,
    /// The store's time since they were renewed.
    since: Cell<Duration>,
    owners: Cell<u64>,
}

impl Kept {
    /// An owner that no node had before.
    pub(crate) fn next_owner(&self) -> OwnerId {
        self.owners.set(self.owners.get() + 1);
        OwnerId(self.owners.get())
    }

    async fn renew(&self) {
        let nodes = self.nodes.borrow().clone();
        for node in &nodes {
            renew(node).await;
        }
        self.since.set(Duration::ZERO);
    }
}

async fn renew((owner, store): &(OwnerId, Arc<dyn Store>)) {
    let renewals = (0..store.buckets()).map(|bucket| store.renew(bucket, *owner));
    for renewed in join_all(renewals).await {
        renewed.unwrap();
    }
}
