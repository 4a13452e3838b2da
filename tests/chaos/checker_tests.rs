//! The checker on histories written by hand: every violation is found, and nothing legal is called one.

use std::time::Duration;

use crate::checker::{Allowed, Report, Rules, Violation, Window, check};
use crate::log::{Entry, Mode, NONE, Session, What};

/// A history of account 1. Times are milliseconds; a socket's number is its device's, plus 100 for each further one.
#[derive(Default)]
struct Story {
    entries: Vec<Entry>,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn session(number: u32) -> Session {
    Session(u128::from(number))
}

impl Story {
    fn say(mut self, at: u64, socket: u32, what: What) -> Self {
        // Socket n lives on node n % 3.
        let node = socket % 3;
        self.entries.push(Entry {
            at: ms(at),
            account: 1,
            socket,
            node,
            what,
        });
        self
    }

    fn node(mut self, at: u64, node: u32, what: What) -> Self {
        self.entries.push(Entry {
            at: ms(at),
            account: NONE,
            socket: NONE,
            node,
            what,
        });
        self
    }

    fn asks(self, at: u64, socket: u32, mode: Mode) -> Self {
        self.say(
            at,
            socket,
            What::Asked {
                device: socket % 100,
                mode,
                resume: None,
            },
        )
    }

    fn resumes(self, at: u64, socket: u32, of: u32) -> Self {
        let resume = Some(session(of));
        self.say(
            at,
            socket,
            What::Asked {
                device: socket % 100,
                mode: Mode::Reject,
                resume,
            },
        )
    }

    fn granted(self, at: u64, socket: u32) -> Self {
        self.granted_as(at, socket, socket, false)
    }

    fn granted_as(self, at: u64, socket: u32, of: u32, resumed: bool) -> Self {
        self.say(
            at,
            socket,
            What::Granted {
                session: session(of),
                resumed,
                provisional: false,
            },
        )
    }

    /// Asked and granted.
    fn plays(self, at: u64, socket: u32) -> Self {
        self.asks(at, socket, Mode::Reject).granted(at + 5, socket)
    }

    fn denied(self, at: u64, socket: u32) -> Self {
        self.asks(at, socket, Mode::Reject)
            .say(at + 5, socket, What::Denied { holders: 3, limit: 3 })
            .say(at + 6, socket, What::Closed { code: 4001 })
    }

    fn ended(self, at: u64, socket: u32, code: u16) -> Self {
        self.say(at, socket, What::Ended { code })
            .say(at, socket, What::Closed { code })
    }

    fn stops(self, at: u64, socket: u32) -> Self {
        self.say(at, socket, What::StopSent).ended(at + 5, socket, 4000)
    }

    fn three(self) -> Self {
        self.plays(0, 1).plays(10, 2).plays(20, 3)
    }

    fn judge(&self, rules: &Rules) -> Report {
        check(&self.entries, rules)
    }

    fn found(&self) -> Vec<Violation> {
        self.judge(&Rules::of_limit(3)).violations
    }

    fn is_legal(&self) {
        assert_eq!(self.found(), []);
    }
}

#[test]
fn a_fourth_grant_breaks_the_limit_for_as_long_as_it_lasts() {
    let story = Story::default().three().plays(100, 4).stops(300, 2);
    assert_eq!(
        story.found(),
        [Violation::Limit {
            account: 1,
            from: ms(105),
            lasted: ms(195),
            playing: 4,
            takeover: false
        }]
    );
    // Another account is another limit.
    let mut story = Story::default().three().plays(100, 4);
    for entry in story.entries.iter_mut().filter(|entry| entry.socket == 4) {
        entry.account = 2;
    }
    story.is_legal();
}

#[test]
fn three_at_a_time_are_legal_whoever_they_are() {
    let story = Story::default()
        .three()
        .denied(30, 4)
        .stops(50, 1)
        .plays(60, 4)
        .stops(70, 4)
        .plays(80, 1);
    story.is_legal();
    let report = story.judge(&Rules::of_limit(3));
    assert_eq!((report.most_playing, report.grants, report.denials), (3, 5, 1));
}

#[test]
fn a_stop_counts_from_its_sending_and_a_grant_from_its_arrival() {
    // The newcomer hears before the one who stopped does.
    let story = Story::default()
        .three()
        .asks(40, 4, Mode::Wait)
        .say(45, 4, What::Waiting { position: 1 });
    let story = story.say(50, 1, What::StopSent).granted(52, 4).ended(54, 1, 4000);
    story.is_legal();
}

#[test]
fn both_granted_in_a_takeover_is_found() {
    let start =
        Story::default()
            .three()
            .asks(40, 4, Mode::Ask)
            .say(45, 4, What::Denied { holders: 3, limit: 3 });
    let start = start.say(50, 4, What::TakeOver { victim: session(2) });
    let overlap = Story {
        entries: start.entries.clone(),
    }
    .granted(60, 4)
    .ended(62, 2, 4002);
    assert_eq!(
        overlap.found(),
        [Violation::Limit {
            account: 1,
            from: ms(60),
            lasted: ms(2),
            playing: 4,
            takeover: true
        }]
    );
    let strict = start.ended(60, 2, 4002).granted(60, 4);
    strict.is_legal();
    assert_eq!(strict.judge(&Rules::of_limit(3)).takeover_times, [ms(10)]);
}

#[test]
fn a_refusal_below_the_limit_is_found() {
    let story = Story::default().plays(0, 1).plays(10, 2).denied(100, 3);
    assert_eq!(
        story.found(),
        [Violation::FalseRefusal {
            account: 1,
            socket: 3,
            at: ms(105),
            in_use: 2
        }]
    );
    // Long after a stop.
    let story = Story::default().three().stops(100, 1).denied(1_000, 4);
    assert_eq!(story.found().len(), 1);
    // At once after it, the slot may not be free yet.
    Story::default().three().stops(100, 1).denied(200, 4).is_legal();
}

#[test]
fn a_broken_socket_keeps_its_slot_for_a_while_and_no_longer() {
    let story = |at| Story::default().three().say(1_000, 1, What::Cut).denied(at, 4);
    story(2_000).is_legal();
    story(11_200).is_legal();
    assert_eq!(story(11_300).found().len(), 1);
    // It is no playing socket any more.
    Story::default()
        .three()
        .say(1_000, 1, What::Cut)
        .plays(11_000, 4)
        .is_legal();
}

#[test]
fn a_start_under_way_may_hold_the_slot() {
    let story = Story::default()
        .plays(0, 1)
        .plays(10, 2)
        .asks(95, 3, Mode::Reject)
        .denied(100, 4)
        .granted(108, 3);
    story.is_legal();
    // One whose outcome nobody learnt, too.
    let story = Story::default()
        .plays(0, 1)
        .plays(10, 2)
        .asks(95, 3, Mode::Reject)
        .say(97, 3, What::Cut);
    story.denied(5_000, 4).is_legal();
    // One that was refused itself does not.
    let story = Story::default()
        .plays(0, 1)
        .plays(10, 2)
        .denied(95, 3)
        .denied(100, 4);
    assert_eq!(story.found().len(), 2);
}

#[test]
fn a_refusal_that_hides_a_holder_is_found() {
    let story =
        Story::default()
            .three()
            .asks(40, 4, Mode::Reject)
            .say(45, 4, What::Denied { holders: 2, limit: 3 });
    assert_eq!(
        story.found(),
        [Violation::ShortHolders {
            account: 1,
            socket: 4,
            at: ms(45),
            holders: 2
        }]
    );
}

#[test]
fn a_resumed_session_counts_once_and_replaces_its_older_socket() {
    // Still half open, on another node.
    let story = Story::default()
        .three()
        .resumes(100, 101, 1)
        .granted_as(105, 101, 1, true)
        .ended(107, 1, 4006);
    story.is_legal();
    // And it still counts.
    let story = story.plays(200, 4);
    assert_eq!(story.judge(&Rules::of_limit(3)).limit_violations(), 1);
    // Resumed, its slot is kept although the first socket broke long ago.
    let story = Story::default()
        .three()
        .say(100, 1, What::Cut)
        .resumes(200, 101, 1)
        .granted_as(205, 101, 1, true);
    story.denied(60_000, 4).is_legal();
}

#[test]
fn a_resume_in_time_must_go_on() {
    let story = |at| {
        Story::default()
            .three()
            .say(1_000, 1, What::Cut)
            .resumes(at, 101, 1)
            .granted_as(at + 5, 101, 9, false)
    };
    assert!(matches!(story(3_000).found()[..], [Violation::NotResumed { .. }]));
    story(10_500).is_legal();
    // The lease runs from the last frame, which may be older than the break.
    let late = Story::default()
        .three()
        .say(8_000, 1, What::Cut)
        .resumes(14_000, 101, 1);
    late.granted_as(14_005, 101, 9, false).is_legal();
    // A resume that is counted twice is refused.
    let denied = Story::default()
        .three()
        .say(1_000, 1, What::Cut)
        .resumes(1_100, 101, 1);
    let denied = denied.say(1_105, 101, What::Denied { holders: 3, limit: 3 });
    assert!(matches!(denied.found()[..], [Violation::NotResumed { .. }]));
    // Somebody else took the slot over meanwhile.
    let story = Story::default()
        .three()
        .say(1_000, 1, What::Cut)
        .asks(1_500, 4, Mode::Oldest)
        .granted(1_505, 4);
    story
        .resumes(3_000, 101, 1)
        .say(3_005, 101, What::Denied { holders: 3, limit: 3 })
        .is_legal();
}

#[test]
fn the_same_device_replaces_its_own_session() {
    let story = Story::default()
        .three()
        .asks(100, 103, Mode::Reject)
        .granted(105, 103)
        .ended(106, 3, 4006);
    story.is_legal();
}

#[test]
fn a_device_that_asks_again_may_be_replaced_before_it_hears_so() {
    let story = Story::default()
        .three()
        .asks(100, 103, Mode::Reject)
        .asks(101, 4, Mode::Oldest)
        .ended(104, 1, 4002)
        .granted(105, 4)
        .ended(110, 3, 4006)
        .granted(111, 103);
    story.is_legal();
    // Refused, it is not replaced.
    let story = Story::default()
        .three()
        .asks(100, 103, Mode::Reject)
        .plays(101, 4);
    let story = story.say(120, 103, What::Denied { holders: 3, limit: 3 });
    assert_eq!(story.judge(&Rules::of_limit(3)).limit_violations(), 1);
}

#[test]
fn a_grant_that_is_read_together_with_its_end_never_played() {
    let story = Story::default()
        .three()
        .asks(100, 4, Mode::Oldest)
        .ended(104, 1, 4002)
        .asks(105, 5, Mode::Oldest)
        .granted(110, 5)
        .granted(120, 4)
        .ended(120, 4, 4002);
    story.is_legal();
}

#[test]
fn a_waiter_that_stops_before_it_reads_its_grant_never_played() {
    let story = Story::default()
        .three()
        .asks(30, 4, Mode::Wait)
        .say(31, 4, What::Waiting { position: 1 })
        .say(100, 4, What::StopSent)
        .stops(101, 1)
        .say(
            110,
            4,
            What::Granted {
                session: session(4),
                resumed: false,
                provisional: false,
            },
        )
        .plays(112, 5)
        .ended(130, 4, 4000);
    story.is_legal();
}

#[test]
fn a_victims_own_device_may_replace_it_and_be_denied() {
    let story = Story::default()
        .three()
        .asks(30, 4, Mode::Oldest)
        .asks(32, 101, Mode::Reject)
        .say(36, 101, What::Denied { holders: 3, limit: 3 })
        .granted(37, 4)
        .ended(40, 1, 4006)
        .say(41, 101, What::Closed { code: 4001 });
    story.is_legal();
}

#[test]
fn a_drop_without_a_reason_is_found() {
    for code in [4002, 4003, 4006, 4200, 4201, 4203, 1006] {
        let story = Story::default().three().ended(1_000, 2, code);
        assert_eq!(
            story.found(),
            [Violation::Dropped {
                account: 1,
                socket: 2,
                at: ms(1_000),
                code
            }]
        );
    }
    // One take-over displaces one.
    let story = Story::default()
        .three()
        .asks(100, 4, Mode::Oldest)
        .ended(104, 1, 4002)
        .granted(105, 4);
    story.is_legal();
    assert_eq!(story.ended(200, 2, 4002).found().len(), 1);
    // The player asked for it.
    Story::default().three().stops(100, 2).is_legal();
    // An operator did.
    let kicked = What::Kicked { session: session(2) };
    Story::default()
        .three()
        .say(100, 1, kicked)
        .ended(110, 2, 4003)
        .is_legal();
    // Declared.
    let mut rules = Rules::of_limit(3);
    rules.allowed.push(Allowed {
        from: ms(900),
        to: ms(1_100),
        code: 4203,
    });
    assert_eq!(
        Story::default()
            .three()
            .ended(1_000, 2, 4203)
            .judge(&rules)
            .violations,
        []
    );
}

#[test]
fn a_dead_node_keeps_its_slots_longer_and_drops_its_own_players_only() {
    // Socket 1 lives on node 1.
    let story = |at| {
        let story = Story::default().three().node(1_000, 1, What::NodeKilled);
        story.say(1_001, 1, What::Closed { code: 1006 }).denied(at, 4)
    };
    story(13_900).is_legal();
    assert_eq!(story(14_100).found().len(), 1);
    // Granted again only after that: never four.
    Story::default()
        .three()
        .node(1_000, 1, What::NodeKilled)
        .plays(12_000, 4)
        .is_legal();
    // Its neighbours have nothing to do with it.
    let story =
        Story::default()
            .three()
            .node(1_000, 1, What::NodeKilled)
            .say(1_001, 2, What::Closed { code: 1006 });
    assert!(matches!(
        story.found()[..],
        [Violation::Dropped { socket: 2, .. }]
    ));
}

#[test]
fn a_declared_outage_excuses_its_nodes_and_its_time() {
    let story = Story::default()
        .three()
        .plays(1_000, 4)
        .ended(3_000, 1, 4203)
        .node(9_000, 0, What::NodeReady);
    let mut rules = Rules::of_limit(3);
    rules.allowed.push(Allowed {
        from: ms(0),
        to: ms(9_000),
        code: 4203,
    });
    let window = |from, to, node| Window {
        from: ms(from),
        to: ms(to),
        node,
    };
    rules.windows = vec![window(900, 3_100, Some(1))];
    let report = story.judge(&rules);
    assert_eq!(report.violations, []);
    assert_eq!(report.excused, [ms(1_995)]);
    // Over too early: the rest is a violation.
    rules.windows = vec![window(900, 2_000, Some(1))];
    assert_eq!(
        story.judge(&rules).violations,
        [Violation::Limit {
            account: 1,
            from: ms(2_000),
            lasted: ms(1_000),
            playing: 4,
            takeover: false
        }]
    );
    // Another node's outage is no excuse while that node plays nothing.
    let alone = Story::default().plays(0, 1).plays(1, 4).plays(2, 7).plays(3, 10);
    rules.windows = vec![window(0, 5_000, Some(2))];
    assert_eq!(alone.judge(&rules).limit_violations(), 1);
}

#[test]
fn a_start_without_an_answer_is_found() {
    let story = Story::default()
        .asks(0, 1, Mode::Reject)
        .node(20_000, 0, What::NodeReady);
    assert!(matches!(story.found()[..], [Violation::Unanswered { .. }]));
    let story = Story::default()
        .asks(0, 1, Mode::Reject)
        .granted(5_900, 1)
        .node(20_000, 0, What::NodeReady);
    story.is_legal();
}

#[test]
fn a_provisional_grant_needs_an_outage() {
    let provisional = What::Granted {
        session: session(1),
        resumed: false,
        provisional: true,
    };
    let story = Story::default().asks(0, 1, Mode::Reject).say(5, 1, provisional);
    assert!(matches!(story.found()[..], [Violation::Provisional { .. }]));
    let mut rules = Rules::of_limit(3);
    rules.windows = vec![Window {
        from: ms(0),
        to: ms(100),
        node: None,
    }];
    assert_eq!(story.judge(&rules).violations, []);
}
