//! Reading `multipart/form-data` (RFC 7578) as it comes, with a bound on everything.
//!
//! Owns: the parts of a form, their names and types, and their bytes piece by piece. Does not: keep a part, or know what
//! a field means. Called by: `upload`. The parsers at hand keep what stands before the first boundary, and the head of a
//! part, in memory without a bound.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, header};

use super::source::{Source, SourceError};

/// The head of a part, in bytes.
const MOST_HEAD_BYTES: usize = 4096;

/// Parts of a form.
const MOST_PARTS: usize = 64;

/// A boundary, in bytes (RFC 2046, section 5.1.1).
const MOST_BOUNDARY_BYTES: usize = 70;

/// What comes before a boundary.
const BEFORE: &[u8] = b"\r\n--";

/// Why a form cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// It does not come.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is none, or ends early.
    #[error("the body is no multipart/form-data")]
    Malformed,
    /// A field is too large, or there are too many.
    #[error("the form is too large")]
    TooLarge,
}

/// A part's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The field.
    pub(super) name: String,
    /// The name of the file, when it is one.
    pub(super) file_name: Option<String>,
    /// Its declared media type; text where it declares none (RFC 7578, section 4.4).
    pub(super) kind: String,
}

/// A form that is read part by part.
pub(super) struct Form {
    source: Source,
    buffer: BytesMut,
    /// `\r\n--` and the boundary.
    delimiter: Vec<u8>,
    parts: usize,
    /// Whether the part under way has more bytes.
    open: bool,
}

impl Form {
    /// The boundary that the headers of a request name; none: it is no form.
    #[must_use]
    pub(super) fn boundary(headers: &HeaderMap) -> Option<String> {
        let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let (kind, parameters) = text.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary")?;
        let fits = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let good = (1..=MOST_BOUNDARY_BYTES).contains(&boundary.len()) && boundary.bytes().all(fits);
        good.then_some(boundary)
    }

    /// A form with this boundary.
    #[must_use]
    pub(super) fn new(source: Source, boundary: &str) -> Self {
        Self {
            source,
            // As if a line ended before the first boundary: then every boundary is alike.
            buffer: BytesMut::from(&b"\r\n"[..]),
            delimiter: [BEFORE, boundary.as_bytes()].concat(),
            parts: 0,
            open: false,
        }
    }

    /// The head of the next part; none after the last. What is left of the part before is passed over.
    ///
    /// # Errors
    /// As [`FormError`] says.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, FormError> {
        while self.open {
            self.piece().await?;
        }
        if self.parts == 0 {
            // Nothing stands before the first boundary.
            self.fill(self.delimiter.len()).await?;
            if !self.buffer.starts_with(&self.delimiter) {
                return Err(FormError::Malformed);
            }
            self.buffer.advance(self.delimiter.len());
        }
        self.fill(2).await?;
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        self.parts += 1;
        if self.parts > MOST_PARTS {
            return Err(FormError::TooLarge);
        }
        let end = loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > MOST_HEAD_BYTES {
                return Err(FormError::TooLarge);
            }
            self.more().await?;
        };
        let head = self.buffer.split_to(end + 2);
        // The empty line's end stays: a part without content ends where it begins.
        let part = read_head(&head).ok_or(FormError::Malformed)?;
        self.buffer.advance(2);
        self.open = true;
        Ok(Some(part))
    }

    /// The next bytes of the part under way; none at its end.
    ///
    /// # Errors
    /// As [`FormError`] says.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, FormError> {
        while self.open {
            match memchr::memmem::find(&self.buffer, &self.delimiter) {
                Some(0) => {
                    self.buffer.advance(self.delimiter.len());
                    self.open = false;
                }
                Some(at) => return Ok(Some(self.buffer.split_to(at).freeze())),
                None if self.buffer.len() >= self.delimiter.len() => {
                    // The end may be the beginning of a boundary.
                    let sure = self.buffer.len() + 1 - self.delimiter.len();
                    return Ok(Some(self.buffer.split_to(sure).freeze()));
                }
                None => self.more().await?,
            }
        }
        Ok(None)
    }

    /// The part under way as a text of at most so many bytes.
    ///
    /// # Errors
    /// As [`FormError`] says; [`FormError::Malformed`] when it is no UTF-8.
    pub(super) async fn text(&mut self, most: usize) -> Result<String, FormError> {
        let mut text = Vec::new();
        while let Some(piece) = self.piece().await? {
            if text.len() + piece.len() > most {
                return Err(FormError::TooLarge);
            }
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).map_err(|_| FormError::Malformed)
    }

    /// Passes over what still comes, for so long at most.
    pub(super) async fn linger(&mut self, most: Duration) {
        self.source.linger(most).await;
    }

    async fn fill(&mut self, length: usize) -> Result<(), FormError> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), FormError> {
        let piece = self.source.next().await?.ok_or(FormError::Malformed)?;
        self.buffer.extend_from_slice(&piece);
        Ok(())
    }
}

/// The lines between a boundary's end and the empty line.
fn read_head(head: &[u8]) -> Option<Part> {
    let text = std::str::from_utf8(head).ok()?;
    let (mut name, mut file_name, mut kind) = (None, None, "text/plain".to_owned());
    // What follows the boundary on its own line is padding.
    for line in text.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':')?;
        if field.eq_ignore_ascii_case("content-disposition") {
            let (what, parameters) = value.split_once(';')?;
            if !what.trim().eq_ignore_ascii_case("form-data") {
                return None;
            }
            name = parameter(parameters, "name");
            file_name = parameter(parameters, "filename");
        } else if field.eq_ignore_ascii_case("content-type") {
            value.trim().clone_into(&mut kind);
        }
    }
    Some(Part {
        name: name?,
        file_name,
        kind,
    })
}

/// A parameter of a header: `name=token` or `name="quoted"`, between semicolons.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        let (name, value) = rest.split_once('=')?;
        let name = name.trim().trim_start_matches(';').trim();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

/// A quoted text after its first quote, and what follows it. Browsers write `"` as `%22`.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value.replace("%22", "\""), &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use std::convert::Infallible;
    use std::time::Duration;

    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    const BODY: &[u8] = b"--b\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nA \"film\"\r\n\
        --b  \r\ncontent-disposition: form-data; filename=\"x;y.mp4\"; name=file\r\nContent-Type: video/mp4\r\n\r\n\
        \r\n--not\r\n--\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--b--\r\n";

    fn form(body: &[u8], piece: usize) -> Form {
        let pieces: Vec<_> = body
            .chunks(piece)
            .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
            .collect();
        let long = Duration::from_secs(60);
        Form::new(
            Source::new(Body::from_stream(stream::iter(pieces)), long, long),
            "b",
        )
    }

    /// Name, whether it is a file, type and content of each part.
    async fn read(body: &[u8], piece: usize) -> Result<Vec<(String, bool, String, Vec<u8>)>, FormError> {
        let mut form = form(body, piece);
        let mut parts = Vec::new();
        while let Some(part) = form.next().await? {
            let mut content = Vec::new();
            while let Some(piece) = form.piece().await? {
                content.extend_from_slice(&piece);
            }
            parts.push((part.name, part.file_name.is_some(), part.kind, content));
        }
        Ok(parts)
    }

    #[tokio::test]
    async fn a_form_is_the_same_however_it_is_cut() {
        let part = |name: &str, is_file, kind: &str, content: &[u8]| {
            (name.to_owned(), is_file, kind.to_owned(), content.to_vec())
        };
        let expected = vec![
            part("title", false, "text/plain", b"A \"film\""),
            part("file", true, "video/mp4", b"\r\n--not\r\n--\r\n"),
            part("empty", false, "text/plain", b""),
        ];
        for piece in 1..=BODY.len() {
            assert_eq!(read(BODY, piece).await.unwrap(), expected, "pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn what_is_cut_off_or_no_form_is_refused() {
        for end in 0..BODY.len() - 4 {
            assert!(read(&BODY[..end], 7).await.is_err(), "cut at {end}");
        }
        assert_eq!(
            read(b"garbage before\r\n--b\r\n", 5).await,
            Err(FormError::Malformed)
        );
        let endless = [&b"--b\r\nX: "[..], &[b'a'; 100_000]].concat();
        assert_eq!(read(&endless, 1000).await, Err(FormError::TooLarge));
        let many = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n".repeat(100);
        assert_eq!(read(&many, 1000).await, Err(FormError::TooLarge));
        let nameless = b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--";
        assert_eq!(read(nameless, 1000).await, Err(FormError::Malformed));
        let mut long = form(BODY, 1000);
        long.next().await.unwrap();
        assert_eq!(long.text(3).await, Err(FormError::TooLarge));
    }

    #[test]
    fn boundaries() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(text));
            Form::boundary(&headers)
        };
        assert_eq!(of("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(
            of("Multipart/Form-Data; charset=x; Boundary=\"a b\"").as_deref(),
            Some("a b")
        );
        assert_eq!(of("multipart/form-data"), None);
        assert_eq!(of("multipart/form-data; boundary="), None);
        assert_eq!(of("multipart/mixed; boundary=abc"), None);
        assert_eq!(of("multipart/form-data; boundary=\"abc"), None);
        assert_eq!(
            of(
                "multipart/form-data; boundary=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            ),
            None
        );
    }
}
