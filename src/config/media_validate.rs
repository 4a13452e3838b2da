//! The rules of `[media]`.

use std::time::Duration;

use http::{HeaderName, Uri};

use super::Media;
use super::validate::Problems;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Types that a browser runs as code of this server's origin.
const ACTIVE: [&str; 6] = [
    "text/html",
    "image/svg+xml",
    "application/xhtml+xml",
    "text/xml",
    "application/xml",
    "text/javascript",
];

pub(super) fn check(media: &Media, found: &mut Problems) {
    found.range("media.max_bytes", media.max_bytes, 4..=5_000_000_000_000);
    for (at, kind) in media.types.iter().enumerate() {
        let path = format_args!("media.types[{at}]").to_string();
        let part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        let formed = kind
            .split_once('/')
            .is_some_and(|(kind, sub)| part(kind) && part(sub));
        let lower = !kind.contains(|c: char| c.is_ascii_uppercase());
        found.check(
            &path,
            formed && lower,
            "must be a media type in lower case, such as image/webp",
        );
        let message = "a browser runs it as a page of this server";
        found.check(&path, !ACTIVE.contains(&kind.as_str()), message);
    }
    found.span("media.silence", media.silence, SECOND..=HOUR);
    found.span("media.partial_life", media.partial_life, SECOND..=30 * 24 * HOUR);
    store(media, found);
    let scan = &media.scan;
    let port = scan
        .clamd
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    found.check(
        "media.scan.clamd",
        scan.clamd.is_empty() || port,
        "must be host:port",
    );
    found.span("media.scan.timeout", scan.timeout, SECOND..=HOUR);
    found.span("media.scan.retry", scan.retry, SECOND / 10..=HOUR);
    let quota = &media.quota;
    found.range("media.quota.bytes", quota.bytes, 0..=1_000_000_000_000_000_000);
    found.range("media.quota.uploads", quota.uploads, 0..=10_000);
    found.range("media.quota.requests_burst", quota.requests_burst, 0..=1_000_000);
    found.range(
        "media.quota.requests_per_second",
        quota.requests_per_second,
        0..=1_000_000,
    );
    let statistics = &media.statistics;
    let header = &statistics.nation_header;
    let named = header.is_empty() || header.parse::<HeaderName>().is_ok();
    found.check(
        "media.statistics.nation_header",
        named,
        "must be the name of a header",
    );
    found.range("media.statistics.floor", statistics.floor, 0..=1000);
    found.span("media.statistics.idle", statistics.idle, SECOND..=HOUR);
}

fn store(media: &Media, found: &mut Problems) {
    let s3 = &media.s3;
    let endpoint = s3.endpoint.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    let fits = s3.endpoint.is_empty() || endpoint;
    found.check(
        "media.s3.endpoint",
        fits,
        "must be https://host[:port] or http://host[:port]",
    );
    let both = s3.access_key.is_empty() == s3.secret_key.is_empty();
    found.check(
        "media.s3.secret_key",
        both,
        "must be set together with media.s3.access_key",
    );
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let path = s3.prefix.chars().all(plain) && !s3.prefix.starts_with('/') && !s3.prefix.contains("..");
    found.check(
        "media.s3.prefix",
        path,
        "must be of a-z, 0-9, -, _, . and /, without / at its start",
    );
    found.check(
        "media.s3.bucket",
        !s3.bucket.contains(|c: char| c.is_whitespace() || c == '/'),
        "must be the name of a bucket",
    );
    found.check(
        "media.s3.redirect",
        !s3.redirect || !s3.bucket.is_empty(),
        "needs media.s3.bucket",
    );
    found.span("media.s3.redirect_life", s3.redirect_life, SECOND..=HOUR);
}
