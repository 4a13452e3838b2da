//! Thousands of players in one process.
//!
//! Owns: sockets, and that the log has each account's facts in their true order. A task per socket answers pings,
//! sends heartbeats and reads. All sockets of an account are read under one lock, and before a `granted` is logged
//! every other socket of the account is read dry: what a gateway wrote to a victim before it granted the newcomer is in
//! the log before the grant, however late the victim's own task would have run.
//! Does not: decide what players do. Called by: the scenarios.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{Sink, Stream};
use http::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::eager::Eager;
use crate::harness;
use crate::log::{Log, Mode, Session, What};

/// What a player tells how often when nothing else happens.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A node that does not finish a handshake by then is away.
const HANDSHAKE: Duration = Duration::from_secs(8);

/// Handshakes under way at once: more only make all of them late on a small machine.
const HANDSHAKES: usize = 48;

type Socket = WebSocketStream<TlsStream<Eager>>;

/// Where a node is, and how its certificate is trusted.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) node: u32,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

/// A connection over which nothing was asked yet.
pub(crate) struct Connected {
    socket: u32,
    node: u32,
    port: u16,
    stream: TlsStream<Eager>,
}

/// What a player was told; the log has it already.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Granted(Grant),
    Denied {
        holders: Vec<Session>,
    },
    Waiting,
    Draining,
    Ended {
        code: u16,
    },
    /// The last.
    Closed {
        code: u16,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) at: Duration,
    pub(crate) session: Session,
    pub(crate) secret: String,
    pub(crate) resumed: bool,
    pub(crate) provisional: bool,
}

/// How a start failed before the upgrade; 0: no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
}

/// What somebody asks of a node.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) account: u32,
    pub(crate) device: u32,
    pub(crate) mode: Mode,
    pub(crate) resume: Option<(Session, String)>,
}

impl Start {
    pub(crate) fn of(account: u32, device: u32) -> Self {
        Self {
            account,
            device,
            mode: Mode::Reject,
            resume: None,
        }
    }

    pub(crate) fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn resume(self, grant: &Grant) -> Self {
        Self {
            resume: Some((grant.session, grant.secret.clone())),
            ..self
        }
    }
}

pub(crate) struct Swarm {
    pub(crate) log: Arc<Log>,
    rooms: Mutex<BTreeMap<u32, Arc<Room>>>,
    sockets: AtomicU32,
    handshakes: Semaphore,
}

impl Swarm {
    pub(crate) fn new() -> Arc<Self> {
        raise_file_limit();
        Arc::new(Self {
            log: Arc::new(Log::new()),
            rooms: Mutex::default(),
            sockets: AtomicU32::new(0),
            handshakes: Semaphore::new(HANDSHAKES),
        })
    }

    /// Opens a watch socket; its first frame comes through [`Player::next`].
    pub(crate) async fn open(&self, door: &Door, start: &Start) -> Result<Player, Refusal> {
        let connected = self.connect(door).await.ok_or(Refusal { status: 0 })?;
        self.start(connected, start).await
    }

    /// A TLS connection, so that starts can be sent at one moment; `None`: the node is not there.
    pub(crate) async fn connect(&self, door: &Door) -> Option<Connected> {
        let permit = self.handshakes.acquire().await.unwrap();
        let socket = self.sockets.fetch_add(1, Ordering::Relaxed);
        let stream = timeout(HANDSHAKE, connect(door, socket)).await.ok()?.ok()?;
        drop(permit);
        Some(Connected {
            socket,
            node: door.node,
            port: door.address.port(),
            stream,
        })
    }

    /// Asks for the slot.
    pub(crate) async fn start(&self, connected: Connected, start: &Start) -> Result<Player, Refusal> {
        let request = request(connected.port, start);
        let resume = start.resume.as_ref().map(|(session, _)| *session);
        let asked = What::Asked {
            device: start.device,
            mode: start.mode,
            resume,
        };
        let id = Id {
            account: start.account,
            socket: connected.socket,
            node: connected.node,
        };
        id.log(&self.log, asked);
        let config = WebSocketConfig::default()
            .read_buffer_size(2_048)
            .write_buffer_size(0);
        let upgrade = client_async_with_config(request, connected.stream, Some(config));
        let status = match timeout(HANDSHAKE, upgrade).await {
            Ok(Ok((upgraded, _))) => return Ok(self.attach(id, upgraded)),
            Ok(Err(Error::Http(response))) => response.status().as_u16(),
            Ok(Err(_)) | Err(_) => 0,
        };
        id.log(&self.log, What::Refused { status });
        Err(Refusal { status })
    }

    fn attach(&self, id: Id, socket: Socket) -> Player {
        let room = Arc::clone(self.rooms.lock().unwrap().entry(id.account).or_default());
        let (tell, told) = mpsc::unbounded_channel();
        let (command, commands) = mpsc::unbounded_channel();
        let line = Line {
            id,
            socket: Some(socket),
            outgoing: VecDeque::new(),
            unlogged: VecDeque::new(),
            waker: Waker::noop().clone(),
            tell,
            denied: false,
        };
        room.lines.lock().unwrap().insert(id.socket, line);
        let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let log = Arc::clone(&self.log);
        let task = Play {
            room,
            id,
            log,
            commands,
            beat,
        };
        // Sockets are read dry here; tokio's budget would make them look dry when they are not.
        tokio::spawn(tokio::task::coop::unconstrained(task));
        Player { id, command, told }
    }
}

/// Who a line belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id {
    pub(crate) account: u32,
    pub(crate) socket: u32,
    pub(crate) node: u32,
}

impl Id {
    fn log(self, log: &Log, what: What) -> Duration {
        log.push(self.account, self.socket, self.node, what)
    }
}

/// An open watch socket. Dropped: cut.
pub(crate) struct Player {
    pub(crate) id: Id,
    command: mpsc::UnboundedSender<Command>,
    told: mpsc::UnboundedReceiver<Told>,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Stop,
    Close(u16),
    TakeOver(Session),
    Wait,
    Cut,
}

impl Player {
    /// What comes next; `Closed` comes last, and again for ever.
    pub(crate) async fn next(&mut self) -> Told {
        self.told.recv().await.unwrap_or(Told::Closed { code: 1006 })
    }

    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Told> {
        timeout(limit, self.next()).await.ok()
    }

    /// The decision on this start: `Granted`, `Denied`, `Waiting` or an end.
    pub(crate) async fn decision(&mut self) -> Told {
        loop {
            match self.next().await {
                Told::Draining => {}
                told => return told,
            }
        }
    }

    /// The grant, or the first thing that rules it out for now.
    pub(crate) async fn granted(&mut self) -> Result<Grant, Told> {
        loop {
            match self.next().await {
                Told::Granted(grant) => return Ok(grant),
                Told::Draining | Told::Waiting => {}
                other => return Err(other),
            }
        }
    }

    /// Waits for the close; its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Told::Closed { code } = self.next().await {
                return code;
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.send(Command::Stop);
    }

    pub(crate) fn close(&self, code: u16) {
        self.send(Command::Close(code));
    }

    pub(crate) fn take_over(&self, victim: Session) {
        self.send(Command::TakeOver(victim));
    }

    pub(crate) fn wait(&self) {
        self.send(Command::Wait);
    }

    /// Breaks the connection without a close frame; logged before this returns to anybody who awaits it.
    pub(crate) async fn cut(mut self) {
        self.send(Command::Cut);
        self.closed().await;
    }

    fn send(&self, command: Command) {
        // A socket that is gone takes no commands; its owner reads so.
        let _ = self.command.send(command);
    }
}

/// The sockets of one account.
#[derive(Default)]
struct Room {
    lines: Mutex<BTreeMap<u32, Line>>,
}

struct Line {
    id: Id,
    /// `None`: over.
    socket: Option<Socket>,
    outgoing: VecDeque<Message>,
    /// Read, but not in the log yet; empty whenever nobody holds the room's lock.
    unlogged: VecDeque<Heard>,
    /// Of the task that owns it: whoever else reads it leaves this waker behind.
    waker: Waker,
    tell: mpsc::UnboundedSender<Told>,
    denied: bool,
}

/// What a socket said last.
enum Heard {
    Message(Value),
    Closed(u16),
}

impl Heard {
    fn is_grant(&self) -> bool {
        matches!(self, Self::Message(message) if message["type"] == "granted")
    }
}

/// The task of one socket.
struct Play {
    room: Arc<Room>,
    id: Id,
    log: Arc<Log>,
    commands: mpsc::UnboundedReceiver<Command>,
    beat: Interval,
}

impl Future for Play {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let room = Arc::clone(&self.room);
        let log = Arc::clone(&self.log);
        let mut lines = room.lines.lock().unwrap();
        let Some(line) = lines.get_mut(&self.id.socket) else {
            return Poll::Ready(());
        };
        line.waker = cx.waker().clone();
        while let Poll::Ready(command) = self.commands.poll_recv(cx) {
            // Nobody holds the player any more.
            line.obey(&log, command.unwrap_or(Command::Cut));
            if line.socket.is_none() {
                break;
            }
        }
        if self.beat.poll_tick(cx).is_ready() {
            let beat = json!({"type": "heartbeat", "position_ms": 1, "state": "playing"});
            line.outgoing.push_back(Message::text(beat.to_string()));
            let _ = self.beat.poll_tick(cx);
        }
        line.flush();
        line.read_dry();
        if line.unlogged.iter().any(Heard::is_grant) {
            lines.values_mut().for_each(Line::read_dry);
        }
        log_in_order(&mut lines, &log);
        let over = lines[&self.id.socket].socket.is_none();
        if over {
            lines.remove(&self.id.socket);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Line {
    fn obey(&mut self, log: &Log, command: Command) {
        if self.socket.is_none() {
            return;
        }
        match command {
            Command::Stop => {
                self.id.log(log, What::StopSent);
                self.say(&json!({"type": "stop"}));
            }
            Command::Close(code) => {
                let frees = matches!(code, 1000 | 1001);
                self.id.log(log, if frees { What::StopSent } else { What::Cut });
                let frame = CloseFrame {
                    code: code.into(),
                    reason: "".into(),
                };
                self.outgoing.push_back(Message::Close(Some(frame)));
            }
            Command::TakeOver(victim) => {
                self.id.log(log, What::TakeOver { victim });
                self.say(&json!({"type": "takeover", "session": victim.to_string()}));
            }
            Command::Wait => {
                self.id.log(log, What::WaitSent);
                self.say(&json!({"type": "wait"}));
            }
            Command::Cut => {
                self.id.log(log, What::Cut);
                // Half of them with a reset, half with the end of the stream; never a close frame or the end of TLS.
                if let Some(socket) = self.socket.take()
                    && self.id.socket.is_multiple_of(2)
                {
                    socket.get_ref().get_ref().0.reset_on_drop();
                }
                let _ = self.tell.send(Told::Closed { code: 1006 });
            }
        }
    }

    fn say(&mut self, message: &Value) {
        self.outgoing.push_back(Message::text(message.to_string()));
    }

    /// Sends what waits, and pongs.
    fn flush(&mut self) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        let Some(socket) = &mut self.socket else { return };
        let mut socket = Pin::new(socket);
        while !self.outgoing.is_empty() && socket.as_mut().poll_ready(&mut cx).is_ready() {
            let message = self.outgoing.pop_front().unwrap();
            // What it failed of, reading tells.
            let _ = socket.as_mut().start_send(message);
        }
        let _ = socket.as_mut().poll_flush(&mut cx);
    }

    /// Takes everything that has arrived.
    fn read_dry(&mut self) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        while let Some(socket) = &mut self.socket {
            let closed = match Pin::new(socket).poll_next(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(Message::Text(text)))) => {
                    self.unlogged
                        .push_back(Heard::Message(serde_json::from_str(&text).unwrap()));
                    continue;
                }
                Poll::Ready(Some(Ok(Message::Close(frame)))) => frame.map_or(1005, |frame| frame.code.into()),
                Poll::Ready(Some(Ok(_))) => continue,
                Poll::Ready(Some(Err(_)) | None) => 1006,
            };
            self.unlogged.push_back(Heard::Closed(closed));
            // The answer to the close frame.
            self.flush();
            self.socket = None;
            self.waker.wake_by_ref();
        }
    }

    fn log_next(&mut self, log: &Log) {
        match self.unlogged.pop_front() {
            Some(Heard::Message(message)) => self.hear(log, &message),
            Some(Heard::Closed(code)) => {
                // The close that follows every plain refusal says nothing new.
                if !(self.denied && code == 4001) {
                    self.id.log(log, What::Closed { code });
                }
                let _ = self.tell.send(Told::Closed { code });
            }
            None => {}
        }
    }

    fn hear(&mut self, log: &Log, message: &Value) {
        let told = match message["type"].as_str() {
            Some("granted") => Told::Granted(self.grant(log, message)),
            Some("denied") => {
                let holders = message["holders"].as_array().unwrap();
                let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
                let limit = usize::try_from(message["slots"]["limit"].as_u64().unwrap()).unwrap();
                self.id.log(
                    log,
                    What::Denied {
                        holders: count(holders.len()),
                        limit: count(limit),
                    },
                );
                self.denied = true;
                let sessions = holders
                    .iter()
                    .filter_map(|h| Session::parse(h["session"].as_str()?));
                Told::Denied {
                    holders: sessions.collect(),
                }
            }
            Some("waiting") => {
                let position = message["position"].as_u64().unwrap_or(0);
                self.id.log(
                    log,
                    What::Waiting {
                        position: u8::try_from(position).unwrap_or(u8::MAX),
                    },
                );
                Told::Waiting
            }
            Some("draining") => {
                self.id.log(log, What::Draining);
                Told::Draining
            }
            Some("ended") => {
                let code = end_number(message["code"].as_str().unwrap_or_default());
                self.id.log(log, What::Ended { code });
                Told::Ended { code }
            }
            _ => return,
        };
        let _ = self.tell.send(told);
    }

    fn grant(&self, log: &Log, message: &Value) -> Grant {
        let session = Session::parse(message["session"].as_str().unwrap()).expect("a session id of 16 bytes");
        let (resumed, provisional) = (message["resumed"] == true, message["provisional"] == true);
        let at = self.id.log(
            log,
            What::Granted {
                session,
                resumed,
                provisional,
            },
        );
        let secret = message["resume"].as_str().unwrap().to_owned();
        Grant {
            at,
            session,
            secret,
            resumed,
            provisional,
        }
    }
}

/// Logs what was read at one moment from several sockets, whose order among each other nobody knows: whatever may have
/// come before a grant goes before it.
fn log_in_order(lines: &mut BTreeMap<u32, Line>, log: &Log) {
    loop {
        for line in lines.values_mut() {
            while line.unlogged.front().is_some_and(|heard| !heard.is_grant()) {
                line.log_next(log);
            }
        }
        // A grant that more follows first: that may be its end.
        let waiting = lines.values_mut().filter(|line| !line.unlogged.is_empty());
        match waiting.max_by_key(|line| line.unlogged.len()) {
            Some(line) => line.log_next(log),
            None => return,
        }
    }
}

async fn connect(door: &Door, socket: u32) -> std::io::Result<TlsStream<Eager>> {
    let tcp = TcpSocket::new_v4()?;
    // Each address has its own 28,000 ports.
    let last = u8::try_from(2 + socket % 200).unwrap_or(2);
    tcp.bind(([127, 0, 0, last], 0).into())?;
    let stream = tcp.connect(door.address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(&door.tls))
        .connect(name, Eager(stream))
        .await
}

fn request(port: u16, start: &Start) -> http::Request<()> {
    let mut path = format!(
        "wss://localhost:{port}/v1/watch?content=m1&device=d{}&on_limit={}",
        start.device,
        start.mode.name()
    );
    if let Some((_, secret)) = &start.resume {
        path += "&resume=";
        path += secret;
    }
    let mut request = path.into_client_request().unwrap();
    let token = format!("Bearer {}", token(start.account));
    request
        .headers_mut()
        .insert("authorization", HeaderValue::try_from(token).unwrap());
    request
}

/// The name of an account.
pub(crate) fn account_name(account: u32) -> String {
    format!("account-{account}")
}

/// An access token of this account, good for hours, signed once.
fn token(account: u32) -> String {
    static TOKENS: Mutex<BTreeMap<u32, String>> = Mutex::new(BTreeMap::new());
    let mut tokens = TOKENS.lock().unwrap();
    let sign = || harness::sign(&json!({"sub": account_name(account), "exp": harness::now() + 6 * 3_600}));
    tokens.entry(account).or_insert_with(sign).clone()
}

/// The close code of an `ended.code` (interface.md section 2); 4999 is one that we do not know.
fn end_number(name: &str) -> u16 {
    match name {
        "stopped" => 4000,
        "stream_limit_reached" => 4001,
        "displaced" => 4002,
        "ended_by_operator" => 4003,
        "account_blocked" => 4004,
        "content_unavailable" => 4005,
        "moved" => 4006,
        "bad_message" => 4100,
        "message_too_large" => 4101,
        "rate_limited" => 4102,
        "token_expired" => 4103,
        "draining" => 4200,
        "heartbeat_missed" => 4201,
        "lease_lost" => 4203,
        "unavailable" => 4204,
        "slow_consumer" => 4205,
        _ => 4999,
    }
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}
