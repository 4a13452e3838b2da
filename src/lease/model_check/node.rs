//! A node: its leases, and the chores that follow a renewal, in the order of `keeper`.
//!
//! Over 400 lines: the chores of a node follow one another, and each needs the node's whole view.

use std::collections::BTreeSet;

use crate::protocol::close::EndCode;
use crate::protocol::id::OwnerId;

use super::super::model::{Entry, Generation, Holding};
use super::super::tenure::{Own, Tenure};
use super::seat::{Answer, Request, Seat, Task};
use super::{NodeRule, Scenario, TICK, World};

/// A gateway process and its machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// Which process this is; each is another owner.
    pub(super) life: u8,
    pub(super) run: Run,
    /// Cut off from every store.
    pub(super) cut: bool,
    /// It came back and has not finished a renewal yet: time may pass before it does.
    pub(super) back: bool,
    pub(super) tenures: Vec<Tenure>,
    /// The life of the data in which the renewal was sent that counts, where it matters.
    pub(super) counted: Vec<Generation>,
    pub(super) chores: Vec<Option<Chore>>,
    pub(super) seats: Vec<Seat>,
    pub(super) ends: BTreeSet<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Run {
    Up,
    Paused,
    Down,
}

/// What is still to be done after a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chore {
    /// The life of the data that the renewal answered.
    pub(super) generation: Generation,
    recovering: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    /// What ended while the store was away makes place before anything is compared.
    Untold,
    Audit,
    /// Ends that this life of the data does not know.
    Forgotten,
    Strangers,
}

/// An end that the node remembers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct End {
    player: u8,
    epoch: u64,
    generation: Generation,
    /// Whether its player was told that it is granted.
    granted: bool,
    told: Option<Generation>,
}

impl End {
    pub(super) fn of(seat: &Seat, told: Option<Generation>) -> Self {
        Self {
            player: seat.player,
            epoch: seat.epoch,
            generation: seat.generation,
            granted: seat.told,
            told,
        }
    }
}

impl Node {
    pub(super) fn new(buckets: usize) -> Self {
        Self {
            life: 0,
            run: Run::Up,
            cut: false,
            back: false,
            tenures: vec![Tenure::default(); buckets],
            counted: vec![Generation::NONE; buckets],
            chores: vec![None; buckets],
            seats: Vec::new(),
            ends: BTreeSet::new(),
        }
    }

    /// Its present process.
    pub(super) fn owner(&self, index: usize) -> OwnerId {
        OwnerId(index as u64 + 2 * u64::from(self.life))
    }

    /// The highest epoch of a player's session that it knows.
    pub(super) fn epoch(&self, player: u8) -> u64 {
        let sits = self
            .seats
            .iter()
            .filter(|seat| seat.player == player && seat.sits);
        let ends = self.ends.iter().filter(|end| end.player == player);
        let epochs = sits.map(|seat| seat.epoch).chain(ends.map(|end| end.epoch));
        epochs.max().unwrap_or_default()
    }

    /// Whether it has told the store of the end of a player's session.
    pub(super) fn has_ended(&self, player: u8) -> bool {
        self.ends
            .iter()
            .any(|end| end.player == player && end.told.is_some())
    }

    /// Whether anything of a player is left here.
    pub(super) fn knows(&self, player: u8) -> bool {
        self.seats.iter().any(|seat| seat.player == player)
            || self.ends.iter().any(|end| end.player == player)
    }

    /// Ends that were told to this life of the data, which is the last, were told for good.
    pub(super) fn forget_ends(&mut self, last: Option<Generation>) {
        let old = |chore: &Option<Chore>| chore.is_some_and(|chore| Some(chore.generation) != last);
        if last.is_some() && !self.chores.iter().any(old) {
            self.ends.retain(|end| end.told != last);
        }
    }

    /// Whether it is this process, and lives.
    pub(super) fn is_up_as(&self, index: usize, owner: OwnerId) -> bool {
        self.run != Run::Down && self.owner(index) == owner
    }
}

impl World {
    /// Whether the node runs and reaches the store of a bucket.
    pub(super) fn reaches(&self, node: usize, shard: usize) -> bool {
        let here = &self.nodes[node];
        here.run == Run::Up && !here.cut && !self.shards[shard].away
    }

    /// Whether the node renews in time: nobody's time passes unless somebody is hindered.
    pub(super) fn keeps_time(&self, node: usize, shard: usize) -> bool {
        let former = matches!(&self.shards[shard].former, Some((cut, ..)) if usize::from(*cut) == node);
        self.reaches(node, shard) && !self.nodes[node].back && !former
    }

    /// Whether the node asks the store: one that does not trust its lease renews first.
    pub(super) fn may_ask(&self, scenario: &Scenario, node: usize, shard: usize) -> bool {
        let trusted = self.nodes[node].tenures[shard].is_trusted(TICK) || !scenario.keeps(NodeRule::OwnClock);
        self.reaches(node, shard) && trusted
    }

    /// What the node holds in a bucket.
    fn holdings(&self, scenario: &Scenario, node: usize, shard: usize) -> Vec<Holding> {
        let here = &self.nodes[node];
        let held = here.seats.iter().filter(|seat| {
            let ends = seat.task == Task::End && scenario.keeps(NodeRule::EndingStays);
            seat.sits && !ends && scenario.shard_of(seat.player) == shard
        });
        held.map(|seat| seat.holding(scenario, here.owner(node)))
            .collect()
    }

    /// A renewal, whose answer is read, and its chores begin.
    pub(super) fn renew(&mut self, scenario: &Scenario, node: usize, shard: usize) {
        let mut answer = self.renew_lease(node, shard);
        let holdings = self.holdings(scenario, node, shard);
        let number = |generation| {
            holdings
                .iter()
                .filter(|holding| holding.generation == generation)
                .count() as u32
        };
        let here = &mut self.nodes[node];
        let busy = |seat: &Seat| seat.task != Task::Play && scenario.shard_of(seat.player) == shard;
        let waits = |seat: &Seat| matches!(seat.task, Task::Wait(_));
        let own = Own {
            confirmed: if scenario.keeps(NodeRule::Compare) {
                number(answer.generation)
            } else {
                answer.count
            },
            provisional: number(Generation::NONE),
            busy: here.seats.iter().any(|seat| busy(seat) && !waits(seat)),
        };
        if here.tenures[shard].since() != answer.since {
            let here = here
                .seats
                .iter_mut()
                .filter(|seat| scenario.shard_of(seat.player) == shard);
            here.filter(|seat| seat.answer.is_some())
                .for_each(|seat| seat.broken = true);
        }
        here.tenures[shard].renewed(TICK, TICK, &answer, own);
        if scenario.budget.strict > 0 && !here.tenures[shard].is_pending() {
            here.counted[shard] = answer.generation;
        }
        if !scenario.keeps(NodeRule::Marks) {
            answer.marked.clear();
        }
        let owner = here.owner(node);
        for (_, id) in &answer.marked {
            self.words.insert((owner, super::player_of(*id)));
        }
        self.nodes[node].chores[shard] = Some(Chore {
            generation: answer.generation,
            recovering: answer.phase.recovering(),
            stage: Stage::Untold,
        });
        self.skip_idle(scenario, node, shard);
    }

    /// Leaves out the chores that have nothing to do.
    fn skip_idle(&mut self, scenario: &Scenario, node: usize, shard: usize) {
        while let Some(chore) = self.nodes[node].chores[shard] {
            let here = &self.nodes[node];
            let tenure = &here.tenures[shard];
            let work = match chore.stage {
                Stage::Untold | Stage::Forgotten => self.next_end(scenario, node, shard, chore).is_some(),
                Stage::Audit => tenure.is_unaudited() || tenure.is_audit_due(TICK),
                Stage::Strangers => tenure.has_strangers() && !chore.recovering,
            };
            if work {
                return;
            }
            self.next_stage(node, shard, chore);
        }
    }

    fn next_stage(&mut self, node: usize, shard: usize, chore: Chore) {
        let stage = match chore.stage {
            Stage::Untold => Some(Stage::Audit),
            Stage::Audit => Some(Stage::Forgotten),
            Stage::Forgotten => Some(Stage::Strangers),
            Stage::Strangers => None,
        };
        let here = &mut self.nodes[node];
        here.chores[shard] = stage.map(|stage| Chore { stage, ..chore });
        if here.chores.iter().all(Option::is_none) {
            here.back = false;
        }
    }

    fn next_end(&self, scenario: &Scenario, node: usize, shard: usize, chore: Chore) -> Option<End> {
        let again = chore.stage == Stage::Forgotten && scenario.keeps(NodeRule::EndsAgain);
        let due = |end: &&End| {
            let untold = end.told.is_none() || (again && end.told != Some(chore.generation));
            untold && scenario.shard_of(end.player) == shard
        };
        self.nodes[node].ends.iter().find(due).cloned()
    }

    /// The next chore after a renewal; the node may be stopped between any two.
    pub(super) fn do_chore(&mut self, scenario: &Scenario, node: usize, shard: usize) {
        let Some(chore) = self.nodes[node].chores[shard] else {
            return;
        };
        match chore.stage {
            Stage::Untold | Stage::Forgotten => {
                if let Some(end) = self.next_end(scenario, node, shard, chore) {
                    self.tell(scenario, node, &end);
                    let here = &mut self.nodes[node];
                    here.ends.remove(&end);
                    here.ends.insert(End {
                        told: Some(chore.generation),
                        ..end
                    });
                }
            }
            Stage::Audit if !self.audit_all(scenario, node, shard, chore.generation) => {
                self.nodes[node].chores[shard] = None;
                return;
            }
            Stage::Audit => self.next_stage(node, shard, chore),
            Stage::Strangers => {
                if scenario.keeps(NodeRule::Strangers) {
                    self.release_strangers(scenario, node, shard);
                }
                self.nodes[node].tenures[shard].strangers_seen();
            }
        }
        self.skip_idle(scenario, node, shard);
    }

    fn tell(&mut self, scenario: &Scenario, node: usize, end: &End) {
        let mut seat = Seat::new(end.player, 0, Task::End);
        (seat.epoch, seat.generation, seat.told) = (end.epoch, end.generation, end.granted);
        let holding = seat.holding(scenario, self.nodes[node].owner(node));
        self.serve_release(scenario, node, end.player, &holding, EndCode::Stopped);
    }

    /// Compares every session of a bucket with the store; false when it cannot be finished.
    fn audit_all(&mut self, scenario: &Scenario, node: usize, shard: usize, generation: Generation) -> bool {
        let excused = self.is_excused(node, shard);
        let doubtful = self.nodes[node].tenures[shard].is_doubtful();
        let mut holdings = self.holdings(scenario, node, shard);
        for holding in &mut holdings {
            holding.doubtful |= doubtful || holding.generation == Generation::NONE;
        }
        holdings.sort_by_key(|holding| holding.doubtful);
        let mut complete = true;
        for holding in holdings {
            let player = super::player_of(holding.fence.session);
            let answer = self.serve(scenario, node, player, &Request::Audit(holding.clone()));
            match answer {
                Answer::NotYet { .. } => return false,
                Answer::Yours { generation: now, .. } if now != generation => {
                    self.nodes[node].tenures[shard].surprised();
                    return false;
                }
                Answer::Later => complete = false,
                Answer::Yours { marked, .. } => {
                    let owner = self.nodes[node].owner(node);
                    for seat in &mut self.nodes[node].seats {
                        if seat.sits && seat.player == player && seat.epoch == holding.fence.epoch {
                            seat.generation = generation;
                            seat.doubted = false;
                            seat.excused = excused;
                        }
                    }
                    if marked {
                        self.words.insert((owner, player));
                    }
                }
                // Its socket asks again, and ends.
                _ => {
                    let owner = self.nodes[node].owner(node);
                    for seat in &mut self.nodes[node].seats {
                        seat.doubted |= seat.player == player && seat.epoch == holding.fence.epoch;
                    }
                    self.words.insert((owner, player));
                }
            }
        }
        self.nodes[node].tenures[shard].audited(TICK, generation, complete);
        if scenario.budget.strict > 0 {
            self.nodes[node].counted[shard] = generation;
        }
        true
    }

    /// Releases what the store holds for this node and the node does not know.
    fn release_strangers(&mut self, scenario: &Scenario, node: usize, shard: usize) {
        let owner = self.nodes[node].owner(node);
        let bucket = self.shards[shard].view(node);
        let entries = bucket.accounts().flat_map(|(_, account)| account.entries());
        let owned: Vec<_> = entries
            .filter(|entry| entry.owner == owner)
            .map(Entry::fence)
            .collect();
        for fence in owned {
            let player = super::player_of(fence.session);
            if !self.nodes[node].seats.iter().any(|seat| seat.player == player) {
                self.serve_release(
                    scenario,
                    node,
                    player,
                    &Holding::stranger(fence),
                    EndCode::LeaseLost,
                );
            }
        }
    }

    /// A session looks at what became of it: word came, or its player changed its state.
    pub(super) fn look(&mut self, scenario: &Scenario, node: usize, index: usize) {
        let here = &self.nodes[node];
        let seat = &here.seats[index];
        let request = match seat.task {
            Task::Play => {
                let mut holding = seat.holding(scenario, here.owner(node));
                let doubtful = here.tenures[scenario.shard_of(seat.player)].is_doubtful();
                holding.doubtful |= doubtful && scenario.keeps(NodeRule::DoubtEverywhere);
                Request::Audit(holding)
            }
            Task::Wait(_) => seat.request(scenario, here, here.owner(node)).unwrap(),
            _ => return,
        };
        let answer = self.serve(scenario, node, seat.player, &request);
        self.hear(scenario, node, index, answer);
    }

    /// For the exception of I1: whether a store's word to this node may be worth nothing.
    pub(super) fn is_excused(&self, node: usize, shard: usize) -> bool {
        let lapsed = self.nodes[node].tenures[shard].remaining(TICK).is_zero();
        let pending = self.nodes[node].back && lapsed;
        pending || self.is_on_former(node, shard)
    }

    /// The node's lease in a bucket has run out by its own clock.
    pub(super) fn lapse(&mut self, scenario: &Scenario, node: usize, shard: usize) {
        let here = &mut self.nodes[node];
        here.tenures[shard].run_out();
        for seat in here
            .seats
            .iter_mut()
            .filter(|seat| scenario.shard_of(seat.player) == shard)
        {
            seat.excused = true;
        }
        if here.run == Run::Up {
            here.tenures[shard].mind_lapse(TICK);
        }
    }

    /// Whether the store and the node differ, though their counts are equal.
    pub(super) fn is_swapped(&self, scenario: &Scenario, node: usize, shard: usize) -> bool {
        let owner = self.nodes[node].owner(node);
        let known: BTreeSet<_> = self
            .holdings(scenario, node, shard)
            .iter()
            .map(|held| held.fence)
            .map(|f| (f.session, f.epoch))
            .collect();
        let bucket = self.shards[shard].view(node);
        let entries = bucket.accounts().flat_map(|(_, account)| account.entries());
        let owned: BTreeSet<_> = entries
            .filter(|entry| entry.owner == owner)
            .map(|e| (e.session, e.epoch))
            .collect();
        known.len() == owned.len() && known != owned
    }
}
