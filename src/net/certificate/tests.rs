//! Loading, exchanging and watching certificates, with pairs made on the spot.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::symlink;
use std::process::Command;

use tokio::sync::mpsc;

use super::*;
use crate::net::scratch::Scratch;
use crate::net::{devcert, tls};

/// A fresh CA and server certificate, each call another one.
pub(in crate::net) fn fresh_pair(scratch: &Scratch, name: &str) -> CertPaths {
    let dir = scratch.path().join(name);
    devcert::ensure(&dir, &dir, IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap()
}

/// Replaces what `to` names by what `from` holds.
pub(in crate::net) fn copy_pair(from: &CertPaths, to: &CertPaths) {
    fs::copy(&from.cert, &to.cert).unwrap();
    fs::copy(&from.key, &to.key).unwrap();
}

fn load(paths: &CertPaths) -> Result<Certificates, CertificateError> {
    Certificates::load(paths.clone(), tls::provider())
}

fn leaf(certificates: &Certificates) -> Vec<u8> {
    certificates.current.load().certified.cert[0].to_vec()
}

#[test]
fn load_knows_the_end() {
    let scratch = Scratch::new();
    let certificates = load(&fresh_pair(&scratch, "a")).unwrap();
    let days = certificates
        .expires_at()
        .duration_since(SystemTime::now())
        .unwrap()
        .as_secs()
        / 86_400;
    assert_eq!(days, 396);
}

#[test]
fn an_error_names_the_file_and_what_is_wrong() {
    let scratch = Scratch::new();
    let (a, b) = (fresh_pair(&scratch, "a"), fresh_pair(&scratch, "b"));
    let text = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let openssl = |arguments: &[&str]| {
        let path = scratch.path().join(format!("{}.pem", arguments.join("")));
        let command = Command::new("openssl")
            .args(arguments)
            .args(["-passout", "pass:x", "-in"])
            .arg(&a.key)
            .arg("-out")
            .arg(&path)
            .output()
            .unwrap();
        assert!(command.status.success(), "{command:?}");
        path
    };
    let empty = text("empty.pem", "");
    let cut = text("cut.pem", &fs::read_to_string(&a.cert).unwrap()[..200]);
    let base64 = text(
        "base64.pem",
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
    );
    let der = text(
        "der.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let missing = scratch.path().join("missing.pem");
    let pkcs8 = openssl(&["pkey", "-aes256"]);
    let traditional = openssl(&["ec", "-aes256"]);
    let rows = [
        (&missing, &a.key, &missing, "cannot read"),
        (&a.cert, &missing, &missing, "cannot read"),
        (&empty, &a.key, &empty, "holds no PEM certificate"),
        (&a.key, &a.key, &a.key, "holds no PEM certificate"),
        (&cut, &a.key, &cut, "without its END line"),
        (&base64, &a.key, &base64, "not valid base64"),
        (&der, &a.key, &der, "not an X.509 certificate"),
        (&a.cert, &empty, &empty, "holds no PEM private key"),
        (&a.cert, &a.cert, &a.cert, "holds no PEM private key"),
        (&a.cert, &pkcs8, &pkcs8, "the private key is encrypted"),
        (
            &a.cert,
            &traditional,
            &traditional,
            "the private key is encrypted",
        ),
        (&a.cert, &b.key, &b.key, "is not the key of the certificate in"),
    ];
    for (cert, key, named, expected) in rows {
        let paths = CertPaths {
            cert: cert.clone(),
            key: key.clone(),
            ca: None,
        };
        let error = load(&paths).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains(named.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn reload_keeps_the_old_pair_on_any_error() {
    let scratch = Scratch::new();
    let (paths, other) = (fresh_pair(&scratch, "a"), fresh_pair(&scratch, "b"));
    let certificates = load(&paths).unwrap();
    let first = leaf(&certificates);
    assert_eq!(certificates.reload().unwrap(), Reload::Unchanged);

    fs::copy(&other.cert, &paths.cert).unwrap();
    assert!(matches!(
        certificates.reload(),
        Err(CertificateError::Mismatch { .. })
    ));
    fs::write(&paths.cert, "").unwrap();
    assert!(matches!(
        certificates.reload(),
        Err(CertificateError::Content { .. })
    ));
    fs::remove_file(&paths.cert).unwrap();
    assert!(matches!(
        certificates.reload(),
        Err(CertificateError::Read { .. })
    ));
    assert_eq!(leaf(&certificates), first);

    copy_pair(&other, &paths);
    assert_eq!(certificates.reload().unwrap(), Reload::Changed);
    assert_ne!(leaf(&certificates), first);
    assert_eq!(certificates.reload().unwrap(), Reload::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn watch_sees_a_swap_of_symlinks() {
    let scratch = Scratch::new();
    let (a, b) = (fresh_pair(&scratch, "a"), fresh_pair(&scratch, "b"));
    // As Kubernetes mounts a secret: the files are links through a directory link that is replaced.
    let current = scratch.path().join("..data");
    let point_to = |pair: &CertPaths| {
        let new = scratch.path().join("..data_tmp");
        symlink(pair.cert.parent().unwrap(), &new).unwrap();
        fs::rename(&new, &current).unwrap();
    };
    point_to(&a);
    let paths = CertPaths {
        cert: current.join("server.pem"),
        key: current.join("server-key.pem"),
        ca: None,
    };
    let certificates = Arc::new(load(&paths).unwrap());

    let (reports, mut reported) = mpsc::unbounded_channel();
    let report = move |result: &Result<Reload, CertificateError>| {
        let _ = reports.send(result.as_ref().ok().copied());
    };
    let watching = tokio::spawn(watch(Arc::clone(&certificates), Duration::from_secs(60), report));
    assert_eq!(reported.recv().await, Some(Some(Reload::Unchanged)));
    point_to(&b);
    assert_eq!(reported.recv().await, Some(Some(Reload::Changed)));
    assert_eq!(leaf(&certificates), leaf(&load(&b).unwrap()));
    fs::remove_file(&b.key).unwrap();
    assert_eq!(reported.recv().await, Some(None));
    watching.abort();
}
