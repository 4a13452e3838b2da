//! Random histories: every answer of the store is that of a reference.
//!
//! One reference is the pure rules, driven beside the store step by step ([`Twin`]); the other knows nothing of them,
//! a queue as one would write it down first. Time passes in steps of 7 s, or in which a node's lease runs out, of
//! which no sum comes near the 15 s of a waiter or the 60 s of a tombstone, so that a store on a real clock gives the
//! same answers.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use usher::lease::account::{TOMBSTONE_MS, WAITER_STALE_MS};
use usher::lease::group::Terms;
use usher::lease::model::{
    Acquire, Acquired, Entry, Fence, Fenced, Generation, Holding, Millis, Progress, Resume, Wish,
};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::{AccountKey, Attempt};

use super::twin::Twin;
use super::{Bench, Desk, LINE, Node, device, session};

const TICK: Duration = Duration::from_secs(7);

/// Between two steps, so that no two sessions are equally old on any clock.
const BREATH: Duration = Duration::from_millis(5);

const PLAYERS: u8 = 10;

/// Devices are fewer than players: some start again on their own device.
const DEVICES: u8 = 7;

/// In which life of the data the asking node last had its session confirmed.
#[derive(Clone, Copy, Debug)]
enum Life {
    This,
    Another,
    None,
}

/// Below, at or above the epoch under which a session is held.
#[derive(Clone, Copy, Debug)]
enum Epoch {
    Below,
    Present,
    Above,
}

#[derive(Clone, Debug)]
enum Step {
    Start {
        node: usize,
        player: u8,
        wish: u8,
        consent: bool,
    },
    Resume {
        node: usize,
        player: u8,
        foreign: bool,
        attempt: u64,
        expected: Epoch,
    },
    Release {
        player: u8,
        epoch: Epoch,
        life: Life,
    },
    Audit {
        player: u8,
        foreign: bool,
        epoch: Epoch,
        life: Life,
        doubtful: bool,
    },
    Kick {
        player: u8,
    },
    Refuse {
        player: u8,
        epoch: Epoch,
    },
    Tick,
    Lapse {
        node: usize,
    },
    Rejoin {
        node: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let player = 0..PLAYERS;
    let node = || 0..2_usize;
    let odd = || (0..5u8).prop_map(|roll| roll == 0);
    let epoch = || prop_oneof![1 => Just(Epoch::Below), 6 => Just(Epoch::Present), 1 => Just(Epoch::Above)];
    let life = || prop_oneof![4 => Just(Life::This), 2 => Just(Life::Another), 1 => Just(Life::None)];
    prop_oneof![
        12 => (node(), player.clone(), 0..4u8, any::<bool>())
            .prop_map(|(node, player, wish, consent)| Step::Start { node, player, wish, consent }),
        3 => (node(), player.clone(), odd(), 0..3u64, epoch())
            .prop_map(|(node, player, foreign, attempt, expected)| Step::Resume {
                node, player, foreign, attempt, expected
            }),
        6 => (player.clone(), epoch(), life())
            .prop_map(|(player, epoch, life)| Step::Release { player, epoch, life }),
        4 => (player.clone(), odd(), epoch(), life(), any::<bool>())
            .prop_map(|(player, foreign, epoch, life, doubtful)| Step::Audit {
                player, foreign, epoch, life, doubtful
            }),
        2 => player.clone().prop_map(|player| Step::Kick { player }),
        2 => (player, epoch()).prop_map(|(player, epoch)| Step::Refuse { player, epoch }),
        3 => Just(Step::Tick),
        1 => node().prop_map(|node| Step::Lapse { node }),
        1 => node().prop_map(|node| Step::Rejoin { node }),
    ]
}

/// Runs a property on fresh stores.
fn check<B: Bench>(property: &impl AsyncFn(B, &[Step])) {
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(B::HISTORIES)
    };
    let outcome = TestRunner::new(config).run(&vec(step(), 1..50), |steps| {
        B::run(async |bench| property(bench, &steps).await);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

pub(super) fn answers_are_those_of_the_rules<B: Bench>() {
    check::<B>(&async |bench, steps| {
        let stage = Stage::open(&bench).await;
        for step in steps {
            bench.pass(BREATH).await;
            stage.run(&bench, step).await;
            // The twin compares all of them.
            let desk = &stage.desks[0];
            desk.entries().await;
            desk.node.store.accounts(10).await.unwrap();
            for desk in &stage.desks {
                desk.node
                    .store
                    .owned(desk.bucket(), desk.node.owner, None)
                    .await
                    .unwrap();
            }
        }
    });
}

/// Two nodes at one account, beside the rules, and a third that only lives.
struct Stage {
    desks: [Desk; 2],
    twin: Arc<Twin>,
}

impl Stage {
    async fn open(bench: &impl Bench) -> Self {
        let witness = bench.join().await;
        let account = AccountKey::new("main", "a");
        let twin = Arc::new(Twin::new(Arc::clone(&witness.store), account.clone(), witness.owner).await);
        let through = |node: Node| Node {
            store: twin.clone(),
            ..node
        };
        bench.keep(&through(witness)).await;
        let mut desks = Vec::new();
        for _ in 0..2 {
            let node = through(bench.join().await);
            bench.keep(&node).await;
            desks.push(Desk::of(node, account.clone()).await);
        }
        let Ok(desks) = desks.try_into() else {
            unreachable!()
        };
        Self { desks, twin }
    }

    /// The fence under which the player's session is held, or one of another epoch.
    fn fence(&self, player: u8, epoch: Epoch) -> Fence {
        let entries = self.twin.entries();
        let entry = entries.iter().find(|entry| entry.session == session(player));
        let fence = entry.map_or(self.desks[0].fence(player, 1), Entry::fence);
        let epoch = match epoch {
            // An absent session has none below its first.
            Epoch::Below => fence.epoch - u64::from(entry.is_some()),
            Epoch::Present => fence.epoch,
            Epoch::Above => fence.epoch + 1,
        };
        Fence { epoch, ..fence }
    }

    fn holding(&self, fence: Fence, player: u8, life: Life) -> Holding {
        Holding {
            limit: limit(player),
            device: device(player % DEVICES),
            generation: match life {
                Life::This => self.desks[0].generation,
                Life::Another => Generation(u64::MAX),
                Life::None => Generation::NONE,
            },
            ..self.desks[0].holding(fence)
        }
    }

    async fn run(&self, bench: &impl Bench, step: &Step) {
        let desk = &self.desks[0];
        let (store, account) = (&desk.node.store, &desk.account);
        match *step {
            Step::Start {
                node,
                player,
                wish,
                consent,
            } => {
                let wish = [
                    Wish::Slot,
                    Wish::Wait,
                    Wish::Oldest,
                    Wish::TakeOver(session(player ^ 1)),
                ][usize::from(wish)];
                let request = Acquire {
                    consent,
                    device: device(player % DEVICES),
                    limit: limit(player),
                    ..self.desks[node].start(player, wish)
                };
                let _ = store.acquire(account, &request).await;
            }
            Step::Resume {
                node,
                player,
                foreign,
                attempt,
                expected,
            } => {
                let request = Resume {
                    session: session(player),
                    expected: self.fence(player, expected).epoch,
                    above: 0,
                    owner: self.desks[node].node.owner,
                    device: Some(device(if foreign { 99 } else { player % DEVICES }).id.clone()),
                    content: "next".into(),
                    limit: 3,
                    terms: Terms::default(),
                    attempt: Attempt(attempt),
                };
                let _ = store.resume(account, &request).await;
            }
            Step::Release { player, epoch, life } => {
                let holding = self.holding(self.fence(player, epoch), player, life);
                desk.end(&holding, EndCode::Stopped).await;
            }
            Step::Audit {
                player,
                foreign,
                epoch,
                life,
                doubtful,
            } => {
                let mut fence = self.fence(player, epoch);
                if foreign {
                    let mut owners = self.desks.iter().map(|desk| desk.node.owner);
                    fence.owner = owners.find(|owner| *owner != fence.owner).unwrap_or(fence.owner);
                }
                let holding = Holding {
                    content: "new".into(),
                    state: PlayState::Paused,
                    progress: Progress {
                        position_ms: 3,
                        watched_ms: 2,
                    },
                    doubtful,
                    ..self.holding(fence, player, life)
                };
                let _ = desk.audit(&holding).await;
            }
            Step::Kick { player } => {
                desk.kick(player, EndCode::EndedByOperator).await;
            }
            Step::Refuse { player, epoch } => {
                desk.refuse(self.fence(player, epoch)).await;
            }
            Step::Tick => bench.pass(TICK).await,
            Step::Lapse { node } => bench.lapse(&self.desks[node].node).await,
            Step::Rejoin { node } => bench.keep(&self.desks[node].node).await,
        }
    }
}

/// A limit of its own, for life: zero to four.
fn limit(player: u8) -> u32 {
    u32::from(player % 5)
}

/// Three slots and a line, without take-overs.
#[derive(Default)]
struct Queue {
    playing: Vec<u8>,
    line: Vec<(u8, Millis)>,
    ended: Vec<(u8, Millis)>,
}

/// An answer, as far as the queue knows it.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Plays { of: usize, replaced: bool },
    Refused { by: Vec<u8>, line_open: bool },
    Waits { position: usize },
    Over,
}

impl Queue {
    fn start(&mut self, player: u8, wait: bool, now: Millis) -> Answer {
        self.forget(now);
        if self.ended.iter().any(|(one, _)| *one == player) {
            return Answer::Over;
        }
        if self.playing.contains(&player) {
            return Answer::Plays {
                of: self.playing.len(),
                replaced: false,
            };
        }
        let own = |one: u8| one % DEVICES == player % DEVICES && one != player;
        if let Some(at) = self.line.iter().position(|(one, _)| own(*one)) {
            let (earlier, _) = self.line.remove(at);
            self.ended.push((earlier, now));
        }
        if let Some(at) = self.playing.iter().position(|one| own(*one)) {
            let earlier = self.playing.remove(at);
            self.ended.push((earlier, now));
            self.line.retain(|(one, _)| *one != player);
            self.playing.push(player);
            return Answer::Plays {
                of: self.playing.len(),
                replaced: true,
            };
        }
        if self.playing.len() < 3 {
            self.playing.push(player);
            return Answer::Plays {
                of: self.playing.len(),
                replaced: false,
            };
        }
        if let Some(at) = self.line.iter().position(|(one, _)| *one == player) {
            self.line[at].1 = now;
            return Answer::Waits { position: at + 1 };
        }
        let line_open = self.line.len() < LINE as usize;
        if wait && line_open {
            self.line.push((player, now));
            return Answer::Waits {
                position: self.line.len(),
            };
        }
        Answer::Refused {
            by: self.playing.clone(),
            line_open,
        }
    }

    fn end(&mut self, player: u8, now: Millis) -> Fenced {
        self.forget(now);
        let before = self.playing.len() + self.line.len();
        self.playing.retain(|one| *one != player);
        self.line.retain(|(one, _)| *one != player);
        let was_there = self.playing.len() + self.line.len() < before;
        if !self.ended.iter().any(|(one, _)| *one == player) {
            self.ended.push((player, now));
        }
        while self.playing.len() < 3 && !self.line.is_empty() {
            self.playing.push(self.line.remove(0).0);
        }
        if was_there { Fenced::Done } else { Fenced::Gone }
    }

    fn forget(&mut self, now: Millis) {
        self.line.retain(|(_, asked)| now - asked < WAITER_STALE_MS);
        self.ended.retain(|(_, at)| now - at < TOMBSTONE_MS);
    }
}

pub(super) fn answers_are_those_of_a_simple_queue<B: Bench>() {
    check::<B>(&async |bench, steps| {
        let desk = Desk::open(&bench).await;
        let mut queue = Queue::default();
        for step in steps {
            bench.pass(BREATH).await;
            let now = desk.now().await;
            match *step {
                Step::Start { player, wish, .. } => {
                    let wish = if wish % 2 == 0 { Wish::Slot } else { Wish::Wait };
                    let request = Acquire {
                        device: device(player % DEVICES),
                        ..desk.start(player, wish)
                    };
                    let expected = queue.start(player, wish == Wish::Wait, now);
                    assert_eq!(simple(desk.acquire(&request).await), expected, "{step:?}");
                }
                Step::Release { player, .. } => {
                    let expected = queue.end(player, now);
                    assert_eq!(
                        desk.release(desk.fence(player, 1), EndCode::Stopped).await,
                        expected,
                        "{step:?}"
                    );
                }
                Step::Tick => bench.pass(TICK).await,
                _ => {}
            }
            let playing: Vec<_> = queue.playing.iter().map(|player| session(*player)).collect();
            assert_eq!(desk.playing().await, playing, "{step:?}");
        }
    });
}

fn simple(answer: Acquired) -> Answer {
    match answer {
        Acquired::Granted { used, replaced, .. } => Answer::Plays {
            of: used as usize,
            replaced,
        },
        Acquired::Denied {
            refused: false,
            refusal: _,
            holders,
            line_open,
            ..
        } => {
            let player = |entry: &Entry| {
                (0..PLAYERS)
                    .find(|player| session(*player) == entry.session)
                    .unwrap()
            };
            Answer::Refused {
                by: holders.iter().map(player).collect(),
                line_open,
            }
        }
        Acquired::Waiting {
            position,
            taking_over: false,
        } => Answer::Waits {
            position: position as usize,
        },
        Acquired::Ended(_) => Answer::Over,
        other => panic!("{other:?}"),
    }
}
