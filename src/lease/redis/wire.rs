//! The connection on which scripts run.
//!
//! Owns: pipelining many callers on one connection, their bound, and giving the connection up when it stays silent.
//! Does not: reconnect (`server` does). Called by: `server`, `link` and `cluster`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dial::Connection;
use super::failed::reason_of;
use crate::config::HostPort;

/// Most commands on their way to one server; further callers wait for their turn, within their own time.
const MOST_IN_FLIGHT: usize = 1024;
/// A process that was itself held up finds deadlines past and answers unread: they get this long to be read.
const GRACE: Duration = Duration::from_millis(20);

/// No answer came, or none in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Silent;

/// A connection to a server that was ready when it began.
pub(super) struct Wire {
    /// The server.
    pub(super) host: HostPort,
    connection: Connection,
    turns: Semaphore,
    /// Time that a server always gets before it counts as silent.
    patience: Duration,
    born: Instant,
    /// Age of the connection, in milliseconds, at its last answer.
    answered: AtomicU64,
    reason: OnceLock<String>,
    /// Cancelled when the connection is of no more use.
    given_up: CancellationToken,
}

impl Wire {
    pub(super) fn new(host: HostPort, connection: Connection, patience: Duration) -> Self {
        let given_up = connection.lost.child_token();
        Self {
            host,
            connection,
            turns: Semaphore::new(MOST_IN_FLIGHT),
            patience,
            born: Instant::now(),
            answered: AtomicU64::new(0),
            reason: OnceLock::new(),
            given_up,
        }
    }

    /// Sends commands that stay together, and waits for as many answers; errors of the server are among them.
    ///
    /// A call without an answer on a connection without any answers ends the connection for all, so that nothing piles up
    /// behind a server that stands still.
    pub(super) async fn ask(&self, commands: &[Cmd], deadline: Instant) -> Result<Vec<Value>, Silent> {
        let fair = deadline.saturating_duration_since(Instant::now()) >= self.patience / 2;
        let answers = async {
            let _turn = self.turns.acquire().await;
            let mut connection = self.connection.commands.clone();
            let [command] = commands else {
                let mut pipeline = Pipeline::new();
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                return connection
                    .send_packed_commands(&pipeline, 0, commands.len())
                    .await;
            };
            Ok(vec![connection.send_packed_command(command).await?])
        };
        let late = async {
            tokio::time::sleep_until(deadline).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            answers = answers => match answers {
                Ok(values) => {
                    self.answered.store(self.age(), Ordering::Relaxed);
                    Ok(values)
                }
                Err(error) => match error.clone().into_server_errors() {
                    Some(errors) => Ok(errors.iter().map(|(_, e)| Value::ServerError(e.clone())).collect()),
                    None => {
                        self.give_up(&reason_of(&error));
                        Err(Silent)
                    }
                },
            },
            () = self.given_up.cancelled() => Err(Silent),
            () = late => {
                let quiet = self.age().saturating_sub(self.answered.load(Ordering::Relaxed));
                let quiet = Duration::from_millis(quiet);
                if fair && quiet >= self.patience / 2 {
                    self.give_up("no answer in time");
                }
                Err(Silent)
            }
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends the connection for everybody.
    pub(super) fn give_up(&self, reason: &str) {
        self.reason.get_or_init(|| reason.to_owned());
        self.given_up.cancel();
    }

    /// Waits until the connection is of no more use, and says why.
    pub(super) async fn ended(&self) -> String {
        self.given_up.cancelled().await;
        self.reason
            .get()
            .cloned()
            .unwrap_or_else(|| "the connection was closed".to_owned())
    }
}
