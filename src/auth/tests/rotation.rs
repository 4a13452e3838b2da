//! Keys that come and go at an identity provider. Time passes by the paused clock, in the moments when no socket is
//! in use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::fixture::{ED25519, P256, Pair, RSA, TempDir, claims, no_settings};
use super::key_server::{Answer, KeyServer, NO_KEYS};
use crate::auth::jwks::FLOOR;
use crate::auth::{Rejected, Verifier};
use crate::config::{Auth, Jwks};
use crate::outbound::Guard;

const REFRESH: Duration = Duration::from_secs(300);
/// For what should come at once: fails a hanging test, and is never waited out.
const SOON: Duration = Duration::from_secs(2);

fn keys(keys: &[Value]) -> Answer {
    Answer::Keys(json!({"keys": keys}))
}

fn settings(server: &KeyServer) -> Jwks {
    Jwks {
        url: format!("http://{}/jwks", server.address),
        ca: PathBuf::new(),
        issuer: String::new(),
        tenants: vec!["main".to_owned()],
        scopes: vec!["watch".to_owned()],
        refresh: REFRESH,
    }
}

fn verifier(dir: &TempDir, jwks: Vec<Jwks>) -> Verifier {
    Verifier::new(
        &Auth {
            jwks,
            ..no_settings()
        },
        dir.path(),
        &Guard::default(),
    )
    .unwrap()
}

async fn start(answer: Answer) -> (KeyServer, Verifier, TempDir) {
    let dir = TempDir::new();
    let server = KeyServer::start(answer, None).await;
    let verifier = verifier(&dir, vec![settings(&server)]);
    (server, verifier, dir)
}

fn token(pair: &Pair, kid: &str) -> String {
    pair.token(Some(kid), &claims(json!({})))
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn keys_are_fetched_at_first_need_and_then_kept() {
    let (server, verifier, _dir) = start(keys(&[ED25519.jwk("e"), P256.jwk("p"), RSA.jwk("r")])).await;
    assert_eq!(server.asked(), 0);
    for (pair, kid) in [(&*ED25519, "e"), (&*P256, "p"), (&*RSA, "r")] {
        assert!(verifier.verify(&token(pair, kid)).await.is_ok(), "{kid}");
    }
    assert_eq!(verifier.verify(&token(&RSA, "e")).await, Err(Rejected::Algorithm));
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_new_kid_is_found_after_a_rotation() {
    let (server, verifier, _dir) = start(keys(&[ED25519.jwk("1")])).await;
    assert!(verifier.verify(&token(&ED25519, "1")).await.is_ok());
    let next = Pair::ed25519();
    server.publish(&[next.jwk("2")]);
    assert!(
        verifier.verify(&token(&next, "2")).await.is_err(),
        "the floor holds"
    );
    pass(FLOOR).await;
    assert!(verifier.verify(&token(&next, "2")).await.is_ok());
    assert!(verifier.verify(&token(&ED25519, "1")).await.is_err(), "withdrawn");
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn an_old_set_is_refreshed_behind_the_back_of_a_verification() {
    let (server, verifier, _dir) = start(keys(&[ED25519.jwk("1")])).await;
    assert!(verifier.verify(&token(&ED25519, "1")).await.is_ok());
    pass(REFRESH).await;
    server.answer(Answer::Never);
    let verified = tokio::time::timeout(SOON, verifier.verify(&token(&ED25519, "1"))).await;
    assert!(verified.unwrap().is_ok(), "did not wait");
    server.wait_asked(2).await;
}

#[tokio::test]
async fn an_outage_leaves_the_last_keys_in_use() {
    let (server, verifier, _dir) = start(keys(&[ED25519.jwk("1")])).await;
    let good = token(&ED25519, "1");
    assert!(verifier.verify(&good).await.is_ok());
    let huge = format!("{NO_KEYS}{}", " ".repeat(256 * 1024));
    let outages = [
        Answer::Status(500),
        Answer::Status(404),
        Answer::Raw(b"<html>".to_vec()),
        Answer::Raw(huge.into_bytes()),
    ];
    for (i, outage) in outages.into_iter().enumerate() {
        server.answer(outage);
        pass(REFRESH).await;
        assert!(verifier.verify(&good).await.is_ok());
        // Joins the background refresh, so that its end is seen.
        assert!(verifier.verify(&token(&ED25519, "?")).await.is_err());
        assert!(verifier.verify(&good).await.is_ok());
        assert_eq!(server.asked(), i + 2);
    }
}

#[tokio::test]
async fn a_provider_that_was_away_at_first_is_asked_again() {
    let (server, verifier, _dir) = start(Answer::Status(503)).await;
    let good = token(&ED25519, "1");
    for _ in 0..10 {
        assert_eq!(
            verifier.verify(&good).await,
            Err(Rejected::Unavailable),
            "its keys were never seen: that is no verdict on the token"
        );
    }
    assert_eq!(server.asked(), 1, "failures obey the floor, too");
    server.publish(&[ED25519.jwk("1")]);
    pass(FLOOR).await;
    assert!(verifier.verify(&good).await.is_ok());
}

#[tokio::test]
async fn a_crowd_of_unknown_kids_causes_one_fetch() {
    let (server, verifier, _dir) = start(keys(&[P256.jwk("1")])).await;
    for fetches in 1..=3 {
        let tokens: Vec<_> = (0..100).map(|i| token(&RSA, &format!("{fetches}-{i}"))).collect();
        for _ in 0..2 {
            let verified = join_all(tokens.iter().map(|token| verifier.verify(token))).await;
            assert!(verified.iter().all(|result| *result == Err(Rejected::UnknownKey)));
            assert_eq!(server.asked(), fetches);
        }
        pass(FLOOR).await;
    }
}

#[tokio::test]
async fn a_shared_secret_token_never_asks() {
    let (server, verifier, _dir) = start(keys(&[])).await;
    let key = jsonwebtoken::EncodingKey::from_secret(b"guess");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims(json!({})), &key).unwrap();
    assert_eq!(verifier.verify(&token).await, Err(Rejected::UnknownKey));
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_slow_provider_holds_nobody_past_the_time_out() {
    let (server, verifier, _dir) = start(Answer::Never).await;
    let verifier = Arc::new(verifier);
    let waiting = tokio::spawn({
        let verifier = verifier.clone();
        async move { verifier.verify(&token(&RSA, "1")).await }
    });
    server.wait_asked(1).await;
    pass(Duration::from_millis(3001)).await;
    let verified = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!(verified, Err(Rejected::Unavailable));
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_stop_the_refresh() {
    let (server, verifier, _dir) = start(keys(&[RSA.jwk("1")])).await;
    let good = token(&RSA, "1");
    tokio::select! {
        biased;
        _ = verifier.verify(&good) => panic!("verified without asking"),
        () = std::future::ready(()) => {}
    }
    assert!(verifier.verify(&good).await.is_ok());
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = KeyServer::start(keys(&[RSA.jwk("1")]), None).await;
    let (server, verifier, _dir) = start(Answer::Redirect(format!("http://{}/", elsewhere.address))).await;
    assert_eq!(
        verifier.verify(&token(&RSA, "1")).await,
        Err(Rejected::Unavailable)
    );
    assert_eq!((server.asked(), elsewhere.asked()), (1, 0));
}

#[tokio::test]
async fn a_provider_speaks_for_its_issuer_tenants_and_scopes_only() {
    let dir = TempDir::new();
    let server = KeyServer::start(keys(&[RSA.jwk("1")]), None).await;
    let source = Jwks {
        issuer: "provider".to_owned(),
        ..settings(&server)
    };
    let verifier = verifier(&dir, vec![source]);
    let verify = async |changes: Value| verifier.verify(&RSA.token(Some("1"), &claims(changes))).await;
    assert_eq!(verify(json!({})).await, Err(Rejected::Issuer));
    assert_eq!(verify(json!({"iss": null})).await, Err(Rejected::Issuer));
    assert_eq!(
        verify(json!({"iss": "provider", "tenant": "other"})).await,
        Err(Rejected::Tenant)
    );
    let claims = verify(json!({"iss": "provider", "scope": "operator watch"}))
        .await
        .unwrap();
    assert_eq!(claims.scopes.to_string(), "watch");
}

/// A certificate for 127.0.0.1 and the PEM of the CA that signed it.
fn certificate() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf
        .signed_by(&key, &Issuer::from_params(&params, &ca_key))
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca.pem())
}

#[tokio::test]
async fn https_trusts_the_configured_ca_alone() {
    let dir = TempDir::new();
    let (acceptor, ca) = certificate();
    let (_, another_ca) = certificate();
    let server = KeyServer::start(keys(&[RSA.jwk("1")]), Some(acceptor)).await;
    let source = |ca: &str| Jwks {
        url: format!("https://{}/jwks", server.address),
        ca: dir.write("ca.pem", ca),
        ..settings(&server)
    };
    let stranger = verifier(&dir, vec![source(&another_ca)]);
    assert_eq!(
        stranger.verify(&token(&RSA, "1")).await,
        Err(Rejected::Unavailable)
    );
    assert_eq!(server.asked(), 0);
    let verifier = verifier(&dir, vec![source(&ca)]);
    assert!(verifier.verify(&token(&RSA, "1")).await.is_ok());
}
