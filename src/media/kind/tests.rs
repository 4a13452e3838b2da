//! The table of types: what is declared, the first bytes, and the verdict.

use super::*;

/// A frame of silence needs no more than its header here.
const MP3: &[u8] = b"\xff\xfb\x90\x64\0\0\0\0";
const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
const EXE: &[u8] = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0";
const WEBM: &[u8] = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm\x42\x87\x81\x04";
const MATROSKA: &[u8] =
    b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82\x88matroska\x42\x87\x81\x04";
const GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0";
const WEBP: &[u8] = b"RIFF\x24\0\0\0WEBPVP8 ";

#[test]
fn the_declared_type_must_match_the_bytes() {
    let ts: Vec<u8> = [[0x47].as_slice(), &[0xff; 187]].concat().repeat(3);
    let torn = [&ts[..188], &[0; 188]].concat();
    let table: &[(&str, &[u8], bool)] = &[
        ("application/pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", true),
        ("application/pdf", b"%!PS-Adobe-3.0\n", false),
        ("application/pdf", b" %PDF-1.7", false),
        ("application/pdf", EXE, false),
        ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", true),
        ("image/png", b"\x89PNG\n\x1a\n\0\0\0\rIHDR", false),
        ("image/png", b"\x89PN", false),
        ("image/png", ELF, false),
        ("image/png", EXE, false),
        ("image/png", b"\xff\xd8\xff\xe0\0\x10JFIF", false),
        ("image/png", b"<html><script>", false),
        ("image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01", true),
        ("image/jpeg", b"\xff\xd8\xff\xe1\x1c\x45Exif\0\0", true),
        ("image/jpeg", b"\xff\xd8\xff\xdb\0\x43\0\x08", true),
        ("image/jpeg", b"\xff\xd8\xff\xee\0\x0eAdobe", true),
        ("image/jpeg", b"\xff\xd8\xff\xd9", false),
        ("image/jpeg", b"\xff\xd8\xff", false),
        ("image/jpeg", b"\xff\xd8\0\x10JFIF", false),
        ("image/jpeg", EXE, false),
        ("image/jpeg", b"#!/bin/sh\nrm -rf /\n", false),
        ("text/plain", b"plain text\n", true),
        ("text/plain", b"\xef\xbb\xbfwith a mark\n", true),
        ("text/plain", "na\u{ef}ve \u{1f600}".as_bytes(), true),
        ("text/plain", ELF, false),
        ("text/plain", b"h\0e\0l\0l\0o\0", false),
        ("video/mp4", b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", true),
        ("video/mp4", b"\0\0\0\x18ftypmp42\0\0\0\0", true),
        ("video/mp4", b"\0\0\0\x14ftypqt  \0\0\0\0", true),
        ("video/mp4", b"\0\0\0\x1cftypXXXX\0\0\0\0", true),
        ("video/mp4", b"ftypisom\0\0\0\0", false),
        ("video/mp4", b"\0\0\0\x08moov\0\0\0\0", false),
        ("video/mp4", EXE, false),
        ("video/webm", WEBM, true),
        ("video/webm", MATROSKA, false),
        ("video/webm", b"\x1a\x45\xdf\xa3", false),
        ("video/webm", b"\x1a\x45\xdf\xa3\x42\x82\x01", false),
        ("audio/mpeg", b"ID3\x04\0\0\0\0\0\x23TSSE", true),
        ("audio/mpeg", MP3, true),
        ("audio/mpeg", b"\xff\xf3\x40\xc0\0\0", true),
        ("audio/mpeg", b"\xff\xe3\x18\xc4\0\0", true),
        ("audio/mpeg", b"\xff\xfe\0h\0i\0", false),
        ("audio/mpeg", b"\xff\xf1\x50\x80\x02\x1f", false),
        ("audio/mpeg", b"\xff\xfb\xfc\0", false),
        ("audio/mpeg", b"OggS\0\x02", false),
        (
            "application/vnd.apple.mpegurl",
            b"#EXTM3U\n#EXT-X-VERSION:3\n",
            true,
        ),
        ("application/vnd.apple.mpegurl", b"#EXTM3U\r\n", true),
        ("application/vnd.apple.mpegurl", b"\xef\xbb\xbf#EXTM3U\n", false),
        ("application/vnd.apple.mpegurl", b"#EXTM3U8X", false),
        (
            "application/vnd.apple.mpegurl",
            b"http://example.com/a.ts\n",
            false,
        ),
        ("video/mp2t", &ts, true),
        ("video/mp2t", &torn, false),
        ("video/mp2t", b"\x47only a G", false),
        ("video/iso.segment", b"\0\0\0\x18stypmsdh\0\0\0\0", true),
        ("video/iso.segment", b"\0\0\0\x68moof\0\0\0\x10", true),
        ("video/iso.segment", b"\0\0\0\x68mdat\0\0\0\x10", false),
        ("image/gif", GIF, true),
        ("image/gif", b"\x89PNG\r\n\x1a\n", false),
        ("image/webp", WEBP, true),
        ("image/webp", ELF, false),
        ("application/x-unheard-of", b"anything at all", false),
    ];
    assert!(table.len() >= 40, "{}", table.len());
    for (kind, head, verdict) in table {
        let shown = String::from_utf8_lossy(head);
        assert_eq!(fits(kind, head), *verdict, "{kind}: {shown:?}");
    }
    for kind in [
        "application/pdf",
        "image/png",
        "image/jpeg",
        "video/mp4",
        "video/webm",
        "audio/mpeg",
        "video/mp2t",
        "image/gif",
    ] {
        assert!(!fits(kind, b""), "{kind}");
        assert!(!fits(kind, b"abc"), "{kind}");
    }
}

#[test]
fn a_type_has_one_spelling() {
    for (declared, found) in [
        ("Image/JPG", "image/jpeg"),
        ("text/plain; charset=utf-8", "text/plain"),
        ("audio/x-mpegURL", "application/vnd.apple.mpegurl"),
        (" video/mp4 ", "video/mp4"),
        ("", ""),
    ] {
        assert_eq!(canonical(declared), found);
    }
}

#[test]
fn text_is_utf8_to_its_end_wherever_it_is_cut() {
    let text = "a\u{e9}\u{20ac}\u{1f600}z".as_bytes();
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let mut utf8 = Utf8::default();
            let pieces = [&text[..first], &text[first..second], &text[second..]];
            assert!(pieces.iter().all(|piece| utf8.feed(piece)) && utf8.is_whole());
        }
    }
    for bad in [
        &b"ok\xff"[..],
        b"\xc3(",
        b"\xed\xa0\x80",
        b"nul\0",
        b"\xf5\x80\x80\x80",
    ] {
        let mut utf8 = Utf8::default();
        assert!(!bad.chunks(1).all(|byte| utf8.feed(byte)), "{bad:?}");
    }
    let mut cut = Utf8::default();
    assert!(cut.feed(b"caf\xc3") && !cut.is_whole());
}
