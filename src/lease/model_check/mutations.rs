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
    (node(NodeRule::Strangers), "one plays", "late leave resume", 13),
    (node(NodeRule::EndsAgain), "one plays", "stop wipe unread", 9),
    (code(Rule::FirmUnconditional), "other plans", "wipe stop", 8),
    (code(Rule::TombstoneEpoch), "one plays", "failover resume", 9),
    (code(Rule::OwnerFence), "one plays", "failover resume resume", 11),
    (code(Rule::UnknownBuried), "one starts", "late leave", 5),
    (
        Missing::Both(Rule::SameAttempt, NodeRule::AskAgain),
        "one plays",
        "lost resume",
        11,
    ),
    (
        code(Rule::MarkedStays),
        "one plays, one takes over",
        "resume stop",
        6,
    ),
    (
        code(Rule::SkipServed),
        "one plays, one waits",
        "lost away local stop",
        9,
    ),
    (code(Rule::DeadWaiters), "one plays, one waits", "crash stop", 8),
    (
        code(Rule::UnprovenPurged),
        "one plays, one starts",
        "failover pause stop",
        9,
    ),
    (code(Rule::OwnLeaseFirst), "one starts", "wipe pause", 9),
    (code(Rule::AuditOwnLeaseFirst), "one plays", "wipe pause look", 12),
    (
        code(Rule::AuditCounts),
        "one plays, one starts",
        "strict failover pause",
        10,
    ),
    (code(Rule::OneDevice), "one device", "aged wipe", 10),
    (node(NodeRule::Minute), "one device", "late lost leave resume", 10),
    (code(Rule::ServerLife), "two play", "failover resume resume", 8),
    (code(Rule::Recovery), "a third waits there", "wipe wipe stop", 6),
    (code(Rule::NewLifeSpares), "a third", "failover stop", 9),
    (code(Rule::BeatGap), "a third", "away stop", 8),
    (
        code(Rule::OldProvesNothing),
        "a third takes over there",
        "failover resume",
        10,
    ),
    (
        code(Rule::OldProvesNothingToAudit),
        "a third",
        "failover pause stop",
        10,
    ),
    (code(Rule::AuditAfterLapse), "a third", "wipe pause stop", 16),
    (code(Rule::FirmFirst), "a third", "wipe pause stop", 11),
    (
        code(Rule::LateRepairConditional),
        "a third",
        "wipe pause stop",
        11,
    ),
    (code(Rule::SameGenerationLost), "a third", "pause forget stop", 8),
    (code(Rule::EpochFence), "one slot", "leave resume vanish stop", 8),
    (
        code(Rule::ReleaseTellsPlay),
        "a third waits there",
        "wipe wipe stop",
        9,
    ),
    (
        code(Rule::EveryEndBuried),
        "one slot",
        "lost late leave resume stop",
        7,
    ),
    (
        code(Rule::ResumeExpects),
        "one slot, a waiter",
        "late lost resume resume stop",
        9,
    ),
    (code(Rule::ResumeAbove), "one plays", "failover resume resume", 12),
    (node(NodeRule::GapInTime), "a third", "away stop", 7),
    (node(NodeRule::OwnClock), "a third", "pause slow stop", 14),
    (node(NodeRule::TellTrusted), "a third", "pause slow stop", 12),
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
        "late leave resume forget stop",
        7,
    ),
    (
        node(NodeRule::Compare),
        "one slot",
        "lost late leave resume stop",
        8,
    ),
    (node(NodeRule::Marks), "a third", "kick lost resume", 4),
    (node(NodeRule::Poll), "one slot", "lost late leave resume stop", 6),
];

/// Each of these alone is covered by another rule, which does its work: README.md tells by which.
pub(super) const COVERED: &[(Missing, &str, &str)] = &[
    (code(Rule::NewLifeExtends), "a third", "failover stop"),
    (code(Rule::NoPurgeInRecovery), "a third", "failover stop"),
    (code(Rule::SameAttempt), "one plays", "lost resume"),
    (node(NodeRule::AskAgain), "one plays", "lost resume"),
    (code(Rule::DeadWaitersGo), "one plays, one waits", "crash stop"),
    (code(Rule::SkipDead), "one plays, one waits", "crash stop"),
];
