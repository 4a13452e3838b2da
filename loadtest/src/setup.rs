//! From options to servers: what is called, how it is trusted, and as whom.
//!
//! Owns: reading the files that options name, and starting a floor when asked. Does not: run anything.
//! Called by: `main`, before a scenario.

use std::fs;
use std::path::Path;

use crate::cli::Common;
use crate::floor_process::FloorProcess;
use crate::gauge::Source;
use crate::stage::Against;
use crate::target::{Dialect, Target, Tokens, Trust, WatchUrl};
use crate::trust;

/// Sessions for which one source address is enough.
const SESSIONS_OF_SOURCE: u32 = 20_000;

/// Where a node of the default configuration listens.
const DEFAULT_URL: &str = "wss://127.0.0.1:8443";

/// Its admin listener.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:9600";

/// The servers of one command.
pub struct Servers {
    /// The gateway, or whatever the options name.
    pub gateway: Against,
    /// The floor, when it is measured too.
    pub floor: Option<Against>,
    /// Floors that were started for this command; they end with it.
    pub started: Vec<FloorProcess>,
}

/// Makes them of the options. `sessions` is the most that a scenario opens at once, `floors` how many floor servers
/// it needs.
///
/// # Errors
/// The option that is no good, and why.
pub async fn servers(common: &Common, sessions: u32, floors: usize) -> Result<Servers, String> {
    let trust = Trust {
        ca: common.ca.as_deref().map(|path| read("--ca", path)).transpose()?,
        insecure: common.insecure,
    };
    let tried = trust::client_config(&trust);
    tried.map_err(|error| match &common.ca {
        Some(path) => format!("--ca {}: {error}", path.display()),
        None => error,
    })?;
    let mut nodes = Vec::new();
    for url in &common.url {
        let parsed: WatchUrl = url.parse().map_err(|error| format!("--url {url}: {error}"))?;
        let found = parsed.resolve(common.protocol).await;
        nodes.extend(found.map_err(|error| format!("--url {url}: {error}"))?);
    }
    let target = Target {
        dialect: common.protocol,
        trust,
        tokens: tokens(common)?,
        sources: sources(common, &nodes, sessions)?,
        nodes,
        resumption: common.resumption,
        timeout_ms: u64::try_from(common.timeout.as_millis())
            .unwrap_or(u64::MAX)
            .max(1),
    };
    let label = match common.protocol {
        Dialect::Usher => "gateway",
        Dialect::Plain | Dialect::Nats => "server",
    };
    let mut weighed = weighed(common)?;
    if let Some(text) = &common.redis {
        let authority = text
            .strip_prefix("redis://")
            .unwrap_or(text)
            .trim_end_matches('/');
        weighed.push(Source::Redis(authority.to_owned()));
    }
    let gateway = Against {
        label: label.to_owned(),
        target,
        sources: weighed,
        workers: common.workers.unwrap_or(0),
    };
    let mut servers = Servers {
        gateway,
        floor: None,
        started: Vec::new(),
    };
    if common.with_floor {
        for _ in 0..floors.max(1) {
            servers.started.push(FloorProcess::start(&[]).await?);
        }
        servers.floor = Some(floor_of(&servers.gateway, &servers.started)?);
    } else if let Some(text) = &common.floor {
        let floor = named_floor(text, &servers.gateway).await;
        servers.floor = Some(floor.map_err(|error| format!("--floor {text}: {error}"))?);
    }
    Ok(servers)
}

/// The floors that were started, called as the gateway is.
///
/// # Errors
/// When their certificate cannot be read.
pub fn floor_of(gateway: &Against, started: &[FloorProcess]) -> Result<Against, String> {
    let mut target = gateway.target.clone();
    target.dialect = Dialect::Plain;
    target.tokens = Tokens::None;
    target.nodes = started.iter().map(FloorProcess::node).collect();
    if let Some(ca) = started.first().and_then(|floor| floor.ca.as_deref()) {
        target.trust = Trust {
            ca: Some(read("the floor's CA", ca)?),
            insecure: gateway.target.trust.insecure,
        };
    }
    Ok(Against {
        label: "floor".to_owned(),
        target,
        sources: started.iter().map(FloorProcess::source).collect(),
        workers: gateway.workers,
    })
}

async fn named_floor(text: &str, gateway: &Against) -> Result<Against, String> {
    let (url, admin) = text
        .split_once(',')
        .map_or((text, None), |(url, admin)| (url, Some(admin)));
    let url: WatchUrl = url.parse()?;
    let mut target = gateway.target.clone();
    target.dialect = Dialect::Plain;
    target.tokens = Tokens::None;
    target.nodes = url.resolve(Dialect::Plain).await?;
    Ok(Against {
        label: "floor".to_owned(),
        target,
        sources: admin.map(str::parse).transpose()?.into_iter().collect(),
        workers: gateway.workers,
    })
}

fn tokens(common: &Common) -> Result<Tokens, String> {
    if let Some(token) = &common.token {
        return Ok(Tokens::Given(vec![token.clone()]));
    }
    if let Some(path) = &common.token_file {
        let text = read("--token-file", path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let tokens: Vec<String> = lines.map(str::to_owned).collect();
        if tokens.is_empty() {
            return Err(format!("--token-file {}: holds no token", path.display()));
        }
        return Ok(Tokens::Given(tokens));
    }
    if let Some(path) = &common.secret_file {
        // As the gateway reads such a file: an editor's newline at the end is no part of the secret.
        let secret = read("--secret-file", path)?
            .trim_end_matches(['\r', '\n'])
            .to_owned();
        if secret.is_empty() {
            return Err(format!("--secret-file {}: is empty", path.display()));
        }
        return Ok(Tokens::Signed {
            secret,
            tenant: common.tenant.clone(),
            streams: None,
            life_s: common.token_life.as_secs().max(1),
        });
    }
    match common.protocol {
        Dialect::Usher => Err("say as whom: --secret-file, --token or --token-file".to_owned()),
        Dialect::Plain | Dialect::Nats => Ok(Tokens::None),
    }
}

fn sources(common: &Common, nodes: &[crate::target::Node], sessions: u32) -> Result<u32, String> {
    let local = nodes
        .iter()
        .all(|node| node.address.is_ipv4() && node.address.ip().is_loopback());
    match common.sources {
        Some(_) if !local => Err("--sources: only for targets of 127.0.0.0/8".to_owned()),
        Some(count) => Ok(count),
        None if local && sessions > SESSIONS_OF_SOURCE => Ok(sessions.div_ceil(SESSIONS_OF_SOURCE)),
        None => Ok(0),
    }
}

fn weighed(common: &Common) -> Result<Vec<Source>, String> {
    if !common.pid.is_empty() {
        return Ok(common.pid.iter().copied().map(Source::Process).collect());
    }
    let default = common.admin.is_empty() && common.url == [DEFAULT_URL];
    let named = common.admin.iter().map(String::as_str);
    let named = named.chain(default.then_some(DEFAULT_ADMIN));
    named
        .map(|url| url.parse().map_err(|error| format!("--admin {url}: {error}")))
        .collect()
}

fn read(option: &str, path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{option} {}: {error}", path.display()))
}
