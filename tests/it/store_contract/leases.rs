//! The nodes' leases: who is dead, and what becomes of what it held (rules 4, 12, 13, 15, 18).

use std::time::Duration;

use usher::lease::bucket::LEASE_MS;
use usher::lease::group::Terms;
use usher::lease::model::{Acquired, Fenced, Held, Phase, Resume, Resumed, Wish};
use usher::lease::store::StoreError;
use usher::protocol::close::EndCode;
use usher::protocol::id::Attempt;

use super::{Bench, Desk, RENEW_FIRST, gone, granted, session, taking_over, waiting, yours};

fn back(desk: &Desk, number: u8, expected: u64) -> Resume {
    Resume {
        session: session(number),
        expected,
        above: 0,
        owner: desk.node.owner,
        device: None,
        content: "next".into(),
        limit: 3,
        terms: Terms::default(),
        attempt: Attempt(1),
    }
}

async fn resume(desk: &Desk, request: &Resume) -> Result<Resumed, StoreError> {
    desk.node.store.resume(&desk.account, request).await
}

pub(super) async fn a_node_whose_lease_lapsed_renews_first<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fence = desk.grant(1).await;
    beside.grant(2).await;
    bench.lapse(&desk.node).await;
    // Also what it holds already, and what another has.
    for number in [1, 3] {
        let answer = desk
            .node
            .store
            .acquire(&desk.account, &desk.start(number, Wish::Slot))
            .await;
        assert_eq!(answer, Err(RENEW_FIRST), "{number}");
    }
    for number in [1, 2] {
        assert_eq!(resume(&desk, &back(&desk, number, 1)).await, Err(RENEW_FIRST));
    }
    assert_eq!(desk.audit(&desk.holding(fence)).await, Err(RENEW_FIRST));
    assert_eq!(desk.playing().await, [1, 2].map(session), "nothing changed");
    desk.renew().await;
    assert_eq!(desk.inspect(fence).await, yours(None), "nobody purged it yet");
    assert_eq!(desk.acquire(&desk.start(1, Wish::Slot)).await, granted(2));
    assert_eq!(desk.acquire(&desk.start(3, Wish::Slot)).await, granted(3));
    assert!(matches!(
        resume(&desk, &back(&desk, 2, 1)).await,
        Ok(Resumed::Moved { .. })
    ));
}

pub(super) async fn what_a_dead_node_held_is_free_for_the_next_start<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    bench.lapse(&desk.node).await;
    assert_eq!(desk.playing().await, [1, 2, 3].map(session), "nobody asked yet");
    assert_eq!(beside.acquire(&beside.start(4, Wish::Slot)).await, granted(1));
    assert_eq!(beside.playing().await, [session(4)]);
    // It comes back too late.
    desk.renew().await;
    for (number, fence) in (1..).zip(fences) {
        assert_eq!(desk.inspect(fence).await, gone(EndCode::LeaseLost));
        assert_eq!(desk.release(fence, EndCode::Stopped).await, Fenced::Gone);
        assert_eq!(
            desk.acquire(&desk.start(number, Wish::Slot)).await,
            Acquired::Ended(EndCode::LeaseLost)
        );
    }
    assert_eq!(beside.playing().await, [session(4)]);
}

pub(super) async fn what_a_dead_node_held_goes_to_those_who_wait<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.grant(1).await;
    beside.grant(2).await;
    beside.grant(3).await;
    assert_eq!(beside.acquire(&beside.start(4, Wish::Wait)).await, waiting(1));
    bench.lapse(&desk.node).await;
    // A fresh start does not pass who waits, although it is the one that noticed.
    let late = beside.acquire(&beside.start(5, Wish::Slot)).await;
    assert!(
        matches!(&late, Acquired::Denied { holders, .. } if holders.len() == 3),
        "{late:?}"
    );
    beside.told(4).await;
    assert_eq!(beside.playing().await, [2, 3, 4].map(session));
    assert_eq!(beside.acquire(&beside.start(4, Wish::Wait)).await, granted(3));
}

pub(super) async fn a_renewal_purges_what_dead_nodes_left<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(beside.acquire(&beside.start(4, Wish::Wait)).await, waiting(1));
    bench.lapse(&desk.node).await;
    assert_eq!(beside.renew().await.purged, 3);
    beside.told(4).await;
    beside.told_slots(1).await;
    assert_eq!(beside.playing().await, [session(4)]);
    let again = beside.renew().await;
    assert_eq!((again.purged, again.count), (0, 1));
    assert_eq!(desk.renew().await.count, 0);
    assert_eq!(desk.inspect(fences[0]).await, gone(EndCode::LeaseLost));
}

pub(super) async fn the_waiter_of_a_dead_node_is_skipped<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = beside.fill().await;
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
    assert_eq!(beside.acquire(&beside.start(5, Wish::Wait)).await, waiting(2));
    bench.lapse(&desk.node).await;
    assert_eq!(beside.release(fences[0], EndCode::Stopped).await, Fenced::Done);
    beside.told(5).await;
    assert_eq!(beside.playing().await, [2, 3, 5].map(session));
    // It did not end: its node is back, and it asks anew.
    desk.renew().await;
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
}

pub(super) async fn a_taker_has_the_slot_of_a_victim_whose_node_died<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let victim = desk.grant(1).await;
    beside.grant(2).await;
    beside.grant(3).await;
    let taker = beside.start(4, Wish::TakeOver(session(1)));
    assert_eq!(beside.acquire(&taker).await, taking_over(1));
    bench.lapse(&desk.node).await;
    assert_eq!(beside.acquire(&taker).await, granted(3));
    desk.renew().await;
    assert_eq!(desk.inspect(victim).await, gone(EndCode::Displaced));
}

pub(super) async fn the_end_of_a_kicked_session_keeps_its_code_when_its_node_died<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(beside.kick(2, EndCode::AccountBlocked).await, Fenced::Done);
    bench.lapse(&desk.node).await;
    assert_eq!(beside.renew().await.purged, 3);
    desk.renew().await;
    assert_eq!(desk.inspect(fences[1]).await, gone(EndCode::AccountBlocked));
    assert_eq!(desk.inspect(fences[2]).await, gone(EndCode::LeaseLost));
}

pub(super) async fn a_session_of_a_dead_node_may_be_resumed_elsewhere<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    bench.lapse(&desk.node).await;
    let answer = resume(&beside, &back(&beside, 1, 1)).await;
    assert!(
        matches!(&answer, Ok(Resumed::Moved { entry, .. }) if entry.fence() == beside.fence(1, 2)),
        "{answer:?}"
    );
    // What stayed behind goes; what was resumed does not.
    assert_eq!(beside.renew().await.purged, 2);
    assert_eq!(beside.playing().await, [session(1)]);
    assert_eq!(beside.inspect(beside.fence(1, 2)).await, yours(None));
    desk.renew().await;
    assert_eq!(desk.inspect(fences[0]).await, Held::Moved);
    assert_eq!(desk.inspect(fences[1]).await, gone(EndCode::LeaseLost));
}

pub(super) async fn what_was_purged_is_not_resumed<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.grant(1).await;
    bench.lapse(&desk.node).await;
    assert_eq!(beside.renew().await.purged, 1);
    for expected in [0, 1] {
        assert_eq!(
            resume(&beside, &back(&beside, 1, expected)).await,
            Ok(Resumed::Absent)
        );
    }
    assert!(beside.playing().await.is_empty());
}

pub(super) async fn a_lease_begins_anew_only_after_it_ran_out<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let first = desk.renew().await;
    assert_eq!((first.phase, first.generation), (Phase::Open, desk.generation));
    assert!(first.since <= first.now);
    let mut last = first.now;
    for _ in 0..4 {
        bench.pass(Duration::from_secs(5)).await;
        let renewed = desk.renew().await;
        assert_eq!(
            (renewed.since, renewed.generation),
            (first.since, first.generation)
        );
        assert!(renewed.now >= last + 5_000, "{} after {last}", renewed.now);
        last = renewed.now;
    }
    let others = beside.renew().await;
    bench.lapse(&desk.node).await;
    let renewed = desk.renew().await;
    assert_eq!(renewed.since, renewed.now);
    assert!(renewed.since >= last + LEASE_MS);
    assert_eq!(desk.renew().await.since, renewed.since);
    assert_eq!(
        beside.renew().await.since,
        others.since,
        "that of another goes on"
    );
}

pub(super) async fn a_renewal_tells_what_the_node_holds<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let counts = async || (desk.renew().await.count, beside.renew().await.count);
    assert_eq!(counts().await, (0, 0));
    let fence = desk.grant(1).await;
    desk.grant(2).await;
    beside.grant(3).await;
    // A waiter holds nothing.
    assert_eq!(desk.acquire(&desk.start(4, Wish::Wait)).await, waiting(1));
    assert_eq!(counts().await, (2, 1));
    let moved = resume(&beside, &back(&beside, 2, 1)).await;
    assert!(matches!(moved, Ok(Resumed::Moved { .. })), "{moved:?}");
    assert_eq!(counts().await, (1, 2));
    // The waiter has it now.
    assert_eq!(desk.release(fence, EndCode::Stopped).await, Fenced::Done);
    assert_eq!(counts().await, (1, 2));
    desk.release(desk.fence(4, 1), EndCode::Stopped).await;
    assert_eq!(counts().await, (0, 2));
    // Another bucket counts for itself.
    let other = (desk.bucket() + 1) % desk.node.store.buckets();
    let renewed = beside.node.store.renew(other, beside.node.owner).await.unwrap();
    assert_eq!(renewed.count, 0);
}

pub(super) async fn a_renewal_tells_which_sessions_are_to_end<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.grant(1).await;
    beside.grant(2).await;
    desk.grant(3).await;
    assert!(desk.renew().await.marked.is_empty());
    beside.kick(3, EndCode::EndedByOperator).await;
    assert_eq!(
        beside.acquire(&beside.start(4, Wish::TakeOver(session(1)))).await,
        taking_over(1)
    );
    let mut marked = desk.renew().await.marked;
    marked.sort();
    let key = |number| (desk.account.clone(), session(number));
    assert_eq!(marked, [key(1), key(3)]);
    assert!(beside.renew().await.marked.is_empty());
    desk.release(desk.fence(3, 1), EndCode::EndedByOperator).await;
    assert_eq!(desk.renew().await.marked, [key(1)]);
    // A bounded number of them; the others when those have gone.
    for one in desk.sisters().take(120) {
        one.grant(7).await;
        one.kick(7, EndCode::EndedByOperator).await;
    }
    let mut rounds = Vec::new();
    loop {
        let marked = desk.renew().await.marked;
        rounds.push(marked.len());
        let sisters: Vec<_> = marked.into_iter().filter(|key| key.1 == session(7)).collect();
        if sisters.is_empty() {
            break;
        }
        for (account, _) in sisters {
            let one = desk.at(account);
            one.release(one.fence(7, 1), EndCode::EndedByOperator).await;
        }
    }
    assert!(
        rounds[0] >= 20 && rounds.iter().all(|marked| *marked <= 100),
        "{rounds:?}"
    );
    assert_eq!(desk.renew().await.count, 1);
}

pub(super) async fn the_nodes_leases_are_told<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let told = async |of: &Desk| {
        let leases = desk.node.store.leases(desk.bucket()).await.unwrap();
        leases.into_iter().find(|lease| lease.owner == of.node.owner)
    };
    desk.renew().await;
    let fresh = told(&desk).await.unwrap();
    // A second for a busy machine where the clock is a real one.
    assert!(
        fresh.age < 1_000 && fresh.remaining > LEASE_MS - 1_000,
        "{fresh:?}"
    );
    bench.lapse(&beside.node).await;
    let over = told(&beside).await.unwrap();
    assert!(over.age >= LEASE_MS && over.remaining == 0, "{over:?}");
    desk.renew().await;
    assert_eq!(told(&beside).await, None, "it held nothing");
    assert!(told(&desk).await.is_some());
}
