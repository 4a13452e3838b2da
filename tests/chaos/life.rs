//! One socket's life, collected from the log.
//!
//! Owns: putting the entries of a socket together, and what its end means for its slot. Called by: `checker`.

use std::collections::HashMap;
use std::time::Duration;

use crate::log::{Entry, Mode, Session, What};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) at: Duration,
    /// When the question was put that this answers; of a waiter, when it last heard that it waits.
    pub(crate) asked: Duration,
    pub(crate) session: Session,
    pub(crate) resumed: bool,
    pub(crate) provisional: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial {
    pub(crate) asked: Duration,
    pub(crate) at: Duration,
    pub(crate) holders: u8,
    pub(crate) limit: u8,
}

/// How a socket ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) at: Duration,
    /// Whether the slot is free with it, or kept for a resume.
    pub(crate) frees: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) socket: u32,
    pub(crate) node: u32,
    pub(crate) device: u32,
    pub(crate) mode: Mode,
    pub(crate) resume: Option<Session>,
    pub(crate) asked: Duration,
    pub(crate) first_answer: Option<Duration>,
    /// Since when the node may have granted without our knowing.
    pub(crate) undecided: Option<Duration>,
    pub(crate) granted: Option<Grant>,
    pub(crate) denials: Vec<Denial>,
    pub(crate) refused: Option<u16>,
    pub(crate) takeover: Option<Duration>,
    pub(crate) waited: bool,
    pub(crate) stop: Option<Duration>,
    pub(crate) cut: Option<Duration>,
    ended: Option<(Duration, u16)>,
    closed: Option<(Duration, u16)>,
}

/// The lives of all sockets of one account, in the order in which they asked.
pub(crate) fn lives(entries: &[Entry]) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    let mut of_socket = HashMap::new();
    for entry in entries {
        if let What::Asked { device, mode, resume } = entry.what {
            of_socket.insert(entry.socket, lives.len());
            lives.push(Life::new(entry, device, mode, resume));
        } else if let Some(index) = of_socket.get(&entry.socket) {
            let life: &mut Life = &mut lives[*index];
            life.live(entry);
        }
    }
    lives
}

impl Life {
    fn new(entry: &Entry, device: u32, mode: Mode, resume: Option<Session>) -> Self {
        Self {
            socket: entry.socket,
            node: entry.node,
            device,
            mode,
            resume,
            asked: entry.at,
            first_answer: None,
            undecided: Some(entry.at),
            granted: None,
            denials: Vec::new(),
            refused: None,
            takeover: None,
            waited: false,
            stop: None,
            cut: None,
            ended: None,
            closed: None,
        }
    }

    fn live(&mut self, entry: &Entry) {
        let at = entry.at;
        let asked = self.undecided.unwrap_or(self.asked);
        match entry.what {
            What::Granted {
                session,
                resumed,
                provisional,
            } => {
                self.granted = Some(Grant {
                    at,
                    asked,
                    session,
                    resumed,
                    provisional,
                });
                self.undecided = None;
            }
            What::Denied { holders, limit } => {
                self.denials.push(Denial {
                    asked,
                    at,
                    holders,
                    limit,
                });
                self.undecided = None;
            }
            What::Refused { status } => {
                self.refused = Some(status);
                self.closed = Some((at, status));
                // No answer at all: the node may have died with the grant on its way.
                if status != 0 {
                    self.undecided = None;
                }
            }
            What::Waiting { .. } => {
                self.undecided = Some(at);
                self.waited = true;
            }
            What::TakeOver { .. } => {
                self.undecided = Some(at);
                self.takeover = Some(at);
            }
            What::WaitSent => self.undecided = Some(at),
            What::StopSent => {
                self.stop.get_or_insert(at);
            }
            What::Cut => {
                self.cut.get_or_insert(at);
            }
            What::Ended { code } => {
                self.ended.get_or_insert((at, code));
                if code == 4001 {
                    self.undecided = None;
                }
            }
            What::Closed { code } => {
                self.closed.get_or_insert((at, code));
            }
            _ => return,
        }
        let answers = !matches!(
            entry.what,
            What::StopSent | What::Cut | What::TakeOver { .. } | What::WaitSent
        );
        if answers {
            self.first_answer.get_or_insert(at);
        }
    }

    pub(crate) fn session(&self) -> Option<Session> {
        self.granted.map(|grant| grant.session)
    }

    /// Whether this socket may end another's session.
    pub(crate) fn takes_over(&self) -> bool {
        self.mode == Mode::Oldest || self.takeover.is_some()
    }

    /// Whether this socket was granted before the other one even asked.
    pub(crate) fn before(&self, other: &Self) -> bool {
        self.granted.is_some_and(|grant| grant.at < other.asked)
    }

    /// The first answer that settles a resume: when, and whether it went on.
    pub(crate) fn answer(&self) -> Option<(Duration, bool)> {
        let denied = self.denials.first().map(|denial| (denial.at, false));
        denied.or(self.granted.map(|grant| (grant.at, grant.resumed)))
    }

    /// When and with which code the server ended it, unless the player was leaving already.
    pub(crate) fn ended_by_server(&self) -> Option<(Duration, u16)> {
        let (at, code) = self.ended.or(self.closed)?;
        let left = [self.stop, self.cut].into_iter().flatten().min();
        left.is_none_or(|left| at < left).then_some((at, code))
    }

    /// The end of the socket, as far as its slot is concerned.
    pub(crate) fn end(&self) -> Option<End> {
        let told = self.ended.or(self.closed);
        match (told, self.stop, self.cut) {
            // Answered: whatever the player wanted, this is what the server made of it.
            (Some((at, code)), stop, _) if code != 1006 && code != 0 => {
                let kept = (4_200..4_300).contains(&code) && code != 4_201 && stop.is_none();
                Some(End { at, frees: !kept })
            }
            (told, stop, cut) => {
                let at = [told.map(|(at, _)| at), stop, cut].into_iter().flatten().max()?;
                Some(End { at, frees: false })
            }
        }
    }
}
