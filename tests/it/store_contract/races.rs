//! Many at once: every operation is atomic for its account.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use usher::lease::group::Terms;
use usher::lease::model::{Acquired, Fenced, Resume, Resumed, Wish};
use usher::protocol::close::EndCode;
use usher::protocol::id::{Attempt, OwnerId};

use super::{Bench, Desk, session};

/// Runs `task` for each number, on all threads at once; the answers in the order of the numbers.
async fn together<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: u8,
    task: impl Fn(u8) -> F,
) -> Vec<T> {
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(task(number))).collect();
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

pub(super) async fn two_hundred_starts_grant_exactly_the_limit<B: Bench>(bench: B) {
    let desk = Arc::new(Desk::open(&bench).await);
    let answers = together(200, |number| {
        let desk = Arc::clone(&desk);
        async move { desk.acquire(&desk.start(number, Wish::Slot)).await }
    })
    .await;
    let mut used: Vec<u32> = answers
        .iter()
        .filter_map(|answer| match answer {
            Acquired::Granted { used, .. } => Some(*used),
            _ => None,
        })
        .collect();
    used.sort_unstable();
    assert_eq!(used, [1, 2, 3]);
    let playing = desk.playing().await;
    assert_eq!(playing.len(), 3);
    for answer in answers {
        if let Acquired::Denied { holders, .. } = answer {
            // I2: all three were there already when the first was refused.
            let named: Vec<_> = holders.iter().map(|entry| entry.session).collect();
            assert_eq!(named, playing);
        }
    }
}

pub(super) async fn one_start_many_times_is_one_session<B: Bench>(bench: B) {
    let desk = Arc::new(Desk::open(&bench).await);
    let answers = together(50, |_| {
        let desk = Arc::clone(&desk);
        async move { desk.acquire(&desk.start(1, Wish::Slot)).await }
    })
    .await;
    assert!(
        answers.iter().all(|answer| *answer == super::granted(1)),
        "{answers:?}"
    );
    assert_eq!(desk.playing().await, [session(1)]);
}

pub(super) async fn resumes_at_once_have_an_epoch_each<B: Bench>(bench: B) {
    let desk = Arc::new(Desk::open(&bench).await);
    desk.grant(1).await;
    let answers = together(40, |number| {
        let desk = Arc::clone(&desk);
        async move {
            let request = Resume {
                session: session(1),
                expected: 0,
                above: 0,
                owner: desk.node.owner,
                device: None,
                content: "m".into(),
                limit: 3,
                terms: Terms::default(),
                attempt: Attempt(number.into()),
            };
            // Found first, then moved from there, until nobody else was faster.
            let mut request = request;
            loop {
                match desk.node.store.resume(&desk.account, &request).await.unwrap() {
                    Resumed::At { epoch, .. } => request.expected = epoch,
                    answer => return answer,
                }
            }
        }
    })
    .await;
    let epochs: BTreeSet<u64> = answers
        .iter()
        .map(|answer| match answer {
            Resumed::Moved { entry, used: 1, .. } => entry.epoch,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(epochs, (2..42).collect());
    assert_eq!(desk.playing().await, [session(1)]);
}

pub(super) async fn slots_that_come_and_go_never_exceed_the_limit<B: Bench>(bench: B) {
    let desk = Arc::new(Desk::open(&bench).await);
    let grants = together(24, |number| {
        let desk = Arc::clone(&desk);
        async move {
            let mut grants = 0;
            for round in 0..10 {
                // A session id of its own in every round: an ended one does not come back.
                let id = number * 10 + round;
                let mut request = desk.start(id, Wish::Slot);
                request.device = super::device(number);
                match desk.acquire(&request).await {
                    Acquired::Granted { used, .. } => {
                        assert!(used <= 3, "I1: {used}");
                        grants += 1;
                        let strangers = usher::lease::model::Fence {
                            owner: OwnerId(0),
                            ..desk.fence(id, 1)
                        };
                        assert_eq!(desk.release(strangers, EndCode::Stopped).await, Fenced::NotYours);
                        assert_eq!(
                            desk.release(desk.fence(id, 1), EndCode::Stopped).await,
                            Fenced::Done
                        );
                    }
                    Acquired::Denied { holders, .. } => assert_eq!(holders.len(), 3, "I2"),
                    other => panic!("{other:?}"),
                }
            }
            grants
        }
    })
    .await;
    assert!(grants.iter().sum::<u32>() >= 3);
    assert!(desk.playing().await.is_empty());
}
