//! The connection on which published messages arrive.
//!
//! Owns: subscribing to a server's channels (SSUBSCRIBE), noticing that the connection died, and beginning again.
//! Does not: know which server owns a channel (`cluster` does); what was published meanwhile is lost (rule 29).
//! Called by: `server`, as a task.
//!
//! It is a connection of its own: a server that loses a slot says so unasked (`sunsubscribe`), which crate `redis`
//! (1.8) takes for the answer of the next command, so that every answer after it reaches the wrong caller. Here
//! such a word ends the connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::aio::{AsyncPushSender, SendError};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::dial::Connection;
use super::failed::{reason_of, string_of, text_of};
use super::server::{Core, LONGEST_PAUSE, PING_EVERY, STEADY, State};
use super::wire::Wire;

/// Hears the server's channels while the server is up.
pub(super) async fn keep(core: Arc<Core>) {
    let mut backoff = Backoff::new(LONGEST_PAUSE);
    let mut channels = core.channels.subscribe();
    let mut state = core.state.subscribe();
    let mut warned = false;
    loop {
        if channels.wait_for(|wanted| !wanted.is_empty()).await.is_err() {
            return;
        }
        let wire = match state.wait_for(|state| matches!(state, State::Up(_))).await {
            Ok(state) => match &*state {
                State::Up(wire) => Arc::clone(wire),
                State::Connecting | State::Down => continue,
            },
            Err(_) => return,
        };
        let began = Instant::now();
        let end = Box::pin(hear(&core, &wire, &mut channels, &mut state)).await;
        let server = &wire.host;
        match end {
            End::ServerLost | End::Changed => {}
            End::SlotMoved(what) => {
                tracing::debug!(%server, what, "a channel's slot has moved");
                core.shared.doubt.notify_one();
            }
            End::Failed(reason) if warned => {
                tracing::debug!(%server, reason, "the subscription ended again");
            }
            End::Failed(reason) => {
                warned = true;
                tracing::warn!(%server, reason, "the subscription ended; subscribing again");
            }
        }
        if began.elapsed() > STEADY {
            backoff.reset();
            warned = false;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Why a subscription is over.
enum End {
    /// The server's other connection ended too, or is another.
    ServerLost,
    /// Fewer channels are wanted.
    Changed,
    /// The server does not own the channel's slot any more.
    SlotMoved(String),
    Failed(String),
}

/// What a connection's pushes tell besides messages.
#[derive(Clone, Default)]
struct Signs {
    moved: CancellationToken,
}

async fn hear(
    core: &Arc<Core>,
    wire: &Arc<Wire>,
    channels: &mut watch::Receiver<BTreeSet<String>>,
    state: &mut watch::Receiver<State>,
) -> End {
    let signs = Signs::default();
    let connection = match core
        .shared
        .dialer
        .dial(&wire.host, Some(sender(core, &signs)))
        .await
    {
        Ok(connection) => connection,
        Err(reason) => return End::Failed(reason),
    };
    let mut heard = BTreeSet::new();
    loop {
        let wanted = channels.borrow_and_update().clone();
        if !wanted.is_superset(&heard) {
            return End::Changed;
        }
        let new: Vec<_> = wanted.difference(&heard).collect();
        if let Err(end) = subscribe(&connection, &new, core.shared.timeout).await {
            return end;
        }
        heard = wanted;
        core.shared.subscriptions.send_modify(|count| *count += 1);
        // Until more channels are wanted.
        loop {
            tokio::select! {
                () = connection.lost.cancelled() => return End::Failed("the connection was closed".to_owned()),
                () = signs.moved.cancelled() => return End::SlotMoved("unsubscribed".to_owned()),
                changed = channels.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return End::ServerLost,
                },
                changed = state.changed() => {
                    let same = matches!(&*state.borrow_and_update(), State::Up(now) if Arc::ptr_eq(now, wire));
                    if changed.is_err() || !same {
                        return End::ServerLost;
                    }
                }
                () = tokio::time::sleep(PING_EVERY) => {
                    if let Err(reason) = ping(&connection, core.shared.timeout).await {
                        return End::Failed(reason);
                    }
                }
            }
        }
    }
}

/// Hands messages on, and notices the word that a slot has moved.
fn sender(core: &Arc<Core>, signs: &Signs) -> Box<dyn AsyncPushSender> {
    let (core, signs) = (Arc::clone(core), signs.clone());
    Box::new(move |push: PushInfo| {
        match push.kind {
            PushKind::SMessage => {
                let mut data = push.data.into_iter();
                if let (Some(channel), Some(Value::BulkString(payload))) =
                    (data.next().and_then(string_of), data.next())
                {
                    (core.shared.mail)(&channel, &payload);
                }
            }
            PushKind::SUnsubscribe => signs.moved.cancel(),
            _ => {}
        }
        Ok::<(), SendError>(())
    })
}

/// Each channel by itself: together they would have to be of one slot.
async fn subscribe(connection: &Connection, channels: &[&String], timeout: Duration) -> Result<(), End> {
    let all = channels.iter().map(|channel| {
        let mut commands = connection.commands.clone();
        async move {
            let mut command = redis::cmd("SSUBSCRIBE");
            command.arg(channel.as_str());
            match commands.send_packed_command(&command).await {
                Ok(Value::ServerError(error)) if ["MOVED", "ASK", "CLUSTERDOWN"].contains(&error.code()) => {
                    Err(End::SlotMoved(text_of(&error)))
                }
                Ok(Value::ServerError(error)) => Err(End::Failed(text_of(&error))),
                Ok(_) => Ok(()),
                Err(error) => Err(End::Failed(reason_of(&error))),
            }
        }
    });
    match tokio::time::timeout(timeout, try_join_all(all)).await {
        Ok(done) => done.map(drop),
        Err(_) => Err(End::Failed("SSUBSCRIBE was not answered in time".to_owned())),
    }
}

async fn ping(connection: &Connection, timeout: Duration) -> Result<(), String> {
    let mut commands = connection.commands.clone();
    let command = redis::cmd("PING");
    let answer = commands.send_packed_command(&command);
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(reason_of(&error)),
        Err(_) => Err("no answer to PING in time".to_owned()),
    }
}
