//! Playlists (HLS, RFC 8216) for players that send no header: the ticket that opened the playlist, on each URI of it that is
//! a file of ours.
//!
//! Owns: which URIs those are. Does not: read or send the playlist. Called by: `delivery`.

/// A playlist that is larger is given out as it is, in bytes.
pub(super) const MOST_BYTES: u64 = 1024 * 1024;

/// The media type.
pub(super) const TYPE: &str = "application/vnd.apple.mpegurl";

/// Where our files are played.
const ROUTE: &str = "/v1/media/";

/// How an attribute of a tag names a URI (RFC 8216, section 4.2): keys, maps, renditions, parts.
const ATTRIBUTE: &str = "URI=\"";

/// The playlist with the ticket on its URIs. A URI that leads to another host gets nothing: the ticket is for us.
#[must_use]
pub(super) fn with_ticket(playlist: &str, ticket: &str) -> String {
    let mut told = String::with_capacity(playlist.len() * 2);
    for line in playlist.split_inclusive('\n') {
        let text = line.trim_end_matches(['\r', '\n']);
        if text.starts_with("#EXT") {
            extend_attributes(&mut told, text, ticket);
        } else if text.is_empty() || text.starts_with('#') {
            told.push_str(text);
        } else {
            extend(&mut told, text, ticket);
        }
        told.push_str(&line[text.len()..]);
    }
    told
}

fn extend_attributes(told: &mut String, mut tag: &str, ticket: &str) {
    while let Some((before, rest)) = tag.split_once(ATTRIBUTE) {
        let Some((uri, after)) = rest.split_once('"') else {
            break;
        };
        told.push_str(before);
        told.push_str(ATTRIBUTE);
        extend(told, uri, ticket);
        told.push('"');
        tag = after;
    }
    told.push_str(tag);
}

fn extend(told: &mut String, uri: &str, ticket: &str) {
    if !is_ours(uri) {
        return told.push_str(uri);
    }
    let (uri, fragment) = uri
        .split_once('#')
        .map_or((uri, None), |(uri, end)| (uri, Some(end)));
    told.push_str(uri);
    told.push(if uri.contains('?') { '&' } else { '?' });
    told.push_str("ticket=");
    told.push_str(ticket);
    if let Some(fragment) = fragment {
        told.push('#');
        told.push_str(fragment);
    }
}

/// A path of ours in full, or a name beside the playlist (RFC 3986, section 4.2).
fn is_ours(uri: &str) -> bool {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let name = path
        .strip_prefix(ROUTE)
        .or_else(|| path.strip_prefix("./"))
        .unwrap_or(path);
    // A colon may end a scheme, a slash lead elsewhere.
    !name.is_empty() && !name.contains(['/', ':', '\\']) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_ours_get_the_ticket_and_no_others() {
        for (uri, ours) in [
            ("abc.ts", true),
            ("./abc.ts", true),
            ("/v1/media/abc.m4s", true),
            ("abc?x=1", true),
            ("abc?u=https://host/", true),
            ("https://cdn.example/abc.ts", false),
            ("HTTPS://cdn.example/abc.ts", false),
            ("//cdn.example/abc.ts", false),
            ("\\\\cdn.example\\abc.ts", false),
            ("/\\cdn.example", false),
            ("data:text/plain,abc", false),
            ("skd://abc", false),
            ("/v1/media/", false),
            ("/v1/media/a/../../x", false),
            ("/v1/media//cdn.example", false),
            ("/v1/sessions", false),
            ("../abc.ts", false),
            ("..", false),
            ("low/abc.ts", false),
        ] {
            assert_eq!(is_ours(uri), ours, "{uri}");
        }
    }

    #[test]
    fn every_other_byte_stays_as_it_is() {
        let playlist = "#EXTM3U\r\n#EXT-X-KEY:METHOD=AES-128,URI=\"key\",IV=0x1\n#EXT-X-MAP:URI=\"/v1/media/i.mp4\",BYTERANGE=\"7@0\"\n\
                        #EXT-X-MEDIA:TYPE=AUDIO,URI=\"https://cdn.example/a.m3u8\"\n# a comment: URI=\"x\"\n#EXTINF:4,\n\ns1.ts\r\n\
                        s2.ts?x=1#t=3\n#EXT-X-BROKEN:URI=\"abc\n#EXT-X-ENDLIST";
        let expected = "#EXTM3U\r\n#EXT-X-KEY:METHOD=AES-128,URI=\"key?ticket=T\",IV=0x1\n\
                        #EXT-X-MAP:URI=\"/v1/media/i.mp4?ticket=T\",BYTERANGE=\"7@0\"\n\
                        #EXT-X-MEDIA:TYPE=AUDIO,URI=\"https://cdn.example/a.m3u8\"\n# a comment: URI=\"x\"\n#EXTINF:4,\n\n\
                        s1.ts?ticket=T\r\ns2.ts?x=1&ticket=T#t=3\n#EXT-X-BROKEN:URI=\"abc\n#EXT-X-ENDLIST";
        assert_eq!(with_ticket(playlist, "T"), expected);
        assert_eq!(with_ticket("", "T"), "");
    }
}
