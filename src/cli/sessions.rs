//! `usher sessions list|end`.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::admin_client::AdminClient;
use super::{Failure, Settings, block_on, table};

/// Sessions asked for at once.
const PAGE: usize = 100;

// Ids are opaque, and one in 64 session ids begins with a hyphen.
#[derive(Subcommand)]
pub(super) enum SessionsCommand {
    /// List sessions
    List {
        /// Only this account's
        #[arg(long, allow_hyphen_values = true)]
        account: Option<String>,
        /// Only this tenant's [default: all, or `main` with --account]
        #[arg(long)]
        tenant: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End an account's sessions: one, those of a device, or all
    End {
        /// The account
        #[arg(long, allow_hyphen_values = true)]
        account: String,
        /// Only this session
        #[arg(long, conflicts_with = "device", allow_hyphen_values = true)]
        session: Option<String>,
        /// Only this device's
        #[arg(long, allow_hyphen_values = true)]
        device: Option<String>,
        /// The account's tenant
        #[arg(long, default_value = "main")]
        tenant: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(settings: &Settings, command: SessionsCommand) -> Result<(), Failure> {
    let client = AdminClient::new(settings)?;
    match command {
        SessionsCommand::List {
            account,
            tenant,
            json,
        } => {
            let items = block_on(list(&client, account.as_deref(), tenant.as_deref()))??;
            if json {
                println!("{}", json!({"items": items}));
            } else {
                print_table(&items);
            }
        }
        SessionsCommand::End {
            account,
            session,
            device,
            tenant,
            json,
        } => {
            let path = end_path(&account, session.as_deref(), device.as_deref(), &tenant);
            let (_, answer) = block_on(client.ask(Method::DELETE, &path))??;
            let ended = answer["ended"].as_u64().unwrap_or(1);
            if json {
                println!("{}", json!({"ended": ended}));
            } else {
                println!("{ended} ended");
            }
        }
    }
    Ok(())
}

async fn list(
    client: &AdminClient,
    account: Option<&str>,
    tenant: Option<&str>,
) -> Result<Vec<Value>, Failure> {
    let mut items = Vec::new();
    for page in 1.. {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("page", &page.to_string())
            .append_pair("limit", &PAGE.to_string());
        for (name, value) in [("account", account), ("tenant", tenant)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let (_, mut answer) = client
            .ask(Method::GET, &format!("/v1/admin/sessions?{}", query.finish()))
            .await?;
        let Value::Array(found) = answer["items"].take() else {
            break;
        };
        let last = found.len() < PAGE;
        items.extend(found);
        if last {
            break;
        }
    }
    Ok(items)
}

fn end_path(account: &str, session: Option<&str>, device: Option<&str>, tenant: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("tenant", tenant);
    if let Some(device) = device {
        query.append_pair("device", device);
    }
    let one = session
        .map(|session| format!("/{}", segment(session)))
        .unwrap_or_default();
    format!(
        "/v1/admin/accounts/{}/sessions{one}?{}",
        segment(account),
        query.finish()
    )
}

/// A text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    encoded.replace('+', "%20")
}

fn print_table(items: &[Value]) {
    const COLUMNS: [(&str, &str); 7] = [
        ("SESSION", "session"),
        ("TENANT", "tenant"),
        ("ACCOUNT", "account"),
        ("DEVICE", "device"),
        ("CONTENT", "content"),
        ("STATE", "state"),
        ("STARTED", "started_at"),
    ];
    let rows: Vec<[String; 7]> = items
        .iter()
        .map(|item| COLUMNS.map(|(_, key)| printable(&item[key])))
        .collect();
    table::print(COLUMNS.map(|(title, _)| title), &rows);
}

fn printable(value: &Value) -> String {
    table::printable(value.as_str().unwrap_or_default())
}
