//! What every store must do: one suite, run by each twin.
//!
//! A store joins with a [`Bench`] and one line `store_contract!(name, ItsBench)`. The tests speak only through the
//! store interface and wait for word, which may come late; they never expect that no word comes.

mod fences;
mod histories;
mod line;
mod races;
mod resumes;
mod starts;
mod takeovers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use usher::lease::memory::Memory;
use usher::lease::model::{Acquire, Acquired, Device, Fence, Fenced, Held, Mark, Wish};
use usher::lease::store::{Mailbox, Store};
use usher::protocol::close::EndCode;
use usher::protocol::id::{AccountKey, OwnerId, SessionId};

use crate::harness::SOON;

/// A store under test, fresh and empty for each test.
pub(crate) trait Bench: Sized + 'static {
    /// Random histories of each kind.
    const HISTORIES: u32;
    /// Runs a test that lets time pass.
    fn run(test: impl AsyncFnOnce(Self));
    /// Runs a test on several threads. It does not let time pass.
    fn race(test: impl AsyncFnOnce(Self));
    /// One more process that shares the slots, under an owner of its own.
    async fn node(&self) -> Node;
    /// Lets this much of the store's time pass. Every node's own lease is kept meanwhile; nobody else's is.
    async fn pass(&self, time: Duration);
}

/// A process, as its store knows it.
pub(crate) struct Node {
    pub(crate) owner: OwnerId,
    pub(crate) store: Arc<dyn Store>,
    /// The word that comes to this process; that of others may come here too.
    pub(crate) mail: Arc<Mail>,
}

/// Keeps the word that a store sends.
#[derive(Default)]
pub(crate) struct Mail {
    looks: Mutex<Vec<(AccountKey, OwnerId, SessionId)>>,
    slots: Mutex<Vec<(AccountKey, u32)>>,
}

impl Mailbox for Mail {
    fn look(&self, account: &AccountKey, owner: OwnerId, session: SessionId) {
        self.looks.lock().unwrap().push((account.clone(), owner, session));
    }

    fn slots(&self, account: &AccountKey, used: u32) {
        self.slots.lock().unwrap().push((account.clone(), used));
    }
}

/// One account in a test, through one node.
pub(crate) struct Desk {
    pub(crate) node: Node,
    pub(crate) account: AccountKey,
}

/// Places in the line, unless a test says otherwise.
const LINE: u32 = 3;

impl Desk {
    async fn open(bench: &impl Bench) -> Self {
        Self {
            node: bench.node().await,
            account: AccountKey::new("main", "a"),
        }
    }

    /// The same account through another node.
    async fn beside(&self, bench: &impl Bench) -> Self {
        Self {
            node: bench.node().await,
            account: self.account.clone(),
        }
    }

    /// A start of player `number`: its session, on a device of its own, at a limit of three.
    fn start(&self, number: u8, wish: Wish) -> Acquire {
        Acquire {
            session: session(number),
            owner: self.node.owner,
            device: device(number),
            content: format!("m{number}").into(),
            limit: 3,
            wish,
            consent: false,
            line: LINE,
        }
    }

    async fn acquire(&self, request: &Acquire) -> Acquired {
        self.node.store.acquire(&self.account, request).await.unwrap()
    }

    /// Asks for this player's slot and must get it.
    async fn grant(&self, number: u8) -> Fence {
        let request = self.start(number, Wish::Slot);
        let answer = self.acquire(&request).await;
        assert!(matches!(answer, Acquired::Granted { .. }), "{number}: {answer:?}");
        self.fence(number, 1)
    }

    /// Players 1, 2 and 3 play.
    async fn fill(&self) -> [Fence; 3] {
        [self.grant(1).await, self.grant(2).await, self.grant(3).await]
    }

    fn fence(&self, number: u8, epoch: u64) -> Fence {
        Fence {
            session: session(number),
            owner: self.node.owner,
            epoch,
        }
    }

    async fn release(&self, fence: Fence, code: EndCode) -> Fenced {
        self.node.store.release(&self.account, fence, code).await.unwrap()
    }

    async fn inspect(&self, fence: Fence) -> Held {
        self.node.store.inspect(&self.account, fence).await.unwrap()
    }

    async fn mark(&self, fence: Fence) -> Option<Mark> {
        match self.inspect(fence).await {
            Held::Yours { mark } => mark,
            other => panic!("{fence:?} is {other:?}"),
        }
    }

    /// Who plays, in the order of the grants.
    async fn playing(&self) -> Vec<SessionId> {
        let entries = self.node.store.list(&self.account).await.unwrap();
        entries.iter().map(|entry| entry.session).collect()
    }

    /// Waits until this node was told to look at the player's session, and forgets that it was.
    async fn told(&self, number: u8) {
        let word = (self.account.clone(), self.node.owner, session(number));
        let came = || {
            let mut looks = self.node.mail.looks.lock().unwrap();
            let before = looks.len();
            looks.retain(|look| *look != word);
            looks.len() < before
        };
        wait(&format!("word about {number}"), came).await;
    }

    /// Forgets what was told so far about the player's session.
    fn forget(&self, number: u8) {
        self.node
            .mail
            .looks
            .lock()
            .unwrap()
            .retain(|look| look.2 != session(number));
    }

    /// Waits until the last word about the account's slots is this.
    async fn told_slots(&self, used: u32) {
        let last = || {
            let slots = self.node.mail.slots.lock().unwrap();
            let of_account = slots.iter().rfind(|(account, _)| *account == self.account);
            of_account.is_some_and(|(_, last)| *last == used)
        };
        wait(&format!("{used} slots"), last).await;
    }
}

async fn wait(what: &str, mut came: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !came() {
        assert!(tokio::time::Instant::now() < deadline, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn session(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

fn device(number: u8) -> Arc<Device> {
    Arc::new(Device {
        id: format!("d{number}").into(),
        name: Some(format!("Device {number}").into()),
        class: None,
    })
}

const fn granted(used: u32) -> Acquired {
    Acquired::Granted {
        used,
        replaced: false,
    }
}

const fn waiting(position: u32) -> Acquired {
    Acquired::Waiting {
        position,
        taking_over: false,
    }
}

const fn taking_over(position: u32) -> Acquired {
    Acquired::Waiting {
        position,
        taking_over: true,
    }
}

/// Declares the suite for one bench. A new test is added here once, and every store runs it.
macro_rules! store_contract {
    ($name:ident, $bench:ty) => {
        store_contract!(@tests $name, $bench, run: [
            starts::the_limit_is_kept_and_the_refused_is_told_who_plays,
            starts::the_limit_is_the_requests_own,
            starts::a_repeated_start_changes_nothing,
            starts::what_has_ended_does_not_come_back,
            starts::a_release_before_its_acquire_wins,
            starts::the_same_device_replaces_its_own_session,
            starts::a_device_that_waits_is_replaced_too,
            starts::accounts_and_tenants_never_meet,
            starts::an_account_is_listed_while_somebody_plays,
            starts::everybody_hears_how_many_slots_are_taken,
            line::first_come_first_served,
            line::the_line_is_bounded,
            line::a_waiter_that_stops_asking_is_skipped,
            line::a_slot_goes_to_the_first_waiter_whose_limit_allows_it,
            line::a_waiter_may_leave,
            line::takers_stand_before_waiters,
            takeovers::the_oldest_is_marked_and_its_release_grants_the_newcomer,
            takeovers::a_chosen_victim,
            takeovers::a_victim_is_taken_over_once,
            takeovers::a_repeated_take_over_marks_no_second_victim,
            takeovers::a_victim_may_refuse,
            takeovers::a_question_is_withdrawn_with_its_asker,
            takeovers::a_question_ends_with_an_asker_that_falls_silent,
            takeovers::an_asker_whose_limit_rises_needs_no_victim,
            takeovers::a_victim_that_was_not_asked_ends_also_without_newcomer,
            resumes::a_session_moves_under_the_next_epoch,
            resumes::a_repeated_resume_gets_the_same_answer,
            resumes::only_the_sessions_device_resumes_it,
            resumes::nothing_is_resumed_that_has_ended,
            resumes::a_resume_of_a_kicked_session_ends_it,
            resumes::a_resume_of_a_victim_ends_it_and_hands_over,
            resumes::a_resume_takes_an_open_question_along,
            fences::only_the_present_owner_and_epoch_change_a_session,
            fences::what_is_absent_is_gone,
            fences::an_update_is_shown_to_others,
            fences::a_kick_is_carried_out_by_the_owner,
            fences::a_kick_stands_above_a_take_over,
        ] race: [
            races::two_hundred_starts_grant_exactly_the_limit,
            races::one_start_many_times_is_one_session,
            races::resumes_at_once_have_an_epoch_each,
            races::slots_that_come_and_go_never_exceed_the_limit,
        ] each: [
            histories::answers_are_those_of_the_rules,
            histories::answers_are_those_of_a_simple_queue,
        ]);
    };
    (@tests $name:ident, $bench:ty,
     run: [$($room:ident :: $run:ident,)*] race: [$($races:ident :: $race:ident,)*] each: [$($histories:ident :: $each:ident,)*]) => {
        mod $name {
            use super::*;

            $(#[test] fn $run() { <$bench>::run($room::$run::<$bench>); })*
            $(#[test] fn $race() { <$bench>::race($races::$race::<$bench>); })*
            $(#[test] fn $each() { $histories::$each::<$bench>(); })*
        }
    };
}

store_contract!(memory, MemoryBench);

/// The memory store under a paused clock: time passes only when a test says so.
pub(crate) struct MemoryBench {
    store: Arc<Memory>,
    mail: Arc<Mail>,
    nodes: std::cell::Cell<u64>,
}

impl MemoryBench {
    fn new() -> Self {
        let mail = Arc::new(Mail::default());
        Self {
            store: Arc::new(Memory::new(mail.clone())),
            mail,
            nodes: std::cell::Cell::new(0),
        }
    }
}

impl Bench for MemoryBench {
    const HISTORIES: u32 = 400;

    fn run(test: impl AsyncFnOnce(Self)) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async { test(Self::new()).await });
    }

    fn race(test: impl AsyncFnOnce(Self)) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().worker_threads(4).build().unwrap();
        runtime.block_on(async { test(Self::new()).await });
    }

    async fn node(&self) -> Node {
        self.nodes.set(self.nodes.get() + 1);
        Node {
            owner: OwnerId(self.nodes.get()),
            store: self.store.clone(),
            mail: self.mail.clone(),
        }
    }

    async fn pass(&self, time: Duration) {
        // As often as a node does its upkeep.
        const UPKEEP: Duration = Duration::from_millis(2_500);
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() + UPKEEP < end {
            tokio::time::advance(UPKEEP).await;
            self.store.renew().await.unwrap();
        }
        tokio::time::advance(end - tokio::time::Instant::now()).await;
    }
}
