//! The link to Redis against real servers: restarts, standstills, failovers, moves of slots.

use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use usher::config::{self, Overrides};
use usher::lease::redis::{Failed, Link, Script};
use usher::telemetry::Metrics;

use crate::redis_servers::{Redis, until};

/// Adds one to a key and answers the sum.
static COUNT: Script = Script::new(
    "acquire",
    "return tostring(redis.call('INCRBY', KEYS[1], ARGV[1]))",
);
/// Fails as our scripts do.
static REFUSE: Script = Script::new("mark", "return redis.error_reply('BAD_LIMIT not a limit')");
/// Keeps the server busy for this many milliseconds.
static BUSY: Script = Script::new(
    "list",
    "local t = redis.call('TIME'); local e = t[1] * 1000 + t[2] / 1000 + ARGV[1]; \
     repeat t = redis.call('TIME') until t[1] * 1000 + t[2] / 1000 > e; return 'done'",
);

/// What `redis.timeout` is here, and what the machine may add to it.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);
pub(crate) const SLACK: Duration = Duration::from_millis(250);

/// A call with its time, less what a timer set beside it was late: the machine's part, not the link's.
pub(crate) async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let lateness = tokio::spawn(async move {
        tokio::time::sleep(TIMEOUT).await;
        began.elapsed().saturating_sub(TIMEOUT)
    });
    let result = call.await;
    let took = began.elapsed();
    // A call that was over long before leaves nothing to correct.
    let late = if took > TIMEOUT {
        lateness.await.unwrap()
    } else {
        Duration::ZERO
    };
    (result, took.saturating_sub(late))
}

/// A link and what it has heard.
pub(crate) struct Ear {
    pub(crate) link: Link,
    metrics: Arc<Metrics>,
    heard: Arc<Mutex<Vec<(String, String)>>>,
}

impl Ear {
    pub(crate) fn open(url: &str) -> Self {
        Self::with(url, |_| {})
    }

    pub(crate) fn with(url: &str, change: impl FnOnce(&mut config::Redis)) -> Self {
        let mut settings = config::load(None, [], &Overrides::default()).unwrap().redis;
        settings.url = url.to_owned().into();
        settings.timeout = TIMEOUT;
        settings.connect_timeout = TIMEOUT;
        change(&mut settings);
        let heard = Arc::<Mutex<Vec<(String, String)>>>::default();
        let metrics = Arc::new(Metrics::new());
        let ears = Arc::clone(&heard);
        let mail = move |channel: &str, payload: &[u8]| {
            let payload = String::from_utf8_lossy(payload).into_owned();
            ears.lock().unwrap().push((channel.to_owned(), payload));
        };
        let link = Link::open(&settings, Arc::clone(&metrics), mail).unwrap();
        Self { link, metrics, heard }
    }

    pub(crate) async fn count(&self, key: &str) -> Result<i64, Failed> {
        let answer = self.link.run(&COUNT, &[key.to_owned()], &["1"]).await;
        answer.map(|text| text.parse().unwrap())
    }

    /// Waits until the link answers.
    pub(crate) async fn counted(&self, key: &str) -> i64 {
        until("answer to a script", || async { self.count(key).await.ok() }).await
    }

    /// Publishes until it is heard.
    pub(crate) async fn hears(&self, server: &Redis, channel: &str, word: &str) {
        until(&format!("{word} heard on {channel}"), || async {
            let _ = server.try_ask(&["SPUBLISH", channel, word]).await;
            let expected = (channel.to_owned(), word.to_owned());
            self.heard.lock().unwrap().contains(&expected).then_some(())
        })
        .await;
    }

    pub(crate) async fn wait_for(&self, up: bool) {
        until(&format!("up = {up}"), || async {
            let gauge = self.metrics.redis_up.get() == i64::from(up);
            (self.link.is_up() == up && gauge).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn scripts_run_and_are_sent_again_after_the_server_forgot_them() {
    let server = Redis::start(&[]).await;
    let ear = Ear::open(&server.url());
    assert_eq!(
        ear.count("a").await,
        Ok(1),
        "the first call waits for the first connection"
    );
    server.ask(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(ear.count("a").await, Ok(2));
    assert!(ear.link.is_up());
    let key = ["a".to_owned()];
    let refused = ear.link.run(&REFUSE, &key, &[]).await;
    assert_eq!(refused, Err(Failed::Refused("BAD_LIMIT not a limit".to_owned())));
    let wrong = ear.link.run(&COUNT, &key, &["x"]).await;
    assert!(
        matches!(&wrong, Err(Failed::Refused(text)) if text.starts_with("ERR value is not an integer")),
        "{wrong:?}"
    );
    assert!(ear.link.is_up(), "an error is an answer");
    let text = ear.metrics.render();
    for line in [
        "usher_redis_commands_total{script=\"acquire\"} 3",
        "usher_redis_duration_seconds_count{script=\"acquire\"} 3",
        "usher_redis_errors_total{kind=\"refused\"} 2",
        "usher_redis_up 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn many_callers_share_one_connection() {
    let server = Redis::start(&[]).await;
    let ear = Ear::with(&server.url(), |settings| {
        settings.timeout = Duration::from_secs(5);
    });
    ear.counted("a").await;
    let calls = (0..3000).map(|_| ear.count("a"));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(ear.count("a").await, Ok(3002));
    let clients = server.text(&["CLIENT", "LIST"]).await;
    assert_eq!(clients.lines().count(), 2, "the link and the question: {clients}");
}

#[tokio::test]
async fn a_server_that_is_away_fails_calls_at_once_and_is_found_again() {
    let mut server = Redis::start(&[]).await;
    let channel = "{usher:3}:node";
    let ear = Ear::open(&server.url());
    ear.link
        .listen(vec![channel.to_owned(), "{usher:4}:node".to_owned()]);
    ear.counted("a").await;
    ear.hears(&server, channel, "before").await;
    server.kill();
    ear.wait_for(false).await;
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(ear.count("a").await, Err(Failed::Unavailable));
    }
    assert!(began.elapsed() < TIMEOUT, "nobody waits for what is away");
    server.restart().await;
    assert_eq!(ear.counted("a").await, 1, "a server without a memory");
    ear.hears(&server, channel, "after").await;
    ear.hears(&server, "{usher:4}:node", "other").await;
    ear.wait_for(true).await;
}

#[tokio::test]
async fn a_node_starts_while_redis_is_away() {
    let mut server = Redis::start(&[]).await;
    server.kill();
    let ear = Ear::open(&server.url());
    ear.link.listen(vec!["c".to_owned()]);
    assert_eq!(ear.count("a").await, Err(Failed::Unavailable));
    server.restart().await;
    assert_eq!(ear.counted("a").await, 1);
    ear.hears(&server, "c", "word").await;
}

#[tokio::test]
async fn a_server_that_stands_still_costs_each_call_no_more_than_its_time() {
    let server = Redis::start(&[]).await;
    let other = Redis::start(&[]).await;
    let (ear, second) = (Ear::open(&server.url()), Ear::open(&other.url()));
    ear.link.listen(vec!["c".to_owned()]);
    ear.counted("a").await;
    second.counted("a").await;
    ear.hears(&server, "c", "before").await;
    server.stop();
    let calls = (0..300).map(|_| timed(ear.count("a")));
    for (result, took) in futures_util::future::join_all(calls).await {
        assert_eq!(result, Err(Failed::Unavailable));
        assert!(took < TIMEOUT + SLACK, "{took:?}");
    }
    let (result, took) = timed(ear.count("a")).await;
    assert_eq!(result, Err(Failed::Unavailable));
    assert!(took < SLACK, "the connection was given up: {took:?}");
    assert!(!ear.link.is_up());
    assert!(second.count("a").await.is_ok(), "another server's link goes on");
    server.cont();
    ear.counted("a").await;
    ear.hears(&server, "c", "after").await;
    ear.wait_for(true).await;
}

#[tokio::test]
async fn a_standstill_is_noticed_without_a_call() {
    let server = Redis::start(&[]).await;
    let ear = Ear::open(&server.url());
    ear.wait_for(true).await;
    server.stop();
    ear.wait_for(false).await;
    server.cont();
    ear.wait_for(true).await;
}

#[tokio::test]
async fn a_slow_script_is_unavailable_to_all_until_it_is_over() {
    let server = Redis::start(&[]).await;
    let ear = Ear::open(&server.url());
    ear.counted("a").await;
    let busy = ear.link.run(&BUSY, &["a".to_owned()], &["1500"]).await;
    assert_eq!(busy, Err(Failed::Unavailable));
    ear.counted("a").await;
}

#[tokio::test]
async fn a_replica_is_not_written_to() {
    let (primary, server) = (Redis::start(&[]).await, Redis::start(&[]).await);
    let ear = Ear::open(&server.url());
    ear.counted("a").await;
    let port = primary.port.to_string();
    server.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
    until("end of the link", || async {
        matches!(ear.count("a").await, Err(Failed::Unavailable)).then_some(())
    })
    .await;
    ear.wait_for(false).await;
    server.ask(&["REPLICAOF", "NO", "ONE"]).await;
    ear.counted("a").await;
}

#[tokio::test]
async fn a_password_may_be_wrong() {
    let server = Redis::start(&["--requirepass", "right"]).await;
    for url in [
        server.url(),
        format!("redis://:wrong@{}", server.place()),
        format!("redis://nobody:right@{}", server.place()),
    ] {
        let ear = Ear::open(&url);
        assert_eq!(ear.count("a").await, Err(Failed::Unavailable), "{url}");
        assert!(!ear.link.is_up());
    }
    let ear = Ear::open(&format!("redis://:right@{}/1", server.place()));
    assert_eq!(ear.counted("a").await, 1);
    let own = Ear::with(&format!("redis://:wrong@{}/1", server.place()), |settings| {
        settings.password = "right".to_owned().into();
    });
    assert_eq!(own.counted("a").await, 2, "the key wins over the URL");
    assert_eq!(
        server.ask(&["EXISTS", "a"]).await,
        redis::Value::Int(0),
        "it is in database 1"
    );
}

/// What the manual says that an ACL user needs.
pub(crate) const RULES: &str = "+hello +ping +role +info +eval +evalsha +ssubscribe ~{usher:* &{usher:*";

#[tokio::test]
async fn a_user_with_just_these_rights_suffices() {
    let server = Redis::start(&[]).await;
    let rules = format!("reset on >secret {RULES} +incrby");
    let user: Vec<&str> = ["ACL", "SETUSER", "usher"]
        .into_iter()
        .chain(rules.split(' '))
        .collect();
    server.ask(&user).await;
    let ear = Ear::open(&format!("redis://usher:secret@{}", server.place()));
    let channel = "{usher:3}:node";
    ear.link.listen(vec![channel.to_owned()]);
    assert_eq!(ear.counted("{usher:1}:x").await, 1);
    ear.hears(&server, channel, "word").await;
    let denied = ear.count("elsewhere").await;
    assert!(
        matches!(&denied, Err(Failed::Refused(text)) if text.starts_with("NOPERM")),
        "{denied:?}"
    );
    let log = format!("{:?}", server.ask(&["ACL", "LOG"]).await);
    assert!(!log.contains("command"), "no command was denied: {log}");
}

#[tokio::test]
async fn tls_trusts_the_configured_ca_alone() {
    let tls = Redis::start_tls(&["--tls-auth-clients", "optional"]).await;
    let with = |ca: &str| {
        let ca = tls.files.file(ca);
        Ear::with(&tls.url(), move |settings| settings.ca = ca)
    };
    let ear = with("ca.pem");
    ear.link.listen(vec!["c".to_owned()]);
    assert_eq!(ear.counted("a").await, 1);
    ear.hears(&tls.server, "c", "word").await;
    assert_eq!(with("other.pem").count("a").await, Err(Failed::Unavailable));
    let system = Ear::open(&tls.url());
    assert_eq!(system.count("a").await, Err(Failed::Unavailable));
    let plain = Ear::open(&format!("redis://localhost:{}", tls.tls_port));
    assert_eq!(plain.count("a").await, Err(Failed::Unavailable));
    tls.server
        .ask(&["CONFIG", "SET", "tls-auth-clients", "yes"])
        .await;
    assert_eq!(with("ca.pem").count("a").await, Err(Failed::Unavailable));
    let file = |name: &str| tls.files.file(name);
    let shown = Ear::with(&tls.url(), |settings| {
        settings.ca = file("ca.pem");
        settings.cert = file("client.pem");
        settings.key = file("client.key");
    });
    assert_eq!(shown.counted("a").await, 2);
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let tls = "rediss://localhost:1";
    let key_of = |url: &str, change: &dyn Fn(&mut config::Redis)| {
        let mut settings = config::load(None, [], &Overrides::default()).unwrap().redis;
        settings.url = url.to_owned().into();
        change(&mut settings);
        let opened = Link::open(&settings, Arc::new(Metrics::new()), |_, _| {});
        opened.unwrap_err().key
    };
    assert_eq!(key_of("nonsense", &|_| {}), "redis.url");
    let missing = PathBuf::from("no-such-file.pem");
    assert_eq!(key_of(tls, &|settings| settings.ca = missing.clone()), "redis.ca");
    assert_eq!(
        key_of(tls, &|settings| settings.cert = missing.clone()),
        "redis.cert"
    );
}

/// What is logged on this thread, which is that of all tasks of its test. One subscriber serves the whole process: those of
/// single threads, coming and going, make each other miss lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static HERE: RefCell<Log> = RefCell::default();
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn here() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_env_filter("trace")
                .with_writer(|| HERE.with_borrow(Self::clone))
                .init();
        });
        HERE.with_borrow(Self::clone)
    }

    fn lines(&self, parts: &[&str]) -> usize {
        let text = self.text();
        let lines = text
            .lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)));
        lines.count()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn an_outage_is_logged_once_and_no_secret_is() {
    let log = Log::here();
    let mut server = Redis::start(&["--requirepass", "hunter2", "--maxmemory-policy", "allkeys-lru"]).await;
    let ear = Ear::open(&format!("redis://:hunter2@{}", server.place()));
    ear.link.listen(vec!["c".to_owned()]);
    ear.counted("a").await;
    assert_eq!(
        log.lines(&["INFO", "Redis answers", "version"]),
        1,
        "{}",
        log.text()
    );
    assert_eq!(
        log.lines(&["WARN", "allkeys-lru", "noeviction"]),
        1,
        "{}",
        log.text()
    );
    server.kill();
    ear.wait_for(false).await;
    until("a second attempt", || async {
        (log.lines(&["DEBUG", "Redis still does not answer"]) > 1).then_some(())
    })
    .await;
    server.restart().await;
    ear.counted("a").await;
    assert_eq!(log.lines(&["WARN", "Redis does not answer"]), 1, "{}", log.text());
    assert_eq!(log.lines(&["INFO", "Redis answers"]), 2, "{}", log.text());
    let wrong = Ear::open(&format!("redis://:hunter3@{}", server.place()));
    wrong.wait_for(false).await;
    until("the reason", || async {
        (log.lines(&["WARN", "Redis does not answer", "WRONGPASS"]) == 1).then_some(())
    })
    .await;
    let debug = format!("{:?} {:?}", ear.link, wrong.link);
    for text in [log.text(), debug] {
        assert!(!text.contains("hunter"), "{text}");
    }
}

#[tokio::test]
async fn the_last_clone_ends_the_connections() {
    let server = Redis::start(&[]).await;
    let ear = Ear::open(&server.url());
    ear.link.listen(vec!["c".to_owned()]);
    ear.counted("a").await;
    ear.hears(&server, "c", "word").await;
    let clients = || async { server.text(&["CLIENT", "LIST"]).await.lines().count() };
    assert_eq!(clients().await, 3, "scripts, messages, the question");
    let clone = ear.link.clone();
    drop(ear);
    assert!(clone.run(&COUNT, &["a".to_owned()], &["1"]).await.is_ok());
    drop(clone);
    until("end of the connections", || async {
        (clients().await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_up_is_not_stormed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ear = Ear::open(&format!("redis://{}", listener.local_addr().unwrap()));
    ear.link.listen(vec!["c".to_owned()]);
    let (began, mut count, mut last) = (Instant::now(), 0, Instant::now());
    while began.elapsed() < Duration::from_secs(4) {
        let left = Duration::from_secs(4).saturating_sub(began.elapsed());
        if tokio::time::timeout(left, listener.accept()).await.is_ok() {
            count += 1;
            assert!(
                last.elapsed() < Duration::from_millis(2_200),
                "never a longer pause"
            );
            last = Instant::now();
        }
        assert_eq!(ear.count("a").await, Err(Failed::Unavailable));
    }
    assert!((3..30).contains(&count), "{count} attempts in 4 s");
}

/// Hands connections on to a server, and lets the one of this number fall silent on demand: nothing is closed.
async fn proxy(server: &Redis, silent: Arc<Mutex<Option<usize>>>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let place = server.place();
    tokio::spawn(async move {
        for number in 0.. {
            let (client, _) = listener.accept().await.unwrap();
            let Ok(server) = tokio::net::TcpStream::connect(&place).await else {
                continue;
            };
            let ((mut client_in, mut client_out), (mut server_in, mut server_out)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut client_in, &mut server_out).await });
            let silent = Arc::clone(&silent);
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = server_in.read(&mut bytes).await {
                    let falls_silent = *silent.lock().unwrap() == Some(number);
                    if !falls_silent && client_out.write_all(&bytes[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_subscription_that_silently_died_is_noticed() {
    let server = Redis::start(&[]).await;
    let silent = Arc::new(Mutex::new(None));
    let ear = Ear::open(&proxy(&server, Arc::clone(&silent)).await);
    ear.wait_for(true).await;
    ear.link.listen(vec!["c".to_owned()]);
    ear.hears(&server, "c", "before").await;
    *silent.lock().unwrap() = Some(1);
    ear.hears(&server, "c", "after").await;
    assert!(
        ear.count("a").await.is_ok(),
        "the other connection was never lost"
    );
}

#[tokio::test]
async fn a_call_costs_its_task_little_memory() {
    let ear = Ear::open("redis://127.0.0.1:1");
    let keys = ["a".to_owned()];
    let call = ear.link.run(&COUNT, &keys, &["1"]);
    let size = size_of_val(&call);
    assert!(size <= 512, "{size} bytes");
    assert_eq!(call.await, Err(Failed::Unavailable));
}
