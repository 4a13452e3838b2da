//! From the open socket to the grant: resume, acquire, ask, wait.
//!
//! Over 400 lines: one way with its refusals, told in order; none of its steps is used elsewhere.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::config::Mode;
use crate::lease::model::{Acquired, Device, Entry, Generation, Holding, Refusal, Resume, Resumed, Wish};
use crate::lease::policy::shadow_label;
use crate::protocol::client::{ClientMessage, decode};
use crate::protocol::close::EndCode;
use crate::protocol::id::{Attempt, ResumeSecret, random};
use crate::protocol::server::{ErrorCode, ServerMessage, Slots};
use crate::telemetry::{Admission, Counted};

use super::ending::Ending;
use super::line::{Event, Line, Over};
use super::seat::{Drain, News, Word};
use super::session::Session;

/// A take-over that asks nobody is over in milliseconds; only a slower one is announced with `waiting`.
const QUIET_TAKEOVER: Duration = Duration::from_millis(500);

/// A waiter asks again after 2 to 4 s (rule 17: word may get lost).
const POLL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(2));

/// What a refused player chose.
struct Choice {
    wish: Wish,
    id: Option<Box<RawValue>>,
}

impl Session {
    /// Brings the player to its grant.
    ///
    /// # Errors
    /// How the socket is to end when there is none.
    pub(super) async fn start(&mut self, line: &mut Line) -> Result<(), Ending> {
        let asked_at = Instant::now();
        if let Some(provisional) = self.resume().await? {
            self.count(Admission::Resumed, asked_at.elapsed());
            return self.say_granted(line, true, provisional, None);
        }
        let entitlement = self.player.entitlement;
        let mut choice = Choice {
            wish: Wish::Slot,
            id: None,
        };
        match self.player.on_limit {
            Mode::Wait if entitlement.may_wait => choice.wish = Wish::Wait,
            Mode::Oldest if entitlement.may_end_oldest => choice.wish = Wish::Oldest,
            // A mode that the plan forbids is a plain refusal.
            Mode::Reject | Mode::Ask | Mode::Wait | Mode::Oldest => {}
        }
        let mut ask_until = None;
        let mut asked_again = false;
        loop {
            let asked_at = Instant::now();
            let first = ask_until.is_none();
            let answer = self
                .gateway
                .lease
                .acquire(&self.player.account, &self.request(choice.wish), first)
                .await;
            let mut answer = answer.map_err(|_| self.unavailable())?;
            let took = asked_at.elapsed();
            if let Acquired::Waiting {
                position,
                taking_over,
            } = answer
            {
                answer = self.wait(line, &mut choice, position, taking_over).await?;
            }
            match answer {
                Acquired::Granted {
                    used,
                    replaced,
                    generation,
                    started_at,
                    limit,
                    shadowed,
                } => {
                    (self.used, self.operators_limit) = (used, limit);
                    let provisional = generation == Generation::NONE;
                    let outcome = match (provisional, replaced) {
                        (true, _) => Admission::Provisional,
                        (false, true) => Admission::Replaced,
                        (false, false) => Admission::Granted,
                    };
                    self.count(outcome, took);
                    if provisional {
                        self.count_provisional();
                    } else {
                        let request = self.request(choice.wish);
                        self.seat.sit(Holding::new(&request, generation, started_at));
                    }
                    let metrics = &self.gateway.metrics;
                    for rule in &shadowed {
                        metrics.denials_total.inc_configured(&shadow_label(rule));
                    }
                    metrics.concurrency_level.observe(f64::from(used));
                    metrics.attempt_level.observe(f64::from(used));
                    if let Some(attempts) = &self.gateway.attempts {
                        attempts.grant(&self.player, used);
                    }
                    if matches!(choice.wish, Wish::Oldest | Wish::TakeOver(_)) {
                        metrics
                            .takeover_duration_seconds
                            .observe(asked_at.elapsed().as_secs_f64());
                    }
                    return self.say_granted(line, false, provisional, choice.id.as_deref());
                }
                Acquired::Denied {
                    refused,
                    refusal,
                    holders,
                    line_open,
                    limit,
                } => {
                    self.operators_limit = limit;
                    self.count(Admission::Denied, took);
                    if first {
                        self.gateway.tell_refusal(&self.player, self.id, &refusal);
                    }
                    let denial = (refused, &refusal, line_open);
                    self.say_denied(line, denial, &holders, choice.id.as_deref())?;
                    if self.player.on_limit != Mode::Ask || !self.player.entitlement.may_ask {
                        return Err(Ending::Denied);
                    }
                    // One time for all its choices: naming sessions that are gone keeps no socket open.
                    let ask_for = self.gateway.policy.load().ask_for;
                    let until = *ask_until.get_or_insert_with(|| Instant::now() + ask_for);
                    choice = self.ask(line, until).await?;
                }
                // A slot that it was given and the store lost before it heard of it: it asks again, as another session.
                Acquired::Ended(EndCode::LeaseLost) if !asked_again => {
                    asked_again = true;
                    self.assume(ResumeSecret::generate());
                }
                Acquired::Ended(code) => return Err(self.ended_elsewhere(code)),
                Acquired::Waiting { .. } => return Err(self.unavailable()),
            }
        }
    }

    fn count_provisional(&self) {
        let gauge = &self.gateway.metrics.provisional_sessions;
        self.seat.is_provisional(Counted::begin(gauge));
    }

    /// Takes up the session that the player names, if it still plays: whether it is a provisional one.
    async fn resume(&mut self) -> Result<Option<bool>, Ending> {
        let Some(secret) = self.player.resume else {
            return Ok(None);
        };
        let own = self.own_secret();
        self.assume(secret);
        let request = Resume {
            session: self.id,
            expected: 0,
            above: 0,
            owner: self.gateway.lease.owner,
            device: self.player.named.then(|| self.player.device.id.clone()),
            content: self.player.content.clone(),
            limit: self.player.entitlement.limit,
            terms: self.terms.clone(),
            attempt: Attempt::generate(),
        };
        let limit = self.player.entitlement.limit;
        let (lease, player, policy) = (&self.gateway.lease, &self.player, self.gateway.policy.load_full());
        let terms = |device: &Device| player.terms(&policy, device, &player.content);
        let answer = lease.resume(&player.account, &request, &terms).await;
        let Ok(answer) = answer else {
            // It ends as what it is: the session that it asked for may play elsewhere, and is not its to release.
            self.assume(own);
            return Err(self.unavailable());
        };
        match answer {
            Resumed::Moved {
                entry,
                used,
                limit: of_operators,
            } => {
                self.operators_limit = of_operators;
                self.epoch = entry.epoch;
                self.player.device = entry.device.clone();
                self.used = used;
                let provisional = entry.generation == Generation::NONE;
                self.terms = self.player.terms(&policy, &entry.device, &self.player.content);
                self.seat.sit(Holding::of(&entry, limit, self.terms.clone()));
                if provisional {
                    self.count_provisional();
                }
                Ok(Some(provisional))
            }
            Resumed::Absent | Resumed::At { .. } => {
                self.assume(own);
                Ok(None)
            }
        }
    }

    fn say_denied(
        &self,
        line: &mut Line,
        (refused, refusal, line_open): (bool, &Refusal, bool),
        holders: &[Entry],
        id: Option<&RawValue>,
    ) -> Result<(), Ending> {
        let entitlement = self.player.entitlement;
        let may_take_over = entitlement.may_take_over && refusal.may_take_over;
        let may: Vec<&str> = [
            (may_take_over, "takeover"),
            (entitlement.may_wait && line_open, "wait"),
        ]
        .into_iter()
        .filter_map(|(may, what)| may.then_some(what))
        .collect();
        let metrics = &self.gateway.metrics;
        metrics.denials_total.inc_configured(&refusal.rule);
        metrics.attempt_level.observe(f64::from(refusal.slots) + 1.0);
        let denied = ServerMessage::Denied {
            code: if refused {
                "takeover_refused"
            } else {
                EndCode::StreamLimitReached.name()
            },
            rule: &refusal.rule,
            slots: Slots {
                used: refusal.used,
                limit: refusal.limit,
            },
            holders: holders.iter().map(Entry::holder).collect(),
            may: &may,
        };
        self.say(line, &denied, id)
    }

    /// A refused player decides.
    async fn ask(&mut self, line: &mut Line, until: Instant) -> Result<Choice, Ending> {
        loop {
            match self.next(line, until.min(self.token_deadline)).await? {
                Event::Deadline if Instant::now() >= self.token_deadline => {
                    return Err(Ending::token_expired());
                }
                Event::Deadline => return Err(Ending::limit("nothing was chosen in time")),
                Event::News(news) => self.hear_node(line, &news)?,
                Event::Room => {}
                Event::Over(over) => return Err(Ending::of(over)),
                Event::Binary => self.say_error(line, ErrorCode::BadMessage, "messages are texts", None)?,
                Event::Text(text) => {
                    if let Some(choice) = self.choose(line, &text).await? {
                        return Ok(choice);
                    }
                }
            }
        }
    }

    async fn choose(&mut self, line: &mut Line, text: &Utf8Bytes) -> Result<Option<Choice>, Ending> {
        let entitlement = self.player.entitlement;
        let frame = decode(text.as_str());
        let wish = match frame.message {
            Ok(ClientMessage::Takeover { session }) if entitlement.may_take_over => Wish::TakeOver(session),
            Ok(ClientMessage::Wait) if entitlement.may_wait => Wish::Wait,
            _ => return self.hear_undecided(line, text).await.map(|()| None),
        };
        self.pardon();
        Ok(Some(Choice {
            wish,
            id: frame.id.map(RawValue::to_owned),
        }))
    }

    /// A message to a socket that has no slot.
    async fn hear_undecided(&mut self, line: &mut Line, text: &Utf8Bytes) -> Result<(), Ending> {
        let frame = decode(text.as_str());
        match frame.message {
            Ok(ClientMessage::Heartbeat { .. }) => {
                self.pardon();
                Ok(())
            }
            Ok(ClientMessage::Stop) => Err(Ending::stopped().answering(frame.id)),
            Ok(ClientMessage::Token { token }) => {
                self.check_token(&token, frame.id);
                Ok(())
            }
            Ok(_) => self.say_error(line, ErrorCode::BadState, "not possible without a slot", frame.id),
            Err(bad) => self.say_error(line, bad.code, &bad.detail, frame.id),
        }
    }

    /// Stands in the line until the answer is another one than `waiting`.
    async fn wait(
        &mut self,
        line: &mut Line,
        choice: &mut Choice,
        mut position: u32,
        taking_over: bool,
    ) -> Result<Acquired, Ending> {
        let _waiting = Counted::begin(&self.gateway.metrics.waiters);
        let start = Instant::now();
        let until = start + self.gateway.policy.load().wait_for;
        let quiet = taking_over && !self.gateway.policy.load().consent;
        let announce = if quiet { start + QUIET_TAKEOVER } else { start };
        let mut told = None;
        let mut poll = start + poll_pause();
        loop {
            let now = Instant::now();
            if now >= announce && told != Some(position) {
                told = Some(position);
                self.say(
                    line,
                    &ServerMessage::Waiting { position },
                    choice.id.take().as_deref(),
                )?;
            }
            let next = if told.is_none() { poll.min(announce) } else { poll };
            match self.next(line, next.min(until).min(self.token_deadline)).await? {
                Event::Deadline if Instant::now() >= self.token_deadline => {
                    return Err(Ending::token_expired());
                }
                Event::Deadline if Instant::now() >= until => {
                    return Err(Ending::limit("no slot became free in time"));
                }
                Event::Deadline if Instant::now() < poll => continue,
                Event::Deadline => {}
                Event::News(news) => {
                    self.hear_node(line, &news)?;
                    if !news.look && news.used.is_none() {
                        continue;
                    }
                }
                Event::Room => continue,
                Event::Over(over) => return Err(Ending::of(over)),
                Event::Binary => {
                    self.say_error(line, ErrorCode::BadMessage, "messages are texts", None)?;
                    continue;
                }
                Event::Text(text) => {
                    self.hear_undecided(line, &text).await?;
                    continue;
                }
            }
            poll = Instant::now() + poll_pause();
            let request = self.request(choice.wish);
            let answer = self
                .gateway
                .lease
                .acquire(&self.player.account, &request, false)
                .await;
            match answer {
                // Who waits keeps its place while the store is away.
                Err(_) => {}
                Ok(Acquired::Waiting { position: moved, .. }) => position = moved,
                Ok(answer) => {
                    // The word that a slot was given may have come together with word that it is to be taken
                    // again: whoever plays now looks once more.
                    self.seat.tell(|news| news.look = true);
                    return Ok(answer);
                }
            }
        }
    }

    fn unavailable(&self) -> Ending {
        self.gateway.metrics.admissions_total.inc(Admission::Error);
        Ending::unavailable()
    }

    fn count(&self, outcome: Admission, took: Duration) {
        self.gateway.metrics.admissions_total.inc(outcome);
        self.gateway
            .metrics
            .admission_duration_seconds
            .observe(took.as_secs_f64());
    }

    /// What the node decided for all its sessions, or for this one without the store.
    pub(super) fn hear_node(&mut self, line: &mut Line, news: &News) -> Result<(), Ending> {
        match news.word {
            Some(Word::Moved) => return Err(Ending::moved()),
            Some(Word::End(code)) => return Err(Ending::from_elsewhere(code)),
            None => {}
        }
        if news.policy {
            self.reconsider();
        }
        match news.drain {
            Some(Drain::Announce(within)) => self.say_draining(line, within),
            Some(Drain::Close) => Err(Ending::draining()),
            None => Ok(()),
        }
    }
}

impl Ending {
    pub(super) fn of(over: Over) -> Self {
        match over {
            Over::Closed(code) => Self::Closed(code),
            Over::Lost => Self::Lost,
            Over::Silent(due) => Self::silent(due),
            Over::Fault(code, detail) => Self::told(code, detail),
        }
    }
}

fn poll_pause() -> Duration {
    POLL.0
        + POLL
            .1
            .mul_f32(f32::from(u16::from_ne_bytes(random())) / f32::from(u16::MAX))
}
