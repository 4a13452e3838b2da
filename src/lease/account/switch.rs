//! Another content for a session that plays: its groups change in the step that decides.

use std::sync::Arc;

use super::super::model::{NotNow, Switch, Switched};
use super::places::Asker;
use super::{Account, Effects, Ground};

impl Account {
    /// Moves a session to another content, and to the groups of it. A rule that leaves no place refuses; the session
    /// plays on as before then.
    ///
    /// # Errors
    /// The bucket or the asking node must recover first.
    pub fn switch(
        &mut self,
        request: &Switch,
        ground: &Ground<'_>,
        effects: &mut Effects,
    ) -> Result<Switched, NotNow> {
        self.expire(ground, effects);
        let fence = request.fence;
        let index = self.index(fence.session);
        let proven = index.is_some_and(|index| !ground.old(&self.entries[index]));
        if ground.phase.recovering() && !proven && self.tombstone(fence.session).is_none() {
            return Err(ground.recovering());
        }
        if index.is_none() || !proven {
            return Ok(Switched::Gone);
        }
        ground.own_lease(fence.owner, None)?;
        // Every check of a limit first purges the account's dead entries (rule 13).
        self.purge_others(Some(fence.session), ground, effects);
        let Some(index) = self.index(fence.session) else {
            // A slot that the purge freed went to its device, which waited.
            return Ok(Switched::Gone);
        };
        let entry = &self.entries[index];
        if !fence.holds(entry) {
            return Ok(Switched::NotYours);
        }
        let asker = Asker {
            session: fence.session,
            device: &entry.device.id,
            limit: request.limit,
            terms: &request.terms,
        };
        let refusing = self.refusing_change(index, &asker, ground);
        if !refusing.is_empty() {
            let (refusal, holders) = self.refusal(&asker, &refusing, ground);
            return Ok(Switched::Refused { refusal, holders });
        }
        self.entries[index].content = Arc::clone(&request.content);
        if self.set_terms(index, &request.terms, ground.now) {
            self.hand_over(ground, effects);
        }
        // Its device may have waited for another one, which took this one's place.
        Ok(match self.index(fence.session) {
            Some(_) => Switched::Done,
            None => Switched::Gone,
        })
    }
}
