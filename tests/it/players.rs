//! The SDK beside real players in a real browser: hls.js and Shaka fetch with the ticket, and a session is handed on.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chromium::{Chromium, Tab};
use crate::harness::{Node, token};
use crate::library::editor;

/// A player from npm, as `tests/run` installs it beside the build.
fn library(file: &str) -> String {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/npm-players/node_modules");
    fs::read_to_string(place.join(file))
        .unwrap_or_else(|error| panic!("{file}: {error} (tests/run installs it)"))
}

/// Records two seconds of moving colours as a fragmented mp4, uploads it, and describes its fragments as an HLS stream
/// in `window.stream`: `list`, a URL of the playlist, and `kind`.
const RECORD: &str = r##"
(async () => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const paint = canvas.getContext("2d");
  let frame = 0;
  const painting = setInterval(() => {
    paint.fillStyle = `hsl(${frame++ * 20} 90% 50%)`;
    paint.fillRect(0, 0, 64, 64);
  }, 30);
  const kind = ["avc1.42E01E", "vp09.00.10.08", "vp9"].map((codec) => `video/mp4;codecs=${codec}`).find((one) => MediaRecorder.isTypeSupported(one));
  const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: kind });
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
  recorder.start(500);
  await new Promise((resolve) => setTimeout(resolve, 2000));
  recorder.stop();
  await stopped;
  clearInterval(painting);
  const film = new Blob(pieces, { type: "video/mp4" });
  const form = new FormData();
  form.append("content", "m1");
  form.append("file", film, "film");
  const file = await (await fetch("/v1/files", { method: "POST", headers: { Authorization: "Bearer TOKEN" }, body: form })).json();
  // The boxes of the file: all before the first `moof` begins every fragment; a fragment goes from one `moof` to the next.
  const bytes = new DataView(await film.arrayBuffer());
  const starts = [];
  let end = bytes.byteLength;
  for (let at = 0; at + 8 <= bytes.byteLength;) {
    const name = String.fromCharCode(...[4, 5, 6, 7].map((byte) => bytes.getUint8(at + byte)));
    if (name === "moof") starts.push(at);
    if (name === "mfra") { end = at; break; }
    at += bytes.getUint32(at) || bytes.byteLength;
  }
  const url = `${location.origin}/v1/media/${file.id}`;
  const lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-TARGETDURATION:3", "#EXT-X-PLAYLIST-TYPE:VOD",
    `#EXT-X-MAP:URI="${url}",BYTERANGE="${starts[0]}@0"`];
  for (const [at, start] of starts.entries()) {
    lines.push(`#EXTINF:${(2 / starts.length).toFixed(3)},`, `#EXT-X-BYTERANGE:${(starts[at + 1] ?? end) - start}@${start}`, url);
  }
  lines.push("#EXT-X-ENDLIST", "");
  const list = `data:application/x-mpegurl;base64,${btoa(lines.join("\n"))}`;
  window.stream = { list, kind: recorder.mimeType, fragments: starts.length, state: file.state };
})().catch((error) => { window.stream = { error: String(error) }; });
"##;

/// A session for the film, and an element to play it in.
const SESSION: &str = r#"
(async () => {
  const { UsherSession } = await import("/sdk/usher.js");
  window.adapters = await import("/sdk/adapters.js");
  window.session = new UsherSession({ url: location.origin, content: "m1", getToken: () => "TOKEN" }).start();
  window.video = document.createElement("video");
  video.muted = true;
  document.body.append(video);
  await new Promise((resolve) => session.addEventListener("ticket", resolve, { once: true }));
  window.ready = "with a ticket";
})().catch((error) => { window.ready = String(error); });
"#;

/// Plays with hls.js; `window.how` tells the outcome.
const HLS: &str = r#"
(() => {
  window.how = "";
  const hls = (window.player = new Hls({ enableWorker: false, SETTINGS }));
  hls.on(Hls.Events.ERROR, (_, { fatal, details, response }) => { if (fatal) window.how ||= `${details} ${response?.code}`; });
  video.onended = () => { window.how ||= `ended ${video.currentTime > 1} ${video.videoWidth}`; };
  hls.loadSource(stream.list);
  hls.attachMedia(video);
  video.play().catch(() => {});
})();
"#;

/// The same with Shaka Player.
const SHAKA: &str = r#"
(async () => {
  window.how = "";
  video.onended = () => { window.how ||= `ended ${video.currentTime > 1} ${video.videoWidth}`; };
  const player = (window.player = new shaka.Player());
  await player.attach(video);
  player.configure({ manifest: { retryParameters: { maxAttempts: 1 }, hls: { mediaPlaylistFullMimeType: stream.kind.replace(";", "; ").replace(/codecs=([^"]+)$/, 'codecs="$1"') } },
    streaming: { retryParameters: { maxAttempts: 1 } } });
  player.addEventListener("error", ({ detail }) => { window.how ||= `error ${detail.code} ${detail.data?.[1]}`; });
  SETTINGS;
  await player.load(stream.list, 0, "application/x-mpegurl");
  video.play().catch(() => {});
})().catch((error) => { window.how ||= `error ${error.code} ${error.data?.[1] ?? error}`; });
"#;

/// Waits until an expression is neither nothing nor empty.
async fn becomes(tab: &mut Tab, expression: &str) -> Value {
    let begun = Instant::now();
    loop {
        let value = tab.evaluate(expression).await;
        if !(value.is_null() || value == "" || value == json!(false)) {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "no {expression}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A page of this origin without a policy of its own.
async fn blank(browser: &Chromium, node: &Node) -> Tab {
    let mut tab = browser
        .open(&format!("https://{}/v1/openapi.json", node.players))
        .await;
    becomes(
        &mut tab,
        "document.readyState === 'complete' && document.body !== null",
    )
    .await;
    tab
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hls_js_and_shaka_play_with_the_ticket_and_not_without() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = blank(&browser, &node).await;
    tab.evaluate(&RECORD.replace("TOKEN", &editor())).await;
    let stream = becomes(&mut tab, "window.stream").await;
    assert_eq!(stream["state"], "ready", "{stream}");
    assert!(stream["fragments"].as_u64().unwrap() >= 1, "{stream}");
    tab.evaluate(&SESSION.replace("TOKEN", &token("ann"))).await;
    assert_eq!(becomes(&mut tab, "window.ready").await, "with a ticket");
    for (name, play, with, query, without, refused) in [
        (
            "hls.js/dist/hls.min.js",
            HLS,
            "...adapters.hlsTickets(session)",
            "...adapters.hlsTickets(session, { query: true })",
            "fragLoadPolicy: { default: { maxTimeToFirstByteMs: 9000, maxLoadTimeMs: 9000, errorRetry: null, timeoutRetry: null } }",
            "fragLoadError 401",
        ),
        (
            "shaka-player/dist/shaka-player.compiled.js",
            SHAKA,
            "adapters.shakaTickets(session, player)",
            "adapters.shakaTickets(session, player, { query: true })",
            "",
            "error 1001 401",
        ),
    ] {
        tab.evaluate(&format!("{}; 1", library(name))).await;
        for (settings, expected) in [
            (with, "ended true 64"),
            (query, "ended true 64"),
            (without, refused),
        ] {
            tab.evaluate(&play.replace("SETTINGS", settings)).await;
            assert_eq!(
                becomes(&mut tab, "window.how").await,
                expected,
                "{name}, {settings}"
            );
            tab.evaluate("Promise.resolve(player.destroy()).then(() => 1)")
                .await;
        }
    }
    // No ticket leaves the origin: its own requests, and the playlist, which is no request at all.
    let own = format!("https://{}/", node.players);
    let foreign = |address: &&String| {
        !address.starts_with(&own) && !["data:", "blob:"].iter().any(|kind| address.starts_with(kind))
    };
    assert_eq!(tab.requests().iter().find(foreign), None);
}

/// A session of one device in this tab; what it is told is in `window.told`.
async fn session(tab: &mut Tab, more: &str) {
    let text = format!(
        "window.told = [];
        import('/sdk/usher.js').then(({{ UsherSession }}) => {{
          window.session = new UsherSession({{ url: location.origin, content: 'film', device: 'phone-1', getToken: () => '{}', {more} }});
          for (const type of ['granted', 'ended']) session.addEventListener(type, ({{ detail }}) => told.push({{ ...detail, type }}));
          session.start();
        }}); 1",
        token("ann")
    );
    tab.evaluate(&text).await;
}

/// A phone casts: the receiver goes on with the phone's session, and the phone takes it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_handed_to_a_cast_receiver_and_back() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let (mut phone, mut receiver) = (blank(&browser, &node).await, blank(&browser, &node).await);
    session(&mut phone, "").await;
    let first = becomes(&mut phone, "told.find(({ type }) => type === 'granted')").await;
    let mut secret = phone.evaluate("session.resume").await;
    for turn in 0..2 {
        let (from, to) = if turn == 0 {
            (&mut phone, &mut receiver)
        } else {
            (&mut receiver, &mut phone)
        };
        session(to, &format!("resume: {secret}")).await;
        let granted = becomes(to, "told.find(({ type }) => type === 'granted')").await;
        assert_eq!(
            (
                &granted["session"],
                &granted["resumed"],
                &granted["slots"]["used"]
            ),
            (&first["session"], &json!(true), &json!(1))
        );
        let ended = becomes(from, "told.find(({ type }) => type === 'ended')").await;
        assert_eq!(
            (&ended["code"], &ended["number"]),
            (&json!("moved"), &json!(4006))
        );
        assert_eq!(from.evaluate("session.holdsSlot").await, false);
        assert_eq!(node.sessions("ann").await.len(), 1);
        secret = to.evaluate("session.resume").await;
    }
    // In a pocket: what the page says of itself reaches the account's other screens.
    phone.evaluate("session.report({ state: 'background' }); 1").await;
    let begun = Instant::now();
    while node.sessions("ann").await[0]["state"] != "background" {
        assert!(begun.elapsed() < Duration::from_secs(10), "its state is not told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
