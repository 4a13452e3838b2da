//! Rows of the table of bad tokens: form, algorithm and header.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::bad_tokens::{Row, good, row};
use super::fixture::{ED25519, P256, Pair, RSA, SECRET, claims, sign, unsigned};

/// Signed by the right key, with any header.
fn headed(header: Value) -> String {
    let Value::Object(header) = header else {
        panic!("a header is an object")
    };
    let mut whole = json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"});
    whole.as_object_mut().unwrap().extend(header);
    ED25519.odd_token(&whole, &claims(json!({})).to_string())
}

pub(super) fn shape() -> Vec<Row> {
    let good = good();
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let padded = URL_SAFE_NO_PAD.encode("{\"alg\":\"EdDSA\"} ");
    vec![
        row("none at all", "", "missing"),
        row("one dot", ".", "malformed"),
        row("two dots", "..", "malformed"),
        row("five segments (JWE)", format!("{good}.x.y"), "malformed"),
        row("trailing dot", format!("{good}."), "malformed"),
        row("leading dot", format!(".{good}"), "malformed"),
        row(
            "double dot",
            format!("{header}..{payload}.{signature}"),
            "malformed",
        ),
        row("no signature segment", format!("{header}.{payload}"), "malformed"),
        row("empty header", format!(".{payload}.{signature}"), "malformed"),
        row("empty payload", format!("{header}..{signature}"), "signature"),
        row("empty signature", format!("{header}.{payload}."), "signature"),
        row("leading space", format!(" {good}"), "malformed"),
        row("trailing newline", format!("{good}\n"), "malformed"),
        row(
            "space inside",
            format!("{header}. {payload}.{signature}"),
            "malformed",
        ),
        row("not base64", format!("{header}.$$$$.{signature}"), "malformed"),
        row(
            "not ASCII",
            format!("{header}.\u{e9}\u{1f3ac}.{signature}"),
            "malformed",
        ),
        row("NUL", format!("{header}.{payload}\0.{signature}"), "malformed"),
        row("padding", format!("{good}=="), "malformed"),
        row(
            "header is no JSON",
            format!("AAAA.{payload}.{signature}"),
            "malformed",
        ),
        row(
            "header is an array",
            format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode("[]")),
            "malformed",
        ),
        row(
            "header is nested too deep",
            unsigned(&json!([]), &"[".repeat(3000)),
            "malformed",
        ),
        row(
            "header re-encoded",
            format!("{padded}.{payload}.{signature}"),
            "signature",
        ),
        row(
            "64 KiB",
            format!("{header}.{}.{signature}", "A".repeat(64 * 1024)),
            "too_long",
        ),
        row("a byte too long", "A".repeat(8 * 1024 + 1), "too_long"),
        row("truncated", &good[..good.len() - 2], "signature"),
        row("signature of another token", swapped_signature(), "signature"),
        row("altered signature", altered(&good, 2), "signature"),
        row("altered payload", altered(&good, 1), "signature"),
        row("stray bits in the signature", stray_bits(&good), "malformed"),
    ]
}

fn swapped_signature() -> String {
    let good = good();
    let other = ED25519.token(Some("ed"), &claims(json!({"sub": "account-2"})));
    let (message, _) = good.rsplit_once('.').unwrap();
    format!("{message}.{}", other.rsplit_once('.').unwrap().1)
}

/// One character of one segment changed.
fn altered(token: &str, segment: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let other = if parts[segment].starts_with('Q') { "R" } else { "Q" };
    parts[segment].replace_range(0..1, other);
    parts.join(".")
}

/// The last character of 64 bytes carries four unused bits; another spelling of the same bytes.
fn stray_bits(token: &str) -> String {
    let last = match token.chars().last().unwrap() {
        'A' => 'B',
        'Q' => 'R',
        'g' => 'h',
        _ => 'x',
    };
    format!("{}{last}", &token[..token.len() - 1])
}

pub(super) fn algorithms() -> Vec<Row> {
    let body = claims(json!({})).to_string();
    let mut rows = Vec::new();
    for none in ["none", "None", "NONE", "nOnE", " none", ""] {
        rows.push(row(
            &format!("alg {none:?}"),
            unsigned(&json!({"alg": none}), &body),
            "algorithm",
        ));
    }
    for odd in [json!(null), json!(1), json!(["EdDSA"]), json!({"a": "EdDSA"})] {
        rows.push(row(
            &format!("alg {odd}"),
            headed(json!({"alg": odd})),
            "malformed",
        ));
    }
    rows.push(row(
        "no alg",
        unsigned(&json!({"typ": "JWT"}), &body),
        "malformed",
    ));
    for other in [
        "HS384", "HS512", "RS384", "RS512", "PS256", "ES384", "ES512", "Ed25519", "eddsa", "dir",
    ] {
        rows.push(row(
            &format!("alg {other}"),
            headed(json!({"alg": other})),
            "algorithm",
        ));
    }
    let shared = EncodingKey::from_secret(SECRET.as_bytes());
    rows.push(row(
        "real HS512",
        sign(&json!({"alg": "HS512"}), &body, &shared, Algorithm::HS512),
        "algorithm",
    ));
    rows.push(row(
        "HS256 by its name, HS512 in truth",
        sign(&json!({"alg": "HS256"}), &body, &shared, Algorithm::HS512),
        "signature",
    ));
    rows.push(row(
        "unsigned HS256",
        unsigned(&json!({"alg": "HS256"}), &body),
        "signature",
    ));
    rows.push(row(
        "an Ed25519 signature called ES256",
        headed(json!({"alg": "ES256"})),
        "algorithm",
    ));
    rows.push(row(
        "the same without kid",
        ED25519.odd_token(&json!({"alg": "ES256"}), &body),
        "signature",
    ));
    rows.push(row(
        "RS256 with the Ed25519 key's kid",
        RSA.token(Some("ed"), &claims(json!({}))),
        "algorithm",
    ));
    rows.push(row(
        "ES256 with another algorithm's kid",
        P256.token(Some("rsa"), &claims(json!({}))),
        "algorithm",
    ));
    for (pair, kid) in [(&*ED25519, "ed"), (&*P256, "ec"), (&*RSA, "rsa")] {
        rows.extend(public_key_as_secret(pair, kid));
    }
    rows
}

/// HS256 with what everybody knows as its secret (RFC 8725, section 2.1).
fn public_key_as_secret(pair: &Pair, kid: &str) -> Vec<Row> {
    let pem = pair.public_pem();
    let secrets = [
        ("PEM", pem.as_bytes().to_vec()),
        ("trimmed PEM", pem.trim_end().as_bytes().to_vec()),
        ("DER", pair.public_der.clone()),
        ("raw", pair.public_raw.clone()),
        ("base64 of DER", STANDARD.encode(&pair.public_der).into_bytes()),
    ];
    let body = claims(json!({})).to_string();
    let mut rows = Vec::new();
    for (form, secret) in secrets {
        let key = EncodingKey::from_secret(&secret);
        let name = format!("HS256 with the {:?} key, {form}", pair.algorithm);
        rows.push(row(
            &name,
            sign(&json!({"alg": "HS256"}), &body, &key, Algorithm::HS256),
            "signature",
        ));
        let token = sign(
            &json!({"alg": "HS256", "kid": kid}),
            &body,
            &key,
            Algorithm::HS256,
        );
        rows.push(row(
            &format!("{name} and its kid"),
            token,
            if kid == "ec" { "signature" } else { "algorithm" },
        ));
    }
    rows
}

pub(super) fn headers() -> Vec<Row> {
    let stranger = Pair::ed25519();
    let body = claims(json!({})).to_string();
    let by_stranger = |header: Value| stranger.odd_token(&header, &body);
    let mut rows = vec![
        row(
            "a stranger's key",
            by_stranger(json!({"alg": "EdDSA"})),
            "signature",
        ),
        row(
            "a stranger's key under our kid",
            by_stranger(json!({"alg": "EdDSA", "kid": "ed"})),
            "signature",
        ),
        row(
            "jwk",
            by_stranger(json!({"alg": "EdDSA", "jwk": stranger.jwk("ed")})),
            "signature",
        ),
        row(
            "jwk and kid",
            by_stranger(json!({"alg": "EdDSA", "kid": "ed", "jwk": stranger.jwk("ed")})),
            "signature",
        ),
        row(
            "jku",
            by_stranger(json!({"alg": "EdDSA", "jku": "http://127.0.0.1:9/jwks"})),
            "signature",
        ),
        row(
            "x5u",
            by_stranger(json!({"alg": "EdDSA", "x5u": "http://127.0.0.1:9/x5u"})),
            "signature",
        ),
        row(
            "x5c",
            by_stranger(json!({"alg": "EdDSA", "x5c": [STANDARD.encode(&stranger.public_der)]})),
            "signature",
        ),
        row("kid a number", headed(json!({"kid": 1})), "malformed"),
        row("kid null", headed(json!({"kid": null})), "malformed"),
        row(
            "kid of 10 KB",
            headed(json!({"kid": "k".repeat(10_000)})),
            "too_long",
        ),
        row("crit", headed(json!({"crit": ["exp"]})), "malformed"),
        row("crit empty", headed(json!({"crit": []})), "malformed"),
        row("crit null", headed(json!({"crit": null})), "malformed"),
        row(
            "crit and b64",
            headed(json!({"crit": ["b64"], "b64": false})),
            "malformed",
        ),
        row("ticket", headed(json!({"typ": "usher-ticket+jwt"})), "ticket"),
        row(
            "ticket, otherwise written",
            headed(json!({"typ": "Application/Usher-Ticket+JWT"})),
            "ticket",
        ),
        row("typ a number", headed(json!({"typ": 7})), "malformed"),
    ];
    let kids = [
        "../../../../dev/null",
        "/proc/self/environ",
        "' OR '1'='1",
        "https://evil.example/k",
        "",
        "\0",
        "ed\n",
        "ED",
    ];
    for kid in kids {
        let token = by_stranger(json!({"alg": "EdDSA", "kid": kid}));
        rows.push(row(&format!("kid {kid:?}"), token, "signature"));
        // No key without a kid is of RSA: the right signature under a wrong name has nobody to check it.
        let token = RSA.token(Some(kid), &claims(json!({})));
        rows.push(row(&format!("RS256, kid {kid:?}"), token, "unknown_key"));
    }
    rows
}
