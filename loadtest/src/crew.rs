//! The workers, seen from the parent.
//!
//! Owns: their processes and pipes, and the sum of what they tell. Does not: know what they do.
//! Called by: [`crate::stage`].

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::plan::{Job, Order, Plan, Tick};
use crate::target::Target;

/// Ticks that wait to be read; a parent that is late makes its workers wait.
const TICKS: usize = 256;

/// Longest line of a worker, in bytes: a tick with some large histograms.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// Worker processes under one plan.
pub struct Crew {
    workers: Vec<Worker>,
    ticks: mpsc::Receiver<(usize, Option<Tick>)>,
    orders: u64,
    /// Everything that was told since the start.
    pub total: Tick,
    /// What was told since somebody took it.
    pub recent: Tick,
}

struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    live: u64,
    done: u64,
    over: bool,
}

impl Crew {
    /// Starts workers; `job` makes the part of each from its number.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub async fn start(workers: u32, target: &Target, job: impl Fn(u32) -> Job) -> Result<Self, String> {
        let (send, ticks) = mpsc::channel(TICKS);
        let mut crew = Self {
            workers: Vec::new(),
            ticks,
            orders: 0,
            total: Tick::default(),
            recent: Tick::default(),
        };
        for number in 0..workers {
            let plan = Plan {
                worker: number,
                workers,
                target: target.clone(),
                job: job(number),
            };
            let worker = Worker::start(&plan).await?;
            crew.workers.push(worker);
        }
        for (number, worker) in crew.workers.iter_mut().enumerate() {
            if let Some(stdout) = worker.child.stdout.take() {
                tokio::spawn(read(number, stdout, send.clone()));
            }
        }
        Ok(crew)
    }

    /// Tells all workers the same.
    ///
    /// # Errors
    /// When a worker has died.
    pub async fn order(&mut self, order: Order) -> Result<(), String> {
        let line = serde_json::to_string(&order).map_err(|error| error.to_string())? + "\n";
        for worker in &mut self.workers {
            let stdin = worker.stdin.as_mut().ok_or("a worker has ended")?;
            let written = stdin.write_all(line.as_bytes()).await;
            written.map_err(|_| "a worker has died")?;
        }
        self.orders += 1;
        Ok(())
    }

    /// Waits for the next word of any worker. Safe to cancel.
    ///
    /// # Errors
    /// When a worker has died before it told its last.
    pub async fn listen(&mut self) -> Result<(), String> {
        let Some((number, tick)) = self.ticks.recv().await else {
            return Err("all workers have ended".to_owned());
        };
        let worker = &mut self.workers[number];
        let Some(tick) = tick else {
            if worker.over {
                return Ok(());
            }
            worker.over = true;
            let status = worker.child.wait().await;
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(format!("worker {number} died: {status}"));
        };
        worker.live = tick.live;
        worker.done = tick.done;
        worker.over |= tick.last;
        self.total.add(&tick);
        self.recent.add(&tick);
        Ok(())
    }

    /// How many workers there are.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// Sessions open now.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.workers.iter().map(|worker| worker.live).sum()
    }

    /// Whether every worker has carried out every order.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.workers
            .iter()
            .all(|worker| worker.done >= self.orders || worker.over)
    }

    /// Whether every worker has told its last.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.workers.iter().all(|worker| worker.over)
    }

    /// Lets the workers end and reads their last words.
    ///
    /// # Errors
    /// When one dies on the way.
    pub async fn end(&mut self) -> Result<(), String> {
        for worker in &mut self.workers {
            // The end of its orders is the order to end.
            worker.stdin = None;
        }
        while !self.is_over() {
            self.listen().await?;
        }
        for worker in &mut self.workers {
            // It has said its last; how it exits tells nothing more.
            let _ = worker.child.wait().await;
        }
        Ok(())
    }
}

impl Worker {
    async fn start(plan: &Plan) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let child = Command::new(program)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| format!("a worker: {error}"))?;
        let mut stdin = child.stdin.take().ok_or("a worker without stdin")?;
        let line = serde_json::to_string(plan).map_err(|error| error.to_string())? + "\n";
        let written = stdin.write_all(line.as_bytes()).await;
        written.map_err(|error| format!("a worker: {error}"))?;
        Ok(Self {
            child,
            stdin: Some(stdin),
            live: 0,
            done: 0,
            over: false,
        })
    }
}

async fn read(number: usize, stdout: ChildStdout, send: mpsc::Sender<(usize, Option<Tick>)>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let tick = (line.len() <= LONGEST_LINE)
            .then(|| serde_json::from_str(&line).ok())
            .flatten();
        let Some(tick) = tick else { break };
        if send.send((number, Some(tick))).await.is_err() {
            return;
        }
    }
    // Nobody listens any more: nobody asks how it ended.
    let _ = send.send((number, None)).await;
}
