//! Every rule, and the mix in which it is missed.

use super::super::rule::Rule;
use super::{Missing, NodeRule};

/// A missing rule, line-up and budget of the mix, and the steps of the shortest counterexample.
pub(super) type Mutation = (Missing, &'static str, &'static str, usize);

const fn code(rule: Rule) -> Missing {
    Missing::Code(rule)
}

const fn node(rule: NodeRule) -> Missing {
    Missing::Node(rule)
}

/// The rules that are missed.
pub(super) const MUTATIONS: &[Mutation] = &[
    (code(Rule::ServerLife), "two play", "failover resume resume", 8),
    (code(Rule::Recovery), "a third waits there", "wipe wipe", 7),
    (code(Rule::NewLifeSpares), "a third", "failover", 7),
    (code(Rule::BeatGap), "a third", "away", 7),
    (
        code(Rule::OldProvesNothing),
        "a third takes over",
        "failover resume",
        10,
    ),
    (
        code(Rule::OldProvesNothingToAudit),
        "a third",
        "failover pause",
        10,
    ),
    (code(Rule::AuditAfterLapse), "a third", "wipe pause", 16),
    (code(Rule::FirmFirst), "a third", "wipe pause", 11),
    (code(Rule::LateRepairConditional), "a third", "wipe pause", 11),
    (code(Rule::SameGenerationLost), "a third", "pause forget", 8),
    (code(Rule::EpochFence), "one slot", "leave resume vanish", 9),
    (
        code(Rule::ReleaseTellsPlay),
        "a third waits there",
        "wipe wipe",
        13,
    ),
    (
        code(Rule::EveryEndBuried),
        "one slot",
        "lost late leave resume",
        7,
    ),
    (
        code(Rule::ResumeExpects),
        "one slot, a waiter",
        "late lost resume resume",
        9,
    ),
    (node(NodeRule::GapInTime), "a third", "away", 7),
    (node(NodeRule::OwnClock), "a third", "pause slow", 14),
    (node(NodeRule::TellTrusted), "a third", "pause slow", 12),
    (
        node(NodeRule::ResumeTrusted),
        "a third waits there",
        "pause slow resume",
        9,
    ),
    (node(NodeRule::DoubtEverywhere), "a third", "wipe cut look", 9),
    (
        node(NodeRule::EndingStays),
        "a third takes over",
        "wipe resume lost",
        10,
    ),
    (
        node(NodeRule::NotAfter),
        "one slot, a waiter",
        "late leave resume forget",
        10,
    ),
    (node(NodeRule::Compare), "one slot", "lost late leave resume", 8),
    (node(NodeRule::Marks), "a third", "kick lost resume", 4),
    (node(NodeRule::Poll), "one slot", "lost late leave resume", 6),
];

/// Those without which no counterexample has been found: README.md says what is known of each.
pub(super) const NOT_MISSED: &[Missing] = &[
    code(Rule::NewLifeExtends),
    code(Rule::NoPurgeInRecovery),
    code(Rule::UnprovenPurged),
    code(Rule::OwnLeaseFirst),
    code(Rule::AuditOwnLeaseFirst),
    code(Rule::AuditCounts),
    code(Rule::FirmUnconditional),
    code(Rule::TombstoneEpoch),
    code(Rule::OwnerFence),
    code(Rule::UnknownBuried),
    code(Rule::SameAttempt),
    code(Rule::MarkedStays),
    code(Rule::DeadWaitersGo),
    code(Rule::SkipServed),
    code(Rule::SkipDead),
    node(NodeRule::EndsAgain),
    node(NodeRule::Strangers),
    node(NodeRule::Minute),
];
