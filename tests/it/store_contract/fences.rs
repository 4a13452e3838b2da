//! Fences and kicks: who may change a session (I4).

use usher::lease::group::Terms;
use usher::lease::model::{Acquired, Fence, Fenced, Held, Holding, Mark, Resume, Resumed, Wish};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::Attempt;

use super::{Bench, Desk, gone, granted, session, taking_over, yours};

/// An audit that would change what is shown of the session.
fn theft(desk: &Desk, fence: Fence) -> Holding {
    Holding {
        content: "stolen".into(),
        state: PlayState::Paused,
        ..desk.holding(fence)
    }
}

/// Every fenced change under this fence.
async fn changes(desk: &Desk, fence: Fence) -> (Held, Fenced, Fenced) {
    (
        desk.audit(&theft(desk, fence)).await.unwrap(),
        desk.refuse(fence).await,
        desk.release(fence, EndCode::Stopped).await,
    )
}

pub(super) async fn only_the_present_owner_and_epoch_change_a_session<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.fill().await;
    let request = Resume {
        session: session(1),
        expected: 1,
        above: 0,
        owner: desk.node.owner,
        device: None,
        content: "m1".into(),
        limit: 3,
        terms: Terms::default(),
        attempt: Attempt(1),
    };
    let resumed = desk.node.store.resume(&desk.account, &request).await.unwrap();
    assert!(matches!(resumed, Resumed::Moved { .. }));
    let before = desk.entries().await;
    for fence in [desk.fence(1, 1), beside.fence(1, 2), beside.fence(1, 1)] {
        assert_eq!(
            changes(&desk, fence).await,
            (Held::Moved, Fenced::NotYours, Fenced::NotYours),
            "{fence:?}"
        );
    }
    assert_eq!(desk.refuse(desk.fence(1, 3)).await, Fenced::NotYours);
    assert_eq!(desk.entries().await, before);
    assert_eq!(
        changes(&desk, desk.fence(1, 2)).await,
        (yours(None), Fenced::Gone, Fenced::Done)
    );
    assert_eq!(desk.playing().await, [2, 3].map(session));
}

/// A failover may lose the move that made an epoch; whoever has it is right.
pub(super) async fn a_higher_epoch_wins<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    let repaired = Held::Yours {
        mark: None,
        repaired: true,
    };
    assert_eq!(beside.inspect(beside.fence(1, 3)).await, repaired);
    assert_eq!(desk.entries().await[0].fence(), beside.fence(1, 3));
    assert_eq!(desk.inspect(fences[0]).await, Held::Moved);
    assert_eq!(beside.inspect(beside.fence(1, 3)).await, yours(None));
    assert_eq!(
        beside.release(beside.fence(2, 2), EndCode::Stopped).await,
        Fenced::Done
    );
    assert_eq!(desk.inspect(fences[1]).await, gone(EndCode::Stopped));
    assert_eq!(desk.playing().await, [1, 3].map(session));
}

pub(super) async fn what_is_absent_is_gone<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    for account_is_known in [false, true] {
        if account_is_known {
            desk.fill().await;
        }
        let fence = desk.fence(9 + u8::from(account_is_known), 1);
        // Confirmed in this life of the data and absent now: it was not lost, it ended (rule 7).
        assert_eq!(
            changes(&desk, fence).await,
            (Held::Gone(None), Fenced::Gone, Fenced::Gone)
        );
        assert_eq!(
            desk.inspect(fence).await,
            gone(EndCode::Stopped),
            "remembered, rule 11"
        );
        assert_eq!(
            desk.kick(9 + u8::from(account_is_known), EndCode::Displaced)
                .await,
            Fenced::Gone
        );
    }
    assert_eq!(desk.playing().await, [1, 2, 3].map(session));
}

pub(super) async fn a_kick_is_carried_out_by_the_owner<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    for code in [EndCode::EndedByOperator, EndCode::AccountBlocked] {
        assert_eq!(beside.kick(2, code).await, Fenced::Done);
        desk.told(2).await;
        // The first word stands.
        assert_eq!(
            desk.mark(fences[1]).await,
            Some(Mark::Kick(EndCode::EndedByOperator))
        );
    }
    // A slot is not free while its socket is open (rule 21), and who is going is no victim.
    assert_eq!(desk.playing().await, [1, 2, 3].map(session));
    let newcomer = beside.start(4, Wish::TakeOver(session(2)));
    let answer = beside.acquire(&newcomer).await;
    assert!(matches!(answer, Acquired::Denied { .. }), "{answer:?}");
    assert_eq!(
        desk.release(fences[1], EndCode::EndedByOperator).await,
        Fenced::Done
    );
    assert_eq!(beside.acquire(&newcomer).await, granted(3));
    // What was ended by order comes back under no epoch (rule 8).
    for epoch in [1, 2, 1_000_000] {
        let fence = desk.fence(2, epoch);
        assert_eq!(
            desk.inspect(fence).await,
            gone(EndCode::EndedByOperator),
            "{epoch}"
        );
    }
}

pub(super) async fn a_kick_stands_above_a_take_over<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let newcomer = desk.start(4, Wish::Oldest);
    assert_eq!(desk.acquire(&newcomer).await, taking_over(1));
    desk.told(1).await;
    desk.forget(1);
    assert_eq!(desk.kick(1, EndCode::EndedByOperator).await, Fenced::Done);
    desk.told(1).await;
    assert_eq!(
        desk.mark(fences[0]).await,
        Some(Mark::Kick(EndCode::EndedByOperator))
    );
    // The newcomer still has its slot by the same release.
    assert_eq!(desk.acquire(&newcomer).await, taking_over(1));
    desk.release(fences[0], EndCode::EndedByOperator).await;
    assert_eq!(desk.acquire(&newcomer).await, granted(3));
}
