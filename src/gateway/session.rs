//! One player's session: what it knows, and its way from the start over the play to its end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::auth::{Claims, Rejected, Scope};
use crate::config::Secret;
use crate::lease::group::Terms;
use crate::lease::model::{Acquire, Fence, Generation, Holding, Wish};
use crate::lease::shelf::Sight;
use crate::net::stream::Handover;
use crate::protocol::id::{ResumeSecret, SessionId};
use crate::protocol::server::{ErrorCode, Granted, ServerMessage, Slots, encode, millis};
use crate::telemetry::Counted;

use super::Gateway;
use super::ending::Ending;
use super::line::{Event, Line};
use super::player::{Player, token_end};
use super::seat::{News, Seat};
use super::socket::NotSent;
use super::ticket::Issued;

/// Useless messages in a row after which the player is told to fix itself.
const MAX_BAD_MESSAGES: u8 = 10;

/// A fresh token must be checked within this time.
const TOKEN_CHECK: Duration = Duration::from_secs(5);

/// A player's session.
pub(super) struct Session {
    pub(super) gateway: Arc<Gateway>,
    pub(super) player: Player,
    pub(super) id: SessionId,
    secret: ResumeSecret,
    pub(super) epoch: u64,
    pub(super) seat: Arc<Seat>,
    /// Whether the store has yet to be told the session's state,
    pub(super) untold: bool,
    /// and when it last was.
    pub(super) told_state: Option<Instant>,
    /// When the token ends, on the clock that cannot jump.
    pub(super) token_deadline: Instant,
    /// When the player needs its next ticket; none when it needs none.
    pub(super) ticket_due: Option<Instant>,
    /// Slots as last told to the player.
    pub(super) used: u32,
    /// The operators' limit of the account when the session began, which stands above the token's.
    pub(super) operators_limit: Option<u32>,
    /// What it counts in beside them.
    pub(super) terms: Terms,
    /// What a granted session counts as; none before.
    pub(super) granted: Option<Grant>,
    bad_messages: u8,
    check: Option<Check>,
}

/// A fresh token that is being checked.
struct Check {
    verdict: JoinHandle<Result<Claims, Rejected>>,
    id: Option<Box<RawValue>>,
}

/// A grant; it counts as an active session until it is dropped.
pub(super) struct Grant {
    pub(super) at: Instant,
    _playing: [Counted; 2],
}

/// A session from its first frame to its last.
///
/// This future is what a player costs while it plays, so it holds the session, its line and the future of the play,
/// each once: what an async function takes by value it would store twice, and starting and ending are boxed.
pub(super) fn run(gateway: Arc<Gateway>, handover: Handover, player: Player) -> impl Future<Output = ()> {
    let mut line = Line::new(handover, &gateway);
    let mut session = Session::new(gateway, player);
    async move {
        let ending = match Box::pin(session.start(&mut line)).await {
            Ok(()) => session.play(&mut line).await,
            Err(ending) => ending,
        };
        Box::pin(session.end(line, ending)).await;
    }
}

impl Session {
    fn new(gateway: Arc<Gateway>, player: Player) -> Self {
        let secret = ResumeSecret::generate();
        let id = secret.session();
        let session = Self {
            id,
            secret,
            epoch: 1,
            seat: Arc::new(Seat::new(id)),
            untold: false,
            told_state: None,
            token_deadline: deadline(player.token_end),
            ticket_due: None,
            used: 0,
            operators_limit: None,
            terms: player.terms(&gateway.policy.load(), &player.device, &player.content),
            granted: None,
            bad_messages: 0,
            check: None,
            gateway,
            player,
        };
        session
            .gateway
            .registry
            .add(&session.player.account, &session.seat);
        session
    }

    /// Becomes the session of another secret, before it is asked for.
    pub(super) fn assume(&mut self, secret: ResumeSecret) {
        self.gateway.registry.remove(&self.player.account, &self.seat);
        self.secret = secret;
        self.id = secret.session();
        self.seat = Arc::new(Seat::new(self.id));
        self.gateway.registry.add(&self.player.account, &self.seat);
    }

    pub(super) fn own_secret(&self) -> ResumeSecret {
        self.secret
    }

    pub(super) fn fence(&self) -> Fence {
        Fence {
            session: self.id,
            owner: self.gateway.lease.owner,
            epoch: self.epoch,
        }
    }

    /// What the session holds; for one that holds nothing yet, what it would.
    pub(super) fn holding(&self) -> Holding {
        let would = || Holding::new(&self.request(Wish::Slot), Generation::NONE, 0);
        self.seat.holding().unwrap_or_else(would)
    }

    /// The start that this player asks for.
    pub(super) fn request(&self, wish: Wish) -> Acquire {
        let policy = self.gateway.policy.load();
        Acquire {
            session: self.id,
            owner: self.gateway.lease.owner,
            device: self.player.device.clone(),
            content: self.player.content.clone(),
            limit: self.player.entitlement.limit,
            terms: self.terms.clone(),
            wish,
            consent: policy.consent,
            line: policy.line,
            period: None,
        }
    }

    pub(super) fn slots(&self) -> Slots {
        Slots {
            used: self.used,
            limit: self.operators_limit.unwrap_or(self.player.entitlement.limit),
        }
    }

    pub(super) fn say(
        &self,
        line: &mut Line,
        message: &ServerMessage<'_>,
        id: Option<&RawValue>,
    ) -> Result<(), Ending> {
        line.send(encode(message, id).into())
            .map_err(|NotSent| Ending::slow())
    }

    pub(super) fn say_granted(
        &mut self,
        line: &mut Line,
        resumed: bool,
        provisional: bool,
        id: Option<&RawValue>,
    ) -> Result<(), Ending> {
        let now = Instant::now();
        let Player { account, device, .. } = &self.player;
        let playing = self
            .gateway
            .metrics
            .playing(&account.tenant, device.plan.as_deref());
        self.granted = Some(Grant {
            at: now,
            _playing: playing,
        });
        line.silence.heard(now);
        let period = self.gateway.timing.period;
        let ticket = self.issue_ticket();
        let granted = Granted {
            session: self.id,
            slots: self.slots(),
            heartbeat_ms: millis(period / 2),
            lease_ms: millis(period),
            resume: &self.secret.expose(),
            resumed,
            provisional,
            ticket: ticket.as_ref().map(Issued::text),
            server_time: SystemTime::now(),
        };
        self.say(line, &ServerMessage::Granted(granted), id)?;
        self.enter(!resumed);
        Ok(())
    }

    /// Answers a message that cannot be used; the session goes on until there are too many in a row.
    pub(super) fn say_error(
        &mut self,
        line: &mut Line,
        code: ErrorCode,
        detail: &str,
        id: Option<&RawValue>,
    ) -> Result<(), Ending> {
        self.bad_messages += 1;
        if self.bad_messages >= MAX_BAD_MESSAGES {
            return Err(Ending::bad_message(
                "too many messages in a row that cannot be used",
            ));
        }
        self.say(line, &ServerMessage::Error { code, detail }, id)
    }

    /// A message was of use.
    pub(super) fn pardon(&mut self) {
        self.bad_messages = 0;
    }

    /// The next event. A fresh token is checked meanwhile: an identity provider that is slow with its keys holds up
    /// neither the viewer nor whoever ends the session.
    pub(super) async fn next(&mut self, line: &mut Line, deadline: Instant) -> Result<Event, Ending> {
        let Some(check) = &mut self.check else {
            return Ok(line.next(&self.seat, Some(deadline)).await);
        };
        let verdict = tokio::select! {
            biased;
            verdict = &mut check.verdict => verdict.unwrap_or(Err(Rejected::Unavailable)),
            event = line.next(&self.seat, Some(deadline)) => return Ok(event),
        };
        let id = self.check.take().and_then(|check| check.id);
        self.conclude(line, verdict, id.as_deref())?;
        // Nothing new, but the caller's deadline may be another now.
        Ok(Event::News(News::default()))
    }

    /// Begins to check a fresh token; a newer one takes the place of one that is being checked.
    pub(super) fn check_token(&mut self, token: &str, id: Option<&RawValue>) {
        let (verifier, token) = (Arc::clone(&self.gateway.verifier), Secret::from(token.to_owned()));
        let verdict = async move {
            let verdict = tokio::time::timeout(TOKEN_CHECK, verifier.verify(token.expose())).await;
            verdict.unwrap_or(Err(Rejected::Unavailable))
        };
        self.check = Some(Check {
            // On a task of its own, which ends by itself when nobody waits for it any more.
            verdict: self.gateway.tasks.spawn(verdict),
            id: id.map(RawValue::to_owned),
        });
    }

    /// Takes a fresh token: it must be of the same account and device and allow what is playing.
    fn conclude(
        &mut self,
        line: &mut Line,
        verdict: Result<Claims, Rejected>,
        id: Option<&RawValue>,
    ) -> Result<(), Ending> {
        let claims = match verdict {
            Ok(claims) => claims,
            Err(Rejected::Unavailable) => {
                return self.say_error(line, ErrorCode::Unavailable, "the token could not be checked", id);
            }
            Err(rejected) => {
                self.gateway.metrics.tokens_rejected_total.inc(rejected.reason());
                return self.say_error(line, ErrorCode::BadToken, "the token is not valid", id);
            }
        };
        let account = &self.player.account;
        let device = claims
            .device
            .as_deref()
            .is_none_or(|device| *device == *self.player.device.id);
        if claims.tenant != account.tenant || claims.account != account.account || !device {
            return self.say_error(line, ErrorCode::BadToken, "the token is another player's", id);
        }
        if !claims.scopes.has(Scope::Watch) {
            return self.say_error(line, ErrorCode::BadToken, "the token does not allow to watch", id);
        }
        let contents = claims.contents.as_deref();
        if contents.is_some_and(|allowed| !allowed.iter().any(|one| **one == *self.player.content)) {
            let detail = "the token does not allow what is playing";
            return self.say_error(line, ErrorCode::ContentForbidden, detail, id);
        }
        self.pardon();
        self.player.plan = claims.plan.clone();
        self.player.sight = Sight::of(&claims);
        self.player.streams = claims.streams;
        self.player.profile = claims.profile.clone();
        if self.reconsider() {
            // The store hears of it now: who waits may have a place, and who plays may be beyond its limit.
            self.seat.tell(|news| news.look = true);
        }
        self.player.token_end = token_end(&claims);
        self.player.contents = claims.contents.map(Vec::into_boxed_slice);
        self.token_deadline = deadline(self.player.token_end);
        self.resume_tickets(line)
    }
}

impl Session {
    /// Takes the limits that the policy and the token give now; true when they are others than before. Who plays keeps
    /// its place: the next audit writes down what it counts in, and ends it where the policy says so.
    pub(super) fn reconsider(&mut self) -> bool {
        let policy = self.gateway.policy.load();
        let player = &mut self.player;
        let limit = player.entitlement.limit;
        player.entitlement = policy.entitlement_of(player.plan.as_deref(), player.streams);
        let terms = player.terms(&policy, &player.device, &player.content);
        let changed = player.entitlement.limit != limit || terms != self.terms;
        let limit = player.entitlement.limit;
        if changed {
            self.terms = terms.clone();
            self.seat.change(|holding| {
                holding.limit = limit;
                holding.terms = terms;
            });
            self.gateway.lease.audit_soon(&self.player.account);
        }
        changed
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.fall_silent();
        self.gateway.registry.remove(&self.player.account, &self.seat);
    }
}

/// The instant of a wall-clock time, at most ten years ahead.
fn deadline(end: SystemTime) -> Instant {
    const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);
    Instant::now() + end.duration_since(SystemTime::now()).unwrap_or_default().min(FAR)
}
