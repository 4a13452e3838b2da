//! Audits: what a node holds is compared with what the store knows, in both directions, and repaired.

use std::collections::BTreeSet;
use std::time::Duration;

use usher::lease::account::SETTLE_MS;
use usher::lease::model::{
    Acquire, Acquired, Entry, Fence, Fenced, Generation, Held, Holding, Mark, Progress, Wish,
};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::{AccountKey, SessionId};

use super::{Bench, Desk, device, gone, granted, session, waiting, yours};

/// Another life of the data: no store draws this one.
const OTHER_LIFE: Generation = Generation(u64::MAX);

const REPAIRED: Held = Held::Yours {
    mark: None,
    repaired: true,
};

/// What this node has from another life of the data.
fn from_before(desk: &Desk, number: u8, epoch: u64) -> Holding {
    Holding {
        generation: OTHER_LIFE,
        ..desk.holding(desk.fence(number, epoch))
    }
}

pub(super) async fn an_audit_is_shown_to_others<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fence = desk.grant(1).await;
    let granted = desk.entries().await[0].clone();
    for (content, state, position_ms, watched_ms) in [
        ("next", PlayState::Playing, 90_000, 60_000),
        ("next", PlayState::Background, 120_000, 90_000),
        ("last", PlayState::Paused, 0, 90_000),
    ] {
        bench.pass(Duration::from_secs(1)).await;
        let progress = Progress {
            position_ms,
            watched_ms,
        };
        let holding = Holding {
            content: content.into(),
            state,
            progress,
            // What it has from the store is not its to change.
            started_at: 7,
            device: device(9),
            ..desk.holding(fence)
        };
        let before = desk.now().await;
        assert_eq!(desk.audit(&holding).await, Ok(yours(None)));
        let entry = desk.entries().await[0].clone();
        assert_eq!(
            (&*entry.content, entry.state, entry.progress),
            (content, state, progress)
        );
        assert!((before..=desk.now().await).contains(&entry.checkpoint));
        assert_eq!(
            (entry.fence(), entry.started_at, entry.device),
            (fence, granted.started_at, device(1))
        );
    }
}

pub(super) async fn a_stale_epoch_has_moved_and_changes_nothing<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    desk.grant(1).await;
    // The move of another life that this one lost.
    assert_eq!(beside.audit(&from_before(&beside, 1, 2)).await, Ok(REPAIRED));
    let before = desk.entries().await;
    for generation in [desk.generation, OTHER_LIFE, Generation::NONE] {
        for doubtful in [false, true] {
            let stale = Holding {
                generation,
                doubtful,
                content: "stolen".into(),
                ..desk.holding(desk.fence(1, 1))
            };
            assert_eq!(desk.audit(&stale).await, Ok(Held::Moved), "{stale:?}");
        }
    }
    assert_eq!(desk.entries().await, before);
}

pub(super) async fn what_another_life_lost_is_written_again<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let lost = Holding {
        started_at: 12_345,
        state: PlayState::Paused,
        progress: Progress {
            position_ms: 5,
            watched_ms: 4,
        },
        ..from_before(&desk, 1, 3)
    };
    assert_eq!(desk.audit(&lost).await, Ok(REPAIRED));
    desk.told_slots(1).await;
    let entry = desk.entries().await[0].clone();
    let before = Entry {
        settles: entry.settles,
        ..lost.entry(desk.generation, entry.checkpoint)
    };
    assert_eq!(entry, before, "as it was");
    assert_eq!(desk.inspect(desk.fence(1, 3)).await, yours(None));
    // It counts as any other.
    assert_eq!(desk.grant(2).await, desk.fence(2, 1));
    assert_eq!(desk.acquire(&desk.start(3, Wish::Slot)).await, granted(3));
    assert!(matches!(
        desk.acquire(&desk.start(4, Wish::Slot)).await,
        Acquired::Denied { .. }
    ));
    assert_eq!(desk.playing().await, [1, 2, 3].map(session));
}

pub(super) async fn what_another_life_lost_ends_when_its_place_is_taken<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    desk.fill().await;
    for doubtful in [false, true] {
        let number = 4 + u8::from(doubtful);
        let late = Holding {
            doubtful,
            ..from_before(&desk, number, 1)
        };
        for _ in 0..2 {
            assert_eq!(
                desk.audit(&late).await,
                Ok(gone(EndCode::LeaseLost)),
                "{doubtful}"
            );
        }
        assert_eq!(
            desk.acquire(&desk.start(number, Wish::Slot)).await,
            Acquired::Ended(EndCode::LeaseLost)
        );
    }
    // Its own limit decides.
    let more = Holding {
        limit: 4,
        ..from_before(&desk, 6, 1)
    };
    assert_eq!(desk.audit(&more).await, Ok(REPAIRED));
    assert_eq!(desk.playing().await, [1, 2, 3, 6].map(session));
}

pub(super) async fn what_was_never_confirmed_ends_as_refused_when_there_is_no_place<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let provisional = |number| Holding {
        generation: Generation::NONE,
        doubtful: true,
        ..desk.holding(desk.fence(number, 1))
    };
    for number in 1..=3 {
        assert_eq!(desk.audit(&provisional(number)).await, Ok(REPAIRED));
    }
    assert_eq!(
        desk.audit(&provisional(4)).await,
        Ok(gone(EndCode::StreamLimitReached))
    );
    assert_eq!(desk.playing().await, [1, 2, 3].map(session));
    // From now on it is confirmed.
    assert_eq!(desk.inspect(desk.fence(2, 1)).await, yours(None));
}

pub(super) async fn of_those_without_a_certain_slot_the_oldest_stay<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let began = |desk: &Desk, number: u8, started_at| Holding {
        generation: Generation::NONE,
        doubtful: true,
        started_at,
        ..desk.holding(desk.fence(number, 1))
    };
    desk.grant(1).await;
    assert_eq!(desk.audit(&began(&desk, 2, 2_000)).await, Ok(REPAIRED));
    assert_eq!(desk.audit(&began(&desk, 3, 3_000)).await, Ok(REPAIRED));
    // Another node tells of an older one: the youngest, not the one that is certain, makes place.
    assert_eq!(beside.audit(&began(&beside, 4, 1_000)).await, Ok(REPAIRED));
    desk.told(3).await;
    assert_eq!(desk.playing().await, [1, 2, 4].map(session));
    let ended = gone(EndCode::StreamLimitReached);
    assert_eq!(desk.inspect(desk.fence(3, 1)).await, ended);
    assert_eq!(
        beside.audit(&began(&beside, 5, 2_000)).await,
        Ok(ended.clone()),
        "as old is not older"
    );
    // Later they are as certain as any other.
    bench.pass(Duration::from_millis(SETTLE_MS)).await;
    assert_eq!(beside.audit(&began(&beside, 6, 500)).await, Ok(ended));
    assert_eq!(desk.playing().await, [1, 2, 4].map(session));
}

pub(super) async fn what_has_ended_is_not_written_again<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let fence = desk.grant(1).await;
    desk.release(fence, EndCode::Stopped).await;
    for generation in [desk.generation, OTHER_LIFE, Generation::NONE] {
        let late = Holding {
            generation,
            ..desk.holding(fence)
        };
        assert_eq!(
            desk.audit(&late).await,
            Ok(gone(EndCode::Stopped)),
            "{generation:?}"
        );
    }
    assert!(desk.playing().await.is_empty());
    // The end of an earlier epoch says nothing about a later one (rule 8).
    assert_eq!(desk.audit(&from_before(&desk, 1, 2)).await, Ok(REPAIRED));
    assert_eq!(desk.playing().await, [session(1)]);
}

pub(super) async fn sessions_are_audited_together<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let (store, owner) = (&desk.node.store, desk.node.owner);
    let mut question = Vec::new();
    let mut expected = Vec::new();
    for one in desk.sisters().take(25) {
        one.grant(1).await;
        one.grant(2).await;
        let holding = |number, epoch| Holding {
            progress: Progress {
                position_ms: 1,
                watched_ms: 2,
            },
            ..one.holding(one.fence(number, epoch))
        };
        one.kick(1, EndCode::AccountBlocked).await;
        let kick = Some(Mark::Kick(EndCode::AccountBlocked));
        for (held, verdict) in [
            (holding(1, 1), yours(kick)),
            (holding(3, 1), Held::Gone(None)),
            (holding(2, 0), Held::Moved),
            (holding(2, 1), yours(None)),
        ] {
            question.push((one.account.clone(), held));
            expected.push(verdict);
        }
    }
    assert_eq!(question.len(), 100);
    let audited = store.audit(desk.bucket(), owner, &question).await.unwrap();
    assert_eq!(audited.generation, desk.generation);
    assert_eq!(audited.verdicts, expected);
    for (account, _) in question.iter().step_by(4) {
        let entries = store.list(account).await.unwrap();
        let watched: Vec<_> = entries.iter().map(|entry| entry.progress.watched_ms).collect();
        assert_eq!(watched, [2, 2]);
    }
    assert_eq!(beside.renew().await.count, 0);
    assert_eq!(desk.renew().await.count, 50);
}

pub(super) async fn what_a_node_holds_is_told_in_pages<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let (store, owner) = (&desk.node.store, desk.node.owner);
    assert_eq!(store.owned(desk.bucket(), owner, None).await, Ok(vec![]));
    let mut expected = BTreeSet::new();
    // In several accounts, and the same session ids in each.
    for one in desk.sisters().take(5) {
        for number in 0..50 {
            let request = Acquire {
                limit: 100,
                ..desk.start(number, Wish::Slot)
            };
            assert_eq!(one.acquire(&request).await, granted(u32::from(number) + 1));
            expected.insert((one.account.clone(), session(number)));
        }
        let others = Acquire {
            limit: 100,
            ..beside.start(100, Wish::Slot)
        };
        assert_eq!(one.acquire(&others).await, granted(51));
    }
    // Another bucket's are not this one's.
    let elsewhere = (0..)
        .map(|number| AccountKey::new("main", &format!("elsewhere{number}")))
        .find(|account| store.bucket(account) != desk.bucket());
    desk.at(elsewhere.unwrap()).grant(1).await;
    // A waiter holds nothing.
    let waiter = Acquire {
        limit: 1,
        ..desk.start(200, Wish::Wait)
    };
    let full = desk.sisters().next().unwrap();
    assert_eq!(full.acquire(&waiter).await, waiting(1));

    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.owned(desk.bucket(), owner, after.as_ref()).await.unwrap();
        assert!(page.len() <= 100, "{}", page.len());
        let Some((account, fence)) = page.last() else {
            break;
        };
        after = Some((account.clone(), fence.session));
        for (account, fence) in page {
            assert_eq!((fence.owner, fence.epoch), (owner, 1));
            found.push((account, fence.session));
        }
    }
    assert_eq!(found.len(), 250, "each once");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(desk.renew().await.count, 250);
}

pub(super) async fn a_stranger_is_released<B: Bench>(bench: B) {
    let desk = Desk::open(&bench).await;
    let beside = desk.beside(&bench).await;
    let fences = desk.fill().await;
    assert_eq!(beside.acquire(&beside.start(4, Wish::Wait)).await, waiting(1));
    let stranger = |fence: Fence| Holding::stranger(fence);
    let foreign = Fence {
        owner: beside.node.owner,
        ..fences[0]
    };
    assert_eq!(
        beside.end(&stranger(foreign), EndCode::LeaseLost).await,
        Fenced::NotYours
    );
    assert_eq!(
        desk.end(&stranger(fences[0]), EndCode::LeaseLost).await,
        Fenced::Done
    );
    beside.told(4).await;
    assert_eq!(desk.playing().await, [2, 3, 4].map(session));
    assert_eq!(desk.inspect(fences[0]).await, gone(EndCode::LeaseLost));
    // One that is not there cannot come any more.
    let absent = Fence {
        session: SessionId::from_bytes([77; 16]),
        ..fences[0]
    };
    assert_eq!(
        desk.end(&stranger(absent), EndCode::LeaseLost).await,
        Fenced::Gone
    );
    assert_eq!(
        desk.acquire(&desk.start(77, Wish::Slot)).await,
        Acquired::Ended(EndCode::LeaseLost)
    );
}
