//! `GET /v1/admin/webhooks`: who is told, how far behind they are, and what could not be told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::admin::Admin;
use super::error::ApiError;
use crate::config::Event;
use crate::lease::journal::DeadLetter;
use crate::protocol::server::rfc3339;

/// Dead letters shown of each bucket, and of each receiver.
const NEWEST: u32 = 20;

#[derive(Serialize)]
struct Item<'a> {
    name: &'a str,
    url: &'a str,
    events: Vec<&'static str>,
    tenants: &'a [String],
    lag_ms: u64,
    last_error: Option<LastError>,
    dead_letters: DeadLetters,
}

#[derive(Clone, Serialize)]
struct LastError {
    #[serde(serialize_with = "rfc3339")]
    at: SystemTime,
    message: String,
}

#[derive(Serialize)]
struct DeadLetters {
    total: u64,
    newest: Vec<Letter>,
}

#[derive(Serialize)]
struct Letter {
    id: String,
    #[serde(serialize_with = "rfc3339")]
    at: SystemTime,
    reason: String,
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

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Result<Json<Value>, ApiError> {
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
    let items: Vec<_> = admin
        .webhooks
        .receivers()
        .map(|(name, settings)| {
            let sum = sums.remove(name).unwrap_or_default();
            json!(Item {
                name,
                url: &settings.url,
                events: settings.events.iter().copied().map(Event::name).collect(),
                tenants: &settings.tenants,
                lag_ms: u64::try_from(sum.lag.as_millis()).unwrap_or(u64::MAX),
                last_error: sum.error.map(|(at, message)| LastError {
                    at: time(at),
                    message
                }),
                dead_letters: DeadLetters {
                    total: sum.dead,
                    newest: newest(sum.letters),
                },
            })
        })
        .collect();
    let total = items.len();
    Ok(Json(
        json!({"items": items, "page": 1, "limit": total.max(1), "total": total}),
    ))
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
