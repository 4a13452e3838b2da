//! Sessions without a socket: their heartbeats, their ends, and the slots that they share with sockets.

use std::time::Duration;

use usher::lease::group::Terms;
use usher::lease::model::{
    Acquire, Acquired, Beat, Beaten, Entry, Fence, Generation, Heartbeat, Holding, Resume, Resumed, Wish,
};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::{AccountKey, Attempt, OwnerId};

use super::bench::LAPSE;
use super::{Bench, Desk, device, granted, session};

/// Life without a heartbeat, in milliseconds.
const PERIOD: u64 = 10_000;

const ALIVE: Beat = Beat::Alive {
    position_ms: None,
    state: None,
};

impl Desk {
    /// A start without a socket.
    fn lone(&self, number: u8, wish: Wish) -> Acquire {
        Acquire {
            owner: OwnerId::NONE,
            period: Some(PERIOD),
            ..self.start(number, wish)
        }
    }

    async fn grant_lone(&self, number: u8) {
        let answer = self.acquire(&self.lone(number, Wish::Slot)).await;
        assert!(matches!(answer, Acquired::Granted { .. }), "{number}: {answer:?}");
    }

    async fn say(&self, beat: Heartbeat) -> Beaten {
        let beats = [(self.account.clone(), beat)];
        let mut answers = self.node.store.beat(self.bucket(), &beats).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    async fn beat(&self, number: u8, word: Beat) -> Beaten {
        self.say(beat(number, word)).await
    }

    async fn lives(&self, number: u8) -> Entry {
        match self.beat(number, ALIVE).await {
            Beaten::Lives { entry, .. } => *entry,
            other => panic!("{number}: {other:?}"),
        }
    }
}

fn beat(number: u8, word: Beat) -> Heartbeat {
    Heartbeat {
        session: session(number),
        device: None,
        period: PERIOD,
        word,
        known: None,
    }
}

fn gone(code: EndCode) -> Beaten {
    Beaten::Gone {
        code: Some(code),
        by: None,
    }
}

pub(super) async fn a_session_without_a_socket_lives_by_its_heartbeats<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.grant_lone(1).await;
    let near = Duration::from_millis(PERIOD - 250);
    for _ in 0..3 {
        bench.pass(near).await;
        desk.lives(1).await;
    }
    let word = Beat::Alive {
        position_ms: Some(7_000),
        state: Some(PlayState::Paused),
    };
    let Beaten::Lives { entry, used, limit } = desk.beat(1, word).await else {
        panic!("it lives");
    };
    assert_eq!((used, limit, entry.epoch), (1, None, 1));
    assert_eq!(
        (entry.progress.position_ms, entry.state),
        (7_000, PlayState::Paused)
    );
    // It played all the time until now.
    let watched = entry.progress.watched_ms;
    assert!((3 * 9_750..3 * 9_750 + 2_000).contains(&watched), "{watched}");
    bench.pass(near).await;
    assert_eq!(desk.playing().await, [session(1)]);
    // Asking is no heartbeat.
    assert!(matches!(desk.beat(1, Beat::Silent).await, Beaten::Lives { .. }));
    bench.pass(Duration::from_millis(500)).await;
    assert!(desk.playing().await.is_empty());
    assert!(!desk.node.store.lives(&desk.account, session(1)).await.unwrap());
    assert_eq!(desk.beat(1, ALIVE).await, gone(EndCode::HeartbeatMissed));
}

pub(super) async fn a_heartbeat_counts_on_any_node_and_outlives_all_of_them<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.grant_lone(1).await;
    desk.grant(2).await;
    bench.pass(Duration::from_secs(6)).await;
    beside.lives(1).await;
    bench.pass(Duration::from_secs(6)).await;
    beside.lives(1).await;
    // The node that granted dies: its own session goes with it, this one does not.
    let half = Duration::from_secs(5);
    bench.lapse(&desk.node).await;
    assert!(LAPSE > half);
    assert_eq!(beside.beat(1, ALIVE).await, gone(EndCode::HeartbeatMissed));
    beside.grant_lone(3).await;
    bench.pass(half).await;
    assert_eq!(beside.playing().await, [session(3)]);
}

pub(super) async fn whoever_takes_its_slot_has_it_at_once<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    for number in [1, 2, 3] {
        desk.grant_lone(number).await;
    }
    // Also where victims are asked: nobody could answer.
    let taker = Acquire {
        consent: true,
        ..desk.start(4, Wish::TakeOver(session(2)))
    };
    assert_eq!(desk.acquire(&taker).await, granted(3));
    assert_eq!(desk.playing().await, [1, 3, 4].map(session));
    let by = |number| Beaten::Gone {
        code: Some(EndCode::Displaced),
        by: Some(device(number)),
    };
    assert_eq!(desk.beat(2, ALIVE).await, by(4));
    let oldest = desk.lone(5, Wish::Oldest);
    assert_eq!(desk.acquire(&oldest).await, granted(3));
    assert_eq!(desk.beat(1, ALIVE).await, by(5));
    assert_eq!(desk.playing().await, [3, 4, 5].map(session));
    // Repeating it takes no second one.
    assert_eq!(desk.acquire(&oldest).await, granted(3));
    assert_eq!(desk.playing().await, [3, 4, 5].map(session));
}

pub(super) async fn its_end_is_told_by_the_next_heartbeat<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    for number in [1, 2, 3] {
        desk.grant_lone(number).await;
    }
    desk.kick(1, EndCode::EndedByOperator).await;
    assert_eq!(desk.playing().await, [2, 3].map(session));
    assert_eq!(desk.beat(1, ALIVE).await, gone(EndCode::EndedByOperator));
    // Its device starts again: that is no take-over.
    let again = Acquire {
        device: device(2),
        ..desk.lone(4, Wish::Slot)
    };
    assert!(matches!(
        desk.acquire(&again).await,
        Acquired::Granted { replaced: true, .. }
    ));
    assert_eq!(desk.beat(2, ALIVE).await, gone(EndCode::Moved));
    assert_eq!(desk.beat(3, Beat::Stop).await, Beaten::Stopped);
    assert_eq!(desk.beat(3, ALIVE).await, gone(EndCode::Stopped));
    // What never was is not remembered as ended.
    let nothing = Beaten::Gone { code: None, by: None };
    assert_eq!(desk.beat(9, Beat::Stop).await, nothing);
    assert_eq!(desk.beat(9, ALIVE).await, nothing);
    desk.grant_lone(9).await;
}

pub(super) async fn only_its_own_device_and_account_keep_or_end_it<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.grant_lone(1).await;
    let other = desk.at(AccountKey::new("main", "stranger"));
    let other = if other.bucket() == desk.bucket() {
        other
    } else {
        desk.sisters().next().unwrap()
    };
    for word in [ALIVE, Beat::Stop, Beat::Silent] {
        assert_eq!(other.beat(1, word).await, Beaten::Gone { code: None, by: None });
        let foreign = Heartbeat {
            device: Some("d2".into()),
            ..beat(1, word)
        };
        assert_eq!(desk.say(foreign).await, Beaten::Foreign);
    }
    let own = Heartbeat {
        device: Some("d1".into()),
        ..beat(1, ALIVE)
    };
    assert!(matches!(desk.say(own).await, Beaten::Lives { .. }));
}

pub(super) async fn a_socket_takes_it_over_and_heartbeats_end<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.grant_lone(1).await;
    let resume = |number| Resume {
        session: session(number),
        expected: 1,
        above: 0,
        owner: desk.node.owner,
        device: None,
        content: "m1".into(),
        limit: 3,
        terms: Terms::default(),
        attempt: Attempt(1),
    };
    let answer = desk.node.store.resume(&desk.account, &resume(1)).await.unwrap();
    let Resumed::Moved { entry, used, .. } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!((entry.expires, entry.epoch, used), (None, 2, 1));
    for word in [ALIVE, Beat::Stop] {
        assert_eq!(desk.beat(1, word).await, Beaten::Moved);
    }
    bench.pass(Duration::from_millis(PERIOD + 1_000)).await;
    assert_eq!(desk.playing().await, [session(1)]);
    // One whose time is over is nothing to come back to.
    desk.grant_lone(2).await;
    bench.pass(Duration::from_millis(PERIOD)).await;
    let answer = desk.node.store.resume(&desk.account, &resume(2)).await;
    assert_eq!(answer, Ok(Resumed::Absent));
    let fence = Fence {
        epoch: 2,
        ..desk.fence(1, 2)
    };
    desk.release(fence, EndCode::Stopped).await;
    assert!(desk.playing().await.is_empty());
}

pub(super) async fn sockets_and_heartbeats_compete_for_the_same_slots<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.grant(1).await;
    desk.grant_lone(2).await;
    desk.grant_lone(3).await;
    for start in [desk.start(4, Wish::Slot), desk.lone(4, Wish::Slot)] {
        let Acquired::Denied { holders, .. } = desk.acquire(&start).await else {
            panic!("no fourth one");
        };
        let holders: Vec<_> = holders.iter().map(|entry| entry.session).collect();
        assert_eq!(holders, [1, 2, 3].map(session));
    }
    // A waiter gets the slot of one that stops, and of one that fell silent: at 10 s, not before.
    let waiter = desk.start(5, Wish::Wait);
    assert_eq!(desk.acquire(&waiter).await, super::waiting(1));
    assert_eq!(desk.beat(2, Beat::Stop).await, Beaten::Stopped);
    desk.told(5).await;
    assert_eq!(desk.acquire(&waiter).await, granted(3));
    bench.pass(Duration::from_millis(PERIOD - 2_000)).await;
    let start = desk.start(6, Wish::Slot);
    assert!(matches!(desk.acquire(&start).await, Acquired::Denied { .. }));
    bench.pass(Duration::from_millis(2_000)).await;
    assert_eq!(desk.acquire(&start).await, granted(3));
    assert_eq!(desk.playing().await, [1, 5, 6].map(session));
    // What the node of a lost store knows: it comes back only from another life of the data.
    let known = Heartbeat {
        known: Some(Holding {
            generation: desk.generation,
            ..Holding::new(&desk.lone(7, Wish::Slot), Generation(1), 1)
        }),
        ..beat(7, ALIVE)
    };
    assert_eq!(
        desk.say(known.clone()).await,
        Beaten::Gone { code: None, by: None }
    );
    desk.release(desk.fence(6, 1), EndCode::Stopped).await;
    let lost = Heartbeat {
        known: known.known.map(|known| Holding {
            generation: Generation(0xabc),
            ..known
        }),
        ..beat(7, ALIVE)
    };
    assert!(matches!(desk.say(lost).await, Beaten::Lives { .. }));
    assert_eq!(desk.playing().await, [1, 5, 7].map(session));
}
