//! The project's model of the lease protocol, for the model checker `stateright`.
//!
//! Owns: the world around the pure rules: nodes, players, messages and faults, with the time bent to a few classes.
//! Does not: know any rule of an account, a bucket or a tenure. It runs the very code of the program.
//! Called by: the tests in `scenarios`; README.md beside this file tells what is abstracted, and the results.
//!
//! Over 400 lines: the world is one type, and what every kind of step needs of it stays together.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod actions;
mod faults;
mod forms;
mod mixes;
mod mutations;
mod node;
mod properties;
mod scenarios;
mod seat;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId, SessionId};

use super::account::{Account, Effects, Fact, Ground};
use super::bucket::{Bucket, Step, Upkeep};
use super::group::Terms;
use super::model::{Acquire, Device, Generation, Millis, Wish};
use super::rule::Rule;
use super::tenure::Tick;

/// The store's clock stands still here; everything ahead of it is moved by [`faults`].
const NOW: Millis = 1_000_000_000;

/// So does every node's.
const TICK: Tick = Duration::from_secs(1_000_000);

/// A lease that began at the same time by the store and by the node; any other value is another beginning.
const SAME: Millis = 1;

/// Most players of a scenario.
const PLAYERS: usize = 4;

/// What is explored: who starts where, which faults may happen how often, and which rule is missing.
#[derive(Clone, Debug)]
struct Scenario {
    name: String,
    /// The slots by each player's token.
    limits: [u8; PLAYERS],
    /// Player, node and what it wants at the limit. A player may have several: it takes one of them.
    starts: &'static [(u8, u8, Want)],
    /// So many play already: player 0 on node 0, player 1 on node 1.
    playing: u8,
    /// The account of each player.
    accounts: [u8; PLAYERS],
    /// The device of each player.
    devices: [u8; PLAYERS],
    /// Accounts are spread over so many buckets.
    buckets: u8,
    budget: Budget,
    missing: Missing,
    /// What is not explored by then is left out,
    until: Instant,
    /// but all of it is there again for whoever asks how a state was reached.
    explored: Arc<AtomicBool>,
}

/// A rule that is taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Missing {
    #[default]
    Nothing,
    /// One of the code's.
    Code(Rule),
    /// One that lives in asynchronous code, or in a script, and that the model keeps itself.
    Node(NodeRule),
    /// One of each, of which either does the work of both.
    Both(Rule, NodeRule),
}

/// The rules that the model keeps itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeRule {
    /// 2: the gap is shorter than any lease.
    GapInTime,
    /// 4: a node whose lease ran out by its own clock asks nothing before it renewed.
    OwnClock,
    /// 4: a grant that comes late is confirmed before it is told,
    TellTrusted,
    /// and so is a resume.
    ResumeTrusted,
    /// 5: a doubtful session is so for every question about it.
    DoubtEverywhere,
    /// 5: what is being released is not written again.
    EndingStays,
    /// 9: ends are told again to another life of the data.
    EndsAgain,
    /// 11: a late start or resume does nothing.
    NotAfter,
    /// 12: counts are compared with every renewal.
    Compare,
    /// 12: marks come with renewals.
    Marks,
    /// 12: what the node does not know is released.
    Strangers,
    /// 12: each session is audited once a minute.
    Minute,
    /// 15: a resume that finds another epoch than it expected asks again with that one.
    AskAgain,
    /// 17: waiters ask again.
    Poll,
}

/// What a start wants when no slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Want {
    Slot,
    Wait,
    Oldest,
}

/// How often something may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Budget {
    crash: u8,
    pause: u8,
    cut: u8,
    away: u8,
    wipe: u8,
    failover: u8,
    split: u8,
    /// Lost answers and lost words.
    lost: u8,
    /// Answers that take their time.
    slow: u8,
    /// Requests whose copy arrives later.
    late: u8,
    /// Ends that are forgotten by the store after their time.
    forget: u8,
    resume: u8,
    /// Players that stop,
    stop: u8,
    /// or go before they are granted.
    leave: u8,
    vanish: u8,
    kick: u8,
    /// Grants without the store.
    local: u8,
    /// Players that pause or play on, which makes their node ask.
    look: u8,
    /// No fault but a switch: facts lie in the store until somebody reads them, and a wipe takes them along.
    unread: u8,
    /// No fault but a switch: the first half of a recovery lasts longer than a lease (`outage.strict`), and a node that
    /// has not finished its audit is no excuse.
    strict: u8,
    /// No fault but a switch: player 2 began after the others.
    aged: u8,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    shards: Vec<Shard>,
    nodes: Vec<node::Node>,
    players: Vec<Player>,
    /// Words on their way.
    words: BTreeSet<(OwnerId, u8)>,
    /// A copy of a request on its way.
    late: Option<seat::Request>,
    budget: Budget,
    /// Lives of data so far.
    lives: u64,
    ghost: Ghost,
}

/// A bucket and its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shard {
    bucket: Bucket,
    server: u64,
    away: bool,
    /// What a replica has of it.
    replica: Option<Box<Bucket>>,
    /// The former primary, which still answers this node.
    former: Option<(u8, Box<Bucket>, u64)>,
    /// `ended` facts that nobody has read.
    unread: [u8; PLAYERS],
}

/// Where a viewer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Player {
    Idle,
    /// At this node, with its n-th socket.
    At(u8, u8),
    Done,
}

/// What only the properties look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Ghost {
    /// `ended` facts of each player.
    ended: [u8; PLAYERS],
    /// Whether it was ever told that it is granted.
    told: [bool; PLAYERS],
    /// Its own device has started something else.
    replaced: [bool; PLAYERS],
    /// Facts or entries were lost with the data.
    lossy: bool,
    /// A session that was well has been ended.
    hurt: bool,
    /// A stale fence changed an entry.
    stale: bool,
    /// Somebody was denied though the account was not full, or ended before the start, and nobody asked for it.
    false_denial: bool,
    /// What had ended, or was to end, came back.
    back: bool,
    /// A slot was granted under a dead owner.
    dead_grant: bool,
}

static KEYS: LazyLock<[AccountKey; 2]> =
    LazyLock::new(|| [AccountKey::new("t", "a"), AccountKey::new("t", "b")]);

static DEVICES: LazyLock<Vec<Arc<Device>>> = LazyLock::new(|| {
    let device = |id: usize| Device {
        id: id.to_string().into(),
        name: None,
        class: None,
        plan: None,
    };
    (0..PLAYERS).map(|id| Arc::new(device(id))).collect()
});

static CONTENT: LazyLock<Arc<str>> = LazyLock::new(|| "".into());

/// The session of a player.
const fn session(player: u8) -> SessionId {
    SessionId::from_bytes([player + 1; 16])
}

/// When a player's session began, for all that looks at it.
const fn began(player: u8, budget: &Budget) -> Millis {
    match player {
        2 if budget.aged > 0 => NOW + 1,
        _ => NOW,
    }
}

/// The player of a session.
fn player_of(id: SessionId) -> u8 {
    (0..4).find(|player| session(*player) == id).unwrap()
}

impl Scenario {
    fn key(&self, player: u8) -> &'static AccountKey {
        &KEYS[usize::from(self.accounts[usize::from(player)])]
    }

    fn shard_of(&self, player: u8) -> usize {
        usize::from(self.accounts[usize::from(player)] % self.buckets)
    }

    /// The slots of one account.
    fn limit(&self) -> usize {
        self.limits.into_iter().max().map_or(0, usize::from)
    }

    fn keeps(&self, rule: NodeRule) -> bool {
        !matches!(self.missing, Missing::Node(missing) | Missing::Both(_, missing) if missing == rule)
    }

    fn code_rule(&self) -> Option<Rule> {
        match self.missing {
            Missing::Code(rule) | Missing::Both(rule, _) => Some(rule),
            _ => None,
        }
    }

    fn acquire(&self, player: u8, owner: OwnerId, want: Want) -> Acquire {
        Acquire {
            session: session(player),
            owner,
            device: Arc::clone(&DEVICES[usize::from(self.devices[usize::from(player)])]),
            content: Arc::clone(&CONTENT),
            limit: self.limits[usize::from(player)].into(),
            terms: Terms::default(),
            wish: match want {
                Want::Slot => Wish::Slot,
                Want::Wait => Wish::Wait,
                Want::Oldest => Wish::Oldest,
            },
            consent: false,
            line: 4,
            period: None,
        }
    }
}

impl World {
    /// Runs a rule of an account in the store that a node sees.
    fn step<T>(
        &mut self,
        scenario: &Scenario,
        asker: Option<usize>,
        player: u8,
        rule: impl FnOnce(&mut Account, &Ground<'_>, &mut Effects) -> T,
    ) -> T {
        let (lives, index) = (self.lives, scenario.shard_of(player));
        let (bucket, server) = self.shards[index].seen_by(asker);
        let mut effects = Effects::default();
        let mut dead = false;
        let answer = bucket.step(
            scenario.key(player),
            &clock(server, lives),
            &mut effects,
            |table, ground, effects| {
                let answer = rule(table, ground, effects);
                let granted = |fact: &Fact| matches!(fact, Fact::Started(entry) if !ground.live(entry.owner));
                dead = effects.facts.iter().any(granted);
                answer
            },
        );
        let born = bucket.generation() == Some(Generation(lives + 1));
        self.lives += u64::from(born);
        self.ghost.dead_grant |= dead;
        self.take_effects(index, effects);
        answer
    }

    /// Renews a node's lease in the store that it sees.
    fn renew_lease(&mut self, asker: usize, shard: usize) -> super::model::Renewed {
        let (lives, owner) = (self.lives, self.nodes[asker].owner(asker));
        let (bucket, server) = self.shards[shard].seen_by(Some(asker));
        let mut upkeep = Upkeep::new();
        let answer = bucket.renew(owner, &clock(server, lives), &mut upkeep);
        self.lives += u64::from(bucket.generation() == Some(Generation(lives + 1)));
        for (_, effects, _) in upkeep {
            self.take_effects(shard, effects);
        }
        answer
    }

    fn take_effects(&mut self, shard: usize, effects: Effects) {
        for look in effects.looks {
            self.send_word(look.owner, player_of(look.session));
        }
        for fact in effects.facts {
            match fact {
                Fact::Started(_) => {}
                Fact::Ended { entry, code, .. } => {
                    let player = usize::from(player_of(entry.session));
                    let place = match self.budget.unread {
                        0 => &mut self.ghost.ended[player],
                        _ => &mut self.shards[shard].unread[player],
                    };
                    *place = 2.min(*place + 1);
                    self.ghost.replaced[player] |= code == EndCode::Moved;
                }
            }
        }
    }

    /// Word goes to a process that lives; another one does not hear it.
    fn send_word(&mut self, owner: OwnerId, player: u8) {
        if self
            .nodes
            .iter()
            .enumerate()
            .any(|(index, node)| node.is_up_as(index, owner))
        {
            self.words.insert((owner, player));
        }
    }
}

impl Shard {
    /// The store that a node sees, with its server's mark; operators see the true one.
    fn seen_by(&mut self, asker: Option<usize>) -> (&mut Bucket, u64) {
        match &mut self.former {
            Some((node, bucket, server)) if asker == Some(usize::from(*node)) => (bucket, *server),
            _ => (&mut self.bucket, self.server),
        }
    }
}

impl Shard {
    /// The same, only to look at.
    fn view(&self, asker: usize) -> &Bucket {
        match &self.former {
            Some((node, bucket, _)) if usize::from(*node) == asker => bucket,
            _ => &self.bucket,
        }
    }
}

fn clock(server: u64, lives: u64) -> Step {
    Step {
        now: NOW,
        server,
        fresh: Generation(lives + 1),
        halves: (2_500, 2_500),
    }
}
