//! What operators decide about an account: it stands above tokens, plans and take-overs, in every life of a session.

use usher::lease::group::{ACCOUNT, Group, Measure, Terms};
use usher::lease::model::{Acquire, Acquired, Decided, Decision, Mark, Standing, Wish};
use usher::protocol::close::EndCode;

use super::{Bench, Desk, gone, session, taking_over, waiting};

const BLOCKED: Acquired = Acquired::Ended(EndCode::AccountBlocked);

impl Desk {
    async fn decide(&self, decision: Decision) -> Decided {
        let decided = self.node.store.decide(&self.account, decision).await.unwrap();
        assert_eq!(
            self.node.store.standing(&self.account).await.unwrap(),
            decided.standing
        );
        decided
    }

    async fn limit(&self, limit: Option<u32>, enforce: bool) -> Decided {
        self.decide(Decision::Limit { limit, enforce }).await
    }
}

pub(super) async fn a_block_ends_players_and_waiters_and_lets_nobody_in<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(beside.acquire(&beside.start(4, Wish::Wait)).await, waiting(1));
    assert_eq!(
        beside.acquire(&beside.start(5, Wish::TakeOver(session(1)))).await,
        taking_over(1)
    );
    let standing = Standing {
        blocked: true,
        limit: None,
    };
    assert_eq!(
        beside.decide(Decision::Block).await,
        Decided { standing, ended: 3 }
    );
    for number in [1, 2, 3] {
        desk.told(number).await;
    }
    for number in [4, 5] {
        beside.told(number).await;
        assert_eq!(beside.acquire(&beside.start(number, Wish::Wait)).await, BLOCKED);
    }
    let kicked = Some(Mark::Kick(EndCode::AccountBlocked));
    for fence in fences {
        // Above the take-over, whose newcomer gets nothing.
        assert_eq!(desk.mark(fence).await, kicked);
        desk.release(fence, EndCode::AccountBlocked).await;
    }
    assert!(desk.playing().await.is_empty());
    for wish in [Wish::Slot, Wish::Wait, Wish::Oldest, Wish::TakeOver(session(1))] {
        assert_eq!(beside.acquire(&beside.start(6, wish)).await, BLOCKED, "{wish:?}");
    }
    assert_eq!(desk.decide(Decision::Unblock).await.standing, Standing::default());
    beside.grant(7).await;
    // What was ended stays ended.
    assert_eq!(desk.inspect(fences[0]).await, gone(EndCode::AccountBlocked));
}

pub(super) async fn a_session_granted_without_the_store_does_not_come_back_to_a_blocked_account<B: Bench>(
    bench: B,
) {
    use usher::lease::model::{Generation, Holding};
    let desk = Desk::open(&bench).await;
    desk.decide(Decision::Block).await;
    let provisional = Holding {
        generation: Generation::NONE,
        ..desk.holding(desk.fence(1, 1))
    };
    assert_eq!(
        desk.audit(&provisional).await.unwrap(),
        gone(EndCode::AccountBlocked)
    );
    assert!(desk.playing().await.is_empty());
}

pub(super) async fn an_operators_limit_counts_for_starts_waiters_and_the_surplus<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fences = desk.fill().await;
    // Below what the token says: nobody is ended by it alone.
    assert_eq!(desk.limit(Some(2), false).await.ended, 0);
    let denied = desk.acquire(&desk.start(4, Wish::Slot)).await;
    assert!(
        matches!(denied, Acquired::Denied { limit: Some(2), .. }),
        "{denied:?}"
    );
    // The newest go; who is to go already is not counted twice.
    assert_eq!(desk.limit(Some(1), true).await.ended, 2);
    assert_eq!(desk.limit(Some(1), true).await.ended, 0);
    let over = Some(Mark::Kick(EndCode::StreamLimitReached));
    assert_eq!(desk.mark(fences[0]).await, None);
    for fence in &fences[1..] {
        assert_eq!(desk.mark(*fence).await, over);
        desk.release(*fence, EndCode::StreamLimitReached).await;
    }
    assert_eq!(desk.acquire(&desk.start(5, Wish::Wait)).await, waiting(1));
    // A raised limit goes to who waits, also above what the token says.
    desk.limit(Some(4), false).await;
    desk.told(5).await;
    assert_eq!(desk.playing().await, [1, 5].map(session));
    for number in [6, 7] {
        let granted = desk.acquire(&desk.start(number, Wish::Slot)).await;
        assert!(
            matches!(granted, Acquired::Granted { limit: Some(4), .. }),
            "{granted:?}"
        );
    }
    let decided = desk.limit(None, true).await;
    assert_eq!((decided.standing, decided.ended), (Standing::default(), 0));
    let denied = desk.acquire(&desk.start(8, Wish::Slot)).await;
    assert!(
        matches!(denied, Acquired::Denied { limit: None, .. }),
        "{denied:?}"
    );
    // Nobody at all.
    assert_eq!(desk.limit(Some(0), true).await.ended, 4);
    let denied = desk.acquire(&desk.start(9, Wish::Wait)).await;
    assert!(
        matches!(denied, Acquired::Denied { limit: Some(0), .. }),
        "who may have no slot waits for none: {denied:?}"
    );
}

pub(super) async fn operators_word_stands_above_the_rules<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let on = |number, terms: &Terms| Acquire {
        terms: terms.clone(),
        ..desk.start(number, Wish::Slot)
    };
    let group = Group {
        key: "tv/tv".into(),
        limit: 1,
        measure: Measure::Sessions,
        shadow: false,
        enforce: false,
    };
    let exempt = Terms {
        exempt: true,
        ..Terms::default()
    };
    let television = Terms {
        groups: vec![group].into(),
        ..Terms::default()
    };
    for (number, terms) in [(1, &exempt), (2, &television), (3, &Terms::default())] {
        let answer = desk.acquire(&on(number, terms)).await;
        assert!(matches!(answer, Acquired::Granted { .. }), "{number}: {answer:?}");
    }
    // Of two slots that count one is to go; the exempt session takes none.
    assert_eq!(desk.limit(Some(1), true).await.ended, 1);
    desk.release(desk.fence(3, 1), EndCode::StreamLimitReached).await;
    // The narrow rule speaks first, then the total, which is the operators'.
    for (terms, rule, used) in [(&television, "tv", 1), (&Terms::default(), ACCOUNT, 1)] {
        let answer = desk.acquire(&on(4, terms)).await;
        let Acquired::Denied { refusal, limit, .. } = answer else {
            panic!("{rule}: {answer:?}");
        };
        assert_eq!((&*refusal.rule, refusal.used, refusal.limit), (rule, used, 1));
        assert_eq!(limit, Some(1));
    }
    // More than the token states: the total has room then, the rule still has none.
    desk.limit(Some(5), false).await;
    let answer = desk.acquire(&on(4, &television)).await;
    assert!(matches!(&answer, Acquired::Denied { refusal, .. } if &*refusal.rule == "tv"));
    for number in [5, 6, 7, 8] {
        desk.grant(number).await;
    }
    // Who is exempt from every rule is not from a block.
    assert_eq!(desk.decide(Decision::Block).await.ended, 6);
    assert_eq!(
        desk.mark(desk.fence(1, 1)).await,
        Some(Mark::Kick(EndCode::AccountBlocked))
    );
    assert_eq!(desk.acquire(&on(9, &exempt)).await, BLOCKED);
}
