//! Tests of the rules, through the messages that the user reads.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
use super::scratch::Scratch;
use super::validate::{is_key_set_url, is_origin};
use super::{Overrides, load, log_filter};

fn problems_of(text: &str) -> Vec<String> {
    let dir = Scratch::new();
    let path = dir.write("usher.toml", text);
    let problems = load(Some(&path), [], &Overrides::default())
        .unwrap_err()
        .to_string();
    let file = format!("{}: ", path.display());
    problems.lines().map(|line| line.replace(&file, "")).collect()
}

#[test]
fn every_value_out_of_range_is_named() {
    let text = "listen.admin = \"127.0.0.1:8443\"\nlisten.admin_hosts = [\"a:1\"]\ntls.cert = \"a.pem\"\n\
        tls.reload_interval = \"0s\"\nlease.period = \"999ms\"\nlease.limit = 1001\ntakeover.ask_for = \"6m\"\n\
        takeover.answer_within = \"0s\"\nwaiting.max = 1001\nwaiting.timeout = \"0s\"\n\
        limits.handshake_timeout = \"61s\"\nlimits.messages_burst = 1000001\ndrain.deadline = \"1s\"\n\
        drain.rate = 0\nlog.files = 0\nlog.max_bytes = 4095\nlog.level = \"inof\"\ndebug.echo_max_bytes = 124\n\
        plans.\"\" = {limit = 1}\nplans.p = {limit = 1001, on_limit = []}";
    let problems = problems_of(text);
    let paths: Vec<&str> = problems
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    let expected = [
        "listen.admin",
        "listen.admin_hosts[0]",
        "tls.key",
        "tls.reload_interval",
        "plans.\"\"",
        "plans.p.limit",
        "plans.p.on_limit",
        "lease.limit",
        "lease.period",
        "takeover.answer_within",
        "takeover.ask_for",
        "waiting.max",
        "waiting.timeout",
        "limits.handshake_timeout",
        "limits.messages_burst",
        "drain.rate",
        "drain.deadline",
        "log.level",
        "log.max_bytes",
        "log.files",
        "debug.echo_max_bytes",
    ];
    assert_eq!(paths, expected);
    assert_eq!(problems[8], "lease.period: must be from 1s to 10m");
    assert_eq!(
        problems[16],
        "drain.deadline: must not be shorter than drain.window"
    );
}

#[test]
fn keys_are_checked() {
    let text = "auth.keys = [{file = \"\", algorithm = \"HS256\", tenants = [], scopes = [\"wach\"]}]\n\
        auth.jwks = [{url = \"http://id.example.com/\", refresh = \"0s\"}]";
    let problems = problems_of(text);
    assert_eq!(
        problems,
        [
            "auth.keys[0].file: must not be empty",
            "auth.keys[0].algorithm: must be EdDSA, ES256 or RS256",
            "auth.keys[0].tenants: must name at least one tenant, or *",
            "auth.keys[0].scopes: must be of watch, admin, editor, support, finance, introspect, operator",
            "auth.jwks[0].url: must be https://.., or http:// on a loopback address, without credentials",
            "auth.jwks[0].refresh: must be from 1s to 1day",
        ]
    );
}

#[test]
fn accounts_have_bounds() {
    let text = "[accounts]\npassword_min = 5\ntoken_ttl = \"30s\"\nreset_url = \"https://x/\"\nhash_memory_kib = 64\n\
        hash_queue = 0\nsign_up_tenants = [\"a/b\"]\nopen_plans = [\"*\", \"gold\"]";
    assert_eq!(
        problems_of(text),
        [
            "accounts.password_min: must be from 6 to 64",
            "accounts.token_ttl: must be from 1m to 1day",
            "accounts.reset_url: must be empty, or https://.. with {token} in it",
            "accounts.hash_memory_kib: must be from 8192 to 262144",
            "accounts.hash_queue: must be from 1 to 100000",
            "accounts.sign_up_tenants[0]: must be the name of a tenant",
            "accounts.open_plans[1]: must be * or a plan of [plans], not \"gold\"",
        ]
    );
}

#[test]
fn a_rule_that_names_nothing_that_exists_is_named() {
    let text = "[rules.account]\nper = \"profile\"\nlimit = 1\n[rules.Tv]\nper = \"profile\"\nlimit = 1001\n\
        [rules.a]\nper = \"device_class\"\nof = [\"tv\", \"TV\"]\nlimit = 1\nplans = [\"basic\", \"gold\"]\n\
        [rules.b]\nper = \"tag\"\nof = [\"kids\", \"sport\"]\nlimit = 1\nhome = [\"10.0.0.0/8\"]\n\
        [rules.c]\nper = \"content\"\nof = [\"a*b\", \"m1\", \"m1\"]\nlimit = 1\nwithin = \"30d\"\n\
        [rules.d]\nper = \"address\"\nof = [\"x\"]\nhome = [\"10.0.0.0/8\"]\nwithin = \"30d\"\nlimit = 1\n\
        [rules.e]\nper = \"device\"\nwithin = \"59m\"\nenforce_running = true\nlimit = 1\n\
        [tags]\nkids = [\"kids-*\"]\nnone = []\nbad = [\"*x\"]\n[plans.basic]\nlimit = 1\n\
        [modules]\ncatalogue = false\n[exempt]\ncontents = [\"\"]\ntags = [\"kid\"]\naccounts = [\"/x\", \"a/b/c\"]\n[devices]\nclasses = [\"tv\", \"\"]";
    assert_eq!(
        problems_of(text),
        [
            "rules.Tv: its name must be 1 to 32 of a-z, 0-9, - and _, and not account",
            "rules.Tv.limit: must be from 0 to 1000",
            "rules.a.plans[1]: no plan \"gold\" in [plans]",
            "rules.a.of[1]: no class \"TV\" in devices.classes",
            "rules.account: its name must be 1 to 32 of a-z, 0-9, - and _, and not account",
            "rules.b.of[1]: no tag \"sport\" in [tags]",
            "rules.b.home: only with per = \"address\"",
            "rules.c.of: must not name anything twice",
            "rules.c.of[0]: must be a content of 1 to 256 bytes; a * may stand at its end only",
            "rules.c.within: only with per = \"device\", or \"address\" without home",
            "rules.d.of: only with per = \"device_class\", \"content\" or \"tag\"",
            "rules.d.within: only with per = \"device\", or \"address\" without home",
            "rules.e.within: must be from 1h to 1year",
            "rules.e.enforce_running: not with per = \"device\" and within: the end of a session frees no device",
            "tags.bad[0]: must be a content of 1 to 256 bytes; a * may stand at its end only",
            "tags.none: must have 1 to 10000 contents",
            "exempt.contents[0]: must be a content of 1 to 256 bytes; a * may stand at its end only",
            "exempt.tags[0]: no tag \"kid\" in [tags]",
            "exempt.accounts[0]: must be <account> or <tenant>/<account>",
            "devices.classes[1]: must have 1 to 64 bytes",
        ]
    );
    let unknown = problems_of("[rules.x]\nper = \"planet\"\nlimit = 1");
    assert!(
        unknown[0].starts_with("rules.x.per: unknown variant `planet`"),
        "{unknown:?}"
    );
    let unknown = problems_of("[rules.x]\nper = \"profile\"\nlimit = 1\nlimits = 2");
    assert!(unknown[0].contains("rules.x.limits"), "{unknown:?}");
}

#[test]
fn redis_is_checked() {
    let text = "[redis]\nurl = \"redis+cluster://a:hunter2@h1,h2/3\"\nusername = \"u\"\nsentinel_username = \"s\"\n\
        cert = \"c.pem\"\ntimeout = \"6s\"\nconnect_timeout = \"0s\"\nprefix = \"A\"\nbuckets = 0\nevents = 99\n\
        recovery = \"0s\"";
    assert_eq!(
        problems_of(text),
        [
            "redis.url: a cluster has only database 0",
            "redis.password: must be set together with redis.username",
            "redis.sentinel_password: must be set together with redis.sentinel_username",
            "redis.key: must be set together with redis.cert",
            "redis.timeout: must be from 100ms to 5s",
            "redis.connect_timeout: must be from 100ms to 5s",
            "redis.prefix: must be 1 to 32 of a-z, 0-9, - and _",
            "redis.buckets: must be from 1 to 1024",
            "redis.events: must be from 100 to 1000000",
            "redis.recovery: must be from 5s to 1m",
        ]
    );
    let unused = "[redis]\nurl = \"redis://h\"\nca = \"ca.pem\"\nsentinel_password = \"x\"";
    assert_eq!(
        problems_of(unused),
        [
            "redis.sentinel_password: needs a URL redis+sentinel://..",
            "redis.ca: needs a URL rediss://..",
        ]
    );
}

#[test]
fn key_set_urls_are_private_or_encrypted() {
    for good in [
        "https://id.example.com/jwks",
        "http://127.0.0.1:9/jwks",
        "http://[::1]:9/",
        "http://localhost/",
    ] {
        assert!(is_key_set_url(good), "{good}");
    }
    for bad in [
        "",
        "jwks",
        "/jwks",
        "ftp://a/",
        "http://10.0.0.1/",
        "http://localhost.evil/",
        "https://u:p@a/",
    ] {
        assert!(!is_key_set_url(bad), "{bad}");
    }
}

#[test]
fn origins_have_no_path() {
    for good in [
        "*",
        "https://a.example",
        "http://localhost:3000",
        "http://[::1]:3000",
        "capacitor://localhost",
    ] {
        assert!(is_origin(good), "{good}");
    }
    for bad in [
        "",
        "null",
        "a.example",
        "https://",
        "https://a/",
        "https://a/b",
        "https://u@a",
        "https://a:x",
        "://a",
    ] {
        assert!(!is_origin(bad), "{bad}");
    }
}

#[test]
fn a_lone_word_of_a_filter_is_a_level() {
    for good in [
        "info",
        "INFO",
        "usher=debug,hyper=warn",
        "warn,usher::net=trace",
        "info, usher=debug",
    ] {
        assert!(log_filter(good).is_ok(), "{good}");
    }
    for bad in ["", "inof", "usher", "info,", "usher=loud", "=", "[["] {
        assert!(log_filter(bad).is_err(), "{bad}");
    }
}
