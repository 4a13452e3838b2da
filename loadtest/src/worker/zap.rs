//! Short plays: start, watch a little, stop or replace.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::plan::{Order, Zap};

use super::dial::{Dialer, Failure};
use super::player::{Heard, Player, Start};
use super::schedule::{self, Pace, Slot};

pub(super) async fn run(job: Zap, dialer: Rc<Dialer>, mut orders: mpsc::Receiver<Order>) {
    let turn = Rc::new(Cell::new(0));
    while let Some(order) = orders.recv().await {
        if order == Order::End {
            break;
        }
        if let Order::Rate { rate, for_ms } = order {
            let attempt = |slot: Slot| {
                let number = turn.get();
                turn.set(number + 1);
                let (dialer, job) = (Rc::clone(&dialer), job.clone());
                async move {
                    if let Err(failure) = zap(&dialer, &job, number, slot.meant).await {
                        dialer.book.fail(&failure);
                    }
                }
            };
            // Each account plays at most once at a time.
            schedule::run(
                &dialer.book,
                Pace {
                    rate,
                    length: Duration::from_millis(for_ms),
                    in_flight: job.count,
                    most: u64::MAX,
                },
                attempt,
            )
            .await;
        }
        dialer.book.done();
    }
}

async fn zap(dialer: &Dialer, job: &Zap, number: u32, meant: Instant) -> Result<(), Failure> {
    let account = job.first + number % job.count.max(1);
    let node = number as usize;
    let mut dice = Dice::new(u64::from(number));
    let (mut player, _) = Player::granted(dialer, node, Start::of(account)).await?;
    dialer.book.time("start", meant.elapsed());
    dialer.book.count("admitted");
    dialer.book.come();
    let play = Duration::from_millis(job.play_ms);
    let mut result = watch(&mut player, dice.about(play)).await;
    if job.replace && result.is_ok() {
        let begun = Instant::now();
        match Player::granted(dialer, node, Start::of(account)).await {
            Ok((next, _)) => {
                dialer.book.time("replace", begun.elapsed());
                dialer.book.count("replaced");
                player = next;
                result = watch(&mut player, dice.about(play)).await;
            }
            Err(failure) => result = Err(failure),
        }
    }
    dialer.book.go();
    result?;
    let took = player.stop().await?;
    dialer.book.time("stop", took);
    Ok(())
}

/// Listens for this long; an end before is a failure.
async fn watch(player: &mut Player, length: Duration) -> Result<(), Failure> {
    let listened = async {
        loop {
            if let Heard::Closed(code) = player.next().await {
                return Failure(format!("closed {code}"));
            }
        }
    };
    match tokio::time::timeout(length, listened).await {
        Ok(failure) => Err(failure),
        Err(_) => Ok(()),
    }
}
