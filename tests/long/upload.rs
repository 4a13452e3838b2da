//! Two GiB, as a form and as an upload that is resumed: what they cost in memory, and that every byte arrives.

use std::time::Instant;

use aws_lc_rs::digest;
use tokio::io::AsyncWriteExt;

use crate::harness::Node;
use crate::library::{BOUNDARY, begin, call, cut, editor, get, head};

/// Bytes of the file.
const SIZE: usize = 2 * 1024 * 1024 * 1024;

/// Bytes written at once.
const CHUNK: usize = 1024 * 1024;

/// What memory may grow by, in MiB.
const LIMIT_MIB: f64 = 32.0;

/// The chunk at this place of the file.
fn chunk(at: usize) -> Vec<u8> {
    let mut bytes = vec![0; CHUNK];
    let number = at as u64 / CHUNK as u64;
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = (place as u64 * 31 + number * 7).to_le_bytes()[0];
    }
    if at == 0 {
        bytes[..12].copy_from_slice(b"\0\0\0\x20ftypisom");
    }
    bytes
}

fn sha256() -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    (0..SIZE).step_by(CHUNK).for_each(|at| hash.update(&chunk(at)));
    hash.finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[allow(clippy::cast_precision_loss, reason = "bytes of memory")]
fn grown_mib(node: &Node, before: u64) -> f64 {
    (node.rss() as f64 - before as f64) / (1024.0 * 1024.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gib_cost_no_memory_and_are_resumed_at_half() {
    let node = Node::start().await;
    // What the first upload of a process needs is no growth.
    let small = crate::library::form(&[], "a", "video/mp4", &crate::library::mp4(20_000_000));
    assert_eq!(
        crate::library::post_form(&node, &editor(), &small).await.status,
        201
    );
    let before = node.rss();
    let (expected, mut most) = (sha256(), f64::MIN);

    let front = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: video/mp4\r\n\r\n"
    );
    let back = format!("\r\n--{BOUNDARY}--\r\n");
    let (bearer, kind) = (
        format!("Bearer {}", editor()),
        format!("multipart/form-data; boundary={BOUNDARY}"),
    );
    let length = (front.len() + SIZE + back.len()).to_string();
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", &*kind),
        ("Content-Length", &*length),
    ];
    let begun = Instant::now();
    let mut stream = begin(&node, "POST", "/v1/files", &headers, front.as_bytes()).await;
    for at in (0..SIZE).step_by(CHUNK) {
        stream.write_all(&chunk(at)).await.unwrap();
        most = most.max(grown_mib(&node, before));
    }
    stream.write_all(back.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let (status, headers) = head(&mut stream).await;
    assert_eq!(status, 201);
    eprintln!(
        "2 GiB as a form: {:?}, memory grew by {most:.1} MiB",
        begun.elapsed()
    );
    let path = headers["location"].to_str().unwrap().to_owned();
    assert_eq!(
        get(&node, &path, &editor(), &[]).await.json()["sha256"],
        *expected
    );
    assert!(most < LIMIT_MIB, "{most:.1} MiB");
    assert_eq!(
        call(&node, "DELETE", &path, &editor(), &[], b"").await.status,
        204
    );

    let tus = ("Tus-Resumable", "1.0.0");
    let length = SIZE.to_string();
    let made = call(
        &node,
        "POST",
        "/v1/files/uploads",
        &editor(),
        &[
            tus,
            ("Upload-Length", &length),
            ("Upload-Metadata", "filetype dmlkZW8vbXA0"),
        ],
        b"",
    )
    .await;
    let upload = made.header("location").to_owned();
    let mut offset = 0;
    for end in [SIZE / 2, SIZE] {
        let (from, length) = (offset.to_string(), (SIZE - offset).to_string());
        let kind = ("Content-Type", "application/offset+octet-stream");
        let headers = [
            ("Authorization", &*bearer),
            tus,
            kind,
            ("Upload-Offset", &*from),
            ("Content-Length", &*length),
        ];
        let mut stream = begin(&node, "PATCH", &upload, &headers, b"").await;
        let mut at = offset;
        while at < end {
            let start = at % CHUNK;
            let piece = chunk(at - start);
            stream.write_all(&piece[start..]).await.unwrap();
            at += CHUNK - start;
            most = most.max(grown_mib(&node, before));
        }
        stream.flush().await.unwrap();
        if end == SIZE {
            // The pieces are put together before the answer comes.
            let mut first = [0; 12];
            let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first);
            tokio::time::timeout(std::time::Duration::from_secs(300), read)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(&first, b"HTTP/1.1 204");
            break;
        }
        cut(stream).await;
        assert_eq!(
            get(&node, "/v1/files", &editor(), &[]).await.json()["total"],
            1,
            "nothing is seen before it is whole"
        );
        let mut last = usize::MAX;
        while last != offset {
            last = offset;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            let told = call(&node, "HEAD", &upload, &editor(), &[tus], b"").await;
            offset = told.header("upload-offset").parse().unwrap();
        }
        eprintln!("cut at {end}, goes on at {offset}");
        assert!(offset > SIZE / 2 - 16 * CHUNK && offset <= SIZE / 2, "{offset}");
    }
    eprintln!("2 GiB resumed at half: memory grew by {most:.1} MiB");
    let told = call(&node, "HEAD", &upload, &editor(), &[tus], b"").await;
    let file = get(
        &node,
        &format!("/v1/files/{}", told.header("usher-file")),
        &editor(),
        &[],
    )
    .await
    .json();
    assert_eq!(file["sha256"], *expected);
    assert!(most < LIMIT_MIB, "{most:.1} MiB");
}
