//! Signing in, staying signed in, and signing out.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PASSWORD, Stage, basic, bearer, call, enter, sign_in, sign_up};

const NONE: Value = Value::Null;

#[tokio::test]
async fn doors_on_sqlite() {
    doors(&Stage::sqlite("").await).await;
}

#[tokio::test]
async fn doors_on_postgresql() {
    doors(&Stage::postgres("").await).await;
}

async fn doors(stage: &Stage) {
    a_refresh_token_is_good_once(stage).await;
    a_device_is_forgotten(stage).await;
    everywhere(stage).await;
}

async fn refresh(stage: &Stage, token: &Value) -> crate::stage::Answer {
    let body = json!({"refresh_token": token});
    call(&stage.node, "POST", "/v1/auth/refresh", "", &body).await
}

async fn me(stage: &Stage, signed_in: &Value) -> u16 {
    let token = bearer(signed_in["token"].as_str().unwrap());
    let answer = call(&stage.node, "GET", "/v1/users/me", &token, &NONE).await;
    answer.status.as_u16()
}

/// It changes with each use, carries what the row says now, and ends its sign-in when it is used twice.
async fn a_refresh_token_is_good_once(stage: &Stage) {
    let node = &stage.node;
    sign_up(node, "ref@example.com").await;
    let first = sign_in(node, "ref@example.com", &NONE).await;
    let other = sign_in(node, "ref@example.com", &NONE).await;
    assert_ne!(first["refresh_token"], other["refresh_token"]);
    let change = json!({"plan": "any"});
    let token = bearer(first["token"].as_str().unwrap());
    call(node, "PUT", "/v1/users/me", &token, &change).await;
    let mut last = first.clone();
    for _ in 0..3 {
        let answer = refresh(stage, &last["refresh_token"]).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let next = answer.json();
        assert_ne!(next["refresh_token"], last["refresh_token"]);
        assert_eq!(next["user"]["plan"], "any");
        assert_eq!(me(stage, &next).await, 200);
        last = next;
    }
    let reused = node.metric("usher_refreshes_total{outcome=\"reused\"}").await;
    let answer = refresh(stage, &first["refresh_token"]).await;
    assert_eq!(answer.refusal(), (401, "unauthorized".to_owned(), None));
    let counted = node.metric("usher_refreshes_total{outcome=\"reused\"}").await;
    assert!((counted - reused - 1.0).abs() < 0.5);
    // The whole family is over, its access token too; the other sign-in is not.
    assert_eq!(refresh(stage, &last["refresh_token"]).await.status, 401);
    assert_eq!(me(stage, &last).await, 401);
    assert_eq!(me(stage, &other).await, 200);
    // Two at once: one is granted at most.
    let both = tokio::join!(
        refresh(stage, &other["refresh_token"]),
        refresh(stage, &other["refresh_token"])
    );
    let granted = [&both.0, &both.1]
        .iter()
        .filter(|answer| answer.status == 201)
        .count();
    assert_eq!(granted, 1, "{both:?}");
    for bad in ["", "x", &"A".repeat(43), &"A".repeat(44), "\u{0}"] {
        let refusal = refresh(stage, &json!(bad)).await.refusal();
        assert_eq!(refusal, (401, "unauthorized".to_owned(), None), "{bad:?}");
    }
}

/// One sign-in of several ends, with what its device plays.
async fn a_device_is_forgotten(stage: &Stage) {
    let node = &stage.node;
    sign_up(node, "dev@example.com").await;
    let tv = sign_in(
        node,
        "dev@example.com",
        &json!({"device": "tv", "device_name": "Living room"}),
    )
    .await;
    let phone = sign_in(node, "dev@example.com", &json!({"device": "phone"})).await;
    let token = bearer(phone["token"].as_str().unwrap());
    let mut players = Vec::new();
    for (signed_in, device) in [(&tv, "tv"), (&phone, "phone")] {
        let token = signed_in["token"].as_str().unwrap();
        let query = format!("content=m&device={device}");
        let mut player = node.try_watch(token, &query).await.unwrap();
        player.next_of("granted").await;
        players.push(player);
    }
    let listed = call(node, "GET", "/v1/auth/devices", &token, &NONE).await.json();
    assert_eq!(listed["total"], 2, "{listed}");
    let items = listed["items"].as_array().unwrap();
    let of = |device: &str| items.iter().find(|item| item["device"] == device).unwrap();
    assert_eq!(of("tv")["device_name"], "Living room");
    assert_eq!(
        (&of("tv")["current"], &of("phone")["current"]),
        (&json!(false), &json!(true))
    );
    assert!(of("tv")["last_used_at"].as_str() >= of("tv")["created_at"].as_str());
    let path = format!("/v1/auth/devices/{}", of("tv")["id"].as_str().unwrap());
    // It is nobody else's to end.
    sign_up(node, "dev2@example.com").await;
    let stranger = enter(node, "dev2@example.com").await;
    assert_eq!(call(node, "DELETE", &path, &stranger, &NONE).await.status, 404);
    assert_eq!(call(node, "DELETE", &path, &token, &NONE).await.status, 204);
    assert_eq!(call(node, "DELETE", &path, &token, &NONE).await.status, 404);
    assert_eq!(players.remove(0).closed().await.0, 4003);
    assert_eq!((me(stage, &tv).await, me(stage, &phone).await), (401, 200));
    assert_eq!(refresh(stage, &tv["refresh_token"]).await.status, 401);
    // Signing out is the same for the sign-in of the token.
    assert_eq!(call(node, "DELETE", "/v1/auth", &token, &NONE).await.status, 204);
    assert_eq!(players.remove(0).closed().await.0, 4003);
    assert_eq!(me(stage, &phone).await, 401);
    assert_eq!(refresh(stage, &phone["refresh_token"]).await.status, 401);
}

/// Every sign-in, every earlier token, and whatever plays.
async fn everywhere(stage: &Stage) {
    let node = &stage.node;
    let id = sign_up(node, "all@example.com").await;
    let minted = node.command(&["token", "--account", &id]).unwrap();
    let minted = json!({"token": minted.trim()});
    assert_eq!(me(stage, &minted).await, 200);
    let mut signed_in = Vec::new();
    let mut players = Vec::new();
    for device in ["a", "b", "c"] {
        let one = sign_in(node, "all@example.com", &json!({"device": device})).await;
        let token = one["token"].as_str().unwrap();
        let mut player = node
            .try_watch(token, &format!("content=m&device={device}x"))
            .await
            .unwrap();
        player.next_of("granted").await;
        players.push(player);
        signed_in.push(one);
    }
    // A token without a sign-in is told apart by its second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let token = bearer(signed_in[0]["token"].as_str().unwrap());
    let begun = Instant::now();
    assert_eq!(
        call(node, "DELETE", "/v1/auth/all", &token, &NONE).await.status,
        204
    );
    for mut player in players {
        assert_eq!(player.closed().await.0, 4003);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for one in &signed_in {
        assert_eq!(me(stage, one).await, 401);
        assert_eq!(refresh(stage, &one["refresh_token"]).await.status, 401);
    }
    assert_eq!(me(stage, &minted).await, 401);
    let again = sign_in(node, "all@example.com", &NONE).await;
    assert_eq!(me(stage, &again).await, 200, "in the same second");
}

/// A wrong password and an unknown e-mail: the same answer, in nearly the same time.
#[tokio::test]
async fn nobody_learns_whether_an_email_is_known() {
    // At the full cost of a hash, beside which a look-up is nothing.
    let stage = Stage {
        node: crate::harness::Node::with("").await,
        server: None,
    };
    let node = &stage.node;
    sign_up(node, "known@example.com").await;
    let mut stream = node.connect().await;
    let mut fastest = [f64::MAX; 3];
    let mut answers = Vec::new();
    // The fastest of each: what else runs on the machine only adds, and hides a difference in no round.
    let equal = |fastest: &[f64; 3]| {
        let ratio = |unknown: &f64| unknown / fastest[0];
        fastest[1..]
            .iter()
            .all(|unknown| (0.6..1.7).contains(&ratio(unknown)))
    };
    let mut rounds = 0;
    while rounds < 15 || rounds < 100 && !equal(&fastest) {
        let names = ["known@example.com", "unknown@example.com", "unknown-name"];
        for (fastest, name) in fastest.iter_mut().zip(names) {
            let auth = basic(name, "not the password");
            let headers = [("Authorization", auth.as_str()), ("Content-Length", "0")];
            let text = crate::stage::request("POST", "/v1/auth", &headers);
            let begun = Instant::now();
            let answer = crate::stage::ask(&mut stream, &text).await;
            *fastest = begun.elapsed().as_secs_f64().min(*fastest);
            assert_eq!(answer.refusal(), (401, "unauthorized".to_owned(), None));
            let mut error = answer.error();
            error["request_id"] = NONE;
            let challenge = answer.header("www-authenticate").unwrap().to_owned();
            assert!(challenge.starts_with("Basic "));
            if rounds == 0 {
                answers.push((error, challenge, answer.body.len()));
            }
        }
        rounds += 1;
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    eprintln!(
        "fastest of a wrong password, an unknown e-mail, an unknown name: {fastest:?} s, {rounds} rounds"
    );
    assert!(equal(&fastest), "{fastest:?}");
    // A scheme that is not Basic, and a header that cannot be read.
    for auth in ["", "Bearer x", "Basic", "Basic !!!", "Basic eA=="] {
        let answer = call(node, "POST", "/v1/auth", auth, &NONE).await;
        assert_eq!(answer.refusal(), (401, "unauthorized".to_owned(), None), "{auth}");
    }
}

/// Failures add up for an account, known or not, and for an address; whoever succeeds is not counted.
#[tokio::test]
async fn failures_are_limited() {
    let toml = "failures_burst = 3\nfailures_per_minute = 1\n\
        tries_burst_per_address = 5\ntries_per_minute_per_address = 1\n\
        [limits]\nexempt_addresses = []\n";
    let stage = Stage::sqlite(toml).await;
    let node = &stage.node;
    sign_up(node, "a@example.com").await;
    for _ in 0..8 {
        sign_in(node, "A@example.com", &NONE).await;
    }
    let wrong = async |name: &str| {
        let auth = basic(name, "not the password");
        call(node, "POST", "/v1/auth", &auth, &NONE).await
    };
    for _ in 0..3 {
        assert_eq!(wrong("a@example.com").await.status, 401);
    }
    let answer = wrong("a@example.com").await;
    assert_eq!(answer.refusal(), (429, "rate_limited".to_owned(), None));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // The right password waits too, or it would be told from the wrong ones.
    let auth = basic("a@example.com", PASSWORD);
    assert_eq!(call(node, "POST", "/v1/auth", &auth, &NONE).await.status, 429);
    // The sign-up was one, three failed: the address has one more, whoever is meant.
    let mut statuses = Vec::new();
    for name in ["x@example.com", "y@example.com", "z@example.com"] {
        statuses.push(wrong(name).await.status.as_u16());
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert!(
        node.metric("usher_rate_limited_total{rule=\"account_tries\"}")
            .await
            >= 1.0
    );
    assert!(
        node.metric("usher_rate_limited_total{rule=\"address_tries\"}")
            .await
            >= 1.0
    );
    assert!(node.metric("usher_sign_ins_total{outcome=\"limited\"}").await >= 2.0);
}
