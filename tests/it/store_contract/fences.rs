//! Fences, updates and kicks: who may change a session (I4).

use usher::lease::model::{Fence, Fenced, Held, Mark, Resume, Resumed, Wish};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::Attempt;

use super::{Bench, Desk, device, granted, session, taking_over};

/// Every fenced change under this fence.
async fn changes(desk: &Desk, fence: Fence) -> [Fenced; 3] {
    let (store, account) = (&desk.node.store, &desk.account);
    [
        store
            .update(account, fence, Some(&"stolen".into()), Some(PlayState::Paused))
            .await
            .unwrap(),
        store.refuse(account, fence).await.unwrap(),
        store.release(account, fence, EndCode::Stopped).await.unwrap(),
    ]
}

pub(super) async fn only_the_present_owner_and_epoch_change_a_session<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.fill().await;
    let request = Resume {
        session: session(1),
        owner: desk.node.owner,
        device: None,
        content: "m1".into(),
        attempt: Attempt(1),
    };
    let resumed = desk.node.store.resume(&desk.account, &request).await.unwrap();
    assert!(matches!(resumed, Resumed::Moved { .. }));
    let before = desk.node.store.list(&desk.account).await.unwrap();
    for fence in [
        desk.fence(1, 1),
        desk.fence(1, 3),
        beside.fence(1, 2),
        beside.fence(1, 1),
    ] {
        assert_eq!(changes(&desk, fence).await, [Fenced::NotYours; 3], "{fence:?}");
        assert_eq!(desk.inspect(fence).await, Held::Moved, "{fence:?}");
    }
    assert_eq!(desk.node.store.list(&desk.account).await.unwrap(), before);
    assert_eq!(desk.inspect(desk.fence(1, 2)).await, Held::Yours { mark: None });
    assert_eq!(
        changes(&desk, desk.fence(1, 2)).await,
        [Fenced::Done, Fenced::Gone, Fenced::Done]
    );
    assert_eq!(desk.playing().await, [2, 3].map(session));
}

pub(super) async fn what_is_absent_is_gone<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    for account_is_known in [false, true] {
        if account_is_known {
            desk.fill().await;
        }
        let fence = desk.fence(9 + u8::from(account_is_known), 1);
        assert_eq!(desk.inspect(fence).await, Held::Gone(None));
        assert_eq!(changes(&desk, fence).await, [Fenced::Gone; 3]);
        assert_eq!(
            desk.inspect(fence).await,
            Held::Gone(Some(EndCode::Stopped)),
            "remembered, rule 11"
        );
        let kick = desk
            .node
            .store
            .mark(&desk.account, fence.session, EndCode::Displaced)
            .await;
        assert_eq!(kick, Ok(Fenced::Gone));
    }
    assert_eq!(desk.playing().await, [1, 2, 3].map(session));
}

pub(super) async fn an_update_is_shown_to_others<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fence = desk.grant(1).await;
    let (store, account) = (&desk.node.store, &desk.account);
    let content = "next".into();
    for (content, state, expected) in [
        (Some(&content), None, ("next", PlayState::Playing)),
        (None, Some(PlayState::Background), ("next", PlayState::Background)),
        (None, None, ("next", PlayState::Background)),
    ] {
        assert_eq!(
            store.update(account, fence, content, state).await,
            Ok(Fenced::Done)
        );
        let entry = &store.list(account).await.unwrap()[0];
        assert_eq!((&*entry.content, entry.state), expected);
        assert_eq!((entry.fence(), &entry.device), (fence, &device(1)));
    }
}

pub(super) async fn a_kick_is_carried_out_by_the_owner<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    for code in [EndCode::EndedByOperator, EndCode::AccountBlocked] {
        let kick = beside.node.store.mark(&beside.account, session(2), code).await;
        assert_eq!(kick, Ok(Fenced::Done));
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
    assert!(
        matches!(answer, usher::lease::model::Acquired::Denied { .. }),
        "{answer:?}"
    );
    assert_eq!(
        desk.release(fences[1], EndCode::EndedByOperator).await,
        Fenced::Done
    );
    assert_eq!(beside.acquire(&newcomer).await, granted(3));
}

pub(super) async fn a_kick_stands_above_a_take_over<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    let newcomer = desk.start(4, Wish::Oldest);
    assert_eq!(desk.acquire(&newcomer).await, taking_over(1));
    desk.told(1).await;
    desk.forget(1);
    let kick = desk
        .node
        .store
        .mark(&desk.account, session(1), EndCode::EndedByOperator)
        .await;
    assert_eq!(kick, Ok(Fenced::Done));
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
