//! What must be true, by the names of the invariants (design section 3).

use std::collections::BTreeSet;

use stateright::Property;

use super::super::model::Entry;
use super::node::Run;
use super::seat::{Seat, Task};
use super::{Generation, PLAYERS, Player, Scenario, World, session};

impl World {
    /// The socket at which a viewer is, if it was told `granted`, and nothing of it is excused (I1).
    fn counted(&self, player: u8) -> Option<&Seat> {
        let Player::At(node, attempt) = self.players[usize::from(player)] else {
            return None;
        };
        let here = &self.nodes[usize::from(node)];
        let mut seats = here.seats.iter();
        let seat = seats.find(|seat| seat.player == player && seat.attempt == attempt)?;
        let counts = seat.told && seat.socket && !seat.excused && seat.generation != Generation::NONE;
        (here.run != Run::Down && counts).then_some(seat)
    }

    fn keeps_limit(&self, scenario: &Scenario) -> bool {
        (0..2).all(|account| {
            let of = |player: &u8| scenario.accounts[usize::from(*player)] == account;
            // A socket that its own device replaced has ended.
            let counts =
                |player: &u8| self.counted(*player).is_some() && !self.ghost.replaced[usize::from(*player)];
            (0..PLAYERS as u8).filter(of).filter(counts).count() <= scenario.limit()
        })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let accounts = self.shards.iter().flat_map(|shard| shard.bucket.accounts());
        accounts.flat_map(|(_, account)| account.entries())
    }

    /// Every entry is some living seat's.
    fn leaks_nothing(&self) -> bool {
        self.entries().all(|entry| {
            entry.mark.is_none()
                && self.nodes.iter().enumerate().any(|(index, node)| {
                    let holds = |seat: &Seat| {
                        session(seat.player) == entry.session && seat.epoch == entry.epoch && seat.sits
                    };
                    node.is_up_as(index, entry.owner) && node.seats.iter().any(holds)
                })
        })
    }

    /// Every seat has its entry.
    fn holds_all(&self) -> bool {
        self.nodes.iter().enumerate().all(|(index, node)| {
            node.seats.iter().filter(|seat| seat.sits).all(|seat| {
                let is_its = |entry: &Entry| {
                    entry.session == session(seat.player)
                        && entry.epoch == seat.epoch
                        && entry.owner == node.owner(index)
                };
                self.entries().any(is_its)
            })
        })
    }

    /// Whoever waits stands in the line of a full account.
    fn waits_for_cause(&self, scenario: &Scenario) -> bool {
        self.nodes.iter().all(|node| {
            let waits = |seat: &&Seat| matches!(seat.task, Task::Wait(_) | Task::Start(_) | Task::Resume(_));
            node.seats.iter().filter(waits).all(|seat| {
                let shard = &self.shards[scenario.shard_of(seat.player)];
                shard
                    .bucket
                    .account(scenario.key(seat.player))
                    .is_some_and(|account| {
                        let stands = account
                            .line()
                            .iter()
                            .any(|waiter| waiter.session == session(seat.player));
                        stands
                            && account.entries().len()
                                >= usize::from(scenario.limits[usize::from(seat.player)])
                    })
            })
        })
    }

    fn ends_told(&self, scenario: &Scenario) -> bool {
        // A wipe together with the owner's crash loses that play, and so does one while the answer to a resume is under
        // way or lost: its former owner has let it go, the next does not know of it.
        let b = &scenario.budget;
        if self.ghost.lossy && (b.crash > 0 || (b.resume > 0 && b.lost + b.slow > 0)) {
            return true;
        }
        (0..PLAYERS as u8).all(|player| {
            let at = usize::from(player);
            let seated = self
                .nodes
                .iter()
                .any(|node| node.seats.iter().any(|seat| seat.player == player));
            let held = self.entries().any(|entry| entry.session == session(player));
            !self.ghost.told[at] || seated || held || self.ghost.ended[at] > 0
        })
    }

    /// No session has two entries, and none has one that its end stops.
    fn ends_last(&self) -> bool {
        let mut accounts = self.shards.iter().flat_map(|shard| shard.bucket.accounts());
        accounts.all(|(_, account)| {
            let entries = account.entries();
            let risen = |entry: &Entry| {
                account
                    .end_of(entry.session)
                    .is_some_and(|(epoch, ..)| epoch >= entry.epoch)
            };
            let twice = |entry: &Entry| {
                entries
                    .iter()
                    .filter(|other| other.session == entry.session)
                    .count()
                    > 1
            };
            !entries.iter().any(|entry| risen(entry) || twice(entry))
        })
    }

    /// A device has one slot.
    fn plays_once(&self) -> bool {
        let mut accounts = self.shards.iter().flat_map(|shard| shard.bucket.accounts());
        accounts.all(|(_, account)| {
            let devices: BTreeSet<_> = account.entries().iter().map(|entry| &entry.device.id).collect();
            devices.len() == account.entries().len()
        })
    }

    fn all_down(&self) -> bool {
        self.nodes.iter().all(|node| node.run == Run::Down)
    }
}

pub(super) fn all() -> Vec<Property<Scenario>> {
    type S = Scenario;
    type W = World;
    vec![
        Property::always("I1 limit", |s: &S, w: &W| w.keeps_limit(s)),
        Property::always("I2 no false refusal", |_: &S, w: &W| !w.ghost.false_denial),
        Property::always("I4 fencing", |_: &S, w: &W| !w.ghost.stale),
        Property::always("I4 what is well goes on", |_: &S, w: &W| !w.ghost.hurt),
        Property::always("I5 at most one end", |_: &S, w: &W| {
            w.ghost.lossy || w.ghost.ended.iter().all(|ended| *ended <= 1)
        }),
        Property::always("rule 4: no slot goes to the dead", |_: &S, w: &W| {
            !w.ghost.dead_grant
        }),
        Property::always("I4 what ends does not come back", |_: &S, w: &W| {
            !w.ghost.back && w.ends_last()
        }),
        Property::always("I3 at rest a device plays once", |s: &S, w: &W| {
            w.plays_once() || !s.is_at_rest(w)
        }),
        Property::always("I3 at rest nothing is leaked", |s: &S, w: &W| {
            w.leaks_nothing() || w.all_down() || !s.is_at_rest(w)
        }),
        Property::always("I3 at rest who plays has an entry", |s: &S, w: &W| {
            w.holds_all() || !s.is_at_rest(w)
        }),
        Property::always("I3 at rest nobody waits in vain", |s: &S, w: &W| {
            w.waits_for_cause(s) || !s.is_at_rest(w)
        }),
        Property::always("I5 at rest every play has ended once", |s: &S, w: &W| {
            w.ends_told(s) || !s.is_at_rest(w)
        }),
        Property::sometimes("reached: the account is full", |s: &S, w: &W| {
            (0..PLAYERS as u8)
                .filter(|player| w.counted(*player).is_some())
                .count()
                >= s.limit()
        }),
        Property::sometimes("reached: somebody has ended", |s: &S, w: &W| {
            let b = &s.budget;
            b.stop + b.vanish + b.leave + b.kick + b.crash == 0
                || w.ghost.ended.iter().any(|ended| *ended > 0)
        }),
        Property::sometimes("reached: all that may go wrong did", |_: &S, w: &W| {
            let b = &w.budget;
            b.crash + b.pause + b.cut + b.away + b.wipe + b.failover + b.split + b.late + b.kick + b.local
                == 0
        }),
    ]
}
