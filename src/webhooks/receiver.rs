//! One receiver: what it wants, and one delivery to it.
//!
//! Owns: its client, its key, and what its answers mean.
//! Does not: try again.
//! Called by: `delivery`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::sync::Semaphore;

use super::WebhookError;
use super::payload::event_of;
use super::signature::sign;
use crate::config::{self, Event};
use crate::lease::journal::Record;
use crate::outbound::{Client, Guard, OutboundError, Plain};

/// Connections kept open without a request.
const KEPT: usize = 4;

/// An answer's body is read so far, so that its connection can be used again, and thrown away.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A receiver cannot put a delivery off for longer with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// A receiver of webhooks.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) name: Box<str>,
    pub(super) settings: config::Receiver,
    /// Bounds the deliveries under way.
    pub(super) places: Semaphore,
    key: hmac::Key,
    client: Client,
}

/// What a delivery came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was taken.
    Delivered,
    /// It was not taken, and may be later.
    Failed {
        /// For operators.
        reason: String,
        /// When the receiver wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The receiver does not want it.
    Refused {
        /// For operators.
        reason: String,
    },
}

impl Receiver {
    /// From `[webhooks.receivers.<name>]`.
    pub(super) fn new(
        name: &str,
        settings: &config::Receiver,
        concurrency: usize,
        guard: Guard,
    ) -> Result<Self, WebhookError> {
        let failed = |key: &str, message: String| WebhookError {
            key: format!("webhooks.receivers.{name}.{key}"),
            message,
        };
        let key = settings.key().ok_or_else(|| {
            let message = "must be whsec_ and 24 to 64 bytes in base64";
            failed("secret", message.to_owned())
        })?;
        let client = Client::new(&settings.url, &settings.ca, guard, Plain::Never, KEPT);
        let client = client.map_err(|error| match error {
            OutboundError::Url(message) => failed("url", message),
            OutboundError::Ca(message) => failed("ca", message),
        })?;
        Ok(Self {
            name: name.into(),
            settings: settings.clone(),
            places: Semaphore::new(concurrency),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            client,
        })
    }

    /// Whether it wants events of this kind.
    pub(super) fn wants(&self, event: Event) -> bool {
        self.settings.events.contains(&event)
    }

    /// Whether it is to be told of this.
    pub(super) fn is_for(&self, record: &Record) -> bool {
        let tenants = &self.settings.tenants;
        self.wants(event_of(record))
            && tenants
                .iter()
                .any(|tenant| tenant == "*" || **tenant == *record.account.tenant)
    }

    /// Tells it once.
    pub(super) async fn deliver(&self, id: &str, body: &str) -> Sent {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = since.as_secs();
        let signature = sign(&self.key, id, timestamp, body);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", &timestamp.to_string()),
            ("webhook-signature", &signature),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        let timeout = self.settings.timeout;
        let sent = self
            .client
            .send(Method::POST, headers, body, timeout, MAX_ANSWER_BYTES);
        match sent.await {
            Ok(answer) => judge(answer.status, &answer.headers),
            Err(reason) => Sent::Failed {
                reason,
                retry_after: None,
            },
        }
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Sent {
    let reason = format!("status {}", status.as_u16());
    if status.is_success() {
        return Sent::Delivered;
    }
    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
        return Sent::Refused { reason };
    }
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Sent::Failed {
        reason,
        retry_after: seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        let mut headers = HeaderMap::new();
        let failed = |reason: &str, seconds: Option<u64>| Sent::Failed {
            reason: reason.to_owned(),
            retry_after: seconds.map(Duration::from_secs),
        };
        assert_eq!(judge(StatusCode::NO_CONTENT, &headers), Sent::Delivered);
        assert_eq!(
            judge(StatusCode::INTERNAL_SERVER_ERROR, &headers),
            failed("status 500", None)
        );
        for status in [StatusCode::FOUND, StatusCode::GONE, StatusCode::UNAUTHORIZED] {
            assert!(
                matches!(judge(status, &headers), Sent::Refused { .. }),
                "{status}"
            );
        }
        for (text, seconds) in [
            ("7", Some(7)),
            ("99999", Some(3600)),
            ("soon", None),
            ("-1", None),
        ] {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            let expected = failed("status 429", seconds);
            assert_eq!(judge(StatusCode::TOO_MANY_REQUESTS, &headers), expected, "{text}");
        }
    }
}
