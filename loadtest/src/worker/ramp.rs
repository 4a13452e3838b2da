//! Starts at a rate, each left as soon as it is answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::plan::{Order, Ramp, Until};

use super::dial::{Dialer, Failure};
use super::player::{Player, Start};
use super::schedule::{self, Pace, Slot};

pub(super) async fn run(job: Ramp, dialer: Rc<Dialer>, mut orders: mpsc::Receiver<Order>) {
    let turn = Rc::new(Cell::new(0));
    while let Some(order) = orders.recv().await {
        if order == Order::End {
            break;
        }
        if let Order::Rate { rate, for_ms } = order {
            let attempt = |slot| {
                let number = turn.get();
                turn.set(number + 1);
                attempt(Rc::clone(&dialer), job.clone(), number, slot)
            };
            schedule::run(
                &dialer.book,
                Pace {
                    rate,
                    length: Duration::from_millis(for_ms),
                    in_flight: job.in_flight,
                    most: u64::MAX,
                },
                attempt,
            )
            .await;
        }
        dialer.book.done();
    }
}

async fn attempt(dialer: Rc<Dialer>, job: Ramp, number: u32, slot: Slot) {
    let node = number as usize;
    let result = match job.until {
        Until::Tls => handshake(&dialer, node, slot).await,
        Until::Granted => {
            let account = job.first + number % job.count.max(1);
            admission(&dialer, node, account, number, slot).await
        }
    };
    if let Err(failure) = result {
        dialer.book.fail(&failure);
    }
}

async fn handshake(dialer: &Dialer, node: usize, slot: Slot) -> Result<(), Failure> {
    let stream = dialer.secure(node).await?;
    admitted(dialer, slot);
    dialer.leave(stream).await
}

async fn admission(
    dialer: &Dialer,
    node: usize,
    account: u32,
    device: u32,
    slot: Slot,
) -> Result<(), Failure> {
    let start = Start {
        device,
        ..Start::of(account)
    };
    let (player, _) = Player::granted(dialer, node, start).await?;
    admitted(dialer, slot);
    player.close().await.map(|_| ())
}

fn admitted(dialer: &Dialer, slot: Slot) {
    dialer.book.time("start", slot.meant.elapsed());
    dialer.book.count("admitted");
    if Instant::now() <= slot.end {
        dialer.book.count("in time");
    }
}
