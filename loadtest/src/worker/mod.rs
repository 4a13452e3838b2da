//! A worker: a process of the tool's own that plays some of the players, on one thread.
//!
//! Owns: reading its plan and orders, and telling how it stands. Does not: know of other workers.
//! Called by: `main`, for the hidden subcommand `worker`. The jobs are the modules below.

mod beat;
mod book;
mod contend;
mod dial;
mod hold;
mod player;
mod ramp;
mod schedule;
mod takeover;
mod zap;

use std::io::Write;
use std::rc::Rc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::plan::{Job, Order, Plan, TICK};

use book::Book;
use dial::{Dialer, Failure};

/// Orders that wait to be carried out.
const ORDERS: usize = 16;

/// Reads a plan from stdin, carries it out, and tells about it on stdout.
///
/// # Errors
/// Why it could not begin.
pub fn run() -> Result<(), String> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let result = LocalSet::new().block_on(&runtime, work());
    // The thread that reads stdin waits for ever.
    runtime.shutdown_background();
    result
}

async fn work() -> Result<(), String> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let line = lines.next_line().await.map_err(|error| error.to_string())?;
    let plan: Plan = serde_json::from_str(&line.unwrap_or_default()).map_err(|error| error.to_string())?;
    let book = Rc::new(Book::default());
    let dialer = Dialer::new(plan.target, plan.worker, plan.workers, Rc::clone(&book));
    let dialer = Rc::new(dialer.map_err(|failure| failure.to_string())?);
    let (send, orders) = mpsc::channel(ORDERS);
    tokio::task::spawn_local(listen(lines, send));
    let ticker = tokio::task::spawn_local(tell(Rc::clone(&book)));
    match plan.job {
        Job::Hold(job) => hold::run(job, dialer, orders).await,
        Job::Ramp(job) => ramp::run(job, dialer, orders).await,
        Job::Contend(job) => contend::run(job, dialer, orders).await,
        Job::Zap(job) => zap::run(job, dialer, orders).await,
        Job::Takeover(job) => takeover::run(job, dialer, orders).await,
    }
    ticker.abort();
    write(&book, true).map_err(|failure| failure.to_string())
}

/// Passes orders on; the end of stdin, which is the end of the parent too, ends the job.
async fn listen(mut lines: Lines<BufReader<Stdin>>, orders: mpsc::Sender<Order>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(order) = serde_json::from_str(&line) else {
            return;
        };
        if orders.send(order).await.is_err() {
            return;
        }
    }
}

async fn tell(book: Rc<Book>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        if write(&book, false).is_err() {
            return;
        }
    }
}

fn write(book: &Book, last: bool) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(&book.take(last)).map_err(|error| Failure(error.to_string()))?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&line).and_then(|()| stdout.flush());
    written.map_err(|error| Failure(error.to_string()))
}

/// A connection is an open file.
pub fn raise_file_limit() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    // Where it is not allowed, fewer connections are opened, and the report says why.
    let _ = setrlimit(Resource::Nofile, raised);
}
