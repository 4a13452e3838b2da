//! The mixes: who starts where, and which faults may happen how often.

use std::sync::Arc;
use std::time::Instant;

use super::{Budget, Missing, PLAYERS, Scenario, Want};

use Want::{Oldest, Slot, Wait};

/// A line-up by name: the slots by each player's token, how many play already, and the starts: player, node and what it
/// wants. Starts are alternatives: a player takes one of its own.
type LineUp = (&'static str, [u8; PLAYERS], u8, &'static [(u8, u8, Want)]);

const ONE: [u8; PLAYERS] = [1; PLAYERS];
const TWO: [u8; PLAYERS] = [2; PLAYERS];

const LINE_UPS: &[LineUp] = &[
    ("one starts", ONE, 0, &[(0, 0, Slot)]),
    ("one plays", ONE, 1, &[]),
    ("one plays, one starts", ONE, 1, &[(1, 1, Slot)]),
    ("one plays, one waits", ONE, 1, &[(1, 1, Wait)]),
    ("one plays, one takes over", ONE, 1, &[(1, 1, Oldest)]),
    ("one slot", ONE, 0, &[(0, 0, Slot), (1, 1, Wait), (1, 0, Oldest)]),
    ("one slot, a waiter", ONE, 0, &[(0, 0, Slot), (1, 1, Wait)]),
    (
        "one slot, three",
        ONE,
        0,
        &[(0, 0, Slot), (1, 1, Wait), (2, 0, Oldest)],
    ),
    ("two play", TWO, 2, &[]),
    // Player 0's plan was smaller, or is by now.
    ("other plans", [1, 2, 2, 2], 2, &[]),
    ("a third", TWO, 2, &[(2, 0, Slot), (2, 1, Slot)]),
    ("a third there", TWO, 2, &[(2, 1, Slot)]),
    ("a third waits", TWO, 2, &[(2, 0, Wait), (2, 1, Wait)]),
    ("a third waits there", TWO, 2, &[(2, 1, Wait)]),
    ("a third waits here", TWO, 2, &[(2, 0, Wait)]),
    ("a third takes over", TWO, 2, &[(2, 0, Oldest)]),
    ("a third takes over there", TWO, 2, &[(2, 1, Oldest)]),
    ("a fourth", TWO, 2, &[(2, 0, Wait), (3, 1, Slot)]),
    // Player 2 is on player 0's device.
    ("one device", TWO, 2, &[(2, 1, Slot)]),
    ("one device, a fourth", TWO, 2, &[(2, 1, Slot), (3, 0, Wait)]),
    // Players 0 and 2 are of one account, 1 and 3 of another.
    ("two accounts", ONE, 2, &[(2, 1, Wait), (3, 0, Oldest)]),
    // The same, and their accounts lie in two buckets.
    ("two buckets", ONE, 2, &[(2, 1, Wait), (3, 0, Wait)]),
];

/// Line-up and budget. Every mix also has the steps that need no budget: starts, renewals, and time.
pub(super) const MIXES: &[(&str, &str)] = &[
    ("one starts", "late leave"),
    ("one starts", "wipe pause"),
    ("one plays", "late leave resume"),
    ("one plays", "lost resume"),
    ("one plays", "stop wipe unread"),
    ("one plays", "wipe pause look"),
    ("one plays", "failover resume"),
    ("one plays", "failover resume resume"),
    ("one plays, one starts", "failover pause stop"),
    ("one plays, one starts", "strict wipe pause"),
    ("one plays, one starts", "strict failover pause"),
    ("one plays, one waits", "lost away local stop"),
    ("one plays, one waits", "crash stop"),
    ("one plays, one takes over", "resume stop"),
    ("other plans", "wipe stop"),
    ("one device", "aged wipe"),
    ("one device", "aged failover"),
    ("one device", "aged away local"),
    ("one device", "late lost leave resume"),
    ("one slot", "leave resume vanish stop"),
    ("one slot", "lost late leave resume stop"),
    ("one slot, a waiter", "late leave resume forget stop"),
    ("one slot, a waiter", "late lost resume resume stop"),
    ("one slot, three", "lost vanish stop"),
    ("a third", "kick lost resume"),
    ("a third waits there", "kick wipe"),
    ("a third there", "kick pause resume"),
    ("a third takes over", "crash resume lost"),
    ("a third waits", "crash crash stop"),
    ("a third takes over", "pause resume lost"),
    ("a third", "pause forget stop"),
    ("a third", "pause slow stop"),
    ("a third waits there", "pause slow resume"),
    ("a third waits there", "wipe slow resume"),
    ("a third waits", "pause late leave"),
    ("a fourth", "pause lost stop"),
    ("a third", "pause pause stop"),
    ("a third takes over there", "cut crash"),
    ("a third", "cut lost resume"),
    ("a fourth", "cut local"),
    ("a third takes over there", "away resume lost"),
    ("a third", "away stop"),
    ("a third waits", "away crash stop"),
    ("a third waits", "away pause stop"),
    ("a third waits", "away late leave stop"),
    ("a third waits", "away wipe stop"),
    ("a fourth", "away local local"),
    ("a third", "away cut resume"),
    ("a third takes over", "wipe resume lost"),
    ("a third waits there", "wipe wipe stop"),
    ("a third waits", "wipe crash stop"),
    ("a third", "wipe pause stop"),
    ("a third", "strict wipe pause"),
    ("a fourth", "wipe pause"),
    ("a third", "wipe cut look"),
    ("a third waits", "wipe late leave lost"),
    ("a third", "wipe cut local"),
    ("two play", "failover resume"),
    ("a third", "failover stop"),
    ("a third", "failover pause stop"),
    ("a third", "failover crash stop"),
    ("a third", "failover cut stop"),
    ("a third", "split stop"),
    ("one device, a fourth", "resume lost pause"),
    ("two accounts", "pause stop"),
    ("two buckets", "wipe stop"),
];

/// Mixes with a counterexample that is not mended yet, and its steps: README.md tells what it means.
pub(super) const OPEN: &[(&str, &str, usize)] = &[
    ("a third waits there", "split resume", 13),
    ("a third takes over there", "failover resume", 15),
    ("a third waits", "away failover stop", 15),
    ("a third waits here", "failover late leave stop", 15),
];

/// A mix, with all rules.
pub(super) fn mix(line_up: &'static str, budget: &'static str) -> Scenario {
    let &(_, limits, playing, starts) = LINE_UPS.iter().find(|(name, ..)| *name == line_up).unwrap();
    let apart = line_up.starts_with("two accounts") || line_up.starts_with("two buckets");
    Scenario {
        name: format!("{line_up}: {budget}"),
        limits,
        starts,
        playing,
        accounts: if apart { [0, 1, 0, 1] } else { [0; PLAYERS] },
        devices: if line_up.starts_with("one device") {
            [0, 1, 0, 3]
        } else {
            [0, 1, 2, 3]
        },
        buckets: if line_up == "two buckets" { 2 } else { 1 },
        budget: Budget::of(budget),
        missing: Missing::Nothing,
        until: Instant::now(),
        explored: Arc::default(),
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
                "stop" => &mut budget.stop,
                "leave" => &mut budget.leave,
                "vanish" => &mut budget.vanish,
                "kick" => &mut budget.kick,
                "local" => &mut budget.local,
                "look" => &mut budget.look,
                "unread" => &mut budget.unread,
                "aged" => &mut budget.aged,
                "strict" => &mut budget.strict,
                _ => panic!("{word} is no budget"),
            } += 1;
        }
        budget
    }
}
