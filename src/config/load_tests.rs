//! Tests of loading as the user meets it: files, variables, flags and messages.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use proptest::prelude::*;
use toml::Table;

use super::keys::flatten;
use super::scratch::Scratch;
use super::{Config, DEFAULT_TOML, Mode, Overrides, TakeoverMode, load, to_toml};

type Variables<'a> = &'a [(&'a str, &'a str)];

fn vars(variables: Variables<'_>) -> Vec<(OsString, OsString)> {
    variables
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

/// Loads `file` (as usher.toml of a scratch directory) and `env`; problems come with the directory removed.
fn outcome(file: &str, env: Variables<'_>) -> Result<Config, String> {
    let dir = Scratch::new();
    let path = dir.write("usher.toml", file);
    load(Some(&path), vars(env), &Overrides::default())
        .map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

fn accepted(file: &str, env: Variables<'_>) -> Config {
    outcome(file, env).unwrap()
}

fn refused(file: &str, env: Variables<'_>) -> Vec<String> {
    outcome(file, env)
        .unwrap_err()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn paths(table: &Table) -> BTreeSet<String> {
    flatten(table).into_keys().collect()
}

#[test]
fn the_manual_and_the_types_have_the_same_keys() {
    let defaults = load(None, [], &Overrides::default()).unwrap();
    let typed: Table = to_toml(&defaults).parse().unwrap();
    let manual: Table = DEFAULT_TOML.parse().unwrap();
    assert_eq!(paths(&typed), paths(&manual));
    assert_eq!(typed, manual, "every default is written as it is printed");
}

#[test]
fn every_key_of_the_manual_is_explained() {
    let lines: Vec<&str> = DEFAULT_TOML.lines().collect();
    for pair in lines.windows(2) {
        let is_key = pair[1].starts_with(|c: char| c.is_ascii_lowercase());
        assert!(
            !is_key || pair[0].starts_with("# "),
            "no comment above {}",
            pair[1]
        );
    }
}

#[test]
fn the_examples_of_the_manual_are_valid() {
    let examples: Vec<&str> = DEFAULT_TOML
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.is_empty() && !line.starts_with(' '))
        .collect();
    let config = accepted(&examples.join("\n"), &[]);
    assert_eq!(config.auth.keys.len(), 1);
    assert_eq!(config.auth.jwks.len(), 1);
    assert_eq!(config.plans["basic"].on_limit, [Mode::Reject, Mode::Ask]);
    assert_eq!(config.plans["family"].limit, 5);
    assert_eq!(config.rules.len(), 4);
    let printed = to_toml(&config);
    assert_eq!(
        to_toml(&accepted(&printed, &[])),
        printed,
        "what check-config prints can be loaded"
    );
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let dir = Scratch::new();
    let file = dir.write(
        "usher.toml",
        "[listen]\nplayers = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n[lease]\nlimit = 7\n[log]\nlevel = \"warn\"",
    );
    let env = vars(&[
        ("USHER_LISTEN__PLAYERS", "127.0.0.1:3"),
        ("USHER_LEASE__LIMIT", "8"),
        ("USHER_REDIS__URL", "redis://environment"),
        ("USHER_PORT", "x"),
    ]);
    let flags = Overrides {
        listen: Some("127.0.0.1:4".parse().unwrap()),
        redis: Some("redis://flag".to_owned().into()),
        ..Overrides::default()
    };
    let config = load(Some(&file), env, &flags).unwrap();
    assert_eq!(config.listen.players.port(), 4, "flag");
    assert_eq!(config.redis.url.expose(), "redis://flag", "flag");
    assert_eq!(config.lease.limit, 8, "environment");
    assert_eq!(config.listen.admin.port(), 2, "file");
    assert_eq!(config.log.level, "warn", "file");
    assert_eq!(config.lease.period, Duration::from_secs(10), "default");
}

#[test]
fn the_environment_sets_every_type() {
    let config = accepted(
        "[plans.Gold]\nlimit = 1",
        &[
            ("USHER_AUTH__HMAC_SECRET", "12345"),
            ("USHER_DEBUG__ECHO", "true"),
            ("USHER_LIMITS__CONNECTIONS", "5"),
            ("USHER_LIMITS__EXEMPT_ADDRESSES", "10.0.0.0/8, ::1/128"),
            ("USHER_HTTP__ORIGINS", "[\"https://a.example\"]"),
            ("USHER_LISTEN__TRUSTED_PROXIES", ""),
            ("USHER_AUTH__KEYS", "[{file=\"a.pem\", algorithm=\"EdDSA\"}]"),
            ("USHER_PLANS__FAMILY__LIMIT", "5"),
            ("USHER_PLANS__GOLD__LIMIT", "2"),
            ("USHER_TAKEOVER__MODE", "consent"),
            ("usher_drain__delay", "250ms"),
            ("USHER_LOG__FILE", "usher.log"),
        ],
    );
    assert_eq!(config.auth.hmac_secret.expose(), "12345");
    assert!(config.debug.echo);
    assert_eq!(config.limits.connections, 5);
    assert_eq!(config.limits.exempt_addresses.len(), 2);
    assert_eq!(config.http.origins, ["https://a.example"]);
    assert!(config.listen.trusted_proxies.is_empty());
    assert_eq!(config.auth.keys[0].scopes, ["watch"]);
    assert_eq!(config.plans["family"].limit, 5);
    assert_eq!(config.plans["Gold"].limit, 2, "the file's spelling is kept");
    assert_eq!(config.takeover.mode, TakeoverMode::Consent);
    assert_eq!(config.drain.delay, Duration::from_millis(250));
    assert_eq!(config.log.file.to_str(), Some("usher.log"));
}

#[test]
fn a_variable_ending_in_file_names_a_file_with_the_value() {
    let dir = Scratch::new();
    let secret = dir.write("secret", "s3cret\n\n");
    let name = dir.write("name", "usher.log\r\n");
    let [secret, name] = [secret, name].map(|path| path.to_str().unwrap().to_owned());
    let config = accepted(
        "",
        &[
            ("USHER_AUTH__HMAC_SECRET_FILE", &secret),
            ("USHER_LOG__FILE_FILE", &name),
        ],
    );
    assert_eq!(
        config.auth.hmac_secret.expose(),
        "s3cret\n",
        "one newline is trimmed"
    );
    assert_eq!(config.log.file.to_str(), Some("usher.log"));

    let problems = refused("", &[("USHER_AUTH__HMAC_SECRET_FILE", "hunter2")]);
    assert!(
        problems[0].starts_with("environment USHER_AUTH__HMAC_SECRET_FILE: cannot read"),
        "{problems:?}"
    );
    assert!(!problems[0].contains("hunter2"));
    let both = refused(
        "",
        &[
            ("USHER_AUTH__HMAC_SECRET", "x"),
            ("USHER_AUTH__HMAC_SECRET_FILE", &secret),
        ],
    );
    assert_eq!(
        both,
        ["environment USHER_AUTH__HMAC_SECRET_FILE: auth.hmac_secret is also set by USHER_AUTH__HMAC_SECRET"]
    );
}

#[test]
fn all_unknown_keys_are_named_with_their_source() {
    let file = "[limits]\nconections = 1\n[plans.a]\nlimit = 1\nlimt = 2\n[auth]\nkeys = [{file = \"a\", \
                algorithm = \"ES256\", kidd = \"x\"}]\n[extra]\na = 1";
    let env = [
        ("USHER_LIMITS__CONECTIONS", "1"),
        ("USHER_NOSUCH__A", "1"),
        ("USHER_NOSUCH__B", "1"),
        ("USHER_LOG__LEVEL__X", "1"),
        ("USHER_A__", "1"),
    ];
    assert_eq!(
        refused(file, &env),
        [
            "environment USHER_A__: not the name of a setting",
            "environment USHER_LOG__LEVEL__X: unknown key log.level.x (did you mean log.level?)",
            "usher.toml: unknown key auth.keys[0].kidd",
            "usher.toml: unknown key extra",
            "usher.toml: unknown key limits.conections (did you mean limits.connections?)",
            "environment USHER_LIMITS__CONECTIONS: unknown key limits.conections (did you mean limits.connections?)",
            "environment USHER_NOSUCH__A: unknown key nosuch.a",
            "environment USHER_NOSUCH__B: unknown key nosuch.b",
            "usher.toml: unknown key plans.a.limt",
        ]
    );
}

#[test]
fn all_wrong_types_are_named_with_their_path() {
    let file = "drain = 5\n[limits]\nconnections = \"many\"\nhandshakes = -1\nexempt_addresses = [\"10.0.0.0/33\"]\n\
                [lease]\nperiod = \"ten\"\n[takeover]\nmode = \"never\"\n[plans]\na = \"x\"\n[plans.b]\non_limit = []";
    let env = [
        ("USHER_LISTEN__PLAYERS", "localhost:1"),
        ("USHER_DEBUG__ECHO", "maybe"),
        ("USHER_LOG__FILES", ""),
    ];
    assert_eq!(
        refused(file, &env),
        [
            "usher.toml: drain: expected a table, found an integer",
            "environment USHER_DEBUG__ECHO: expected a boolean",
            "environment USHER_LOG__FILES: expected an integer",
            "usher.toml: lease.period: not a duration such as \"10s\": expected number at 0",
            "usher.toml: limits.connections: expected an integer, found a string",
            "usher.toml: limits.exempt_addresses[0]: invalid IP address syntax",
            "usher.toml: limits.handshakes: invalid value: integer `-1`, expected u32",
            "environment USHER_LISTEN__PLAYERS: listen.players: invalid socket address syntax",
            "usher.toml: plans.a: expected a table, found a string",
            "usher.toml: plans.b: missing field `limit`",
            "usher.toml: takeover.mode: unknown variant `never`, expected `immediate` or `consent`",
        ]
    );
}

#[test]
fn the_place_of_a_syntax_error_is_told_and_its_line_is_not() {
    let problems = refused("[auth]\nhmac_secret = \"hunter2\nissuer = \"x\"", &[]);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("usher.toml: line 2, column "),
        "{problems:?}"
    );
    assert!(!problems[0].contains("hunter2"));
}

#[test]
fn secrets_are_in_no_message_and_in_no_print() {
    let secret = "31337";
    let files = [
        "[auth]\nhmac_secret = 31337",
        "auth = \"31337\"",
        "[auth]\nhmac_secret = [31337]",
        "[auth]\n31337",
    ];
    for file in files {
        let problems = refused(file, &[]);
        let told: Vec<_> = problems
            .iter()
            .filter(|problem| problem.contains(secret))
            .collect();
        assert!(told.is_empty() && !problems.is_empty(), "{file}: {told:?}");
    }
    let inner = refused(
        "",
        &[
            ("USHER_AUTH__HMAC_SECRET__X", secret),
            ("USHER_AUTH__KEYS", secret),
        ],
    );
    assert!(!inner.join("\n").contains(secret), "{inner:?}");
    let env = [
        ("USHER_AUTH__HMAC_SECRET", secret),
        ("USHER_REDIS__URL", "rediss://gate:31337@redis.example"),
        ("USHER_REDIS__PASSWORD", secret),
        ("USHER_REDIS__SENTINEL_PASSWORD", secret),
    ];
    let refused = refused("[redis]\nsentinel_password = \"\"", &env);
    assert!(!refused.join("\n").contains(secret), "{refused:?}");
    let config = accepted("", &env[..3]);
    let printed = to_toml(&config);
    assert!(printed.contains("hmac_secret = \"***\""));
    assert!(
        printed.contains("url = \"rediss://gate:***@redis.example\""),
        "{printed}"
    );
    assert!(!printed.contains(secret) && !format!("{config:?}").contains(secret));
}

#[test]
fn a_missing_or_unreadable_file_is_a_clear_error() {
    let dir = Scratch::new();
    let missing = load(Some(&dir.path().join("no.toml")), [], &Overrides::default()).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("no.toml: cannot read the configuration file: "),
        "{missing}"
    );
    let latin1 = dir.write("latin1.toml", b"x = \"\xe9\"");
    let latin1 = load(Some(&latin1), [], &Overrides::default()).unwrap_err();
    assert!(latin1.to_string().ends_with("latin1.toml: not UTF-8"), "{latin1}");
}

#[test]
fn deep_input_is_refused_without_deep_recursion() {
    let deep = vec!["a"; 100_000].join(".");
    assert!(outcome(&format!("{deep} = 1"), &[]).is_err());
    let deep = format!("USHER_{}", vec!["A"; 100_000].join("__"));
    assert!(outcome("", &[(&deep, "1")]).is_err());
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(outcome("", &[("USHER_PLANS__A__ON_LIMIT", &nested)]).is_err());
}

/// Pieces of real names and values, so that random text gets past the first check.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "auth",
        "keys",
        "limits",
        "connections",
        "plans",
        "log",
        "level",
        "=",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "\n",
        ".",
        ",",
        "\"",
        "#",
        "1",
        "\"10s\"",
        "__",
        "_FILE",
        "file",
        "on_limit",
        "true",
        "é",
        "\\",
        "info",
        "=debug",
    ]);
    prop_oneof![3 => known.prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(file in text(), name in text(), key in text(), value in text()) {
        let names = [format!("USHER_{name}__{key}"), format!("USHER_LOG__{key}"), format!("USHER_PLANS__{name}__{key}")];
        let mut env: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
        env.extend([("USHER_LOG__LEVEL", key.as_str()), ("USHER_AUTH__JWKS", value.as_str())]);
        if let Err(problems) = outcome(&file, &env) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn a_secret_is_never_told(secret in "[A-Z]{12}", form in 0..4) {
        let file = match form {
            0 => format!("[auth]\nhmac_secret = \"{secret}"),
            1 => format!("[auth]\nhmac_secret = {secret}"),
            2 => format!("[auth]\nhmac_secret = [\"{secret}\"]"),
            _ => format!("[auth]\nhmac_secret = {{ a = \"{secret}\" }}"),
        };
        prop_assert!(!outcome(&file, &[]).unwrap_err().contains(&secret));
    }
}
