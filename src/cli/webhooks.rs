//! `usher webhooks`: the receivers of webhooks, as a running node sees them.

use http::Method;
use serde_json::Value;

use super::admin_client::AdminClient;
use super::{Failure, Settings, block_on, table};

pub(super) fn run(settings: &Settings, json: bool) -> Result<(), Failure> {
    let client = AdminClient::new(settings)?;
    let (_, answer) = block_on(client.ask(Method::GET, "/v1/admin/webhooks"))??;
    if json {
        println!("{answer}");
        return Ok(());
    }
    let none = Vec::new();
    let items = answer["items"].as_array().unwrap_or(&none);
    let text = |value: &Value| table::printable(value.as_str().unwrap_or("-"));
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let lag = format!("{:.1} s", number(&item["lag_ms"]) as f64 / 1_000.0);
            [
                text(&item["name"]),
                text(&item["url"]),
                lag,
                number(&item["dead_letters"]["total"]).to_string(),
                text(&item["last_error"]["message"]),
            ]
        })
        .collect();
    table::print(["NAME", "URL", "LAG", "DEAD LETTERS", "LAST ERROR"], &rows);
    Ok(())
}
