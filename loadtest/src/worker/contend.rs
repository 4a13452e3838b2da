//! More players than slots, and the log by which the limit is judged.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::dice::Dice;
use crate::plan::{Contend, Order};
use crate::verdict::{Held, judge};

use super::dial::{Dialer, Failure};
use super::player::{Answer, Grant, Heard, Player, Start};

/// Pause of a player that was refused, about.
const REFUSED: Duration = Duration::from_millis(100);

/// Share of the starts that wait in line, in percent.
const WAITERS: u64 = 30;

/// What the players of this worker saw.
struct Log {
    begun: Instant,
    held: RefCell<Vec<Held>>,
    provisional: std::cell::Cell<u64>,
}

pub(super) async fn run(job: Contend, dialer: Rc<Dialer>, mut orders: mpsc::Receiver<Order>) {
    let begun = Instant::now();
    let end = begun + Duration::from_millis(job.for_ms);
    let log = Rc::new(Log {
        begun,
        held: RefCell::default(),
        provisional: std::cell::Cell::new(0),
    });
    let mut players = JoinSet::new();
    for account in job.first..job.first + job.count {
        for device in 0..job.players {
            let (job, dialer, log) = (job.clone(), Rc::clone(&dialer), Rc::clone(&log));
            players.spawn_local(async move {
                contend(&job, &dialer, &log, account, device, end).await;
            });
        }
    }
    let all = async { while players.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        // Told to end early: what was seen so far is judged.
        () = async { while orders.recv().await.is_some_and(|order| order != Order::End) {} } => {}
    }
    dialer
        .book
        .judge(judge(&log.held.borrow(), log.provisional.get(), job.limit));
    dialer.book.done();
}

async fn contend(job: &Contend, dialer: &Dialer, log: &Log, account: u32, device: u32, end: Instant) {
    let mut dice = Dice::new(u64::from(account) << 16 | u64::from(device));
    let play = Duration::from_millis(job.play_ms);
    sleep(dice.within(Duration::from_secs(1))).await;
    while Instant::now() < end {
        let begun = Instant::now();
        let start = Start {
            device,
            on_limit: if dice.percent(WAITERS) { "wait" } else { "reject" },
            ..Start::of(account)
        };
        let node = usize::try_from(dice.below(64)).unwrap_or(0);
        match Player::start(dialer, node, start).await {
            Ok((player, Answer::Granted(grant))) => {
                dialer.book.time("start", begun.elapsed());
                hold(
                    job,
                    dialer,
                    log,
                    (account, player, grant),
                    dice.about(play),
                    &mut dice,
                )
                .await;
            }
            Ok((player, Answer::Waiting)) => {
                dialer.book.count("waiting");
                if let Some((player, grant)) = wait(player, end).await {
                    hold(
                        job,
                        dialer,
                        log,
                        (account, player, grant),
                        dice.about(play),
                        &mut dice,
                    )
                    .await;
                }
            }
            Ok((player, Answer::Denied(_))) => {
                dialer.book.count("denied");
                // The close that follows a refusal.
                let _ = timeout_at(Instant::now() + Duration::from_secs(1), drained(player)).await;
            }
            Err(failure) => dialer.book.fail(&failure),
        }
        sleep(dice.about(REFUSED)).await;
    }
}

async fn drained(mut player: Player) {
    while !matches!(player.next().await, Heard::Closed(_)) {}
}

/// Waits in line until `end`.
async fn wait(mut player: Player, end: Instant) -> Option<(Player, Grant)> {
    let granted = async {
        loop {
            match player.decision().await {
                Ok(Answer::Granted(grant)) => return Some(grant),
                Ok(Answer::Waiting) => {}
                Ok(Answer::Denied(_)) | Err(_) => return None,
            }
        }
    };
    let granted = timeout_at(end, granted).await.ok().flatten();
    match granted {
        Some(grant) => Some((player, grant)),
        None => {
            let _ = player.close().await;
            None
        }
    }
}

/// Plays and gives the slot back. What is logged is what surely was held; see [`crate::verdict`].
async fn hold(
    job: &Contend,
    dialer: &Dialer,
    log: &Log,
    (account, mut player, grant): (u32, Player, Grant),
    length: Duration,
    dice: &mut Dice,
) {
    dialer.book.count("admitted");
    dialer.book.come();
    let from = log.begun.elapsed();
    let mut last_frame = from;
    let deadline = Instant::now() + length;
    let mut ended = None;
    while ended.is_none() {
        match timeout_at(deadline, player.next()).await {
            Ok(Heard::Closed(code)) => ended = Some(code),
            Ok(Heard::Said(said)) if said.kind == "ended" => ended = Some(0),
            Ok(_) => last_frame = log.begun.elapsed(),
            Err(_) => break,
        }
    }
    let until = if ended.is_some() {
        last_frame
    } else {
        log.begun.elapsed()
    };
    if grant.provisional {
        log.provisional.set(log.provisional.get() + 1);
    } else {
        let session = grant.session;
        log.held.borrow_mut().push(Held {
            account,
            session,
            from,
            until,
        });
    }
    dialer.book.go();
    let result = match ended {
        Some(code) => Err(Failure(format!("closed {code} while playing"))),
        None if dice.percent(job.cut_percent) => {
            player.cut();
            Ok(())
        }
        None if dice.percent(50) => player.close().await.map(|took| dialer.book.time("stop", took)),
        None => player.stop().await.map(|took| dialer.book.time("stop", took)),
    };
    if let Err(failure) = result {
        dialer.book.fail(&failure);
    }
}
