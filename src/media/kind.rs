//! What a file is: the media type that its uploader declares, held against its bytes.
//!
//! Owns: the names of types, their signatures, and the rule that text is UTF-8 to its end. Does not: read a body, or
//! trust a file's name. Called by: `intake`, with the first bytes of every upload.

use std::str::from_utf8;

/// Bytes from the start that are enough to judge by.
pub(super) const HEAD_BYTES: usize = 4096;

/// No file of any type is whole with fewer bytes.
pub(super) const LEAST_BYTES: u64 = 4;

/// What the first bytes of a `WebM` or Matroska file are (RFC 8794, section 11.2.1).
const EBML: &[u8] = &[0x1a, 0x45, 0xdf, 0xa3];

/// Length of a packet of an MPEG transport stream (ISO/IEC 13818-1).
const TS_PACKET: usize = 188;

/// Other names of the same types, as browsers and tools write them.
const ALIASES: [(&str, &str); 12] = [
    ("image/jpg", "image/jpeg"),
    ("image/pjpeg", "image/jpeg"),
    ("image/x-png", "image/png"),
    ("application/x-pdf", "application/pdf"),
    ("audio/mp3", "audio/mpeg"),
    ("audio/x-mp3", "audio/mpeg"),
    ("application/x-mpegurl", "application/vnd.apple.mpegurl"),
    ("audio/mpegurl", "application/vnd.apple.mpegurl"),
    ("audio/x-mpegurl", "application/vnd.apple.mpegurl"),
    ("video/x-mpegurl", "application/vnd.apple.mpegurl"),
    ("video/mpeg2ts", "video/mp2t"),
    ("audio/webm", "video/webm"),
];

/// A declared type in its one spelling: lower case, without parameters, by its usual name.
#[must_use]
pub(super) fn canonical(declared: &str) -> String {
    let bare = declared.split(';').next().unwrap_or_default().trim();
    let bare = bare.to_ascii_lowercase();
    let alias = ALIASES.iter().find(|(other, _)| *other == bare);
    alias.map_or(bare, |(_, usual)| (*usual).to_owned())
}

/// Whether a file that begins with `head` can be of this type. `head` is the whole file, or [`HEAD_BYTES`] of it.
#[must_use]
pub(super) fn fits(kind: &str, head: &[u8]) -> bool {
    match kind {
        "application/pdf" => head.starts_with(b"%PDF-"),
        "image/png" => head.starts_with(b"\x89PNG\r\n\x1a\n"),
        "image/jpeg" => is_jpeg(head),
        "text/plain" => !head.contains(&0),
        "video/mp4" => tag(head) == Some(b"ftyp"),
        "video/iso.segment" => [b"styp", b"moof", b"sidx", b"ftyp"].contains(&tag(head).unwrap_or(b"    ")),
        "video/webm" => head.starts_with(EBML) && doctype(head) == Some(b"webm"),
        "audio/mpeg" => head.starts_with(b"ID3") && head.len() >= 10 || is_layer_three(head),
        "application/vnd.apple.mpegurl" => is_playlist(head),
        "video/mp2t" => is_transport_stream(head),
        other => infer::get(head).is_some_and(|found| canonical(found.mime_type()) == other),
    }
}

/// Whether every byte of such a file belongs to a text in UTF-8.
#[must_use]
pub(super) fn is_text(kind: &str) -> bool {
    matches!(kind, "text/plain" | "application/vnd.apple.mpegurl")
}

/// The usual ending of a file's name.
#[must_use]
pub(super) fn ending(kind: &str) -> &'static str {
    match kind {
        "application/pdf" => "pdf",
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "text/plain" => "txt",
        "video/mp4" => "mp4",
        "video/iso.segment" => "m4s",
        "video/webm" => "webm",
        "audio/mpeg" => "mp3",
        "application/vnd.apple.mpegurl" => "m3u8",
        "video/mp2t" => "ts",
        _ => "bin",
    }
}

/// The type of the first box of an ISO base media file (ISO/IEC 14496-12, section 4.2).
fn tag(head: &[u8]) -> Option<&[u8; 4]> {
    head.get(4..8)?.try_into().ok()
}

/// Start of image, and a marker that may follow it: `APPn` (JFIF, Exif), a table, a frame or a comment (ITU-T T.81,
/// annex B).
fn is_jpeg(head: &[u8]) -> bool {
    let marker = head.get(3).copied().unwrap_or_default();
    head.starts_with(&[0xff, 0xd8, 0xff]) && matches!(marker, 0xc0..=0xcf | 0xdb..=0xdf | 0xe0..=0xef | 0xfe)
}

/// The header of a frame of MPEG audio, layer III (ISO/IEC 11172-3, section 2.4.1.3).
fn is_layer_three(head: &[u8]) -> bool {
    let [first, second, third, _, ..] = head else {
        return false;
    };
    let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
    let (bitrate, rate) = (third >> 4, third >> 2 & 3);
    *first == 0xff && second >> 5 == 7 && version != 1 && layer == 1 && bitrate != 15 && rate != 3
}

/// RFC 8216, section 4.1: the first line, without a byte order mark.
fn is_playlist(head: &[u8]) -> bool {
    head.strip_prefix(b"#EXTM3U")
        .is_some_and(|rest| matches!(rest.first(), Some(b'\n' | b'\r' | b' ')))
}

/// A sync byte at the start of every packet that is here, one at least.
fn is_transport_stream(head: &[u8]) -> bool {
    head.len() >= TS_PACKET && head.iter().step_by(TS_PACKET).all(|byte| *byte == 0x47)
}

/// `DocType` of an EBML header: its id, a length of one byte, and so many letters.
fn doctype(head: &[u8]) -> Option<&[u8]> {
    let header = &head[..head.len().min(256)];
    let at = header.windows(2).position(|pair| pair == [0x42, 0x82])?;
    let length = usize::from(header.get(at + 2)?.checked_sub(0x80)?);
    header.get(at + 3..at + 3 + length)
}

/// Reads a text in pieces that may end within a character.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// Bytes of a character that the next piece ends, three at most.
    open: Vec<u8>,
}

impl Utf8 {
    /// Whether the text goes on as UTF-8 without a NUL character.
    pub(super) fn feed(&mut self, piece: &[u8]) -> bool {
        let mut piece = piece;
        // A character that was begun takes at most three more bytes.
        while !self.open.is_empty() {
            let Some((next, rest)) = piece.split_first() else {
                return true;
            };
            self.open.push(*next);
            piece = rest;
            match from_utf8(&self.open) {
                Ok(_) => self.open.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        if piece.contains(&0) {
            return false;
        }
        match from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                self.open.extend_from_slice(&piece[error.valid_up_to()..]);
                true
            }
        }
    }

    /// Whether the text may end here.
    #[must_use]
    pub(super) fn is_whole(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests;
