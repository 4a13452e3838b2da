//! The operators' console in a real browser, against real nodes with real players.
//!
//! Long for the steps of each story.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::chromium::{Chromium, Tab};
use crate::harness::{Node, SOON, now, sign, token};
use crate::ledger_files::{PLAYS, TRACKS, USERS};
use crate::library::{editor, get as fetched, lease, mp4, upload};
use crate::redis_servers::Redis;
use crate::stage::{Answer, ask, get, request};

/// What a stranger calls a device.
const EVIL: &str = "<script>document.title='evil'</script><img src=x onerror=alert(1)>";

fn token_of(who: &str, scope: &str) -> String {
    sign(&json!({"sub": who, "exp": now() + 600, "scope": scope}))
}

async fn plainly(node: &Node, text: &str) -> Answer {
    ask(&mut TcpStream::connect(node.admin).await.unwrap(), text).await
}

/// A player that goes on answering its node, however long the browser takes.
struct Playing {
    say: mpsc::UnboundedSender<Value>,
    end: JoinHandle<u16>,
}

impl Playing {
    fn say(&self, message: Value) {
        self.say.send(message).unwrap();
    }

    /// The close code.
    async fn closed(self) -> u16 {
        timeout(SOON, self.end).await.expect("a close in time").unwrap()
    }
}

async fn playing(node: &Node, account: &str, query: &str) -> Playing {
    let mut player = node.watch(account, query).await;
    player.next_of("granted").await;
    let (say, mut said) = mpsc::unbounded_channel();
    let end = tokio::spawn(async move {
        loop {
            tokio::select! {
                heard = player.receive() => if let Err(code) = heard { return code },
                Some(message) = said.recv() => player.say(message).await,
            }
        }
    });
    Playing { say, end }
}

/// The console, with somebody signed in, all by keyboard.
async fn signed_in(browser: &Chromium, node: &Node, token: &str) -> Tab {
    let mut tab = opened(browser, node).await;
    sign_in(&mut tab, token).await;
    tab.shows("Sign out").await;
    tab
}

/// The console, with nobody signed in.
async fn opened(browser: &Chromium, node: &Node) -> Tab {
    opened_with(browser, node, "").await
}

/// The same, with a script that runs before those of the page.
async fn opened_with(browser: &Chromium, node: &Node, script: &str) -> Tab {
    let mut tab = browser
        .open_with(&format!("http://{}/console", node.admin), script)
        .await;
    holds(
        &mut tab,
        "document.getElementById('go')?.disabled === false",
        SOON,
    )
    .await;
    tab
}

async fn sign_in(tab: &mut Tab, token: &str) {
    tab.evaluate("document.getElementById('token').value = ''; document.getElementById('token').focus()")
        .await;
    tab.write(token).await;
    tab.press("Enter").await;
}

/// Waits until an expression of the page is true.
async fn holds(tab: &mut Tab, expression: &str, within: Duration) {
    let start = Instant::now();
    while tab.evaluate(expression).await != json!(true) {
        let page = tab.evaluate("document.body?.innerText").await;
        assert!(start.elapsed() < within, "not in time: {expression}: {page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Goes to a view by its link, with the keyboard.
async fn go(tab: &mut Tab, view: &str) {
    let focus = format!("document.querySelector('nav a[href=\"#{view}\"]').focus()");
    tab.evaluate(&focus).await;
    tab.press("Enter").await;
    let there = format!("document.querySelector('nav a[aria-current]')?.hash === '#{view}'");
    holds(tab, &there, SOON).await;
}

async fn search(tab: &mut Tab, account: &str) {
    go(tab, "accounts").await;
    tab.evaluate("document.getElementById('account').value = ''; document.getElementById('account').focus()")
        .await;
    tab.write(account).await;
    tab.press("Enter").await;
    tab.shows("locked; limit").await;
}

/// Presses the button with this text, by keyboard; `within`: where.
async fn press(tab: &mut Tab, within: &str, label: &str) {
    let found = format!(
        "[...document.querySelectorAll('{within} button')].find((one) => one.textContent === '{label}')?.focus()"
    );
    tab.evaluate(&found).await;
    let focused = tab.evaluate("document.activeElement.textContent").await;
    assert_eq!(focused, label);
    tab.press("Enter").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_ends_a_session_of_another_node_and_blocks_its_account() {
    let redis = Redis::start(&[]).await;
    let toml = format!("[redis]\nurl = \"{}\"", redis.url());
    let (here, there) = tokio::join!(Node::with(&toml), Node::with(&toml));
    let name: String = form_urlencoded::byte_serialize(EVIL.as_bytes()).collect();
    let evil = playing(&there, "ann", &format!("content=m&device=tv&device_name={name}")).await;
    let phone = playing(&here, "ann", "content=m&device=phone").await;
    let browser = Chromium::start(&here.dir.join("browser")).await;
    let mut tab = opened(&browser, &here).await;
    // Neither a bad token nor a player's shows anything.
    for (wrong, why) in [
        (
            "x.y.z".to_owned(),
            "Not signed in: a valid access token is required",
        ),
        (
            token("ann"),
            "Not signed in: the token's scope does not allow this",
        ),
    ] {
        sign_in(&mut tab, &wrong).await;
        tab.shows(why).await;
        let shown = tab
            .evaluate("document.getElementById('view').childElementCount")
            .await;
        assert_eq!(shown, 0);
    }
    let operator = token_of("olga", "operator");
    sign_in(&mut tab, &operator).await;
    // The numbers are this node's, the nodes are all.
    let sessions = "document.querySelector('.chart output')?.textContent";
    holds(&mut tab, &format!("{sessions} === '1'"), SOON).await;
    let nodes =
        "[...document.querySelectorAll('td')].filter((one) => one.textContent.endsWith(' ago')).length === 2";
    holds(&mut tab, nodes, SOON).await;
    let third = playing(&here, "bob", "content=m&device=d").await;
    holds(&mut tab, &format!("{sessions} === '2'"), SOON).await;
    // What a stranger wrote is text.
    search(&mut tab, "ann").await;
    tab.shows(EVIL).await;
    let scripts = tab
        .evaluate("[document.scripts.length, document.images.length, document.title].join()")
        .await;
    assert_eq!(scripts, "1,0,Usher: accounts");
    // Escape ends nothing.
    tab.evaluate("document.querySelector('.account tbody tr button').focus()")
        .await;
    tab.press("Enter").await;
    tab.shows("End this session?").await;
    tab.press("Escape").await;
    holds(&mut tab, "!document.getElementById('confirm').open", SOON).await;
    assert_eq!(here.sessions("ann").await.len(), 2);
    let of_evil = "[...document.querySelectorAll('.account tbody tr')].find((row) => row.textContent.includes('<script>'))";
    tab.evaluate(&format!("{of_evil}.querySelector('button').focus()"))
        .await;
    tab.press("Enter").await;
    tab.shows("End this session?").await;
    tab.press("Tab").await;
    let start = Instant::now();
    tab.press("Enter").await;
    holds(&mut tab, &format!("!{of_evil}"), Duration::from_secs(2)).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(evil.closed().await, 4003);
    press(&mut tab, ".account", "Block").await;
    tab.shows("Block this account?").await;
    press(&mut tab, "dialog", "Block it").await;
    tab.shows("Blocked; ").await;
    assert_eq!(phone.closed().await, 4004);
    press(&mut tab, ".account", "Unblock").await;
    tab.shows("Not blocked; ").await;
    // The trail has what was done, here and in its own view, and not each look of the page.
    tab.shows("account.block").await;
    go(&mut tab, "trail").await;
    tab.shows("sessions.end").await;
    tab.shows("olga (main) from 127.0.0.1").await;
    tab.evaluate("document.getElementById('changes').click()").await;
    tab.shows("sessions.list").await;
    let listed = "[...document.querySelectorAll('tbody tr')].filter(({textContent: text}) => text.includes('olga') && text.includes('sessions.list')).length";
    assert_eq!(
        tab.evaluate(listed).await,
        1,
        "looked at every two seconds, recorded once"
    );
    // Nothing leaves the origin, and the token is in the page's memory only.
    let own = format!("http://{}/", here.admin);
    let foreign = tab
        .requests()
        .iter()
        .find(|address| !address.starts_with(&own) && *address != "data:,");
    assert_eq!(foreign, None);
    assert!(!tab.requests().iter().any(|address| address.contains("eyJ")));
    let kept = "[localStorage.length, sessionStorage.length, document.cookie, location.search, location.hash].join()";
    assert_eq!(tab.evaluate(kept).await, "0,0,,,#trail");
    tab.evaluate("document.getElementById('leave').click()").await;
    tab.shows("Operator token").await;
    assert!(
        !tab.evaluate("document.body.innerText")
            .await
            .as_str()
            .unwrap()
            .contains("olga")
    );
    third.say(json!({"type": "stop"}));
    assert_eq!(third.closed().await, 4000);
    assert!(!here.log().contains(&operator));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_limit_would_have_refused() {
    let node = Node::start().await;
    let mut players = Vec::new();
    for device in 1..=3 {
        players.push(playing(&node, "ann", &format!("content=m&device=d{device}")).await);
    }
    for device in 4..=5 {
        let mut refused = node.watch("ann", &format!("content=m&device=d{device}")).await;
        assert_eq!(refused.closed().await.0, 4001);
    }
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = signed_in(&browser, &node, &token_of("olga", "operator")).await;
    go(&mut tab, "limit").await;
    tab.shows("5 tries; the limits as they are refused 2 of them.")
        .await;
    let cells = "[...document.querySelectorAll('tbody tr')].slice(0, 4).map((row) => [...row.cells].slice(0, 4).map((one) => one.textContent))";
    let expected = json!([
        ["1", "4", "80.0 %", "2 more"],
        ["2", "3", "60.0 %", "1 more"],
        ["3", "2", "40.0 %", "the same"],
        ["4", "0", "0.0 %", "2 fewer"],
    ]);
    assert_eq!(tab.evaluate(cells).await, expected);
    // By plan, when the node has written its counts.
    let of_plan = "[...document.querySelectorAll('tbody')].at(-1).innerText.replace(/\\s+/g, ' ')";
    let all = "none 5 2 4: 2";
    holds(&mut tab, &format!("{of_plan}.includes('{all}')"), SOON * 4).await;
    // A limit of an operator's.
    search(&mut tab, "ann").await;
    tab.evaluate("document.getElementById('limit').focus()").await;
    tab.write("1").await;
    tab.evaluate("document.getElementById('enforce').click()").await;
    press(&mut tab, ".account", "Set limit").await;
    tab.shows("limit 1, set by an operator; 1 session.").await;
    assert_eq!(players.pop().unwrap().closed().await, 4001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn support_staff_see_accounts_and_not_the_node() {
    let node = Node::start().await;
    let _player = playing(&node, "ann", "content=m&device=d1").await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = signed_in(&browser, &node, &token_of("sam", "support")).await;
    let links = "[...document.querySelectorAll('nav a')].map((one) => one.textContent).join()";
    assert_eq!(tab.evaluate(links).await, "Accounts");
    search(&mut tab, "ann").await;
    tab.shows("d1").await;
    assert!(!tab.requests().iter().any(|address| address.ends_with("/metrics")));
}

/// Every view, for eyes, screen readers and small screens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_view_is_accessible_on_any_screen() {
    let node = Node::start().await;
    let name: String = form_urlencoded::byte_serialize(EVIL.as_bytes()).collect();
    let long = "a-very-long-content-id-".repeat(8);
    let _players = (
        playing(
            &node,
            "ann",
            &format!("content={long}&device=tv&device_name={name}&device_class=tv"),
        )
        .await,
        playing(&node, "ann", "content=m&device=phone").await,
    );
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = opened(&browser, &node).await;
    tab.is_accessible("door").await;
    sign_in(&mut tab, &token_of("olga", "operator")).await;
    tab.shows("Sign out").await;
    for view in ["live", "limit", "trail", "accounts"] {
        go(&mut tab, view).await;
        if view == "accounts" {
            press(&mut tab, "#view section", "Look").await;
            search(&mut tab, "ann").await;
        }
        tab.is_accessible(view).await;
    }
    press(&mut tab, ".account", "Block").await;
    tab.is_accessible("confirm").await;
}

/// What the ledger and media answer, in the shapes of their own documents: the page alone is under test here.
const ROOMS: &str = r#"
    const at = "2026-11-21T10:00:00Z";
    const rooms = {
        "/v1/plays": {items: [{id: "1", content: "<b>film</b>", started_at: at, counted: 5025, device_name: null, device: "tv", code: "stopped"}], total: 1},
        "/v1/reports/usage": {seconds: 3661, labels: [{name: "", seconds: 3661}], top: {name: "m1", seconds: 3661}},
        "/v1/reports/royalties": {model: "pro_rata", from: "2019-03-01", to: "2019-04-01", currency: "EUR", pool: "36.76", incomplete: true,
            rows: [{label: "<i>L1</i>", seconds: 4000, amount: "7.35"}], unlabelled: {seconds: 60, amount: "29.41"}, unallocated: {users: 2, amount: "0.00"}},
        "/v1/files/stats": {total: {accesses: 10}, completion_rate: 0.5, open: 1, floor: 1, files: {count: 3, bytes: 999}, most_used: [{file: "f", title: "Welcome", accesses: 7, unique: 3}]},
        "/v1/files/accesses": {items: [{id: "a", account: "ann", role: "mentor", file: "f", kind: "play", provider: "p", opened_at: at, closed_at: null}], total: 41},
        "/v1/openapi.json": {paths: {"/v1/plays": {}, "/v1/reports/usage": {}, "/v1/reports/royalties": {}, "/v1/files/stats": {}, "/v1/files/accesses": {}}},
    };
    const asked = globalThis.asked = [];
    const real = globalThis.fetch;
    globalThis.fetch = (path, options) => {
        const found = rooms[path.split("?")[0]];
        if (found) asked.push(path);
        return found ? Promise.resolve(new Response(JSON.stringify(found))) : real(path, options);
    };
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_and_the_use_of_files_are_shown_where_they_are() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = opened_with(&browser, &node, ROOMS).await;
    sign_in(&mut tab, &token_of("olga", "operator")).await;
    tab.shows("Sign out").await;
    search(&mut tab, "ann").await;
    tab.shows("<b>film</b>").await;
    tab.shows("1 h 23 min").await;
    let user = "asked.some((path) => path.startsWith('/v1/plays?') && path.includes('user=ann') && path.includes('tenant=main'))";
    assert_eq!(tab.evaluate(user).await, true);
    go(&mut tab, "ledger").await;
    tab.shows("1 h 1 min watched; the most watched is m1").await;
    press(&mut tab, "#view form", "Preview").await;
    tab.shows("in EUR. Incomplete: ").await;
    let rows = "[...document.querySelectorAll('form + p + .table tbody tr')].map((row) => [...row.cells].map((one) => one.textContent))";
    let expected = json!([
        ["<i>L1</i>", "1 h 6 min", "7.35"],
        ["without a label", "1 min", "29.41"],
        ["unallocated, 2 who watched nothing", "\u{2013}", "0.00"],
        ["Pool", "\u{2013}", "36.76"],
    ]);
    assert_eq!(tab.evaluate(rows).await, expected);
    let month =
        "asked.some((path) => /royalties[?].*from=....-..-01&to=....-..-01&model=pro_rata$/.test(path))";
    assert_eq!(tab.evaluate(month).await, true);
    tab.is_accessible("ledger").await;
    go(&mut tab, "files").await;
    tab.shows("3 files with 999 bytes; 10 accesses are closed, 50 % of them complete; 1 open.")
        .await;
    tab.shows("Welcome").await;
    tab.shows("Page 1 of 3").await;
    tab.is_accessible("files").await;
}

/// The same views with what the rooms themselves answer: rows of imported files, of a session, and of a fetched file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_and_the_use_of_files_show_the_rows_that_there_are() {
    let node = Node::start().await;
    for (kind, text) in [("users", USERS), ("plays", PLAYS), ("tracks", TRACKS)] {
        std::fs::write(node.dir.join("file.csv"), text).unwrap();
        node.command(&["import", kind, "file.csv", "--separator", ";"])
            .unwrap();
    }
    let file = upload(
        &node,
        &editor(),
        &[("content", "m1"), ("title", "Welcome")],
        "video/mp4",
        &mp4(5000),
    )
    .await;
    let held = lease(&node, &token("ann"), "m1").await;
    let path = format!("/v1/media/{}", file["id"].as_str().unwrap());
    assert_eq!(fetched(&node, &path, &held.ticket, &[]).await.status, 200);
    held.end(&node).await;

    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = signed_in(&browser, &node, &token_of("olga", "operator")).await;
    search(&mut tab, "ann").await;
    let row = "[...document.querySelectorAll('.account tbody tr')].some(({ textContent: text }) => text.startsWith('m1') && text.endsWith('stopped'))";
    holds_after(&mut tab, row, "ann").await;
    go(&mut tab, "ledger").await;
    tab.shows("0 s watched.").await;
    tab.evaluate("document.getElementById('royalty-from').value = '2019-03-01'; document.getElementById('royalty-to').value = '2019-04-01'; 1")
        .await;
    press(&mut tab, "#view form", "Preview").await;
    tab.shows("2019-03-01 to 2019-04-01, in EUR.").await;
    let rows = "[...document.querySelectorAll('form + p + .table tbody tr')].map((row) => [...row.cells].map((one) => one.textContent))";
    // The reference figures of docs/ledger.md, pro rata.
    let shown = tab.evaluate(rows).await;
    for expected in [
        ["L1", "7.35"],
        ["L2", "16.54"],
        ["L3", "12.87"],
        ["Pool", "36.76"],
    ] {
        let found = shown
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row[0] == expected[0] && row[2] == expected[1]);
        assert!(found, "{expected:?} in {shown}");
    }
    tab.is_accessible("ledger-real").await;
    go(&mut tab, "files").await;
    tab.shows("1 files with 5,000 bytes").await;
    let access = "[...document.querySelectorAll('tbody tr')].some((row) => row.cells[0].textContent === 'ann' && row.cells[3].textContent === 'play')";
    holds_after(&mut tab, access, "files").await;
    tab.is_accessible("files-real").await;
}

/// Waits for a row that is written a moment later: looks again as a person would.
async fn holds_after(tab: &mut Tab, expression: &str, view: &str) {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(2) {
            if tab.evaluate(expression).await == json!(true) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let page = tab.evaluate("document.body.innerText").await;
        assert!(start.elapsed() < SOON * 3, "not in time: {expression}: {page}");
        if view == "files" {
            go(tab, "accounts").await;
            go(tab, view).await;
        } else {
            search(tab, view).await;
        }
    }
}

/// The page's own reading of the metrics, held against what Prometheus's `histogram_quantile` says of the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_read_as_prometheus_reads_them() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = opened(&browser, &node).await;
    let before =
        "# HELP h x\nh_bucket{le=\"1\"} 0\nh_bucket{le=\"2\"} 4\nh_bucket{le=\"+Inf\"} 4\nc{a=\"x\"} 5\n";
    let after = "h_bucket{le=\"1\"} 4\nh_bucket{le=\"2\"} 12\nh_bucket{le=\"+Inf\"} 14\nc{a=\"x\"} 2\nc{a=\"q\\\\\\\"\\n,{}\"} 1.5e3\n";
    let script = format!(
        "import('/console/metrics.js').then((m) => {{
            const [a, b] = [m.parse({}), m.parse({})];
            const q = (share) => m.quantile(a, b, 'h', share);
            return [q(0.2), q(0.5), q(0.99), m.quantile(b, b, 'h', 0.5), m.quantile(b, a, 'h', 0.5),
                m.total(b, 'c'), m.grown(a, b, 'c', {{a: 'x'}}), m.values(b, 'c', 'a'), m.total(b, 'none')];
        }})",
        json!(before),
        json!(after)
    );
    // 4 up to 1, 4 more up to 2, 2 above: of 10, the 2nd at 0.5, the 5th at 1.25, the last above every bound.
    let expected = json!([0.5, 1.25, 2, null, 1.5, 1502, 2, ["x", "q\\\"\n,{}"], 0]);
    assert_eq!(tab.evaluate(&script).await, expected);
    let path = "import('/console/chart.js').then((m) => [m.path([0, 5, null, 10], 30, 10, 4), m.ceiling(0.03), m.ceiling(7), m.ceiling(0)])";
    let drawn = json!(["M0.0 92.0L10.0 54.0M30.0 16.0h0", 0.05, 10, 1]);
    assert_eq!(tab.evaluate(path).await, drawn);
}

#[tokio::test]
async fn the_pages_are_served_with_a_strict_policy() {
    let node = Node::start().await;
    for (path, kind) in [
        ("/console", "text/html; charset=utf-8"),
        ("/console/main.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
    ] {
        let answer = plainly(&node, &get(path, &[])).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (200, Some(kind))
        );
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let foreign = plainly(&node, &get(path, &[("Host", "evil.example")])).await;
        assert_eq!(foreign.refusal().1, "host_forbidden");
    }
    assert_eq!(
        plainly(&node, &get("/console/none.js", &[])).await.refusal().0,
        404
    );
    assert_eq!(
        plainly(&node, &request("POST", "/console", &[]))
            .await
            .refusal()
            .0,
        405
    );
    assert!(
        node.log().contains(&format!("http://{}/console", node.admin)),
        "{}",
        node.log()
    );
    // Not on the players' listener.
    assert_eq!(node.ask(&get("/console", &[])).await.status, 404);
}

#[tokio::test]
async fn who_calls_and_which_nodes_there_are() {
    let node = Node::start().await;
    let asked = async |path: &str, token: &str| {
        let (status, _, body) = node.admin_get(path, Some(token)).await;
        (status.as_u16(), serde_json::from_str::<Value>(&body).unwrap())
    };
    let operator = token_of("olga", "operator support");
    let (status, who) = asked("/v1/admin/operator", &operator).await;
    assert_eq!(status, 200);
    let said = json!([who["account"], who["tenant"], who["scopes"]]);
    assert_eq!(said, json!(["olga", "main", ["support", "operator"]]));
    assert!(humantime::parse_rfc3339(who["expires_at"].as_str().unwrap()).is_ok());
    let (status, nodes) = asked("/v1/admin/nodes", &operator).await;
    assert_eq!((status, &nodes["total"]), (200, &json!(1)));
    let found = &nodes["items"][0];
    assert_eq!(found["here"], true);
    assert!(found["lease_age_ms"].as_u64().unwrap() < 5_000, "{found}");
    assert!(
        (5_000..=12_500).contains(&found["lease_remaining_ms"].as_u64().unwrap()),
        "{found}"
    );
    assert!(node.log().contains(found["node"].as_str().unwrap()));
    assert_eq!(asked("/v1/admin/nodes", &token_of("sam", "support")).await.0, 403);
    let _player = playing(&node, "ann", "content=m&device=d").await;
    assert_eq!(node.sessions("ann").await[0]["node"], found["node"]);
}

#[tokio::test]
async fn the_trail_tells_looks_once_and_changes_by_account() {
    let node = Node::start().await;
    let operator = token_of("olga", "operator");
    let call = async |method: &str, path: &str| {
        let (status, _, body) = node.admin_request(method, path, Some(&operator), "").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    for _ in 0..3 {
        call("GET", "/v1/admin/accounts/ann/sessions").await;
        call("POST", "/v1/admin/accounts/ann/block").await;
    }
    call("GET", "/v1/admin/accounts/bob/sessions").await;
    let actions = |list: &Value| {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["action"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let all = call("GET", "/v1/admin/trail").await;
    let [list, block] = ["sessions.list", "account.block"];
    assert_eq!(actions(&all), [list, block, block, block, list]);
    let ann = call("GET", "/v1/admin/trail?account=ann&changes=true&limit=2").await;
    assert_eq!(
        (actions(&ann), &ann["total"]),
        (vec![block.to_owned(); 2], &json!(3))
    );
    assert_eq!(call("GET", "/v1/admin/trail?tenant=other").await["total"], 0);
    // What is refused is news each time.
    for _ in 0..2 {
        let (status, _, _) = node
            .admin_get("/v1/admin/accounts/ann?tenant=a%20b", Some(&operator))
            .await;
        assert_eq!(status, 400);
    }
    let shown = call("GET", "/v1/admin/trail?tenant=a%20b").await;
    assert_eq!(actions(&shown), ["account.show", "account.show"]);
    let (status, _, _) = node
        .admin_get("/v1/admin/trail?nonsense=1", Some(&operator))
        .await;
    assert_eq!(status, 400);
}
