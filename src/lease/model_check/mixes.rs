//! The mixes: who starts where, and which faults may happen how often.

use super::{Budget, Missing, Scenario, Want};

use Want::{Oldest, Slot, Wait};

/// A line-up by name: limit, whether players 0 and 1 play already, and the starts: player, node and what it wants.
/// Starts are alternatives: a player takes one of its own.
type LineUp = (&'static str, u32, bool, &'static [(u8, u8, Want)]);

const LINE_UPS: &[LineUp] = &[
    (
        "one slot",
        1,
        false,
        &[(0, 0, Slot), (1, 1, Wait), (1, 0, Oldest)],
    ),
    ("one slot, a waiter", 1, false, &[(0, 0, Slot), (1, 1, Wait)]),
    (
        "one slot, three",
        1,
        false,
        &[(0, 0, Slot), (1, 1, Wait), (2, 0, Oldest)],
    ),
    ("two play", 2, true, &[]),
    ("a third", 2, true, &[(2, 0, Wait), (2, 1, Slot)]),
    ("a third waits", 2, true, &[(2, 0, Wait), (2, 1, Wait)]),
    ("a third waits there", 2, true, &[(2, 1, Wait)]),
    ("a third waits here", 2, true, &[(2, 0, Wait)]),
    ("a third takes over", 2, true, &[(2, 0, Oldest), (2, 1, Wait)]),
    ("a fourth", 2, true, &[(2, 0, Wait), (3, 1, Slot)]),
    // Player 2 is on player 0's device.
    ("one device", 2, true, &[(2, 1, Slot), (3, 0, Wait)]),
    // Players 0 and 2 are of one account, 1 and 3 of another.
    ("two accounts", 1, true, &[(2, 1, Wait), (3, 0, Oldest)]),
    // The same, and their accounts lie in two buckets.
    ("two buckets", 1, true, &[(2, 1, Wait), (3, 0, Wait)]),
];

/// Line-up and budget. Every mix also has the steps that need no budget: starts, stops, renewals, and time.
pub(super) const MIXES: &[(&str, &str)] = &[
    ("one slot", "leave resume vanish"),
    ("one slot", "lost late leave resume"),
    ("one slot, a waiter", "late leave resume forget"),
    ("one slot, a waiter", "late lost resume resume"),
    ("one slot, three", "lost vanish"),
    ("a third", "kick lost resume"),
    ("a third", "kick wipe"),
    ("a third", "kick pause resume"),
    ("a third takes over", "crash resume lost"),
    ("a third waits", "crash crash"),
    ("a third takes over", "pause resume lost"),
    ("a third", "pause forget"),
    ("a third", "pause slow"),
    ("a third waits there", "pause slow resume"),
    ("a third waits there", "wipe slow resume"),
    ("a third waits", "pause late leave"),
    ("a fourth", "pause lost"),
    ("a third", "pause pause"),
    ("a third takes over", "cut crash"),
    ("a third", "cut lost resume"),
    ("a fourth", "cut local"),
    ("a third takes over", "away resume lost"),
    ("a third", "away"),
    ("a third", "away crash"),
    ("a third", "away pause"),
    ("a third", "away late leave"),
    ("a third", "away wipe"),
    ("a fourth", "away local local"),
    ("a third", "away cut resume"),
    ("a third", "away failover"),
    ("a third takes over", "wipe resume lost"),
    ("a third waits there", "wipe wipe"),
    ("a third", "wipe crash"),
    ("a third", "wipe pause"),
    ("a fourth", "wipe pause"),
    ("a third", "wipe cut look"),
    ("a third waits", "wipe late leave lost"),
    ("a third", "wipe cut local"),
    ("a third takes over", "failover resume"),
    ("two play", "failover resume resume"),
    ("a third", "failover"),
    ("a third", "failover pause"),
    ("a third", "failover crash"),
    ("a third", "failover cut"),
    ("a third waits here", "failover late leave"),
    ("a third", "split"),
    ("a third waits there", "split resume"),
    ("one device", "resume lost pause"),
    ("two accounts", "pause"),
    ("two buckets", "wipe"),
];

/// A mix, with all rules.
pub(super) fn mix(line_up: &'static str, budget: &'static str) -> Scenario {
    let &(_, limit, playing, starts) = LINE_UPS.iter().find(|(name, ..)| *name == line_up).unwrap();
    let apart = line_up.starts_with("two accounts") || line_up.starts_with("two buckets");
    Scenario {
        name: format!("{line_up}: {budget}"),
        limit,
        starts,
        playing,
        accounts: if apart { [0, 1, 0, 1] } else { [0; 4] },
        devices: if line_up == "one device" {
            [0, 1, 0, 3]
        } else {
            [0, 1, 2, 3]
        },
        buckets: if line_up == "two buckets" { 2 } else { 1 },
        budget: Budget::of(budget),
        missing: Missing::Nothing,
    }
}

impl Budget {
    /// Each word once more.
    fn of(words: &str) -> Self {
        let mut budget = Self::default();
        for word in words.split_whitespace() {
            *match word {
                "crash" => &mut budget.crash,
                "pause" => &mut budget.pause,
                "cut" => &mut budget.cut,
                "away" => &mut budget.away,
                "wipe" => &mut budget.wipe,
                "failover" => &mut budget.failover,
                "split" => &mut budget.split,
                "lost" => &mut budget.lost,
                "slow" => &mut budget.slow,
                "late" => &mut budget.late,
                "forget" => &mut budget.forget,
                "resume" => &mut budget.resume,
                "leave" => &mut budget.leave,
                "vanish" => &mut budget.vanish,
                "kick" => &mut budget.kick,
                "local" => &mut budget.local,
                "look" => &mut budget.look,
                _ => panic!("{word} is no budget"),
            } += 1;
        }
        budget
    }
}
