//! Keys, tokens and places for the tests of this module. Tokens are made by `jsonwebtoken`, which shares no code
//! with what is tested.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

use crate::auth::Verifier;
use crate::config::{Auth, PemKey, Secret};
use crate::outbound::Guard;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A directory that goes with the test.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        let mut random = [0; 12];
        rand::fill(&mut random).unwrap();
        let path = std::env::temp_dir().join(format!("usher-auth-{}", URL_SAFE_NO_PAD.encode(random)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and says where.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A key pair of somebody who makes tokens.
pub(crate) struct Pair {
    pub(crate) algorithm: Algorithm,
    pub(crate) private_pem: String,
    pub(crate) public_der: Vec<u8>,
    /// The bytes inside `public_der`: point, 32 bytes, or PKCS#1.
    pub(crate) public_raw: Vec<u8>,
}

pub(crate) static ED25519: LazyLock<Pair> = LazyLock::new(Pair::ed25519);
pub(crate) static P256: LazyLock<Pair> = LazyLock::new(|| {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    let public = pair.public_key();
    Pair::new(
        Algorithm::ES256,
        private.as_ref(),
        public.as_der().unwrap().as_ref(),
        public.as_ref(),
    )
});
pub(crate) static RSA: LazyLock<Pair> = LazyLock::new(|| {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let public = pair.public_key();
    let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(public).unwrap();
    Pair::new(Algorithm::RS256, private.as_ref(), der.as_ref(), public.as_ref())
});

impl Pair {
    pub(crate) fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private = pair.to_pkcs8v1().unwrap();
        let public = pair.public_key();
        Self::new(
            Algorithm::EdDSA,
            private.as_ref(),
            public.as_der().unwrap().as_ref(),
            public.as_ref(),
        )
    }

    fn new(algorithm: Algorithm, private: &[u8], public_der: &[u8], public_raw: &[u8]) -> Self {
        let private_pem = pem("PRIVATE KEY", private);
        Self {
            algorithm,
            private_pem,
            public_der: public_der.to_vec(),
            public_raw: public_raw.to_vec(),
        }
    }

    pub(crate) fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.public_der)
    }

    pub(crate) fn signing_key(&self) -> EncodingKey {
        let pem = self.private_pem.as_bytes();
        match self.algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem),
            _ => EncodingKey::from_rsa_pem(pem),
        }
        .unwrap()
    }

    pub(crate) fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, claims, &self.signing_key()).unwrap()
    }

    /// A token with any header, signed all the same.
    pub(crate) fn odd_token(&self, header: &Value, claims: &str) -> String {
        sign(header, claims, &self.signing_key(), self.algorithm)
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let raw = &self.public_raw;
        let public = match self.algorithm {
            Algorithm::EdDSA => DecodingKey::from_ed_der(raw),
            Algorithm::ES256 => DecodingKey::from_ec_der(raw),
            _ => DecodingKey::from_rsa_der(raw),
        };
        let jwk = Jwk::from_decoding_key(&public, Some(self.algorithm)).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = kid.into();
        jwk
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// `header.claims.` as they are, with no signature.
pub(crate) fn unsigned(header: &Value, claims: &str) -> String {
    format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims)
    )
}

pub(crate) fn sign(header: &Value, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let unsigned = unsigned(header, claims);
    let message = unsigned.trim_end_matches('.');
    format!(
        "{message}.{}",
        jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap()
    )
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Claims of a good token, with `changes` laid over them; a `null` removes.
pub(crate) fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": "account-1", "exp": now_s() + 600, "iss": "idp", "aud": "usher"});
    let map = claims.as_object_mut().unwrap();
    let Value::Object(changes) = changes else {
        panic!("changes are an object")
    };
    for (name, value) in changes {
        if value.is_null() {
            map.remove(&name)
        } else {
            map.insert(name, value)
        };
    }
    claims
}

/// Settings with nothing but defaults.
pub(crate) fn no_settings() -> Auth {
    Auth {
        hmac_secret: Secret::default(),
        signing_key: PathBuf::new(),
        rotation_keys: Vec::new(),
        audience: String::new(),
        issuer: String::new(),
        query_token: false,
        keys: Vec::new(),
        jwks: Vec::new(),
    }
}

pub(crate) fn pem_key(dir: &TempDir, pair: &Pair, kid: &str) -> PemKey {
    let name = format!("{:?}.pem", pair.algorithm);
    PemKey {
        file: dir.write(&name, pair.public_pem()),
        algorithm: format!("{:?}", pair.algorithm),
        kid: kid.to_owned(),
        tenants: vec!["main".to_owned(), "other".to_owned()],
        scopes: vec!["watch".to_owned(), "support".to_owned()],
    }
}

/// A verifier with a key of every algorithm, issuer `idp` and audience `usher`.
pub(crate) fn verifier(dir: &TempDir) -> Verifier {
    let settings = Auth {
        hmac_secret: Secret::from(SECRET.to_owned()),
        audience: "usher".to_owned(),
        issuer: "idp".to_owned(),
        keys: vec![
            pem_key(dir, &ED25519, "ed"),
            pem_key(dir, &P256, ""),
            pem_key(dir, &RSA, "rsa"),
        ],
        ..no_settings()
    };
    Verifier::new(&settings, dir.path(), &Guard::default()).unwrap()
}
