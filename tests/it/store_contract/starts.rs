//! Starts: grants, refusals, ends that are remembered, one's own device.

use std::sync::Arc;
use std::time::Duration;

use usher::lease::account::TOMBSTONE_MS;
use usher::lease::group::ACCOUNT;
use usher::lease::model::{Acquire, Acquired, Fenced, Generation, Held, Refusal, Wish};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::AccountKey;

use super::{Bench, Desk, device, gone, granted, session, waiting};

pub(super) async fn the_limit_is_kept_and_the_refused_is_told_who_plays<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let before = desk.now().await;
    for number in 1..=3 {
        let answer = desk.acquire(&desk.start(number, Wish::Slot)).await;
        assert_eq!(answer, granted(number.into()));
        bench.pass(Duration::from_millis(20)).await;
    }
    let after = desk.now().await;
    let Acquired::Denied {
        refused,
        refusal,
        holders,
        line_open,
        ..
    } = desk.acquire(&desk.start(4, Wish::Slot)).await
    else {
        panic!("the fourth is denied");
    };
    assert_eq!((refused, line_open), (false, true));
    assert_eq!((&*refusal.rule, refusal.used, refusal.limit), (ACCOUNT, 3, 3));
    assert!(refusal.may_take_over && refusal.slots == 3);
    assert_eq!(holders, desk.entries().await);
    assert_eq!(holders.len(), 3);
    let mut earlier = before;
    for (number, entry) in (1..).zip(&holders) {
        assert_eq!(entry.fence(), desk.fence(number, 1));
        assert_eq!(
            (&entry.device, &*entry.content),
            (&device(number), &*format!("m{number}"))
        );
        assert_eq!(
            (entry.state, entry.attempt, &entry.mark),
            (PlayState::Playing, None, &None)
        );
        assert!((earlier..=after).contains(&entry.started_at));
        earlier = entry.started_at + 1;
    }
    // A refusal takes nothing and remembers nothing.
    assert_eq!(
        desk.release(desk.fence(1, 1), EndCode::Stopped).await,
        Fenced::Done
    );
    assert_eq!(desk.acquire(&desk.start(4, Wish::Slot)).await, granted(3));
}

pub(super) async fn the_limit_is_the_requests_own<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let none = Acquire {
        limit: 0,
        ..desk.start(9, Wish::Slot)
    };
    let answer = desk.acquire(&none).await;
    assert_eq!(
        answer,
        Acquired::Denied {
            refused: false,
            refusal: Refusal {
                rule: ACCOUNT.into(),
                used: 0,
                limit: 0,
                slots: 0,
                may_take_over: false,
            },
            holders: vec![],
            line_open: true,
            limit: None,
        }
    );
    desk.fill().await;
    let more = Acquire {
        limit: 5,
        ..desk.start(4, Wish::Slot)
    };
    assert_eq!(desk.acquire(&more).await, granted(4));
    // Above its own limit already: nobody loses a slot, nobody gets one.
    assert!(matches!(
        desk.acquire(&desk.start(5, Wish::Slot)).await,
        Acquired::Denied { .. }
    ));
    assert_eq!(desk.playing().await, [1, 2, 3, 4].map(session));
}

pub(super) async fn a_repeated_start_changes_nothing<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.fill().await;
    let before = desk.entries().await;
    bench.pass(Duration::from_secs(1)).await;
    for wish in [Wish::Slot, Wish::Wait, Wish::Oldest, Wish::TakeOver(session(1))] {
        assert_eq!(desk.acquire(&desk.start(2, wish)).await, granted(3), "{wish:?}");
    }
    assert_eq!(desk.entries().await, before);
}

pub(super) async fn what_has_ended_does_not_come_back<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fence = desk.grant(1).await;
    assert_eq!(desk.release(fence, EndCode::EndedByOperator).await, Fenced::Done);
    // The first end is the one that is remembered.
    assert_eq!(desk.release(fence, EndCode::Stopped).await, Fenced::Gone);
    let late = desk.start(1, Wish::Slot);
    for pass in [0, TOMBSTONE_MS - 2_000] {
        bench.pass(Duration::from_millis(pass)).await;
        assert_eq!(
            desk.acquire(&late).await,
            Acquired::Ended(EndCode::EndedByOperator)
        );
        assert_eq!(desk.inspect(fence).await, gone(EndCode::EndedByOperator));
    }
    assert!(desk.playing().await.is_empty());
}

pub(super) async fn a_release_before_its_acquire_wins<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    assert_eq!(
        desk.release(desk.fence(1, 1), EndCode::Stopped).await,
        Fenced::Gone
    );
    assert_eq!(
        desk.acquire(&desk.start(1, Wish::Slot)).await,
        Acquired::Ended(EndCode::Stopped)
    );
    assert!(desk.playing().await.is_empty());
}

pub(super) async fn the_same_device_replaces_its_own_session<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    // Also ahead of those who wait.
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
    let zap = Acquire {
        device: device(2),
        ..desk.start(5, Wish::Slot)
    };
    assert_eq!(
        desk.acquire(&zap).await,
        Acquired::Granted {
            used: 3,
            replaced: true,
            generation: Generation::NONE,
            started_at: 0,
            limit: None,
            shadowed: vec![],
        }
    );
    desk.told(2).await;
    assert_eq!(desk.playing().await, [1, 3, 5].map(session));
    // The old session is over, whatever comes of it late.
    assert_eq!(desk.inspect(fences[1]).await, gone(EndCode::Moved));
    assert_eq!(desk.release(fences[1], EndCode::Stopped).await, Fenced::Gone);
    assert_eq!(
        desk.acquire(&desk.start(2, Wish::Slot)).await,
        Acquired::Ended(EndCode::Moved)
    );
    assert_eq!(desk.acquire(&zap).await, granted(3));
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
}

pub(super) async fn a_device_that_waits_is_replaced_too<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
    let again = Acquire {
        device: device(4),
        ..desk.start(5, Wish::Wait)
    };
    assert_eq!(desk.acquire(&again).await, waiting(1));
    desk.told(4).await;
    assert_eq!(
        desk.acquire(&desk.start(4, Wish::Wait)).await,
        Acquired::Ended(EndCode::Moved)
    );
    desk.release(fences[0], EndCode::Stopped).await;
    assert_eq!(desk.acquire(&again).await, granted(3));
}

pub(super) async fn accounts_and_tenants_never_meet<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.fill().await;
    for account in [AccountKey::new("other", "a"), AccountKey::new("main", "b")] {
        let other = Desk::of(bench.node().await, account).await;
        // The same session ids: they are of another account here.
        assert_eq!(other.acquire(&other.start(1, Wish::Slot)).await, granted(1));
        assert_eq!(other.playing().await, [session(1)]);
        assert_eq!(
            other.release(other.fence(1, 1), EndCode::Stopped).await,
            Fenced::Done
        );
        assert_eq!(other.inspect(other.fence(2, 1)).await, Held::Gone(None));
        assert_eq!(other.kick(3, EndCode::AccountBlocked).await, Fenced::Gone);
    }
    assert_eq!(desk.playing().await, [1, 2, 3].map(session));
    assert_eq!(desk.mark(desk.fence(3, 1)).await, None);
}

pub(super) async fn an_account_is_listed_while_somebody_plays<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let (store, other) = (Arc::clone(&desk.node.store), AccountKey::new("t", "b"));
    assert_eq!(store.list(&desk.account).await, Ok(vec![]));
    assert_eq!(store.accounts(10).await, Ok(vec![]));
    let fence = desk.grant(1).await;
    store.acquire(&other, &desk.start(2, Wish::Slot)).await.unwrap();
    let mut accounts = store.accounts(10).await.unwrap();
    accounts.sort();
    assert_eq!(accounts, [desk.account.clone(), other.clone()]);
    assert_eq!(store.accounts(1).await.unwrap().len(), 1);
    desk.release(fence, EndCode::Stopped).await;
    assert_eq!(store.accounts(10).await, Ok(vec![other]));
}

pub(super) async fn everybody_hears_how_many_slots_are_taken<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let first = desk.grant(1).await;
    let second = beside.grant(2).await;
    desk.told_slots(2).await;
    beside.told_slots(2).await;
    desk.release(first, EndCode::Stopped).await;
    beside.told_slots(1).await;
    let third = desk.grant(3).await;
    beside.told_slots(2).await;
    beside.release(second, EndCode::Stopped).await;
    desk.told_slots(1).await;
    desk.release(third, EndCode::Stopped).await;
}

pub(super) async fn a_grant_tells_its_time_and_the_life_of_the_data<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let before = desk.now().await;
    let request = desk.start(1, Wish::Slot);
    let first = desk.node.store.acquire(&desk.account, &request).await.unwrap();
    let entry = desk.entries().await[0].clone();
    assert_eq!(
        (entry.generation, entry.checkpoint),
        (desk.generation, entry.started_at)
    );
    assert!((before..=desk.now().await).contains(&entry.started_at));
    let expected = Acquired::Granted {
        used: 1,
        replaced: false,
        generation: entry.generation,
        started_at: entry.started_at,
        limit: None,
        shadowed: vec![],
    };
    assert_eq!(first, expected);
    // A repetition tells when it began, not when it was repeated.
    bench.pass(Duration::from_secs(3)).await;
    let again = desk.node.store.acquire(&desk.account, &request).await.unwrap();
    assert_eq!(again, expected);
}
