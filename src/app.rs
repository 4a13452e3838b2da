//! The only place that wires the rooms together: a configuration becomes a running node.
//!
//! Owns: what is built in which order, and taking it down again. Does not: parse arguments or wait for signals.
//! Called by: `cli::serve`, and tests, which start many nodes in one process.
//!
//! Over 400 lines: every room is wired here, a few lines each.

mod arbiter;
mod reload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;

use crate::accounts::{self, Accounts, Remembered};
use crate::api::admin::{Admin, admin_routes};
use crate::api::looks::Looks;
use crate::api::observe::Routes;
use crate::api::{Api, player_routes};
use crate::auth::Verifier;
use crate::catalogue::{self, Catalogue, demo};
use crate::config::Config;
use crate::db::{Db, MigrationError, Migrations};
use crate::gateway::attempts::Attempts;
use crate::gateway::exchange::Exchange;
use crate::gateway::{Gateway, Timing, drain};
use crate::lease::policy::Policy;
use crate::lease::service::Service;
use crate::lease::shelf::Shelf;
use crate::lease::store::StoreError;
use crate::ledger::{self, Desk, Ledger};
use crate::media::{self, Media, Showing};
use crate::messages::{self, Messages};
use crate::net::address::Addressing;
use crate::net::certificate::{self, CertPaths, Certificates};
use crate::net::lane::Lane;
use crate::net::limits::{Admission, RequestLimits};
use crate::net::listener::{self, Players, serve_plain, serve_players};
use crate::net::origin::Origins;
use crate::net::{devcert, tls};
use crate::outbound::Guard;
use crate::protocol::id::OwnerId;
use crate::telemetry::{AuditTrail, LogHandle, Metrics};
use crate::webhooks::Webhooks;

/// Connections that still answer a request when the sessions are gone get this long, within the drain's deadline.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// A database that is a file may take this long until it can be opened.
const FILE_PATIENCE: Duration = Duration::from_secs(10);

/// Why a node does not start or reload.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A setting is wrong, or names a file that is; mend the configuration.
    #[error("{0}")]
    Settings(String),
    /// The machine does not give what is needed, such as an address that is in use.
    #[error("{0}")]
    Machine(String),
}

/// A running node.
pub struct Node {
    /// Where players are served.
    pub players: SocketAddr,
    /// Where operators are served.
    pub admin: SocketAddr,
    /// Issues and verifies tokens.
    pub verifier: Arc<Verifier>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    config: Config,
    gateway: Arc<Gateway>,
    api: Arc<Api>,
    certificates: Arc<Certificates>,
    log: Option<Arc<LogHandle>>,
    stop_players: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    connections: TaskTracker,
    upkeep: Vec<AbortHandle>,
    webhooks: Arc<Webhooks>,
    messages: Option<Arc<Messages>>,
    remembered: Option<Arc<catalogue::Remembered>>,
    accounts: Option<Arc<Accounts>>,
    ledger: Option<Ledger>,
    media: Option<Arc<Media>>,
}

impl Node {
    /// Builds a node and starts serving. `log` is the process's log, when this node may change its level.
    ///
    /// # Errors
    /// What could not be built, with the file, key or address.
    pub async fn start(config: Config, log: Option<Arc<LogHandle>>) -> Result<Self, AppError> {
        let metrics = Arc::new(Metrics::new());
        let prepared = config.clone();
        let prepare = tokio::task::spawn_blocking(move || prepare(&prepared));
        let (verifier, certificates) = prepare
            .await
            .map_err(|error| AppError::Machine(error.to_string()))??;
        report_expiry(&metrics, &certificates);
        let addressing = Arc::new(Addressing::new(&config.listen, &config.limits));
        let owner = OwnerId::generate();
        let arbiter::Arbiter {
            store,
            registry,
            journal,
            wire,
            memory,
        } = arbiter::open(&config, owner, &metrics)?;
        let guard = Guard::new(&config.outbound.allowed_private);
        let told = Webhooks::new(
            &config.webhooks,
            &guard,
            Arc::clone(&journal),
            owner,
            Arc::clone(&metrics),
        );
        let webhooks = told.map_err(|error| AppError::Settings(error.to_string()))?;
        let lease = Service::new(
            owner,
            store,
            registry.clone(),
            config.outage.clone(),
            Arc::clone(&metrics),
        );
        let db = open_database(&config, &metrics).await?;
        let messages = db.clone().filter(|_| config.modules.messages).map(|db| {
            Messages::start(messages::Parts {
                db,
                accounts: config.modules.accounts,
                settings: config.messages.clone(),
                registry: Arc::clone(&registry),
                wire,
                owner,
                metrics: Arc::clone(&metrics),
            })
        });
        let tasks = TaskTracker::new();
        let remembered = db.clone().filter(|_| config.modules.catalogue);
        let remembered =
            remembered.map(|db| catalogue::Remembered::new(db, &config.catalogue, tasks.clone()));
        let shelf = remembered.clone().map(|remembered| remembered as Arc<dyn Shelf>);
        let counted = db.is_some() && config.modules.ledger;
        let attempts = counted.then(Arc::<Attempts>::default);
        let gateway = Arc::new(Gateway {
            lease: Arc::new(lease),
            registry,
            policy: ArcSwap::from_pointee(Policy::new(&config).with_shelf(shelf.clone())),
            shelf,
            tickets: ArcSwap::from_pointee(config.tickets.clone()),
            timing: Timing::new(&config),
            verifier: Arc::clone(&verifier),
            exchange: messages.clone().map(|messages| messages as Arc<dyn Exchange>),
            metrics: Arc::clone(&metrics),
            refusals: webhooks.refusals(),
            attempts,
            tasks,
        });
        gateway.count_rules(&gateway.policy.load());
        let ledger = db.clone().filter(|_| config.modules.ledger);
        let ledger = ledger.map(|db| Ledger::open(&config, db, (journal, memory), &gateway, owner, &metrics));
        let ledger = ledger.transpose().map_err(AppError::Settings)?;
        let api = Arc::new(Api {
            gateway: Arc::clone(&gateway),
            verifier: Arc::clone(&verifier),
            origins: ArcSwap::from_pointee(Origins::new(&config.http).map_err(failed("http.origins"))?),
            admission: Arc::new(Admission::new(&config.limits, Arc::clone(&addressing))),
            request_limits: RequestLimits::new(&config.limits, Arc::clone(&addressing)),
            addressing,
            metrics: Arc::clone(&metrics),
            trail: AuditTrail::open(&config.trail, &config.data.dir).map_err(failed("audit.log"))?,
            db,
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            query_token: config.auth.query_token,
            facade: config.facade.clone(),
            demo: config.tls.cert.as_os_str().is_empty(),
            echo: config.debug.echo.then_some(config.debug.echo_max_bytes),
        });
        let accounts = config.modules.accounts;
        let others = remembering(&config, &api);
        let accounts = accounts.then(|| Arc::new(Accounts::new(&api, &config.accounts, others)));
        let showing = messages.clone().map(|messages| messages as Arc<dyn Showing>);
        let media = open_media(&config, &api, showing)?;
        let players = bind("listen.players", config.listen.players)?;
        let admin = bind("listen.admin", config.listen.admin)?;
        let mut node = Self {
            players: local_address(&players)?,
            admin: local_address(&admin)?,
            verifier,
            metrics,
            config,
            gateway,
            api,
            certificates,
            log,
            stop_players: watch::Sender::new(false),
            stop_admin: watch::Sender::new(false),
            connections: TaskTracker::new(),
            upkeep: Vec::new(),
            webhooks,
            messages,
            remembered,
            accounts,
            ledger,
            media,
        };
        node.serve(players, admin)?;
        node.webhooks.mark().await;
        match node.gateway.lease.begin().await {
            Err(StoreError::Foreign(found)) => {
                let here = node.config.redis.buckets;
                return Err(AppError::Settings(format!(
                    "redis.buckets: {here} here, {found} in Redis: every node must have the same"
                )));
            }
            Err(_) => tracing::warn!("Redis does not answer: starting without it, as [outage] says"),
            Ok(()) => {}
        }
        node.maintain();
        node.demonstrate();
        node.webhooks.start();
        if let Some(ledger) = &node.ledger {
            ledger.start();
        }
        Ok(node)
    }

    fn serve(&self, players: TcpListener, admin: TcpListener) -> Result<(), AppError> {
        let routes = |router| {
            let addressing = Arc::clone(&self.api.addressing);
            Arc::new(Routes::new(
                router,
                addressing,
                Arc::clone(&self.metrics),
                self.config.log.access,
            ))
        };
        let tls = tls::server_config(Arc::clone(&self.certificates)).map_err(failed("tls"))?;
        let (parts, lane) = (self.parts(), Lane::new());
        let doors = Arc::new(Players {
            tls,
            admission: Arc::clone(&self.api.admission),
            addressing: Arc::clone(&self.api.addressing),
            proxy_protocol: self.config.listen.proxy_protocol,
            handshake_timeout: self.config.limits.handshake_timeout,
            handler: routes(player_routes(&self.api, parts.clone())),
            lane: Arc::clone(&lane),
            metrics: Arc::clone(&self.metrics),
            tasks: self.connections.clone(),
        });
        self.connections
            .spawn(serve_players(players, doors, self.stop_players.subscribe()));
        let shared = Arc::new(Admin {
            api: Arc::clone(&self.api),
            log: self.log.clone(),
            looks: Looks::default(),
            hosts: self.config.listen.admin_hosts.clone(),
            webhooks: Arc::clone(&self.webhooks),
        });
        let timeout = self.config.limits.handshake_timeout;
        let theirs = self.operator_parts();
        let (routes, tasks) = (
            routes(admin_routes(&shared, parts, theirs)),
            self.connections.clone(),
        );
        self.connections.spawn(serve_plain(
            admin,
            routes,
            lane,
            timeout,
            tasks,
            self.stop_admin.subscribe(),
        ));
        Ok(())
    }

    /// Routes of the parts that are switched on.
    fn parts(&self) -> OpenApiRouter {
        let mut parts = OpenApiRouter::default();
        if let Some(accounts) = &self.accounts {
            parts = parts.merge(accounts::routes(accounts));
        }
        if self.config.modules.catalogue {
            let (api, shelf) = (Arc::clone(&self.api), self.remembered.clone());
            let catalogue = Catalogue::new(api, shelf, self.config.catalogue.clone());
            parts = parts.merge(catalogue.routes());
        }
        if self.config.modules.ledger {
            parts = parts.merge(Desk::new(Arc::clone(&self.api), &self.config).routes());
        }
        if let Some(media) = &self.media {
            parts = parts.merge(media::routes(media));
        }
        if self.config.modules.messages {
            parts = parts.merge(messages::routes(&self.api, self.messages.clone()));
        }
        parts
    }

    /// The same for operators alone.
    fn operator_parts(&self) -> OpenApiRouter<Arc<Admin>> {
        let mut parts = OpenApiRouter::default();
        if self.config.modules.messages {
            parts = parts.merge(messages::operator_routes(&self.api, self.messages.clone()));
        }
        parts
    }

    /// Demo contents for whoever tries a node out: once, and never on one with a certificate of its own.
    fn demonstrate(&mut self) {
        let wanted = self.config.modules.catalogue && self.config.catalogue.demo;
        let tried_out = self.config.tls.cert.as_os_str().is_empty();
        if let Some(db) = self.api.db.clone().filter(|_| wanted && tried_out) {
            self.upkeep.push(tokio::spawn(demo::make_once(db)).abort_handle());
        }
    }

    fn maintain(&mut self) {
        let upkeep = tokio::spawn(Arc::clone(&self.gateway.lease).keep());
        let (metrics, certificates) = (Arc::clone(&self.metrics), Arc::clone(&self.certificates));
        let seen = Arc::clone(&certificates);
        let watch = certificate::watch(certificates, self.config.tls.reload_interval, move |_| {
            report_expiry(&metrics, &seen);
        });
        self.upkeep = vec![upkeep.abort_handle(), tokio::spawn(watch).abort_handle()];
        if let Some(media) = self.media.clone() {
            self.upkeep.push(tokio::spawn(media.keep()).abort_handle());
        }
        if let Some(accounts) = &self.accounts {
            let task = tokio::spawn(Arc::clone(accounts).keep());
            self.upkeep.push(task.abort_handle());
        }
        if let Some(db) = self.api.db.clone().filter(|db| !db.is_ready()) {
            let migrate = self.config.database.migrate;
            let task = tokio::spawn(async move { db.prepare_when_back(migrate).await });
            self.upkeep.push(task.abort_handle());
        }
    }

    /// Its id among the nodes, fresh at each start.
    #[must_use]
    pub fn id(&self) -> OwnerId {
        self.gateway.lease.owner
    }

    /// The most connections that this node takes.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.api.admission.capacity()
    }

    /// Fails readiness, takes no more players after `drain.delay`, moves those who play to other nodes, and ends.
    pub async fn drain(self) {
        let settings = &self.config.drain;
        self.api.leaving.store(true, Ordering::Relaxed);
        tracing::info!(
            connections = self.metrics.connections_open.get(),
            "draining; a second signal ends at once"
        );
        // Whoever a balancer still sends is served: a refusal here is a failed start, and it cannot choose again.
        tokio::time::sleep(settings.delay).await;
        self.api.draining.store(true, Ordering::Relaxed);
        self.gateway.lease.leave();
        let deadline = Instant::now() + settings.deadline;
        let told = drain::run(&self.gateway, settings).await;
        self.stop_players.send_replace(true);
        self.stop_admin.send_replace(true);
        self.connections.close();
        let last_requests = deadline.min(Instant::now() + LAST_REQUESTS);
        let finished = tokio::time::timeout_at(last_requests, self.connections.wait())
            .await
            .is_ok();
        for task in &self.upkeep {
            task.abort();
        }
        self.webhooks.stop().await;
        if let Some(messages) = &self.messages {
            messages.stop();
        }
        self.gateway.lease.farewell().await;
        if let Some(ledger) = &self.ledger {
            ledger.stop().await;
        }
        if let Some(media) = &self.media {
            media.leave().await;
        }
        if let Some(db) = &self.api.db {
            db.close().await;
        }
        tracing::info!(sessions = told, finished, "drained");
    }
}

/// The rooms that remember people beside `accounts`.
fn remembering(config: &Config, api: &Api) -> Vec<Arc<dyn Remembered>> {
    let mut rooms: Vec<Arc<dyn Remembered>> = Vec::new();
    if let Some(db) = api.db.clone().filter(|_| config.modules.ledger) {
        rooms.push(Arc::new(ledger::remembered::Memory::new(db)));
    }
    if let Some(db) = api.db.clone().filter(|_| config.modules.messages) {
        rooms.push(Arc::new(messages::remembered::Memory::new(db)));
    }
    rooms
}

/// What needs files: keys and certificates.
fn prepare(config: &Config) -> Result<(Arc<Verifier>, Arc<Certificates>), AppError> {
    std::fs::create_dir_all(&config.data.dir)
        .map_err(|error| AppError::Machine(format!("{}: {error}", config.data.dir.display())))?;
    let verifier = Verifier::new(
        &config.auth,
        &config.data.dir,
        &Guard::new(&config.outbound.allowed_private),
    )
    .map_err(failed("auth"))?;
    if config.tickets.enabled
        && !config.redis.url.is_empty()
        && config.auth.signing_key.as_os_str().is_empty()
    {
        tracing::warn!("auth.signing_key is not set: other nodes do not know this node's tickets");
    }
    let paths = certificate_paths(config)?;
    let certificates = Certificates::load(paths, tls::provider()).map_err(failed("tls"))?;
    Ok((Arc::new(verifier), Arc::new(certificates)))
}

/// The database with its tables, if any part uses one. Without Redis and without a server of its own a node has a file;
/// with Redis alone it has none: rows of one node would be missing on the others.
async fn open_database(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Db>, AppError> {
    if !config.modules.any() {
        return Ok(None);
    }
    if !config.redis.url.is_empty() && !config.database.is_shared() {
        tracing::warn!(
            "database.url is not set: what needs rows that nodes share answers 503 needs_database"
        );
        return Ok(None);
    }
    let db = Db::open(
        &config.database,
        &config.data.dir,
        Migrations::all(),
        Arc::clone(metrics),
    );
    let db = db.map_err(|error| AppError::Settings(error.to_string()))?;
    let mut prepared = db.prepare(config.database.migrate).await;
    // A file is there; a busy disk, or another process that migrates it, may take longer than a request waits.
    let patience = Instant::now() + FILE_PATIENCE;
    while matches!(prepared, Err(MigrationError::Db(_)))
        && !config.database.is_shared()
        && Instant::now() < patience
    {
        prepared = db.prepare(config.database.migrate).await;
    }
    match prepared {
        Ok(()) => {}
        Err(MigrationError::Db(_)) if config.database.is_shared() => {
            tracing::warn!("the database does not answer: starting without it");
        }
        Err(error) => return Err(AppError::Settings(format!("database: {error}"))),
    }
    Ok(Some(db))
}

/// The room of files, if it is switched on.
fn open_media(
    config: &Config,
    api: &Arc<Api>,
    showing: Option<Arc<dyn Showing>>,
) -> Result<Option<Arc<Media>>, AppError> {
    if !config.modules.media {
        return Ok(None);
    }
    let media = Media::open(api, &config.media, &config.data.dir, showing);
    media.map(Some).map_err(failed("media"))
}

/// The configured certificate, or the development certificate, which is made when it is missing.
///
/// # Errors
/// The file that cannot be written.
pub fn certificate_paths(config: &Config) -> Result<CertPaths, AppError> {
    if config.tls.cert.as_os_str().is_empty() {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        return devcert::ensure(&here, &config.data.dir, config.listen.players.ip()).map_err(failed("tls"));
    }
    Ok(CertPaths {
        ca: None,
        cert: config.tls.cert.clone(),
        key: config.tls.key.clone(),
    })
}

/// The file that tells where a node listens.
#[must_use]
pub fn addresses_file(data_dir: &Path) -> PathBuf {
    data_dir.join("addresses.json")
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    listener::bind(address).map_err(|error| AppError::Machine(format!("{key}: {address}: {error}")))
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, AppError> {
    listener
        .local_addr()
        .map_err(|error| AppError::Machine(error.to_string()))
}

fn report_expiry(metrics: &Metrics, certificates: &Certificates) {
    let seconds = certificates
        .expires_at()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    metrics
        .certificate_expiry_seconds
        .set(i64::try_from(seconds).unwrap_or(i64::MAX));
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> AppError {
    move |error| AppError::Settings(format!("{what}: {error}"))
}
