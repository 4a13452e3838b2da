//! Which bytes of a file are asked for: ranges and preconditions, after RFC 9110, sections 13 and 14.
//!
//! Owns: those headers. Does not: read a file or know who asks. Called by: `delivery`.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Method, header};

/// Ranges of one request; more are refused (RFC 9110, section 14.2, allows it).
const MOST_RANGES: usize = 5;

/// What a file is compared by. Its bytes never change, so that the tag is strong and so is the date.
#[derive(Clone, Debug)]
pub(super) struct Validators {
    /// The entity tag with its quotes.
    pub(super) etag: String,
    /// When the file came, to the second.
    pub(super) modified: SystemTime,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// 200: all of it.
    Whole,
    /// 206: these bytes, in this order; they do not overlap.
    Parts(Vec<Range<u64>>),
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client thinks it is.
    PreconditionFailed,
    /// 416: none of what is asked for exists, or it is too many ranges.
    Unsatisfiable,
}

/// Judges the headers of a request, in the order of RFC 9110, section 13.2.2.
#[must_use]
pub(super) fn wanted(method: &Method, headers: &HeaderMap, validators: &Validators, size: u64) -> Wanted {
    if let Some(tags) = joined(headers, &header::IF_MATCH) {
        if !lists(&tags, &validators.etag, false) {
            return Wanted::PreconditionFailed;
        }
    } else if date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|date| validators.modified > date) {
        return Wanted::PreconditionFailed;
    }
    if let Some(tags) = joined(headers, &header::IF_NONE_MATCH) {
        if lists(&tags, &validators.etag, true) {
            return Wanted::NotModified;
        }
    } else if date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|date| validators.modified <= date) {
        return Wanted::NotModified;
    }
    // Ranges are defined for GET alone; a repeated header is none.
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None, &Method::GET) = (ranges.next(), ranges.next(), method) else {
        return Wanted::Whole;
    };
    if !is_same(headers, validators) {
        return Wanted::Whole;
    }
    match range.to_str().ok().and_then(|text| parse(text, size)) {
        None => Wanted::Whole,
        Some(Parsed::Bad) => Wanted::Unsatisfiable,
        Some(Parsed::Good(ranges)) => Wanted::Parts(ranges),
    }
}

/// `If-Range`: a range of another version is worth nothing (section 13.1.5).
fn is_same(headers: &HeaderMap, validators: &Validators) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else {
        return true;
    };
    let Ok(text) = value.to_str() else { return false };
    if text.contains('"') {
        // A weak tag never matches here.
        return text.trim() == validators.etag;
    }
    httpdate::parse_http_date(text).is_ok_and(|date| date == validators.modified)
}

enum Parsed {
    Good(Vec<Range<u64>>),
    Bad,
}

/// None: another unit, or nothing that can be read, which counts as no range at all.
fn parse(text: &str, size: u64) -> Option<Parsed> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    let (mut found, mut number) = (Vec::new(), 0);
    for spec in specs {
        number += 1;
        if number > MOST_RANGES {
            return Some(Parsed::Bad);
        }
        if let Some(range) = one(spec, size)? {
            found.push(range);
        }
    }
    if number == 0 {
        return None;
    }
    let merged = merge(found);
    Some(if merged.is_empty() {
        Parsed::Bad
    } else {
        Parsed::Good(merged)
    })
}

/// One range. Outer none: it cannot be read; inner none: it is not within the file.
fn one(spec: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?;
        return Some((suffix > 0 && size > 0).then(|| size.saturating_sub(suffix)..size));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some((first < size).then(|| first..last.saturating_add(1).min(size)))
}

/// Digits only; a number that is too large is beyond every file.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Joins what overlaps or touches, at the place of the first of them, so that no byte is sent twice.
fn merge(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for mut range in ranges {
        let mut place = merged.len();
        let mut at = 0;
        while at < merged.len() {
            let other = &merged[at];
            if range.start <= other.end && other.start <= range.end {
                range = range.start.min(other.start)..range.end.max(other.end);
                place = place.min(at);
                merged.remove(at);
            } else {
                at += 1;
            }
        }
        merged.insert(place.min(merged.len()), range);
    }
    merged
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap_or_default())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// Whether a list of entity tags names this one, or is `*`. `weak`: a weak tag of the same text is as good (section
/// 8.8.3.2). A tag of ours holds no comma.
fn lists(tags: &str, etag: &str, weak: bool) -> bool {
    tags.split(',').map(str::trim).any(|tag| {
        let plain = if weak {
            tag.strip_prefix("W/").unwrap_or(tag)
        } else {
            tag
        };
        tag == "*" || plain == etag
    })
}

/// A date that cannot be read counts as none.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// Cut to the second, as dates are in HTTP.
#[must_use]
pub(super) fn to_second(unix_millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_millis / 1000).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use http::HeaderValue;

    use super::*;

    const SIZE: u64 = 1000;

    fn validators() -> Validators {
        Validators {
            etag: "\"abc\"".to_owned(),
            modified: httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap(),
        }
    }

    fn ask(method: &Method, headers: &[(&'static str, &str)]) -> Wanted {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        wanted(method, &map, &validators(), SIZE)
    }

    fn range(text: &str) -> Wanted {
        ask(&Method::GET, &[("range", text)])
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "a list of one range")]
    fn ranges_as_rfc_9110_says() {
        let parts = |ranges: &[Range<u64>]| Wanted::Parts(ranges.to_vec());
        for (text, expected) in [
            ("bytes=0-499", parts(&[0..500])),
            ("bytes=500-999", parts(&[500..1000])),
            ("bytes=-500", parts(&[500..1000])),
            ("bytes=900-", parts(&[900..1000])),
            ("bytes=0-0,-1", parts(&[0..1, 999..1000])),
            ("Bytes=0-0", parts(&[0..1])),
            ("bytes= 0-0 ,, 5-6 ", parts(&[0..1, 5..7])),
            ("bytes=0-99999", parts(&[0..1000])),
            ("bytes=-5000", parts(&[0..1000])),
            ("bytes=0-18446744073709551615", parts(&[0..1000])),
            ("bytes=0-99999999999999999999999", parts(&[0..1000])),
            ("bytes=500-600,601-999", parts(&[500..1000])),
            ("bytes=500-700,601-999", parts(&[500..1000])),
            ("bytes=900-999,0-9,5-20", parts(&[900..1000, 0..21])),
            ("bytes=0-1,10-11,0-20", parts(&[0..21])),
            ("bytes=0-0,2000-", parts(&[0..1])),
            (
                "bytes=0-0,2-2,4-4,6-6,8-8",
                parts(&[0..1, 2..3, 4..5, 6..7, 8..9]),
            ),
            ("bytes=0-0,2-2,4-4,6-6,8-8,10-10", Wanted::Unsatisfiable),
            ("bytes=0-,0-,0-,0-,0-,0-", Wanted::Unsatisfiable),
            ("bytes=1000-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=1", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("bytes=0-0,x", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
        let many = format!(
            "bytes={}",
            (0..1000).map(|at| format!("{at}-,")).collect::<String>()
        );
        assert_eq!(range(&many), Wanted::Unsatisfiable);
        assert_eq!(ask(&Method::HEAD, &[("range", "bytes=0-1")]), Wanted::Whole);
        assert_eq!(
            ask(&Method::GET, &[("range", "bytes=0-1"), ("range", "bytes=2-3")]),
            Wanted::Whole
        );
    }

    #[test]
    fn preconditions_come_first_and_in_their_order() {
        let (same, other) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        let part = Wanted::Parts(std::iter::once(0..2).collect());
        let cases: &[(&[(&'static str, &str)], Wanted)] = &[
            (&[("if-none-match", "\"abc\"")], Wanted::NotModified),
            (&[("if-none-match", "\"x\", W/\"abc\"")], Wanted::NotModified),
            (&[("if-none-match", "*")], Wanted::NotModified),
            (&[("if-none-match", "\"x\"")], Wanted::Whole),
            (
                &[("if-none-match", "\"x\""), ("if-modified-since", same)],
                Wanted::Whole,
            ),
            (&[("if-modified-since", same)], Wanted::NotModified),
            (&[("if-modified-since", other)], Wanted::Whole),
            (&[("if-modified-since", "yesterday")], Wanted::Whole),
            (&[("if-match", "\"abc\"")], Wanted::Whole),
            (&[("if-match", "W/\"abc\"")], Wanted::PreconditionFailed),
            (&[("if-match", "\"x\"")], Wanted::PreconditionFailed),
            (&[("if-match", "*")], Wanted::Whole),
            (&[("if-unmodified-since", other)], Wanted::PreconditionFailed),
            (&[("if-unmodified-since", same)], Wanted::Whole),
            (
                &[("if-match", "\"abc\""), ("if-unmodified-since", other)],
                Wanted::Whole,
            ),
            (&[("range", "bytes=0-1"), ("if-range", "\"abc\"")], part.clone()),
            (
                &[("range", "bytes=0-1"), ("if-range", "W/\"abc\"")],
                Wanted::Whole,
            ),
            (&[("range", "bytes=0-1"), ("if-range", "\"x\"")], Wanted::Whole),
            (&[("range", "bytes=0-1"), ("if-range", same)], part),
            (&[("range", "bytes=0-1"), ("if-range", other)], Wanted::Whole),
            (&[("range", "bytes=2000-"), ("if-range", "\"x\"")], Wanted::Whole),
            (
                &[("range", "bytes=0-1"), ("if-none-match", "\"abc\"")],
                Wanted::NotModified,
            ),
        ];
        for (headers, expected) in cases {
            assert_eq!(ask(&Method::GET, headers), *expected, "{headers:?}");
        }
    }
}
