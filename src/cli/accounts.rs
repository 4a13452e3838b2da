//! `usher accounts show|block|unblock|limit`: what operators decide about an account, on all nodes. The other commands about
//! accounts are in `people`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::admin_client::AdminClient;
use super::sessions::segment;
use super::{Failure, Settings, block_on, people};

#[derive(Subcommand)]
pub(super) enum AccountsCommand {
    /// Add somebody who signs in with a password; works on the database, also while nodes run
    Add(people::Add),
    /// List people who sign in with a password
    List(people::List),
    /// Make a one-time token for a new password, or set one
    ResetPassword(people::ResetPassword),
    /// Show what operators decided about an account
    Show(Which),
    /// End an account's sessions, and let nobody of it play
    Block(Which),
    /// Let a blocked account play again
    Unblock(Which),
    /// Give an account so many streams, whatever its tokens and plan say
    Limit {
        #[command(flatten)]
        which: Which,
        /// So many, 0 to 1000; left out: as tokens and plans say
        #[arg(long)]
        streams: Option<u32>,
        /// End sessions beyond it, the newest first; otherwise it counts for new starts only
        #[arg(long)]
        enforce: bool,
    },
}

#[derive(Args)]
pub(super) struct Which {
    /// The account; ids are opaque and may begin with a hyphen
    #[arg(long, allow_hyphen_values = true)]
    account: String,
    /// Its tenant
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(settings: &Settings, command: AccountsCommand) -> Result<(), Failure> {
    let (which, method, action, body) = match command {
        AccountsCommand::Add(asked) => return people::add(settings, asked),
        AccountsCommand::List(asked) => return people::list(settings, asked),
        AccountsCommand::ResetPassword(asked) => return people::reset_password(settings, &asked),
        AccountsCommand::Show(which) => (which, Method::GET, "", None),
        AccountsCommand::Block(which) => (which, Method::POST, "/block", None),
        AccountsCommand::Unblock(which) => (which, Method::POST, "/unblock", None),
        AccountsCommand::Limit {
            which,
            streams,
            enforce,
        } => {
            let body = json!({"limit": streams, "enforce_running": enforce});
            (which, Method::PUT, "/limit", Some(body))
        }
    };
    let client = AdminClient::new(settings)?;
    let path = format!(
        "/v1/admin/accounts/{}{action}?tenant={}",
        segment(&which.account),
        segment(&which.tenant)
    );
    let (_, answer) = block_on(client.tell(method, &path, body.as_ref()))??;
    if which.json {
        println!("{answer}");
    } else {
        println!("{}", line(&answer));
    }
    Ok(())
}

/// The answer in a line for people.
fn line(answer: &Value) -> String {
    let state = if answer["blocked"] == true {
        "blocked"
    } else {
        "not blocked"
    };
    let limit = match answer["limit"].as_u64() {
        Some(limit) => format!("limit {limit}"),
        None => "limit as its tokens and plan say".to_owned(),
    };
    match answer["ended"].as_u64() {
        Some(ended) => format!("{state}, {limit}; {ended} ended"),
        None => format!("{state}, {limit}"),
    }
}
