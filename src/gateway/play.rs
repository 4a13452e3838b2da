//! The steady state: a granted session until something ends it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::lease::model::{Device, Entry, Fenced, Held, Mark, Order, Refusal, Switch, Switched};
use crate::lease::shelf::Barred;
use crate::protocol::client::{ClientMessage, decode};
use crate::protocol::close::EndCode;
use crate::protocol::id::SessionId;
use crate::protocol::server::{ErrorCode, ServerMessage, Slots, millis};

use super::ending::Ending;
use super::line::{Event, Line};
use super::seat::News;
use super::session::Session;

/// Most often the store is told that a player paused or plays again.
const STATE_PAUSE: Duration = Duration::from_secs(10);

/// A take-over that waits for this player's answer.
struct Asked {
    newcomer: SessionId,
    by: Arc<Device>,
    until: Instant,
}

impl Session {
    /// Plays until the end.
    pub(super) async fn play(&mut self, line: &mut Line) -> Ending {
        let mut asked: Option<Asked> = None;
        loop {
            let until = [asked.as_ref().map(|asked| asked.until), self.ticket_due]
                .into_iter()
                .flatten()
                .fold(self.token_deadline, Instant::min);
            let event = match self.next(line, until).await {
                Ok(event) => event,
                Err(ending) => return ending,
            };
            let step = match event {
                Event::Text(text) => self.hear(line, &text, &mut asked).await,
                Event::Binary => self.say_error(line, ErrorCode::BadMessage, "messages are texts", None),
                Event::News(news) => Box::pin(self.hear_news(line, news, &mut asked)).await,
                Event::Deadline if Instant::now() >= self.token_deadline => Err(Ending::token_expired()),
                Event::Deadline if self.ticket_due.is_some_and(|due| due <= Instant::now()) => {
                    self.push_ticket(line)
                }
                // Silence means yes.
                Event::Deadline => asked
                    .take()
                    .map_or(Ok(()), |asked| Err(Ending::displaced(asked.by))),
                Event::Over(over) => Err(Ending::of(over)),
            };
            if let Err(ending) = step {
                return ending;
            }
        }
    }

    async fn hear(
        &mut self,
        line: &mut Line,
        text: &Utf8Bytes,
        asked: &mut Option<Asked>,
    ) -> Result<(), Ending> {
        let frame = decode(text.as_str());
        match frame.message {
            Ok(ClientMessage::Heartbeat { position_ms, state }) => {
                self.pardon();
                let mut changed = false;
                self.seat.change(|holding| {
                    holding.progress.position_ms = position_ms.unwrap_or(holding.progress.position_ms);
                    let state = state.unwrap_or(holding.state);
                    changed = state != holding.state;
                    holding.state = state;
                });
                self.untold |= changed;
                // A player that changes its mind with every heartbeat is shown as it was a moment ago.
                let due = self.told_state.is_none_or(|told| told.elapsed() >= STATE_PAUSE);
                if self.untold && due {
                    self.untold = false;
                    self.told_state = Some(Instant::now());
                    return Box::pin(self.look(line, asked)).await;
                }
                Ok(())
            }
            Ok(ClientMessage::Stop) => Err(Ending::stopped().answering(frame.id)),
            Ok(ClientMessage::Switch { content }) => {
                Box::pin(self.switch(line, &content, asked, frame.id)).await
            }
            Ok(ClientMessage::Token { token }) => {
                self.check_token(&token, frame.id);
                Ok(())
            }
            Ok(ClientMessage::TakeoverAnswer { allow }) => match asked.take() {
                Some(asked) if allow => Err(Ending::displaced(asked.by).answering(frame.id)),
                Some(_) => Box::pin(self.refuse(line, frame.id)).await,
                None => self.say_error(line, ErrorCode::BadState, "nobody asks for this slot", frame.id),
            },
            Ok(ClientMessage::Takeover { .. } | ClientMessage::Wait) => {
                self.say_error(line, ErrorCode::BadState, "this session has a slot", frame.id)
            }
            Err(bad) => self.say_error(line, bad.code, &bad.detail, frame.id),
        }
    }

    async fn hear_news(
        &mut self,
        line: &mut Line,
        news: News,
        asked: &mut Option<Asked>,
    ) -> Result<(), Ending> {
        // A store of its own compares nothing by itself.
        let changed = news.policy && self.reconsider() && !self.gateway.lease.is_shared();
        if news.look || changed {
            self.look(line, asked).await?;
        }
        if let Some(used) = news.used.filter(|used| *used != self.used) {
            self.used = used;
            self.say(line, &ServerMessage::Slots(self.slots()), None)?;
        }
        self.hear_node(line, &news)
    }

    /// Word came that something happened to this session: the store knows what.
    async fn look(&mut self, line: &mut Line, asked: &mut Option<Asked>) -> Result<(), Ending> {
        // An error is never absence: the next word or audit asks again.
        let account = &self.player.account;
        let Ok(held) = self.gateway.lease.audit_one(account, &self.holding()).await else {
            return Ok(());
        };
        match held {
            Held::Later => {}
            Held::Yours { mark: None, .. } => *asked = None,
            Held::Yours {
                mark: Some(Mark::Kick(code)),
                ..
            } => return Err(Ending::from_elsewhere(code)),
            Held::Yours {
                mark: Some(Mark::TakeOver {
                    device, asked: false, ..
                }),
                ..
            } => {
                return Err(Ending::displaced(device));
            }
            Held::Yours {
                mark:
                    Some(Mark::TakeOver {
                        by,
                        device,
                        asked: true,
                    }),
                ..
            } => {
                // Another newcomer than the one that was shown: the viewer answers anew.
                if asked.as_ref().is_none_or(|asked| asked.newcomer != by) {
                    let within = self.gateway.policy.load().answer_within;
                    let request = ServerMessage::TakeoverRequest {
                        by: device.screen(),
                        answer_within_ms: millis(within),
                    };
                    self.say(line, &request, None)?;
                    *asked = Some(Asked {
                        newcomer: by,
                        by: device,
                        until: Instant::now() + within,
                    });
                }
            }
            Held::Moved => return Err(Ending::moved()),
            Held::Gone(code) => return Err(Ending::gone(code.unwrap_or(EndCode::LeaseLost))),
        }
        Ok(())
    }

    async fn switch(
        &mut self,
        line: &mut Line,
        content: &str,
        asked: &mut Option<Asked>,
        id: Option<&RawValue>,
    ) -> Result<(), Ending> {
        if !self.player.may_play(content) {
            return self.say_error(
                line,
                ErrorCode::ContentForbidden,
                "the token does not allow this content",
                id,
            );
        }
        let (tenant, sight) = (&self.player.account.tenant, &self.player.sight);
        if let Err(barred) = self.gateway.admit(tenant, sight, content).await {
            let (code, detail) = match barred {
                Barred::Unknown => (ErrorCode::ContentUnknown, "there is no such content"),
                Barred::Hidden => (
                    ErrorCode::ContentForbidden,
                    "the catalogue shows this content to others only",
                ),
                Barred::Away => (ErrorCode::Unavailable, "the catalogue does not answer; try again"),
            };
            return self.say_error(line, code, detail, id);
        }
        let terms = self
            .player
            .terms(&self.gateway.policy.load(), &self.player.device, content);
        if terms != self.terms {
            let request = Switch {
                fence: self.fence(),
                content: content.into(),
                limit: self.player.entitlement.limit,
                terms: terms.clone(),
            };
            match self.gateway.lease.switch(&self.player.account, &request).await {
                Ok(Switched::Done) => {}
                Ok(Switched::Refused { refusal, holders }) => {
                    return self.say_refused(line, &refusal, &holders, id);
                }
                // The store knows what became of it.
                Ok(Switched::NotYours | Switched::Gone) => return self.look(line, asked).await,
                Err(_) => return self.say_error(line, ErrorCode::Unavailable, "try again", id),
            }
        }
        self.pardon();
        self.player.content = content.into();
        self.terms = terms.clone();
        let content = Arc::clone(&self.player.content);
        self.seat.change(|holding| {
            holding.content = content;
            holding.terms = terms;
        });
        // A store that is away hears of it by the next audit.
        self.look(line, asked).await?;
        self.push_ticket(line)
    }

    /// A rule has no place for the other content: the old one plays on.
    fn say_refused(
        &mut self,
        line: &mut Line,
        refusal: &Refusal,
        holders: &[Entry],
        id: Option<&RawValue>,
    ) -> Result<(), Ending> {
        self.pardon();
        self.gateway.metrics.denials_total.inc_configured(&refusal.rule);
        let refused = ServerMessage::SwitchRefused {
            code: ErrorCode::StreamLimitReached,
            rule: &refusal.rule,
            slots: Slots {
                used: refusal.used,
                limit: refusal.limit,
            },
            holders: holders.iter().map(Entry::holder).collect(),
            detail: "a rule leaves no place for this content; the session plays on as before",
        };
        self.say(line, &refused, id)
    }

    async fn refuse(&mut self, line: &mut Line, id: Option<&RawValue>) -> Result<(), Ending> {
        self.pardon();
        // `Gone` here means that nobody asks any more.
        let order = Order::Refuse(self.fence());
        match self.gateway.lease.order(&self.player.account, order).await {
            Ok(Fenced::NotYours) => Err(Ending::moved()),
            Ok(Fenced::Done | Fenced::Gone) => Ok(()),
            Err(_) => self.say_error(line, ErrorCode::Unavailable, "try again", id),
        }
    }

    pub(super) fn say_draining(&self, line: &mut Line, within: Duration) -> Result<(), Ending> {
        self.say(
            line,
            &ServerMessage::Draining {
                reconnect_within_ms: millis(within),
            },
            None,
        )
    }
}
