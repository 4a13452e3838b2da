//! Tokens at the door: what is refused, always with the same words, and where a token may stand.
//!
//! Long for its tables of bad tokens, each row of which is one attack.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::PublicKeyData;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Node, SECRET, now, sign, token};
use crate::stage::{Place, ask, handshake};

/// Somebody who signs tokens.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    public: rcgen::KeyPair,
}

impl Signer {
    fn es256() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self {
            algorithm: Algorithm::ES256,
            key,
            public: pair,
        }
    }

    fn rs256() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self {
            algorithm: Algorithm::RS256,
            key,
            public: pair,
        }
    }

    fn ed25519() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self {
            algorithm: Algorithm::EdDSA,
            key,
            public: pair,
        }
    }

    /// The key that the gateway has made for itself.
    fn own(node: &Node) -> Self {
        let pem = fs::read_to_string(node.dir.join("data/signing-key.pem")).unwrap();
        Self {
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
            public: rcgen::KeyPair::from_pem(&pem).unwrap(),
        }
    }

    fn token(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(self.algorithm), claims, &self.key).unwrap()
    }

    /// With any header, signed all the same.
    fn headed(&self, header: &Value, claims: &Value) -> String {
        signed(header, claims, &self.key, self.algorithm)
    }

    fn jwk(&self, kid: &str) -> Value {
        // The last 65 bytes of a P-256 SubjectPublicKeyInfo are the uncompressed point.
        assert_eq!(self.algorithm, Algorithm::ES256);
        let der = self.public.subject_public_key_info();
        let point = &der[der.len() - 64..];
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
            "x": URL_SAFE_NO_PAD.encode(&point[..32]), "y": URL_SAFE_NO_PAD.encode(&point[32..]),
        })
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

fn signed(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = unsigned(header, claims);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// Claims of a good token, with changes laid over them; a `null` removes.
fn claims(changes: &Value) -> Value {
    let mut claims =
        json!({"sub": "account-of-a-bad-token", "exp": now() + 600, "iss": "idp", "aud": "usher"});
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// A gateway that takes all four algorithms, with audience and issuer.
async fn strict() -> (Node, Signer, Signer) {
    let (ec, rsa) = (Signer::es256(), Signer::rs256());
    let place = Place::with(
        "[auth]\naudience = \"usher\"\nissuer = \"idp\"\n\
         [[auth.keys]]\nfile = \"ec.pem\"\nalgorithm = \"ES256\"\nkid = \"ec\"\n\
         [[auth.keys]]\nfile = \"rsa.pem\"\nalgorithm = \"RS256\"\n",
    );
    place.write("ec.pem", &ec.public.public_key_pem());
    place.write("rsa.pem", &rsa.public.public_key_pem());
    let environment = [("USHER_AUTH__HMAC_SECRET", SECRET), ("USHER_LOG__LEVEL", "trace")];
    (place.serve(&environment, &[]).await, ec, rsa)
}

/// Under the right signature of the shared secret, but wrong in what they say.
fn bad_claims() -> Vec<(String, String)> {
    let table = [
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": "x".repeat(257)}),
        json!({"exp": null}),
        json!({"exp": "tomorrow"}),
        json!({"exp": 1e300}),
        json!({"exp": true}),
        json!({"exp": 0}),
        json!({"exp": now() - 60}),
        json!({"nbf": now() + 120}),
        json!({"nbf": "now"}),
        json!({"iss": null}),
        json!({"iss": "evil"}),
        json!({"iss": ["idp"]}),
        json!({"aud": null}),
        json!({"aud": "elsewhere"}),
        json!({"aud": ["elsewhere"]}),
        json!({"aud": []}),
        json!({"aud": ["usher", "usher-ticket"]}),
        json!({"aud": "usher-ticket"}),
        json!({"tenant": ""}),
        json!({"tenant": "a/b"}),
        json!({"tenant": 1}),
        json!({"device": 1}),
        json!({"streams": -1}),
        json!({"streams": "3"}),
        json!({"contents": "m1"}),
        json!({"scope": ["watch"]}),
    ];
    table
        .into_iter()
        .map(|changes| (format!("claims {changes}"), sign(&claims(&changes))))
        .collect()
}

/// Wrong in form, algorithm, key or header.
fn bad_forms(own: &Signer, ec: &Signer, rsa: &Signer) -> Vec<(String, String)> {
    let body = claims(&json!({}));
    let good = sign(&body);
    let shared = EncodingKey::from_secret(SECRET.as_bytes());
    let stranger = Signer::ed25519();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let payload = message.split_once('.').unwrap().1;
    let mut bad = vec![
        ("not a token", "nonsense".to_owned()),
        ("two dots", "..".to_owned()),
        ("five segments", format!("{good}.x.y")),
        ("without its signature", message.to_owned()),
        ("with an empty signature", format!("{message}.")),
        ("padding", format!("{good}==")),
        ("altered signature", format!("{message}.A{}", &signature[1..])),
        ("cut signature", good[..good.len() - 3].to_owned()),
        ("signature of another", {
            let other = sign(&claims(&json!({"sub": "another-account"})));
            format!("{message}.{}", other.rsplit_once('.').unwrap().1)
        }),
        ("a stranger's key", stranger.token(&body)),
        ("a stranger's ES256 key", Signer::es256().token(&body)),
        (
            "an issuer's key for another tenant",
            ec.token(&claims(&json!({"tenant": "other"}))),
        ),
        (
            "64 KiB",
            format!("{message}{}.{signature}", "A".repeat(64 * 1024)),
        ),
        (
            "HS512",
            signed(&json!({"alg": "HS512"}), &body, &shared, Algorithm::HS512),
        ),
        (
            "HS512 called HS256",
            signed(&json!({"alg": "HS256"}), &body, &shared, Algorithm::HS512),
        ),
        ("RS256 called PS256", rsa.headed(&json!({"alg": "PS256"}), &body)),
        (
            "ES256 with the kid of none",
            ec.headed(&json!({"alg": "RS256", "kid": "ec"}), &body),
        ),
        (
            "a ticket",
            signed(
                &json!({"alg": "HS256", "typ": "usher-ticket+jwt"}),
                &body,
                &shared,
                Algorithm::HS256,
            ),
        ),
        (
            "a ticket of our own key",
            own.headed(&json!({"alg": "EdDSA", "typ": "usher-ticket+jwt"}), &body),
        ),
        (
            "crit",
            signed(
                &json!({"alg": "HS256", "crit": ["exp"]}),
                &body,
                &shared,
                Algorithm::HS256,
            ),
        ),
        (
            "alg a number",
            signed(&json!({"alg": 1}), &body, &shared, Algorithm::HS256),
        ),
        ("header not JSON", format!("AAAA.{payload}.{signature}")),
        ("a wrong secret", {
            let key = EncodingKey::from_secret(b"another secret, 32 bytes long...");
            signed(&json!({"alg": "HS256"}), &body, &key, Algorithm::HS256)
        }),
        ("an empty secret", {
            signed(
                &json!({"alg": "HS256"}),
                &body,
                &EncodingKey::from_secret(b""),
                Algorithm::HS256,
            )
        }),
    ]
    .into_iter()
    .map(|(name, token)| (name.to_owned(), token))
    .collect::<Vec<_>>();
    for none in ["none", "None", "nOnE", ""] {
        let token = format!("{}.", unsigned(&json!({"alg": none, "typ": "JWT"}), &body));
        bad.push((format!("alg {none:?}"), token));
    }
    for kid in [
        "../../data/signing-key.pem",
        "/dev/null",
        "x' UNION SELECT 'secret",
        "https://evil.example/key",
        "\0",
    ] {
        let token = stranger.headed(&json!({"alg": "EdDSA", "kid": kid}), &body);
        bad.push((format!("kid {kid:?}"), token));
    }
    for name in ["jku", "x5u", "jwk", "x5c"] {
        let value = if name == "jwk" {
            Signer::es256().jwk("ec")
        } else {
            json!("http://127.0.0.1:9/k")
        };
        let token = stranger.headed(&json!({"alg": "EdDSA", name: value}), &body);
        bad.push((format!("embedded {name}"), token));
    }
    for (name, signer) in [("own", own), ("ES256", ec), ("RS256", rsa)] {
        let (pem, der) = (
            signer.public.public_key_pem(),
            signer.public.subject_public_key_info(),
        );
        for (form, secret) in [("PEM", pem.trim().as_bytes()), ("DER", &der)] {
            let key = EncodingKey::from_secret(secret);
            let token = signed(&json!({"alg": "HS256"}), &body, &key, Algorithm::HS256);
            bad.push((format!("HS256 with the {name} public key as {form}"), token));
        }
    }
    bad
}

#[tokio::test]
async fn every_bad_token_is_401_with_one_body_and_leaves_nothing_behind() {
    let (node, ec, rsa) = strict().await;
    let own = Signer::own(&node);
    let mut bad = bad_forms(&own, &ec, &rsa);
    bad.extend(bad_claims());
    assert!(bad.len() >= 60, "{}", bad.len());
    // All on one connection: a refusal does not end it.
    let mut stream = node.connect().await;
    let target = "/v1/watch?content=m&device=d";
    let first = ask(&mut stream, &handshake(target, &[])).await;
    assert_eq!(first.refusal(), (401, "unauthorized".to_owned(), None));
    let constant = |answer: &crate::stage::Answer| {
        let mut body = answer.json();
        body["error"]["request_id"].take();
        (
            answer.status,
            body,
            answer.header("www-authenticate").map(str::to_owned),
        )
    };
    let expected = constant(&first);
    assert_eq!(expected.2.as_deref(), Some("Bearer"));
    for (name, token) in &bad {
        let bearer = format!("Bearer {token}");
        let answer = ask(&mut stream, &handshake(target, &[("Authorization", &bearer)])).await;
        assert_eq!(constant(&answer), expected, "{name}");
    }
    for other in ["Bearer", "Bearer  ", "Basic YTpi", "Token x", "Bearer a b"] {
        let answer = ask(&mut stream, &handshake(target, &[("Authorization", other)])).await;
        assert_eq!(constant(&answer), expected, "{other:?}");
    }
    assert_eq!(node.metric("usher_sessions_active{tenant=\"main\"}").await, 0.0);
    assert_eq!(
        node.metric("usher_admissions_total{outcome=\"granted\"}").await,
        0.0
    );
    assert_eq!(
        node.metric("usher_admissions_total{outcome=\"error\"}").await,
        0.0
    );
    let operator = sign(&claims(&json!({"scope": "operator"})));
    let (_, _, list) = node.admin_get("/v1/admin/sessions", Some(&operator)).await;
    assert_eq!(
        serde_json::from_str::<Value>(&list).unwrap()["total"],
        0,
        "{list}"
    );

    // The same doors open for the same people with good tokens.
    for (device, token) in [
        ("hs", sign(&claims(&json!({})))),
        ("own", own.token(&claims(&json!({"aud": ["x", "usher"]})))),
        (
            "ec",
            ec.headed(
                &json!({"alg": "ES256", "kid": "ec"}),
                &claims(&json!({"sub": "ec"})),
            ),
        ),
        ("rsa", rsa.token(&claims(&json!({"sub": "rsa"})))),
    ] {
        let mut player = node
            .try_watch(&token, &format!("content=m&device={device}"))
            .await
            .unwrap();
        assert_eq!(player.next().await["type"], "granted", "{device}");
    }
    let log = node.log();
    assert!(log.contains("token rejected"), "the refusals are logged");
    for (name, token) in &bad {
        for segment in token.split('.').filter(|segment| segment.len() >= 16) {
            assert!(
                !log.contains(segment),
                "{name}: a part of the token is in the log"
            );
        }
    }
}

#[tokio::test]
async fn a_token_may_stand_in_the_subprotocol_which_is_never_echoed() {
    let node = Node::start().await;
    let bearer = format!("bearer.{}", token("a"));
    for (offer, echoed) in [
        (format!("usher.v1, {bearer}"), Some("usher.v1")),
        (format!("{bearer}, usher.v1"), Some("usher.v1")),
        (bearer.clone(), None),
    ] {
        let request = handshake("/v1/watch?content=m", &[("Sec-WebSocket-Protocol", &offer)]);
        let answer = node.ask(&request).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-protocol"), echoed);
        assert_eq!(
            answer.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(answer.header("sec-websocket-extensions"), None);
        assert!(!format!("{answer:?}").contains("bearer"), "{answer:?}");
    }
    // Beside a header, the subprotocol stays optional.
    let authorization = format!("Bearer {}", token("b"));
    let headers = [
        ("Authorization", &*authorization),
        ("Sec-WebSocket-Protocol", "usher.v1"),
    ];
    let answer = node.ask(&handshake("/v1/watch?content=m", &headers)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("sec-websocket-protocol")),
        (101, Some("usher.v1"))
    );
    // Deflate is offered by browsers and never accepted.
    let headers = [
        ("Authorization", &*authorization),
        (
            "Sec-WebSocket-Extensions",
            "permessage-deflate; client_max_window_bits",
        ),
    ];
    let answer = node.ask(&handshake("/v1/watch?content=m", &headers)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("sec-websocket-extensions")),
        (101, None)
    );
    assert!(!node.log().contains(token("a").rsplit_once('.').unwrap().1));
}

/// Gateway, target, headers and expected status.
type Row<'a> = (&'a Node, &'a str, &'a [(&'a str, &'a str)], u16);

#[tokio::test]
async fn the_first_token_found_wins_and_the_query_counts_only_where_allowed() {
    let closed = Node::start().await;
    let open = Node::with("[auth]\nquery_token = true").await;
    let good = token("a");
    let in_header = format!("Bearer {good}");
    let in_protocol = format!("usher.v1, bearer.{good}");
    let (plain, in_query, bad_query) = (
        "/v1/watch?content=m".to_owned(),
        format!("/v1/watch?content=m&token={good}"),
        "/v1/watch?content=m&token=bad".to_owned(),
    );
    let header = |value| ("Authorization", value);
    let protocol = |value| ("Sec-WebSocket-Protocol", value);
    let (good_header, bad_header, basic) = (header(&*in_header), header("Bearer bad"), header("Basic eDp5"));
    let (good_protocol, bad_protocol) = (protocol(&*in_protocol), protocol("usher.v1, bearer.bad"));
    let table: [Row<'_>; 11] = [
        (&closed, &in_query, &[], 401),
        (&closed, &bad_query, &[good_header], 101),
        (&closed, &plain, &[good_header, bad_protocol], 101),
        (&closed, &plain, &[bad_header, good_protocol], 401),
        (&closed, &plain, &[basic, good_protocol], 101),
        (&closed, &plain, &[good_header, good_header], 401),
        (&open, &in_query, &[], 101),
        (&open, &in_query, &[bad_header], 401),
        (&open, &in_query, &[bad_protocol], 401),
        (&open, &bad_query, &[good_protocol], 101),
        (&open, &bad_query, &[], 401),
    ];
    for (number, (node, target, headers, status)) in table.into_iter().enumerate() {
        let answer = node.ask(&handshake(target, headers)).await;
        assert_eq!(answer.status, status, "row {number}: {answer:?}");
    }
    for node in [&closed, &open] {
        assert!(!node.log().contains(&good), "a token is in the log");
        assert!(!node.log().contains("token=bad"), "a query is in the log");
    }
}

#[tokio::test]
async fn a_token_that_may_not_watch_is_forbidden() {
    let node = Node::start().await;
    for (scope, status) in [
        ("support admin", 403),
        ("operator", 403),
        ("", 403),
        ("admin watch", 101),
    ] {
        let token = sign(&json!({"sub": "a", "exp": now() + 60, "scope": scope}));
        let bearer = format!("Bearer {token}");
        let answer = node
            .ask(&handshake("/v1/watch?content=m", &[("Authorization", &bearer)]))
            .await;
        assert_eq!(answer.status, status, "{scope:?}: {answer:?}");
        if status == 403 {
            assert_eq!(answer.refusal().1, "scope_forbidden");
        }
    }
}

/// Serves a key set that the test changes; `None` is an outage.
async fn identity_provider(keys: Arc<Mutex<Option<Value>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = match &*keys.lock().unwrap() {
                Some(keys) => {
                    let body = json!({"keys": keys}).to_string();
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    )
                }
                None => "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
            };
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn keys_of_an_identity_provider_are_fetched_rotated_and_outlive_its_outage() {
    let (first, second) = (Signer::es256(), Signer::es256());
    let keys = Arc::new(Mutex::new(Some(json!([first.jwk("1")]))));
    let port = identity_provider(Arc::clone(&keys)).await;
    let node = Node::with(&format!(
        "[[auth.jwks]]\nurl = \"http://127.0.0.1:{port}/jwks\"\nissuer = \"idp\"\nrefresh = \"1s\""
    ))
    .await;
    let token_of = |signer: &Signer, kid: &str, changes: Value| {
        signer.headed(&json!({"alg": "ES256", "kid": kid}), &claims(&changes))
    };
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        node.ask(&handshake(
            "/v1/watch?content=m&device=d",
            &[("Authorization", &bearer)],
        ))
        .await
        .status
        .as_u16()
    };
    let old = token_of(&first, "1", json!({}));
    let new = token_of(&second, "2", json!({}));
    assert_eq!(status(&old).await, 101);
    let fetched = Instant::now();
    assert_eq!(status(&token_of(&first, "1", json!({"iss": "other"}))).await, 401);
    assert_eq!(
        status(&token_of(&first, "1", json!({"tenant": "other"}))).await,
        401,
        "its tenant only"
    );
    // A provider that was not given the scope cannot make operators.
    let operator = token_of(&first, "1", json!({"scope": "operator watch"}));
    let (refused, _, _) = node.admin_get("/v1/admin/sessions", Some(&operator)).await;
    assert_eq!(refused, 403);

    *keys.lock().unwrap() = Some(json!([second.jwk("2")]));
    // Not asked again before 10 s have passed, however many unknown keys are tried.
    while status(&new).await != 101 {
        assert!(
            fetched.elapsed() < Duration::from_secs(20),
            "the rotation was not followed"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(fetched.elapsed() > Duration::from_secs(8), "asked again too soon");
    assert_eq!(status(&old).await, 401, "a withdrawn key");
    *keys.lock().unwrap() = None;
    assert_eq!(status(&new).await, 101, "an outage takes no key away");
}

#[tokio::test]
async fn a_provider_that_was_never_reached_is_no_verdict_on_a_token() {
    let keys = Arc::new(Mutex::new(None));
    let port = identity_provider(Arc::clone(&keys)).await;
    let node = Node::with(&format!("[[auth.jwks]]\nurl = \"http://127.0.0.1:{port}/jwks\"")).await;
    let signer = Signer::es256();
    let token = signer.headed(&json!({"alg": "ES256", "kid": "1"}), &claims(&json!({})));
    let bearer = format!("Bearer {token}");
    let request = handshake("/v1/watch?content=m&device=d", &[("Authorization", &bearer)]);
    let answer = node.ask(&request).await;
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned(), None));
    assert!(answer.header("retry-after").is_some());
    // The node's own tokens do not depend on it.
    let mut player = node.watch("a", "content=m&device=d").await;
    assert_eq!(player.next().await["type"], "granted");
}

/// The check of a fresh token waits for a provider that accepts and never answers; the session does not.
#[tokio::test]
async fn a_slow_provider_holds_up_no_session() {
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = deaf.local_addr().unwrap().port();
    let node = Node::with(&format!("[[auth.jwks]]\nurl = \"http://127.0.0.1:{port}/jwks\"")).await;
    let mut player = node.watch("a", "content=m&device=d").await;
    player.next_of("granted").await;
    let fresh = Signer::es256().headed(&json!({"alg": "ES256", "kid": "1"}), &claims(&json!({})));
    player
        .say(json!({"type": "token", "token": fresh, "id": 1}))
        .await;
    let (_asked, _) = deaf.accept().await.unwrap();
    let start = Instant::now();
    player.say(json!({"type": "fly", "id": 2})).await;
    assert_eq!(player.next().await["id"], 2, "answered before the token is");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let unknown = player.next().await;
    assert_eq!(
        (&unknown["code"], &unknown["id"]),
        (&json!("unavailable"), &json!(1))
    );
    player.say(json!({"type": "stop"})).await;
    assert_eq!(player.closed().await.0, 4000);
}
