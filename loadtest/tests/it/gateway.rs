//! A gateway in this process, and the tool as a process against it.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use usher::app::Node;
use usher::config::{self, Overrides};
use usher::net::devcert;

pub(crate) const SECRET: &str = "a secret for tests, 32 bytes long";

/// The longest that one command of these tests may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Gateway {
    node: Node,
    pub(crate) dir: PathBuf,
    ca: PathBuf,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("usher-loadtest-it-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("secret"), format!("{SECRET}\n")).unwrap();
        let any = ([127, 0, 0, 1], 0).into();
        let paths = devcert::ensure(&dir, &dir, [127, 0, 0, 1].into()).unwrap();
        let settings = [
            ("USHER_AUTH__HMAC_SECRET", OsString::from(SECRET)),
            ("USHER_TLS__CERT", paths.cert.into_os_string()),
            ("USHER_TLS__KEY", paths.key.into_os_string()),
        ];
        let settings = settings.map(|(name, value)| (OsString::from(name), value));
        let overrides = Overrides {
            listen: Some(any),
            admin_listen: Some(any),
            data_dir: Some(dir.join("data")),
            ..Overrides::default()
        };
        let config = config::load(None, settings, &overrides).unwrap();
        Self {
            node: Node::start(config, None).await.unwrap(),
            dir,
            ca: paths.ca.unwrap(),
        }
    }

    /// Runs the tool against this gateway.
    pub(crate) async fn loadtest(&self, arguments: &[&str]) -> Output {
        let (url, admin) = (
            format!("wss://{}", self.node.players),
            format!("http://{}", self.node.admin),
        );
        let secret = self.dir.join("secret");
        let (ca, secret) = (self.ca.to_str().unwrap(), secret.to_str().unwrap());
        let here = [
            "--url",
            &url,
            "--admin",
            &admin,
            "--ca",
            ca,
            "--secret-file",
            secret,
        ];
        let arguments: Vec<&str> = arguments.iter().copied().chain(here).collect();
        run(&arguments).await
    }

    /// Runs the tool with a secret and nothing else.
    pub(crate) async fn loadtest_bare(&self, arguments: &[&str]) -> Output {
        let secret = self.dir.join("secret");
        let secret = ["--secret-file", secret.to_str().unwrap()];
        let arguments: Vec<&str> = arguments.iter().copied().chain(secret).collect();
        run(&arguments).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

async fn run(arguments: &[&str]) -> Output {
    let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_usher-loadtest"))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, command)
        .await
        .expect("a command in time")
        .unwrap()
}
