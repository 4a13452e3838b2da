//! Random histories: every answer of the store is that of a reference.
//!
//! One reference is the pure rules, driven directly at the same times; the other knows nothing of them, a queue as
//! one would write it down first. Time passes in steps of 7 s, of which no sum comes near the 15 s of a waiter or the
//! 60 s of a tombstone, so that a store on a real clock gives the same answers.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use usher::lease::account::{Account, TOMBSTONE_MS, WAITER_STALE_MS};
use usher::lease::model::{Acquire, Acquired, Entry, Fence, Fenced, Held, Millis, Resume, Resumed, Wish};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::Attempt;

use super::{Bench, Desk, LINE, device, session};

const TICK: Duration = Duration::from_secs(7);

/// Between two steps, so that no two sessions are equally old on any clock.
const BREATH: Duration = Duration::from_millis(5);

const PLAYERS: u8 = 10;

/// Devices are fewer than players: some start again on their own device.
const DEVICES: u8 = 7;

#[derive(Clone, Debug)]
enum Step {
    Start { player: u8, wish: u8, consent: bool },
    Resume { player: u8, foreign: bool, attempt: u64 },
    Release { player: u8, stale: bool },
    Kick { player: u8 },
    Refuse { player: u8 },
    Update { player: u8, stale: bool },
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    let player = 0..PLAYERS;
    let odd = || (0..5u8).prop_map(|roll| roll == 0);
    prop_oneof![
        8 => (player.clone(), 0..4u8, any::<bool>())
            .prop_map(|(player, wish, consent)| Step::Start { player, wish, consent }),
        2 => (player.clone(), odd(), 0..3u64)
            .prop_map(|(player, foreign, attempt)| Step::Resume { player, foreign, attempt }),
        4 => (player.clone(), odd()).prop_map(|(player, stale)| Step::Release { player, stale }),
        1 => player.clone().prop_map(|player| Step::Kick { player }),
        1 => player.clone().prop_map(|player| Step::Refuse { player }),
        1 => (player, odd()).prop_map(|(player, stale)| Step::Update { player, stale }),
        2 => Just(Step::Tick),
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
        let desk = Desk::open(&bench).await;
        let mut rules = Account::default();
        for step in steps {
            bench.pass(BREATH).await;
            compare_with_rules(&bench, &desk, &mut rules, step).await;
            let entries = desk.node.store.list(&desk.account).await.unwrap();
            assert_eq!(timeless(entries), timeless(rules.entries().to_vec()), "{step:?}");
        }
    });
}

/// Two clocks may differ by a little; the order of the entries says enough.
fn timeless(mut entries: Vec<Entry>) -> Vec<Entry> {
    for entry in &mut entries {
        entry.started_at = 0;
    }
    entries
}

async fn compare_with_rules(bench: &impl Bench, desk: &Desk, rules: &mut Account, step: &Step) {
    let (store, account, looks) = (&desk.node.store, &desk.account, &mut Vec::new());
    let now = store.now().await.unwrap();
    match *step {
        Step::Start {
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
            // A limit of its own, for life: zero to four.
            let request = Acquire {
                consent,
                device: device(player % DEVICES),
                limit: u32::from(player % 5),
                ..desk.start(player, wish)
            };
            let expected = match rules.acquire(&request, now, looks) {
                Acquired::Denied {
                    refused,
                    holders,
                    line_open,
                } => Acquired::Denied {
                    refused,
                    holders: timeless(holders),
                    line_open,
                },
                other => other,
            };
            let answer = match desk.acquire(&request).await {
                Acquired::Denied {
                    refused,
                    holders,
                    line_open,
                } => Acquired::Denied {
                    refused,
                    holders: timeless(holders),
                    line_open,
                },
                other => other,
            };
            assert_eq!(answer, expected, "{step:?}");
        }
        Step::Resume {
            player,
            foreign,
            attempt,
        } => {
            let request = Resume {
                session: session(player),
                owner: desk.node.owner,
                device: Some(device(if foreign { 99 } else { player % DEVICES }).id.clone()),
                content: "next".into(),
                attempt: Attempt(attempt),
            };
            let timeless = |answer| match answer {
                Resumed::Moved { entry, used } => Some((
                    Entry {
                        started_at: 0,
                        ..entry
                    },
                    used,
                )),
                Resumed::Absent => None,
            };
            let expected = timeless(rules.resume(&request, now, looks));
            assert_eq!(
                timeless(store.resume(account, &request).await.unwrap()),
                expected,
                "{step:?}"
            );
        }
        Step::Release { player, stale } => {
            let fence = present(desk, rules, player, stale);
            let expected = rules.release(fence, EndCode::Stopped, now, looks);
            assert_eq!(desk.release(fence, EndCode::Stopped).await, expected, "{step:?}");
        }
        Step::Kick { player } => {
            let expected = rules.mark(session(player), EndCode::EndedByOperator, looks);
            let answer = store
                .mark(account, session(player), EndCode::EndedByOperator)
                .await;
            assert_eq!(answer, Ok(expected), "{step:?}");
        }
        Step::Refuse { player } => {
            let fence = present(desk, rules, player, false);
            let expected = rules.refuse(fence, looks);
            assert_eq!(store.refuse(account, fence).await, Ok(expected), "{step:?}");
        }
        Step::Update { player, stale } => {
            let (fence, content) = (present(desk, rules, player, stale), "new".into());
            let expected = rules.update(fence, Some(&content), Some(PlayState::Paused));
            let answer = store
                .update(account, fence, Some(&content), Some(PlayState::Paused))
                .await;
            assert_eq!(answer, Ok(expected), "{step:?}");
            let expected = rules.inspect(fence);
            let answer = store.inspect(account, fence).await.unwrap();
            // How long beyond its time an end is remembered is nobody's promise.
            let both_gone = matches!((&answer, &expected), (Held::Gone(_), Held::Gone(_)));
            assert!(
                both_gone || answer == expected,
                "{step:?}: {answer:?}, not {expected:?}"
            );
        }
        Step::Tick => {
            bench.pass(TICK).await;
            store.renew().await.unwrap();
            rules.expire(store.now().await.unwrap(), looks);
        }
    }
}

/// The fence under which the player's session is held, or the one before.
fn present(desk: &Desk, rules: &Account, player: u8, stale: bool) -> Fence {
    let entry = rules
        .entries()
        .iter()
        .find(|entry| entry.session == session(player));
    let fence = entry.map_or(desk.fence(player, 1), Entry::fence);
    Fence {
        epoch: fence.epoch - u64::from(stale),
        ..fence
    }
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
            let now = desk.node.store.now().await.unwrap();
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
                Step::Tick => {
                    bench.pass(TICK).await;
                    desk.node.store.renew().await.unwrap();
                }
                _ => {}
            }
            let playing: Vec<_> = queue.playing.iter().map(|player| session(*player)).collect();
            assert_eq!(desk.playing().await, playing, "{step:?}");
        }
    });
}

fn simple(answer: Acquired) -> Answer {
    match answer {
        Acquired::Granted { used, replaced } => Answer::Plays {
            of: used as usize,
            replaced,
        },
        Acquired::Denied {
            refused: false,
            holders,
            line_open,
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
