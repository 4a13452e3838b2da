//! The commands: what they print and where, their exit codes, and where their settings come from.
//!
//! Long for its tables of arguments and settings.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Node, SECRET, SOON, eventually, token};
use crate::stage::{Place, Ran, USUAL, get, run_in};

const HMAC: (&str, &str) = ("USHER_AUTH__HMAC_SECRET", SECRET);

impl Ran {
    /// What a success printed; nothing may stand on stderr.
    fn printed(&self) -> &str {
        assert_eq!((self.code, &*self.stderr), (0, ""), "{}", self.stdout);
        &self.stdout
    }

    /// What a failure said; nothing may stand on stdout.
    fn complaint(&self, code: i32) -> &str {
        assert_eq!((self.code, &*self.stdout), (code, ""), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        &self.stderr
    }
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn a_printed_token_opens_the_socket_with_either_key() {
    for environment in [&[HMAC][..], &[]] {
        let node = Place::new().serve(environment, &[]).await;
        let printed = run_in(&node.dir, environment, &["token", "--account", "a"]);
        let token = printed.printed().strip_suffix('\n').unwrap();
        assert_eq!(token.split('.').count(), 3);
        assert!(
            !token.contains(char::is_whitespace),
            "one token and nothing else: {token:?}"
        );
        let mut player = node.try_watch(token, "content=m&device=d").await.unwrap();
        assert_eq!(player.next().await["type"], "granted");
        assert!(!node.log().contains(token));
    }
}

#[tokio::test]
async fn what_a_token_is_asked_for_it_says_and_the_gateway_heeds() {
    let node = Place::with("[plans.solo]\nlimit = 1").start().await;
    let issue = |arguments: &[&str]| {
        let config = ["--config", "usher.toml", "token", "--account", "a"];
        let ran = run_in(&node.dir, USUAL, &[&config, arguments].concat());
        ran.printed().trim_end().to_owned()
    };
    let all = [
        "--device",
        "tv-1",
        "--plan",
        "solo",
        "--streams",
        "2",
        "--scope",
        "watch,support",
        "--content",
        "m1",
        "--content",
        "m,2",
        "--tenant",
        "other",
        "--ttl",
        "2h",
    ];
    let claims = claims_of(&issue(&all));
    let expected = json!({
        "sub": "a", "device": "tv-1", "plan": "solo", "streams": 2, "scope": "watch support",
        "contents": ["m1", "m,2"], "tenant": "other", "iat": claims["iat"], "exp": claims["exp"],
    });
    assert_eq!(claims, expected);
    let hyphens = ["--device", "-d", "--content", "-c"];
    let hyphens = claims_of(&issue(&hyphens));
    assert_eq!(
        (&hyphens["device"], &hyphens["contents"]),
        (&json!("-d"), &json!(["-c"])),
        "ids are opaque"
    );
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert!((7200..=7201).contains(&life), "{life}");
    let life = claims_of(&issue(&[]));
    let life = life["exp"].as_u64().unwrap() - life["iat"].as_u64().unwrap();
    assert!((3600..=3601).contains(&life), "{life}");

    for (arguments, limit) in [(&["--plan", "solo"][..], 1), (&["--streams", "7"], 7), (&[], 3)] {
        let mut player = node
            .try_watch(&issue(arguments), "content=m&device=d")
            .await
            .unwrap();
        assert_eq!(
            player.next_of("granted").await["slots"]["limit"],
            limit,
            "{arguments:?}"
        );
    }
    let bound = issue(&["--device", "tv-1", "--content", "m1"]);
    let refused = |result: Result<_, (http::StatusCode, Value)>| {
        result.map(|_: crate::harness::Player| ()).unwrap_err()
    };
    let answer = refused(node.try_watch(&bound, "content=m1&device=tv-2").await);
    assert_eq!(
        (answer.0.as_u16(), &answer.1["error"]["code"]),
        (403, &json!("device_forbidden"))
    );
    let answer = refused(node.try_watch(&bound, "content=m2").await);
    assert_eq!(
        (answer.0.as_u16(), &answer.1["error"]["code"]),
        (403, &json!("content_forbidden"))
    );
    assert_eq!(
        refused(node.try_watch(&issue(&["--scope", "support"]), "content=m").await).0,
        403
    );
    let (status, _, _) = node
        .admin_get("/v1/admin/sessions", Some(&issue(&["--scope", "operator"])))
        .await;
    assert_eq!(status, 200);
    let mut short = node
        .try_watch(&issue(&["--ttl", "1s"]), "content=m&device=short")
        .await
        .unwrap();
    let (code, messages) = short.closed().await;
    assert_eq!(
        (code, &messages.last().unwrap()["code"]),
        (4103, &json!("token_expired"))
    );
}

#[test]
fn bad_usage_is_2_and_says_what_is_wrong() {
    let place = Place::new();
    for (arguments, named) in [
        (&["token"][..], "--account"),
        (&["token", "--account", ""], "sub"),
        (&["token", "--account", "a", "--scope", "root"], "root"),
        (&["token", "--account", "a", "--tenant", "a/b"], "tenant"),
        (&["token", "--account", "a", "--streams", "-1"], "-1"),
        (&["token", "--account", "a", "--streams", "1001"], "streams"),
        (&["token", "--account", "a", "--ttl", "soon"], "ttl"),
        (
            &["token", "--account", "a", "--device", &"x".repeat(257)],
            "device",
        ),
        (&["nonsense"], "nonsense"),
        (&["serve", "--listen", "here"], "here"),
        (&["sessions"], "list"),
        (&["sessions", "end"], "--account"),
        (
            &[
                "sessions",
                "end",
                "--account",
                "a",
                "--session",
                "x",
                "--device",
                "y",
            ],
            "--device",
        ),
        (&["serve", "--config", "absent.toml"], "absent.toml"),
        (&["serve", "--redis", "redis://"], "redis.url"),
    ] {
        let ran = place.run(&[HMAC], arguments);
        assert!(ran.complaint(2).contains(named), "{arguments:?}: {}", ran.stderr);
    }
    assert!(place.run(&[], &["--help"]).printed().contains("check-config"));
    assert!(place.run(&[], &["--version"]).printed().starts_with("usher "));
}

#[test]
fn check_config_shows_what_holds_and_masks_secrets() {
    let place = Place::with(
        "[auth]\nhmac_secret = \"hunter2-in-the-file\"\n[listen]\nplayers = \"127.0.0.1:1111\"\n\
         admin = \"127.0.0.1:2222\"\n[data]\ndir = \"from-file\"\n[lease]\nlimit = 7",
    );
    place.write("secret", "hunter3-in-a-secret-file\n");
    let check = |environment: &[(&str, &str)], flags: &[&str]| {
        let ran = place.run(
            environment,
            &[&["check-config", "--config", "usher.toml"], flags].concat(),
        );
        let text = ran.printed().to_owned();
        assert!(!text.contains("hunter"), "{text}");
        (text.parse::<toml::Table>().unwrap(), text)
    };
    let (file, text) = check(&[], &[]);
    assert!(text.contains("hmac_secret = \"***\""), "{text}");
    let shown = |table: &toml::Table| {
        ["players", "admin"].map(|key| table["listen"][key].as_str().unwrap().to_owned())
    };
    assert_eq!(shown(&file), ["127.0.0.1:1111", "127.0.0.1:2222"]);
    assert_eq!(
        (file["lease"]["limit"].as_integer(), file["data"]["dir"].as_str()),
        (Some(7), Some("from-file"))
    );
    let environment = [
        ("USHER_LISTEN__PLAYERS", "127.0.0.1:3333"),
        ("USHER_LISTEN__ADMIN", "127.0.0.1:4444"),
        ("USHER_DATA__DIR", "from-environment"),
        ("USHER_AUTH__HMAC_SECRET_FILE", "secret"),
        ("USHER_REDIS__URL", "redis://from-environment"),
        ("USHER_REDIS__PASSWORD_FILE", "secret"),
        ("USHER_PLANS__FAMILY__LIMIT", "5"),
        ("USHER_LIMITS__EXEMPT_ADDRESSES", ""),
        // What Kubernetes puts there for a service called usher.
        ("USHER_PORT", "tcp://10.0.0.1:8443"),
        ("USHER_SERVICE_HOST", "10.0.0.1"),
    ];
    let (both, _) = check(&environment, &[]);
    assert_eq!(shown(&both), ["127.0.0.1:3333", "127.0.0.1:4444"]);
    assert_eq!(both["plans"]["family"]["limit"].as_integer(), Some(5));
    assert_eq!(both["limits"]["exempt_addresses"].as_array().unwrap().len(), 0);
    assert_eq!(
        both["lease"]["limit"].as_integer(),
        Some(7),
        "the file still counts"
    );
    let flags = [
        "--listen",
        "127.0.0.1:5555",
        "--data-dir",
        "from-flag",
        "--redis",
        "rediss+cluster://gate:hunter4@from-flag,b",
    ];
    let (all, _) = check(&environment, &flags);
    assert_eq!(both["redis"]["url"].as_str(), Some("redis://from-environment"));
    assert_eq!(both["redis"]["password"].as_str(), Some("***"));
    let masked = "rediss+cluster://gate:***@from-flag,b";
    assert_eq!(all["redis"]["url"].as_str(), Some(masked));
    assert_eq!(shown(&all), ["127.0.0.1:5555", "127.0.0.1:4444"]);
    assert_eq!(all["data"]["dir"].as_str(), Some("from-flag"));
    // What is printed is itself a configuration, with the same meaning.
    place.write("usher.toml", &text.replace("\"***\"", "\"hunter2\""));
    assert_eq!(check(&[], &[]).0, file);
    assert!(
        !place.path().join("from-file").exists(),
        "checking writes nothing"
    );
}

#[test]
fn a_wrong_setting_is_2_and_named_by_its_path_without_its_value() {
    let place = Place::new();
    for (toml, environment, named) in [
        ("[limits]\nconections = 1", ("X", ""), "limits.conections"),
        ("[nonsense]\nx = 1", ("X", ""), "nonsense"),
        ("[lease]\nperiod = \"10 parsecs\"", ("X", ""), "lease.period"),
        ("[lease]\nlimit = \"three\"", ("X", ""), "lease.limit"),
        ("[lease]\nlimit = 1001", ("X", ""), "lease.limit"),
        ("[plans.x]\nlimit = 1\nlimt = 1", ("X", ""), "plans.x.limt"),
        ("[tls]\ncert = \"x.pem\"", ("X", ""), "tls.key"),
        (
            "[listen]\ntrusted_proxies = [\"10.0.0.0/99\"]",
            ("X", ""),
            "listen.trusted_proxies",
        ),
        (
            "[[auth.keys]]\nfile = \"x\"\nalgorithm = \"HS256\"",
            ("X", ""),
            "auth.keys[0].algorithm",
        ),
        ("[log]\nlevel = \"loud\"", ("X", ""), "log.level"),
        ("[lease\nlimit = 1", ("X", ""), "line 1"),
        ("", ("USHER_LEASE__LIMITS", "hunter2"), "USHER_LEASE__LIMITS"),
        ("", ("USHER_LEASE__LIMIT", "hunter2"), "lease.limit"),
        ("", ("USHER_TAKEOVER__MODE", "hunter2"), "takeover.mode"),
        (
            "",
            ("USHER_AUTH__HMAC_SECRET_FILE", "/absent/hunter2"),
            "USHER_AUTH__HMAC_SECRET_FILE",
        ),
        (
            "",
            ("USHER_HTTP__ORIGINS", "https://a.example/path"),
            "http.origins[0]",
        ),
    ] {
        place.write("usher.toml", toml);
        for command in ["check-config", "serve", "token"] {
            let mut arguments = vec![command, "--config", "usher.toml"];
            arguments.extend(if command == "token" {
                &["--account", "a"][..]
            } else {
                &[]
            });
            let ran = place.run(&[environment], &arguments);
            let said = ran.complaint(2);
            // The environment names its variable, whose spelling is the path's.
            let variable = named.to_uppercase().replace('.', "__");
            assert!(
                said.contains(named) || said.contains(&variable),
                "{command}, {toml:?}: {said}"
            );
            assert!(
                environment.0 == "USHER_TAKEOVER__MODE" || !said.contains("hunter2"),
                "{said}"
            );
        }
    }
}

#[test]
fn certs_makes_a_certificate_once() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let printed = place.run(&[], &["certs"]);
    let files: Vec<&str> = printed.printed().lines().collect();
    assert_eq!(files.len(), 2);
    let made: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(place.path().join(file)).unwrap())
        .collect();
    assert!(made[0].contains("BEGIN CERTIFICATE") && made[1].contains("PRIVATE KEY"));
    for key in ["server-key.pem", "ca-key.pem"] {
        let mode = fs::metadata(place.path().join("certs").join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_eq!(place.run(&[], &["certs"]).printed(), printed.stdout);
    let again = fs::read_to_string(place.path().join(files[0])).unwrap();
    assert_eq!(again, made[0], "what is there stays");
}

#[tokio::test]
async fn health_and_lists_tell_of_a_running_node_and_of_none() {
    let place = Place::new();
    for arguments in [&["health"][..], &["health", "--json"], &["sessions", "list"]] {
        let none = place.run(&[HMAC, ("USHER_LISTEN__ADMIN", "127.0.0.1:1")], arguments);
        assert!(
            none.complaint(1)
                .contains("no node answers on http://127.0.0.1:1"),
            "{}",
            none.stderr
        );
    }
    let node = place.start().await;
    let run = |arguments: &[&str]| run_in(&node.dir, &[HMAC], arguments).printed().to_owned();
    assert_eq!(run(&["health"]), "ready\n");
    let health: Value = serde_json::from_str(&run(&["health", "--json"])).unwrap();
    assert_eq!(health, json!({"alive": true, "ready": true}));
    let list = || -> Value { serde_json::from_str(&run(&["sessions", "list", "--json"])).unwrap() };
    assert_eq!(list(), json!({"items": []}));
    let mut player = node
        .watch("a", "content=m1&device=tv-1&device_name=Living%20room%1B%5B31m")
        .await;
    let granted = player.next_of("granted").await;
    let item = &list()["items"][0];
    for (key, value) in [
        ("account", "a"),
        ("tenant", "main"),
        ("device", "tv-1"),
        ("content", "m1"),
        ("state", "playing"),
    ] {
        assert_eq!(item[key], value, "{item}");
    }
    assert_eq!(item["session"], granted["session"]);
    assert_eq!(item["device_name"], "Living room\u{1b}[31m");
    let table = run(&["sessions", "list", "--account", "a"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("SESSION") && lines[1].contains("tv-1"),
        "{table}"
    );
    assert_eq!(lines.len(), 2);
    assert!(
        !table.contains('\u{1b}'),
        "a player does not steer an operator's terminal"
    );
    assert_eq!(run(&["sessions", "list", "--account", "b"]).lines().count(), 1);
    assert!(
        !node.log().contains(granted["resume"].as_str().unwrap()),
        "the resume secret is in the log"
    );
}

#[tokio::test]
async fn a_command_with_another_key_is_refused() {
    let node = Node::start().await;
    let ran = run_in(
        &node.dir,
        &[("USHER_AUTH__HMAC_SECRET", "x")],
        &["sessions", "list"],
    );
    assert!(ran.complaint(1).contains("401"), "{}", ran.stderr);
}

#[tokio::test]
async fn the_addresses_are_written_and_a_taken_one_is_a_clear_error() {
    let mut node = Node::start().await;
    let file = node.dir.join("data/addresses.json");
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({"players": node.players.to_string(), "admin": node.admin.to_string()})
    );
    assert!(node.players.port() != 0 && node.admin.port() != 0);
    assert_eq!(node.ask(&get("/", &[])).await.status, 200);

    let place = Place::new();
    let (players, admin) = (node.players.to_string(), node.admin.to_string());
    for (flags, key, address) in [
        (
            ["--listen", &*players, "--admin-listen", "127.0.0.1:0"],
            "listen.players",
            &players,
        ),
        (
            ["--listen", "127.0.0.1:0", "--admin-listen", &*admin],
            "listen.admin",
            &admin,
        ),
    ] {
        let ran = place.run(&[HMAC], &[&["serve"][..], &flags].concat());
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        let said = &ran.stderr;
        assert!(
            said.contains(key) && said.contains(address) && said.contains("in use"),
            "{said}"
        );
        assert!(!ran.stdout.contains("Try it"), "{}", ran.stdout);
        assert!(!place.path().join("data/addresses.json").exists());
    }
    node.signal("-TERM");
    assert_eq!(node.exit_within(SOON).await, Some(0));
    assert!(!file.exists(), "a clean end leaves no address behind");
}

#[tokio::test]
async fn the_banner_can_be_pasted() {
    let node = Place::new().serve(&[], &[]).await;
    let line = node.logs(&["Try it"]).await;
    let log = node.log();
    assert!(log.contains(&format!("https://{}/", node.players)), "{log}");
    assert!(log.contains(&format!("http://{}/metrics", node.admin)), "{log}");
    let command = line.strip_prefix("Try it").unwrap().trim();
    let url = format!("\"wss://{}/v1/watch?content=demo&device=tv-1\"", node.players);
    let token = command
        .strip_prefix("websocat -k -H \"Authorization: Bearer ")
        .and_then(|rest| rest.strip_suffix(&format!("\" {url}")))
        .unwrap_or_else(|| panic!("{command}"));
    let mut players = Vec::new();
    for number in 1..=3 {
        let mut player = node
            .try_watch(token, &format!("content=demo&device=tv-{number}"))
            .await
            .unwrap();
        assert_eq!(player.next().await["type"], "granted");
        players.push(player);
    }
    let mut fourth = node.try_watch(token, "content=demo&device=tv-4").await.unwrap();
    assert_eq!(fourth.next().await["holders"].as_array().unwrap().len(), 3);
    assert_eq!(node.log().matches(token).count(), 1, "the banner only");
}

/// A node with a certificate of its own is no playground: it shows no token.
#[tokio::test]
async fn a_node_with_its_own_certificate_shows_no_token() {
    let place = Place::with("[tls]\ncert = \"own.pem\"\nkey = \"own-key.pem\"");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    place.write("own.pem", &pair.cert.pem());
    place.write("own-key.pem", &pair.signing_key.serialize_pem());
    let node = place.start().await;
    eventually("the banner", || node.log().contains("Player demo").then_some(())).await;
    assert!(!node.log().contains("Bearer"), "{}", node.log());
    assert!(!node.dir.join("certs").exists());
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let place =
        Place::with("[listen]\nplayers = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:1\"\n[data]\ndir = \"file\"");
    let environment = [
        HMAC,
        ("USHER_LISTEN__PLAYERS", "127.0.0.1:2"),
        ("USHER_LISTEN__ADMIN", "127.0.0.1:2"),
        ("USHER_DATA__DIR", "data"),
        ("USHER_PORT", "tcp://10.0.0.1:8443"),
    ];
    let node = place
        .serve(
            &environment,
            &["--listen", "127.0.0.3:0", "--admin-listen", "127.0.0.4:0"],
        )
        .await;
    assert_eq!(
        (node.players.ip().to_string(), node.admin.ip().to_string()),
        ("127.0.0.3".to_owned(), "127.0.0.4".to_owned())
    );
    assert!(!node.dir.join("file").exists());
    assert_eq!(node.ask(&get("/", &[])).await.status, 200);
    assert!(!node.log().contains(&token("a")));
}
