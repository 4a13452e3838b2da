//! Rows of the table of bad tokens: claims, under a good signature.

use serde_json::{Value, json};

use super::bad_tokens::{Row, row};
use super::fixture::{ED25519, claims, now_s};

pub(super) fn claim_values() -> Vec<Row> {
    let long = "x".repeat(257);
    let table = [
        (json!({"sub": null}), "claims"),
        (json!({"sub": ""}), "claims"),
        (json!({"sub": 7}), "claims"),
        (json!({"sub": ["a"]}), "claims"),
        (json!({"sub": long}), "claims"),
        (json!({"exp": null}), "claims"),
        (json!({"exp": (now_s() + 600).to_string()}), "claims"),
        (json!({"exp": true}), "claims"),
        (json!({"exp": [now_s() + 600]}), "claims"),
        (json!({"exp": 1e300}), "claims"),
        (json!({"exp": now_s() - 40}), "expired"),
        (json!({"exp": 0}), "expired"),
        (json!({"exp": -1}), "expired"),
        (json!({"exp": -1e300}), "expired"),
        (json!({"nbf": now_s() + 60}), "not_yet_valid"),
        (json!({"nbf": 1e300}), "not_yet_valid"),
        (json!({"nbf": now_s().to_string()}), "claims"),
        (json!({"nbf": {}}), "claims"),
        (json!({"iss": null}), "issuer"),
        (json!({"iss": "evil"}), "issuer"),
        (json!({"iss": "IDP"}), "issuer"),
        (json!({"iss": ["idp"]}), "claims"),
        (json!({"aud": null}), "audience"),
        (json!({"aud": "elsewhere"}), "audience"),
        (json!({"aud": ""}), "audience"),
        (json!({"aud": []}), "audience"),
        (json!({"aud": ["elsewhere", "usher2"]}), "audience"),
        (json!({"aud": 7}), "claims"),
        (json!({"aud": ["usher", 7]}), "claims"),
        (json!({"aud": {"usher": true}}), "claims"),
        (json!({"aud": ["usher", "usher-ticket"]}), "ticket"),
        (json!({"tenant": "third"}), "tenant"),
        (json!({"tenant": "*"}), "claims"),
        (json!({"tenant": ""}), "claims"),
        (json!({"tenant": "a/b"}), "claims"),
        (json!({"tenant": "{main}"}), "claims"),
        (json!({"tenant": "x".repeat(65)}), "claims"),
        (json!({"tenant": 1}), "claims"),
        (json!({"device": ""}), "claims"),
        (json!({"device": 1}), "claims"),
        (json!({"device": long}), "claims"),
        (json!({"plan": false}), "claims"),
        (json!({"plan": ""}), "claims"),
        (json!({"profile": {}}), "claims"),
        (json!({"streams": -1}), "claims"),
        (json!({"streams": 1.5}), "claims"),
        (json!({"streams": 2.0}), "claims"),
        (json!({"streams": "2"}), "claims"),
        (json!({"streams": 1001}), "claims"),
        (json!({"streams": u64::MAX}), "claims"),
        (json!({"contents": "m1"}), "claims"),
        (json!({"contents": ["m1", 2]}), "claims"),
        (json!({"contents": {"m1": true}}), "claims"),
        (json!({"scope": ["admin"]}), "claims"),
        (json!({"scope": 1}), "claims"),
    ];
    let good = |(changes, reason): (Value, _)| {
        row(
            &changes.to_string(),
            ED25519.token(Some("ed"), &claims(changes.clone())),
            reason,
        )
    };
    table.into_iter().map(good).collect()
}

/// Payloads that `serde_json` would not write.
pub(super) fn payloads() -> Vec<Row> {
    let soon = now_s() + 600;
    let rest = "\"sub\":\"a\",\"iss\":\"idp\",\"aud\":\"usher\"";
    let table = [
        (format!("{{{rest},\"exp\":1e999}}"), "malformed"),
        (format!("{{{rest},\"exp\":NaN}}"), "malformed"),
        (format!("{{{rest},\"exp\":Infinity}}"), "malformed"),
        (format!("{{{rest},\"exp\":null}}"), "claims"),
        (format!("{{{rest},\"exp\":{soon},\"device\":null}}"), "claims"),
        (format!("{{{rest},\"exp\":{soon}"), "malformed"),
        (format!("{{{rest},\"exp\":{soon}}} x"), "malformed"),
        (
            format!("{{{rest},\"exp\":{soon},\"x\":\"\\ud800\"}}"),
            "malformed",
        ),
        (format!("[{soon}]"), "malformed"),
        ("\"sub\"".to_owned(), "malformed"),
        ("null".to_owned(), "malformed"),
        (String::new(), "malformed"),
        ("[".repeat(5000), "malformed"),
    ];
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    table
        .iter()
        .map(|(body, reason)| {
            row(
                &body[..body.len().min(80)],
                ED25519.odd_token(&header, body),
                reason,
            )
        })
        .collect()
}
