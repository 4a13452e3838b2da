//! Players without a socket: their sessions start, live and end by HTTP requests, which may reach any node.
//!
//! Owns: the way from a request to the store's answer, its counts, and tickets. Does not: read HTTP (`api` does) or hold
//! the slot: an entry of its own in the store does, with an expiry (lease rule 22).
//! Called by: `api`'s routes under `/v1/sessions`, and whoever starts a session otherwise.
//! Over 400 lines: the types of one start and one word, and every answer of the store to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use crate::auth::Claims;
use crate::lease::model::{
    Acquire, Acquired, Beat, Beaten, Device, Entry, Generation, Heartbeat, Holding, Millis, Refusal, Wish,
};
use crate::lease::policy::{Policy, Viewer, shadow_label};
use crate::lease::store::StoreError;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId, ResumeSecret, SessionId};
use crate::protocol::server::{Slots, millis};
use crate::telemetry::Admission;

use super::Gateway;
use super::player::{Player, token_end};
use super::ticket::Playing;

pub use super::ticket::Issued;

/// A victim that plays on a socket ends within milliseconds; a request waits no longer than this for it.
const TAKEOVER: Duration = Duration::from_secs(3);

/// Between two looks whether it has,
const FIRST_LOOK: Duration = Duration::from_millis(20);

/// which become rarer up to this.
const LAST_LOOK: Duration = Duration::from_millis(320);

/// A session that was started without a socket.
pub struct Opened {
    /// What finds it again, and what proves every word about it.
    pub secret: ResumeSecret,
    /// How it stands.
    pub state: LoneState,
}

/// How a session without a socket stands.
pub struct LoneState {
    /// The session.
    pub session: SessionId,
    /// The account's slots.
    pub slots: Slots,
    /// When it ends without another heartbeat.
    pub expires_at: SystemTime,
    /// A playback ticket, when it is time for one.
    pub ticket: Option<Issued>,
    /// What it plays.
    pub content: Arc<str>,
}

/// Why there is no session.
pub enum NotOpened {
    /// A rule leaves no place.
    Denied {
        /// Which.
        refusal: Refusal,
        /// Who counts in it.
        holders: Vec<Entry>,
        /// Whether there is somebody whose slot this player may take over.
        may_take_over: bool,
    },
    /// Operators blocked the account.
    Blocked,
    /// The plan forbids to take a slot over.
    TakeoverForbidden,
    /// Nobody can tell.
    Store(StoreError),
}

/// Who sends word of a session.
pub struct Caller<'a> {
    /// What the token says.
    pub claims: &'a Claims,
    /// Where it comes from.
    pub address: IpAddr,
    /// How long the session lives from now on without another word.
    pub period: Duration,
    /// Whether it is not the account's own token: the session stays what it began as, as far as this node remembers.
    pub on_behalf: bool,
}

/// What became of a session that somebody sent word of.
pub enum Told {
    /// It lives.
    Lives(LoneState),
    /// It ended by this word.
    Stopped,
    /// It plays on a socket now.
    Moved,
    /// It is another device's.
    Foreign,
    /// It ended before.
    Gone {
        /// Why, when that is still known.
        code: Option<EndCode>,
        /// Who took its slot over.
        by: Option<Arc<Device>>,
    },
}

impl Gateway {
    /// How long a session lives without a heartbeat, as on a socket.
    #[must_use]
    pub fn lone_period(&self) -> Duration {
        self.timing.period
    }

    /// Starts a session without a socket. `victim`: whose slot it takes when none is free; `period`: how long it lives
    /// without a heartbeat.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open_lone(
        &self,
        player: Player,
        victim: Option<SessionId>,
        period: Duration,
    ) -> Result<Opened, NotOpened> {
        let policy = self.policy.load_full();
        if victim.is_some() && !player.entitlement.may_take_over {
            return Err(NotOpened::TakeoverForbidden);
        }
        let asked_at = Instant::now();
        let mut secret = ResumeSecret::generate();
        let mut again = true;
        loop {
            let request = self.lone_request(&player, &policy, secret.session(), (victim, period));
            let mut answer = self.lease.acquire_lone(&player.account, &request).await;
            if let Ok(Acquired::Waiting { .. }) = answer {
                answer = self.await_victim(&player.account, &request).await;
            }
            let took = asked_at.elapsed();
            match answer {
                Ok(Acquired::Ended(EndCode::LeaseLost)) if again => {
                    // A slot that it was given and the store lost before it heard of it.
                    again = false;
                    secret = ResumeSecret::generate();
                }
                Ok(Acquired::Granted {
                    used,
                    replaced,
                    generation,
                    started_at,
                    limit,
                    shadowed,
                }) => {
                    let outcome = if replaced {
                        Admission::Replaced
                    } else {
                        Admission::Granted
                    };
                    self.count_lone(outcome, took);
                    for rule in &shadowed {
                        self.metrics.denials_total.inc_configured(&shadow_label(rule));
                    }
                    self.metrics.concurrency_level.observe(f64::from(used));
                    self.metrics.attempt_level.observe(f64::from(used));
                    if let Some(attempts) = &self.attempts {
                        attempts.grant(&player, used);
                    }
                    if victim.is_some() {
                        self.metrics.takeover_duration_seconds.observe(took.as_secs_f64());
                    }
                    let slots = Slots {
                        used,
                        limit: limit.unwrap_or(player.entitlement.limit),
                    };
                    let state = self.begin_lone(&player, &request, (generation, started_at), slots);
                    return Ok(Opened { secret, state });
                }
                Ok(Acquired::Denied { refusal, holders, .. }) => {
                    self.count_lone(Admission::Denied, took);
                    self.tell_refusal(&player, request.session, &refusal);
                    self.metrics.denials_total.inc_configured(&refusal.rule);
                    self.metrics.attempt_level.observe(f64::from(refusal.slots) + 1.0);
                    // Where victims are asked first, only a socket can wait for their answer.
                    let asks = policy.consent && holders.iter().all(|entry| entry.expires.is_none());
                    let may_take_over = player.entitlement.may_take_over && refusal.may_take_over && !asks;
                    return Err(NotOpened::Denied {
                        refusal,
                        holders,
                        may_take_over,
                    });
                }
                Ok(Acquired::Ended(EndCode::AccountBlocked)) => {
                    self.metrics.denials_total.inc("blocked");
                    return Err(NotOpened::Blocked);
                }
                Ok(Acquired::Ended(_) | Acquired::Waiting { .. }) => {
                    self.count_lone(Admission::Error, took);
                    return Err(NotOpened::Store(StoreError::Unavailable));
                }
                Err(error) => {
                    self.count_lone(Admission::Error, took);
                    return Err(NotOpened::Store(error));
                }
            }
        }
    }

    fn lone_request(
        &self,
        player: &Player,
        policy: &Policy,
        session: SessionId,
        (victim, period): (Option<SessionId>, Duration),
    ) -> Acquire {
        Acquire {
            session,
            owner: OwnerId::NONE,
            device: Arc::clone(&player.device),
            content: Arc::clone(&player.content),
            limit: player.entitlement.limit,
            terms: player.terms(policy, &player.device, &player.content),
            wish: victim.map_or(Wish::Slot, Wish::TakeOver),
            consent: policy.consent,
            line: policy.line,
            period: Some(millis(period)),
        }
    }

    fn count_lone(&self, outcome: Admission, took: Duration) {
        self.metrics.admissions_total.inc(outcome);
        self.metrics
            .admission_duration_seconds
            .observe(took.as_secs_f64());
    }

    /// Waits for the slot of a victim that plays on a socket, and leaves the line when it does not come.
    async fn await_victim(&self, account: &AccountKey, request: &Acquire) -> Result<Acquired, StoreError> {
        let until = Instant::now() + TAKEOVER;
        let mut pause = FIRST_LOOK;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
            let answer = self.lease.acquire_lone(account, request).await?;
            let waits = matches!(answer, Acquired::Waiting { .. });
            if !waits {
                return Ok(answer);
            }
            if Instant::now() >= until {
                let holding = Holding::new(request, Generation::NONE, 0);
                self.lease.release(account, &holding, EndCode::Unavailable).await;
                return Ok(answer);
            }
        }
    }

    fn begin_lone(
        &self,
        player: &Player,
        request: &Acquire,
        (generation, started_at): (Generation, Millis),
        slots: Slots,
    ) -> LoneState {
        let holding = Holding::new(request, generation, started_at);
        let expires = started_at + request.period.unwrap_or_default();
        self.registry.lones.keep(&player.account, holding, expires);
        let playing = Playing {
            account: &player.account,
            session: request.session,
            content: &request.content,
            roles: &player.sight.roles,
            token_end: player.token_end,
        };
        LoneState {
            session: request.session,
            slots,
            expires_at: time(expires),
            ticket: self.lone_ticket(&playing),
            content: Arc::clone(&request.content),
        }
    }

    fn lone_ticket(&self, playing: &Playing<'_>) -> Option<Issued> {
        let (issued, due) = self.issue_ticket(playing)?;
        self.registry
            .lones
            .has_ticket(playing.account, playing.session, due);
        Some(issued)
    }

    /// Passes a player's word about its session on. Whoever calls this has seen the session's secret.
    ///
    /// # Errors
    /// [`StoreError`]: nobody can tell just now; the session is as it was.
    pub async fn tell_lone(
        &self,
        caller: &Caller<'_>,
        session: SessionId,
        word: Beat,
    ) -> Result<Told, StoreError> {
        let claims = caller.claims;
        let account = AccountKey {
            tenant: Arc::clone(&claims.tenant),
            account: Arc::clone(&claims.account),
        };
        let lones = &self.registry.lones;
        let policy = self.policy.load_full();
        let memory = lones.recall(&account, session);
        let began = memory
            .as_ref()
            .filter(|_| caller.on_behalf)
            .map(|memory| &memory.holding);
        let limit = began.map_or_else(|| policy.entitlement(claims).limit, |began| began.limit);
        let terms = |device: &Device, content: &str| match began {
            Some(began) => began.terms.clone(),
            None => caller.terms(&policy, &account, device, content),
        };
        let known = memory.as_ref().map(|memory| Holding {
            limit,
            terms: terms(&memory.holding.device, &memory.holding.content),
            ..memory.holding.clone()
        });
        if let (Some(known), Some(device)) = (&known, &claims.device)
            && **device != *known.device.id
        {
            return Ok(Told::Foreign);
        }
        let period = millis(caller.period);
        let beat = Heartbeat {
            session,
            device: claims.device.as_deref().map(Into::into),
            period,
            word,
            known,
        };
        let verdict = self.lease.heartbeat(&account, beat).await?;
        Ok(match verdict {
            Beaten::Lives {
                entry,
                used,
                limit: of_operators,
            } => {
                self.metrics.heartbeats_total.inc();
                let terms = terms(&entry.device, &entry.content);
                let expires = entry.expires.unwrap_or_default();
                let holding = Holding {
                    period: Some(period),
                    ..Holding::of(&entry, limit, terms)
                };
                lones.keep(&account, holding, expires);
                let playing = Playing {
                    account: &account,
                    session,
                    content: &entry.content,
                    roles: &claims.roles,
                    token_end: token_end(claims),
                };
                let has_ticket = memory.as_ref().is_some_and(|memory| memory.has_ticket);
                Told::Lives(LoneState {
                    session,
                    slots: Slots {
                        used,
                        limit: of_operators.unwrap_or(limit),
                    },
                    expires_at: time(expires),
                    ticket: if has_ticket {
                        None
                    } else {
                        self.lone_ticket(&playing)
                    },
                    content: Arc::clone(&entry.content),
                })
            }
            Beaten::Later => return Err(StoreError::Unavailable),
            Beaten::Foreign => Told::Foreign,
            Beaten::Moved => {
                lones.forget(&account, session, None);
                Told::Moved
            }
            Beaten::Stopped => {
                lones.forget(&account, session, Some(EndCode::Stopped));
                Told::Stopped
            }
            Beaten::Gone { code, by } => {
                lones.forget(&account, session, Some(code.unwrap_or(EndCode::LeaseLost)));
                Told::Gone { code, by }
            }
        })
    }
}

impl Caller<'_> {
    fn terms(
        &self,
        policy: &Policy,
        account: &AccountKey,
        device: &Device,
        content: &str,
    ) -> crate::lease::group::Terms {
        policy.terms(&Viewer {
            account,
            plan: self.claims.plan.as_deref(),
            profile: self.claims.profile.as_deref(),
            device,
            content,
            address: self.address,
        })
    }
}

fn time(millis: Millis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}
