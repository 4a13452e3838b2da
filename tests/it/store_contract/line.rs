//! The waiting line.

use std::time::Duration;

use usher::lease::account::WAITER_STALE_MS;
use usher::lease::model::{Acquire, Acquired, Fenced, Wish};
use usher::protocol::close::EndCode;

use super::{Bench, Desk, LINE, gone, granted, session, taking_over, waiting};

pub(super) async fn first_come_first_served<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    let (first, second) = (beside.start(4, Wish::Wait), desk.start(5, Wish::Wait));
    assert_eq!(beside.acquire(&first).await, waiting(1));
    assert_eq!(desk.acquire(&second).await, waiting(2));
    for _ in 0..3 {
        bench.pass(Duration::from_secs(3)).await;
        // Asking again keeps the place, in whatever order they ask.
        assert_eq!(desk.acquire(&second).await, waiting(2));
        assert_eq!(beside.acquire(&first).await, waiting(1));
    }
    assert_eq!(desk.release(fences[1], EndCode::Stopped).await, Fenced::Done);
    // The release itself handed the slot over: a fresh start comes too late.
    assert!(matches!(
        desk.acquire(&desk.start(6, Wish::Slot)).await,
        Acquired::Denied { .. }
    ));
    beside.told(4).await;
    assert_eq!(beside.acquire(&first).await, granted(3));
    assert_eq!(desk.acquire(&second).await, waiting(1));
    assert_eq!(desk.playing().await, [1, 3, 4].map(session));
    let entry = &desk.entries().await[2];
    assert_eq!((entry.fence(), &*entry.content), (beside.fence(4, 1), "m4"));
    assert_eq!(
        beside.release(beside.fence(4, 1), EndCode::Stopped).await,
        Fenced::Done
    );
    desk.told(5).await;
    assert_eq!(desk.acquire(&second).await, granted(3));
}

pub(super) async fn the_line_is_bounded<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.fill().await;
    for place in 1..=LINE {
        let number = 3 + u8::try_from(place).unwrap();
        let refused = desk.acquire(&desk.start(20, Wish::Slot)).await;
        assert!(matches!(refused, Acquired::Denied { line_open: true, .. }));
        assert_eq!(
            desk.acquire(&desk.start(number, Wish::Wait)).await,
            waiting(place)
        );
    }
    for wish in [Wish::Wait, Wish::Slot] {
        let answer = desk.acquire(&desk.start(20, wish)).await;
        assert!(
            matches!(answer, Acquired::Denied { line_open: false, .. }),
            "{answer:?}"
        );
    }
    // Who stands in the line is not refused by its own place.
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
    let nobody = Acquire {
        line: 0,
        ..desk.start(21, Wish::Wait)
    };
    assert!(matches!(
        desk.acquire(&nobody).await,
        Acquired::Denied { line_open: false, .. }
    ));
}

pub(super) async fn a_waiter_that_stops_asking_is_skipped<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let (silent, asking) = (desk.start(4, Wish::Wait), desk.start(5, Wish::Wait));
    assert_eq!(desk.acquire(&silent).await, waiting(1));
    assert_eq!(desk.acquire(&asking).await, waiting(2));
    bench.pass(Duration::from_millis(WAITER_STALE_MS - 5_000)).await;
    assert_eq!(
        desk.acquire(&asking).await,
        waiting(2),
        "not skipped before its time"
    );
    bench.pass(Duration::from_millis(6_000)).await;
    desk.release(fences[0], EndCode::Stopped).await;
    desk.told(5).await;
    assert_eq!(desk.acquire(&asking).await, granted(3));
    // It was not ended: it may ask anew, behind the others.
    assert_eq!(desk.acquire(&silent).await, waiting(1));
}

pub(super) async fn a_slot_goes_to_the_first_waiter_whose_limit_allows_it<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let modest = Acquire {
        limit: 2,
        ..desk.start(4, Wish::Wait)
    };
    let normal = desk.start(5, Wish::Wait);
    assert_eq!(desk.acquire(&modest).await, waiting(1));
    assert_eq!(desk.acquire(&normal).await, waiting(2));
    desk.release(fences[0], EndCode::Stopped).await;
    assert_eq!(desk.acquire(&modest).await, waiting(1));
    assert_eq!(desk.acquire(&normal).await, granted(3));
    for fence in &fences[1..] {
        desk.release(*fence, EndCode::Stopped).await;
    }
    assert_eq!(desk.acquire(&modest).await, granted(2));
}

pub(super) async fn a_waiter_may_leave<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let (leaving, staying) = (desk.start(4, Wish::Wait), desk.start(5, Wish::Wait));
    assert_eq!(desk.acquire(&leaving).await, waiting(1));
    assert_eq!(desk.acquire(&staying).await, waiting(2));
    assert_eq!(
        desk.release(desk.fence(4, 1), EndCode::Stopped).await,
        Fenced::Done
    );
    assert_eq!(desk.acquire(&staying).await, waiting(1));
    // A poll that was under way.
    assert_eq!(desk.acquire(&leaving).await, Acquired::Ended(EndCode::Stopped));
    assert_eq!(desk.inspect(desk.fence(4, 1)).await, gone(EndCode::Stopped));
    desk.release(fences[0], EndCode::Stopped).await;
    assert_eq!(desk.acquire(&staying).await, granted(3));
}

pub(super) async fn takers_stand_before_waiters<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let waiter = desk.start(4, Wish::Wait);
    assert_eq!(desk.acquire(&waiter).await, waiting(1));
    let (first, second) = (
        desk.start(5, Wish::Oldest),
        desk.start(6, Wish::TakeOver(session(3))),
    );
    assert_eq!(desk.acquire(&first).await, taking_over(1));
    assert_eq!(desk.acquire(&second).await, taking_over(2));
    assert_eq!(desk.acquire(&waiter).await, waiting(3));
    // Whichever slot becomes free first.
    desk.release(fences[1], EndCode::Stopped).await;
    assert_eq!(desk.acquire(&first).await, granted(3));
    desk.release(fences[2], EndCode::Displaced).await;
    assert_eq!(desk.acquire(&second).await, granted(3));
    assert_eq!(desk.acquire(&waiter).await, waiting(1));
    desk.release(fences[0], EndCode::Displaced).await;
    assert_eq!(desk.acquire(&waiter).await, granted(3));
}
