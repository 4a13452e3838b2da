//! RFC 6455 over `/debug/echo`, in short: `tests/autobahn` runs the long suite.

use tokio::io::AsyncWriteExt;

use crate::harness::{Node, SOON};
use crate::raw::{BINARY, CLOSE, Frame, PING, PONG, Raw, TEXT, frame, header};

const MIB: usize = 1 << 20;

/// What a client writes and what it is to get back.
struct Case {
    name: String,
    writes: Vec<Vec<u8>>,
    answers: Vec<Frame>,
    /// The server's close code; none: the client closes with 1000 and is answered.
    close: Option<u16>,
}

fn case(name: impl Into<String>, writes: &[Vec<u8>], answers: &[(u8, &[u8])], close: Option<u16>) -> Case {
    let answers = answers.iter().map(|(first, payload)| Frame {
        first: *first,
        payload: payload.to_vec(),
    });
    Case {
        name: name.into(),
        writes: writes.to_vec(),
        answers: answers.collect(),
        close,
    }
}

fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536, MIB] {
        let payload = vec![b'*'; size];
        for first in [TEXT, BINARY] {
            let name = format!("{first:#x} of {size} bytes");
            cases.push(case(name, &[frame(first, &payload)], &[(first, &payload)], None));
        }
    }
    let chopped = frame(BINARY, &[0xfe; 1_000]);
    let pieces: Vec<_> = chopped.chunks(37).map(<[u8]>::to_vec).collect();
    cases.push(case(
        "a frame in pieces",
        &pieces,
        &[(BINARY, &[0xfe; 1_000])],
        None,
    ));
    cases.push(case("an unmasked frame", &[vec![TEXT, 1, b'a']], &[], Some(1002)));
    cases
}

fn control() -> Vec<Case> {
    let mut cases = Vec::new();
    for payload in [b"".as_slice(), b"Hello", &[0xff, 0, 0xfe], &[0xfe; 125]] {
        let name = format!("ping of {} bytes", payload.len());
        cases.push(case(name, &[frame(PING, payload)], &[(PONG, payload)], None));
    }
    cases.push(case(
        "ping of 126 bytes",
        &[frame(PING, &[0; 126])],
        &[],
        Some(1002),
    ));
    cases.push(case(
        "a pong nobody asked for",
        &[frame(PONG, b"a"), frame(PING, b"b")],
        &[(PONG, b"b")],
        None,
    ));
    cases.push(case(
        "a fragmented ping",
        &[frame(0x09, b"a"), frame(0x80, b"b")],
        &[],
        Some(1002),
    ));
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        for first in [TEXT, BINARY, PING] {
            let name = format!("reserved bits {bits:#x} of {first:#x}");
            let writes = [frame(TEXT, b"before"), frame(first | bits, b"")];
            cases.push(case(name, &writes, &[(TEXT, b"before")], Some(1002)));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let writes = [frame(TEXT, b"before"), frame(0x80 | opcode, b"a")];
        cases.push(case(
            format!("opcode {opcode}"),
            &writes,
            &[(TEXT, b"before")],
            Some(1002),
        ));
    }
    cases
}

fn fragments() -> Vec<Case> {
    let two = [frame(0x01, b"Hello "), frame(0x80, b"world")];
    let with_ping = [two[0].clone(), frame(PING, b"p"), two[1].clone()];
    let half: &[u8] = &vec![7; MIB / 2];
    let whole: &[u8] = &vec![7; MIB];
    vec![
        case("two fragments", &two, &[(TEXT, b"Hello world")], None),
        case(
            "a ping between",
            &with_ping,
            &[(PONG, b"p"), (TEXT, b"Hello world")],
            None,
        ),
        case(
            "empty fragments",
            &[frame(0x02, b""), frame(0, b""), frame(0x80, b"")],
            &[(BINARY, b"")],
            None,
        ),
        case(
            "1 MiB in two",
            &[frame(0x02, half), frame(0x80, half)],
            &[(BINARY, whole)],
            None,
        ),
        case("a continuation of nothing", &[frame(0x80, b"a")], &[], Some(1002)),
        case(
            "one after a whole message",
            &[frame(TEXT, b"a"), frame(0, b"b")],
            &[(TEXT, b"a")],
            Some(1002),
        ),
        case(
            "a text inside",
            &[frame(0x01, b"a"), frame(TEXT, b"b")],
            &[],
            Some(1002),
        ),
    ]
}

fn texts() -> Vec<Case> {
    let mut cases = Vec::new();
    let good = [
        "κόσμε",
        "\u{0}",
        "\u{7f}\u{80}\u{7ff}\u{800}",
        "\u{d7ff}\u{e000}\u{fffd}\u{ffff}",
        "\u{10ffff}😀",
    ];
    for text in good {
        let bytes = text.as_bytes();
        cases.push(case(text, &[frame(TEXT, bytes)], &[(TEXT, bytes)], None));
        let mut fragments: Vec<_> = bytes.iter().map(|byte| frame(0, &[*byte])).collect();
        fragments[0][0] = 0x01;
        fragments.push(frame(0x80, b""));
        cases.push(case(
            format!("{text} by bytes"),
            &fragments,
            &[(TEXT, bytes)],
            None,
        ));
    }
    let bad: [&[u8]; 10] = [
        b"\x80",
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xfe",
        b"\xce\xba\xe1",
    ];
    for bytes in bad {
        cases.push(case(
            format!("{bytes:x?}"),
            &[frame(TEXT, bytes)],
            &[],
            Some(1007),
        ));
        let fragments = [frame(0x01, b"ok"), frame(0x80, bytes)];
        cases.push(case(
            format!("{bytes:x?} in the second"),
            &fragments,
            &[],
            Some(1007),
        ));
    }
    // Fails at the fragment that is bad, not at the end of the message, which never comes.
    cases.push(case(
        "fails fast",
        &[frame(0x01, b"ok"), frame(0, b"\xff")],
        &[],
        Some(1007),
    ));
    cases
}

fn closes() -> Vec<Case> {
    let close = |payload: &[u8]| frame(CLOSE, payload);
    let mut cases = vec![
        case("a bare close", &[close(b"")], &[], Some(1005)),
        case("a close of one byte", &[close(&[3])], &[], Some(1002)),
        case("a reason", &[close(b"\x03\xe8bye")], &[], Some(1000)),
        case(
            "the longest reason",
            &[close(&[b"\x03\xe8".as_slice(), &[b'*'; 123]].concat())],
            &[],
            Some(1000),
        ),
        case(
            "a reason that is too long",
            &[close(&[b"\x03\xe8".as_slice(), &[b'*'; 124]].concat())],
            &[],
            Some(1002),
        ),
        case(
            "a reason that is no UTF-8",
            &[close(b"\x03\xe8\xce\xba\xff")],
            &[],
            Some(1007),
        ),
        case(
            "nothing after a close",
            &[close(b"\x03\xe8"), frame(TEXT, b"a"), frame(PING, b"")],
            &[],
            Some(1000),
        ),
    ];
    for code in [
        1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        cases.push(case(
            format!("close {code}"),
            &[close(&code.to_be_bytes())],
            &[],
            Some(code),
        ));
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.push(case(
            format!("close {code}, forbidden"),
            &[close(&code.to_be_bytes())],
            &[],
            Some(1002),
        ));
    }
    cases
}

fn limits() -> Vec<Case> {
    let over: &[u8] = &vec![b'a'; MIB + 1];
    vec![
        case(
            "1 MiB and a byte",
            &[header(BINARY, MIB as u64 + 1)],
            &[],
            Some(1009),
        ),
        case("2^63-1 bytes", &[header(TEXT, (1 << 63) - 1)], &[], Some(1009)),
        case(
            "in fragments",
            &[frame(0x01, &over[..MIB]), frame(0x80, b"a")],
            &[],
            Some(1009),
        ),
        case("sent whole", &[frame(TEXT, over)], &[], Some(1009)),
    ]
}

async fn check(node: &Node, case: Case) {
    let Raw {
        mut frames,
        mut writer,
    } = Raw::echo(node).await;
    let (name, writes) = (case.name.clone(), case.writes);
    // A server that has closed reads no more: only what it answers counts.
    let closes = case
        .close
        .is_none()
        .then(|| frame(CLOSE, &1000_u16.to_be_bytes()));
    let write = async move {
        for bytes in writes.iter().chain(closes.iter()) {
            if writer.write_all(bytes).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        writer
    };
    let read = async {
        let mut answers = Vec::new();
        while let Some(frame) = frames.next().await {
            answers.push(frame);
            if answers.last().is_some_and(|frame| frame.first == CLOSE) {
                break;
            }
        }
        answers
    };
    let (writer, mut answers) = tokio::join!(write, read);
    drop(writer);
    let close = answers.pop().unwrap_or_else(|| panic!("{name}: no close frame"));
    let code = close
        .payload
        .first_chunk()
        .map_or(1005, |code| u16::from_be_bytes(*code));
    assert_eq!((close.first, code), (CLOSE, case.close.unwrap_or(1000)), "{name}");
    assert!(answers == case.answers, "{name}: other answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc_6455_over_the_echo() {
    let node = Node::with("[debug]\necho = true").await;
    let tables = [framing(), control(), fragments(), texts(), closes(), limits()];
    let cases: Vec<_> = tables.into_iter().flatten().collect();
    eprintln!("{} conformance cases", cases.len());
    for case in cases {
        let name = case.name.clone();
        let checked = tokio::time::timeout(SOON, check(&node, case)).await;
        checked.unwrap_or_else(|_| panic!("{name}: no end"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_end_are_a_flood() {
    let node = Node::with("[debug]\necho = true\necho_max_bytes = 4096").await;
    let start = std::time::Instant::now();
    let writes = [frame(0x01, b""), frame(0, b"").repeat(9_000)];
    check(&node, case("fragments without end", &writes, &[], Some(1008))).await;
    eprintln!("9,000 fragments: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_echo_is_there_only_when_it_is_asked_for() {
    let node = Node::start().await;
    let head = "GET /debug/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(node.raw(head).await.0, 404);
}
