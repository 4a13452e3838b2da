//! Tickets from outside: what a player is given and when, and what those who check them are answered, on any node.

use std::fs;
use std::time::{Duration, Instant, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Node, Player, SOON, now, sign, token};
use crate::redis_servers::{Redis, until};
use crate::stage::{Answer, Place, get, request};

/// Tickets that are pushed after 4 to 5 s.
const BRISK: &str = "[tickets]\nlifetime = \"10s\"\nrenew_before = \"5s\"\n";

/// What a ticket says, unchecked.
fn payload(ticket: &str) -> Value {
    let part = ticket.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn text(ticket: &Value) -> String {
    ticket["token"].as_str().unwrap().to_owned()
}

async fn granted(node: &Node, token: &str, query: &str) -> (Player, Value) {
    let mut player = node.try_watch(token, query).await.unwrap();
    let message = player.next().await;
    assert_eq!(message["type"], "granted", "{message}");
    (player, message)
}

fn bearer(scope: &str, tenant: &str) -> String {
    let claims = json!({"sub": "checker", "exp": now() + 60, "scope": scope, "tenant": tenant});
    format!("Bearer {}", sign(&claims))
}

async fn introspect_as(node: &Node, authorization: &str, ticket: &str) -> Answer {
    let body = json!({"token": ticket}).to_string();
    let length = body.len().to_string();
    let headers = [
        ("Authorization", authorization),
        ("Content-Type", "application/json"),
        ("Content-Length", &*length),
    ];
    node.ask(&(request("POST", "/v1/introspect", &headers) + &body))
        .await
}

async fn introspect(node: &Node, ticket: &str) -> Value {
    let answer = introspect_as(node, &bearer("introspect", "main"), ticket).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The status of a check, and its code.
async fn check(node: &Node, query: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let answer = node
        .ask(&get(&format!("/v1/tickets/check{query}"), headers))
        .await;
    match answer.status.as_u16() {
        204 => (204, String::new()),
        _ => (answer.status.as_u16(), answer.refusal().1),
    }
}

#[tokio::test]
async fn a_player_has_a_good_ticket_as_long_as_it_plays_and_none_after() {
    let node = Node::with(BRISK).await;
    let (mut player, grant) = granted(&node, &token("ann"), "content=m1&device=d1").await;
    let mut ticket = grant["ticket"].clone();
    for _ in 0..2 {
        let claims = payload(&text(&ticket));
        let exp = UNIX_EPOCH + Duration::from_secs(claims["exp"].as_u64().unwrap());
        assert_eq!(
            ticket["expires_at"],
            humantime::format_rfc3339_millis(exp).to_string()
        );
        let expected = json!({
            "iss": "usher", "aud": "usher-ticket", "sub": "ann", "tenant": "main", "content": "m1",
            "sid": grant["session"], "iat": claims["iat"], "exp": claims["exp"],
        });
        assert_eq!(claims, expected);
        let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert!((9..=10).contains(&life), "{life}");
        let next = player.next_within(SOON).await;
        assert_eq!(next["type"], "ticket", "{next}");
        assert!(
            now() + 3 < claims["exp"].as_u64().unwrap(),
            "well before the end of the one before"
        );
        ticket = next;
    }
    // What plays from now on is in the next ticket, which comes at once.
    let switched = Instant::now();
    player.say(json!({"type": "switch", "content": "m2"})).await;
    let next = player.next().await;
    assert_eq!(payload(&text(&next))["content"], "m2");
    assert!(
        switched.elapsed() < Duration::from_secs(1),
        "{:?}",
        switched.elapsed()
    );
    player
        .say(json!({"type": "switch", "content": "m2", "id": 1}))
        .await;
    assert_eq!(player.next().await["type"], "ticket");
    player.say(json!({"type": "stop"})).await;
    let (code, messages) = player.closed().await;
    assert_eq!((code, messages.len()), (4000, 1), "{messages:?}");
    assert!(node.metric("usher_tickets_issued_total").await >= 5.0);
}

/// The token bounds the ticket; a fresh token brings the next ticket.
#[tokio::test]
async fn a_ticket_never_outlives_the_access_token() {
    let node = Node::with("").await;
    let claims = |life: u64| sign(&json!({"sub": "bo", "exp": now() + life}));
    let (mut player, grant) = granted(&node, &claims(5), "content=m1").await;
    let end = payload(&text(&grant["ticket"]))["exp"].as_u64().unwrap();
    assert!(end <= now() + 5, "{end}");
    player.say(json!({"type": "token", "token": claims(600)})).await;
    let next = player.next_of("ticket").await;
    let end = payload(&text(&next))["exp"].as_u64().unwrap();
    assert!((now() + 55..=now() + 60).contains(&end), "{end}");
}

#[tokio::test]
async fn where_nobody_checks_tickets_none_are_issued() {
    let node = Node::with("[tickets]\nenabled = false").await;
    let (mut player, grant) = granted(&node, &token("cy"), "content=m1").await;
    assert_eq!(grant["ticket"], Value::Null);
    player.say(json!({"type": "switch", "content": "m2"})).await;
    player.say(json!({"type": "stop"})).await;
    let (code, messages) = player.closed().await;
    assert_eq!((code, messages.len()), (4000, 1), "{messages:?}");
    assert!(node.metric("usher_tickets_issued_total").await < 0.5);
}

/// On any node, at once, and only for those who may know.
#[tokio::test]
async fn introspection_tells_whether_the_session_lives() {
    let redis = Redis::start(&[]).await;
    let place = || {
        let place = Place::with(&format!(
            "[auth]\nsigning_key = \"shared.pem\"\n[redis]\nurl = \"{}\"",
            redis.url()
        ));
        place.write("shared.pem", &shared_key());
        place.start()
    };
    let (a, b) = tokio::join!(place(), place());
    let (mut player, grant) = granted(&a, &token("di"), "content=m1&device=d1").await;
    let ticket = text(&grant["ticket"]);
    let expected = json!({
        "active": true, "sid": grant["session"], "sub": "di", "tenant": "main", "content": "m1",
        "exp": payload(&ticket)["exp"],
    });
    for node in [&a, &b] {
        assert_eq!(introspect(node, &ticket).await, expected);
        assert_eq!(
            check(node, &format!("?ticket={ticket}&content=m1"), &[]).await.0,
            204
        );
    }
    let inactive = json!({"active": false});
    // Access tokens, nonsense and a changed ticket are no tickets.
    for bad in [
        token("di"),
        "x.y.z".to_owned(),
        String::new(),
        format!("{ticket}A"),
        "x".repeat(9_000),
    ] {
        assert_eq!(introspect(&b, &bad).await, inactive, "{bad}");
    }
    let foreign = introspect_as(&b, &bearer("introspect", "other"), &ticket).await;
    assert_eq!(foreign.json(), inactive, "another tenant learns nothing");
    let both = introspect_as(&b, &bearer("introspect operator", "other"), &ticket).await;
    assert_eq!(both.json(), expected);
    for authorization in [
        bearer("watch", "main"),
        bearer("operator", "main"),
        bearer("admin support", "main"),
    ] {
        let answer = introspect_as(&b, &authorization, &ticket).await;
        assert_eq!(answer.refusal(), (403, "scope_forbidden".to_owned(), None));
    }
    for no_token in ["", "Bearer x.y.z", &format!("Bearer {ticket}")] {
        assert_eq!(
            introspect_as(&b, no_token, &ticket).await.refusal().0,
            401,
            "a ticket opens nothing"
        );
    }
    assert_eq!(a.try_watch(&ticket, "content=m1").await.err().unwrap().0, 401);

    player.say(json!({"type": "stop"})).await;
    assert_eq!(player.next_of("ended").await["code"], "stopped");
    for node in [&a, &b] {
        assert_eq!(introspect(node, &ticket).await, inactive, "at once");
        let query = format!("?ticket={ticket}");
        assert_eq!(check(node, &query, &[]).await, (403, "session_ended".to_owned()));
        assert_eq!(
            check(node, &format!("{query}&lease=false"), &[]).await.0,
            204,
            "good by itself"
        );
    }
}

/// An operator's word ends it for checkers also while its node has yet to hear of it.
#[tokio::test]
async fn a_session_that_is_to_end_is_dead_to_checkers() {
    let node = Node::start().await;
    let (player, grant) = granted(&node, &token("ed"), "content=m1").await;
    let ticket = text(&grant["ticket"]);
    // It vanishes: its slot is kept for a resume, and its session lives so long.
    player.cut();
    assert_eq!(introspect(&node, &ticket).await["active"], true);
    let operator = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
    let path = "/v1/admin/accounts/ed/sessions";
    assert_eq!(
        node.admin_request("DELETE", path, Some(&operator), "").await.0,
        200
    );
    assert_eq!(introspect(&node, &ticket).await["active"], false);
}

/// What Redis lost is not dead: its node writes it again.
#[tokio::test]
async fn a_loss_of_data_kills_no_ticket() {
    let redis = Redis::start(&[]).await;
    let node = Node::with(&format!("[redis]\nurl = \"{}\"", redis.url())).await;
    let (mut player, grant) = granted(&node, &token("flo"), "content=m1").await;
    let ticket = text(&grant["ticket"]);
    redis.ask(&["FLUSHALL"]).await;
    assert_eq!(check(&node, &format!("?ticket={ticket}"), &[]).await.0, 204);
    assert_eq!(introspect(&node, &ticket).await["active"], true);
    // Redis is away: whoever has the session knows that it lives, and nobody kills what nobody can judge.
    redis.stop();
    until("the node knows", async || {
        (node.admin_get("/readyz", None).await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(introspect(&node, &ticket).await["active"], true);
    player.say(json!({"type": "stop"})).await;
    player.closed().await;
    let answer = introspect_as(&node, &bearer("introspect", "main"), &ticket).await;
    assert_eq!(answer.refusal().0, 503);
    assert_eq!(check(&node, &format!("?ticket={ticket}"), &[]).await.0, 204);
    redis.cont();
}

#[tokio::test]
async fn the_check_takes_a_ticket_from_three_places_and_says_what_is_wrong() {
    let node = Node::start().await;
    let (_player, grant) = granted(&node, &token("gil"), "content=m/1&device=d1").await;
    let ticket = text(&grant["ticket"]);
    let own = format!("?ticket={ticket}");
    let (as_bearer, original) = (
        format!("Bearer {ticket}"),
        format!("/media/m1/a.ts?x=1&ticket={ticket}"),
    );
    let bad = ("Authorization", "Bearer x.y.z");
    let unauthorized = || (401, "unauthorized".to_owned());
    assert_eq!(check(&node, &own, &[]).await.0, 204);
    assert_eq!(check(&node, "", &[("Authorization", &as_bearer)]).await.0, 204);
    assert_eq!(check(&node, "", &[("X-Original-URI", &original)]).await.0, 204);
    assert_eq!(
        check(&node, "?ticket=x", &[("X-Original-URI", &original)])
            .await
            .0,
        204
    );
    assert_eq!(
        check(&node, &own, &[("X-Original-URI", "/media/m1/a.ts")])
            .await
            .0,
        204
    );
    assert_eq!(
        check(&node, &own, &[bad]).await,
        unauthorized(),
        "the first place decides"
    );
    assert_eq!(check(&node, "", &[]).await, unauthorized());
    assert_eq!(check(&node, "?ticket=", &[]).await, unauthorized());
    assert_eq!(
        check(&node, &format!("?ticket={}", token("gil")), &[]).await,
        unauthorized()
    );
    assert_eq!(
        check(&node, "", &[("X-Original-URI", "http://[/")]).await,
        unauthorized()
    );
    assert_eq!(check(&node, &format!("{own}&content=m%2F1"), &[]).await.0, 204);
    for other in ["m1", "M/1", ""] {
        let query = format!("{own}&content={other}");
        assert_eq!(
            check(&node, &query, &[]).await,
            (403, "content_forbidden".to_owned())
        );
    }
    for query in ["&lease=maybe", "&lease=true&lease=false"] {
        assert_eq!(check(&node, &format!("{own}{query}"), &[]).await.0, 400);
    }
    // Neither body nor media type of a stranger makes anything but an answer.
    let operator = bearer("introspect", "main");
    for (kind, body, status) in [
        ("text/plain", "{\"token\":\"x\"}", 415),
        ("application/json", "{\"token\":7}", 400),
        ("application/json", "", 400),
        ("application/json; charset=utf-8", "{\"token\":\"x\"}", 200),
        (
            "application/json",
            &format!("{{\"token\":\"{}\"}}", "x".repeat(20_000)),
            413,
        ),
    ] {
        let length = body.len().to_string();
        let headers = [
            ("Authorization", &*operator),
            ("Content-Type", kind),
            ("Content-Length", &*length),
        ];
        let answer = node
            .ask(&(request("POST", "/v1/introspect", &headers) + body))
            .await;
        assert_eq!(answer.status, status, "{kind} {answer:?}");
    }
}

/// A new key signs after a SIGHUP. Who plays goes on, with tickets of both keys good, and who comes back is let in.
#[tokio::test]
async fn rotating_the_key_drops_nobody() {
    let place = Place::with(BRISK);
    // Access tokens of the own key too: no shared secret.
    let node = place.serve(&[("USHER_LOG__LEVEL", "debug")], &[]).await;
    let access = |node: &Node| {
        let printed = crate::stage::run_in(&node.dir, &[], &["token", "--account", "hal"]);
        printed.stdout.trim().to_owned()
    };
    let old_access = access(&node);
    let (mut player, grant) = granted(&node, &old_access, "content=m1&device=d1").await;
    let old = text(&grant["ticket"]);
    let kids = async || {
        let answer = node.ask(&get("/.well-known/jwks.json", &[])).await;
        assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
        assert!(
            answer
                .header("cache-control")
                .unwrap()
                .starts_with("public, max-age=")
        );
        let keys = answer.json()["keys"].as_array().unwrap().clone();
        assert!(
            keys.iter().all(|key| key.get("d").is_none()),
            "no private key is published"
        );
        keys.iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = kids().await;
    assert_eq!(before.len(), 1);

    let data = node.dir.join("data");
    fs::rename(data.join("signing-key.pem"), data.join("signing-key-old.pem")).unwrap();
    let settings = format!("{BRISK}[auth]\nrotation_keys = [\"data/signing-key-old.pem\"]\n");
    fs::write(node.dir.join("usher.toml"), settings).unwrap();
    node.signal("-HUP");
    node.logs(&["configuration and certificates reloaded"]).await;
    let after = kids().await;
    assert_eq!(
        (after.len(), after.contains(&before[0]), after[0] != before[0]),
        (2, true, true)
    );

    let next = player.next_of("ticket").await;
    let kid_of = |ticket: &str| jsonwebtoken::decode_header(ticket).unwrap().kid.unwrap();
    assert_eq!(
        (kid_of(&old), kid_of(&text(&next))),
        (before[0].clone(), after[0].clone())
    );
    for ticket in [&old, &text(&next)] {
        assert_eq!(check(&node, &format!("?ticket={ticket}"), &[]).await.0, 204);
    }
    let resume = grant["resume"].as_str().unwrap();
    let query = format!("content=m1&device=d1&resume={resume}");
    let (mut again, resumed) = granted(&node, &old_access, &query).await;
    assert_eq!(resumed["resumed"], true, "a token of the old key still opens");
    assert_eq!(player.closed().await.0, 4006);
    let fresh = access(&node);
    assert_eq!(kid_of(&fresh), after[0]);
    again.say(json!({"type": "token", "token": fresh})).await;
    again.say(json!({"type": "stop"})).await;
    assert_eq!(again.closed().await.0, 4000);
}

/// A signing key that several nodes have.
pub(crate) fn shared_key() -> String {
    static KEY: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        pair.serialize_pem()
    });
    KEY.clone()
}
