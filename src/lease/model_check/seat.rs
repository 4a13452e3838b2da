//! A socket's session on a node: what it asks the store, and what it makes of the answer.
//!
//! Over 400 lines: a session's questions stand beside what it makes of the answers.

use std::sync::Arc;

use crate::protocol::close::EndCode;
use crate::protocol::id::{Attempt, OwnerId};

use super::super::group::Terms;
use super::super::model::{
    Acquire, Acquired, Entry, Fence, Fenced, Generation, Held, Holding, Mark, NotNow, Resume, Resumed,
};
use super::node::{End, Node};
use super::{CONTENT, NodeRule, Player, Scenario, TICK, Want, World, began, session};

/// A session on a node, from its registration until it is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Seat {
    pub(super) player: u8,
    /// The player's n-th socket.
    pub(super) attempt: u8,
    pub(super) epoch: u64,
    /// The life of the data in which the store last confirmed it.
    pub(super) generation: Generation,
    /// Whether an audit said that the store has it no more.
    pub(super) doubted: bool,
    /// Whether it holds a slot, as the node knows.
    pub(super) sits: bool,
    /// Whether its player was told that it is granted,
    pub(super) told: bool,
    /// and still has its socket.
    pub(super) socket: bool,
    pub(super) task: Task,
    /// An answer that is not read yet.
    pub(super) answer: Option<Answer>,
    /// Whether its node's lease began anew since that was asked for.
    pub(super) broken: bool,
    /// For the exception of I1: its node's lease has lapsed, or the audit of a new generation is not finished.
    pub(super) excused: bool,
}

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Task {
    Start(Want),
    Wait(Want),
    /// A resume that expects this epoch.
    Resume(u64),
    /// A grant that came late, in this life of the data, is confirmed before it is told.
    Confirm(Generation),
    Play,
    /// It is released.
    End,
}

/// A request as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Request {
    Acquire(Acquire),
    Resume(Resume),
    Release(Holding),
    Audit(Holding),
}

/// An answer as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Answer {
    NotYet {
        recovering: bool,
    },
    Granted(Generation),
    Waiting,
    Denied,
    Ended {
        lost: bool,
    },
    Moved(u64, Generation),
    At(u64),
    Absent,
    Yours {
        generation: Generation,
        marked: bool,
    },
    Later,
    Elsewhere,
    /// Ended by the store; `lost` when nobody asked for it.
    Gone {
        lost: bool,
    },
    Released,
}

impl Seat {
    pub(super) fn new(player: u8, attempt: u8, task: Task) -> Self {
        Self {
            player,
            attempt,
            epoch: 1,
            generation: Generation::NONE,
            doubted: false,
            sits: false,
            told: false,
            socket: true,
            task,
            answer: None,
            broken: false,
            excused: false,
        }
    }

    pub(super) fn holding(&self, scenario: &Scenario, owner: OwnerId) -> Holding {
        let request = scenario.acquire(self.player, owner, Want::Slot);
        let started_at = if self.told || self.sits || self.epoch > 1 {
            began(self.player, &scenario.budget)
        } else {
            0
        };
        let mut holding = Holding::new(&request, self.generation, started_at);
        holding.fence.epoch = self.epoch;
        holding.doubtful |= self.doubted;
        holding
    }

    /// What it asks next; a playing session asks nothing by itself.
    pub(super) fn request(&self, scenario: &Scenario, here: &Node, owner: OwnerId) -> Option<Request> {
        Some(match self.task {
            Task::Start(want) | Task::Wait(want) => {
                Request::Acquire(scenario.acquire(self.player, owner, want))
            }
            Task::Resume(expected) => Request::Resume(Resume {
                session: session(self.player),
                expected,
                above: here.epoch(self.player),
                owner,
                device: None,
                content: Arc::clone(&CONTENT),
                limit: scenario.limits[usize::from(self.player)].into(),
                terms: Terms::default(),
                attempt: Attempt(u64::from(self.attempt)),
            }),
            Task::Confirm(generation) => Request::Audit(Holding {
                generation,
                ..self.holding(scenario, owner)
            }),
            Task::End => Request::Release(self.holding(scenario, owner)),
            Task::Play => return None,
        })
    }

    /// The slot is its: told to the player.
    fn sit(&mut self, generation: Generation, excused: bool) {
        self.generation = generation;
        self.excused = excused;
        self.sits = true;
        self.doubted = false;
        self.told = self.socket;
        self.task = Task::Play;
    }

    pub(super) fn end(&mut self) {
        self.socket = false;
        self.task = Task::End;
        self.answer = None;
        self.broken = false;
    }
}

/// Whether a session was ended that nobody wanted to end: neither an operator, nor a taker, nor its own device.
/// A socket that its viewer has left for another may be silent.
const fn is_lost(code: EndCode) -> bool {
    matches!(
        code,
        EndCode::LeaseLost | EndCode::StreamLimitReached | EndCode::Stopped
    )
}

/// Whether an entry is to end.
const fn ends(entry: &Entry) -> bool {
    matches!(
        entry.mark,
        Some(Mark::Kick(_) | Mark::TakeOver { asked: false, .. })
    )
}

impl World {
    /// The store serves a request.
    pub(super) fn serve(
        &mut self,
        scenario: &Scenario,
        asker: usize,
        player: u8,
        request: &Request,
    ) -> Answer {
        let not_yet = |reason| Answer::NotYet {
            recovering: matches!(reason, NotNow::Recovering { .. }),
        };
        match request {
            Request::Acquire(request) => {
                let (answer, full) = self.step(scenario, Some(asker), player, |table, ground, effects| {
                    let answer = table.acquire(request, ground, effects);
                    // What another life of the data left behind counts for nothing once the bucket is open (rule 3).
                    let counts =
                        |entry: &&Entry| ground.live(entry.owner) && entry.generation == ground.generation;
                    let held = table.entries().iter().filter(counts);
                    (answer, held.count() >= request.limit as usize)
                });
                match answer {
                    Err(reason) => not_yet(reason),
                    Ok(Acquired::Granted { generation, .. }) => Answer::Granted(generation),
                    Ok(Acquired::Denied { holders, .. }) => {
                        self.ghost.false_denial |= !full || holders.len() < request.limit as usize;
                        Answer::Denied
                    }
                    Ok(Acquired::Waiting { .. }) => Answer::Waiting,
                    Ok(Acquired::Ended(code)) => Answer::Ended { lost: is_lost(code) },
                }
            }
            Request::Resume(request) => {
                let (answer, marked) = self.step(scenario, Some(asker), player, |table, ground, effects| {
                    let before = table
                        .entries()
                        .iter()
                        .find(|entry| entry.session == request.session);
                    let marked = before.filter(|entry| ends(entry)).map(|entry| entry.epoch);
                    (table.resume(request, ground, effects), marked)
                });
                // But the same attempt gets the same answer.
                let moved =
                    |epoch| matches!(&answer, Ok(Resumed::Moved { entry, .. }) if entry.epoch > epoch);
                self.ghost.back |= marked.is_some_and(moved);
                match answer {
                    Err(reason) => not_yet(reason),
                    Ok(Resumed::Moved { entry, .. }) => Answer::Moved(entry.epoch, entry.generation),
                    Ok(Resumed::At { epoch, .. }) => Answer::At(epoch),
                    Ok(Resumed::Absent) => Answer::Absent,
                }
            }
            Request::Release(holding) => {
                self.serve_release(scenario, asker, player, holding, EndCode::Stopped)
            }
            Request::Audit(holding) => {
                let guard = self.guard(scenario, asker, player, holding.fence);
                let (answer, generation) =
                    self.step(scenario, Some(asker), player, |table, ground, effects| {
                        (table.audit(holding, ground, effects), ground.generation)
                    });
                self.check_guard(scenario, asker, player, guard);
                match answer {
                    Err(reason) => not_yet(reason),
                    Ok(Held::Yours { mark, .. }) => Answer::Yours {
                        generation,
                        marked: mark.is_some(),
                    },
                    Ok(Held::Later) => Answer::Later,
                    Ok(Held::Moved) => Answer::Elsewhere,
                    Ok(Held::Gone(code)) => Answer::Gone {
                        lost: code.is_none_or(is_lost),
                    },
                }
            }
        }
    }

    pub(super) fn serve_release(
        &mut self,
        scenario: &Scenario,
        asker: usize,
        player: u8,
        holding: &Holding,
        code: EndCode,
    ) -> Answer {
        let guard = self.guard(scenario, asker, player, holding.fence);
        let fenced = self.step(scenario, Some(asker), player, |table, ground, effects| {
            let entry = table
                .entries()
                .iter()
                .find(|entry| entry.session == holding.fence.session);
            let code = match entry.and_then(|entry| entry.mark.as_ref()) {
                Some(Mark::Kick(code)) => *code,
                Some(Mark::TakeOver { asked: false, .. }) => EndCode::Displaced,
                _ => code,
            };
            table.release(holding, code, ground, effects)
        });
        self.check_guard(scenario, asker, player, guard);
        match fenced {
            Fenced::NotYours => Answer::Elsewhere,
            Fenced::Done | Fenced::Gone => Answer::Released,
        }
    }

    /// The entry that this fence must not change (I4), if there is one.
    fn guard(&mut self, scenario: &Scenario, asker: usize, player: u8, fence: Fence) -> Option<Fence> {
        let (bucket, server) = self.shards[scenario.shard_of(player)].seen_by(Some(asker));
        let bucket_generation = bucket.generation().filter(|_| bucket.server() == Some(server));
        let entries = bucket.account(scenario.key(player))?.entries();
        let entry = entries.iter().find(|entry| entry.session == fence.session)?;
        let proven = Some(entry.generation) == bucket_generation;
        let stale =
            entry.epoch > fence.epoch || (proven && entry.epoch == fence.epoch && entry.owner != fence.owner);
        stale.then(|| entry.fence())
    }

    fn check_guard(&mut self, scenario: &Scenario, asker: usize, player: u8, guard: Option<Fence>) {
        let Some(fence) = guard else { return };
        let (bucket, _) = self.shards[scenario.shard_of(player)].seen_by(Some(asker));
        let account = bucket.account(scenario.key(player));
        let kept = account.is_some_and(|account| account.entries().iter().any(|entry| fence.holds(entry)));
        self.ghost.stale |= !kept;
    }

    /// A session hears the answer to what it asked.
    pub(super) fn hear(&mut self, scenario: &Scenario, node: usize, index: usize, answer: Answer) {
        let shard = scenario.shard_of(self.nodes[node].seats[index].player);
        let owner = self.nodes[node].owner(node);
        let excused = self.is_on_former(node, shard);
        let lapsed = self.is_excused(node, shard);
        let here = &mut self.nodes[node];
        let seat = &mut here.seats[index];
        seat.answer = None;
        let player = seat.player;
        let tenure = &here.tenures[shard];
        let unbroken = !std::mem::take(&mut seat.broken);
        let vouched = |generation| unbroken && tenure.vouches(TICK, tenure.since(), generation);
        match (seat.task, answer) {
            (_, Answer::NotYet { recovering: true }) if here.tenures[shard].is_open() => {
                // This node's own sessions come back first.
                here.tenures[shard].surprised();
            }
            (_, Answer::NotYet { .. }) => {}
            (Task::Start(_) | Task::Wait(_), Answer::Granted(generation))
                if vouched(generation) || !scenario.keeps(NodeRule::TellTrusted) =>
            {
                let waited = matches!(seat.task, Task::Wait(_));
                seat.sit(generation, excused);
                if waited {
                    // Whoever plays now looks once more.
                    self.send_word(owner, player);
                }
            }
            (Task::Start(_) | Task::Wait(_), Answer::Granted(generation)) => {
                seat.task = Task::Confirm(generation);
            }
            (Task::Start(want) | Task::Wait(want), Answer::Waiting) => seat.task = Task::Wait(want),
            (Task::Start(_) | Task::Wait(_), Answer::Denied) | (Task::Resume(_), Answer::Absent) => {
                self.leave_seat(node, index);
            }
            (Task::Resume(_), Answer::Moved(epoch, generation))
                if vouched(generation) || !scenario.keeps(NodeRule::ResumeTrusted) =>
            {
                seat.epoch = epoch;
                seat.sit(generation, excused);
            }
            (Task::Resume(_), Answer::Moved(epoch, generation)) => {
                seat.epoch = epoch;
                seat.task = Task::Confirm(generation);
            }
            (Task::Resume(expected), Answer::At(_))
                if expected > 0 && !scenario.keeps(NodeRule::AskAgain) =>
            {
                // It is given up, though nobody but itself has moved it.
                let id = session(player);
                let own = self
                    .entries()
                    .any(|entry| entry.session == id && entry.owner == owner);
                self.ghost.hurt |= own;
                self.leave_seat(node, index);
            }
            (Task::Resume(_), Answer::At(epoch)) => seat.task = Task::Resume(epoch),
            (Task::Confirm(_), Answer::Yours { generation, marked }) => {
                seat.sit(generation, excused);
                if marked {
                    self.send_word(owner, player);
                }
            }
            (Task::Confirm(_), _) | (Task::Start(_) | Task::Wait(_), Answer::Ended { .. }) => {
                let lost = matches!(answer, Answer::Ended { lost: true } | Answer::Gone { lost: true });
                // A wipe while the answer to a resume is under way may cost the session: nobody held it meanwhile.
                let adrift = self.ghost.lossy && scenario.budget.slow > 0 && seat.epoch > 1;
                self.ghost.false_denial |= lost && seat.socket && !seat.excused && !adrift;
                self.end_seat(node, index);
            }
            (Task::End, Answer::Elsewhere) => self.leave_seat(node, index),
            (Task::End, Answer::Released) => {
                let told = here.tenures[shard].generation();
                let end = End::of(&here.seats[index], Some(told));
                self.nodes[node].ends.insert(end);
                self.leave_seat(node, index);
            }
            (Task::Play, Answer::Yours { generation, marked }) => {
                seat.generation = generation;
                seat.doubted = false;
                seat.excused = lapsed;
                if marked {
                    self.end_seat(node, index);
                }
            }
            (Task::Play, Answer::Elsewhere | Answer::Gone { .. }) => {
                self.mind_loss(scenario, node, index, answer);
                self.leave_seat(node, index);
            }
            _ => {}
        }
    }

    /// Keeps in mind who was told that it is granted.
    pub(super) fn note_told(&mut self) {
        for seat in self
            .nodes
            .iter()
            .flat_map(|node| &node.seats)
            .filter(|seat| seat.told)
        {
            self.ghost.told[usize::from(seat.player)] = true;
        }
    }

    /// A session that its viewer watches is ended, and nobody asked for it.
    fn mind_loss(&mut self, scenario: &Scenario, node: usize, index: usize, answer: Answer) {
        let seat = &self.nodes[node].seats[index];
        let watched = seat.told
            && seat.socket
            && self.players[usize::from(seat.player)] == Player::At(node as u8, seat.attempt);
        let replaced = self.ghost.replaced[usize::from(seat.player)];
        let asked_for = answer == (Answer::Gone { lost: false }) || replaced;
        let provisional = seat.generation == Generation::NONE;
        if watched && !asked_for && !provisional && (!seat.excused || scenario.is_gentle()) {
            self.ghost.hurt = true;
        }
    }

    /// The node has nothing to do with the session any more.
    pub(super) fn leave_seat(&mut self, node: usize, index: usize) {
        let seat = self.nodes[node].seats.remove(index);
        let player = &mut self.players[usize::from(seat.player)];
        if *player == Player::At(node as u8, seat.attempt) {
            *player = Player::Done;
        }
    }

    /// The session ends: its slot is to be released.
    pub(super) fn end_seat(&mut self, node: usize, index: usize) {
        let seat = &mut self.nodes[node].seats[index];
        seat.end();
        let player = &mut self.players[usize::from(seat.player)];
        if *player == Player::At(node as u8, seat.attempt) {
            *player = Player::Done;
        }
    }
}
