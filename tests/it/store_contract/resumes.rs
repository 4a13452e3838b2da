//! Resumes: one session, one slot, the next epoch.

use std::time::Duration;

use usher::lease::group::Terms;
use usher::lease::model::{Acquire, Acquired, Entry, Fenced, Held, Holding, Mark, Resume, Resumed, Wish};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::Attempt;

use super::{Bench, Desk, device, gone, granted, session, taking_over, waiting, yours};

fn back(desk: &Desk, number: u8, attempt: u64) -> Resume {
    Resume {
        session: session(number),
        expected: 0,
        above: 0,
        owner: desk.node.owner,
        device: Some(device(number).id.clone()),
        content: "next".into(),
        limit: 3,
        terms: Terms::default(),
        attempt: Attempt(attempt),
    }
}

/// Player `number` is held under this epoch.
fn at(number: u8, epoch: u64) -> Resumed {
    Resumed::At {
        epoch,
        device: device(number),
    }
}

async fn ask(desk: &Desk, request: &Resume) -> Resumed {
    desk.node.store.resume(&desk.account, request).await.unwrap()
}

/// Resumes as a node does: found first, then moved from there.
async fn resume(desk: &Desk, request: &Resume) -> Resumed {
    match ask(desk, request).await {
        Resumed::At { epoch: expected, .. } => {
            let found = Resume {
                expected,
                ..request.clone()
            };
            ask(desk, &found).await
        }
        answer => answer,
    }
}

async fn moved(desk: &Desk, request: &Resume) -> (Entry, u32) {
    match resume(desk, request).await {
        Resumed::Moved { entry, used, .. } => (entry, used),
        other => panic!("{request:?}: {other:?}"),
    }
}

pub(super) async fn a_resume_credits_what_was_watched<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.grant(1).await;
    // Its node renews, and is not asked about it.
    bench.pass(Duration::from_secs(20)).await;
    let (entry, _) = moved(&beside, &back(&beside, 1, 1)).await;
    let watched = entry.progress.watched_ms;
    assert!((17_000..=20_500).contains(&watched), "{watched}");
    let (again, _) = moved(&beside, &back(&beside, 1, 1)).await;
    assert_eq!(again, entry, "once");
}

pub(super) async fn a_session_moves_under_the_next_epoch<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    let paused = Holding {
        state: PlayState::Paused,
        ..desk.holding(fences[1])
    };
    assert_eq!(desk.audit(&paused).await, Ok(yours(None)));
    let before = desk.entries().await[1].clone();
    let (entry, used) = moved(&beside, &back(&beside, 2, 1)).await;
    let expected = Entry {
        owner: beside.node.owner,
        epoch: 2,
        content: "next".into(),
        // Whoever comes back plays.
        state: PlayState::Playing,
        attempt: Some(Attempt(1)),
        ..before
    };
    assert_eq!((&entry, used), (&expected, 3), "never counted twice");
    assert_eq!(desk.entries().await[1], expected);
    // The old socket learns of it, and can do nothing any more.
    desk.told(2).await;
    assert_eq!(desk.inspect(fences[1]).await, Held::Moved);
    assert_eq!(
        desk.release(fences[1], EndCode::HeartbeatMissed).await,
        Fenced::NotYours
    );
    assert_eq!(beside.inspect(beside.fence(2, 2)).await, yours(None));
    // And back again.
    let (entry, _) = moved(&desk, &back(&desk, 2, 2)).await;
    assert_eq!(entry.fence(), desk.fence(2, 3));
    beside.told(2).await;
    assert_eq!(
        desk.release(desk.fence(2, 3), EndCode::Stopped).await,
        Fenced::Done
    );
}

pub(super) async fn a_repeated_resume_gets_the_same_answer<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.grant(1).await;
    let first = moved(&desk, &back(&desk, 1, 7)).await;
    assert_eq!(moved(&desk, &back(&desk, 1, 7)).await, first);
    assert_eq!(first.0.epoch, 2);
    assert_eq!(moved(&desk, &back(&desk, 1, 8)).await.0.epoch, 3);
}

pub(super) async fn only_the_sessions_device_resumes_it<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fence = desk.grant(1).await;
    let foreign = Resume {
        device: Some("thief".into()),
        ..back(&desk, 1, 1)
    };
    assert_eq!(resume(&desk, &foreign).await, Resumed::Absent);
    assert_eq!(desk.inspect(fence).await, yours(None), "nothing changed");
    // A player that names no device has the secret all the same.
    let unnamed = Resume {
        device: None,
        ..back(&desk, 1, 1)
    };
    let (entry, _) = moved(&desk, &unnamed).await;
    assert_eq!((entry.epoch, entry.device), (2, device(1)));
}

pub(super) async fn nothing_is_resumed_that_has_ended<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(resume(&desk, &back(&desk, 9, 1)).await, Resumed::Absent);
    // A place in the line is no session yet.
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
    assert_eq!(resume(&desk, &back(&desk, 4, 1)).await, Resumed::Absent);
    desk.release(fences[0], EndCode::Stopped).await;
    assert_eq!(resume(&desk, &back(&desk, 1, 1)).await, Resumed::Absent);
    assert_eq!(desk.playing().await, [2, 3, 4].map(session));
}

pub(super) async fn a_resume_of_a_kicked_session_does_not_bring_it_back<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
    assert_eq!(desk.kick(1, EndCode::AccountBlocked).await, Fenced::Done);
    assert_eq!(resume(&desk, &back(&desk, 1, 1)).await, Resumed::Absent);
    desk.told(1).await;
    assert_eq!(desk.playing().await, [1, 2, 3].map(session), "its owner ends it");
    desk.release(fences[0], EndCode::AccountBlocked).await;
    assert_eq!(desk.inspect(fences[0]).await, gone(EndCode::AccountBlocked));
    desk.told(4).await;
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, granted(3));
}

pub(super) async fn a_resume_of_a_victim_does_not_bring_it_back<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(desk.acquire(&desk.start(4, Wish::Oldest)).await, taking_over(1));
    assert_eq!(resume(&desk, &back(&desk, 1, 1)).await, Resumed::Absent);
    desk.told(1).await;
    assert_eq!(desk.playing().await, [1, 2, 3].map(session), "its owner ends it");
    desk.release(fences[0], EndCode::Displaced).await;
    assert_eq!(desk.inspect(fences[0]).await, gone(EndCode::Displaced));
    desk.told(4).await;
    assert_eq!(desk.acquire(&desk.start(4, Wish::Oldest)).await, granted(3));
}

pub(super) async fn a_resume_takes_an_open_question_along<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.fill().await;
    let question = Acquire {
        consent: true,
        ..desk.start(4, Wish::Oldest)
    };
    assert_eq!(desk.acquire(&question).await, taking_over(1));
    let (entry, _) = moved(&beside, &back(&beside, 1, 1)).await;
    let asked = Some(Mark::TakeOver {
        by: session(4),
        device: device(4),
        asked: true,
    });
    assert_eq!(entry.mark, asked);
    // The next poll asks the socket that has the session now.
    beside.forget(1);
    assert_eq!(desk.acquire(&question).await, taking_over(1));
    beside.told(1).await;
    assert_eq!(beside.refuse(beside.fence(1, 2)).await, Fenced::Done);
    desk.told(4).await;
    assert!(matches!(
        desk.acquire(&question).await,
        Acquired::Denied { refused: true, .. }
    ));
}

pub(super) async fn a_resume_from_another_epoch_is_told_the_present_one<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fence = desk.grant(1).await;
    let before = desk.entries().await;
    for expected in [0, 2, 7] {
        let request = Resume {
            expected,
            ..back(&beside, 1, 1)
        };
        assert_eq!(ask(&beside, &request).await, at(1, 1), "{expected}");
    }
    assert_eq!(desk.entries().await, before, "nothing moved");
    assert_eq!(desk.inspect(fence).await, yours(None));
    moved(&beside, &back(&beside, 1, 1)).await;
    // Whoever found it before it moved does not move it again.
    let late = Resume {
        expected: 1,
        ..back(&desk, 1, 2)
    };
    assert_eq!(ask(&desk, &late).await, at(1, 2));
    assert_eq!(beside.inspect(beside.fence(1, 2)).await, yours(None));
}

pub(super) async fn the_same_attempt_is_answered_before_its_epoch_is_looked_at<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.grant(1).await;
    let request = Resume {
        expected: 1,
        ..back(&desk, 1, 7)
    };
    let first = ask(&desk, &request).await;
    assert!(
        matches!(&first, Resumed::Moved { entry, .. } if entry.epoch == 2),
        "{first:?}"
    );
    assert_eq!(ask(&desk, &request).await, first, "its answer was lost");
    // The same number from another node is another attempt.
    let other = Resume {
        expected: 1,
        ..back(&beside, 1, 7)
    };
    assert_eq!(ask(&beside, &other).await, at(1, 2));
}
