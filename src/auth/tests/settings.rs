//! Settings that stop the start, each by its name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fixture::{ED25519, P256, Pair, RSA, TempDir, no_settings, pem_key};
use crate::auth::Verifier;
use crate::config::{Auth, Jwks, PemKey};
use crate::outbound::Guard;

fn jwks(url: &str) -> Jwks {
    Jwks {
        url: url.to_owned(),
        ca: PathBuf::new(),
        issuer: String::new(),
        tenants: vec!["main".to_owned()],
        scopes: vec!["watch".to_owned()],
        refresh: Duration::from_secs(300),
    }
}

fn problem(settings: &Auth, data_dir: &Path) -> String {
    Verifier::new(settings, data_dir, &Guard::default())
        .err()
        .unwrap()
        .to_string()
}

#[test]
fn pem_keys() {
    let dir = TempDir::new();
    let good = |pair: &Pair| pem_key(&dir, pair, "");
    let words = |word: &str| vec![word.to_owned()];
    let cases = [
        (
            PemKey {
                file: dir.path().join("absent.pem"),
                ..good(&RSA)
            },
            "auth.keys[1].file: ",
        ),
        (
            PemKey {
                file: dir.write("junk.pem", "junk"),
                ..good(&RSA)
            },
            "auth.keys[1].file: ",
        ),
        (
            PemKey {
                file: dir.write("private.pem", &RSA.private_pem),
                ..good(&RSA)
            },
            "auth.keys[1].file: ",
        ),
        (
            PemKey {
                algorithm: "ES256".to_owned(),
                ..good(&RSA)
            },
            "auth.keys[1].file: ",
        ),
        (
            PemKey {
                algorithm: "EdDSA".to_owned(),
                ..good(&P256)
            },
            "auth.keys[1].file: ",
        ),
        (
            PemKey {
                algorithm: "RS256".to_owned(),
                ..good(&ED25519)
            },
            "auth.keys[1].file: ",
        ),
        (
            PemKey {
                algorithm: "HS256".to_owned(),
                ..good(&RSA)
            },
            "auth.keys[1].algorithm: ",
        ),
        (
            PemKey {
                algorithm: "none".to_owned(),
                ..good(&RSA)
            },
            "auth.keys[1].algorithm: ",
        ),
        (
            PemKey {
                algorithm: String::new(),
                ..good(&RSA)
            },
            "auth.keys[1].algorithm: ",
        ),
        (
            PemKey {
                tenants: words("a b"),
                ..good(&RSA)
            },
            "auth.keys[1].tenants: ",
        ),
        (
            PemKey {
                scopes: words("root"),
                ..good(&RSA)
            },
            "auth.keys[1].scopes: ",
        ),
    ];
    for (key, start) in cases {
        let settings = Auth {
            keys: vec![good(&ED25519), key],
            ..no_settings()
        };
        let problem = problem(&settings, dir.path());
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn jwks_sources() {
    let dir = TempDir::new();
    let good = || jwks("https://127.0.0.1/jwks");
    let junk = dir.write("ca.pem", "junk");
    let cases = [
        (jwks("http://id.example/jwks"), "auth.jwks[0].url: must be https"),
        (jwks("nonsense"), "auth.jwks[0].url: "),
        (
            jwks("https://10.0.0.1/jwks"),
            "auth.jwks[0].url: must not be an address that is not public",
        ),
        (
            Jwks {
                ca: dir.path().join("absent"),
                ..good()
            },
            "auth.jwks[0].ca: ",
        ),
        (Jwks { ca: junk, ..good() }, "auth.jwks[0].ca: "),
        (
            Jwks {
                tenants: Vec::new(),
                ..good()
            },
            "auth.jwks[0].tenants: ",
        ),
        (
            Jwks {
                scopes: vec!["*".to_owned()],
                ..good()
            },
            "auth.jwks[0].scopes: ",
        ),
    ];
    for (source, start) in cases {
        let problem = problem(
            &Auth {
                jwks: vec![source],
                ..no_settings()
            },
            dir.path(),
        );
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn signing_keys() {
    let dir = TempDir::new();
    let configured = |pem: &str| Auth {
        signing_key: dir.write("own.pem", pem),
        ..no_settings()
    };
    for pem in [
        &RSA.private_pem,
        &P256.public_pem(),
        "",
        "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
    ] {
        let problem = problem(&configured(pem), dir.path());
        assert!(problem.starts_with("auth.signing_key: "), "{problem}");
    }
    let file_as_directory = dir.write("file", "");
    let problem = problem(&no_settings(), &file_as_directory);
    assert!(problem.starts_with("data.dir: "), "{problem}");
}
