//! HLS in a real browser with the player that pages use (hls.js): a film in pieces plays to its end, with the ticket in the
//! URL of the playlist alone, and with the ticket in the head of each request.

use std::path::Path;
use std::process::Command;

use crate::chromium::Chromium;
use crate::harness::Node;
use crate::library::{editor, get, lease, upload};
use crate::media_player::{RECORD, becomes};

/// Plays `SOURCE`; a ticket for the head is in `HEAD`, or nothing.
const PLAY: &str = r#"
(() => {
  window.played = "";
  window.fetched = [];
  const video = document.createElement("video");
  video.muted = true;
  const hls = new Hls({
    enableWorker: false,
    xhrSetup: (request, url) => {
      window.fetched.push(url);
      if ("HEAD") request.setRequestHeader("Authorization", "Bearer HEAD");
    },
  });
  hls.on(Hls.Events.ERROR, (_, error) => { if (error.fatal) window.played = `error ${error.details} ${error.error}`; });
  video.onended = () => { window.played = `ended ${video.videoWidth}`; };
  hls.loadSource("SOURCE");
  hls.attachMedia(video);
  document.body.append(video);
  video.play().catch((error) => { window.played = String(error); });
})();
"#;

/// hls.js, which `tests/run` installs.
fn player() -> String {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/npm-players");
    let script = place.join("node_modules/hls.js/dist/hls.min.js");
    std::fs::read_to_string(script).expect("hls.js, which tests/run installs")
}

/// A fragmented mp4 as what comes before its fragments, and the fragments (ISO/IEC 14496-12, section 8.8).
fn fragments(film: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut front, mut parts): (Vec<u8>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < film.len() {
        let length = u32::from_be_bytes(film[at..at + 4].try_into().unwrap()) as usize;
        let (kind, bytes) = (&film[at + 4..at + 8], &film[at..at + length]);
        match kind {
            b"moof" => parts.push(bytes.to_vec()),
            b"mdat" => parts.last_mut().unwrap().extend_from_slice(bytes),
            // An index of fragments that are elsewhere now.
            b"mfra" => {}
            _ => front.extend_from_slice(bytes),
        }
        at += length;
    }
    (front, parts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_film_in_pieces_plays_in_a_browser() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    // A page of this origin without a policy of its own.
    let page = format!("https://{}/v1/openapi.json", node.players);
    let mut tab = browser.open(&page).await;
    let there = "document.body && document.readyState === 'complete' && 'there'";
    becomes(&mut tab, there).await;
    tab.evaluate(&RECORD.replace("TOKEN", &editor())).await;
    let film = becomes(&mut tab, "window.file").await;
    assert_eq!(film["type"], "video/mp4", "{film}");
    let path = format!("/v1/files/{}/download", film["id"].as_str().unwrap());
    let (front, parts) = fragments(&get(&node, &path, &editor(), &[]).await.body);
    assert!(!parts.is_empty(), "the browser records fragments");

    let file = async |kind: &str, bytes: &[u8]| {
        let file = upload(&node, &editor(), &[("content", "m1")], kind, bytes).await;
        file["id"].as_str().unwrap().to_owned()
    };
    let front = file("video/mp4", &front).await;
    let mut list = format!(
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-MAP:URI=\"{front}.mp4\"\n"
    );
    let each = 1.5 / parts.len() as f64;
    for part in &parts {
        list += &format!(
            "#EXTINF:{each:.3},\n{}.m4s\n",
            file("video/iso.segment", part).await
        );
    }
    list += "#EXT-X-ENDLIST\n";
    let list = file("application/vnd.apple.mpegurl", list.as_bytes()).await;

    let lease = lease(&node, &crate::harness::token("ann"), "m1").await;
    tab.evaluate(&(player() + "\n; window.Hls = Hls; 1")).await;
    let path = format!("/v1/media/{list}.m3u8");
    for (source, head) in [
        (format!("{path}?ticket={}", lease.ticket), ""),
        (path, &*lease.ticket),
    ] {
        tab.evaluate(&PLAY.replace("SOURCE", &source).replace("HEAD", head))
            .await;
        let played = becomes(&mut tab, "window.played").await;
        assert_eq!(played, "ended 64");
        // The playlist, what comes before the fragments, and each of them.
        let fetched = tab.evaluate("new Set(window.fetched).size").await;
        assert_eq!(fetched, parts.len() + 2);
    }
    eprintln!("played {} fragments twice", parts.len());
}
