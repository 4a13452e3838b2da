//! A film in a real browser: recorded, uploaded, played on both kinds of lease, and stopped with it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::chromium::{Chromium, Tab};
use crate::harness::Node;
use crate::library::{editor, get};

/// Records a second of moving colours, as an mp4 where the browser can, and uploads it.
pub(crate) const RECORD: &str = r#"
(async () => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const paint = canvas.getContext("2d");
  let frame = 0;
  const painting = setInterval(() => {
    paint.fillStyle = `hsl(${frame++ * 20} 90% 50%)`;
    paint.fillRect(0, 0, 64, 64);
  }, 30);
  const kinds = ["video/mp4;codecs=avc1.42001E", "video/mp4;codecs=vp9", "video/mp4", "video/webm;codecs=vp8", "video/webm"];
  const kind = kinds.find((kind) => MediaRecorder.isTypeSupported(kind));
  const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: kind });
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
  recorder.start();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  recorder.stop();
  await stopped;
  clearInterval(painting);
  const form = new FormData();
  form.append("content", "m1");
  form.append("file", new Blob(pieces, { type: kind.split(";")[0] }), "film");
  const answer = await fetch("/v1/files", { method: "POST", headers: { Authorization: "Bearer TOKEN" }, body: form });
  window.file = await answer.json();
})().catch((error) => { window.file = { error: String(error) }; });
"#;

/// Plays the file with `window.ticket`.
const PLAY: &str = r#"
(() => {
  window.played = "";
  const video = document.createElement("video");
  video.muted = true;
  video.onended = () => { window.played = `ended at ${video.currentTime > 0.3} ${video.videoWidth}`; };
  video.onerror = () => { window.played = `error ${video.error.message}`; };
  video.src = `/v1/media/${window.file.id}?ticket=${window.ticket}`;
  document.body.append(video);
  video.play().catch((error) => { window.played = String(error); });
})();
"#;

/// Waits until an expression says something.
pub(crate) async fn becomes(tab: &mut Tab, expression: &str) -> Value {
    let begun = Instant::now();
    loop {
        let value = tab.evaluate(expression).await;
        if !(value.is_null() || value == "") {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no {expression}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_film_plays_on_both_kinds_of_lease_and_stops_with_it() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    // A page of this origin without a policy of its own.
    let mut tab = browser
        .open(&format!("https://{}/v1/openapi.json", node.players))
        .await;
    becomes(
        &mut tab,
        "document.body && document.readyState === 'complete' && 'there'",
    )
    .await;
    tab.evaluate(&RECORD.replace("TOKEN", &editor())).await;
    let file = becomes(&mut tab, "window.file").await;
    assert_eq!(file["state"], "ready", "{file}");
    eprintln!("recorded {} bytes of {}", file["size"], file["type"]);

    let by_http = r#"fetch("/v1/sessions", {method: "POST", headers: {Authorization: "Bearer TOKEN", "Content-Type": "application/json"}, body: '{"content":"m1"}'})
        .then((answer) => answer.json()).then((lease) => { window.lease = lease; window.ticket = lease.ticket.token; });"#;
    let end_http = r#"fetch(`/v1/sessions/${lease.session}`, {method: "DELETE", headers: {Authorization: "Bearer TOKEN", "Usher-Resume": lease.resume}})
        .then((answer) => { window.over = String(answer.status); });"#;
    let by_socket = r#"window.socket = new WebSocket(`wss://${location.host}/v1/watch?content=m1`, ["usher.v1", "bearer.TOKEN"]);
        socket.onmessage = (event) => { const message = JSON.parse(event.data); if (message.ticket) window.ticket = message.ticket.token; };
        socket.onclose = () => { window.over = "closed"; };"#;
    for (begin, end) in [(by_http, end_http), (by_socket, "socket.close(1000)")] {
        let with_token = |text: &str| text.replace("TOKEN", &editor());
        tab.evaluate("window.ticket = window.over = ''; 1").await;
        tab.evaluate(&with_token(begin)).await;
        let ticket = becomes(&mut tab, "window.ticket").await;
        tab.evaluate(PLAY).await;
        let played = becomes(&mut tab, "window.played").await;
        assert_eq!(played, "ended at true 64");
        tab.evaluate(&with_token(end)).await;
        becomes(&mut tab, "window.over").await;
        let path = format!("/v1/media/{}", file["id"].as_str().unwrap());
        let after = get(&node, &path, ticket.as_str().unwrap(), &[]).await;
        assert_eq!(after.refusal(), (403, "session_ended".to_owned()));
    }
}
