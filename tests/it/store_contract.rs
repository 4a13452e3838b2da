//! What every store must do: one suite, run by each twin.
//!
//! A store joins with a [`Bench`] and one line `store_contract!(name, ItsBench)`. The tests speak only through the
//! store interface and wait for word, which may come late; they never expect that no word comes.

mod audits;
mod beats;
mod bench;
mod decisions;
mod fences;
mod histories;
mod leases;
mod line;
mod races;
mod redis_bench;
mod resumes;
mod starts;
mod takeovers;
mod twin;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use usher::lease::group::Terms;
use usher::lease::memory::Memory;
use usher::lease::model::{
    Acquire, Acquired, Device, Entry, Fence, Fenced, Generation, Held, Holding, Mark, Millis, NotNow, Order,
    Renewed, Wish,
};
use usher::lease::store::{Mailbox, StoreError};
use usher::protocol::close::EndCode;
use usher::protocol::id::{AccountKey, OwnerId, SessionId};

use crate::harness::SOON;

pub(crate) use bench::{Bench, Kept, Node};

/// What a node is told whose own lease in the bucket is not live.
const RENEW_FIRST: StoreError = StoreError::NotNow(NotNow::RenewFirst);

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
    /// The life of the account's bucket when the desk was opened; it is the same to the end of a test.
    pub(crate) generation: Generation,
}

/// Places in the line, unless a test says otherwise.
const LINE: u32 = 3;

impl Desk {
    async fn open(bench: &impl Bench) -> Self {
        Self::of(bench.node().await, AccountKey::new("main", "a")).await
    }

    async fn of(node: Node, account: AccountKey) -> Self {
        let bucket = node.store.bucket(&account);
        let generation = node.store.renew(bucket, node.owner).await.unwrap().generation;
        assert_ne!(generation, Generation::NONE);
        Self {
            node,
            account,
            generation,
        }
    }

    /// The same account through another node.
    async fn beside(&self, bench: &impl Bench) -> Self {
        Self::of(bench.node().await, self.account.clone()).await
    }

    /// Another account through this node, in the same bucket.
    fn at(&self, account: AccountKey) -> Self {
        Self {
            node: self.node.clone(),
            account,
            generation: self.generation,
        }
    }

    /// Other accounts of this bucket.
    fn sisters(&self) -> impl Iterator<Item = Self> {
        let names = (0..).map(|number: u32| AccountKey::new("main", &format!("sister{number}")));
        let sisters = names.filter(|account| self.node.store.bucket(account) == self.bucket());
        sisters.map(|account| self.at(account))
    }

    fn bucket(&self) -> u16 {
        self.node.store.bucket(&self.account)
    }

    /// Renews the node's lease in the account's bucket.
    async fn renew(&self) -> Renewed {
        self.node
            .store
            .renew(self.bucket(), self.node.owner)
            .await
            .unwrap()
    }

    /// The store's clock, told by another bucket: nothing happens in this one.
    async fn now(&self) -> Millis {
        let other = (self.bucket() + 1) % self.node.store.buckets();
        assert_ne!(
            other,
            self.bucket(),
            "a store under test has two buckets at least"
        );
        self.node.store.renew(other, self.node.owner).await.unwrap().now
    }

    /// A start of player `number`: its session, on a device of its own, at a limit of three.
    fn start(&self, number: u8, wish: Wish) -> Acquire {
        Acquire {
            session: session(number),
            owner: self.node.owner,
            device: device(number),
            content: format!("m{number}").into(),
            limit: 3,
            terms: Terms::default(),
            wish,
            consent: false,
            line: LINE,
            period: None,
        }
    }

    /// The answer to a start, without what [`granted`] cannot know: when, and in which life of the data. A test of
    /// its own looks at those.
    async fn acquire(&self, request: &Acquire) -> Acquired {
        plain(self.node.store.acquire(&self.account, request).await.unwrap())
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

    /// What a node that has player `number` under this fence knows of it: it plays as it started, and the store has
    /// confirmed it in its present life.
    fn holding(&self, fence: Fence) -> Holding {
        let player = (0..=u8::MAX).find(|number| session(*number) == fence.session);
        let request = self.start(player.unwrap(), Wish::Slot);
        Holding {
            fence,
            ..Holding::new(&request, self.generation, 1)
        }
    }

    async fn release(&self, fence: Fence, code: EndCode) -> Fenced {
        self.end(&self.holding(fence), code).await
    }

    async fn end(&self, holding: &Holding, code: EndCode) -> Fenced {
        self.node
            .store
            .release(&self.account, holding, code)
            .await
            .unwrap()
    }

    /// Audits one session on behalf of whoever its fence names.
    async fn audit(&self, holding: &Holding) -> Result<Held, StoreError> {
        let question = [(self.account.clone(), holding.clone())];
        let owner = holding.fence.owner;
        let audited = self.node.store.audit(self.bucket(), owner, &question).await?;
        assert_eq!((audited.verdicts.len(), audited.generation), (1, self.generation));
        Ok(audited.verdicts[0].clone())
    }

    /// What became of the session under this fence. It confirms that the player plays as it started.
    async fn inspect(&self, fence: Fence) -> Held {
        self.audit(&self.holding(fence)).await.unwrap()
    }

    async fn mark(&self, fence: Fence) -> Option<Mark> {
        match self.inspect(fence).await {
            Held::Yours {
                mark,
                repaired: false,
            } => mark,
            other => panic!("{fence:?} is {other:?}"),
        }
    }

    async fn order(&self, order: Order) -> Fenced {
        self.node.store.order(&self.account, order).await.unwrap()
    }

    async fn kick(&self, number: u8, code: EndCode) -> Fenced {
        let session = session(number);
        self.order(Order::Kick { session, code }).await
    }

    async fn refuse(&self, fence: Fence) -> Fenced {
        self.order(Order::Refuse(fence)).await
    }

    async fn entries(&self) -> Vec<Entry> {
        self.node.store.list(&self.account).await.unwrap()
    }

    /// Who plays, in the order of the grants.
    async fn playing(&self) -> Vec<SessionId> {
        self.entries().await.iter().map(|entry| entry.session).collect()
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
        plan: None,
    })
}

fn plain(answer: Acquired) -> Acquired {
    match answer {
        Acquired::Granted {
            used,
            replaced,
            limit,
            shadowed,
            ..
        } => Acquired::Granted {
            used,
            replaced,
            generation: Generation::NONE,
            started_at: 0,
            limit,
            shadowed,
        },
        other => other,
    }
}

const fn granted(used: u32) -> Acquired {
    Acquired::Granted {
        used,
        replaced: false,
        generation: Generation::NONE,
        started_at: 0,
        limit: None,
        shadowed: Vec::new(),
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

const fn yours(mark: Option<Mark>) -> Held {
    Held::Yours {
        mark,
        repaired: false,
    }
}

const fn gone(code: EndCode) -> Held {
    Held::Gone(Some(code))
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
            starts::a_grant_tells_its_time_and_the_life_of_the_data,
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
            resumes::a_resume_credits_what_was_watched,
            resumes::a_repeated_resume_gets_the_same_answer,
            resumes::only_the_sessions_device_resumes_it,
            resumes::nothing_is_resumed_that_has_ended,
            resumes::a_resume_of_a_kicked_session_does_not_bring_it_back,
            resumes::a_resume_of_a_victim_does_not_bring_it_back,
            resumes::a_resume_takes_an_open_question_along,
            resumes::a_resume_from_another_epoch_is_told_the_present_one,
            resumes::the_same_attempt_is_answered_before_its_epoch_is_looked_at,
            decisions::a_block_ends_players_and_waiters_and_lets_nobody_in,
            decisions::a_session_granted_without_the_store_does_not_come_back_to_a_blocked_account,
            decisions::an_operators_limit_counts_for_starts_waiters_and_the_surplus,
            decisions::operators_word_stands_above_the_rules,
            beats::a_session_without_a_socket_lives_by_its_heartbeats,
            beats::a_heartbeat_counts_on_any_node_and_outlives_all_of_them,
            beats::whoever_takes_its_slot_has_it_at_once,
            beats::its_end_is_told_by_the_next_heartbeat,
            beats::only_its_own_device_and_account_keep_or_end_it,
            beats::a_socket_takes_it_over_and_heartbeats_end,
            beats::sockets_and_heartbeats_compete_for_the_same_slots,
            fences::only_the_present_owner_and_epoch_change_a_session,
            fences::what_is_absent_is_gone,
            fences::a_higher_epoch_wins,
            fences::a_kick_is_carried_out_by_the_owner,
            fences::a_kick_stands_above_a_take_over,
            audits::an_audit_is_shown_to_others,
            audits::a_stale_epoch_has_moved_and_changes_nothing,
            audits::what_another_life_lost_is_written_again,
            audits::what_another_life_lost_ends_when_its_place_is_taken,
            audits::what_was_never_confirmed_ends_as_refused_when_there_is_no_place,
            audits::of_those_without_a_certain_slot_the_oldest_stay,
            audits::what_has_ended_is_not_written_again,
            audits::sessions_are_audited_together,
            audits::what_a_node_holds_is_told_in_pages,
            audits::a_stranger_is_released,
            leases::a_node_whose_lease_lapsed_renews_first,
            leases::what_a_dead_node_held_is_free_for_the_next_start,
            leases::what_a_dead_node_held_goes_to_those_who_wait,
            leases::a_renewal_purges_what_dead_nodes_left,
            leases::the_waiter_of_a_dead_node_is_skipped,
            leases::a_taker_has_the_slot_of_a_victim_whose_node_died,
            leases::the_end_of_a_kicked_session_keeps_its_code_when_its_node_died,
            leases::a_session_of_a_dead_node_may_be_resumed_elsewhere,
            leases::what_was_purged_is_not_resumed,
            leases::a_lease_begins_anew_only_after_it_ran_out,
            leases::a_renewal_tells_what_the_node_holds,
            leases::the_nodes_leases_are_told,
            leases::a_renewal_tells_which_sessions_are_to_end,
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
store_contract!(redis, redis_bench::RedisBench);

/// The memory store under a paused clock: time passes only when a test says so.
pub(crate) struct MemoryBench {
    store: Arc<Memory>,
    mail: Arc<Mail>,
    kept: Kept,
}

impl MemoryBench {
    fn new() -> Self {
        let mail = Arc::new(Mail::default());
        Self {
            store: Arc::new(Memory::new(mail.clone())),
            mail,
            kept: Kept::default(),
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

    async fn join(&self) -> Node {
        Node {
            owner: self.kept.next_owner(),
            store: self.store.clone(),
            mail: self.mail.clone(),
        }
    }

    fn kept(&self) -> &Kept {
        &self.kept
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::advance(time).await;
    }
}
