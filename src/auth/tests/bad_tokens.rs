//! The table of tokens that nobody may be let in with, each with the reason that the log shows.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::fixture::{ED25519, TempDir, claims, verifier};
use super::{bad_claims, bad_form};
use crate::auth::Rejected;

/// What it is, the token, and the reason.
pub(super) type Row = (String, String, &'static str);

pub(super) fn row(name: &str, token: impl Into<String>, reason: &'static str) -> Row {
    (name.to_owned(), token.into(), reason)
}

pub(super) fn good() -> String {
    ED25519.token(Some("ed"), &claims(json!({})))
}

#[tokio::test]
async fn all_are_rejected_for_the_right_reason() {
    let dir = TempDir::new();
    let verifier = verifier(&dir);
    assert!(
        verifier.verify(&good()).await.is_ok(),
        "the token that the rows are made of"
    );
    let rows = [
        bad_form::shape(),
        bad_form::algorithms(),
        bad_form::headers(),
        bad_claims::claim_values(),
        bad_claims::payloads(),
    ]
    .concat();
    assert!(rows.len() > 150);
    for (name, token, reason) in rows {
        match verifier.verify(&token).await {
            Ok(claims) => panic!("{name}: accepted as {claims:?}"),
            Err(rejected) => {
                assert_eq!(rejected.reason(), reason, "{name}");
                assert!(
                    token.is_empty() || !rejected.to_string().contains(&token),
                    "{name}: shown"
                );
            }
        }
    }
}

#[test]
fn a_reason_is_a_word_of_its_own() {
    assert_eq!(
        Rejected::Claims("exp").to_string(),
        "token rejected: claims (exp)"
    );
    assert_eq!(Rejected::TooLong.to_string(), "token rejected: too_long");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, an answer comes back.
    #[test]
    fn no_input_panics(text in ".{0,300}", header in ".{0,60}", payload in prop::collection::vec(any::<u8>(), 0..80)) {
        let dir = TempDir::new();
        let verifier = verifier(&dir);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let framed = format!(
            "{}.{}.AAAA",
            URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"EdDSA\",\"kid\":{header:?}}}")),
            URL_SAFE_NO_PAD.encode(&payload)
        );
        let signed = ED25519.odd_token(&json!({"alg": "EdDSA", "kid": "ed"}), &String::from_utf8_lossy(&payload));
        for token in [&text, &framed, &signed] {
            prop_assert!(runtime.block_on(verifier.verify(token)).is_err());
        }
    }
}
