//! Tickets: what they say, what they are not, and keys that change while they are on their way.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::fixture::{ED25519, P256, Pair, RSA, SECRET, TempDir, claims, no_settings, now_s};
use crate::auth::{Grant, Rejected, Ticket, Verifier};
use crate::config::{Auth, Secret};
use crate::outbound::Guard;
use crate::protocol::id::{AccountKey, SessionId};

const LIFE: Duration = Duration::from_secs(60);

fn ticket() -> Ticket {
    // One end for the whole run: a test may last into the next second.
    static NOW_S: LazyLock<u64> = LazyLock::new(now_s);
    Ticket {
        account: AccountKey::new("t1", "ann \"é\""),
        session: SessionId::from_bytes([7; 16]),
        content: "m/1 é".into(),
        roles: vec!["mentor".to_owned()],
        expires_at: UNIX_EPOCH + Duration::from_secs(*NOW_S + 60),
    }
}

fn signing_with(dir: &TempDir, pair: &Pair) -> Auth {
    Auth {
        signing_key: dir.write("signing.pem", &pair.private_pem),
        ..no_settings()
    }
}

fn rotating(settings: &Auth, files: &[PathBuf]) -> Auth {
    Auth {
        rotation_keys: files.to_vec(),
        ..settings.clone()
    }
}

/// A payload as a ticket has it, with changes; a `null` removes.
fn payload(changes: &Value) -> Value {
    let sid = SessionId::from_bytes([7; 16]).to_string();
    let mut all = json!({
        "iss": "usher", "aud": "usher-ticket", "tenant": "main", "sid": sid, "content": "m1", "exp": now_s() + 60,
    });
    all.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    let mut claims = claims(all);
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    claims
}

/// Anybody's library checks it with the key set alone.
#[test]
fn a_ticket_is_what_it_says_to_somebody_elses_library() {
    for (pair, algorithm) in [(&*ED25519, Algorithm::EdDSA), (&*P256, Algorithm::ES256)] {
        let dir = TempDir::new();
        let verifier = Verifier::new(&signing_with(&dir, pair), dir.path(), &Guard::default()).unwrap();
        let token = verifier.issue_ticket("usher", &ticket()).unwrap();
        let header = jsonwebtoken::decode_header(token.expose()).unwrap();
        assert_eq!(header.typ.as_deref(), Some("usher-ticket+jwt"));
        assert_eq!(header.alg, algorithm);
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&verifier.key_set()).unwrap();
        let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut rules = Validation::new(algorithm);
        rules.set_audience(&["usher-ticket"]);
        rules.set_issuer(&["usher"]);
        let payload = jsonwebtoken::decode::<Value>(token.expose(), &key, &rules)
            .unwrap()
            .claims;
        assert_eq!(payload["sub"], "ann \"é\"");
        assert_eq!(
            (&payload["tenant"], &payload["content"]),
            (&json!("t1"), &json!("m/1 é"))
        );
        assert_eq!(payload["sid"], ticket().session.to_string());
        assert!(payload["exp"].as_u64().unwrap() <= now_s() + LIFE.as_secs());
        let names: Vec<_> = payload.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            names,
            [
                "aud", "content", "exp", "iat", "iss", "roles", "sid", "sub", "tenant"
            ]
        );
        assert_eq!(verifier.verify_ticket(token.expose()), Ok(ticket()));
    }
}

#[tokio::test]
async fn a_ticket_is_no_access_token_and_an_access_token_no_ticket() {
    let dir = TempDir::new();
    let settings = Auth {
        hmac_secret: Secret::from(SECRET.to_owned()),
        ..signing_with(&dir, &ED25519)
    };
    let verifier = Verifier::new(&settings, dir.path(), &Guard::default()).unwrap();
    let ticket = verifier.issue_ticket("usher", &ticket()).unwrap();
    assert_eq!(verifier.verify(ticket.expose()).await, Err(Rejected::Ticket));
    let access = verifier.issue(&Grant::new("a", LIFE)).unwrap();
    assert!(verifier.verify(access.expose()).await.is_ok());
    assert_eq!(verifier.verify_ticket(access.expose()), Err(Rejected::NoTicket));
    // The audience alone, or the type alone, makes neither.
    let kid = verifier.own_key().kid().to_owned();
    let signed = |typ: &str, claims: &Value| {
        let header = json!({"alg": "EdDSA", "typ": typ, "kid": kid});
        ED25519.odd_token(&header, &claims.to_string())
    };
    let half = signed("JWT", &payload(&json!({})));
    assert_eq!(verifier.verify(&half).await, Err(Rejected::Ticket));
    assert_eq!(verifier.verify_ticket(&half), Err(Rejected::NoTicket));
    let half = signed("usher-ticket+jwt", &payload(&json!({"aud": "usher"})));
    assert_eq!(verifier.verify(&half).await, Err(Rejected::Ticket));
    assert_eq!(verifier.verify_ticket(&half), Err(Rejected::NoTicket));
}

#[test]
fn what_is_wrong_with_a_ticket() {
    let dir = TempDir::new();
    let settings = Auth {
        hmac_secret: Secret::from(SECRET.to_owned()),
        ..signing_with(&dir, &ED25519)
    };
    let verifier = Verifier::new(&settings, dir.path(), &Guard::default()).unwrap();
    let kid = verifier.own_key().kid().to_owned();
    let header = |changes: Value| {
        let mut header = json!({"alg": "EdDSA", "typ": "usher-ticket+jwt", "kid": kid});
        header
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        header
    };
    let good = ED25519.odd_token(&header(json!({})), &payload(&json!({})).to_string());
    assert!(verifier.verify_ticket(&good).is_ok());
    for (changes, expected) in [
        (json!({"exp": now_s()}), Rejected::Expired),
        (json!({"exp": u64::MAX}), Rejected::Claims("exp")),
        (json!({"exp": null}), Rejected::Malformed),
        (json!({"exp": -1}), Rejected::Malformed),
        (json!({"sid": null}), Rejected::Malformed),
        (json!({"sid": "short"}), Rejected::Claims("sid")),
        (json!({"tenant": "a b"}), Rejected::Claims("tenant")),
        (json!({"sub": 7}), Rejected::Malformed),
        (json!({"content": null}), Rejected::Malformed),
        (json!({"aud": ["usher-ticket"]}), Rejected::Malformed),
    ] {
        let token = ED25519.odd_token(&header(json!({})), &payload(&changes).to_string());
        assert_eq!(verifier.verify_ticket(&token), Err(expected), "{changes}");
    }
    let body = payload(&json!({})).to_string();
    let other = Pair::ed25519();
    assert_eq!(
        verifier.verify_ticket(&other.odd_token(&header(json!({})), &body)),
        Err(Rejected::Signature)
    );
    assert_eq!(
        verifier.verify_ticket(&ED25519.odd_token(&header(json!({"kid": "other"})), &body)),
        Err(Rejected::UnknownKey)
    );
    assert_eq!(
        verifier.verify_ticket(&RSA.odd_token(&header(json!({"alg": "RS256"})), &body)),
        Err(Rejected::Algorithm)
    );
    // Nor does the shared secret, which outsiders have, sign tickets.
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let token = super::fixture::sign(&header(json!({"alg": "HS256"})), &body, &key, Algorithm::HS256);
    assert_eq!(verifier.verify_ticket(&token), Err(Rejected::Algorithm));
    assert_eq!(verifier.verify_ticket(""), Err(Rejected::Missing));
    assert_eq!(verifier.verify_ticket(&"x".repeat(9_000)), Err(Rejected::TooLong));
}

/// The steps of a rotation, each a reload: announce, sign, retire. Nothing that was signed is refused on the way.
#[tokio::test]
async fn a_rotation_refuses_nothing_that_was_signed() {
    let dir = TempDir::new();
    let next = Pair::ed25519();
    let (old_file, next_file) = (
        dir.write("old.pem", &ED25519.private_pem),
        dir.write("next.pem", next.public_pem()),
    );
    let before = signing_with(&dir, &ED25519);
    let verifier = Verifier::new(&before, dir.path(), &Guard::default()).unwrap();
    let kid = verifier.own_key().kid().to_owned();
    let old_ticket = verifier.issue_ticket("usher", &ticket()).unwrap();
    let old_access = verifier.issue(&Grant::new("a", LIFE)).unwrap();
    let published = |verifier: &Verifier| {
        let set: Value = serde_json::from_str(&verifier.key_set()).unwrap();
        set["keys"].as_array().unwrap().len()
    };
    verifier
        .rotate(&rotating(&before, std::slice::from_ref(&next_file)), dir.path())
        .unwrap();
    assert_eq!(
        (published(&verifier), verifier.own_key().kid()),
        (2, &*kid),
        "announced"
    );

    let after = Auth {
        signing_key: dir.write("signing-2.pem", &next.private_pem),
        ..no_settings()
    };
    let both = [old_file, next_file];
    verifier.rotate(&rotating(&after, &both), dir.path()).unwrap();
    assert_eq!(published(&verifier), 2, "the key that signs is listed once");
    assert_ne!(verifier.own_key().kid(), kid);
    let new_ticket = verifier.issue_ticket("usher", &ticket()).unwrap();
    for token in [&old_ticket, &new_ticket] {
        assert_eq!(verifier.verify_ticket(token.expose()), Ok(ticket()));
    }
    assert!(verifier.verify(old_access.expose()).await.is_ok());
    // A setting that cannot be used changes nothing.
    let bad = rotating(&after, &[dir.write("junk.pem", "junk")]);
    let problem = verifier.rotate(&bad, dir.path()).unwrap_err().to_string();
    assert!(problem.starts_with("auth.rotation_keys[0]: "), "{problem}");
    assert_eq!(verifier.verify_ticket(old_ticket.expose()), Ok(ticket()));

    verifier.rotate(&after, dir.path()).unwrap();
    assert_eq!(published(&verifier), 1, "retired");
    assert_eq!(verifier.verify_ticket(new_ticket.expose()), Ok(ticket()));
    assert_eq!(
        verifier.verify_ticket(old_ticket.expose()),
        Err(Rejected::UnknownKey)
    );
    assert!(verifier.verify(old_access.expose()).await.is_err());
}

/// The data directory's key rotates by moving its file aside.
#[test]
fn a_key_that_was_moved_aside_still_verifies() {
    let dir = TempDir::new();
    let verifier = Verifier::new(&no_settings(), dir.path(), &Guard::default()).unwrap();
    let old = verifier.issue_ticket("usher", &ticket()).unwrap();
    let aside = dir.path().join("signing-key-old.pem");
    std::fs::rename(dir.path().join(crate::auth::SIGNING_KEY_FILE), &aside).unwrap();
    verifier
        .rotate(&rotating(&no_settings(), &[aside]), dir.path())
        .unwrap();
    assert!(verifier.verify_ticket(old.expose()).is_ok());
    assert_ne!(
        jsonwebtoken::decode_header(old.expose()).unwrap().kid.as_deref(),
        Some(verifier.own_key().kid())
    );
}

#[test]
fn only_keys_of_ours_may_rotate() {
    let dir = TempDir::new();
    let files = [
        dir.write("rsa.pem", RSA.public_pem()),
        dir.write("rsa-private.pem", &RSA.private_pem),
        dir.path().join("absent.pem"),
    ];
    for file in files {
        let settings = rotating(&no_settings(), &[dir.write("ec.pem", P256.public_pem()), file]);
        let problem = Verifier::new(&settings, dir.path(), &Guard::default())
            .err()
            .unwrap()
            .to_string();
        assert!(problem.starts_with("auth.rotation_keys[1]: "), "{problem}");
    }
}
