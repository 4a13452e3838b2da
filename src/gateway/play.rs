//! The steady state: a granted session until something ends it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::lease::model::{Device, Fenced, Held, Mark};
use crate::protocol::client::{ClientMessage, PlayState, decode};
use crate::protocol::close::EndCode;
use crate::protocol::id::SessionId;
use crate::protocol::server::{ErrorCode, ServerMessage, millis};

use super::ending::Ending;
use super::inbox::News;
use super::line::{Event, Line};
use super::session::Session;

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
            let until = asked
                .as_ref()
                .map_or(self.token_deadline, |asked| asked.until.min(self.token_deadline));
            let event = match self.next(line, until).await {
                Ok(event) => event,
                Err(ending) => return ending,
            };
            let step = match event {
                Event::Text(text) => self.hear(line, &text, &mut asked).await,
                Event::Binary => self.say_error(line, ErrorCode::BadMessage, "messages are texts", None),
                Event::News(news) => Box::pin(self.hear_news(line, news, &mut asked)).await,
                Event::Deadline if Instant::now() >= self.token_deadline => Err(Ending::token_expired()),
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
                self.position_ms = position_ms.unwrap_or(self.position_ms);
                match state {
                    Some(state) if state != self.state => Box::pin(self.change_state(line, state)).await,
                    _ => Ok(()),
                }
            }
            Ok(ClientMessage::Stop) => Err(Ending::stopped().answering(frame.id)),
            Ok(ClientMessage::Switch { content }) => Box::pin(self.switch(line, &content, frame.id)).await,
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
        if news.look {
            self.look(line, asked).await?;
        }
        if let Some(used) = news.used.filter(|used| *used != self.used) {
            self.used = used;
            self.say(line, &ServerMessage::Slots(self.slots()), None)?;
        }
        self.hear_drain(line, &news)
    }

    /// Word came that something happened to this session: the store knows what.
    async fn look(&mut self, line: &mut Line, asked: &mut Option<Asked>) -> Result<(), Ending> {
        // An error is never absence: the next word or audit asks again.
        let Ok(held) = self
            .gateway
            .store
            .inspect(&self.player.account, self.fence())
            .await
        else {
            return Ok(());
        };
        match held {
            Held::Yours { mark: None } => *asked = None,
            Held::Yours {
                mark: Some(Mark::Kick(code)),
            } => return Err(Ending::from_elsewhere(code)),
            Held::Yours {
                mark: Some(Mark::TakeOver {
                    device, asked: false, ..
                }),
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

    async fn change_state(&mut self, line: &mut Line, state: PlayState) -> Result<(), Ending> {
        self.state = state;
        let fence = self.fence();
        let answer = self
            .gateway
            .store
            .update(&self.player.account, fence, None, Some(state))
            .await;
        self.check_fence(line, answer, None)
    }

    async fn switch(&mut self, line: &mut Line, content: &str, id: Option<&RawValue>) -> Result<(), Ending> {
        if !self.player.may_play(content) {
            return self.say_error(
                line,
                ErrorCode::ContentForbidden,
                "the token does not allow this content",
                id,
            );
        }
        self.pardon();
        let content = content.into();
        let answer = self
            .gateway
            .store
            .update(&self.player.account, self.fence(), Some(&content), None)
            .await;
        self.player.content = content;
        self.check_fence(line, answer, id)
    }

    async fn refuse(&mut self, line: &mut Line, id: Option<&RawValue>) -> Result<(), Ending> {
        self.pardon();
        // `Gone` here means that nobody asks any more.
        match self
            .gateway
            .store
            .refuse(&self.player.account, self.fence())
            .await
        {
            Ok(Fenced::NotYours) => Err(Ending::moved()),
            Ok(Fenced::Done | Fenced::Gone) => Ok(()),
            Err(_) => self.say_error(line, ErrorCode::Unavailable, "try again", id),
        }
    }

    fn check_fence(
        &mut self,
        line: &mut Line,
        answer: Result<Fenced, crate::lease::store::StoreError>,
        id: Option<&RawValue>,
    ) -> Result<(), Ending> {
        match answer {
            Ok(Fenced::Done) => Ok(()),
            Ok(Fenced::NotYours) => Err(Ending::moved()),
            Ok(Fenced::Gone) => Err(Ending::gone(EndCode::LeaseLost)),
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
