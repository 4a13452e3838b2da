//! Judges a history from the clients' log alone: nothing that a gateway says about itself is believed.
//!
//! Owns: what counts as a broken promise (design.md section 3, I1 to I3, and "what the invariants mean exactly" of the
//! lease rules). Does not: know processes or sockets. Called by: every scenario at its end.
//!
//! The limit is judged exactly, by the order of the log: a socket counts from the moment it reads `granted` until it
//! reads `ended`, or itself stops, breaks off, or asks on another socket of the same device that is then granted. A refusal is judged generously: it is false only when there was no
//! moment between asking and answer at which `limit` slots could have been in use.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use crate::life::{Life, lives};
use crate::log::{Entry, NONE, Session, What};

/// A declared outage: in it the sockets of these nodes do not count, and no refusal or drop is judged.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// `None`: all.
    pub(crate) node: Option<u32>,
}

/// Ends by the server that this scenario causes on purpose.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) code: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) limit: usize,
    /// How long a broken socket keeps its slot at most.
    pub(crate) kept: Duration,
    /// How long the slots of a dead node are kept at most.
    pub(crate) kept_by_dead: Duration,
    /// From reading `ended` until the slot is free at the latest: `ended` is said first.
    pub(crate) grace: Duration,
    /// The longest undecided start.
    pub(crate) answer_within: Duration,
    pub(crate) windows: Vec<Window>,
    pub(crate) allowed: Vec<Allowed>,
}

impl Rules {
    pub(crate) fn of_limit(limit: usize) -> Self {
        Self {
            limit,
            kept: Duration::from_millis(10_250),
            kept_by_dead: Duration::from_secs(13),
            grace: Duration::from_millis(250),
            answer_within: Duration::from_secs(7),
            windows: Vec::new(),
            allowed: Vec::new(),
        }
    }

    fn excuses(&self, at: Duration, node: u32) -> bool {
        let mut windows = self.windows.iter();
        windows.any(|w| w.from <= at && at < w.to && w.node.is_none_or(|of| of == node))
    }

    /// Whether an outage that concerns everybody, or any node, covers a moment of this span.
    fn disturbed(&self, from: Duration, to: Duration) -> bool {
        self.windows.iter().any(|w| w.from <= to && from < w.to)
    }
}

/// Two frames that were read in one go are logged within this.
const AT_ONCE: Duration = Duration::from_millis(10);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Violation {
    /// More sockets were told `granted` and not `ended` than the account has slots.
    Limit {
        account: u32,
        from: Duration,
        lasted: Duration,
        playing: usize,
        /// Began with the grant of a take-over: victim and newcomer both played.
        takeover: bool,
    },
    /// Refused although a slot was free.
    FalseRefusal {
        account: u32,
        socket: u32,
        at: Duration,
        in_use: usize,
    },
    /// A refusal that does not name everybody.
    ShortHolders {
        account: u32,
        socket: u32,
        at: Duration,
        holders: u8,
    },
    /// Ended by the server without a reason that the log knows.
    Dropped {
        account: u32,
        socket: u32,
        at: Duration,
        code: u16,
    },
    /// A resume in time that did not go on with its session.
    NotResumed {
        account: u32,
        socket: u32,
        at: Duration,
        session: Session,
    },
    /// No first frame in time.
    Unanswered {
        account: u32,
        socket: u32,
        asked: Duration,
    },
    /// A provisional grant although Redis was there.
    Provisional { account: u32, socket: u32, at: Duration },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    /// Most playing sockets of one account at once, windows included.
    pub(crate) most_playing: usize,
    pub(crate) grants: usize,
    pub(crate) resumed: usize,
    pub(crate) denials: usize,
    pub(crate) refusals: usize,
    pub(crate) provisional: usize,
    /// From asking to `granted` without waiting; the player's handshake ends in it.
    pub(crate) grant_times: Vec<Duration>,
    /// From sending `takeover` to `granted`.
    pub(crate) takeover_times: Vec<Duration>,
    /// How long accounts were above the limit inside the windows, each time.
    pub(crate) excused: Vec<Duration>,
}

impl Report {
    pub(crate) fn limit_violations(&self) -> usize {
        let of_limit = |violation: &&Violation| matches!(violation, Violation::Limit { .. });
        self.violations.iter().filter(of_limit).count()
    }
}

/// Judges the whole log.
pub(crate) fn check(log: &[Entry], rules: &Rules) -> Report {
    let mut report = Report::default();
    let nodes: Vec<Entry> = log
        .iter()
        .filter(|e| e.account == NONE && e.node != NONE)
        .copied()
        .collect();
    let end = log.last().map_or(Duration::ZERO, |entry| entry.at);
    let mut accounts: BTreeMap<u32, Vec<Entry>> = BTreeMap::new();
    for entry in log.iter().filter(|entry| entry.account != NONE) {
        accounts.entry(entry.account).or_default().push(*entry);
    }
    for (account, entries) in accounts {
        let history = History {
            account,
            lives: lives(&entries),
            entries,
            nodes: &nodes,
            rules,
            end,
        };
        history.check(&mut report);
    }
    report
}

/// Everything known of one account.
struct History<'a> {
    account: u32,
    entries: Vec<Entry>,
    lives: Vec<Life>,
    nodes: &'a [Entry],
    rules: &'a Rules,
    end: Duration,
}

/// A slot that may have been in use.
struct Span {
    from: Duration,
    to: Duration,
}

impl History<'_> {
    fn check(&self, report: &mut Report) {
        self.check_limit(report);
        self.check_refusals(report);
        self.check_ends(report);
        self.check_resumes(report);
        self.check_answers(report);
    }

    fn check_limit(&self, report: &mut Report) {
        let lives: HashMap<u32, &Life> = self.lives.iter().map(|life| (life.socket, life)).collect();
        let over_at_once = self.over_at_once();
        let mut playing: HashMap<Session, &Life> = HashMap::new();
        let mut over = Over::default();
        for (at, entry) in self.moments() {
            let mut takeover = false;
            match entry.map(|entry| (entry, entry.what)) {
                // A device has one session: its next one replaces it (rule 21), some time before it hears so itself.
                // Denied it replaced one that somebody was taking over.
                Some((entry, What::Asked { device, .. })) if self.replaces(lives[&entry.socket]) => {
                    playing.retain(|_, other| other.device != device);
                }
                Some((entry, What::Granted { session, .. })) => {
                    let life = lives[&entry.socket];
                    takeover = life.takes_over();
                    playing.retain(|_, other| other.device != life.device);
                    // What it asked for before it read the grant is over too.
                    let stopped = life.stop.is_some_and(|stop| stop < entry.at);
                    if !stopped && !over_at_once.contains(&entry.socket) {
                        playing.insert(session, life);
                    }
                }
                Some((entry, What::StopSent | What::Cut | What::Ended { .. } | What::Closed { .. })) => {
                    playing.retain(|_, life| life.socket != entry.socket);
                }
                Some((entry, What::NodeKilled)) => playing.retain(|_, life| life.node != entry.node),
                _ => {}
            }
            let counted = playing
                .values()
                .filter(|life| !self.rules.excuses(at, life.node))
                .count();
            report.most_playing = report.most_playing.max(playing.len());
            over.see(at, counted, playing.len(), self.rules.limit, takeover);
        }
        over.see(self.end, 0, 0, self.rules.limit, false);
        report.excused.extend(over.excused);
        report
            .violations
            .extend(
                over.found
                    .into_iter()
                    .map(|(from, to, playing, takeover)| Violation::Limit {
                        account: self.account,
                        from,
                        lasted: to - from,
                        playing,
                        takeover,
                    }),
            );
    }

    /// Whether a start ends its device's earlier session: granted; or denied, when somebody was taking that one over.
    fn replaces(&self, life: &Life) -> bool {
        let taken_over = |denied: Duration| {
            let mut takers = self.lives.iter().filter(|taker| taker.takes_over());
            takers
                .any(|taker| taker.asked < denied && taker.granted.is_none_or(|grant| grant.at > life.asked))
        };
        life.granted.is_some() || life.denials.first().is_some_and(|denial| taken_over(denial.at))
    }

    /// Sockets that read `granted` and their end in one go: both had come before they were looked at.
    fn over_at_once(&self) -> HashSet<u32> {
        let pairs = self.entries.windows(2).filter(|pair| {
            matches!(pair[0].what, What::Granted { .. })
                && matches!(pair[1].what, What::Ended { .. } | What::Closed { .. })
                && pair[0].socket == pair[1].socket
                && pair[1].at - pair[0].at < AT_ONCE
        });
        pairs.map(|pair| pair[0].socket).collect()
    }

    /// The account's entries, those of the nodes, and the edges of the windows, in order.
    fn moments(&self) -> Vec<(Duration, Option<Entry>)> {
        let entries = self
            .entries
            .iter()
            .chain(self.nodes)
            .map(|entry| (entry.at, Some(*entry)));
        let edges = self
            .rules
            .windows
            .iter()
            .flat_map(|window| [(window.from, None), (window.to, None)]);
        let mut moments: Vec<_> = entries.chain(edges).collect();
        // Stable: what has one time stays in the order of the log.
        moments.sort_by_key(|(at, _)| *at);
        moments
    }

    fn check_refusals(&self, report: &mut Report) {
        let spans = self.spans();
        for life in &self.lives {
            report.denials += life.denials.len();
            report.refusals += usize::from(life.refused.is_some());
            for denial in &life.denials {
                if self.rules.disturbed(denial.asked, denial.at) {
                    continue;
                }
                if denial.holders < denial.limit {
                    report.violations.push(Violation::ShortHolders {
                        account: self.account,
                        socket: life.socket,
                        at: denial.at,
                        holders: denial.holders,
                    });
                }
                let in_use = most_at_once(&spans, denial.asked, denial.at);
                if in_use < usize::from(denial.limit) {
                    report.violations.push(Violation::FalseRefusal {
                        account: self.account,
                        socket: life.socket,
                        at: denial.at,
                        in_use,
                    });
                }
            }
        }
    }

    /// From when to when each session, or start of unknown outcome, may have held a slot.
    fn spans(&self) -> Vec<Span> {
        let mut sessions: HashMap<Session, Span> = HashMap::new();
        let mut spans = Vec::new();
        let mut granted: Vec<&Life> = self.lives.iter().filter(|life| life.granted.is_some()).collect();
        granted.sort_by_key(|life| life.granted.map(|grant| grant.at));
        for life in granted {
            let Some(grant) = life.granted else { continue };
            let to = self.slot_end(life);
            let span = sessions.entry(grant.session).or_insert(Span {
                from: grant.asked,
                to,
            });
            span.to = to;
        }
        for life in &self.lives {
            if let (Some(from), None) = (life.undecided, life.granted) {
                let to = self.slot_end(life);
                spans.push(Span { from, to });
            }
        }
        spans.extend(sessions.into_values());
        spans
    }

    /// When the slot of this socket was free at the latest, if nobody resumed it.
    fn slot_end(&self, life: &Life) -> Duration {
        let rules = self.rules;
        let Some(end) = life.end() else {
            return Duration::MAX;
        };
        if end.frees {
            return end.at + rules.grace;
        }
        let mut to = end.at + rules.kept;
        for down in self.nodes.iter().filter(|entry| entry.node == life.node) {
            if matches!(down.what, What::NodeKilled | What::NodeStalled) && down.at < to {
                to = to.max(down.at + rules.kept_by_dead);
            }
        }
        to
    }

    fn check_ends(&self, report: &mut Report) {
        let displacers = self.lives.iter().filter(|life| life.takes_over()).count();
        let mut displaced = 0;
        for life in &self.lives {
            let (Some(_), Some((at, code))) = (life.granted, life.ended_by_server()) else {
                continue;
            };
            let expected = match code {
                // Granted without the arbiter, it may be put right.
                4000..4200 if life.granted.is_some_and(|grant| grant.provisional) => true,
                4002 => {
                    displaced += 1;
                    displaced <= displacers
                }
                // By an order about the session, or about its account.
                4003 | 4004 => self.kicked().contains(&life.session()),
                4006 => self.lives.iter().any(|other| {
                    other.socket != life.socket
                        && other.device == life.device
                        && other.asked < at
                        && !other.before(life)
                }),
                _ => self.went_down(life.node, at),
            };
            let allowed = |a: &Allowed| a.code == code && a.from <= at && at < a.to;
            if !expected && !self.rules.allowed.iter().any(allowed) {
                report.violations.push(Violation::Dropped {
                    account: self.account,
                    socket: life.socket,
                    at,
                    code,
                });
            }
        }
    }

    fn kicked(&self) -> HashSet<Option<Session>> {
        let kicks = self.entries.iter().filter_map(|entry| match entry.what {
            What::Kicked { session } => Some(Some(session)),
            _ => None,
        });
        kicks.collect()
    }

    /// Whether this node was killed, stalled or told to leave before then.
    fn went_down(&self, node: u32, at: Duration) -> bool {
        let mut downs = self
            .nodes
            .iter()
            .filter(|entry| entry.node == node && entry.at <= at);
        downs.any(|entry| {
            matches!(
                entry.what,
                What::NodeKilled | What::NodeStalled | What::NodeLeaving
            )
        })
    }

    fn check_resumes(&self, report: &mut Report) {
        // A player needs no more than a second of the lease for its way back.
        let in_time = self.rules.kept.saturating_sub(Duration::from_millis(1_250));
        for life in &self.lives {
            let (Some(session), Some((at, resumed))) = (life.resume, life.answer()) else {
                continue;
            };
            report.resumed += usize::from(resumed);
            if resumed || self.rules.disturbed(life.asked, at) {
                continue;
            }
            let holders = self.lives.iter().filter(|other| other.session() == Some(session));
            let holder = holders.filter(|other| other.granted.is_some_and(|grant| grant.at < life.asked));
            let Some(holder) = holder.max_by_key(|other| other.granted.map(|grant| grant.at)) else {
                continue;
            };
            let ended = holder.end();
            // The lease runs from the last frame: the grant, or a heartbeat of at most so long before the end.
            let heard = |at: Duration| {
                let granted = holder.granted.map_or(at, |grant| grant.at);
                at.saturating_sub(Duration::from_secs(6)).max(granted)
            };
            let lapsed = ended.is_some_and(|end| end.frees || heard(end.at) + in_time < at);
            let ended_by_others = self
                .lives
                .iter()
                .any(|other| other.takes_over() && other.asked < at)
                || self.kicked().contains(&Some(session))
                || holder.stop.is_some_and(|stop| stop < at);
            if !lapsed && !ended_by_others {
                report.violations.push(Violation::NotResumed {
                    account: self.account,
                    socket: life.socket,
                    at,
                    session,
                });
            }
        }
    }

    fn check_answers(&self, report: &mut Report) {
        for life in &self.lives {
            if let Some(grant) = life.granted {
                report.grants += 1;
                match (life.takeover, life.waited) {
                    (Some(sent), _) => report.takeover_times.push(grant.at - sent),
                    (None, false) => report.grant_times.push(grant.at - life.asked),
                    (None, true) => {}
                }
                if grant.provisional {
                    report.provisional += 1;
                    if !self.rules.excuses(grant.at, life.node) {
                        report.violations.push(Violation::Provisional {
                            account: self.account,
                            socket: life.socket,
                            at: grant.at,
                        });
                    }
                }
            }
            let answered = life
                .first_answer
                .or_else(|| life.end().map(|end| end.at))
                .unwrap_or(self.end);
            let late = answered.saturating_sub(life.asked) > self.rules.answer_within;
            if late && !self.rules.disturbed(life.asked, answered) && !self.went_down(life.node, answered) {
                report.violations.push(Violation::Unanswered {
                    account: self.account,
                    socket: life.socket,
                    asked: life.asked,
                });
            }
        }
    }
}

/// The most spans that share a moment of `from..=to`.
fn most_at_once(spans: &[Span], from: Duration, to: Duration) -> usize {
    let begun = spans
        .iter()
        .map(|span| span.from)
        .filter(|at| from < *at && *at <= to);
    let moments = std::iter::once(from).chain(begun);
    let count = |at: Duration| {
        spans
            .iter()
            .filter(|span| span.from <= at && at <= span.to)
            .count()
    };
    moments.map(count).max().unwrap_or(0)
}

/// The spans of time above the limit.
#[derive(Default)]
struct Over {
    since: Option<(Duration, usize, bool)>,
    excused_since: Option<Duration>,
    found: Vec<(Duration, Duration, usize, bool)>,
    excused: Vec<Duration>,
}

impl Over {
    fn see(&mut self, at: Duration, counted: usize, playing: usize, limit: usize, takeover: bool) {
        match (&mut self.since, counted > limit) {
            (None, true) => self.since = Some((at, counted, takeover)),
            (Some((_, most, _)), true) => *most = counted.max(*most),
            (Some((from, most, takeover)), false) => {
                self.found.push((*from, at, *most, *takeover));
                self.since = None;
            }
            (None, false) => {}
        }
        match (self.excused_since, playing > limit && counted <= limit) {
            (None, true) => self.excused_since = Some(at),
            (Some(from), false) => {
                self.excused.push(at - from);
                self.excused_since = None;
            }
            _ => {}
        }
    }
}
