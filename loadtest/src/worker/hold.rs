//! Sessions that stay, and come back when they are lost.
//!
//! Owns: opening, leaving and coming back. Does not: beat (`beat`) or open at a rate (`schedule`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::dice::Dice;
use crate::plan::{ComeBack, Hold, Order};

use super::beat::Beats;
use super::dial::{Dialer, Failure};
use super::player::{Grant, Heard, Player, Start};
use super::schedule::{self, Pace, Slot};

/// Opens under way at once.
const OPENING: u32 = 64;

/// A start that failed is tried again after about this long, twice that the next time, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Tries before a player gives up.
const TRIES: u32 = 20;

/// Rounds of opening, each of what the rounds before did not get.
const OPENING_TRIES: u32 = 4;

/// Longest round.
const OPENING_PATIENCE: Duration = Duration::from_secs(3_600);

/// Close codes that are final or ask for a change (4000-4199).
const FINAL: std::ops::Range<u16> = 4000..4200;

/// What all players are asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Play, with heartbeats.
    Idle,
    /// Beat as fast as the answers come.
    Beat,
    /// Close and go.
    Leave,
}

struct Hall {
    job: Hold,
    dialer: Rc<Dialer>,
    mood: watch::Sender<Mood>,
    /// Since when times of coming back count.
    mark: Cell<Option<Instant>>,
    /// Whether the seat is taken, by account.
    taken: Vec<Cell<bool>>,
}

impl Hall {
    /// Where to come back to. Another server each time: the last one is the one that is gone.
    fn elsewhere(&self, account: u32, attempt: u32) -> usize {
        let count = self.dialer.target.nodes.len();
        match self.job.home {
            Some(home) if count > 1 => home as usize + 1 + (account + attempt) as usize % (count - 1),
            _ => account as usize + attempt as usize,
        }
    }
}

pub(super) async fn run(job: Hold, dialer: Rc<Dialer>, mut orders: mpsc::Receiver<Order>) {
    let taken = (0..job.count).map(|_| Cell::new(false)).collect();
    let hall = Rc::new(Hall {
        job,
        dialer,
        mood: watch::Sender::new(Mood::Idle),
        mark: Cell::new(None),
        taken,
    });
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open { rate } => open(&hall, rate).await,
            Order::Leave => leave(&hall).await,
            Order::Mark => hall.mark.set(Some(Instant::now())),
            Order::Beat => drop(hall.mood.send_replace(Mood::Beat)),
            Order::Hush => drop(hall.mood.send_replace(Mood::Idle)),
            Order::Rate { .. } => {}
            Order::End => break,
        }
        hall.dialer.book.done();
    }
}

async fn open(hall: &Rc<Hall>, rate: f64) {
    hall.mood.send_replace(Mood::Idle);
    for _ in 0..OPENING_TRIES {
        let free = (0..hall.job.count).filter(|seat| !hall.taken[*seat as usize].get());
        let free: Rc<Vec<u32>> = Rc::new(free.collect());
        let pace = Pace {
            rate,
            length: OPENING_PATIENCE,
            in_flight: OPENING,
            most: free.len() as u64,
        };
        let attempt = |slot: Slot| {
            let (hall, free) = (Rc::clone(hall), Rc::clone(&free));
            async move {
                let seat = usize::try_from(slot.number)
                    .ok()
                    .and_then(|number| free.get(number));
                if let Some(seat) = seat {
                    take(hall, *seat, slot.meant).await;
                }
            }
        };
        schedule::run(&hall.dialer.book, pace, attempt).await;
    }
}

/// Opens a seat's session and lets it play on a task of its own.
async fn take(hall: Rc<Hall>, seat: u32, meant: Instant) {
    if hall.taken[seat as usize].get() {
        return;
    }
    let account = hall.job.first + seat;
    let node = hall.job.home.unwrap_or(account) as usize;
    let opened = Box::pin(Player::granted(&hall.dialer, node, Start::of(account))).await;
    match opened {
        Ok((player, grant)) => {
            let book = &hall.dialer.book;
            book.time("start", meant.elapsed());
            book.count("admitted");
            hall.taken[seat as usize].set(true);
            tokio::task::spawn_local(stay(hall, seat, player, grant));
        }
        Err(failure) => hall.dialer.book.fail(&failure),
    }
}

/// Ends all, at most as fast as they end in order.
async fn leave(hall: &Hall) {
    hall.mood.send_replace(Mood::Leave);
    let patience = Instant::now() + Duration::from_secs(60);
    while hall.dialer.book.live() > 0 && Instant::now() < patience {
        sleep(Duration::from_millis(20)).await;
    }
}

/// How a player's time on one socket ended.
enum Left {
    /// As it was told.
    Asked(Player),
    /// The connection ended; it comes back after a pause of at most this.
    Lost { within: Option<Duration> },
    /// The server leaves: another socket is opened while this one still lives.
    Moving { from: Player, within: Duration },
    /// For good.
    Over(u16),
}

async fn stay(hall: Rc<Hall>, seat: u32, player: Player, grant: Grant) {
    let (mut player, mut grant) = (player, grant);
    let mut mood = hall.mood.subscribe();
    let book = &hall.dialer.book;
    loop {
        book.come();
        let left = play(&hall, player, &grant, &mut mood).await;
        book.go();
        let (within, old) = match left {
            Left::Asked(player) => {
                if let Err(failure) = player.close().await {
                    book.fail(&failure);
                }
                break;
            }
            Left::Over(code) => {
                book.fail(&Failure(format!("closed {code}")));
                break;
            }
            Left::Lost { within } => {
                book.count("lost");
                (within, None)
            }
            Left::Moving { from, within } => {
                book.count("lost");
                (Some(within), Some(from))
            }
        };
        let Some(manner) = hall.job.come_back else { break };
        let back = come_back(&hall, seat, &grant, manner, within, mood.clone()).await;
        drop(old);
        let Some(back) = back else { break };
        (player, grant) = back;
    }
    hall.taken[seat as usize].set(false);
}

/// Plays on one socket until something ends it.
async fn play(hall: &Hall, player: Player, grant: &Grant, mood: &mut watch::Receiver<Mood>) -> Left {
    let mut player = player;
    let mut beats = Beats::new(hall.job.beat);
    let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
    let next_heartbeat = || {
        let asked = hall.job.heartbeats.then(|| Instant::now() + grant.heartbeat);
        asked.unwrap_or(far)
    };
    // The first of them are spread, as players that come over a day are.
    let spread = Dice::new(u64::from(hall.job.first)).within(grant.heartbeat);
    let mut due = if hall.job.heartbeats {
        Instant::now() + spread
    } else {
        far
    };
    loop {
        let now_mood = *mood.borrow_and_update();
        if now_mood == Mood::Leave {
            return Left::Asked(player);
        }
        let beating = now_mood == Mood::Beat;
        if beating && beats.is_due() && beats.send(&mut player).await.is_err() {
            return Left::Lost { within: None };
        }
        let wake = if beating { beats.next().unwrap_or(far) } else { due };
        tokio::select! {
            heard = player.next() => match heard {
                Heard::Closed(code) if FINAL.contains(&code) => return Left::Over(code),
                Heard::Closed(_) => return Left::Lost { within: None },
                Heard::Pong => beats.heard(&hall.dialer.book),
                Heard::Said(said) if said.kind == "draining" && hall.job.come_back.is_some() => {
                    let within = Duration::from_millis(said.reconnect_within_ms.min(600_000));
                    return Left::Moving { from: player, within };
                }
                Heard::Said(_) | Heard::Frame => {}
            },
            () = sleep_until(wake) => if !beating {
                if player.heartbeat().await.is_err() {
                    return Left::Lost { within: None };
                }
                hall.dialer.book.count("heartbeats");
                due = next_heartbeat();
            },
            changed = mood.changed() => if changed.is_err() {
                return Left::Asked(player);
            },
        }
    }
}

/// Comes back as the protocol asks for: jittered, with `resume`, to whichever server answers.
async fn come_back(
    hall: &Hall,
    seat: u32,
    grant: &Grant,
    manner: ComeBack,
    within: Option<Duration>,
    mut mood: watch::Receiver<Mood>,
) -> Option<(Player, Grant)> {
    let (book, account, lost) = (&hall.dialer.book, hall.job.first + seat, Instant::now());
    let mut dice = Dice::new(u64::from(account));
    let mut pause = dice.within(within.unwrap_or(Duration::from_millis(manner.spread_ms)));
    let mut next_pause = FIRST_PAUSE;
    for attempt in 1..=TRIES {
        tokio::select! {
            () = sleep(pause) => {}
            left = mood.wait_for(|mood| *mood == Mood::Leave) => {
                drop(left);
                return None;
            }
        }
        let start = Start {
            resume: Some(&grant.resume)
                .filter(|secret| !secret.is_empty())
                .map(String::as_str),
            ..Start::of(account)
        };
        let node = hall.elsewhere(account, attempt);
        match Box::pin(Player::granted(&hall.dialer, node, start)).await {
            Ok(back) => {
                book.time("back", lost.elapsed());
                if let Some(mark) = hall.mark.get() {
                    book.time("back since", mark.elapsed());
                }
                book.count("back");
                book.count(if back.1.resumed { "resumed" } else { "anew" });
                return Some(back);
            }
            Err(failure) => book.fail(&failure),
        }
        pause = dice.about(next_pause);
        next_pause = (next_pause * 2).min(LONGEST_PAUSE);
    }
    book.fail(&Failure::new("gave up"));
    None
}
