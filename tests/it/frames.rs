//! The watch socket against frames that break, bend or stretch RFC 6455 and the protocol's bounds.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::Node;
use crate::raw::{BINARY, CLOSE, Frame, PING, PONG, Raw, TEXT, frame, header};

/// An unknown type is answered with `error` and its `id`: a way to see that a message got through.
fn probe(id: &str, bytes: usize) -> String {
    let bare = json!({"type": "fly", "id": id, "pad": ""}).to_string();
    json!({"type": "fly", "id": id, "pad": "x".repeat(bytes.saturating_sub(bare.len()))}).to_string()
}

async fn granted(node: &Node, account: &str) -> Raw {
    let mut raw = Raw::watch(node, account).await;
    assert_eq!(raw.message().await["type"], "granted");
    raw
}

async fn assert_answered(raw: &mut Raw, id: &str) {
    let answer = raw.message().await;
    assert_eq!(
        (&answer["type"], &answer["id"]),
        (&json!("error"), &json!(id)),
        "{answer}"
    );
}

fn faults() -> Vec<(String, Vec<u8>, u16)> {
    let mut faults = Vec::new();
    let mut fault = |name: &str, bytes: Vec<u8>, code| faults.push((name.to_owned(), bytes, code));
    for length in [u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 32, 64 * 1024, 4097] {
        fault(&format!("{length} bytes claimed"), header(TEXT, length), 4101);
    }
    let fragments = [frame(0x01, &[b' '; 4000]), frame(0x80, &[b' '; 97])].concat();
    fault("4097 bytes in fragments", fragments, 4101);
    fault("4097 bytes of binary", frame(BINARY, &[0; 4097]), 4101);
    fault("unmasked", vec![TEXT, 2, b'{', b'}'], 4100);
    for bit in [0x40, 0x20, 0x10] {
        fault(&format!("reserved bit {bit:#x}"), frame(TEXT | bit, b"{}"), 4100);
        fault(
            &format!("reserved bit {bit:#x} of a ping"),
            frame(PING | bit, b""),
            4100,
        );
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        fault(&format!("opcode {opcode:#x}"), frame(0x80 | opcode, b""), 4100);
    }
    fault("fragmented ping", frame(0x09, b"a"), 4100);
    fault("fragmented close", frame(0x08, &[3, 232]), 4100);
    fault("ping of 126 bytes", frame(PING, &[0; 126]), 4100);
    fault(
        "close of 126 bytes",
        frame(CLOSE, &[[3, 232].as_slice(), &[b'a'; 124]].concat()),
        4100,
    );
    fault("continuation of nothing", frame(0x80, b"{}"), 4100);
    fault("first of continuations of nothing", frame(0x00, b"{}"), 4100);
    let nested = [frame(0x01, b"{"), frame(TEXT, b"{}")].concat();
    fault("a text inside a fragmented one", nested, 4100);
    for (name, bytes) in [
        ("no UTF-8", b"\xff".as_slice()),
        ("overlong UTF-8", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("beyond Unicode", b"\xf4\x90\x80\x80"),
        ("cut UTF-8", b"\"\xe2\x82"),
    ] {
        fault(name, frame(TEXT, bytes), 4100);
        for cut in 0..bytes.len() {
            let fragments = [frame(0x01, &bytes[..cut]), frame(0x80, &bytes[cut..])].concat();
            fault(&format!("{name}, fragmented at {cut}"), fragments, 4100);
        }
    }
    fault("close of one byte", frame(CLOSE, &[3]), 4100);
    fault(
        "close with a reason that is no UTF-8",
        frame(CLOSE, &[3, 232, 0xff]),
        4100,
    );
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_are_told_with_ended_and_their_code() {
    let node = Node::start().await;
    for (number, (name, bytes, code)) in faults().into_iter().enumerate() {
        let mut raw = granted(&node, &format!("fault-{number}")).await;
        raw.write(&bytes).await;
        let (texts, closed) = raw.closed().await;
        let expected = if code == 4101 {
            "message_too_large"
        } else {
            "bad_message"
        };
        assert_eq!(closed, code, "{name}");
        let ended = texts.last().unwrap_or(&Value::Null);
        assert_eq!(
            (&ended["type"], &ended["code"]),
            (&json!("ended"), &json!(expected)),
            "{name}"
        );
    }
    let start = Instant::now();
    while node.metric("usher_connections_open").await > 0.0 {
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

/// The bytes that an offender sends on must not turn the close into a reset, which would take `ended` with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_fault_does_not_destroy_the_close_frame() {
    let node = Node::start().await;
    for number in 0..10 {
        let mut raw = granted(&node, &format!("a-{number}")).await;
        let mut bytes = header(TEXT, 64 * 1024);
        bytes.extend([b' '; 64 * 1024]);
        raw.write(&bytes).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (texts, code) = raw.closed().await;
        assert_eq!((code, &texts[0]["code"]), (4101, &json!("message_too_large")));
    }
}

/// A close with a code that RFC 6455 section 7.4 forbids is still the player's own close: it is answered with 1002.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_with_a_bad_code_is_answered_with_1002() {
    let node = Node::start().await;
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        let mut raw = granted(&node, &format!("code-{code}")).await;
        raw.write(&frame(CLOSE, &code.to_be_bytes())).await;
        assert_eq!(raw.closed().await, (vec![], 1002), "{code}");
    }
}

/// Memory is taken for what a message may have, never for what a header claims.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_cost_no_memory() {
    let node = Node::start().await;
    let mut open = Vec::new();
    for number in 0..100 {
        open.push(granted(&node, &format!("claim-{number}")).await);
    }
    let before = node.rss();
    for raw in &mut open {
        raw.write(&header(TEXT, 4096)).await;
    }
    for number in 0..100 {
        let mut raw = granted(&node, &format!("huge-{number}")).await;
        raw.write(&header(BINARY, (1 << 63) - 1)).await;
        assert_eq!(raw.closed().await.1, 4101);
    }
    let grown = node.rss().saturating_sub(before);
    eprintln!(
        "claims: {} KiB for 100 of 4096 bytes and 100 of 2^63-1",
        grown / 1024
    );
    assert!(grown < 8 << 20, "{grown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn useless_messages_are_answered_and_ten_in_a_row_end_the_session() {
    let node = Node::start().await;
    let mut raw = granted(&node, "a").await;
    let useless = [
        frame(TEXT, b"{"),
        frame(BINARY, b"{\"type\":\"heartbeat\"}"),
        frame(TEXT, b""),
        frame(TEXT, b"[1]"),
        frame(TEXT, b"{\"type\":\"fly\"}"),
    ];
    for _ in 0..3 {
        for bytes in &useless {
            raw.write(bytes).await;
            assert_eq!(raw.message().await["type"], "error");
        }
        raw.say("{\"type\":\"heartbeat\"}").await;
    }
    for bytes in useless.iter().cycle().take(9) {
        raw.write(bytes).await;
        assert_eq!(raw.message().await["type"], "error");
    }
    raw.write(&useless[0]).await;
    let (texts, code) = raw.closed().await;
    assert_eq!(
        (code, &texts[0]["type"], &texts[0]["code"]),
        (4100, &json!("ended"), &json!("bad_message"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_fragmented_and_dribbled_messages_get_through() {
    let node = Node::start().await;
    let mut raw = granted(&node, "a").await;
    let largest = probe("largest", 4096);
    assert_eq!(largest.len(), 4096);
    raw.say(&largest).await;
    assert_answered(&mut raw, "largest").await;

    // Every byte a fragment, with a ping between two of them.
    let text = probe("fragments", 0);
    let (head, tail) = text.as_bytes().split_at(1);
    let mut bytes = frame(0x01, head);
    bytes.extend(frame(PING, b"between"));
    for byte in &tail[..tail.len() - 1] {
        bytes.extend(frame(0x00, &[*byte]));
    }
    bytes.extend(frame(0x80, &tail[tail.len() - 1..]));
    raw.write(&bytes).await;
    let pong = Frame {
        first: PONG,
        payload: b"between".to_vec(),
    };
    assert_eq!(raw.frame().await, Some(pong));
    assert_answered(&mut raw, "fragments").await;

    // The largest message in fragments of one byte is many times its size on the wire.
    raw.say("{\"type\":\"heartbeat\"}").await;
    let text = probe("all", 4096);
    let mut bytes = frame(0x01, b"");
    for byte in text.as_bytes() {
        bytes.extend(frame(0x00, &[*byte]));
    }
    bytes.extend(frame(0x80, b""));
    raw.write(&bytes).await;
    assert_answered(&mut raw, "all").await;

    for byte in frame(TEXT, probe("records", 0).as_bytes()) {
        raw.write(&[byte]).await;
        raw.writer.flush().await.unwrap();
    }
    assert_answered(&mut raw, "records").await;
}

/// Fragments are no messages, yet a flood of them is a flood; while it lasts nothing else of the session may wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_end_are_a_flood() {
    let node = Node::start().await;
    let raw = granted(&node, "a").await;
    let start = Instant::now();
    let (mut reader, mut writer) = (raw.frames.reader, raw.writer);
    let flood = tokio::spawn(async move {
        let empty = frame(0x00, b"").repeat(2_000);
        let _ = writer.write_all(&frame(0x01, b"")).await;
        while start.elapsed() < Duration::from_secs(15) && writer.write_all(&empty).await.is_ok() {}
    });
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(15), read).await;
    let took = start.elapsed();
    flood.abort();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("\"rate_limited\""), "{took:?}: {text}");
    assert!(
        answer.windows(2).any(|code| code == 4102_u16.to_be_bytes()),
        "{text}"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_right_behind_the_upgrade_are_not_lost() {
    let node = Node::start().await;
    for count in [1, 5, 9] {
        let behind: Vec<u8> = (0..count)
            .flat_map(|number| frame(TEXT, probe(&number.to_string(), 400).as_bytes()))
            .collect();
        let token = crate::harness::token(&format!("behind-{count}"));
        let path = "/v1/watch?content=m&device=d";
        let mut raw = Raw::open(&node, path, Some(&token), &behind).await;
        assert_eq!(raw.message().await["type"], "granted");
        for number in 0..count {
            assert_answered(&mut raw, &number.to_string()).await;
        }
    }
    // Half a frame there, the rest later.
    let bytes = frame(TEXT, probe("halves", 0).as_bytes());
    let (token, path) = (crate::harness::token("halves"), "/v1/watch?content=m");
    let mut raw = Raw::open(&node, path, Some(&token), &bytes[..20]).await;
    assert_eq!(raw.message().await["type"], "granted");
    raw.write(&bytes[20..]).await;
    assert_answered(&mut raw, "halves").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_is_answered_with_its_payload() {
    let node = Node::start().await;
    let mut raw = granted(&node, "a").await;
    for payload in [b"".as_slice(), b"1", &[0xff; 125]] {
        raw.write(&frame(PING, payload)).await;
        let pong = Frame {
            first: PONG,
            payload: payload.to_vec(),
        };
        assert_eq!(raw.frame().await, Some(pong));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_closing_handshakes_complete() {
    let node = Node::start().await;
    for code in [1000_u16, 1001, 3000, 4999] {
        let mut raw = granted(&node, &format!("close-{code}")).await;
        raw.write(&frame(CLOSE, &code.to_be_bytes())).await;
        assert_eq!(raw.closed().await, (vec![], code));
    }
    let mut raw = granted(&node, "bare").await;
    raw.write(&frame(CLOSE, b"")).await;
    assert_eq!(raw.closed().await, (vec![], 1005));

    let mut raw = granted(&node, "stop").await;
    raw.say("{\"type\":\"stop\"}").await;
    let (texts, code) = raw.closed().await;
    assert_eq!((code, &texts[0]["code"]), (4000, &json!("stopped")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_answers_the_close_is_dropped() {
    let node = Node::start().await;
    let mut raw = granted(&node, "a").await;
    raw.say("{\"type\":\"stop\"}").await;
    assert_eq!(raw.message().await["code"], "stopped");
    let start = Instant::now();
    while node.metric("usher_connections_open").await > 0.0 {
        assert!(start.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It was given its time to answer.
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(700), "{waited:?}");
}
