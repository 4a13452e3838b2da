//! Group rules as players meet them, on a node of its own and on one that shares Redis: who is refused by which rule,
//! what counts after a resume, a switch and a take-over, what is in shadow, what is exempt, and what a reload changes.
//!
//! Over 400 lines: one test for each promise of the rules.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::harness::{Node, Player, SOON, now, sign};
use crate::redis_servers::Redis;
use crate::stage::Place;

/// Contents and classes that all tests use.
const TABLES: &str = "[tags]\nsports = [\"match-*\"]\nkids = [\"kids-*\"]\n[plans.basic]\nlimit = 3\n";

/// Runs a test on a node of its own and on one with Redis.
fn each<'a>(rules: &str, test: impl AsyncFn(&Node) + 'a) -> LocalBoxFuture<'a, ()> {
    let toml = format!("{TABLES}{rules}");
    Box::pin(async move {
        test(&Node::with(&toml).await).await;
        let redis = Redis::start(&[]).await;
        test(&shared(&redis, &toml).await).await;
    })
}

async fn shared(redis: &Redis, toml: &str) -> Node {
    Node::with(&format!("{toml}\n[redis]\nurl = \"{}\"\n", redis.url())).await
}

/// A start: what the token says beside the account, the query, and the last number of the address it comes from.
struct Start<'a> {
    claims: Value,
    query: &'a str,
    from: u8,
}

fn start(query: &str) -> Start<'_> {
    Start {
        claims: json!({}),
        query,
        from: 1,
    }
}

impl Start<'_> {
    fn with(self, claims: Value) -> Self {
        Self { claims, ..self }
    }

    fn from(self, from: u8) -> Self {
        Self { from, ..self }
    }

    async fn open(&self, node: &Node, account: &str) -> Player {
        let mut claims = json!({"sub": account, "exp": now() + 600});
        let more = self.claims.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(more);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, self.from], 0).into()).unwrap();
        let stream = node
            .secure(socket.connect(node.players).await.unwrap())
            .await
            .unwrap();
        let path = format!("/v1/watch?{}", self.query);
        node.upgrade(stream, &path, Some(&sign(&claims))).await.unwrap()
    }

    /// Plays; its first message.
    async fn granted(&self, node: &Node, account: &str) -> (Player, Value) {
        let mut player = self.open(node, account).await;
        let message = player.next().await;
        assert_eq!(message["type"], "granted", "{}: {message}", self.query);
        (player, message)
    }

    /// Is refused, and told so.
    async fn denied(&self, node: &Node, account: &str) -> Value {
        let mut player = self.open(node, account).await;
        let message = player.next().await;
        assert_eq!(message["type"], "denied", "{}: {message}", self.query);
        if !self.query.contains("on_limit=ask") {
            assert_eq!(player.closed().await.0, 4001);
        }
        message
    }
}

/// The rule of a refusal, what it counts, and the devices of its holders.
fn told(denied: &Value) -> (String, u64, u64, Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let holders = denied["holders"].as_array().unwrap().iter();
    (
        text(&denied["rule"]),
        denied["slots"]["used"].as_u64().unwrap(),
        denied["slots"]["limit"].as_u64().unwrap(),
        holders.map(|holder| text(&holder["device"])).collect(),
    )
}

fn refusal(rule: &str, used: u64, limit: u64, holders: &[&str]) -> (String, u64, u64, Vec<String>) {
    (
        rule.to_owned(),
        used,
        limit,
        holders.iter().map(|&holder| holder.to_owned()).collect(),
    )
}

/// What the account's sessions play, by device.
async fn plays(node: &Node, account: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sessions = node.sessions(account).await;
    let mut plays: Vec<_> = sessions
        .iter()
        .map(|session| (text(&session["device"]), text(&session["content"])))
        .collect();
    plays.sort();
    plays
}

#[tokio::test]
async fn a_device_class_is_limited() {
    each(
        "[rules.one-tv]\nper = \"device_class\"\nof = [\"tv\"]\nlimit = 1\n",
        async |node| {
            let _tv = start("content=m1&device=tv-1&device_class=tv")
                .granted(node, "a")
                .await;
            let _phone = start("content=m1&device=p-1&device_class=phone")
                .granted(node, "a")
                .await;
            let denied = start("content=m1&device=tv-2&device_class=tv")
                .denied(node, "a")
                .await;
            assert_eq!(told(&denied), refusal("one-tv", 1, 1, &["tv-1"]));
            assert_eq!(denied["may"], json!(["takeover", "wait"]));
            // Another account has a television of its own, and this one more phones.
            let _other = start("content=m1&device=tv-1&device_class=tv")
                .granted(node, "b")
                .await;
            let _phone = start("content=m1&device=p-2&device_class=phone")
                .granted(node, "a")
                .await;
            assert!((node.metric("usher_denials_total{rule=\"one-tv\"}").await - 1.0).abs() < 0.5);
            // The narrow rule speaks before the total, which is full too.
            let denied = start("content=m1&device=tv-2&device_class=tv")
                .denied(node, "a")
                .await;
            assert_eq!(denied["rule"], "one-tv");
            let denied = start("content=m1&device=p-3&device_class=phone")
                .denied(node, "a")
                .await;
            assert_eq!(told(&denied), refusal("account", 3, 3, &["tv-1", "p-1", "p-2"]));
        },
    )
    .await;
}

#[tokio::test]
async fn each_content_is_limited() {
    each("[rules.once]\nper = \"content\"\nlimit = 1\n", async |node| {
        let _one = start("content=m1&device=d1").granted(node, "a").await;
        let _two = start("content=m2&device=d2").granted(node, "a").await;
        let denied = start("content=m1&device=d3").denied(node, "a").await;
        assert_eq!(told(&denied), refusal("once", 1, 1, &["d1"]));
        // The same device goes on with it: zapping is not counted twice.
        let _again = start("content=m1&device=d1").granted(node, "a").await;
    })
    .await;
}

#[tokio::test]
async fn a_tag_is_limited_for_the_accounts_of_a_plan() {
    let rules = "[rules.sports]\nper = \"tag\"\nof = [\"sports\"]\nlimit = 1\nplans = [\"basic\"]\n";
    each(rules, async |node| {
        let basic = json!({"plan": "basic"});
        let _one = start("content=match-1&device=d1")
            .with(basic.clone())
            .granted(node, "a")
            .await;
        let _kids = start("content=kids-1&device=d2")
            .with(basic.clone())
            .granted(node, "a")
            .await;
        let denied = start("content=match-2&device=d3")
            .with(basic)
            .denied(node, "a")
            .await;
        assert_eq!(told(&denied), refusal("sports", 1, 1, &["d1"]));
        // An account without that plan is none of its business.
        let _one = start("content=match-1&device=d1").granted(node, "b").await;
        let _two = start("content=match-2&device=d2").granted(node, "b").await;
    })
    .await;
}

#[tokio::test]
async fn a_profile_is_limited() {
    each("[rules.profile]\nper = \"profile\"\nlimit = 1\n", async |node| {
        let _ann = start("content=m1&device=d1")
            .with(json!({"profile": "ann"}))
            .granted(node, "a")
            .await;
        let _bob = start("content=m1&device=d2")
            .with(json!({"profile": "bob"}))
            .granted(node, "a")
            .await;
        let denied = start("content=m1&device=d3")
            .with(json!({"profile": "ann"}))
            .denied(node, "a")
            .await;
        assert_eq!(told(&denied), refusal("profile", 1, 1, &["d1"]));
        let _nobody = start("content=m1&device=d3").granted(node, "a").await;
    })
    .await;
}

#[tokio::test]
async fn sessions_away_from_the_configured_home_are_limited() {
    let rules = "[rules.away]\nper = \"address\"\nhome = [\"127.0.0.1/32\"]\nlimit = 1\n";
    each(rules, async |node| {
        let _home = start("content=m1&device=d1").granted(node, "a").await;
        let _away = start("content=m1&device=d2").from(2).granted(node, "a").await;
        let denied = start("content=m1&device=d3").from(3).denied(node, "a").await;
        assert_eq!(told(&denied), refusal("away", 1, 1, &["d2"]));
        let _home = start("content=m1&device=d3").granted(node, "a").await;
    })
    .await;
}

#[tokio::test]
async fn sessions_away_from_the_first_address_are_limited() {
    each("[rules.travel]\nper = \"address\"\nlimit = 1\n", async |node| {
        let (first, _) = start("content=m1&device=d1").from(2).granted(node, "a").await;
        let _away = start("content=m1&device=d2").from(3).granted(node, "a").await;
        let denied = start("content=m1&device=d3").from(4).denied(node, "a").await;
        assert_eq!(told(&denied), refusal("travel", 1, 1, &["d2"]));
        // The home is remembered when nobody is there.
        first.close(1000).await;
        let denied = start("content=m1&device=d3").from(4).denied(node, "a").await;
        assert_eq!(told(&denied), refusal("travel", 1, 1, &["d2"]));
        let _home = start("content=m1&device=d3").from(2).granted(node, "a").await;
        // Another account has another home.
        let _home = start("content=m1&device=d1").from(4).granted(node, "b").await;
    })
    .await;
}

#[tokio::test]
async fn devices_are_limited_at_once_and_within_a_time() {
    let rules = "[rules.screens]\nper = \"device\"\nlimit = 2\n\
        [rules.month]\nper = \"device\"\nwithin = \"30d\"\nlimit = 3\n";
    each(rules, async |node| {
        let (one, _) = start("content=m1&device=d1").granted(node, "a").await;
        let (_two, _) = start("content=m1&device=d2").granted(node, "a").await;
        let denied = start("content=m1&device=d3").denied(node, "a").await;
        assert_eq!(told(&denied), refusal("screens", 2, 2, &["d1", "d2"]));
        one.close(1000).await;
        let (three, _) = start("content=m1&device=d3").granted(node, "a").await;
        three.close(1000).await;
        // d1, d2 and d3 are known: no other one is, whoever stops; nothing helps but time.
        let denied = start("content=m1&device=d4&on_limit=ask").denied(node, "a").await;
        assert_eq!(told(&denied), refusal("month", 3, 3, &["d2"]));
        assert_eq!(denied["may"], json!([]));
        let _one = start("content=m1&device=d1").granted(node, "a").await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_switch_leaves_the_old_content() {
    each(
        "[rules.sports]\nper = \"tag\"\nof = [\"sports\"]\nlimit = 1\n",
        async |node| {
            let (mut one, _) = start("content=match-1&device=d1").granted(node, "a").await;
            let (mut two, _) = start("content=film&device=d2").granted(node, "a").await;
            two.say(json!({"type": "switch", "content": "match-2", "id": 7}))
                .await;
            let error = two.next_of("error").await;
            assert_eq!(
                (&error["code"], &error["id"]),
                (&json!("stream_limit_reached"), &json!(7))
            );
            assert_eq!(told(&error), refusal("sports", 1, 1, &["d1"]));
            let pair = |one: &str, two: &str| {
                let own = |device: &str, content: &str| (device.to_owned(), content.to_owned());
                vec![own("d1", one), own("d2", two)]
            };
            assert_eq!(plays(node, "a").await, pair("match-1", "film"));
            // Within the group one switches freely; whoever leaves it makes place.
            one.say(json!({"type": "switch", "content": "match-3"})).await;
            one.say(json!({"type": "switch", "content": "kids-1"})).await;
            becomes(node, "a", &pair("kids-1", "film")).await;
            two.say(json!({"type": "switch", "content": "match-2"})).await;
            becomes(node, "a", &pair("kids-1", "match-2")).await;
            one.say(json!({"type": "switch", "content": "match-1"})).await;
            assert_eq!(
                told(&one.next_of("error").await),
                refusal("sports", 1, 1, &["d2"])
            );
            let denied = start("content=match-1&device=d3").denied(node, "a").await;
            assert_eq!(told(&denied), refusal("sports", 1, 1, &["d2"]));
        },
    )
    .await;
}

async fn becomes(node: &Node, account: &str, expected: &[(String, String)]) {
    let begin = Instant::now();
    loop {
        let found = plays(node, account).await;
        if found == expected {
            return;
        }
        assert!(begin.elapsed() < SOON, "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_resume_counts_what_it_plays_from_then_on() {
    each(
        "[rules.sports]\nper = \"tag\"\nof = [\"sports\"]\nlimit = 1\n",
        async |node| {
            let (one, grant) = start("content=match-1&device=d1").granted(node, "a").await;
            let secret = grant["resume"].as_str().unwrap().to_owned();
            let (mut two, _) = start("content=film&device=d2").granted(node, "a").await;
            one.cut();
            // Without its socket it counts on.
            two.say(json!({"type": "switch", "content": "match-2"})).await;
            assert_eq!(two.next_of("error").await["rule"], "sports");
            // It comes back with something else: its place in the group is free.
            let query = format!("content=film&device=d1&resume={secret}");
            let (one, grant) = start(&query).granted(node, "a").await;
            assert_eq!(grant["resumed"], true);
            two.say(json!({"type": "switch", "content": "match-2"})).await;
            let sports = [
                ("d1".to_owned(), "film".to_owned()),
                ("d2".to_owned(), "match-2".to_owned()),
            ];
            becomes(node, "a", &sports).await;
            // And it cannot come back into the full group: an ordinary start, which is refused; the session is still there.
            one.cut();
            let query = format!("content=match-1&device=d1&resume={secret}");
            let denied = start(&query).denied(node, "a").await;
            assert_eq!(told(&denied), refusal("sports", 1, 1, &["d2"]));
            let query = format!("content=kids-1&device=d1&resume={secret}");
            assert_eq!(start(&query).granted(node, "a").await.1["resumed"], true);
        },
    )
    .await;
}

#[tokio::test]
async fn only_a_holder_of_the_rule_is_taken_over() {
    let rules = "[rules.one-tv]\nper = \"device_class\"\nof = [\"tv\"]\nlimit = 1\n";
    each(rules, async |node| {
        let (mut phone, first) = start("content=m1&device=p-1&device_class=phone")
            .granted(node, "a")
            .await;
        let (mut tv, second) = start("content=m1&device=tv-1&device_class=tv")
            .granted(node, "a")
            .await;
        let mut taker = start("content=m1&device=tv-2&device_class=tv&on_limit=ask")
            .open(node, "a")
            .await;
        assert_eq!(told(&taker.next().await), refusal("one-tv", 1, 1, &["tv-1"]));
        // The end of the phone would be for nothing.
        taker
            .say(json!({"type": "takeover", "session": first["session"]}))
            .await;
        assert_eq!(taker.next().await["type"], "denied");
        taker
            .say(json!({"type": "takeover", "session": second["session"]}))
            .await;
        let granted = taker.next_of("granted").await;
        assert_eq!(granted["slots"]["used"], 2);
        let (code, messages) = tv.closed().await;
        assert_eq!(code, 4002);
        assert_eq!(messages.last().unwrap()["by"]["device"], "tv-2");
        // The newcomer counts where the victim did.
        let denied = start("content=m1&device=tv-3&device_class=tv")
            .denied(node, "a")
            .await;
        assert_eq!(told(&denied), refusal("one-tv", 1, 1, &["tv-2"]));
        // The oldest of all is the phone; the oldest that helps is the television.
        let query = "content=m1&device=tv-3&device_class=tv&on_limit=oldest";
        let mut third = start(query).open(node, "a").await;
        third.next_of("granted").await;
        assert_eq!(taker.closed().await.0, 4002);
        phone.say(json!({"type": "stop"})).await;
        assert_eq!(phone.closed().await.0, 4000);
    })
    .await;
}

#[tokio::test]
async fn a_waiter_without_a_place_in_its_rule_holds_up_nobody() {
    let rules = "[rules.one-tv]\nper = \"device_class\"\nof = [\"tv\"]\nlimit = 1\n";
    each(rules, async |node| {
        let (mut tv, _) = start("content=m1&device=tv-1&device_class=tv")
            .granted(node, "a")
            .await;
        let (mut phone, _) = start("content=m1&device=p-1").granted(node, "a").await;
        let _other = start("content=m1&device=p-2").granted(node, "a").await;
        let mut first = start("content=m1&device=tv-2&device_class=tv&on_limit=wait")
            .open(node, "a")
            .await;
        assert_eq!(first.next().await, json!({"type": "waiting", "position": 1}));
        let mut second = start("content=m1&device=p-3&on_limit=wait").open(node, "a").await;
        assert_eq!(second.next().await, json!({"type": "waiting", "position": 2}));
        phone.say(json!({"type": "stop"})).await;
        // The very next word: the first was not served before it.
        let granted = second.next().await;
        assert_eq!(
            (&granted["type"], &granted["slots"]["used"]),
            (&json!("granted"), &json!(3))
        );
        tv.say(json!({"type": "stop"})).await;
        let granted = first.next().await;
        assert_eq!(
            (&granted["type"], &granted["slots"]["used"]),
            (&json!("granted"), &json!(3))
        );
    })
    .await;
}

#[tokio::test]
async fn in_shadow_everybody_plays_and_is_counted() {
    let rules = "[lease]\nshadow = true\nlimit = 2\n\
        [rules.one-tv]\nper = \"device_class\"\nof = [\"tv\"]\nlimit = 1\nshadow = true\n\
        [rules.month]\nper = \"device\"\nwithin = \"30d\"\nlimit = 2\nshadow = true\n";
    each(rules, async |node| {
        let count = async |rule: &str| {
            node.metric(&format!("usher_denials_total{{rule=\"{rule}\"}}"))
                .await
        };
        for rule in ["shadow:one-tv", "shadow:month", "shadow:account"] {
            assert!(count(rule).await.abs() < 0.5, "{rule} is reported from zero on");
        }
        let mut players = Vec::new();
        for number in 1..=3 {
            let query = format!("content=m1&device=tv-{number}&device_class=tv");
            players.push(start(&query).granted(node, "a").await);
        }
        assert_eq!(players[2].1["slots"], json!({"used": 3, "limit": 2}));
        for (rule, expected) in [
            ("shadow:one-tv", 2.0),
            ("shadow:month", 1.0),
            ("shadow:account", 1.0),
        ] {
            assert!((count(rule).await - expected).abs() < 0.5, "{rule}");
        }
        // A device that is not known would be refused again.
        let _again = start("content=m2&device=tv-3&device_class=tv")
            .granted(node, "a")
            .await;
        assert!((count("shadow:month").await - 2.0).abs() < 0.5);
        assert!(count("account").await.abs() < 0.5);
    })
    .await;
}

#[tokio::test]
async fn what_is_exempt_plays_and_takes_no_slot() {
    let rules = "[lease]\nlimit = 1\n[exempt]\ntags = [\"kids\"]\ncontents = [\"trailer-*\"]\naccounts = [\"vip\", \"other/vip\"]\n\
        [rules.one-tv]\nper = \"device_class\"\nof = [\"tv\"]\nlimit = 1\n";
    each(rules, async |node| {
        let _kids = start("content=kids-1&device=tv-1&device_class=tv")
            .granted(node, "a")
            .await;
        let (mut trailer, _) = start("content=trailer-7&device=tv-2&device_class=tv")
            .granted(node, "a")
            .await;
        let (_film, grant) = start("content=film&device=tv-3&device_class=tv")
            .granted(node, "a")
            .await;
        assert_eq!(grant["slots"], json!({"used": 1, "limit": 1}));
        let denied = start("content=film&device=d4").denied(node, "a").await;
        assert_eq!(told(&denied), refusal("account", 1, 1, &["tv-3"]));
        assert_eq!(plays(node, "a").await.len(), 3, "operators see all of them");
        // What began exempt takes a slot when it switches to what is not.
        trailer.say(json!({"type": "switch", "content": "film"})).await;
        assert_eq!(trailer.next_of("error").await["rule"], "one-tv");
        for device in 0..3 {
            let _vip = start(&format!("content=film&device=d{device}"))
                .granted(node, "vip")
                .await;
        }
        let other = json!({"tenant": "other"});
        let _first = start("content=film&device=d1")
            .with(other.clone())
            .granted(node, "vip")
            .await;
        let _second = start("content=film&device=d2")
            .with(other)
            .granted(node, "vip")
            .await;
    })
    .await;
}

/// Writes another configuration and has the node read it.
async fn reload(node: &Node, toml: &str) {
    let before = node
        .log()
        .matches("configuration and certificates reloaded")
        .count();
    let old = fs::read_to_string(node.dir.join("usher.toml")).unwrap();
    let redis = old.find("\n[redis]").map_or("", |at| &old[at..]);
    fs::write(node.dir.join("usher.toml"), format!("{TABLES}{toml}{redis}")).unwrap();
    node.signal("-HUP");
    let begin = Instant::now();
    while node
        .log()
        .matches("configuration and certificates reloaded")
        .count()
        == before
    {
        assert!(begin.elapsed() < SOON, "{}", node.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_reload_acts_on_new_starts_and_where_it_says_so_on_running_ones() {
    // Its players are not heard for a while on a busy machine.
    each("[lease]\nperiod = \"60s\"\n", async |node| {
        let mut players = Vec::new();
        for number in 1..=3 {
            let query = format!("content=match-{number}&device=d{number}");
            players.push(
                start(&query)
                    .with(json!({"plan": "basic"}))
                    .granted(node, "a")
                    .await
                    .0,
            );
        }
        // A lower limit takes nothing from those who play, and gives nothing to those who come.
        reload(
            node,
            "[rules.sports]\nper = \"tag\"\nof = [\"sports\"]\nlimit = 2\n",
        )
        .await;
        let begin = Instant::now();
        loop {
            // What plays is counted by a new rule within one audit; the total speaks until then.
            let denied = start("content=match-4&device=d4").denied(node, "a").await;
            if denied["rule"] == "sports" && denied["slots"]["used"] == 3 {
                break;
            }
            assert!(begin.elapsed() < SOON, "{denied}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(plays(node, "a").await.len(), 3);
        // With enforce_running the newest goes.
        let rule = "[rules.sports]\nper = \"tag\"\nof = [\"sports\"]\nlimit = 2\nenforce_running = true\n";
        reload(node, rule).await;
        let (code, messages) = players.pop().unwrap().closed().await;
        assert_eq!(
            (code, &messages.last().unwrap()["code"]),
            (4001, &json!("stream_limit_reached"))
        );
        assert_eq!(plays(node, "a").await.len(), 2);
        // A plan's limit as well.
        reload(node, "[lease]\nenforce_running = true\n").await;
        let lowered = TABLES.replace("limit = 3", "limit = 1");
        let old = fs::read_to_string(node.dir.join("usher.toml")).unwrap();
        fs::write(node.dir.join("usher.toml"), old.replace(TABLES, &lowered)).unwrap();
        node.signal("-HUP");
        assert_eq!(players.pop().unwrap().closed().await.0, 4001);
        assert_eq!(plays(node, "a").await, [("d1".to_owned(), "match-1".to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn a_fresh_token_with_a_lower_limit_ends_the_newest_where_the_operator_says_so() {
    each("[lease]\nenforce_running = true\n", async |node| {
        let (mut first, _) = start("content=m1&device=d1").granted(node, "a").await;
        let (mut second, _) = start("content=m1&device=d2").granted(node, "a").await;
        let token = sign(&json!({"sub": "a", "exp": now() + 600, "streams": 1}));
        // The older one has its place under the lower limit too.
        first.say(json!({"type": "token", "token": token})).await;
        first.say(json!({"type": "token", "token": "x", "id": 1})).await;
        assert_eq!(first.next_of("error").await["code"], "bad_token");
        second.say(json!({"type": "token", "token": token})).await;
        assert_eq!(second.closed().await.0, 4001);
        assert_eq!(plays(node, "a").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_rule_that_names_nothing_stops_a_reload() {
    let node = Node::with(TABLES).await;
    let wrong = format!("{TABLES}[rules.x]\nper = \"tag\"\nof = [\"sport\"]\nlimit = 1\n");
    fs::write(node.dir.join("usher.toml"), wrong).unwrap();
    node.signal("-HUP");
    let line = node.logs(&["not reloaded", "rules.x.of[0]"]).await;
    assert!(line.contains("sport"), "{line}");
    let place = Place::with("[rules.x]\nper = \"tag\"\nof = [\"sport\"]\nlimit = 1\n");
    let ran = place.run(&[], &["check-config", "--config", "usher.toml"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("rules.x.of[0]: no tag \"sport\" in [tags]"),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn nodes_count_together_and_alone_while_redis_is_away() {
    let mut redis = Redis::start(&[]).await;
    let toml = format!("{TABLES}[rules.one-tv]\nper = \"device_class\"\nof = [\"tv\"]\nlimit = 1\n");
    let (a, b) = tokio::join!(shared(&redis, &toml), shared(&redis, &toml));
    let (_tv, _) = start("content=m1&device=tv-1&device_class=tv")
        .granted(&a, "a")
        .await;
    let denied = start("content=m1&device=tv-2&device_class=tv")
        .denied(&b, "a")
        .await;
    assert_eq!(told(&denied), refusal("one-tv", 1, 1, &["tv-1"]));
    // What Redis lost is written again with what it counts in.
    redis.ask(&["FLUSHALL"]).await;
    let denied = start("content=m1&device=tv-2&device_class=tv")
        .denied(&b, "a")
        .await;
    assert_eq!(told(&denied), refusal("one-tv", 1, 1, &["tv-1"]));
    redis.kill();
    a.logs(&["Redis"]).await;
    let begin = Instant::now();
    loop {
        let mut player = start("content=m1&device=p-1").open(&a, "a").await;
        if player.next_within(SOON).await["provisional"] == true {
            break;
        }
        assert!(begin.elapsed() < SOON * 2);
    }
    let denied = start("content=m1&device=tv-3&device_class=tv")
        .denied(&a, "a")
        .await;
    assert_eq!(told(&denied), refusal("one-tv", 1, 1, &["tv-1"]));
}
