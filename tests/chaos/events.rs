//! The event streams: every session that any player was granted is one play, neither none nor two (I5).
//!
//! Called by: the scenarios that end with everybody gone.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use crate::fleet::Fleet;
use crate::log::{Session, What};
use crate::resp::Reply;

/// One stream for each bucket.
const STREAMS: &str = "{usher:*}:v1:events";

/// How often each session appears, by kind.
#[derive(Debug, Default)]
pub(crate) struct Plays {
    started: BTreeMap<Session, usize>,
    ended: BTreeMap<Session, usize>,
}

impl Plays {
    /// Reads all streams.
    fn read(fleet: &mut Fleet) -> Self {
        let redis = fleet.redis();
        let mut plays = Self::default();
        for stream in redis.keys(STREAMS) {
            for entry in redis.command(&["XRANGE", &stream, "-", "+"]).array() {
                let Some(fields) = entry.array().pop() else {
                    continue;
                };
                let fields: Vec<String> = fields.array().into_iter().map(Reply::text).collect();
                let field = |name: &str| {
                    let pair = fields.chunks_exact(2).find(|pair| pair[0] == name);
                    pair.map_or_else(|| panic!("no {name} in {fields:?}"), |pair| pair[1].clone())
                };
                let session = Session::parse(&field("session")).expect("a session's id");
                let sessions = match &*field("kind") {
                    "started" => &mut plays.started,
                    "ended" => &mut plays.ended,
                    _ => continue,
                };
                *sessions.entry(session).or_default() += 1;
            }
        }
        plays
    }

    /// Waits until each granted session has ended in the streams, and asserts that each is there exactly once. Their
    /// number.
    pub(crate) async fn settled(fleet: &mut Fleet, within: Duration) -> usize {
        let granted = fleet
            .swarm
            .log
            .entries()
            .into_iter()
            .filter_map(|entry| match entry.what {
                What::Granted { session, .. } => Some((session, 1)),
                _ => None,
            });
        let granted: BTreeMap<Session, usize> = granted.collect();
        let deadline = fleet.swarm.log.now() + within;
        loop {
            let plays = Self::read(fleet);
            let late = fleet.swarm.log.now() > deadline;
            let complete = granted.keys().all(|session| plays.ended.contains_key(session));
            if complete || late {
                let once = |of: &BTreeMap<Session, usize>, kind: &str| {
                    for session in granted.keys() {
                        let times = of.get(session).copied().unwrap_or(0);
                        assert_eq!(times, 1, "{kind} of {session}, of {} plays", granted.len());
                    }
                };
                once(&plays.ended, "ended");
                once(&plays.started, "started");
                return granted.len();
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}
