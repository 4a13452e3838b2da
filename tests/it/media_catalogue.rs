//! A content of the catalogue whose source is a file: what it may name, and that a play gets the bytes. On both engines.

use serde_json::{Value, json};

use crate::catalogue::{PLAIN, call, create, editor, film, on_postgres, send, viewer, with};
use crate::harness::Node;
use crate::library::{get, mp4, upload};

fn from(file: &str) -> Value {
    json!({"source": format!("file:{file}")})
}

async fn plays(node: &Node) {
    let (ed, bytes) = (editor("t1"), mp4(300_000));
    let own = upload(node, &ed, &[], "video/mp4", &bytes).await;
    let theirs = upload(node, &editor("t2"), &[], "video/mp4", &bytes).await;
    let (own, theirs) = (own["id"].as_str().unwrap(), theirs["id"].as_str().unwrap());
    // A file that is not there, and one of another tenant, are the same.
    for file in ["nothing", theirs] {
        let refused = (400, "bad_request".to_owned(), Some("source".to_owned()));
        let body = with(film("m1"), &from(file));
        let made = call(node, "POST", "/v1/content", &ed, &body).await;
        assert_eq!(made.refusal(), refused, "{file}");
        let picture = with(film("m1"), &json!({"thumbnail": format!("file:{file}")}));
        let made = call(node, "POST", "/v1/content", &ed, &picture).await;
        assert_eq!(made.refusal().2.as_deref(), Some("thumbnail"), "{file}");
        create(node, "t1", &film("m0")).await;
        let body = with(film("m0"), &from(file));
        let changed = call(node, "PUT", "/v1/content/m0", &ed, &body).await;
        assert_eq!(changed.refusal(), refused, "{file}");
        assert_eq!(
            call(node, "DELETE", "/v1/content/m0", &ed, &Value::Null)
                .await
                .status,
            204
        );
    }
    // An import takes the others.
    let lines = [
        film("m2"),
        with(film("m3"), &from(theirs)),
        with(film("m4"), &from(own)),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let report = send(
        node,
        "POST",
        "/v1/content/import",
        &ed,
        "application/x-ndjson",
        &lines,
    )
    .await;
    let report = report.json();
    assert_eq!(
        (&report["read"], &report["taken"], &report["rejected"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert_eq!(
        (&report["rejects"][0]["line"], &report["rejects"][0]["field"]),
        (&json!(2), &json!("source"))
    );
    assert_eq!(
        call(node, "GET", "/v1/content/m3", &ed, &Value::Null)
            .await
            .status,
        404
    );

    create(node, "t1", &with(film("m1"), &from(own))).await;
    let ann = viewer("t1");
    let play = call(node, "GET", "/v1/content/m1/play?device=tv", &ann, &Value::Null).await;
    assert_eq!(play.status, 200, "{play:?}");
    let play = play.json();
    let path = play["source"]
        .as_str()
        .unwrap()
        .strip_prefix("https://localhost")
        .unwrap()
        .to_owned();
    assert_eq!(path, format!("/v1/media/{own}"));
    let ticket = play["ticket"]["token"].as_str().unwrap();
    assert!(get(node, &path, ticket, &[]).await.body == bytes);
    let part = get(node, &path, ticket, &[("Range", "bytes=1000-1999")]).await;
    assert!(part.status == 206 && part.body == bytes[1000..2000]);
    // The ticket of another content opens nothing, a token of its own neither, and an ended play no more.
    let other = call(node, "GET", "/v1/content/m2/play?device=tv-2", &ann, &Value::Null)
        .await
        .json();
    let other = other["ticket"]["token"].as_str().unwrap();
    assert_eq!(
        get(node, &path, other, &[]).await.refusal(),
        (403, "content_forbidden".to_owned())
    );
    assert_eq!(
        get(node, &path, &ann, &[]).await.refusal(),
        (403, "ticket_required".to_owned())
    );
    let (session, secret) = (
        play["session"].as_str().unwrap(),
        play["resume"].as_str().unwrap(),
    );
    let session = format!("/v1/sessions/{session}");
    let secret = [("Usher-Resume", secret)];
    let ended = crate::library::call(node, "DELETE", &session, &ann, &secret, b"").await;
    assert_eq!(ended.status, 204);
    assert_eq!(
        get(node, &path, ticket, &[]).await.refusal(),
        (403, "session_ended".to_owned())
    );
}

#[tokio::test]
async fn a_content_of_a_file_plays_on_sqlite() {
    plays(&Node::with(PLAIN).await).await;
}

#[tokio::test]
async fn a_content_of_a_file_plays_on_postgresql() {
    let (node, _server) = on_postgres(PLAIN).await;
    plays(&node).await;
}
