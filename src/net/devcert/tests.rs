//! What is on disk after a first start, a second one, an interrupted one and several at once.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use super::*;
use crate::net::scratch::Scratch;

const LOOPBACK: &str = "127.0.0.1";

fn make(dir: &Path, listen: &str) -> BTreeMap<String, Vec<u8>> {
    let paths = ensure(dir, &dir.join("data"), listen.parse().unwrap()).unwrap();
    assert_eq!(paths.cert, dir.join("certs/server.pem"));
    contents(&dir.join("certs"))
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            fs::read(&path).unwrap(),
        )
    });
    files.collect()
}

fn changed(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    after
        .iter()
        .filter(|(name, bytes)| before.get(*name) != Some(*bytes))
        .map(|(name, _)| name.clone())
        .collect()
}

fn verify(dir: &Path, options: &[&str]) -> Output {
    let dir = dir.join("certs");
    Command::new("openssl")
        .args(["verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslserver"])
        .args(options)
        .arg("-CAfile")
        .arg(dir.join(CA))
        .arg(dir.join(SERVER))
        .output()
        .unwrap()
}

#[test]
fn made_once_with_closed_keys() {
    let scratch = Scratch::new();
    let first = make(scratch.path(), LOOPBACK);
    let names: Vec<_> = first.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [".lock", "ca-key.pem", "ca.pem", "server-key.pem", "server.pem"]
    );
    let mode = |name| {
        fs::metadata(scratch.path().join("certs").join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    for name in [CA, CA_KEY, SERVER, SERVER_KEY] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    for listen in [LOOPBACK, "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(make(scratch.path(), listen), first);
    }
}

#[test]
fn openssl_accepts_it() {
    let scratch = Scratch::new();
    make(scratch.path(), "192.0.2.7");
    for options in [
        &["-verify_hostname", "localhost"],
        &["-verify_ip", "127.0.0.1"],
        &["-verify_ip", "::1"],
        &["-verify_ip", "192.0.2.7"],
    ] {
        let output = verify(scratch.path(), options);
        assert!(output.status.success(), "{options:?}: {output:?}");
    }
    assert!(
        !verify(scratch.path(), &["-verify_hostname", "example.com"])
            .status
            .success()
    );
}

#[test]
fn another_listen_address_is_added_under_the_same_ca() {
    let scratch = Scratch::new();
    let first = make(scratch.path(), "192.0.2.7");
    let second = make(scratch.path(), "2001:db8::7");
    assert_eq!(changed(&first, &second), [SERVER_KEY, SERVER]);
    assert_eq!(
        make(scratch.path(), "192.0.2.7"),
        second,
        "the earlier address is still covered"
    );
    assert!(
        verify(scratch.path(), &["-verify_ip", "2001:db8::7"])
            .status
            .success()
    );
}

#[test]
fn what_a_kill_left_is_made_again() {
    let scratch = Scratch::new();
    let certs = scratch.path().join("certs");
    let first = make(scratch.path(), LOOPBACK);

    // Between the two renames of the server's pair, with a temporary file half-written.
    fs::write(certs.join(".new-server.pem"), "-----BEGIN").unwrap();
    fs::copy(certs.join(CA_KEY), certs.join(SERVER_KEY)).unwrap();
    let second = make(scratch.path(), LOOPBACK);
    assert_eq!(changed(&first, &second), [SERVER_KEY, SERVER]);
    assert_eq!(second.len(), first.len());

    fs::write(certs.join(SERVER), [0xff; 100]).unwrap();
    assert_eq!(
        changed(&second, &make(scratch.path(), LOOPBACK)),
        [SERVER_KEY, SERVER]
    );

    // Without the CA's key there is no adding to it.
    fs::remove_file(certs.join(CA_KEY)).unwrap();
    assert_eq!(
        changed(&second, &make(scratch.path(), LOOPBACK)),
        [CA_KEY, CA, SERVER_KEY, SERVER]
    );
    assert!(verify(scratch.path(), &[]).status.success());
}

#[test]
fn several_at_once_agree() {
    let scratch = Scratch::new();
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| make(scratch.path(), LOOPBACK)))
            .collect();
        let results: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        assert!(results.iter().all(|result| *result == results[0]));
    });
}

#[test]
fn the_data_directory_serves_when_the_working_directory_cannot() {
    let scratch = Scratch::new();
    // A file where a directory should be refuses even root.
    let working = scratch.path().join("working");
    fs::write(&working, "").unwrap();
    let data = scratch.path().join("data");
    let paths = ensure(&working, &data, LOOPBACK.parse().unwrap()).unwrap();
    assert_eq!(paths.cert, data.join("certs/server.pem"));
    assert_eq!(paths.ca, Some(data.join("certs/ca.pem")));
    assert!(matches!(
        ensure(&working, &working, LOOPBACK.parse().unwrap()),
        Err(DevCertError::File { path, .. }) if path.starts_with(&working)
    ));
}
