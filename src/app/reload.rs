//! A running node takes over what of a new configuration can change while it runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::{self, Config};
use crate::net::origin::Origins;

use super::{AppError, Node, failed, report_expiry};

impl Node {
    /// Reads the certificates and the installation's own keys again and takes over what of a new configuration can
    /// change while running: plans, limits, rules, take-over and waiting rules, tickets, origins and the log level. The
    /// rest waits for a restart.
    ///
    /// # Errors
    /// What is wrong; the old settings stay then.
    pub async fn reload(&self, config: &Config) -> Result<(), AppError> {
        let origins = Origins::new(&config.http).map_err(failed("http.origins"))?;
        let certificates = Arc::clone(&self.certificates);
        let reloaded = tokio::task::spawn_blocking(move || certificates.reload())
            .await
            .map_err(failed("tls"))?;
        self.certificates.log(&reloaded);
        reloaded.map_err(failed("tls"))?;
        report_expiry(&self.metrics, &self.certificates);
        let (verifier, auth, dir) = (
            Arc::clone(&self.verifier),
            config.auth.clone(),
            self.config.data.dir.clone(),
        );
        tokio::task::spawn_blocking(move || verifier.rotate(&auth, &dir))
            .await
            .map_err(failed("auth"))?
            .map_err(failed("auth"))?;
        if let Some(log) = &self.log {
            log.set_level(&config.log.level).map_err(failed("log.level"))?;
        }
        self.api.origins.store(Arc::new(origins));
        self.gateway.tickets.store(Arc::new(config.tickets.clone()));
        self.gateway.govern(config);
        let restart = waiting_for_restart(&self.config, config);
        if !restart.is_empty() {
            tracing::warn!(
                keys = restart.join(" "),
                "changed settings that wait for a restart"
            );
        }
        Ok(())
    }
}

/// Keys whose new values wait for a restart.
fn waiting_for_restart(old: &Config, new: &Config) -> Vec<String> {
    const TAKEN_OVER: [&str; 15] = [
        "plans",
        "rules",
        "tags",
        "exempt",
        "devices",
        "takeover",
        "waiting",
        "http",
        "tickets",
        "lease.limit",
        "lease.shadow",
        "lease.enforce_running",
        "log.level",
        "auth.signing_key",
        "auth.rotation_keys",
    ];
    let (old, new) = (config::leaves(old), config::leaves(new));
    let taken_over = |key: &str| {
        TAKEN_OVER.iter().any(|taken| {
            key.strip_prefix(taken)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| !taken_over(key) && old.get(*key) != new.get(*key))
        .cloned()
        .collect()
}
