//! One form for all worlds that have the same future, so that each is explored once.

use super::super::bucket::{Bucket, Lease};
use super::{OwnerId, PLAYERS, Player, SAME, Shard, World, began, player_of, session};

impl World {
    /// One form for all worlds that have the same future.
    pub(super) fn settle(&mut self) {
        self.forget_ends();
        (0..PLAYERS as u8).for_each(|player| self.retire(player));
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.seats.sort();
            for (tenure, shard) in node.tenures.iter_mut().zip(&mut self.shards) {
                tenure.settle();
                let (bucket, _) = shard.seen_by(Some(index));
                // Only whether both know of the same beginning matters.
                match bucket.lease_mut(OwnerId(index as u64 + 2 * u64::from(node.life))) {
                    Some(Lease { since, .. }) if *since == *tenure.since_mut() => {
                        *since = SAME;
                        *tenure.since_mut() = SAME;
                    }
                    lease => {
                        *tenure.since_mut() = 0;
                        if let Some(lease) = lease {
                            lease.since = SAME;
                        }
                    }
                }
            }
        }
        let began = |id| began(player_of(id), &self.budget);
        for shard in &mut self.shards {
            shard.bucket.settle(began);
            if let Some((_, bucket, _)) = &mut shard.former {
                bucket.settle(began);
            }
        }
    }

    /// Ends that the last life of the data knows are told to nobody any more.
    fn forget_ends(&mut self) {
        if self.late.is_some() || self.budget.wipe + self.budget.failover + self.budget.split > 0 {
            return;
        }
        let calm = |shard: &Shard| shard.replica.is_none() && shard.former.is_none();
        if self.shards.len() > 1 || !self.shards.iter().all(calm) {
            return;
        }
        let shard = &self.shards[0];
        let last = shard
            .bucket
            .generation()
            .filter(|_| shard.bucket.server() == Some(shard.server));
        for node in &mut self.nodes {
            node.forget_ends(last);
        }
    }

    /// A player that is gone, and of whom nothing is left but that it has ended.
    fn retire(&mut self, player: u8) {
        let id = session(player);
        let knows = |bucket: &Bucket| {
            bucket.accounts().any(|(_, account)| {
                account.entries().iter().any(|entry| entry.session == id)
                    || account.line().iter().any(|waiter| waiter.session == id)
            })
        };
        let at = usize::from(player);
        let left = self.players[at] != Player::Done
            || self.late.is_some()
            || (self.ghost.told[at] && self.ghost.ended[at] != 1)
            || self.nodes.iter().any(|node| node.knows(player))
            || self.shards.iter().any(|shard| {
                knows(&shard.bucket)
                    || shard.unread[at] > 0
                    || shard.replica.is_some()
                    || shard.former.is_some()
            });
        if left {
            return;
        }
        self.words.retain(|(_, to)| *to != player);
        (self.ghost.told[at], self.ghost.ended[at], self.ghost.replaced[at]) = (false, 1, false);
        for shard in &mut self.shards {
            shard.bucket.forget(id);
        }
    }
}
