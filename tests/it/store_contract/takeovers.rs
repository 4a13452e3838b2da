//! Take-overs: immediate, asked, refused, withdrawn.

use std::time::Duration;

use usher::lease::account::WAITER_STALE_MS;
use usher::lease::model::{Acquire, Acquired, Fenced, Mark, Wish};
use usher::protocol::close::EndCode;

use super::{Bench, Desk, device, gone, granted, session, taking_over, waiting};

fn mark(by: u8, asked: bool) -> Option<Mark> {
    Some(Mark::TakeOver {
        by: session(by),
        device: device(by),
        asked,
    })
}

fn asking(desk: &Desk, number: u8, wish: Wish) -> Acquire {
    Acquire {
        consent: true,
        ..desk.start(number, wish)
    }
}

fn is_denied(answer: &Acquired) -> bool {
    matches!(answer, Acquired::Denied { refused: false, .. })
}

pub(super) async fn the_oldest_is_marked_and_its_release_grants_the_newcomer<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let victim = desk.grant(2).await;
    for number in [1, 3] {
        bench.pass(Duration::from_millis(20)).await;
        desk.grant(number).await;
    }
    let newcomer = beside.start(4, Wish::Oldest);
    assert_eq!(beside.acquire(&newcomer).await, taking_over(1));
    desk.told(2).await;
    assert_eq!(desk.mark(victim).await, mark(4, false));
    // Strict: not before the victim's socket is closed.
    assert_eq!(beside.acquire(&newcomer).await, taking_over(1));
    assert_eq!(desk.playing().await, [2, 1, 3].map(session));
    assert_eq!(desk.release(victim, EndCode::Displaced).await, Fenced::Done);
    beside.told(4).await;
    assert_eq!(beside.acquire(&newcomer).await, granted(3));
    assert_eq!(desk.playing().await, [1, 3, 4].map(session));
    assert_eq!(desk.inspect(victim).await, gone(EndCode::Displaced));
}

pub(super) async fn a_chosen_victim<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let absent = desk.acquire(&desk.start(4, Wish::TakeOver(session(9)))).await;
    assert!(is_denied(&absent), "{absent:?}");
    let newcomer = desk.start(4, Wish::TakeOver(session(3)));
    assert_eq!(desk.acquire(&newcomer).await, taking_over(1));
    desk.told(3).await;
    assert_eq!(desk.mark(fences[2]).await, mark(4, false));
    assert_eq!(desk.mark(fences[0]).await, None);
    // A victim that leaves by itself hands over just as well.
    desk.release(fences[2], EndCode::Stopped).await;
    assert_eq!(desk.acquire(&newcomer).await, granted(3));
}

pub(super) async fn a_victim_is_taken_over_once<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(
        desk.acquire(&desk.start(4, Wish::TakeOver(session(1)))).await,
        taking_over(1)
    );
    let second = desk.acquire(&desk.start(5, Wish::TakeOver(session(1)))).await;
    assert!(is_denied(&second), "{second:?}");
    assert_eq!(desk.mark(fences[0]).await, mark(4, false));
    // The oldest that nobody takes over yet, until there is none.
    assert_eq!(desk.acquire(&desk.start(5, Wish::Oldest)).await, taking_over(2));
    assert_eq!(desk.acquire(&desk.start(6, Wish::Oldest)).await, taking_over(3));
    let last = desk.acquire(&desk.start(7, Wish::Oldest)).await;
    assert!(is_denied(&last), "{last:?}");
}

pub(super) async fn a_repeated_take_over_marks_no_second_victim<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let newcomer = desk.start(4, Wish::Oldest);
    assert_eq!(desk.acquire(&newcomer).await, taking_over(1));
    desk.told(1).await;
    desk.forget(1);
    // Word may get lost: each repetition sends it again.
    assert_eq!(desk.acquire(&newcomer).await, taking_over(1));
    desk.told(1).await;
    assert_eq!(desk.mark(fences[0]).await, mark(4, false));
    for fence in &fences[1..] {
        assert_eq!(desk.mark(*fence).await, None);
    }
    // Nor after it fell out of the line because it stopped asking.
    bench.pass(Duration::from_millis(WAITER_STALE_MS + 1_000)).await;
    desk.renew().await;
    assert_eq!(desk.acquire(&newcomer).await, taking_over(1));
    for fence in &fences[1..] {
        assert_eq!(desk.mark(*fence).await, None);
    }
}

pub(super) async fn a_victim_may_refuse<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    let question = asking(&beside, 4, Wish::TakeOver(session(1)));
    assert_eq!(beside.acquire(&question).await, taking_over(1));
    desk.told(1).await;
    assert_eq!(desk.mark(fences[0]).await, mark(4, true));
    assert_eq!(desk.refuse(fences[0]).await, Fenced::Done);
    beside.told(4).await;
    assert_eq!(desk.mark(fences[0]).await, None);
    assert_eq!(desk.refuse(fences[0]).await, Fenced::Gone, "nobody asks any more");
    let answer = beside.acquire(&question).await;
    assert!(
        matches!(&answer, Acquired::Denied { refused: true, holders, .. } if holders.len() == 3),
        "{answer:?}"
    );
    // The same player may choose again, and be lucky.
    assert_eq!(
        beside
            .acquire(&asking(&beside, 4, Wish::TakeOver(session(2))))
            .await,
        taking_over(1)
    );
    desk.release(fences[1], EndCode::Displaced).await;
    assert_eq!(beside.acquire(&question).await, granted(3));
    assert_eq!(desk.mark(fences[0]).await, None);
}

pub(super) async fn a_question_is_withdrawn_with_its_asker<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(
        beside.acquire(&asking(&beside, 4, Wish::Oldest)).await,
        taking_over(1)
    );
    desk.told(1).await;
    desk.forget(1);
    assert_eq!(
        beside.release(beside.fence(4, 1), EndCode::Stopped).await,
        Fenced::Done
    );
    desk.told(1).await;
    assert_eq!(desk.mark(fences[0]).await, None);
    assert_eq!(desk.refuse(fences[0]).await, Fenced::Gone);
    // An asker that gets another slot needs this one no more.
    assert_eq!(
        beside.acquire(&asking(&beside, 5, Wish::Oldest)).await,
        taking_over(1)
    );
    assert_eq!(desk.mark(fences[0]).await, mark(5, true));
    desk.release(fences[2], EndCode::Stopped).await;
    assert_eq!(
        beside.acquire(&asking(&beside, 5, Wish::Oldest)).await,
        granted(3)
    );
    assert_eq!(desk.mark(fences[0]).await, None);
}

pub(super) async fn a_question_ends_with_an_asker_that_falls_silent<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(
        desk.acquire(&asking(&desk, 4, Wish::Oldest)).await,
        taking_over(1)
    );
    desk.told(1).await;
    desk.forget(1);
    bench.pass(Duration::from_millis(WAITER_STALE_MS + 1_000)).await;
    desk.renew().await;
    desk.told(1).await;
    assert_eq!(desk.mark(fences[0]).await, None);
}

pub(super) async fn an_asker_whose_limit_rises_needs_no_victim<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let question = asking(&desk, 4, Wish::TakeOver(session(2)));
    assert_eq!(desk.acquire(&question).await, taking_over(1));
    desk.told(2).await;
    desk.forget(2);
    assert_eq!(desk.acquire(&Acquire { limit: 4, ..question }).await, granted(4));
    desk.told(2).await;
    assert_eq!(desk.mark(fences[1]).await, None);
}

pub(super) async fn a_victim_that_was_not_asked_ends_also_without_newcomer<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(desk.acquire(&desk.start(4, Wish::Oldest)).await, taking_over(1));
    assert_eq!(desk.acquire(&desk.start(5, Wish::Wait)).await, waiting(2));
    assert_eq!(
        desk.release(desk.fence(4, 1), EndCode::Stopped).await,
        Fenced::Done
    );
    assert_eq!(desk.mark(fences[0]).await, mark(4, false), "it has been told so");
    assert_eq!(desk.refuse(fences[0]).await, Fenced::Gone, "it was not asked");
    desk.release(fences[0], EndCode::Displaced).await;
    assert_eq!(desk.acquire(&desk.start(5, Wish::Wait)).await, granted(3));
}
