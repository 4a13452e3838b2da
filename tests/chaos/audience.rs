//! Players as an SDK makes them, and those who try to get in beside them.
//!
//! Owns: what a close code makes a player do (4000-4099 final, 4200-4299 and a broken connection: again with `resume`
//! after a jittered pause, on another node). Called by: the scenarios about faults.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::log::{Mode, Session};
use crate::swarm::{Door, Grant, Player, Start, Swarm, Told};

/// The device that tries to get in.
pub(crate) const INTRUDER: u32 = 90;

/// Where a player is.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The node and the session that it plays on.
    pub(crate) playing: Option<(u32, Session)>,
    pub(crate) provisional: bool,
    /// The session of its first grant.
    pub(crate) first: Option<Session>,
    /// The final close code, or a refusal of its way back.
    pub(crate) over: Option<u16>,
    /// Grants with `resumed`.
    pub(crate) resumes: u32,
}

pub(crate) struct Seat {
    pub(crate) account: u32,
    pub(crate) device: u32,
    pub(crate) home: u32,
    pub(crate) state: watch::Receiver<State>,
}

/// Players who stay, whatever happens to their nodes. Dropped: all cut.
pub(crate) struct Audience {
    pub(crate) seats: Vec<Seat>,
    tasks: JoinSet<()>,
    leave: watch::Sender<bool>,
}

impl Audience {
    pub(crate) fn new() -> Self {
        Self {
            seats: Vec::new(),
            tasks: JoinSet::new(),
            leave: watch::Sender::new(false),
        }
    }

    /// Accounts with `devices` players each, spread over the nodes, all playing.
    pub(crate) async fn full(swarm: &Arc<Swarm>, doors: &[Door], accounts: u32, devices: u32) -> Self {
        let mut audience = Self::new();
        for account in 0..accounts {
            for device in 0..devices {
                let home = (account + device) as usize % doors.len();
                audience.seat(swarm, doors, Start::of(account, device), home, |_, _, _| true);
            }
        }
        audience.all_play(Duration::from_secs(120)).await;
        audience
    }

    /// One more player. `returns` says, of account, device and close code, whether it comes back after such a close.
    pub(crate) fn seat(
        &mut self,
        swarm: &Arc<Swarm>,
        doors: &[Door],
        start: Start,
        home: usize,
        returns: fn(u32, u32, u16) -> bool,
    ) {
        let (state, seen) = watch::channel(State::default());
        let seat = Seat {
            account: start.account,
            device: start.device,
            home: doors[home].node,
            state: seen,
        };
        self.seats.push(seat);
        let watching = Watching {
            swarm: Arc::clone(swarm),
            doors: doors.to_vec(),
            dice: Dice::new(u64::from(start.account) * 1_000 + u64::from(start.device)),
            start,
            at: home,
            returns,
            state,
            leave: self.leave.subscribe(),
        };
        self.tasks.spawn(watching.run());
    }

    /// Waits until everybody plays.
    pub(crate) async fn all_play(&mut self, within: Duration) {
        for seat in &mut self.seats {
            let playing = seat
                .state
                .wait_for(|state| state.playing.is_some() || state.over.is_some());
            let state = timeout(within, playing)
                .await
                .expect("everybody plays in time")
                .unwrap();
            assert_eq!(
                state.over, None,
                "device {} of account {}",
                seat.device, seat.account
            );
        }
    }

    /// Everybody stops properly.
    pub(crate) async fn leave(&mut self) {
        self.leave.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// The sessions that play now, of one account.
    pub(crate) fn playing(&self, account: u32) -> Vec<Session> {
        let seats = self.seats.iter().filter(|seat| seat.account == account);
        let mut sessions: Vec<_> = seats
            .filter_map(|seat| Some(seat.state.borrow().playing?.1))
            .collect();
        sessions.sort_unstable();
        sessions
    }
}

struct Watching {
    swarm: Arc<Swarm>,
    doors: Vec<Door>,
    dice: Dice,
    start: Start,
    at: usize,
    returns: fn(u32, u32, u16) -> bool,
    state: watch::Sender<State>,
    leave: watch::Receiver<bool>,
}

impl Watching {
    async fn run(mut self) {
        let Some((mut player, mut grant)) = self.enter().await else {
            return;
        };
        loop {
            let mut leave = self.leave.clone();
            let told = tokio::select! {
                told = player.next() => told,
                () = async { drop(leave.wait_for(|leave| *leave).await) } => {
                    player.stop();
                    player.closed().await;
                    return;
                }
            };
            match told {
                Told::Draining => {
                    // The old socket plays on until the new one is there.
                    sleep(self.dice.millis(0, 3_000)).await;
                }
                Told::Closed { code } => {
                    self.state.send_modify(|state| state.playing = None);
                    let again = code == 1006 || (4_200..4_300).contains(&code);
                    if !again || !(self.returns)(self.start.account, self.start.device, code) {
                        self.over(code);
                        return;
                    }
                    sleep(self.dice.millis(50, 500)).await;
                }
                _ => continue,
            }
            self.start = self.start.clone().resume(&grant);
            self.at = (self.at + 1) % self.doors.len();
            let Some((next, granted)) = self.enter().await else {
                return;
            };
            // Dropped, the old socket is cut, unless it was closed.
            player = next;
            grant = granted;
        }
    }

    /// Tries the nodes in turn until one decides.
    async fn enter(&mut self) -> Option<(Player, Grant)> {
        loop {
            if let Ok(mut player) = self.swarm.open(&self.doors[self.at], &self.start).await {
                match player.granted().await {
                    Ok(grant) => {
                        self.state.send_modify(|state| {
                            state.playing = Some((player.id.node, grant.session));
                            state.provisional = grant.provisional;
                            state.first.get_or_insert(grant.session);
                            state.resumes += u32::from(grant.resumed);
                        });
                        return Some((player, grant));
                    }
                    Err(Told::Denied { .. }) => {
                        self.over(4001);
                        return None;
                    }
                    Err(Told::Ended { code } | Told::Closed { code }) if code < 4_200 && code != 1006 => {
                        self.over(code);
                        return None;
                    }
                    Err(_) => {}
                }
            }
            if *self.leave.borrow() {
                return None;
            }
            sleep(self.dice.millis(50, 500)).await;
            self.at = (self.at + 1) % self.doors.len();
        }
    }

    fn over(&self, code: u16) {
        self.state.send_modify(|state| {
            state.playing = None;
            state.over = Some(code);
        });
    }
}

/// Another device of each of these accounts, which tries again and again. Dropped: all cut.
pub(crate) struct Intruders {
    _tasks: JoinSet<()>,
    grants: Arc<Mutex<Vec<(u32, Grant)>>>,
}

impl Intruders {
    /// `pause` is between two tries of one account.
    pub(crate) fn of(swarm: &Arc<Swarm>, doors: &[Door], accounts: &[u32], pause: Duration) -> Self {
        let grants = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for &account in accounts {
            let (swarm, doors, grants) = (Arc::clone(swarm), doors.to_vec(), Arc::clone(&grants));
            tasks.spawn(async move {
                let mut dice = Dice::new(u64::from(account) + 77_000);
                sleep(dice.millis(0, u64::try_from(pause.as_millis()).unwrap())).await;
                loop {
                    let door = &doors[dice.below(doors.len())];
                    let start = Start::of(account, INTRUDER).mode(Mode::Reject);
                    if let Ok(mut player) = swarm.open(door, &start).await
                        && let Ok(grant) = player.granted().await
                    {
                        grants.lock().unwrap().push((account, grant));
                        player.closed().await;
                    }
                    sleep(pause).await;
                }
            });
        }
        Self {
            _tasks: tasks,
            grants,
        }
    }

    /// Who got in so far.
    pub(crate) fn grants(&self) -> Vec<(u32, Grant)> {
        self.grants.lock().unwrap().clone()
    }
}
