//! The rules of an account under random histories, held against the invariants by name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::protocol::close::EndCode;
use crate::protocol::id::{Attempt, OwnerId, SessionId};

use super::account::{Account, Look};
use super::model::{
    Acquire, Acquired, Device, Entry, Fence, Fenced, Held, Mark, Millis, Resume, Resumed, Wish,
};

const LINE: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Start {
        session: u8,
        wish: u8,
        consent: bool,
    },
    Resume {
        session: u8,
        device: Option<u8>,
        attempt: u64,
    },
    Release {
        session: u8,
        stale: bool,
    },
    Kick {
        session: u8,
    },
    Refuse {
        session: u8,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..12u8;
    prop_oneof![
        6 => (session.clone(), 0..4u8, any::<bool>())
            .prop_map(|(session, wish, consent)| Step::Start { session, wish, consent }),
        2 => (session.clone(), proptest::option::of(0..6u8), 0..3u64)
            .prop_map(|(session, device, attempt)| Step::Resume { session, device, attempt }),
        4 => (session.clone(), any::<bool>()).prop_map(|(session, stale)| Step::Release { session, stale }),
        1 => session.clone().prop_map(|session| Step::Kick { session }),
        1 => session.prop_map(|session| Step::Refuse { session }),
        1 => (1..20_000u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

fn id(session: u8) -> SessionId {
    SessionId::from_bytes([session; 16])
}

fn device(number: u8) -> Arc<Device> {
    Arc::new(Device {
        id: format!("d{number}").into(),
        name: None,
        class: None,
    })
}

fn acquire(session: u8, number: u8, limit: u32, wish: Wish) -> Acquire {
    let (owner, content) = (OwnerId(1), "m".into());
    Acquire {
        session: id(session),
        owner,
        device: device(number),
        content,
        limit,
        wish,
        consent: false,
        line: LINE,
    }
}

fn fence(account: &Account, session: u8) -> Option<Fence> {
    let entry = account
        .entries()
        .iter()
        .find(|entry| entry.session == id(session))?;
    Some(Fence {
        session: entry.session,
        owner: entry.owner,
        epoch: entry.epoch,
    })
}

/// Runs one step and checks what its answer promises.
fn run(account: &mut Account, step: &Step, now: &mut Millis) {
    let before: Vec<Entry> = account.entries().to_vec();
    let looks: &mut Vec<Look> = &mut Vec::new();
    match *step {
        Step::Start {
            session,
            wish,
            consent,
        } => {
            // A session keeps its device and limit for life; a device may have several sessions.
            let (device, limit) = (session % 6, u32::from(session / 3));
            let wish = [
                Wish::Slot,
                Wish::Wait,
                Wish::Oldest,
                Wish::TakeOver(id(session ^ 1)),
            ][wish as usize];
            let request = Acquire {
                consent,
                ..acquire(session, device, limit, wish)
            };
            match account.acquire(&request, *now, looks) {
                Acquired::Granted { used, replaced } => {
                    assert_eq!(used as usize, account.entries().len());
                    let held_before = before.iter().any(|entry| entry.session == id(session));
                    assert!(held_before || replaced || used <= limit, "I1: {used} of {limit}");
                    assert!(fence(account, session).is_some());
                }
                Acquired::Denied { holders, refused, .. } => {
                    assert!(
                        holders.len() >= limit as usize,
                        "I2: refused with {} of {limit}",
                        holders.len()
                    );
                    assert!(!account.line().iter().any(|waiter| waiter.session == id(session)) || !refused);
                }
                Acquired::Waiting { position, .. } => assert!(position >= 1),
                Acquired::Ended(_) => assert!(fence(account, session).is_none(), "I4"),
            }
        }
        Step::Resume {
            session,
            device,
            attempt,
        } => {
            let request = Resume {
                session: id(session),
                owner: OwnerId(2),
                device: device.map(|number| format!("d{number}").into()),
                content: "m2".into(),
                attempt: Attempt(attempt),
            };
            if let Resumed::Moved { entry, .. } = account.resume(&request, *now, looks) {
                let old = before.iter().find(|old| old.session == id(session)).unwrap();
                let repeated = old.attempt == Some(request.attempt) && old.owner == request.owner;
                assert_eq!(
                    entry.epoch,
                    old.epoch + u64::from(!repeated),
                    "a move is one epoch, a repeat none"
                );
                let stale = Fence {
                    session: old.session,
                    owner: old.owner,
                    epoch: old.epoch,
                };
                assert!(repeated || account.inspect(stale) == Held::Moved, "I4");
                assert_eq!(account.entries().len(), before.len(), "never counted twice");
            }
        }
        Step::Release { session, stale } => {
            let Some(held) = fence(account, session) else {
                let fence = Fence {
                    session: id(session),
                    owner: OwnerId(1),
                    epoch: 1,
                };
                assert_ne!(
                    account.release(fence, EndCode::Stopped, *now, looks),
                    Fenced::NotYours
                );
                return;
            };
            let fence = if stale {
                Fence {
                    epoch: held.epoch - 1,
                    ..held
                }
            } else {
                held
            };
            let answer = account.release(fence, EndCode::Stopped, *now, looks);
            let gone = !account.entries().iter().any(|entry| entry.session == id(session));
            assert_eq!(
                (answer, gone),
                if stale {
                    (Fenced::NotYours, false)
                } else {
                    (Fenced::Done, true)
                },
                "I4"
            );
        }
        Step::Kick { session } => {
            account.mark(id(session), EndCode::EndedByOperator, looks);
        }
        Step::Refuse { session } => {
            if let Some(fence) = fence(account, session) {
                account.refuse(fence, looks);
            }
        }
        Step::Wait { ms } => *now += ms,
    }
    let told = |session| looks.iter().any(|look| look.session == session);
    for entry in account.entries() {
        let fresh = !before.iter().any(|old| old.session == entry.session);
        let asked_itself = matches!(step, Step::Start { session, .. } if id(*session) == entry.session);
        assert!(
            !fresh || asked_itself || told(entry.session),
            "a waiter that got the slot is told"
        );
        let marked = |entries: &[Entry]| {
            entries
                .iter()
                .any(|other| other.session == entry.session && other.mark.is_some())
        };
        assert!(
            !marked(account.entries()) || marked(&before) || told(entry.session),
            "a victim is told"
        );
    }
}

fn check(account: &Account) {
    let sessions: HashSet<_> = account.entries().iter().map(|entry| entry.session).collect();
    assert_eq!(
        sessions.len(),
        account.entries().len(),
        "a session is counted once"
    );
    let devices: HashSet<_> = account
        .entries()
        .iter()
        .map(|entry| entry.device.id.clone())
        .collect();
    assert_eq!(devices.len(), account.entries().len(), "a device holds one slot");
    let mut patient = 0;
    for waiter in account.line() {
        assert!(!sessions.contains(&waiter.session), "no waiter plays");
        assert!(
            waiter.refused || account.entries().len() >= waiter.limit as usize,
            "no slot idles past a waiter"
        );
        patient += u32::from(waiter.victim.is_none());
    }
    assert!(patient <= LINE, "the line is bounded");
    let mut marks = HashSet::new();
    for entry in account.entries() {
        if let Some(Mark::TakeOver { by, .. }) = &entry.mark {
            assert!(marks.insert(*by), "one newcomer never marks two victims");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn invariants_hold_in_every_history(steps in proptest::collection::vec(step(), 1..60)) {
        let mut account = Account::default();
        let mut now = 1_000_000;
        for step in &steps {
            run(&mut account, step, &mut now);
            check(&account);
            now += 1;
        }
        for session in 0..12 {
            if let Some(fence) = fence(&account, session) {
                account.release(fence, EndCode::Stopped, now, &mut Vec::new());
            }
        }
        // Whoever waited plays now, until all have ended; then nothing is left to leak.
        while let Some(entry) = account.entries().first() {
            let fence = Fence { session: entry.session, owner: entry.owner, epoch: entry.epoch };
            account.release(fence, EndCode::Stopped, now, &mut Vec::new());
        }
        account.expire(now + 100_000, &mut Vec::new());
        prop_assert!(account.is_empty());
    }
}

/// A table of three devices at a limit of three.
fn full() -> Account {
    let mut account = Account::default();
    for number in 0..3 {
        let answer = account.acquire(
            &acquire(number, number, 3, Wish::Slot),
            u64::from(number),
            &mut Vec::new(),
        );
        assert!(matches!(answer, Acquired::Granted { .. }));
    }
    account
}

fn release(account: &mut Account, session: u8) -> Vec<Look> {
    let mut looks = Vec::new();
    let fence = fence(account, session).unwrap();
    account.release(fence, EndCode::Stopped, 10, &mut looks);
    looks
}

#[test]
fn the_line_is_first_come_first_served_and_takers_stand_before_it() {
    let mut account = full();
    for number in 3..6 {
        let answer = account.acquire(&acquire(number, number, 3, Wish::Wait), 10, &mut Vec::new());
        assert_eq!(
            answer,
            Acquired::Waiting {
                position: u32::from(number) - 2,
                taking_over: false
            }
        );
    }
    let late = account.acquire(&acquire(6, 6, 3, Wish::Wait), 10, &mut Vec::new());
    assert!(matches!(late, Acquired::Denied { line_open: false, .. }));
    let taker = account.acquire(&acquire(7, 7, 3, Wish::Oldest), 10, &mut Vec::new());
    assert_eq!(
        taker,
        Acquired::Waiting {
            position: 1,
            taking_over: true
        }
    );
    let order: Vec<_> = [0, 1, 2]
        .map(|session| release(&mut account, session)[0].session)
        .to_vec();
    assert_eq!(order, [id(7), id(3), id(4)]);
}

#[test]
fn a_repeated_take_over_marks_one_victim_and_a_second_taker_is_denied() {
    let mut account = full();
    for _ in 0..3 {
        account.acquire(&acquire(7, 7, 3, Wish::Oldest), 10, &mut Vec::new());
    }
    assert_eq!(
        account
            .entries()
            .iter()
            .filter(|entry| entry.mark.is_some())
            .count(),
        1
    );
    let second = account.acquire(&acquire(8, 8, 3, Wish::TakeOver(id(0))), 10, &mut Vec::new());
    assert!(matches!(second, Acquired::Denied { .. }));
}

#[test]
fn a_release_before_its_acquire_wins() {
    let mut account = Account::default();
    let fence = Fence {
        session: id(1),
        owner: OwnerId(1),
        epoch: 1,
    };
    assert_eq!(
        account.release(fence, EndCode::Stopped, 10, &mut Vec::new()),
        Fenced::Gone
    );
    let late = account.acquire(&acquire(1, 1, 3, Wish::Slot), 11, &mut Vec::new());
    assert_eq!(late, Acquired::Ended(EndCode::Stopped));
}

#[test]
fn a_no_is_told_to_the_taker_and_takes_nothing() {
    let mut account = full();
    let ask = Acquire {
        consent: true,
        ..acquire(7, 7, 3, Wish::TakeOver(id(1)))
    };
    account.acquire(&ask, 10, &mut Vec::new());
    let mut looks = Vec::new();
    let victim = fence(&account, 1).unwrap();
    assert_eq!(account.refuse(victim, &mut looks), Fenced::Done);
    assert_eq!(
        looks,
        [Look {
            session: id(7),
            owner: OwnerId(1)
        }]
    );
    assert!(matches!(
        account.acquire(&ask, 11, &mut looks),
        Acquired::Denied { refused: true, .. }
    ));
    assert!(account.entries()[1].mark.is_none());
}
