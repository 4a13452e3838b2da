//! The rules that model checking found, by name, so that the code says where each one is and the model can take one
//! away and must then find the history in which it is missed.
//!
//! In a build of the program every rule holds and asking costs nothing.

/// A rule of the lease; the number is that of the lease rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// 1: data of another life of the server begin a recovery.
    ServerLife,
    /// 1: missing or foreign data begin a recovery at all.
    Recovery,
    /// 1: a new generation extends every lease.
    NewLifeExtends,
    /// 1: nothing is purged for a dead owner while the bucket recovers.
    NoPurgeInRecovery,
    /// 1: both of these; either spares the living.
    #[cfg(test)]
    NewLifeSpares,
    /// 2: after a time without any renewal every lease is extended.
    BeatGap,
    /// 3: in a recovery an entry of an older generation proves nothing to a start or a resume.
    OldProvesNothing,
    /// 3: nor to an audit.
    OldProvesNothingToAudit,
    /// 3: what nobody re-asserted is purged when the bucket opens.
    UnprovenPurged,
    /// 4: nothing is granted under an owner whose lease is not live.
    OwnLeaseFirst,
    /// 4: nor audited.
    AuditOwnLeaseFirst,
    /// 4: after a lapse a renewal counts only after the audit.
    AuditAfterLapse,
    /// 5: in a recovery the firm come before the doubtful.
    FirmFirst,
    /// 5: a renewal that answers a new generation counts only after the audit.
    AuditCounts,
    /// 5: the firm are written again whatever the limit says.
    FirmUnconditional,
    /// 6: after the deadline a repair is conditional on the limit.
    LateRepairConditional,
    /// 7: absent in the generation in which it was confirmed is lost.
    SameGenerationLost,
    /// 8: tombstones stop only epochs up to theirs.
    TombstoneEpoch,
    /// I4: a lower epoch changes nothing.
    EpochFence,
    /// 15: nor does another owner with the same epoch.
    OwnerFence,
    /// 9: a release of what the store lost tells that the play ended.
    ReleaseTellsPlay,
    /// 11: every end writes a tombstone.
    EveryEndBuried,
    /// 11: also the release of what is not there.
    UnknownBuried,
    /// 15: a resume expects an epoch.
    ResumeExpects,
    /// 15: the same attempt gets the same answer.
    SameAttempt,
    /// 16: what is to end does not come back.
    MarkedStays,
    /// 15: a resume goes above every epoch of the session that its node knows.
    ResumeAbove,
    /// 13: the waiters of a dead owner go too.
    DeadWaitersGo,
    /// 13 and 18: both of these; either keeps the slots from the dead.
    #[cfg(test)]
    DeadWaiters,
    /// 21: of a device's sessions that are written again the later one stays.
    OneDevice,
    /// 18: a waiter that has an entry or an end is skipped.
    SkipServed,
    /// 18: so is one whose owner's lease is not live.
    SkipDead,
}

/// Whether the rule holds: always, but in a model that took it away.
#[cfg(not(test))]
pub(super) const fn holds(_: Rule) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    static WITHOUT: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether the rule holds: always, but in a model that took it away.
#[cfg(test)]
pub(super) fn holds(rule: Rule) -> bool {
    let pair = match rule {
        Rule::NewLifeExtends | Rule::NoPurgeInRecovery => Rule::NewLifeSpares,
        Rule::DeadWaitersGo | Rule::SkipDead => Rule::DeadWaiters,
        alone => alone,
    };
    let missing = WITHOUT.get();
    missing != Some(rule) && missing != Some(pair)
}

/// Runs a step of a model in which a rule is missing.
#[cfg(test)]
pub(super) fn without<T>(rule: Option<Rule>, step: impl FnOnce() -> T) -> T {
    let before = WITHOUT.replace(rule);
    let result = step();
    WITHOUT.set(before);
    result
}
