//! `usher health`: whether a node lives and may take players; exit code 0 only then.

use super::admin_client::AdminClient;
use super::{Failure, Settings, block_on};

pub(super) fn run(settings: &Settings, json: bool) -> Result<(), Failure> {
    let client = AdminClient::new(settings)?;
    let (status, _) = block_on(client.ask_openly("/readyz"))??;
    let ready = status.is_success();
    if json {
        println!("{}", serde_json::json!({"alive": true, "ready": ready}));
    } else {
        println!(
            "{}",
            if ready {
                "ready"
            } else {
                "alive, but takes no players"
            }
        );
    }
    if ready {
        Ok(())
    } else {
        Err(Failure::Other(format!("not ready ({status})")))
    }
}
