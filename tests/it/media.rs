//! Files: what is taken and what is refused, who sees them, and that nothing is left of what was refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Node, token};
use crate::library::{call, editor, form, get, mp4, post_form, send, ticket, token_with, upload};
use crate::postgres::Postgres;

/// Files below a directory.
fn objects(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let count = |entry: fs::DirEntry| {
        if entry.path().is_dir() {
            objects(&entry.path())
        } else {
            1
        }
    };
    entries.map(|entry| count(entry.unwrap())).sum()
}

/// Nothing is in the store but so many objects; what is being removed gets a moment.
async fn holds(node: &Node, count: usize) {
    let dir = node.dir.join("data/media");
    crate::harness::eventually(&format!("{count} objects"), || {
        (objects(&dir) == count).then_some(())
    })
    .await;
}

async fn total(node: &Node, token: &str, query: &str) -> u64 {
    let reply = get(node, &format!("/v1/files?{query}"), token, &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["total"].as_u64().unwrap()
}

async fn refused(node: &Node, kind: &str, bytes: &[u8]) -> (u16, String) {
    post_form(node, &editor(), &form(&[("title", "t")], "a", kind, bytes))
        .await
        .refusal()
}

/// From its upload to its end, on either database.
async fn lives(node: &Node) {
    let bytes = mp4(300_000);
    let fields = [
        ("title", "A film"),
        ("description", "About\nthings"),
        ("category", "drama"),
        ("language", "it"),
        ("provider", "acme"),
        ("content", "movie-1"),
        ("roles", "mentor"),
        ("roles", "mentee"),
        ("unknown", "x"),
    ];
    let file = upload(node, &editor(), &fields, "video/mp4", &bytes).await;
    let id = file["id"].as_str().unwrap().to_owned();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = json!({
        "id": id, "title": "A film", "description": "About\nthings", "category": "drama", "language": "it",
        "provider": "acme", "content": "movie-1", "roles": ["mentor", "mentee"], "type": "video/mp4", "size": 300_000,
        "sha256": sha256, "state": "ready", "owner": "editor",
        "created_at": file["created_at"], "changed_at": file["created_at"],
    });
    assert_eq!(file, expected);
    let path = format!("/v1/files/{id}");
    assert_eq!(get(node, &path, &editor(), &[]).await.json(), expected);
    upload(
        node,
        &editor(),
        &[("title", "Zebra 100%"), ("role", "mentor")],
        "text/plain",
        b"a text",
    )
    .await;

    for (query, count) in [
        ("", 2),
        ("q=FILM", 1),
        ("q=100%25", 1),
        ("q=_", 0),
        ("type=video/mp4", 1),
        (
            "category=drama&language=it&provider=acme&content=movie-1&owner=editor&state=ready",
            1,
        ),
        ("category=comedy", 0),
        ("role=mentee", 1),
        ("role=mentor", 2),
        ("role=nobody", 0),
    ] {
        assert_eq!(total(node, &editor(), query).await, count, "{query}");
    }
    let list = get(
        node,
        "/v1/files?sort=-size&limit=1&fields=title,size",
        &editor(),
        &[],
    )
    .await
    .json();
    let item = json!({"id": id, "title": "A film", "size": 300_000});
    assert_eq!(list, json!({"items": [item], "page": 1, "limit": 1, "total": 2}));
    for bad in ["sort=sha256", "fields=key", "page=0", "limit=101", "x=1"] {
        let reply = get(node, &format!("/v1/files?{bad}"), &editor(), &[]).await;
        assert_eq!(reply.status, 400, "{bad}");
    }

    // Another viewer sees what is for its roles, and changes nothing.
    let mentor = token_with("viewer", "main", "watch", &["mentor"]);
    assert_eq!(total(node, &mentor, "").await, 2);
    assert_eq!(total(node, &token("viewer"), "").await, 0);
    assert_eq!(get(node, &path, &token("viewer"), &[]).await.status, 404);
    let json_body = [("Content-Type", "application/json")];
    let change = json!({"title": "Another", "roles": ["mentor"], "category": null}).to_string();
    let reply = call(node, "PUT", &path, &mentor, &json_body, change.as_bytes()).await;
    assert_eq!(reply.refusal(), (403, "not_the_owner".to_owned()));
    let reply = call(node, "PUT", &path, &editor(), &json_body, change.as_bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let file = reply.json();
    assert_eq!(
        (&file["title"], &file["category"]),
        (&json!("Another"), &Value::Null)
    );
    assert_eq!(
        (&file["roles"], &file["language"]),
        (&json!(["mentor"]), &json!("it"))
    );
    assert_eq!(
        total(node, &token_with("v", "main", "watch", &["mentee"]), "").await,
        0
    );
    for bad in [
        json!({"title": 7}),
        json!({"title": "x".repeat(201)}),
        json!({"roles": "x"}),
        json!({"roles": [1]}),
        json!({"language": "a\u{7}"}),
    ] {
        let reply = call(
            node,
            "PUT",
            &path,
            &editor(),
            &json_body,
            bad.to_string().as_bytes(),
        )
        .await;
        assert_eq!(reply.status, 400, "{bad}");
        assert_eq!(
            reply.json()["error"]["field"].as_str(),
            bad.as_object().unwrap().keys().next().map(|key| &**key)
        );
    }

    assert_eq!(call(node, "DELETE", &path, &mentor, &[], b"").await.status, 403);
    assert_eq!(call(node, "DELETE", &path, &editor(), &[], b"").await.status, 204);
    assert_eq!(get(node, &path, &editor(), &[]).await.status, 404);
    assert_eq!(total(node, &editor(), "").await, 1);
    holds(node, 1).await;
}

#[tokio::test]
async fn a_file_from_its_upload_to_its_end_on_sqlite() {
    lives(&Node::start().await).await;
}

#[tokio::test]
async fn a_file_from_its_upload_to_its_end_on_postgresql() {
    let server = Postgres::start().await;
    lives(&Node::with(&format!("[database]\nurl = \"{}\"", server.url())).await).await;
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let node = Node::with("[media]\nmax_bytes = 100000").await;
    let mismatch = (415, "type_mismatch".to_owned());
    assert_eq!(
        refused(&node, "image/png", b"MZ\x90\0\x03\0\0\0\x04").await,
        mismatch
    );
    assert_eq!(
        refused(&node, "image/jpeg", b"\x7fELF\x02\x01\x01\0\0\0").await,
        mismatch
    );
    let late = [&b"text ".repeat(2000)[..], b"\xff\xfe"].concat();
    assert_eq!(
        refused(&node, "text/plain", &late).await,
        mismatch,
        "text is UTF-8 to its end"
    );
    assert_eq!(refused(&node, "text/plain", b"").await.0, 400);
    assert_eq!(refused(&node, "text/plain", b"abc").await.0, 400);
    assert_eq!(refused(&node, "text/html", b"<html></html>").await.0, 415);
    assert_eq!(
        refused(&node, "video/mp4", &mp4(100_001)).await,
        (413, "file_too_large".to_owned())
    );
    assert_eq!(
        refused(&node, "video/mp4", &mp4(2_000_000)).await,
        (413, "file_too_large".to_owned())
    );
    for (field, value) in [
        ("title", "x".repeat(201)),
        ("description", "x".repeat(1001)),
        ("category", "x".repeat(65)),
        ("roles", "a\u{1}".to_owned()),
        ("title", "x".repeat(9000)),
    ] {
        let form = form(&[(field, &value)], "a.mp4", "video/mp4", &mp4(1000));
        let reply = post_form(&node, &editor(), &form).await;
        assert_eq!(reply.status, 400, "{field}: {}", reply.text());
        assert_eq!(reply.json()["error"]["field"], field);
        // The same behind the file: the bytes were in the store already.
        let mut behind = crate::library::form(&[], "a.mp4", "video/mp4", &mp4(1000));
        behind.truncate(behind.len() - 4);
        behind.extend_from_slice(b"\r\n");
        let first = format!(
            "Content-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n--{}--\r\n",
            crate::library::BOUNDARY
        );
        behind.extend_from_slice(first.as_bytes());
        assert_eq!(
            post_form(&node, &editor(), &behind).await.status,
            400,
            "{field} behind the file"
        );
    }
    let cut = form(&[], "a.mp4", "video/mp4", &mp4(1000));
    assert_eq!(
        post_form(&node, &editor(), &cut[..cut.len() - 30]).await.status,
        400
    );
    let nothing = format!("--{0}--\r\n", crate::library::BOUNDARY);
    assert_eq!(post_form(&node, &editor(), nothing.as_bytes()).await.status, 400);
    assert_eq!(
        call(
            &node,
            "POST",
            "/v1/files",
            &editor(),
            &[("Content-Type", "text/plain")],
            b"x"
        )
        .await
        .status,
        415
    );
    let form = form(&[], "a.mp4", "video/mp4", &mp4(1000));
    assert_eq!(
        post_form(&node, &token("viewer"), &form).await.refusal(),
        (403, "scope_forbidden".to_owned())
    );
    assert_eq!(post_form(&node, "bad", &form).await.status, 401);
    assert_eq!(total(&node, &editor(), "").await, 0);
    holds(&node, 0).await;
    assert!(
        node.metric("usher_media_uploads_total{outcome=\"refused\"}")
            .await
            > 10.0
    );
}

/// A sender that goes away in the middle leaves neither a file nor a part of one.
#[tokio::test]
async fn an_upload_that_is_cut_leaves_nothing_behind() {
    let node = Node::start().await;
    let form = form(&[], "a.mp4", "video/mp4", &mp4(3_000_000));
    let (kind, length) = (
        format!("multipart/form-data; boundary={}", crate::library::BOUNDARY),
        form.len().to_string(),
    );
    let bearer = format!("Bearer {}", editor());
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", &*kind),
        ("Content-Length", &*length),
    ];
    let stream = crate::library::begin(&node, "POST", "/v1/files", &headers, &form[..2_000_000]).await;
    let dir = node.dir.join("data/media");
    crate::harness::eventually("an upload under way", || (objects(&dir) == 1).then_some(())).await;
    assert_eq!(
        total(&node, &editor(), "").await,
        0,
        "nothing is seen before it is whole"
    );
    crate::library::cut(stream).await;
    holds(&node, 0).await;
    assert_eq!(total(&node, &editor(), "").await, 0);
}

/// Names and ids that would lead out of the directory lead nowhere.
#[tokio::test]
async fn no_path_leads_out_of_the_store() {
    let node = Node::start().await;
    let names = [
        "../../../etc/passwd",
        "..\\..\\boot.ini",
        "/etc/passwd",
        "....//....//x",
        "%2e%2e%2fx",
        "a/../../b.mp4",
        "\u{0}.mp4",
        "CON",
        "~/.ssh/id",
        "x\r\nSet-Cookie: a=b",
        "..",
        ".",
        "",
        "a#1",
        "\u{202e}gp4.exe",
    ];
    for name in names {
        let form = form(&[], &name.replace(['\r', '\n'], " "), "video/mp4", &mp4(1000));
        let reply = post_form(&node, &editor(), &form).await;
        assert_eq!(reply.status, 201, "{name:?}: {}", reply.text());
        let title = reply.json()["title"].as_str().unwrap().to_owned();
        assert!(!title.contains(['/', '\\', '\0']), "{title}");
        let path = format!("/v1/files/{}/download", reply.json()["id"].as_str().unwrap());
        let named = get(&node, &path, &editor(), &[]).await;
        let disposition = named.header("content-disposition");
        assert!(
            disposition.starts_with("attachment; filename=\"") && !disposition.contains(".."),
            "{disposition}"
        );
    }
    // Every object is below the directory, under a name of 32 hexadecimal digits.
    let media = node.dir.join("data/media");
    assert_eq!(objects(&media), names.len());
    for shelf in fs::read_dir(&media).unwrap() {
        for object in fs::read_dir(shelf.unwrap().path()).unwrap() {
            let name = object.unwrap().file_name().into_string().unwrap();
            assert!(
                name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{name}"
            );
        }
    }
    fs::write(node.dir.join("data/secret"), "not to be had").unwrap();
    let secret = ticket(&node, "viewer", "../secret").await;
    for id in [
        "../secret",
        "..%2fsecret",
        "%2e%2e/secret",
        "..%5csecret",
        "%2fetc%2fpasswd",
        "....//secret",
        "%00",
        "..;/secret",
        "%252e%252e%252fsecret",
        "secret",
        ".",
        "..",
        "a%0d%0ab",
        "%c0%ae%c0%ae/secret",
        "usher.db",
    ] {
        for route in ["/v1/media/", "/v1/files/"] {
            for token in [&editor(), &secret] {
                let reply = get(&node, &format!("{route}{id}"), token, &[]).await;
                assert!(
                    (400..500).contains(&reply.status),
                    "{route}{id}: {}",
                    reply.status
                );
                assert!(!reply.text().contains("not to be had"), "{id}");
            }
        }
    }
}

/// Another tenant's file does not exist, by any way.
#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let node = Node::start().await;
    let a = token_with("editor", "main", "editor watch", &[]);
    let b = token_with("editor", "other", "admin editor operator finance watch", &[]);
    let file = upload(&node, &a, &[("content", "m1")], "video/mp4", &mp4(5000)).await;
    let id = file["id"].as_str().unwrap();
    assert_eq!(total(&node, &b, "").await, 0);
    let ticket_b = crate::library::lease(&node, &b, "m1").await.ticket;
    let key = fs::read_dir(node.dir.join("data/media"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let key = fs::read_dir(key.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap();
    for path in [
        format!("/v1/files/{id}"),
        format!("/v1/files/{id}/stream"),
        format!("/v1/files/{id}/download"),
        format!("/v1/media/{id}"),
        format!("/v1/media/{key}"),
        format!("/v1/files/{key}"),
    ] {
        let stranger = get(&node, &path, &b, &[]).await;
        assert_eq!(stranger.refusal(), (404, "not_found".to_owned()), "{path}");
        let nobody = get(&node, "/v1/files/AAAAAAAAAAAAAAAAAAAAAA", &b, &[]).await;
        let told = |reply: &crate::library::Reply| reply.json()["error"]["message"].clone();
        assert_eq!(told(&stranger), told(&nobody), "as if it were nowhere");
    }
    let bytes = get(&node, &format!("/v1/media/{id}"), &ticket_b, &[]).await;
    assert_eq!(bytes.refusal(), (404, "not_found".to_owned()));
    let json_body = [("Content-Type", "application/json")];
    assert_eq!(
        call(&node, "PUT", &format!("/v1/files/{id}"), &b, &json_body, b"{}")
            .await
            .status,
        404
    );
    assert_eq!(
        call(&node, "DELETE", &format!("/v1/files/{id}"), &b, &[], b"")
            .await
            .status,
        404
    );
    for route in ["stats", "accesses"] {
        let path = format!("/v1/files/{route}?file={id}");
        assert_eq!(get(&node, &path, &a, &[]).await.status, 200, "{route}");
        let stranger = get(&node, &path, &b, &[]).await;
        assert_eq!(stranger.refusal(), (404, "not_found".to_owned()), "{route}");
    }
    let stats = get(&node, "/v1/files/stats", &b, &[]).await.json();
    assert_eq!(
        (&stats["total"]["accesses"], &stats["files"]["count"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn quotas_are_a_tenants_own() {
    let node =
        Node::with("[media.quota]\nbytes = 10000\nuploads = 1\nrequests_burst = 40\nrequests_per_second = 1")
            .await;
    let file = upload(&node, &editor(), &[], "video/mp4", &mp4(6000)).await;
    let full = (413, "quota_exceeded".to_owned());
    assert_eq!(refused(&node, "video/mp4", &mp4(6000)).await, full);
    let other = token_with("editor", "other", "editor", &[]);
    upload(&node, &other, &[], "video/mp4", &mp4(6000)).await;
    // What is removed makes room again.
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(
        call(&node, "DELETE", &path, &editor(), &[], b"").await.status,
        204
    );
    upload(&node, &editor(), &[], "video/mp4", &mp4(9000)).await;
    holds(&node, 2).await;

    let kind = format!("multipart/form-data; boundary={}", crate::library::BOUNDARY);
    let bearer = format!("Bearer {other}");
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", &*kind),
        ("Content-Length", "3000"),
    ];
    let form = form(&[], "a", "video/mp4", &mp4(1000));
    let mut tries = 0;
    let (slow, reply) = loop {
        // Whichever is seen first refuses the other.
        let slow = crate::library::begin(&node, "POST", "/v1/files", &headers, b"--").await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let reply = post_form(&node, &other, &form).await;
        tries += 1;
        if reply.status != 201 || tries == 10 {
            break (slow, reply);
        }
        let path = format!("/v1/files/{}", reply.json()["id"].as_str().unwrap());
        call(&node, "DELETE", &path, &other, &[], b"").await;
    };
    assert_eq!(reply.refusal(), (429, "rate_limited".to_owned()));
    assert!(!reply.header("retry-after").is_empty());
    drop(slow);

    // One a second is let through again, so that any of them may be.
    let mut refused = 0;
    for _ in 0..60 {
        let status = get(&node, "/v1/files", &other, &[]).await.status;
        refused += usize::from(status == 429);
    }
    assert!(refused > 0);
    assert_eq!(total(&node, &editor(), "").await, 1, "others are as before");
}

#[tokio::test]
async fn switched_off_there_are_no_files() {
    let node = Node::with("[modules]\nmedia = false").await;
    assert_eq!(get(&node, "/v1/files", &editor(), &[]).await.status, 404);
    assert!(!node.dir.join("data/media").exists());
    assert_eq!(send(&node, "GET", "/v1/media/x", &[], b"").await.status, 404);
}
