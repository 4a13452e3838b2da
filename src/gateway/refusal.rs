//! A refused start, as those are told of it who want to know.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::lease::group::ACCOUNT;
use crate::lease::journal::{Happened, Record, Refusal};
use crate::lease::model;
use crate::protocol::id::SessionId;

use super::Gateway;
use super::player::Player;

impl Gateway {
    /// Counts a refused start, and tells those who want to know of them, once for each start.
    pub(super) fn tell_refusal(&self, player: &Player, session: SessionId, refusal: &model::Refusal) {
        if let Some(attempts) = &self.attempts
            && *refusal.rule == *ACCOUNT
        {
            attempts.refuse(player, refusal.slots.saturating_add(1));
        }
        let Some(refusals) = &self.refusals else {
            return;
        };
        let device = &player.device;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        refusals.tell(Record {
            happened: Happened::Refused,
            id: String::new(),
            at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            account: player.account.clone(),
            session: session.to_string(),
            device: device.id.to_string(),
            device_name: device.name.as_ref().map(ToString::to_string),
            device_class: device.class.as_ref().map(ToString::to_string),
            content: player.content.to_string(),
            play: None,
            refusal: Some(Refusal {
                rule: refusal.rule.to_string(),
                used: refusal.used,
                limit: refusal.limit,
            }),
        });
    }
}
