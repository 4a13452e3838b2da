//! Tickets of a session: when its player needs one, and what it says.
//!
//! Owns: the end of a ticket and the moment of the next. Does not: sign (`auth` does) or send it when there is no slot.
//! Called by: `session` with the grant, and `play` until the end; a session that has ended gets none.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::auth::Ticket;
use crate::config::{Secret, Tickets};
use crate::protocol::id::{AccountKey, SessionId, random};
use crate::protocol::server::{ServerMessage, TicketText};

use super::Gateway;
use super::ending::Ending;
use super::line::Line;
use super::session::Session;

/// Part of `tickets.renew_before` by which a push may come sooner, at random.
const SPREAD: u32 = 4;

/// A signed ticket on its way to the player.
pub struct Issued {
    token: Secret,
    expires_at: SystemTime,
}

/// What a ticket is for.
pub(super) struct Playing<'a> {
    pub(super) account: &'a AccountKey,
    pub(super) session: SessionId,
    pub(super) content: &'a Arc<str>,
    /// Those of its token.
    pub(super) roles: &'a [String],
    /// When the access token ends.
    pub(super) token_end: SystemTime,
}

impl Issued {
    /// As it stands in a message.
    #[must_use]
    pub fn text(&self) -> TicketText<'_> {
        TicketText {
            token: self.token.expose(),
            expires_at: self.expires_at,
        }
    }
}

impl Gateway {
    /// A session's next ticket, and when it needs another one; none when players get none.
    pub(super) fn issue_ticket(&self, playing: &Playing<'_>) -> Option<(Issued, Option<Instant>)> {
        let terms = self.tickets.load();
        if !terms.enabled {
            return None;
        }
        let now = SystemTime::now();
        let ticket = Ticket {
            account: playing.account.clone(),
            session: playing.session,
            content: Arc::clone(playing.content),
            roles: playing.roles.to_vec(),
            expires_at: whole_seconds(now + terms.lifetime).min(whole_seconds(playing.token_end)),
        };
        let left = ticket.expires_at.duration_since(now).ok()?;
        let token = self.verifier.issue_ticket(&terms.issuer, &ticket);
        let token = token
            .inspect_err(|error| tracing::error!(%error, "no ticket was issued"))
            .ok()?;
        self.metrics.tickets_issued_total.inc();
        // One that ends with the access token is followed by no other before a fresh access token comes.
        let followed = ticket.expires_at < whole_seconds(playing.token_end);
        let due = followed.then(|| Instant::now() + pause(left, &terms));
        let issued = Issued {
            token,
            expires_at: ticket.expires_at,
        };
        Some((issued, due))
    }
}

impl Session {
    /// The session's next ticket, and sets when it needs another one; none when players get none.
    pub(super) fn issue_ticket(&mut self) -> Option<Issued> {
        self.ticket_due = None;
        let (issued, due) = self.gateway.issue_ticket(&Playing {
            account: &self.player.account,
            session: self.id,
            content: &self.player.content,
            roles: &self.player.sight.roles,
            token_end: self.player.token_end,
        })?;
        self.ticket_due = due;
        Some(issued)
    }

    /// Gives the player its next ticket.
    pub(super) fn push_ticket(&mut self, line: &mut Line) -> Result<(), Ending> {
        match self.issue_ticket() {
            Some(issued) => self.say(line, &ServerMessage::Ticket(issued.text()), None),
            None => Ok(()),
        }
    }

    /// The access token was renewed: a ticket that was to end with the old one is followed by another after all.
    pub(super) fn resume_tickets(&mut self, line: &mut Line) -> Result<(), Ending> {
        if self.granted.is_some() && self.ticket_due.is_none() {
            return self.push_ticket(line);
        }
        Ok(())
    }
}

/// Until the next ticket, where so much is left of this one: sessions that started together do not stay together.
fn pause(left: Duration, terms: &Tickets) -> Duration {
    let share = f32::from(u16::from_ne_bytes(random())) / f32::from(u16::MAX);
    let sooner = (terms.renew_before / SPREAD).mul_f32(share);
    left.saturating_sub(terms.renew_before + sooner)
}

/// A ticket's end is written in whole seconds, and is never later than it was to be.
fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_ticket_comes_before_the_end_and_not_for_all_at_once() {
        let terms = Tickets {
            enabled: true,
            lifetime: Duration::from_secs(60),
            renew_before: Duration::from_secs(20),
            issuer: "usher".to_owned(),
        };
        let pauses: Vec<_> = (0..1_000).map(|_| pause(terms.lifetime, &terms)).collect();
        let (least, most) = (pauses.iter().min(), pauses.iter().max());
        assert!(least >= Some(&Duration::from_secs(35)) && least < Some(&Duration::from_secs(36)));
        assert!(most <= Some(&Duration::from_secs(40)) && most > Some(&Duration::from_secs(39)));
        assert_eq!(pause(Duration::from_secs(5), &terms), Duration::ZERO);
    }

    #[test]
    fn an_end_is_never_later_than_it_was_to_be() {
        let time = UNIX_EPOCH + Duration::from_millis(1_999);
        assert_eq!(whole_seconds(time), UNIX_EPOCH + Duration::from_secs(1));
    }
}
