//! Which node of a cluster owns a key.
//!
//! Owns: the slot of a key, and the map from slots to nodes.
//! Does not: ask anybody. Called by: `cluster`.

use redis::Value;

use super::failed::string_of;
use crate::config::HostPort;

const SLOTS: u16 = 16384;

/// The slot of a key or of a sharded channel: CRC16 (XMODEM) of its hash tag, else of all of it, modulo 16384 (Redis
/// cluster specification, "Key distribution model").
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag });
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

/// The owners of the slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotMap {
    nodes: Vec<HostPort>,
    /// Slot to index in `nodes`.
    owners: Vec<Option<u16>>,
}

impl SlotMap {
    /// Out of the answer of `asked` to CLUSTER SLOTS; none when it names no owner at all.
    pub(super) fn read(answer: Value, asked: &HostPort) -> Option<Self> {
        let Value::Array(ranges) = answer else {
            return None;
        };
        let mut map = Self {
            nodes: Vec::new(),
            owners: vec![None; usize::from(SLOTS)],
        };
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let mut range = range.into_iter();
            let (Some(Value::Int(from)), Some(Value::Int(to)), Some(Value::Array(master))) =
                (range.next(), range.next(), range.next())
            else {
                return None;
            };
            let mut master = master.into_iter();
            let host = master.next().and_then(string_of);
            let port = master.next().and_then(string_of)?.parse().ok()?;
            // No name: the node that was asked does not know better than whoever asked. "?": it has none yet.
            let host = match host.as_deref() {
                None | Some("") => asked.host.clone(),
                Some("?") => continue,
                Some(host) => host.to_owned(),
            };
            let (from, to) = (u16::try_from(from).ok()?, u16::try_from(to).ok()?);
            for slot in from..=to.min(SLOTS - 1) {
                map.set(
                    slot,
                    &HostPort {
                        host: host.clone(),
                        port,
                    },
                );
            }
        }
        (!map.nodes.is_empty()).then_some(map)
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&HostPort> {
        let node = (*self.owners.get(usize::from(slot))?)?;
        self.nodes.get(usize::from(node))
    }

    /// Another owner, as the old one said.
    pub(super) fn set(&mut self, slot: u16, node: &HostPort) {
        let known = self.nodes.iter().position(|known| known == node);
        let index = known.unwrap_or_else(|| {
            self.nodes.push(node.clone());
            self.nodes.len() - 1
        });
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = u16::try_from(index).ok();
        }
    }

    /// Every node that owns a slot.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &HostPort> {
        let owns = |index: usize| {
            self.owners
                .iter()
                .any(|owner| owner.map(usize::from) == Some(index))
        };
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(move |(index, _)| owns(*index)).map(|(_, node)| node)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    fn node(host: &str, port: u16) -> HostPort {
        let host = host.to_owned();
        HostPort { host, port }
    }

    #[test]
    fn slots_are_those_of_redis() {
        // CLUSTER KEYSLOT of Redis 7.0.15.
        for (key, slot) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("a{foo}{bar}", 12182),
            ("foo{}bar", 14292),
            ("", 0),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
        assert_eq!(slot_of("{usher:7}:owners"), slot_of("{usher:7}:node"));
    }

    #[test]
    fn the_map_is_read_and_corrected() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let master = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |from, to, master| Value::Array(vec![Value::Int(from), Value::Int(to), master]);
        let answer = Value::Array(vec![
            range(0, 99, master(text("10.0.0.1"), 1)),
            range(100, 199, master(Value::Nil, 2)),
            range(200, 16383, master(text("?"), 3)),
        ]);
        let asked = node("seed", 9);
        let mut map = SlotMap::read(answer, &asked).unwrap();
        assert_eq!(map.owner(99), Some(&node("10.0.0.1", 1)));
        assert_eq!(map.owner(100), Some(&node("seed", 2)));
        assert_eq!(map.owner(200), None);
        assert_eq!(map.nodes().count(), 2);
        map.set(200, &node("new", 4));
        for slot in 100..200 {
            map.set(slot, &node("new", 4));
        }
        assert_eq!(map.owner(200), Some(&node("new", 4)));
        assert!(
            !map.nodes().any(|known| *known == node("seed", 2)),
            "it owns nothing"
        );
        assert_eq!(SlotMap::read(Value::Array(vec![]), &asked), None);
        assert_eq!(SlotMap::read(Value::Nil, &asked), None);
    }
}
