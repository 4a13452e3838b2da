//! HLS: playlists and segments are files, and a player that knows nothing but the URL of the first playlist gets to all.

use crate::harness::Node;
use crate::library::{Reply, editor, get, lease, send, upload};

const HLS: &str = "application/vnd.apple.mpegurl";

/// Packets of a transport stream, each segment's its own.
fn segment(number: u8) -> Vec<u8> {
    [[0x47, 0x40, number].as_slice(), &[number; 185]]
        .concat()
        .repeat(2000)
}

async fn file(node: &Node, kind: &str, bytes: &[u8]) -> String {
    let file = upload(node, &editor(), &[("content", "m1")], kind, bytes).await;
    file["id"].as_str().unwrap().to_owned()
}

/// As a player without headers of its own fetches a URI of the playlist at `base`.
async fn follow(node: &Node, base: &str, uri: &str) -> Reply {
    assert!(!uri.contains("://"), "{uri}");
    let path = match uri.starts_with('/') {
        true => uri.to_owned(),
        // RFC 3986: the query of the base is not kept.
        false => format!(
            "{}/{uri}",
            base.split('?').next().unwrap().rsplit_once('/').unwrap().0
        ),
    };
    send(node, "GET", &path, &[], b"").await
}

fn uris(playlist: &str) -> Vec<&str> {
    playlist.lines().filter(|line| !line.starts_with('#')).collect()
}

#[tokio::test]
async fn a_player_without_headers_reaches_every_segment() {
    let node = Node::start().await;
    let mut lines = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n".to_owned();
    for number in 0..3 {
        let id = file(&node, "video/mp2t", &segment(number)).await;
        // Beside the playlist, or in full.
        let path = if number == 1 { "/v1/media/" } else { "" };
        lines += &format!("#EXTINF:4.0,\n{path}{id}.ts\n");
    }
    lines += "#EXTINF:4.0,\nhttps://cdn.example/advertisement.ts\n#EXT-X-ENDLIST\n";
    let list = file(&node, HLS, lines.as_bytes()).await;
    let master = format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1280000\n{list}.m3u8\n");
    let master = file(&node, HLS, master.as_bytes()).await;

    let lease = lease(&node, &crate::harness::token("ann"), "m1").await;
    let first = format!("/v1/media/{master}.m3u8?ticket={}", lease.ticket);
    let top = send(&node, "GET", &first, &[], b"").await;
    assert_eq!((top.status, top.header("content-type")), (200, HLS));
    let top = top.text();
    let second = follow(&node, &first, uris(&top)[0]).await;
    assert_eq!(second.status, 200, "{}", second.text());
    let playlist = second.text();
    let found = uris(&playlist);
    assert_eq!(found.len(), 4);
    for (number, uri) in (0..3).zip(&found) {
        let got = follow(&node, &first, uri).await;
        assert_eq!(got.status, 200, "{uri}: {}", got.text());
        assert!(got.body == segment(number));
        let bare = follow(&node, &first, uri.split('?').next().unwrap()).await;
        assert_eq!(bare.status, 401, "a ticket it takes");
    }
    assert_eq!(
        found[3], "https://cdn.example/advertisement.ts",
        "no ticket for others"
    );

    // What is announced, and parts of it, are of what is sent.
    let path = format!("/v1/media/{list}.m3u8?ticket={}", lease.ticket);
    let told = send(&node, "HEAD", &path, &[], b"").await;
    assert_eq!(told.header("content-length"), playlist.len().to_string());
    let part = send(&node, "GET", &path, &[("Range", "bytes=-9")], b"").await;
    assert_eq!(
        (part.status, part.text().as_str()),
        (206, &playlist[playlist.len() - 9..])
    );
    let whole = format!(
        "bytes {}-{}/{}",
        playlist.len() - 9,
        playlist.len() - 1,
        playlist.len()
    );
    assert_eq!(part.header("content-range"), whole);
    // With the ticket in the head the player sends it each time itself, and the file is as it came.
    let plain = get(&node, &path, &lease.ticket, &[]).await;
    assert_eq!(plain.text(), lines);
    assert_ne!(plain.header("etag"), part.header("etag"));
    assert!(!node.log().contains(&lease.ticket), "tickets are not logged");

    lease.end(&node).await;
    for uri in &found[..3] {
        let after = follow(&node, &first, uri).await;
        assert_eq!(after.refusal(), (403, "session_ended".to_owned()));
    }
}
