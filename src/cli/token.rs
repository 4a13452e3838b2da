//! `usher token`: one signed access token on stdout, nothing else.

use std::time::Duration;

use clap::Args;

use crate::auth::{Grant, Scope, Scopes, Verifier};
use crate::outbound::Guard;

use super::{Failure, Settings};

#[derive(Args)]
pub(super) struct TokenArgs {
    /// Account (the token's `sub`); ids are opaque and may begin with a hyphen
    #[arg(long, allow_hyphen_values = true)]
    account: String,
    /// Bind the token to this device
    #[arg(long, allow_hyphen_values = true)]
    device: Option<String>,
    /// Plan, whose limit then holds
    #[arg(long)]
    plan: Option<String>,
    /// Concurrent streams, whatever the plan says
    #[arg(long)]
    streams: Option<u32>,
    /// Scopes, separated by commas [default: watch]
    #[arg(long, value_delimiter = ',')]
    scope: Vec<Scope>,
    /// Content that may be played; may be repeated [default: all]
    #[arg(long = "content", value_name = "CONTENT", allow_hyphen_values = true)]
    contents: Option<Vec<String>>,
    /// Tenant
    #[arg(long, default_value = "main")]
    tenant: String,
    /// How long the token is good
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

pub(super) fn run(settings: &Settings, args: &TokenArgs) -> Result<(), Failure> {
    let config = settings.load()?;
    let verifier = Verifier::new(
        &config.auth,
        &config.data.dir,
        &Guard::new(&config.outbound.allowed_private),
    )
    .map_err(|error| Failure::Settings(error.to_string()))?;
    let scopes = (!args.scope.is_empty()).then(|| args.scope.iter().copied().collect::<Scopes>());
    let grant = Grant {
        tenant: args.tenant.clone(),
        device: args.device.clone(),
        plan: args.plan.clone(),
        streams: args.streams,
        contents: args.contents.clone(),
        scopes,
        ..Grant::new(&args.account, args.ttl)
    };
    let token = verifier
        .issue(&grant)
        .map_err(|error| Failure::Settings(error.to_string()))?;
    println!("{}", token.expose());
    Ok(())
}
