//! What a receiver is told: docs/webhooks.md shows it.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::config::Event;
use crate::lease::journal::{Happened, Record};

/// The body of a delivery.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    data: Data<'a>,
}

/// Absent: not known, or not of this event.
#[derive(Serialize)]
struct Data<'a> {
    tenant: &'a str,
    account: &'a str,
    session: &'a str,
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_class: Option<&'a str>,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watched_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<Slots>,
}

#[derive(Serialize)]
struct Slots {
    used: u32,
    limit: u32,
}

/// The event that a record is.
pub(super) fn event_of(record: &Record) -> Event {
    match record.happened {
        Happened::Started => Event::Started,
        Happened::Refused => Event::Refused,
        Happened::Ended => Event::Ended,
    }
}

/// `webhook-id`: the same at every repeat. The bucket is in it, because streams of two buckets may have one id.
pub(super) fn id_of(bucket: u16, record: &Record) -> String {
    let stream = match record.happened {
        Happened::Started | Happened::Ended => "evt",
        Happened::Refused => "ref",
    };
    format!("{stream}_{bucket}_{}", record.id)
}

/// The JSON text.
pub(super) fn body_of(record: &Record) -> String {
    let ended = record.happened == Happened::Ended;
    let play = record.play.as_ref();
    let done = play.filter(|_| ended);
    let refusal = record.refusal.as_ref();
    let payload = Payload {
        kind: event_of(record).name(),
        timestamp: time(record.at),
        data: Data {
            tenant: &record.account.tenant,
            account: &record.account.account,
            session: &record.session,
            device: &record.device,
            device_name: record.device_name.as_deref(),
            device_class: record.device_class.as_deref(),
            content: &record.content,
            started_at: play.map(|play| time(play.started_at)),
            ended_at: done.map(|_| time(record.at)),
            code: done.and_then(|play| play.code.as_deref()),
            watched_ms: done.map(|play| play.watched_ms),
            position_ms: done.map(|play| play.position_ms),
            rule: refusal.map(|refusal| &*refusal.rule),
            slots: refusal.map(|refusal| Slots {
                used: refusal.used,
                limit: refusal.limit,
            }),
        },
    };
    serde_json::to_string(&payload).expect("texts and numbers have a form in JSON")
}

/// The store's milliseconds; one that no year has counts as the last that has one.
fn time(ms: u64) -> String {
    const LATEST_MS: u64 = 253_402_300_799_000;
    let time = UNIX_EPOCH + Duration::from_millis(ms.min(LATEST_MS));
    humantime::format_rfc3339_millis(time).to_string()
}
