//! Admission of connections, before they cost a TLS handshake, and of what is asked over them.
//!
//! Owns: the counts of open connections and the rates of new ones, for the node and for each address, the bound on
//! handshakes under way, and ([`RequestLimits`]) the rates of requests and starts.
//! Does not: close sockets, answer 429, nor limit the frames of a socket.
//! Called by: the listener for each connection, and the HTTP layer for clients behind a trusted proxy and for each
//! request.

mod rate;
mod requests;
mod table;
mod tries;

pub use requests::{Limited, RequestLimits};
pub use tries::{Try, TryLimits};

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::rate::{Pace, Rate};
use self::table::{Over, Slot, Table};
use super::address::{self, Addressing};
use crate::config::Limits;
use crate::telemetry::Refusal;

/// Open files kept back from connections, for stores, logs and files that are served.
const RESERVED_FILES: u64 = 1_000;
/// Seconds of its rate that an address may use at once after a pause.
const ADDRESS_BURST_SECONDS: u32 = 10;
/// The same for the whole node.
const NODE_BURST_SECONDS: u32 = 1;

/// The door of a node. Clones share their counts.
#[derive(Clone, Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

/// An admitted connection; dropping it gives everything back.
#[derive(Debug)]
pub struct ConnectionGuard {
    node: NodeSlot,
    _client: Option<ClientGuard>,
    handshake: Option<OwnedSemaphorePermit>,
}

/// A client that counts for its address until this is dropped.
#[derive(Debug)]
pub struct ClientGuard {
    shared: Arc<Shared>,
    slot: Slot<IpAddr>,
}

#[derive(Debug)]
struct Shared {
    addressing: Arc<Addressing>,
    /// The most that may be open.
    connections: u32,
    open: AtomicU32,
    rate: Rate,
    pace: Mutex<Pace>,
    addresses: Table<IpAddr>,
    /// None is no limit.
    handshakes: Option<Arc<Semaphore>>,
}

/// One of the node's connections.
#[derive(Debug)]
struct NodeSlot(Arc<Shared>);

impl Admission {
    /// Nothing open yet, every burst unused.
    #[must_use]
    pub fn new(limits: &Limits, addressing: Arc<Addressing>) -> Self {
        let connections = if limits.connections == 0 {
            file_bound()
        } else {
            limits.connections
        };
        let address_rate = seconds_of(limits.handshakes_per_second_per_address, ADDRESS_BURST_SECONDS);
        let handshakes = usize::try_from(limits.handshakes)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                addressing,
                connections,
                open: AtomicU32::new(0),
                rate: seconds_of(limits.handshakes_per_second, NODE_BURST_SECONDS),
                pace: Mutex::default(),
                addresses: Table::new(limits.connections_per_address, address_rate),
                handshakes: (handshakes > 0).then(|| Arc::new(Semaphore::new(handshakes))),
            }),
        }
    }

    /// Admits a connection just accepted from `peer`, which holds its place until the guard is dropped.
    ///
    /// A trusted proxy's own address has no limit: its clients are judged by [`Admission::check_client`] once their
    /// addresses are known.
    ///
    /// # Errors
    /// The first limit that it meets. An address over its own limit takes nothing from the node's rate.
    pub fn try_accept(&self, peer: IpAddr, now: Instant) -> Result<ConnectionGuard, Refusal> {
        let node = NodeSlot::take(&self.shared)?;
        let client = self.check_client(peer, now)?;
        let mut pace = self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.shared.rate.try_take(&mut pace, now);
        taken.map_err(|_| Refusal::NodeRate)?;
        Ok(ConnectionGuard {
            node,
            _client: client,
            handshake: None,
        })
    }

    /// Counts a client behind a trusted proxy for its own address, by the same limits as a connection; none for an
    /// exempt address or a proxy itself. The guard lives as long as the request or socket.
    ///
    /// # Errors
    /// [`Refusal::AddressLimit`] or [`Refusal::AddressRate`]; HTTP answers 429.
    pub fn check_client(&self, client: IpAddr, now: Instant) -> Result<Option<ClientGuard>, Refusal> {
        let Shared {
            addressing,
            addresses,
            ..
        } = &*self.shared;
        if addresses.is_unlimited() || addressing.is_exempt(client) || addressing.is_trusted(client) {
            return Ok(None);
        }
        let entered = addresses.try_enter(address::key(client), now);
        let slot = entered.map_err(|over| match over {
            Over::Limit => Refusal::AddressLimit,
            Over::Rate => Refusal::AddressRate,
        })?;
        Ok(Some(ClientGuard {
            shared: Arc::clone(&self.shared),
            slot,
        }))
    }

    /// Open connections.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// The most connections that may be open; `u32::MAX` when nothing bounds them.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.shared.connections
    }
}

impl ConnectionGuard {
    /// Waits for one of the `limits.handshakes` places, first come, first served. The caller bounds the wait by
    /// the handshake's deadline, which this connection spends like any other silence.
    pub async fn begin_handshake(&mut self) {
        if let Some(handshakes) = self.node.0.handshakes.clone() {
            self.handshake = handshakes.acquire_owned().await.ok();
        }
    }

    /// Gives the place up: TLS is done, or its peer is slow with the rest of it.
    pub fn release_handshake(&mut self) {
        self.handshake = None;
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.shared.addresses.leave(self.slot);
    }
}

impl NodeSlot {
    fn take(shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let one_more = |open| (open < shared.connections).then_some(open + 1);
        match shared
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
        {
            Ok(_) => Ok(Self(Arc::clone(shared))),
            Err(_) => Err(Refusal::NodeLimit),
        }
    }
}

impl Drop for NodeSlot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A rate with so many seconds of it at once.
fn seconds_of(per_second: u32, burst_seconds: u32) -> Rate {
    Rate::new(per_second, per_second.saturating_mul(burst_seconds))
}

/// Connections that the process may have open: its open-files limit less a reserve, at least half of it.
fn file_bound() -> u32 {
    getrlimit(Resource::Nofile).current.map_or(u32::MAX, bound_for)
}

fn bound_for(files: u64) -> u32 {
    u32::try_from(files.saturating_sub(RESERVED_FILES).max(files / 2)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
