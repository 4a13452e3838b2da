//! The clients' own log: what every player was told and did, in the order in which it happened to them.
//!
//! Owns: the order (one lock, one monotonic clock) and the file that a failed test leaves. Does not judge: that is
//! `checker`. Written by `swarm` (players) and `fleet` (faults).

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A session's id as the gateway chose it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Session(pub(crate) u128);

impl Session {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a player asks for when no slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Reject,
    Ask,
    Wait,
    Oldest,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Ask => "ask",
            Self::Wait => "wait",
            Self::Oldest => "oldest",
        }
    }
}

/// One fact. `granted` carries no epoch on the wire, so the order of the log is what tells generations apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// The upgrade is about to be sent.
    Asked {
        device: u32,
        mode: Mode,
        resume: Option<Session>,
    },
    Granted {
        session: Session,
        resumed: bool,
        provisional: bool,
    },
    Denied {
        holders: u8,
        limit: u8,
    },
    /// Plain HTTP instead of an upgrade; 0: no answer at all.
    Refused {
        status: u16,
    },
    Waiting {
        position: u8,
    },
    /// A `takeover` is about to be sent.
    TakeOver {
        victim: Session,
    },
    /// A `wait` is about to be sent.
    WaitSent,
    Draining,
    /// A `stop`, or a close with 1000 or 1001, is about to be sent.
    StopSent,
    /// The connection is about to be broken without a close frame.
    Cut,
    Ended {
        code: u16,
    },
    /// 1006: the connection broke.
    Closed {
        code: u16,
    },
    /// An operator is about to end this session.
    Kicked {
        session: Session,
    },
    NodeKilled,
    NodeStalled,
    NodeWoken,
    /// SIGTERM is about to be sent.
    NodeLeaving,
    NodeReady,
    /// Something was done to Redis or to the way to it.
    Fault(&'static str),
}

/// No account, no socket, or no node: a fact about something larger.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Since the log began, on the monotonic clock.
    pub(crate) at: Duration,
    pub(crate) account: u32,
    pub(crate) socket: u32,
    pub(crate) node: u32,
    pub(crate) what: What,
}

pub(crate) struct Log {
    start: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            entries: Mutex::default(),
        }
    }

    /// The time on this log's clock.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Appends a fact; its time is taken under the lock, so that order and time agree.
    pub(crate) fn push(&self, account: u32, socket: u32, node: u32, what: What) -> Duration {
        let mut entries = self.lock();
        let at = self.now();
        entries.push(Entry {
            at,
            account,
            socket,
            node,
            what,
        });
        at
    }

    pub(crate) fn node(&self, node: u32, what: What) -> Duration {
        self.push(NONE, NONE, node, what)
    }

    pub(crate) fn fault(&self, name: &'static str) -> Duration {
        self.push(NONE, NONE, NONE, What::Fault(name))
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// Writes the log to a file beside the other temporary ones, and tells where.
    pub(crate) fn save(&self, name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("usher-chaos-{name}-{}.log", std::process::id()));
        let mut text = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        for entry in self.lock().iter() {
            writeln!(text, "{entry}").unwrap();
        }
        path
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6}", self.at.as_secs_f64())?;
        for (name, number) in [('a', self.account), ('s', self.socket), ('n', self.node)] {
            match number {
                NONE => write!(f, " {name}-")?,
                number => write!(f, " {name}{number}")?,
            }
        }
        write!(f, " {:?}", self.what)
    }
}
