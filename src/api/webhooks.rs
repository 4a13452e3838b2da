//! `GET /v1/admin/webhooks`: who is told, how far behind they are, and what could not be told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::admin::Admin;
use super::error::ApiError;
use super::page::Listing;
use crate::config::Event;
use crate::lease::journal::DeadLetter;
use crate::protocol::server::rfc3339;

/// Dead letters shown of each bucket, and of each receiver.
const NEWEST: u32 = 20;

/// A receiver.
#[derive(Serialize, ToSchema)]
pub(super) struct Receiver {
    /// Its name in the configuration.
    name: String,
    /// Where it is told.
    url: String,
    /// What it is told.
    events: Vec<&'static str>,
    /// Whose events; empty: all tenants'.
    tenants: Vec<String>,
    /// How far behind it is, in milliseconds.
    lag_ms: u64,
    /// What went wrong last.
    #[schema(required)]
    last_error: Option<LastError>,
    /// What could not be told.
    dead_letters: DeadLetters,
}

/// A try that failed.
#[derive(Clone, Serialize, ToSchema)]
struct LastError {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: SystemTime,
    /// For people.
    message: String,
}

/// Deliveries that were given up.
#[derive(Serialize, ToSchema)]
struct DeadLetters {
    /// How many.
    total: u64,
    /// The newest of them.
    newest: Vec<Letter>,
}

/// A delivery that was given up.
#[derive(Serialize, ToSchema)]
struct Letter {
    /// Its id.
    id: String,
    /// When it was given up.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: SystemTime,
    /// Why.
    reason: String,
    /// What was to be told.
    body: Value,
}

/// What the buckets say of one receiver.
#[derive(Default)]
struct Sum {
    lag: Duration,
    error: Option<(u64, String)>,
    dead: u64,
    letters: Vec<(u64, DeadLetter)>,
}

/// Who is told what happens, how far behind they are, and what could not be told.
#[utoipa::path(
    get,
    path = "/v1/admin/webhooks",
    tag = "node",
    responses((status = 200, description = "The receivers", body = Listing<Receiver>)),
    security(("bearer" = []))
)]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Result<Json<Listing<Receiver>>, ApiError> {
    let mut sums: HashMap<String, Sum> = HashMap::new();
    for (standings, letters) in admin.webhooks.report(NEWEST).await? {
        for standing in standings {
            let sum = sums.entry(standing.receiver).or_default();
            sum.lag = sum.lag.max(standing.lag);
            sum.error = standing.error.max(sum.error.take());
            sum.dead += standing.dead;
        }
        for (at, letter) in letters {
            // Of a receiver that is not configured any more: nobody is shown it.
            if let Some(sum) = sums.get_mut(&letter.receiver) {
                sum.letters.push((at, letter));
            }
        }
    }
    let items = admin
        .webhooks
        .receivers()
        .map(|(name, settings)| {
            let sum = sums.remove(name).unwrap_or_default();
            Receiver {
                name: name.to_owned(),
                url: settings.url.clone(),
                events: settings.events.iter().copied().map(Event::name).collect(),
                tenants: settings.tenants.clone(),
                lag_ms: u64::try_from(sum.lag.as_millis()).unwrap_or(u64::MAX),
                last_error: sum.error.map(|(at, message)| LastError {
                    at: time(at),
                    message,
                }),
                dead_letters: DeadLetters {
                    total: sum.dead,
                    newest: newest(sum.letters),
                },
            }
        })
        .collect();
    Ok(Json(Listing::whole(items)))
}

fn newest(mut letters: Vec<(u64, DeadLetter)>) -> Vec<Letter> {
    letters.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
    let newest = letters
        .into_iter()
        .take(usize::try_from(NEWEST).unwrap_or(usize::MAX));
    newest
        .map(|(at, letter)| Letter {
            id: letter.id,
            at: time(at),
            reason: letter.reason,
            body: serde_json::from_str(&letter.body).unwrap_or(Value::Null),
        })
        .collect()
}

fn time(ms: u64) -> SystemTime {
    // Further than any date that can be written.
    const LATEST_MS: u64 = 253_402_300_799_000;
    UNIX_EPOCH + Duration::from_millis(ms.min(LATEST_MS))
}
