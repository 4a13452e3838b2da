//! A cluster of servers.
//!
//! Owns: the map of slots and its refresh, the servers that it names, redirections, and which server each channel
//! belongs to.
//! Does not: keep a server connected (`server` does).
//! Called by: `link`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::{Backoff, jitter};
use super::call::Call;
use super::failed::{Failed, Verdict, string_of, text_of};
use super::health::Need;
use super::server::{Server, Shared, Target, fact};
use super::slots::{SlotMap, slot_of};
use super::wire::Wire;
use crate::config::HostPort;

/// Most redirections of one call: one from a stale map, one while the slot moves, and one more of each.
const MOST_REDIRECTIONS: u32 = 4;
/// Longest pause before a call is repeated that the cluster could not place.
const REPEAT_WITHIN: Duration = Duration::from_millis(100);
/// How often the map is read when nothing casts doubt on it.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Longest pause between two reads while a server is away.
const REFRESH_AWAY: Duration = Duration::from_secs(1);
/// Most nodes asked at once for the map.
const MOST_ASKED: usize = 3;
/// How long the others may take after the first has told its map.
const GRACE: Duration = Duration::from_millis(250);
/// A server that owns nothing stays this long: a slot may be on its way to it.
const NEWCOMER: Duration = Duration::from_secs(10);

/// What is known of the slots.
#[derive(Clone)]
enum View {
    /// The first question is under way: worth waiting for.
    Unknown,
    Known(Arc<SlotMap>),
    /// The first question failed.
    Lost,
}

/// The servers of a cluster.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    seeds: Vec<HostPort>,
    view: watch::Sender<View>,
    servers: Mutex<HashMap<HostPort, Arc<Server>>>,
    channels: Mutex<BTreeSet<String>>,
    need: Need,
}

impl Cluster {
    pub(super) fn new(shared: Arc<Shared>, seeds: Vec<HostPort>) -> Arc<Self> {
        let need = shared.health.need();
        Arc::new(Self {
            shared,
            seeds,
            view: watch::Sender::new(View::Unknown),
            servers: Mutex::default(),
            channels: Mutex::default(),
            need,
        })
    }

    /// Runs a script on the server that owns its keys, following redirections until the deadline.
    pub(super) async fn run(&self, call: Call<'_>, deadline: Instant) -> Result<String, Failed> {
        let slot = slot_of(call.keys.first().map_or("", String::as_str));
        let mut redirected: Option<(HostPort, bool)> = None;
        let mut redirections = 0;
        loop {
            let owner = match redirected.take() {
                Some(target) => Some(target),
                None => self.owner(slot, deadline).await.map(|host| (host, false)),
            };
            let Some((host, asking)) = owner else { break };
            let Some(wire) = self.server(&host).wire(deadline).await else {
                break;
            };
            match call.run(&wire, asking, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Verdict::Refused(text)) => return Err(Failed::Refused(text)),
                Err(Verdict::Moved(Some(to))) if redirections < MOST_REDIRECTIONS => {
                    redirections += 1;
                    self.learn(slot, &to);
                    redirected = Some((to, false));
                }
                Err(Verdict::Ask(Some(to))) if redirections < MOST_REDIRECTIONS => {
                    redirections += 1;
                    redirected = Some((to, true));
                }
                Err(Verdict::TryAgain | Verdict::ClusterDown) => {
                    self.shared.doubt.notify_one();
                    let pause = REPEAT_WITHIN / 5 + jitter(REPEAT_WITHIN);
                    if Instant::now() + pause >= deadline {
                        break;
                    }
                    tokio::time::sleep(pause).await;
                }
                Err(_) => break,
            }
        }
        self.shared.doubt.notify_one();
        Err(Failed::Unavailable)
    }

    /// Subscribes to these channels too.
    pub(super) fn listen(&self, channels: Vec<String>) {
        self.channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(channels);
        self.assign();
    }

    /// Keeps the map fresh.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut backoff = Backoff::new(REFRESH_AWAY);
        let mut told = false;
        loop {
            let answer = Box::pin(self.ask_for_map()).await;
            let known = answer.is_ok();
            match answer {
                Ok(map) => {
                    self.view.send_replace(View::Known(Arc::new(map)));
                    self.need.set(true);
                    self.assign();
                    told = false;
                }
                Err(reason) => {
                    self.view.send_if_modified(|view| {
                        let first = matches!(view, View::Unknown);
                        if first {
                            *view = View::Lost;
                        }
                        first
                    });
                    self.need.set(false);
                    if !told {
                        told = true;
                        tracing::warn!(reason, "no node of the Redis cluster tells who owns what");
                    }
                }
            }
            if known && self.all_up() {
                backoff.reset();
                // Not more often, whoever doubts.
                tokio::time::sleep(REPEAT_WITHIN / 2 + jitter(REPEAT_WITHIN)).await;
                let doubt = self.shared.doubt.notified();
                let _ = tokio::time::timeout(REFRESH_EVERY, doubt).await;
            } else {
                tokio::time::sleep(REPEAT_WITHIN / 2 + backoff.next()).await;
            }
        }
    }

    async fn owner(&self, slot: u16, deadline: Instant) -> Option<HostPort> {
        let mut view = self.view.subscribe();
        let known = view.wait_for(|view| !matches!(view, View::Unknown));
        let view = tokio::time::timeout_at(deadline, known).await.ok()?.ok()?;
        match &*view {
            View::Known(map) => map.owner(slot).cloned(),
            View::Unknown | View::Lost => None,
        }
    }

    /// The server at this place, begun when it is new.
    fn server(&self, host: &HostPort) -> Arc<Server> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Server::start(&self.shared, Target::Fixed(host.clone()));
        Arc::clone(servers.entry(host.clone()).or_insert_with(new))
    }

    fn servers(&self) -> Vec<(HostPort, Arc<Server>)> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let all = servers
            .iter()
            .map(|(host, server)| (host.clone(), Arc::clone(server)));
        all.collect()
    }

    fn all_up(&self) -> bool {
        self.servers()
            .iter()
            .all(|(_, server)| server.wire_now().is_some())
    }

    /// One slot has moved, as its old owner said; the rest is looked up.
    fn learn(&self, slot: u16, owner: &HostPort) {
        let changed = self.view.send_if_modified(|view| match view {
            View::Known(map) if map.owner(slot) != Some(owner) => {
                Arc::make_mut(map).set(slot, owner);
                true
            }
            _ => false,
        });
        if changed {
            self.assign();
        }
        self.shared.doubt.notify_one();
    }

    /// Begins the servers that own slots, lets go of those that do not, and gives each its channels.
    fn assign(&self) {
        let View::Known(map) = self.view.borrow().clone() else {
            return;
        };
        let owners: BTreeSet<&HostPort> = map.nodes().collect();
        for host in &owners {
            self.server(host);
        }
        self.servers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|host, server| owners.contains(host) || server.age() < NEWCOMER);
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        for (host, server) in self.servers() {
            let own = |channel: &&String| map.owner(slot_of(channel)) == Some(&host);
            server.listen(channels.iter().filter(own).cloned().collect());
        }
    }

    /// The map of the best informed of some nodes: connected ones, else any that are known.
    async fn ask_for_map(&self) -> Result<SlotMap, String> {
        let servers = self.servers();
        let mut up: Vec<_> = servers
            .iter()
            .filter_map(|(_, server)| server.wire_now())
            .collect();
        shuffle(&mut up);
        let asked = up.into_iter().take(MOST_ASKED).map(|wire| async move {
            let deadline = Instant::now() + self.shared.timeout;
            let answers = wire.ask(&questions(), deadline).await;
            read(answers.map_err(|_| "no answer in time".to_owned())?, &wire.host)
        });
        if let Ok(map) = best(asked.collect()).await {
            return Ok(map);
        }
        let mut hosts: Vec<HostPort> = servers.into_iter().map(|(host, _)| host).collect();
        hosts.extend(self.seeds.iter().cloned());
        hosts.sort();
        hosts.dedup();
        shuffle(&mut hosts);
        let mut reason = String::new();
        for hosts in hosts.chunks(MOST_ASKED) {
            let asked = hosts.iter().cloned().map(|host| self.ask_stranger(host));
            match best(asked.collect()).await {
                Ok(map) => return Ok(map),
                Err(problem) => reason = problem,
            }
        }
        Err(reason)
    }

    async fn ask_stranger(&self, host: HostPort) -> Result<Told, String> {
        let problem = |reason: String| format!("{host}: {reason}");
        let connection = self.shared.dialer.dial(&host, None).await.map_err(problem)?;
        let wire = Wire::new(host.clone(), connection, self.shared.timeout);
        match wire.ask(&questions(), Instant::now() + self.shared.timeout).await {
            Ok(answers) => read(answers, &host).map_err(problem),
            Err(_) => Err(problem(wire.ended().await)),
        }
    }
}

/// What one node tells: whether it sees a healthy cluster, its epoch, and its map. A node that was cut off sees none, and
/// one that stood still during a failover has the lower epoch.
type Told = (bool, u64, SlotMap);

fn questions() -> [Cmd; 2] {
    let [mut slots, mut info] = [redis::cmd("CLUSTER"), redis::cmd("CLUSTER")];
    slots.arg("SLOTS");
    info.arg("INFO");
    [slots, info]
}

fn read(answers: Vec<Value>, asked: &HostPort) -> Result<Told, String> {
    let mut answers = answers.into_iter();
    let map = match answers.next() {
        Some(Value::ServerError(error)) => return Err(text_of(&error)),
        Some(answer) => SlotMap::read(answer, asked),
        None => None,
    };
    let map = map.ok_or_else(|| "names no owner of any slot".to_owned())?;
    let info = answers.next().and_then(string_of).unwrap_or_default();
    let fact = |name| fact(&info, name);
    let epoch = fact("cluster_current_epoch").and_then(|epoch| epoch.parse().ok());
    Ok((fact("cluster_state") == Some("ok"), epoch.unwrap_or(0), map))
}

/// The best of the answers that come soon after the first.
async fn best<F>(mut asked: FuturesUnordered<F>) -> Result<SlotMap, String>
where
    F: Future<Output = Result<Told, String>>,
{
    let mut best: Option<Told> = None;
    let mut reason = "no node is known".to_owned();
    let mut deadline = None;
    loop {
        let next = match deadline {
            None => asked.next().await,
            Some(deadline) => tokio::time::timeout_at(deadline, asked.next())
                .await
                .unwrap_or(None),
        };
        match next {
            Some(Ok(told)) => {
                deadline.get_or_insert_with(|| Instant::now() + GRACE);
                let better = |old: &Told| (told.0, told.1) > (old.0, old.1);
                if best.as_ref().is_none_or(better) {
                    best = Some(told);
                }
            }
            Some(Err(problem)) => reason = problem,
            None => return best.map(|(_, _, map)| map).ok_or(reason),
        }
    }
}

/// In an order of chance, so that no node is asked by everybody.
fn shuffle<T>(items: &mut [T]) {
    items.sort_by_cached_key(|_| jitter(Duration::from_secs(1)));
}
