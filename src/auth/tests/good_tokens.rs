//! Tokens that are believed, and what is left of them.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::fixture::{ED25519, P256, RSA, SECRET, TempDir, claims, no_settings, pem_key, verifier};
use crate::auth::{AuthError, Grant, Rejected, Scope, Scopes, Verifier};
use crate::config::{Auth, Secret};
use crate::outbound::Guard;

fn shared_token(header: &Header, changes: serde_json::Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(header, &claims(changes), &key).unwrap()
}

#[tokio::test]
async fn every_algorithm_is_accepted() {
    let dir = TempDir::new();
    let verifier = verifier(&dir);
    let good = [
        ("EdDSA", ED25519.token(Some("ed"), &claims(json!({})))),
        ("ES256", P256.token(None, &claims(json!({})))),
        (
            "ES256 with a kid that we do not know",
            P256.token(Some("?"), &claims(json!({}))),
        ),
        ("RS256", RSA.token(Some("rsa"), &claims(json!({})))),
        ("HS256", shared_token(&Header::default(), json!({}))),
        (
            "aud among others",
            shared_token(&Header::default(), json!({"aud": ["x", "usher"]})),
        ),
        (
            "another typ",
            RSA.odd_token(
                &json!({"alg": "RS256", "kid": "rsa", "typ": "at+jwt"}),
                &claims(json!({})).to_string(),
            ),
        ),
        (
            "exp with a fraction",
            shared_token(&Header::default(), json!({"exp": 4e9 + 0.5})),
        ),
        (
            "exp within the leeway",
            shared_token(&Header::default(), json!({"exp": super::fixture::now_s() - 15})),
        ),
        (
            "unknown claims",
            shared_token(&Header::default(), json!({"email": ["x"], "iat": "?"})),
        ),
    ];
    for (name, token) in good {
        let claims = verifier
            .verify(&token)
            .await
            .unwrap_or_else(|rejected| panic!("{name}: {rejected}"));
        assert_eq!(&*claims.account, "account-1", "{name}");
    }
}

#[tokio::test]
async fn a_key_asserts_no_more_than_it_may() {
    let dir = TempDir::new();
    let verifier = verifier(&dir);
    let asks = json!({"scope": "watch admin support operator", "tenant": "other"});
    let narrow = verifier
        .verify(&ED25519.token(Some("ed"), &claims(asks.clone())))
        .await
        .unwrap();
    assert_eq!(
        (narrow.scopes.to_string(), &*narrow.tenant),
        ("watch support".to_owned(), "other")
    );
    let full = verifier
        .verify(&shared_token(&Header::default(), asks))
        .await
        .unwrap();
    assert_eq!(full.scopes.to_string(), "watch admin support operator");
    let foreign = ED25519.token(Some("ed"), &claims(json!({"tenant": "third"})));
    assert_eq!(verifier.verify(&foreign).await, Err(Rejected::Tenant));
}

#[tokio::test]
async fn what_is_issued_is_believed() {
    let dir = TempDir::new();
    let configured = dir.write("own.pem", &P256.private_pem);
    let secret = || Secret::from(SECRET.to_owned());
    let named = || Auth {
        issuer: "us".to_owned(),
        audience: "us too".to_owned(),
        ..no_settings()
    };
    let cases = [
        ("EdDSA", no_settings()),
        ("EdDSA", named()),
        (
            "HS256",
            Auth {
                hmac_secret: secret(),
                ..named()
            },
        ),
        (
            "ES256",
            Auth {
                signing_key: configured.clone(),
                ..named()
            },
        ),
        (
            "ES256",
            Auth {
                signing_key: configured,
                hmac_secret: secret(),
                ..no_settings()
            },
        ),
    ];
    let grant = Grant {
        tenant: "t".to_owned(),
        device: Some("d".to_owned()),
        profile: Some("p".to_owned()),
        plan: Some("gold".to_owned()),
        streams: Some(7),
        contents: Some(vec!["m1".to_owned()]),
        scopes: Some(Scopes::from_iter([Scope::Operator, Scope::Introspect])),
        ..Grant::new("account-1", Duration::from_secs(60))
    };
    for (algorithm, settings) in cases {
        let verifier = Verifier::new(&settings, dir.path(), &Guard::default()).unwrap();
        let token = verifier.issue(&grant).unwrap();
        let header = jsonwebtoken::decode_header(token.expose()).unwrap();
        assert_eq!(format!("{:?}", header.alg), algorithm);
        assert_eq!(
            header.kid,
            (algorithm != "HS256").then(|| verifier.own_key().kid().to_owned())
        );
        let claims = verifier.verify(token.expose()).await.unwrap();
        assert_eq!((&*claims.tenant, &*claims.account), ("t", "account-1"));
        assert_eq!(
            (claims.device.as_deref(), claims.profile.as_deref()),
            (Some("d"), Some("p"))
        );
        assert_eq!((claims.plan.as_deref(), claims.streams), (Some("gold"), Some(7)));
        assert_eq!(
            (claims.contents, Some(claims.scopes)),
            (grant.contents.clone(), grant.scopes)
        );
    }
}

#[tokio::test]
async fn the_own_key_needs_no_kid_and_outlives_a_restart() {
    let dir = TempDir::new();
    let first = Verifier::new(&no_settings(), dir.path(), &Guard::default()).unwrap();
    let token = first.issue(&Grant::new("a", Duration::from_secs(60))).unwrap();
    let second = Verifier::new(&no_settings(), dir.path(), &Guard::default()).unwrap();
    assert_eq!(
        second.verify(token.expose()).await.unwrap().scopes,
        Scope::Watch.into()
    );

    let own = dir.write("own.pem", &ED25519.private_pem);
    let outside = Verifier::new(
        &Auth {
            signing_key: own,
            ..no_settings()
        },
        dir.path(),
        &Guard::default(),
    )
    .unwrap();
    assert!(
        outside
            .verify(&ED25519.token(None, &claims(json!({}))))
            .await
            .is_ok()
    );
    assert_eq!(outside.verify(token.expose()).await, Err(Rejected::Signature));
}

#[test]
fn a_token_that_nobody_would_believe_is_not_issued() {
    let dir = TempDir::new();
    let verifier = verifier(&dir);
    let good = || Grant::new("a", Duration::from_secs(60));
    let bad = [
        (
            "sub",
            Grant {
                account: String::new(),
                ..good()
            },
        ),
        (
            "tenant",
            Grant {
                tenant: "a b".to_owned(),
                ..good()
            },
        ),
        (
            "device",
            Grant {
                device: Some("d".repeat(257)),
                ..good()
            },
        ),
        (
            "streams",
            Grant {
                streams: Some(1001),
                ..good()
            },
        ),
        (
            "exp",
            Grant {
                ttl: Duration::MAX,
                ..good()
            },
        ),
    ];
    for (claim, grant) in bad {
        let issued = verifier.issue(&grant);
        assert!(
            matches!(issued, Err(AuthError::Grant(Rejected::Claims(name))) if name == claim),
            "{claim}"
        );
    }
}

#[tokio::test]
async fn a_short_secret_is_accepted() {
    let dir = TempDir::new();
    let settings = Auth {
        hmac_secret: Secret::from("short".to_owned()),
        ..no_settings()
    };
    let verifier = Verifier::new(&settings, dir.path(), &Guard::default()).unwrap();
    let key = EncodingKey::from_secret(b"short");
    let token = jsonwebtoken::encode(&Header::default(), &claims(json!({})), &key).unwrap();
    assert!(verifier.verify(&token).await.is_ok());
}

#[tokio::test]
async fn without_a_secret_there_is_no_hs256() {
    let dir = TempDir::new();
    let settings = Auth {
        keys: vec![pem_key(&dir, &RSA, "")],
        ..no_settings()
    };
    let verifier = Verifier::new(&settings, dir.path(), &Guard::default()).unwrap();
    for secret in ["", SECRET] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims(json!({})), &key).unwrap();
        assert_eq!(verifier.verify(&token).await, Err(Rejected::UnknownKey));
    }
}
