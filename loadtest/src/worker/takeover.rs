//! Players that take a slot over from another of their account.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::dice::Dice;
use crate::plan::{Order, Takeover};

use super::book::Book;
use super::dial::{Dialer, Failure, within};
use super::player::{Answer, Heard, Player, Start};
use super::schedule::{self, Pace, Slot};

/// Players that open at once before the measurement.
const OPENING: usize = 32;

/// The accounts of a worker whose slots are all taken, and nobody is about to take one over.
type Full = Rc<RefCell<VecDeque<Account>>>;

struct Account {
    number: u32,
    /// The next device's number.
    device: u32,
    /// Dropped, it tells a session's player to go.
    holders: BTreeMap<String, oneshot::Sender<()>>,
}

pub(super) async fn run(job: Takeover, dialer: Rc<Dialer>, mut orders: mpsc::Receiver<Order>) {
    let full = Full::default();
    while let Some(order) = orders.recv().await {
        match order {
            Order::End => break,
            Order::Open { .. } => open(&job, &dialer, &full).await,
            Order::Rate { rate, for_ms } => {
                let attempt = |slot: Slot| {
                    let (dialer, full) = (Rc::clone(&dialer), Rc::clone(&full));
                    async move {
                        let Some(mut account) = full.borrow_mut().pop_front() else {
                            return dialer.book.count("no account free");
                        };
                        let result = take_over(&dialer, &mut account, slot).await;
                        full.borrow_mut().push_back(account);
                        if let Err(failure) = result {
                            dialer.book.fail(&failure);
                        }
                    }
                };
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
            Order::Leave => leave(&dialer, &full).await,
            Order::Mark | Order::Beat | Order::Hush => {}
        }
        dialer.book.done();
    }
}

/// Takes all slots of all accounts.
async fn open(job: &Takeover, dialer: &Rc<Dialer>, full: &Full) {
    let places = Rc::new(Semaphore::new(OPENING));
    for number in job.first..job.first + job.count {
        let Ok(_place) = places.acquire().await else {
            return;
        };
        let mut account = Account {
            number,
            device: 0,
            holders: BTreeMap::new(),
        };
        for _ in 0..job.limit {
            if let Err(failure) = account.hold(dialer).await {
                dialer.book.fail(&failure);
            }
        }
        full.borrow_mut().push_back(account);
    }
}

/// Gives all slots back.
async fn leave(dialer: &Dialer, full: &Full) {
    full.borrow_mut().clear();
    let patience = Instant::now() + Duration::from_secs(30);
    while dialer.book.live() > 0 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Account {
    async fn hold(&mut self, dialer: &Rc<Dialer>) -> Result<(), Failure> {
        let start = self.next_start("reject");
        let (player, grant) = Player::granted(dialer, start.device as usize, start).await?;
        self.keep(&dialer.book, player, grant.session);
        Ok(())
    }

    fn next_start(&mut self, on_limit: &'static str) -> Start<'static> {
        self.device += 1;
        Start {
            device: self.device,
            on_limit,
            ..Start::of(self.number)
        }
    }

    /// Lets a player play until it is displaced or told to go.
    fn keep(&mut self, book: &Rc<Book>, mut player: Player, session: String) {
        let (tell, mut told) = oneshot::channel();
        self.holders.insert(session, tell);
        let book = Rc::clone(book);
        book.come();
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    heard = player.next() => match heard {
                        Heard::Said(said) if said.kind == "ended" && said.code == "displaced" => book.count("displaced"),
                        Heard::Closed(_) => break,
                        _ => {}
                    },
                    _ = &mut told => {
                        // How it ends tells nothing here.
                        let _ = player.close().await;
                        break;
                    }
                }
            }
            book.go();
        });
    }
}

async fn take_over(dialer: &Rc<Dialer>, account: &mut Account, slot: Slot) -> Result<(), Failure> {
    let start = account.next_start("ask");
    let (mut player, answer) = Player::start(dialer, start.device as usize, start).await?;
    let holders = match answer {
        Answer::Denied(holders) => holders,
        Answer::Granted(grant) => {
            account.keep(&dialer.book, player, grant.session);
            return Err(Failure::new("a slot was free"));
        }
        Answer::Waiting => return Err(Failure::new("must wait")),
    };
    let chosen = Dice::new(slot.number).below(holders.len() as u64);
    let victim = usize::try_from(chosen)
        .ok()
        .and_then(|chosen| holders.get(chosen));
    let victim = victim.ok_or_else(|| Failure::new("denied without holders"))?;
    let asked = Instant::now();
    let message = format!(r#"{{"type":"takeover","session":"{victim}"}}"#);
    player.say(Message::text(message)).await?;
    let granted = within(dialer.target.timeout(), "takeover", async {
        loop {
            match player.decision().await? {
                Answer::Granted(grant) => return Ok(grant),
                Answer::Denied(_) => return Err(Failure::new("takeover: denied")),
                Answer::Waiting => {}
            }
        }
    });
    let grant = granted.await?;
    dialer.book.time("takeover", asked.elapsed());
    dialer.book.time("start to grant", slot.meant.elapsed());
    dialer.book.count("taken over");
    account.holders.remove(victim);
    account.keep(&dialer.book, player, grant.session);
    Ok(())
}
