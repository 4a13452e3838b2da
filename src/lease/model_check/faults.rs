//! Time that passes, and what goes wrong.
//!
//! Over 400 lines: it is one list of events, told three times: by name, by when it may happen, and by what it does.

use std::collections::BTreeSet;

use crate::protocol::id::OwnerId;

use super::super::bucket::Bucket;
use super::super::tenure::Tick;
use super::node::{Node, Run};
use super::seat::{Request, Seat, Task};
use super::{Budget, Generation, NOW, NodeRule, PLAYERS, Player, Scenario, TICK, Want, World, session};

/// How a store comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Return {
    /// Before anybody's lease ran out.
    Soon,
    /// After everybody's did.
    Late,
    /// After this node's did, but no gap is seen: only without the rule that makes the gap shorter than a lease.
    Between(u8),
}

/// An event of time or of bad luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    /// A node's lease runs out by its own clock.
    Lapse(u8, u8),
    /// A node looks at its clocks.
    Glance(u8, u8),
    /// A lease runs out in the store.
    Expire(u8, OwnerId),
    /// The second half of a recovery begins.
    Half(u8),
    /// The recovery is over.
    Open(u8),
    /// The store forgets the end of a player's session, a minute later.
    Forget(u8),
    /// A waiter has not asked for long.
    Neglect(u8),
    Crash(u8),
    Restart(u8),
    Pause(u8),
    Wake(u8),
    Cut(u8),
    Heal(u8),
    Away(u8),
    Back(u8, Return),
    Wipe(u8),
    /// A replica has everything up to now, and nothing later.
    Replicate(u8),
    /// The replica takes over; slow: after all leases have run out.
    Failover(u8, bool),
    /// The same, and the former primary still answers this node.
    Split(u8, u8),
    /// The former primary is gone.
    Join(u8),
}

impl World {
    pub(super) fn faults(&self, scenario: &Scenario, found: &mut Vec<Fault>) {
        for node in 0..self.nodes.len() {
            self.faults_of_node(scenario, node, found);
        }
        for shard in 0..self.shards.len() {
            self.faults_of_shard(scenario, shard, found);
        }
        for player in 0..scenario.players() {
            let shard = &self.shards[scenario.shard_of(player)];
            let Some(account) = shard.bucket.account(scenario.key(player)) else {
                continue;
            };
            let asks = |seat: &Seat| seat.player == player && !matches!(seat.task, Task::Play);
            let asked = self.nodes.iter().any(|node| node.seats.iter().any(asks));
            if self.budget.forget > 0 && account.is_buried(session(player)) && !asked {
                found.push(Fault::Forget(player));
            }
            if let Some(waiter) = account
                .line()
                .iter()
                .find(|waiter| waiter.session == session(player) && waiter.refreshed > 0)
            {
                let polls = (0..self.nodes.len()).any(|node| {
                    let here = &self.nodes[node];
                    let waits = |seat: &Seat| seat.player == player && matches!(seat.task, Task::Wait(_));
                    let on_time =
                        self.keeps_time(node, scenario.shard_of(player)) && scenario.keeps(NodeRule::Poll);
                    here.owner(node) == waiter.owner && on_time && here.seats.iter().any(waits)
                });
                if !polls {
                    found.push(Fault::Neglect(player));
                }
            }
        }
    }

    fn faults_of_node(&self, scenario: &Scenario, index: usize, found: &mut Vec<Fault>) {
        let (node, number, budget) = (&self.nodes[index], index as u8, &self.budget);
        let up = node.run == Run::Up;
        for (shard, tenure) in node.tenures.iter().enumerate() {
            let lapsed = tenure.remaining(TICK).is_zero();
            if node.run != Run::Down
                && !lapsed
                && !self.keeps_time(index, shard)
                && !self.is_on_former(index, shard)
            {
                found.push(Fault::Lapse(number, shard as u8));
            }
            if up && lapsed && !tenure.is_doubtful() {
                found.push(Fault::Glance(number, shard as u8));
            }
        }
        let mut may = |may: bool, fault: Fault| {
            if may {
                found.push(fault);
            }
        };
        // Where the nodes are alike the first that is hindered is node 0.
        let alike = index > 0 && scenario.is_mirrored() && {
            let all = &scenario.budget;
            (budget.crash, budget.pause, budget.cut, budget.split)
                == (all.crash, all.pause, all.cut, all.split)
        };
        let budget = if alike { &Budget::default() } else { budget };
        may(up && budget.crash > 0, Fault::Crash(number));
        may(node.run == Run::Down && node.life == 0, Fault::Restart(number));
        may(up && budget.pause > 0, Fault::Pause(number));
        may(node.run == Run::Paused, Fault::Wake(number));
        may(up && !node.cut && budget.cut > 0, Fault::Cut(number));
        may(node.cut && node.run != Run::Down, Fault::Heal(number));
    }

    fn faults_of_shard(&self, scenario: &Scenario, index: usize, found: &mut Vec<Fault>) {
        let (shard, number, budget) = (&self.shards[index], index as u8, &self.budget);
        if shard.away {
            found.extend([
                Fault::Back(number, Return::Soon),
                Fault::Back(number, Return::Late),
            ]);
            if !scenario.keeps(NodeRule::GapInTime) {
                found.extend(
                    (0..self.nodes.len()).map(|node| Fault::Back(number, Return::Between(node as u8))),
                );
            }
            return;
        }
        for (&owner, lease) in shard.bucket.leases() {
            let on_time =
                |node: usize| self.nodes[node].is_up_as(node, owner) && self.keeps_time(node, index);
            if lease.until > NOW && !(0..self.nodes.len()).any(on_time) {
                found.push(Fault::Expire(number, owner));
            }
        }
        let mut may = |may: bool, fault: Fault| {
            if may {
                found.push(fault);
            }
        };
        match shard.bucket.recovery(NOW) {
            Some(false) => may(self.recovered(scenario, index, false), Fault::Half(number)),
            Some(true) => may(self.recovered(scenario, index, true), Fault::Open(number)),
            None => {}
        }
        may(budget.away > 0 && shard.former.is_none(), Fault::Away(number));
        may(budget.wipe > 0 && shard.former.is_none(), Fault::Wipe(number));
        let fails = budget.failover + budget.split > 0;
        may(
            fails && shard.replica.is_none() && shard.former.is_none(),
            Fault::Replicate(number),
        );
        if shard.replica.is_some() {
            may(budget.failover > 0, Fault::Failover(number, false));
            may(budget.failover > 0, Fault::Failover(number, true));
            for node in 0..self.nodes.len() {
                may(
                    budget.split > 0 && self.reaches(node, index),
                    Fault::Split(number, node as u8),
                );
            }
        }
        may(shard.former.is_some(), Fault::Join(number));
    }

    pub(super) fn is_on_former(&self, node: usize, shard: usize) -> bool {
        matches!(&self.shards[shard].former, Some((cut, ..)) if usize::from(*cut) == node)
    }

    /// Whether every node that keeps time has written again what is due in this half: a half lasts longer than
    /// that takes.
    fn recovered(&self, scenario: &Scenario, shard: usize, second: bool) -> bool {
        let generation = self.shards[shard].bucket.generation().unwrap_or_default();
        // Longer than a lease: whoever has not renewed since has lapsed.
        let outlives = |node: usize| {
            let here = &self.nodes[node];
            here.run == Run::Down
                || here.counted[shard] == generation
                || here.tenures[shard].remaining(TICK).is_zero()
        };
        if scenario.budget.strict > 0 && !(0..self.nodes.len()).all(outlives) {
            return false;
        }
        (0..self.nodes.len())
            .filter(|node| self.keeps_time(*node, shard))
            .all(|node| {
                let here = &self.nodes[node];
                let tenure = &here.tenures[shard];
                let due = |seat: &&Seat| {
                    let doubtful =
                        tenure.is_doubtful() || seat.doubted || seat.generation == Generation::NONE;
                    scenario.shard_of(seat.player) == shard && seat.sits && (second || !doubtful)
                };
                let confirmed = here
                    .seats
                    .iter()
                    .filter(due)
                    .all(|seat| seat.generation == generation);
                tenure.generation() == generation && here.chores[shard].is_none() && confirmed
            })
    }

    pub(super) fn befall(&mut self, scenario: &Scenario, fault: Fault) {
        match fault {
            Fault::Lapse(node, shard) => self.lapse(scenario, node.into(), shard.into()),
            Fault::Glance(node, shard) => {
                self.nodes[usize::from(node)].tenures[usize::from(shard)].mind_lapse(TICK);
            }
            Fault::Expire(shard, owner) => self.expire(scenario, shard.into(), owner),
            Fault::Half(shard) => {
                self.excuse_unaudited(scenario, shard.into());
                self.shards[usize::from(shard)].bucket.begin_second(NOW);
            }
            Fault::Open(shard) => {
                self.excuse_unaudited(scenario, shard.into());
                self.shards[usize::from(shard)].bucket.end_recovery(NOW);
                self.outlive_requests(scenario);
            }
            Fault::Forget(player) => {
                self.budget.forget -= 1;
                let shard = &mut self.shards[scenario.shard_of(player)];
                if let Some(account) = shard.bucket.account_mut(scenario.key(player)) {
                    account.forget(session(player));
                }
                self.outlive_requests(scenario);
            }
            Fault::Neglect(player) => {
                let shard = &mut self.shards[scenario.shard_of(player)];
                if let Some(account) = shard.bucket.account_mut(scenario.key(player)) {
                    account.neglect(session(player));
                }
            }
            Fault::Crash(node) => self.crash(scenario, node.into()),
            Fault::Restart(node) => {
                let here = &mut self.nodes[usize::from(node)];
                *here = Node {
                    life: 1,
                    back: true,
                    ..Node::new(here.tenures.len())
                };
            }
            Fault::Pause(node) => {
                self.budget.pause -= 1;
                self.nodes[usize::from(node)].run = Run::Paused;
            }
            Fault::Wake(node) => {
                let here = &mut self.nodes[usize::from(node)];
                here.run = Run::Up;
                here.back = true;
                self.miss(node.into());
            }
            Fault::Cut(node) => {
                self.budget.cut -= 1;
                self.nodes[usize::from(node)].cut = true;
                self.miss(node.into());
            }
            Fault::Heal(node) => {
                let here = &mut self.nodes[usize::from(node)];
                here.cut = false;
                here.back = true;
            }
            Fault::Away(shard) => {
                self.budget.away -= 1;
                self.shards[usize::from(shard)].away = true;
                (0..self.nodes.len()).for_each(|node| self.miss(node));
            }
            Fault::Back(shard, how) => self.come_back(scenario, shard.into(), how),
            Fault::Wipe(shard) => {
                self.budget.wipe -= 1;
                self.shards[usize::from(shard)].unread = [0; PLAYERS];
                self.ghost.lossy = true;
                self.shards[usize::from(shard)].bucket = Bucket::default();
            }
            Fault::Replicate(shard) => {
                let shard = &mut self.shards[usize::from(shard)];
                shard.replica = Some(Box::new(shard.bucket.clone()));
            }
            Fault::Failover(shard, slow) => {
                self.budget.failover -= 1;
                self.promote(shard.into());
                if slow {
                    self.pass_a_lease(scenario, shard.into());
                }
            }
            Fault::Split(shard, node) => {
                self.budget.split -= 1;
                let old = &self.shards[usize::from(shard)];
                let former = (node, Box::new(old.bucket.clone()), old.server);
                self.promote(shard.into());
                self.shards[usize::from(shard)].former = Some(former);
                self.excuse(scenario, node.into(), shard.into());
            }
            Fault::Join(shard) => {
                if let Some((node, ..)) = self.shards[usize::from(shard)].former.take() {
                    let here = &mut self.nodes[usize::from(node)];
                    here.back = true;
                    here.chores[usize::from(shard)] = None;
                }
            }
        }
    }

    fn excuse(&mut self, scenario: &Scenario, node: usize, shard: usize) {
        for seat in self.nodes[node]
            .seats
            .iter_mut()
            .filter(|seat| scenario.shard_of(seat.player) == shard)
        {
            seat.excused = true;
        }
    }

    /// A node that is hindered while a recovery goes on has its sockets excused until it has finished its audit.
    fn excuse_unaudited(&mut self, scenario: &Scenario, shard: usize) {
        if scenario.budget.strict > 0 {
            return;
        }
        let generation = self.shards[shard].bucket.generation().unwrap_or_default();
        for node in 0..self.nodes.len() {
            if self.keeps_time(node, shard) {
                continue;
            }
            let seats = self.nodes[node].seats.iter_mut();
            for seat in
                seats.filter(|seat| scenario.shard_of(seat.player) == shard && seat.generation != generation)
            {
                seat.excused = true;
            }
        }
    }

    /// A late start or resume does nothing any more.
    fn outlive_requests(&mut self, scenario: &Scenario) {
        if scenario.keeps(NodeRule::NotAfter)
            && matches!(self.late, Some(Request::Acquire(_) | Request::Resume(_)))
        {
            self.late = None;
        }
    }

    /// What the node sends goes unanswered.
    fn miss(&mut self, node: usize) {
        for shard in 0..self.shards.len() {
            let here = &self.nodes[node];
            if here.run == Run::Up && !self.reaches(node, shard) {
                let here = &mut self.nodes[node];
                here.chores[shard] = None;
                // Long enough ago to be an outage.
                here.tenures[shard].missed(Tick::ZERO, TICK);
            }
        }
    }

    fn expire(&mut self, scenario: &Scenario, shard: usize, owner: OwnerId) {
        // A node counts from when it sent its renewal: its own clock is ahead.
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_up_as(node, owner) && !self.is_on_former(node, shard) {
                self.lapse(scenario, node, shard);
            }
        }
        let alone = !(0..self.nodes.len()).any(|node| self.keeps_time(node, shard));
        let bucket = &mut self.shards[shard].bucket;
        if let Some(lease) = bucket.lease_mut(owner) {
            lease.until = NOW;
        }
        if alone {
            bucket.begin_gap(NOW);
        }
    }

    fn crash(&mut self, scenario: &Scenario, node: usize) {
        self.budget.crash -= 1;
        let (buckets, owner) = (self.shards.len(), self.nodes[node].owner(node));
        let life = self.nodes[node].life;
        // Whoever was never granted goes away; the others may come back.
        for seat in &self.nodes[node].seats {
            let player = &mut self.players[usize::from(seat.player)];
            if *player == Player::At(node as u8, seat.attempt) && !self.ghost.told[usize::from(seat.player)] {
                *player = Player::Done;
            }
        }
        self.nodes[node] = Node {
            life,
            run: Run::Down,
            ..Node::new(buckets)
        };
        let words = std::mem::take(&mut self.words);
        self.words = words
            .into_iter()
            .filter(|(to, _)| *to != owner)
            .collect::<BTreeSet<_>>();
        let _ = scenario;
    }

    fn come_back(&mut self, scenario: &Scenario, shard: usize, how: Return) {
        self.shards[shard].away = false;
        match how {
            Return::Soon => {}
            Return::Late => self.pass_a_lease(scenario, shard),
            Return::Between(node) => {
                let node = usize::from(node);
                let owner = self.nodes[node].owner(node);
                if let Some(lease) = self.shards[shard].bucket.lease_mut(owner) {
                    lease.until = lease.until.min(NOW);
                }
                self.lapse(scenario, node, shard);
            }
        }
    }

    /// Nobody could renew for longer than a lease.
    fn pass_a_lease(&mut self, scenario: &Scenario, shard: usize) {
        let owners: Vec<_> = self.shards[shard].bucket.leases().keys().copied().collect();
        let bucket = &mut self.shards[shard].bucket;
        for owner in owners {
            if let Some(lease) = bucket.lease_mut(owner) {
                lease.until = lease.until.min(NOW);
            }
        }
        bucket.begin_gap(NOW);
        for node in 0..self.nodes.len() {
            if self.nodes[node].run != Run::Down {
                self.lapse(scenario, node, shard);
            }
        }
    }

    /// The replica becomes the primary: the last writes are lost.
    fn promote(&mut self, shard: usize) {
        self.ghost.lossy = true;
        let shard = &mut self.shards[shard];
        let Some(mut promoted) = shard.replica.take() else {
            return;
        };
        // What has run out meanwhile has run out.
        let owners: Vec<_> = promoted.leases().keys().copied().collect();
        for owner in owners {
            let until = shard.bucket.lease_mut(owner).map_or(NOW, |lease| lease.until);
            if let Some(lease) = promoted.lease_mut(owner) {
                lease.until = lease.until.min(until);
            }
        }
        shard.bucket = *promoted;
        shard.server += 1;
    }
}

impl Scenario {
    /// Whether every session survives whatever happens: nobody but the store is hindered.
    pub(super) fn is_gentle(&self) -> bool {
        let budget = &self.budget;
        let hindered = [
            budget.crash,
            budget.pause,
            budget.cut,
            budget.late,
            budget.lost,
            budget.slow,
            budget.split,
        ];
        let takers = self.starts.iter().any(|(.., want)| *want == Want::Oldest);
        let moves = takers || budget.resume > 0;
        hindered == [0; 7] && (budget.failover == 0 || !moves) && budget.kick == 0 && budget.local == 0
    }

    /// Whether a world with its nodes exchanged is one that is explored as well.
    fn is_mirrored(&self) -> bool {
        let mirror = |(player, node, want): &(u8, u8, Want)| {
            let player = if *player < 2 { 1 - *player } else { *player };
            (player, 1 - *node, *want)
        };
        let mut starts = self.starts.iter();
        self.playing != 1
            && self.budget.split == 0
            && self.accounts == [0; PLAYERS]
            && self.devices == [0, 1, 2, 3]
            && self.limits[0] == self.limits[1]
            && starts.all(|start| start.2 != Want::Oldest && self.starts.contains(&mirror(start)))
    }

    pub(super) fn players(&self) -> u8 {
        let started = self
            .starts
            .iter()
            .map(|(player, ..)| player + 1)
            .max()
            .unwrap_or(0);
        started.max(self.playing)
    }
}
