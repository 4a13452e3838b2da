//! What may happen next, and what it does.
//!
//! Over 400 lines: it is one list of actions, told three times: by name, by when it may happen, and by what it does.

use std::sync::atomic::Ordering;
use std::time::Instant;

use stateright::{Model, Property};

use crate::protocol::close::EndCode;
use crate::protocol::id::OwnerId;

use super::super::model::{Generation, Order};
use super::super::rule;
use super::faults::Fault;
use super::node::{End, Node, Run};
use super::seat::{Seat, Task};
use super::{Ghost, NodeRule, PLAYERS, Player, Scenario, Shard, World, clock, session};
use crate::lease::bucket::Bucket;

/// One step of the world. Numbers are players, nodes, buckets and places in a node's list of seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// The start with this number in the scenario.
    Start(u8),
    Stop(u8),
    /// An undecided player goes.
    Leave(u8),
    /// A player falls silent for ever.
    Vanish(u8),
    /// A player comes back at this node.
    Resume(u8, u8),
    /// An operator's order.
    Kick(u8),
    /// A seat asks, and hears the answer.
    Ask(u8, u8),
    /// It asks, and the answer is lost.
    Unanswered(u8, u8),
    /// It asks, and the answer is read later.
    AskSlowly(u8, u8),
    Hear(u8, u8),
    /// It asks, but a copy of the request arrives later; it will ask again.
    Duplicate(u8, u8),
    /// The copy arrives.
    Late,
    /// A start is granted without the store.
    Claim(u8, u8),
    /// A seat that cannot reach the store keeps its end in mind.
    EndAlone(u8, u8),
    /// A socket was silent for too long.
    Silence(u8, u8),
    /// A player pauses or plays on: its node asks about it.
    Look(u8, u8),
    Word(OwnerId, u8),
    LoseWord(OwnerId, u8),
    Renew(u8, u8),
    /// A renewal whose answer is lost.
    RenewLost(u8, u8),
    Chore(u8, u8),
    /// Somebody reads the facts that lie in the store.
    Read(u8),
    /// The audit of the minute is due.
    Minute(u8, u8),
    Fault(Fault),
}

impl Action {
    /// Whether it happens by itself sooner or later, and needs no budget: the world rests when none of these
    /// changes it any more.
    fn is_progress(self) -> bool {
        use Action as A;
        use Fault as F;
        let never = matches!(
            self,
            A::Start(_)
                | A::Stop(_)
                | A::Leave(_)
                | A::Vanish(_)
                | A::Resume(..)
                | A::Kick(_)
                | A::Unanswered(..)
                | A::AskSlowly(..)
                | A::Duplicate(..)
                | A::Claim(..)
                | A::Look(..)
                | A::LoseWord(..)
                | A::RenewLost(..)
        );
        let bad = matches!(
            self,
            A::Fault(
                F::Crash(_)
                    | F::Pause(_)
                    | F::Cut(_)
                    | F::Away(_)
                    | F::Wipe(_)
                    | F::Replicate(_)
                    | F::Failover(..)
                    | F::Split(..)
                    | F::Forget(_)
                    | F::Lapse(..)
            )
        );
        !never && !bad
    }
}

impl World {
    fn players_may(&self, scenario: &Scenario, found: &mut Vec<Action>) {
        for (number, (player, node, _)) in scenario.starts.iter().enumerate() {
            if self.players[usize::from(*player)] == Player::Idle
                && self.nodes[usize::from(*node)].run == Run::Up
            {
                found.push(Action::Start(number as u8));
            }
        }
        for player in 0..scenario.players() {
            let shard = &self.shards[scenario.shard_of(player)];
            let account = shard.bucket.account(scenario.key(player));
            let entry =
                account.and_then(|account| account.entries().iter().find(|e| e.session == session(player)));
            if self.budget.kick > 0 && !shard.away && entry.is_some_and(|entry| entry.mark.is_none()) {
                found.push(Action::Kick(player));
            }
            let Player::At(node, attempt) = self.players[usize::from(player)] else {
                continue;
            };
            let here = &self.nodes[usize::from(node)];
            let seat = here
                .seats
                .iter()
                .find(|seat| seat.player == player && seat.attempt == attempt);
            let plays = seat.is_some_and(|seat| seat.task == Task::Play && seat.told);
            if plays && here.run == Run::Up {
                if self.budget.stop > 0 {
                    found.push(Action::Stop(player));
                }
                if self.budget.vanish > 0 {
                    found.push(Action::Vanish(player));
                }
            }
            let undecided = seat
                .is_some_and(|seat| matches!(seat.task, Task::Start(_) | Task::Wait(_) | Task::Resume(_)));
            if undecided && self.budget.leave > 0 && here.run == Run::Up {
                found.push(Action::Leave(player));
            }
            if seat.is_none() {
                // Its node crashed.
                found.push(Action::Vanish(player));
            }
            if self.budget.resume > 0 && (plays || seat.is_none()) && self.ghost.told[usize::from(player)] {
                let nodes = (0..self.nodes.len()).filter(|node| self.nodes[*node].run == Run::Up);
                found.extend(nodes.map(|node| Action::Resume(player, node as u8)));
            }
        }
    }

    fn seats_may(&self, scenario: &Scenario, node: usize, found: &mut Vec<Action>) {
        let here = &self.nodes[node];
        if here.run != Run::Up {
            return;
        }
        for (index, seat) in here.seats.iter().enumerate() {
            let shard = scenario.shard_of(seat.player);
            let (n, i) = (node as u8, index as u8);
            if seat.answer.is_some() {
                found.push(Action::Hear(n, i));
                continue;
            }
            let asks = match seat.task {
                Task::Play => false,
                Task::Wait(_) => scenario.keeps(NodeRule::Poll),
                _ => true,
            };
            if asks && self.may_ask(scenario, node, shard) {
                found.push(Action::Ask(n, i));
                if self.budget.lost > 0 {
                    found.push(Action::Unanswered(n, i));
                }
                if self.budget.slow > 0 {
                    found.push(Action::AskSlowly(n, i));
                }
                if self.budget.late > 0 && self.late.is_none() && !matches!(seat.task, Task::Confirm(_)) {
                    found.push(Action::Duplicate(n, i));
                }
            }
            let away = !self.reaches(node, shard);
            if away
                && self.budget.local > 0
                && matches!(seat.task, Task::Start(_))
                && here.tenures[shard].is_away(super::TICK)
            {
                found.push(Action::Claim(n, i));
            }
            if away && seat.task == Task::End {
                found.push(Action::EndAlone(n, i));
            }
            if !seat.socket && seat.task == Task::Play {
                found.push(Action::Silence(n, i));
            }
            if self.budget.look > 0 && seat.task == Task::Play && self.may_ask(scenario, node, shard) {
                found.push(Action::Look(n, i));
            }
        }
    }

    fn nodes_may(&self, scenario: &Scenario, node: usize, found: &mut Vec<Action>) {
        for shard in 0..self.shards.len() {
            let (n, b) = (node as u8, shard as u8);
            if !self.reaches(node, shard) {
                continue;
            }
            if self.nodes[node].chores[shard].is_some() {
                found.push(Action::Chore(n, b));
                continue;
            }
            found.push(Action::Renew(n, b));
            if self.budget.lost > 0 {
                found.push(Action::RenewLost(n, b));
            }
            let here = &self.nodes[node];
            let due = scenario.keeps(NodeRule::Minute) && !here.tenures[shard].is_audit_due(super::TICK);
            if due
                && here.seats.iter().all(|seat| seat.task == Task::Play)
                && self.is_swapped(scenario, node, shard)
            {
                found.push(Action::Minute(n, b));
            }
        }
    }

    fn words_may(&self, scenario: &Scenario, found: &mut Vec<Action>) {
        for (owner, player) in &self.words {
            let Some(node) = (0..self.nodes.len()).find(|node| self.nodes[*node].owner(*node) == *owner)
            else {
                continue;
            };
            let shard = scenario.shard_of(*player);
            let undecided = |seat: &Seat| {
                seat.player == *player
                    && matches!(seat.task, Task::Start(_) | Task::Resume(_) | Task::Confirm(_))
            };
            let ready = self.may_ask(scenario, node, shard) || !self.reaches(node, shard);
            if self.nodes[node].run == Run::Up && ready && !self.nodes[node].seats.iter().any(undecided) {
                found.push(Action::Word(*owner, *player));
            }
            if self.budget.lost > 0 {
                found.push(Action::LoseWord(*owner, *player));
            }
        }
    }

    fn act(&mut self, scenario: &Scenario, action: Action) {
        match action {
            Action::Start(number) => {
                let (player, node, want) = scenario.starts[usize::from(number)];
                self.players[usize::from(player)] = Player::At(node, 0);
                self.nodes[usize::from(node)]
                    .seats
                    .push(Seat::new(player, 0, Task::Start(want)));
            }
            Action::Stop(player) => {
                self.budget.stop -= 1;
                self.leave(player, true);
            }
            Action::Leave(player) => {
                self.budget.leave -= 1;
                self.leave(player, true);
            }
            Action::Vanish(player) => {
                self.budget.vanish = self.budget.vanish.saturating_sub(1);
                self.leave(player, false);
            }
            Action::Resume(player, node) => {
                self.budget.resume -= 1;
                let Player::At(_, attempt) = self.players[usize::from(player)] else {
                    return;
                };
                self.leave(player, false);
                self.players[usize::from(player)] = Player::At(node, attempt + 1);
                self.nodes[usize::from(node)]
                    .seats
                    .push(Seat::new(player, attempt + 1, Task::Resume(0)));
            }
            Action::Kick(player) => {
                self.budget.kick -= 1;
                let order = Order::Kick {
                    session: session(player),
                    code: EndCode::EndedByOperator,
                };
                let _ = self.step(scenario, None, player, |table, ground, effects| {
                    table.order(order, ground, effects)
                });
            }
            Action::Ask(node, index) => {
                if let Some((answer, _)) = self.ask(scenario, node, index) {
                    self.hear(scenario, node.into(), index.into(), answer);
                }
            }
            Action::Unanswered(node, index) => {
                self.budget.lost -= 1;
                self.ask(scenario, node, index);
            }
            Action::AskSlowly(node, index) => {
                self.budget.slow -= 1;
                if let Some((answer, _)) = self.ask(scenario, node, index) {
                    self.nodes[usize::from(node)].seats[usize::from(index)].answer = Some(answer);
                }
            }
            Action::Hear(node, index) => {
                if let Some(answer) = self.nodes[usize::from(node)].seats[usize::from(index)].answer {
                    self.hear(scenario, node.into(), index.into(), answer);
                }
            }
            Action::Duplicate(node, index) => {
                self.budget.late -= 1;
                let here = &self.nodes[usize::from(node)];
                let owner = here.owner(node.into());
                self.late = here.seats[usize::from(index)].request(scenario, here, owner);
            }
            Action::Late => self.arrive_late(scenario),
            Action::Claim(node, index) => self.claim(scenario, node.into(), index.into()),
            Action::EndAlone(node, index) => {
                let (node, index) = (usize::from(node), usize::from(index));
                let end = End::of(&self.nodes[node].seats[index], None);
                self.nodes[node].ends.insert(end);
                self.leave_seat(node, index);
            }
            Action::Silence(node, index) => self.end_seat(node.into(), index.into()),
            Action::Look(node, index) => {
                self.budget.look -= 1;
                self.look(scenario, node.into(), index.into());
            }
            Action::Word(owner, player) => {
                self.words.remove(&(owner, player));
                self.deliver(scenario, owner, player);
            }
            Action::LoseWord(owner, player) => {
                self.budget.lost -= 1;
                self.words.remove(&(owner, player));
            }
            Action::Renew(node, shard) => self.renew(scenario, node.into(), shard.into()),
            Action::RenewLost(node, shard) => {
                self.budget.lost -= 1;
                self.renew_lease(node.into(), shard.into());
            }
            Action::Chore(node, shard) => self.do_chore(scenario, node.into(), shard.into()),
            Action::Read(shard) => {
                let unread = std::mem::take(&mut self.shards[usize::from(shard)].unread);
                for (ended, unread) in self.ghost.ended.iter_mut().zip(unread) {
                    *ended = 2.min(*ended + unread);
                }
            }
            Action::Minute(node, shard) => {
                self.nodes[usize::from(node)].tenures[usize::from(shard)].grow_old();
            }
            Action::Fault(fault) => self.befall(scenario, fault),
        }
    }

    /// A player leaves its socket: with a word, or without.
    fn leave(&mut self, player: u8, with_a_word: bool) {
        let Player::At(node, attempt) = self.players[usize::from(player)] else {
            return;
        };
        self.players[usize::from(player)] = Player::Done;
        let seats = &mut self.nodes[usize::from(node)].seats;
        if let Some(seat) = seats
            .iter_mut()
            .find(|seat| seat.player == player && seat.attempt == attempt)
        {
            if with_a_word {
                seat.end();
            } else {
                seat.socket = false;
            }
        }
    }

    fn ask(&mut self, scenario: &Scenario, node: u8, index: u8) -> Option<(super::seat::Answer, u8)> {
        let here = &self.nodes[usize::from(node)];
        let seat = &here.seats[usize::from(index)];
        let (player, request) = (
            seat.player,
            seat.request(scenario, here, here.owner(node.into()))?,
        );
        Some((self.serve(scenario, node.into(), player, &request), player))
    }

    fn arrive_late(&mut self, scenario: &Scenario) {
        use super::seat::Request as R;
        let Some(request) = self.late.take() else { return };
        let (id, owner) = match &request {
            R::Acquire(request) => (request.session, request.owner),
            R::Resume(request) => (request.session, request.owner),
            R::Release(holding) | R::Audit(holding) => (holding.fence.session, holding.fence.owner),
        };
        let (node, player) = ((owner.0 % 2) as usize, super::player_of(id));
        let held = self.entries().any(|entry| entry.session == id);
        let answer = self.serve(scenario, node, player, &request);
        // Its node has released it meanwhile.
        let ended = self.nodes[node].has_ended(player) && !held;
        let start = matches!(request, R::Acquire(_));
        self.ghost.back |= start && ended && matches!(answer, super::seat::Answer::Granted(_));
    }

    fn claim(&mut self, scenario: &Scenario, node: usize, index: usize) {
        let account = scenario.key(self.nodes[node].seats[index].player);
        let sits = |seat: &&Seat| seat.sits && scenario.key(seat.player) == account;
        if self.nodes[node].seats.iter().filter(sits).count()
            >= usize::from(scenario.limits[usize::from(self.nodes[node].seats[index].player)])
        {
            self.leave_seat(node, index);
            return;
        }
        self.budget.local -= 1;
        let seat = &mut self.nodes[node].seats[index];
        seat.task = Task::Play;
        (seat.sits, seat.told, seat.generation) = (true, true, Generation::NONE);
    }

    /// Word has come: the session looks, whatever the word was.
    fn deliver(&mut self, scenario: &Scenario, owner: OwnerId, player: u8) {
        let shard = scenario.shard_of(player);
        let Some(node) = (0..self.nodes.len()).find(|node| self.nodes[*node].is_up_as(*node, owner)) else {
            return;
        };
        if !self.reaches(node, shard) {
            return;
        }
        let seats = self.nodes[node].seats.iter().filter(|seat| seat.player == player);
        let attempts: Vec<_> = seats.map(|seat| seat.attempt).collect();
        for attempt in attempts {
            let is_it = |seat: &Seat| seat.player == player && seat.attempt == attempt;
            if let Some(index) = self.nodes[node].seats.iter().position(is_it) {
                self.look(scenario, node, index);
            }
        }
    }
}

impl Scenario {
    /// All that may happen next.
    fn list(&self, world: &World, found: &mut Vec<Action>) {
        world.players_may(self, found);
        for node in 0..world.nodes.len() {
            world.seats_may(self, node, found);
            world.nodes_may(self, node, found);
        }
        world.words_may(self, found);
        if world.late.is_some() {
            found.push(Action::Late);
        }
        let unread = |shard: &Shard| shard.unread != [0; PLAYERS];
        let shards = world.shards.iter().enumerate().filter(|(_, shard)| unread(shard));
        found.extend(shards.map(|(index, _)| Action::Read(index as u8)));
        let mut faults = Vec::new();
        world.faults(self, &mut faults);
        found.extend(faults.into_iter().map(Action::Fault));
    }

    /// Whether nothing changes any more but by players and bad luck.
    pub(super) fn is_at_rest(&self, world: &World) -> bool {
        // A node that compares for ever and changes nothing rests as well.
        let (mut seen, mut open) = (vec![world.clone()], vec![world.clone()]);
        while let Some(world) = open.pop() {
            let mut actions = Vec::new();
            self.list(&world, &mut actions);
            for action in actions.into_iter().filter(|action| action.is_progress()) {
                let Some(next) = self.next_state(&world, action) else {
                    continue;
                };
                if !next.differs_in_tenures_only(&world) {
                    return false;
                }
                if !seen.contains(&next) {
                    seen.push(next.clone());
                    open.push(next);
                }
            }
        }
        true
    }
}

impl World {
    /// Whether nothing but what the nodes make of their renewals is different.
    fn differs_in_tenures_only(&self, other: &Self) -> bool {
        let same = |(here, there): (&Node, &Node)| {
            (here.run, here.cut, here.life, here.back) == (there.run, there.cut, there.life, there.back)
                && here.seats == there.seats
                && here.ends == there.ends
        };
        let leases = |shard: &Shard| shard.bucket.leases().clone();
        let tables = |shard: &Shard| {
            shard
                .bucket
                .accounts()
                .map(|(_, account)| account.clone())
                .collect::<Vec<_>>()
        };
        let marker = |shard: &Shard| {
            (
                shard.bucket.generation(),
                shard.bucket.recovery(super::NOW),
                shard.away,
            )
        };
        let all = |world: &Self| -> Vec<_> {
            world
                .shards
                .iter()
                .map(|shard| (leases(shard), tables(shard), marker(shard), shard.unread))
                .collect()
        };
        self.words == other.words
            && self.late == other.late
            && self.players == other.players
            && self.ghost == other.ghost
            && self.nodes.iter().zip(&other.nodes).all(same)
            && all(self) == all(other)
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let buckets = usize::from(self.buckets);
        let shard = || Shard {
            bucket: Bucket::open(&clock(1, 0)),
            server: 1,
            away: false,
            replica: None,
            former: None,
            unread: [0; PLAYERS],
        };
        let mut world = World {
            shards: (0..buckets).map(|_| shard()).collect(),
            nodes: vec![Node::new(buckets); 2],
            players: vec![Player::Idle; PLAYERS],
            words: Default::default(),
            late: None,
            budget: self.budget,
            lives: 1,
            ghost: Ghost::default(),
        };
        for node in 0..2 {
            for shard in 0..self.buckets {
                world.act(self, Action::Renew(node, shard));
                while world.nodes[usize::from(node)].chores[usize::from(shard)].is_some() {
                    world.act(self, Action::Chore(node, shard));
                }
            }
            if node < self.playing {
                world.players[usize::from(node)] = Player::At(node, 0);
                world.nodes[usize::from(node)]
                    .seats
                    .push(Seat::new(node, 0, Task::Start(super::Want::Slot)));
                world.act(self, Action::Ask(node, 0));
            }
        }
        world.note_told();
        world.settle();
        vec![world]
    }

    fn actions(&self, world: &World, found: &mut Vec<Action>) {
        if self.explored.load(Ordering::Relaxed) || Instant::now() < self.until {
            self.list(world, found);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        rule::without(self.code_rule(), || next.act(self, action));
        next.note_told();
        next.settle();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::properties::all()
    }
}
