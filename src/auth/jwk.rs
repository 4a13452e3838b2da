//! Key set documents (RFC 7517).
//!
//! Owns: which entries of a document become keys.
//! Does not: fetch documents or keep keys.
//! Called by: `jwks`.

use std::sync::Arc;

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;

use super::keys::{Algorithm, Authority, Key, Kid, MIN_RSA_BYTES, parse_public};

/// Most keys that are kept of one document.
const MAX_KEYS: usize = 64;
/// Bytes of a P-256 coordinate (RFC 7518, section 6.2.1.2).
const COORDINATE_BYTES: usize = 32;

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// The usable keys of a document; entries of other kinds are skipped, as RFC 7517, section 5 wants it.
/// Of entries that share `kid` and algorithm the first is kept, so that nobody can crowd a `kid`.
pub(crate) fn parse_set(
    document: &[u8],
    authority: &Arc<Authority>,
) -> Result<Vec<Arc<Key>>, serde_json::Error> {
    let document: Document = serde_json::from_slice(document)?;
    let mut keys: Vec<Arc<Key>> = Vec::new();
    for entry in document.keys {
        let Some(key) = parse_key(entry, authority) else {
            continue;
        };
        let taken = |k: &Arc<Key>| k.kid != Kid::Any && k.kid == key.kid && k.algorithm == key.algorithm;
        if keys.len() < MAX_KEYS && !keys.iter().any(taken) {
            keys.push(Arc::new(key));
        }
    }
    Ok(keys)
}

fn parse_key(entry: Value, authority: &Arc<Authority>) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(entry).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let (algorithm, wanted, public) = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDsa, KeyAlgorithm::EdDSA, ed25519(&p.x)?)
        }
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => {
            (Algorithm::Es256, KeyAlgorithm::ES256, p256(&p.x, &p.y)?)
        }
        AlgorithmParameters::RSA(p) => (Algorithm::Rs256, KeyAlgorithm::RS256, rsa(&p.n, &p.e)?),
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|named| named != wanted) {
        return None;
    }
    let kid = Kid::from_setting(jwk.common.key_id.as_deref().unwrap_or_default());
    Some(Key::public(algorithm, kid, public, authority.clone()))
}

fn ed25519(x: &str) -> Option<ParsedPublicKey> {
    parse_public(Algorithm::EdDsa, &URL_SAFE_NO_PAD.decode(x).ok()?).ok()
}

fn p256(x: &str, y: &str) -> Option<ParsedPublicKey> {
    let (x, y) = (URL_SAFE_NO_PAD.decode(x).ok()?, URL_SAFE_NO_PAD.decode(y).ok()?);
    if x.len() != COORDINATE_BYTES || y.len() != COORDINATE_BYTES {
        return None;
    }
    // An uncompressed point (SEC 1, section 2.3.3).
    parse_public(Algorithm::Es256, &[&[4], x.as_slice(), y.as_slice()].concat()).ok()
}

fn rsa(n: &str, e: &str) -> Option<ParsedPublicKey> {
    let (n, e) = (URL_SAFE_NO_PAD.decode(n).ok()?, URL_SAFE_NO_PAD.decode(e).ok()?);
    // Some issuers keep the sign byte of ASN.1.
    let n = n.strip_prefix(&[0]).unwrap_or(&n);
    if n.len() < MIN_RSA_BYTES {
        return None;
    }
    RsaPublicKeyComponents { n, e: &e }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    /// The keys of RFC 8037 (appendix A.2) and of RFC 7517 (appendix A.1).
    const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const P256_X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const P256_Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn count(keys: &Value) -> usize {
        let authority = Arc::new(Authority::full(None));
        parse_set(json!({"keys": keys}).to_string().as_bytes(), &authority)
            .unwrap()
            .len()
    }

    #[test]
    fn usable_keys_are_taken() {
        let rsa = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xFF; bytes]);
        let with_sign_byte = URL_SAFE_NO_PAD.encode([vec![0], vec![0xFF; 256]].concat());
        assert_eq!(
            count(&json!([
                {"kty": "OKP", "crv": "Ed25519", "x": ED25519_X},
                {"kty": "OKP", "crv": "Ed25519", "x": ED25519_X, "use": "sig", "alg": "EdDSA", "kid": "1"},
                {"kty": "EC", "crv": "P-256", "x": P256_X, "y": P256_Y},
                {"kty": "RSA", "n": rsa(256), "e": "AQAB", "x5c": ["unused"]},
                {"kty": "RSA", "n": with_sign_byte, "e": "AQAB", "alg": "RS256"},
            ])),
            5
        );
    }

    #[test]
    fn other_entries_are_skipped() {
        let rsa = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xFF; bytes]);
        assert_eq!(
            count(&json!([
                7, null, "key", {}, {"kty": 1},
                {"kty": "oct", "k": "c2VjcmV0"},
                {"kty": "OKP", "crv": "X25519", "x": ED25519_X},
                {"kty": "OKP", "crv": "Ed25519", "x": ED25519_X, "use": "enc"},
                {"kty": "OKP", "crv": "Ed25519", "x": ED25519_X, "alg": "HS256"},
                {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
                {"kty": "EC", "crv": "P-384", "x": P256_X, "y": P256_Y},
                {"kty": "EC", "crv": "P-256", "x": P256_X, "y": P256_X},
                {"kty": "EC", "crv": "P-256", "x": P256_X, "y": P256_Y, "alg": "ES384"},
                {"kty": "EC", "crv": "P-256", "x": P256_X, "y": ""},
                {"kty": "RSA", "n": rsa(128), "e": "AQAB"},
                {"kty": "RSA", "n": rsa(256), "e": "AQAB", "alg": "PS256"},
                {"kty": "RSA", "n": rsa(256), "e": "AQAB", "alg": "RSA-OAEP"},
                {"kty": "RSA", "n": rsa(256), "e": ""},
            ])),
            0
        );
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let entry = |kid: String| json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519_X, "kid": kid});
        let many: Vec<Value> = (0..100).map(|i| entry(i.to_string())).collect();
        assert_eq!(count(&json!(many)), MAX_KEYS);
        assert_eq!(count(&json!([entry("same".into()), entry("same".into())])), 1);
    }

    #[test]
    fn what_is_no_key_set_is_an_error() {
        let authority = Arc::new(Authority::full(None));
        let bomb = format!("{{\"keys\":[{}", "[".repeat(100_000));
        for document in ["", "[]", "{}", "{\"keys\":{}}", "<html>", &bomb] {
            assert!(parse_set(document.as_bytes(), &authority).is_err());
        }
    }
}
