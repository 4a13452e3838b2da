//! A node's own view of its lease in one bucket. Pure.
//!
//! A node trusts its lease only as long as its own clock, which also runs while the machine sleeps, says that the
//! store must still see it (rule 4); and it notices by every renewal whether the store still knows what it holds
//! (rule 12).

#[cfg(test)]
mod abstraction;

use std::time::Duration;

use super::bucket::{LEASE_MS, RENEW_MS};
use super::model::{Generation, Millis, Phase, Renewed};
use super::rule::{Rule, holds};

/// A moment on the node's own clock, which stands still never: the time since the machine started.
pub type Tick = Duration;

/// How long a lease lives.
pub const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// Beyond this share of its lease a node only renews (rule 4).
const TRUSTED: Duration = Duration::from_millis(LEASE_MS / 10 * 9);

/// Without an answer for this long the store is taken to be away.
pub const OUTAGE: Duration = Duration::from_secs(4);

/// Each session is audited at least this often: it checkpoints its progress, and equal counts can hide a swap.
const FULL_AUDIT: Duration = Duration::from_secs(60);

/// A node's lease in one bucket, as the node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// When the last renewal that counts was sent.
    sent: Option<Tick>,
    /// A renewal after a lapse (rule 4), or that answered another generation (rule 5), counts only after the audit.
    pending: Option<Tick>,
    generation: Generation,
    since: Millis,
    phase: Option<Phase>,
    /// Whether the lease ran out by this clock: somebody else may have the slots of its sessions.
    doubtful: bool,
    /// Whether an audit is under way or wanted.
    unaudited: bool,
    /// Whether the store may hold what this node does not know.
    strangers: bool,
    /// Renewals in a row whose count was another than the node's own.
    differences: u8,
    audited: Option<Tick>,
    /// Since when renewals go unanswered.
    away: Option<Tick>,
    /// When the last renewal that was answered was sent,
    asked: Option<Tick>,
    /// and the store's clock then.
    clock: Millis,
}

/// What a node holds in a bucket at the moment of a renewal.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Sessions that the store confirmed in its present generation.
    pub confirmed: u32,
    /// Sessions that it never confirmed.
    pub provisional: u32,
    /// Whether starts or ends were under way meanwhile: the counts cannot be compared then.
    pub busy: bool,
}

impl Tenure {
    /// Whether the node may act under this lease.
    #[must_use]
    pub fn is_trusted(&self, now: Tick) -> bool {
        self.sent.is_some_and(|sent| now.saturating_sub(sent) < TRUSTED)
    }

    /// When the lease began, by the store's clock: another value after it had run out.
    #[must_use]
    pub fn since(&self) -> Millis {
        self.since
    }

    /// Whether an answer may be passed on as it is: it was asked for under the lease that began at `since`, which
    /// never ran out meanwhile, and it is of the life of the data in which everything was compared. Otherwise others
    /// may have purged what it tells of, and no audit has seen it (rule 4).
    #[must_use]
    pub fn vouches(&self, now: Tick, since: Millis, generation: Generation) -> bool {
        let compared = self.generation == generation && self.pending.is_none();
        self.is_trusted(now) && self.since == since && compared
    }

    /// How long the lease still lives, by this node's clock.
    #[must_use]
    pub fn remaining(&self, now: Tick) -> Duration {
        self.sent
            .map_or(Duration::ZERO, |sent| (sent + LEASE).saturating_sub(now))
    }

    /// Whether a renewal that was sent since then was answered.
    #[must_use]
    pub fn is_renewed_since(&self, then: Tick) -> bool {
        self.away.is_none() && self.asked.is_some_and(|asked| asked >= then)
    }

    /// Whether it is time for the next renewal.
    #[must_use]
    pub fn is_renewal_due(&self, now: Tick) -> bool {
        let period = Duration::from_millis(RENEW_MS);
        self.asked.is_none_or(|asked| now.saturating_sub(asked) >= period)
    }

    /// The store's clock, as far as it is known.
    #[must_use]
    pub fn clock(&self, now: Tick) -> Option<Millis> {
        let since = now.saturating_sub(self.asked?);
        Some(self.clock + Millis::try_from(since.as_millis()).unwrap_or_default())
    }

    /// Whether the store is away: it has answered no renewal for so long that nobody waits for it any more. One lost
    /// answer is no outage; what is decided without the store may break the limit.
    #[must_use]
    pub fn is_away(&self, now: Tick) -> bool {
        self.away.is_some_and(|since| now.saturating_sub(since) >= OUTAGE)
    }

    /// Whether somebody else may have the slots of this node's sessions.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether the bucket grants, as far as this node knows.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Some(Phase::Open)
    }

    /// Whether the node's sessions are to be compared with the store.
    #[must_use]
    pub fn is_unaudited(&self) -> bool {
        self.unaudited
    }

    /// Whether the store may hold sessions that the node does not know.
    #[must_use]
    pub fn has_strangers(&self) -> bool {
        self.strangers
    }

    /// The life of the data that the node last confirmed its sessions in.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// A lease that ran out by this clock makes every session of the bucket doubtful; true when it has.
    pub fn mind_lapse(&mut self, now: Tick) -> bool {
        let lapsed = self.remaining(now).is_zero();
        if lapsed {
            self.doubtful = true;
            self.unaudited = true;
        }
        lapsed
    }

    /// A renewal that was sent at `sent` went unanswered.
    pub fn missed(&mut self, sent: Tick, now: Tick) {
        self.away.get_or_insert(sent);
        self.mind_lapse(now);
    }

    /// A renewal that was sent at `sent` was answered.
    pub fn renewed(&mut self, sent: Tick, now: Tick, answer: &Renewed, own: Own) {
        let lapsed = self.mind_lapse(now);
        self.away = None;
        self.asked = Some(sent);
        self.clock = answer.now;
        let begun = self.since != answer.since;
        let reborn = self.generation != answer.generation;
        self.since = answer.since;
        self.phase = Some(answer.phase);
        if begun || reborn {
            self.unaudited = true;
            self.strangers = true;
        }
        // Those come back in the second half of a recovery (rule 5).
        if own.provisional > 0 && !matches!(answer.phase, Phase::First { .. }) {
            self.unaudited = true;
        }
        let recovered = reborn && holds(Rule::AuditCounts);
        let revived = (begun || lapsed) && holds(Rule::AuditAfterLapse);
        if recovered || revived {
            self.pending = Some(sent);
        } else {
            self.sent = Some(sent);
        }
        if own.busy {
            return;
        }
        // What nobody re-asserted yet is not counted: a recovery compares by itself.
        if own.confirmed == answer.count || answer.phase.recovering() {
            self.differences = 0;
        } else {
            self.differences += 1;
            if self.differences >= 2 {
                self.differences = 0;
                self.unaudited = true;
                self.strangers = true;
            }
        }
    }

    /// Whether a minute has passed since the last audit of every session.
    #[must_use]
    pub fn is_audit_due(&self, now: Tick) -> bool {
        self.audited
            .is_none_or(|audited| now.saturating_sub(audited) >= FULL_AUDIT)
    }

    /// Every session was compared with the store in this generation. `complete`: none was told to ask later.
    pub fn audited(&mut self, now: Tick, generation: Generation, complete: bool) {
        self.generation = generation;
        if let Some(sent) = self.pending.take() {
            self.sent = Some(sent);
        }
        self.audited = Some(now);
        self.unaudited = !complete;
        if complete {
            self.doubtful = false;
        }
    }

    /// What the store holds for the node was compared with what the node knows.
    pub fn strangers_seen(&mut self) {
        self.strangers = false;
    }

    /// An answer told of another state of the bucket than the last renewal did.
    pub fn surprised(&mut self) {
        self.unaudited = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Tick {
        Duration::from_millis(ms)
    }

    fn answer(generation: u64, since: Millis, count: u32) -> Renewed {
        Renewed {
            now: 0,
            generation: Generation(generation),
            phase: Phase::Open,
            since,
            count,
            marked: Vec::new(),
            purged: 0,
        }
    }

    fn own(confirmed: u32) -> Own {
        Own {
            confirmed,
            provisional: 0,
            busy: false,
        }
    }

    /// A tenure at rest in generation 7.
    fn rested() -> Tenure {
        let mut tenure = Tenure::default();
        tenure.renewed(ms(0), ms(1), &answer(7, 1, 0), own(0));
        tenure.audited(ms(2), Generation(7), true);
        tenure.strangers_seen();
        tenure
    }

    #[test]
    fn a_lease_is_trusted_for_less_than_it_lives() {
        let tenure = rested();
        assert!(tenure.is_trusted(ms(11_249)));
        assert!(!tenure.is_trusted(ms(11_250)));
        assert_eq!(tenure.remaining(ms(12_000)), ms(500));
        assert!(!Tenure::default().is_trusted(ms(0)));
    }

    #[test]
    fn one_lost_answer_is_no_outage() {
        let mut tenure = rested();
        tenure.missed(ms(2_500), ms(3_500));
        assert!(!tenure.is_away(ms(6_499)));
        tenure.missed(ms(4_000), ms(5_000));
        assert!(tenure.is_away(ms(6_500)), "since the first");
        tenure.renewed(ms(6_600), ms(6_601), &answer(7, 1, 0), own(0));
        assert!(!tenure.is_away(ms(60_000)));
    }

    #[test]
    fn a_lapse_makes_doubtful_until_the_audit() {
        let mut tenure = rested();
        tenure.renewed(ms(12_600), ms(12_601), &answer(7, 1, 0), own(0));
        assert!(tenure.is_doubtful() && tenure.is_unaudited());
        tenure.audited(ms(12_602), Generation(7), false);
        assert!(
            tenure.is_doubtful() && tenure.is_unaudited(),
            "some are to ask later"
        );
        tenure.audited(ms(12_603), Generation(7), true);
        assert!(!tenure.is_doubtful() && !tenure.is_unaudited());
    }

    #[test]
    fn a_new_generation_counts_after_the_audit() {
        let mut tenure = rested();
        tenure.renewed(ms(10_000), ms(10_001), &answer(8, 1, 0), own(0));
        assert!(!tenure.is_trusted(ms(11_300)), "not renewed yet by its own clock");
        tenure.audited(ms(11_301), Generation(8), true);
        assert!(tenure.is_trusted(ms(11_302)));
        assert_eq!(tenure.remaining(ms(10_000)), LEASE, "from when it was sent");
    }

    #[test]
    fn an_answer_of_another_lease_or_life_is_not_passed_on() {
        let mut tenure = rested();
        assert!(tenure.vouches(ms(3), 1, Generation(7)));
        assert!(!tenure.vouches(ms(11_250), 1, Generation(7)), "not trusted");
        assert!(!tenure.vouches(ms(3), 1, Generation(8)), "of another life");
        tenure.renewed(ms(100), ms(101), &answer(7, 2, 0), own(0));
        assert!(
            !tenure.vouches(ms(102), 1, Generation(7)),
            "the lease had run out"
        );
        assert!(!tenure.vouches(ms(102), 2, Generation(7)), "not compared yet");
        tenure.audited(ms(103), Generation(7), true);
        assert!(tenure.vouches(ms(104), 2, Generation(7)));
        tenure.renewed(ms(200), ms(201), &answer(8, 2, 0), own(0));
        assert!(!tenure.vouches(ms(202), 2, Generation(7)), "not compared yet");
    }

    #[test]
    fn a_revival_or_two_differences_start_an_audit() {
        let mut tenure = rested();
        tenure.renewed(ms(100), ms(101), &answer(7, 1, 5), own(4));
        assert!(!tenure.is_unaudited());
        tenure.renewed(ms(200), ms(201), &answer(7, 1, 5), Own { busy: true, ..own(4) });
        assert!(!tenure.is_unaudited());
        tenure.renewed(ms(300), ms(301), &answer(7, 1, 5), own(4));
        assert!(tenure.is_unaudited() && tenure.has_strangers());
        let mut tenure = rested();
        tenure.renewed(ms(400), ms(401), &answer(7, 2, 0), own(0));
        assert!(tenure.is_unaudited());
    }
}
