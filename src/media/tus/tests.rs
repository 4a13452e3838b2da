//! What `Upload-Metadata` says.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use super::*;

#[test]
fn metadata() {
    let types = ["video/mp4".to_owned()];
    let pair = |key: &str, value: &str| format!("{key} {}", STANDARD.encode(value));
    let text = [
        pair("filename", "../../etc/film.mp4"),
        pair("filetype", "Video/MP4"),
        pair("roles", "a, b"),
        "is_x".to_owned(),
    ];
    let (kind, about) = read_metadata(&types, &text.join(",")).unwrap();
    assert_eq!((&*kind, &*about.title), ("video/mp4", "film.mp4"));
    assert_eq!(about.roles, ["a", "b"]);
    let (_, about) = read_metadata(
        &types,
        &[pair("type", "video/mp4"), pair("title", "T"), pair("name", "n")].join(", "),
    )
    .unwrap();
    assert_eq!(about.title, "T");
    for bad in [
        "",
        "filename AAAA",
        "filetype ???",
        "filetype /w==",
        &pair("filetype", "text/html"),
    ] {
        assert!(read_metadata(&types, bad).is_err(), "{bad}");
    }
}
