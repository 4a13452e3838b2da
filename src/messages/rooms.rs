//! Who is in which room on this node, and saying something to all of them.
//!
//! A room is those who watch a content now. Owns: membership, and a fan-out that leaves the processor to heartbeats.
//! Does not: store, or promise anything: who does not keep up loses room messages first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::gateway::seat::Seat;
use crate::telemetry::Metrics;

/// Messages that wait to be said to rooms of this node; what comes beyond is lost.
const WAITING: usize = 1_024;

/// Messages taken together: a socket is woken once for all of its room's.
const AT_ONCE: usize = 64;

/// Sockets that are told before others have a turn.
const CHUNK: usize = 256;

/// Time that the node takes for each socket that is told, so that sockets are not woken faster than they can write.
const EACH: Duration = Duration::from_micros(20);

/// The longest pause after one round.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Something to be said in a room.
pub(super) type Saying = (Room, Utf8Bytes);

/// A room, by tenant and content.
pub(super) type Room = (Arc<str>, Arc<str>);

/// The rooms of a node.
pub(super) struct Rooms {
    rooms: DashMap<Room, Vec<Arc<Seat>>>,
    words: mpsc::Sender<Saying>,
    metrics: Arc<Metrics>,
}

impl Rooms {
    pub(super) fn new(metrics: &Arc<Metrics>) -> (Self, mpsc::Receiver<Saying>) {
        let (words, heard) = mpsc::channel(WAITING);
        let rooms = Self {
            rooms: DashMap::new(),
            words,
            metrics: Arc::clone(metrics),
        };
        (rooms, heard)
    }

    pub(super) fn enter(&self, tenant: &Arc<str>, content: &Arc<str>, seat: &Arc<Seat>) {
        let mut all = self
            .rooms
            .entry((Arc::clone(tenant), Arc::clone(content)))
            .or_default();
        let place = u32::try_from(all.len()).unwrap_or(u32::MAX);
        seat.place.store(place, Ordering::Relaxed);
        all.push(Arc::clone(seat));
    }

    /// May be said twice.
    pub(super) fn leave(&self, tenant: &Arc<str>, content: &str, seat: &Arc<Seat>) {
        let room: Room = (Arc::clone(tenant), content.into());
        let Some(mut all) = self.rooms.get_mut(&room) else {
            return;
        };
        let place = seat.place.load(Ordering::Relaxed) as usize;
        if all.get(place).is_none_or(|there| !Arc::ptr_eq(there, seat)) {
            return;
        }
        all.swap_remove(place);
        if let Some(moved) = all.get(place) {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            moved.place.store(place, Ordering::Relaxed);
        }
        if all.capacity() > 64 && all.len() < all.capacity() / 4 {
            all.shrink_to_fit();
        }
        let is_empty = all.is_empty();
        drop(all);
        if is_empty {
            self.rooms.remove_if(&room, |_, all| all.is_empty());
        }
    }

    /// Sockets of this node in a room.
    pub(super) fn present(&self, tenant: &Arc<str>, content: &str) -> u64 {
        let room: Room = (Arc::clone(tenant), content.into());
        self.rooms.get(&room).map_or(0, |all| all.len() as u64)
    }

    /// Says something to all of a room on this node, soon.
    pub(super) fn say(&self, tenant: &str, content: &str, text: Utf8Bytes) {
        let room: Room = (tenant.into(), content.into());
        if !self.rooms.contains_key(&room) {
            return;
        }
        if self.words.try_send((room, text)).is_err() {
            self.metrics.messages_lost_total.inc("room_queue");
        }
    }

    /// Says what waits, for as long as the node runs.
    pub(super) async fn speak(&self, mut words: mpsc::Receiver<Saying>) {
        let mut waiting = Vec::with_capacity(AT_ONCE);
        while words.recv_many(&mut waiting, AT_ONCE).await > 0 {
            let mut rooms: Vec<(Room, Vec<Utf8Bytes>)> = Vec::new();
            for (room, text) in waiting.drain(..) {
                match rooms.iter_mut().find(|(known, _)| *known == room) {
                    Some((_, texts)) => texts.push(text),
                    None => rooms.push((room, vec![text])),
                }
            }
            for (room, texts) in rooms {
                let seats = self.rooms.get(&room).map(|all| all.clone()).unwrap_or_default();
                for chunk in seats.chunks(CHUNK) {
                    for seat in chunk {
                        let lost: usize = texts.iter().map(|text| seat.overhear(text.clone())).sum();
                        for _ in 0..lost {
                            self.metrics.messages_lost_total.inc("room_listener");
                        }
                    }
                    let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
                    if seats.len() > CHUNK {
                        tokio::time::sleep((EACH * count).min(LONGEST_PAUSE)).await;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::protocol::id::SessionId;

    fn seat(number: u8) -> Arc<Seat> {
        let seat = Arc::new(Seat::new(SessionId::from_bytes([number; 16])));
        seat.listen(None);
        seat
    }

    #[test]
    fn leaving_in_any_order_empties_a_room() {
        let (rooms, _words) = Rooms::new(&Arc::new(Metrics::new()));
        let (main, other): (Arc<str>, Arc<str>) = ("main".into(), "other".into());
        let content: Arc<str> = "m1".into();
        let seats: Vec<_> = (0..9).map(seat).collect();
        for seat in &seats {
            rooms.enter(&main, &content, seat);
        }
        rooms.enter(&other, &content, &seat(10));
        for (left, at) in [4, 8, 0, 3, 1, 2, 7, 5, 6].into_iter().enumerate() {
            rooms.leave(&other, &content, &seats[at]);
            rooms.leave(&main, "m2", &seats[at]);
            rooms.leave(&main, &content, &seats[at]);
            rooms.leave(&main, &content, &seats[at]);
            assert_eq!(rooms.present(&main, &content), 8 - left as u64);
        }
        assert_eq!(rooms.present(&other, &content), 1, "tenants are apart");
        assert_eq!(rooms.rooms.len(), 1);
    }
}
