//! Whether a stream begins with HTTP. Other protocols of text also begin with a word in capitals and a space, so that a request is only
//! believed once its target fits too.

use crate::wire::Recognition;

/// What a client sends first when it speaks HTTP/2 without negotiating it. RFC 9113 §3.4.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods whose name alone, before a fitting target, says that it is HTTP (IANA's registry, the common ones).
const METHODS: [&[u8]; 20] = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
    b"PURGE",
    b"M-SEARCH",
];
/// Longest method that is taken for one.
const LONGEST_METHOD: usize = 20;
/// How far the end of the first line is looked for after a method nobody knows.
const LONGEST_LINE: usize = 8 * 1024;

/// Whether a stream begins with an HTTP/1 request. Empty lines before it are allowed (RFC 9112 §2.2).
pub fn looks_like_request(bytes: &[u8]) -> Recognition {
    let blank = bytes.iter().take(4).take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
    let bytes = bytes.get(blank..).unwrap_or(&[]);
    let len = bytes.iter().take_while(|octet| octet.is_ascii_uppercase() || **octet == b'-').count();
    if len > LONGEST_METHOD {
        return Recognition::No;
    }
    let (method, rest) = bytes.split_at(len);
    let target = match rest {
        [] => return Recognition::NeedMore,
        [b' ', target @ ..] if len > 0 => target,
        _ => return Recognition::No,
    };
    match target_fits(method, target) {
        Recognition::Yes if !METHODS.contains(&method) => line_names_http(bytes),
        other => other,
    }
}

/// Whether a request-target begins like one: `/`, `*`, an absolute URI, or for CONNECT a host. RFC 9112 §3.2.
fn target_fits(method: &[u8], target: &[u8]) -> Recognition {
    match target.first() {
        None => Recognition::NeedMore,
        Some(b'/' | b'*') => Recognition::Yes,
        Some(octet) if method == b"CONNECT" && (octet.is_ascii_alphanumeric() || *octet == b'[') => Recognition::Yes,
        Some(b'h' | b'H') => Recognition::of_prefix(&target.get(..4).unwrap_or(target).to_ascii_lowercase(), b"http"),
        Some(_) => Recognition::No,
    }
}

fn line_names_http(bytes: &[u8]) -> Recognition {
    let window = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    match memchr::memchr(b'\n', window) {
        Some(end) if memchr::memmem::find(window.get(..end).unwrap_or(window), b" HTTP/1.").is_some() => {
            Recognition::Yes
        }
        None if bytes.len() < LONGEST_LINE => Recognition::NeedMore,
        _ => Recognition::No,
    }
}

/// Whether a stream begins with an HTTP/1 response.
pub fn looks_like_response(bytes: &[u8]) -> Recognition {
    Recognition::of_prefix(bytes, b"HTTP/1.")
}

/// Whether a stream begins with the HTTP/2 preface. The first three octets could still be a method, the whole line could not.
pub fn looks_like_preface(bytes: &[u8]) -> Recognition {
    Recognition::of_prefix(bytes, PREFACE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_recognised() {
        for text in [
            "GET /",
            "POST /a HTTP/1.1",
            "OPTIONS *",
            "CONNECT a.example:443",
            "CONNECT [::1]:443",
            "GET http://a/",
            "\r\nGET /",
            "M-SEARCH * HTTP/1.1",
            "FROBNICATE /x HTTP/1.1\r\n",
        ] {
            assert_eq!(looks_like_request(text.as_bytes()), Recognition::Yes, "{text}");
        }
    }

    #[test]
    fn every_prefix_that_may_still_become_a_request_asks_for_more() {
        for text in ["GET /", "POST h", "DELETE http", "FROBNICATE /x HTTP/1.1\n"] {
            for end in 0..text.len() {
                assert_ne!(looks_like_request(&text.as_bytes()[..end]), Recognition::No, "{}", &text[..end]);
            }
        }
    }

    #[test]
    fn other_words_in_capitals_are_no_request() {
        for text in [
            "EHLO mail.example\r\n",
            "MAIL FROM:<a@b>\r\n",
            "QUIT\r\n",
            "SSH-2.0-OpenSSH\r\n",
            "GET key\r\n",
            "SET a b\r\n",
            "get /\r\n",
            "USER anonymous\r\n",
            "STARTTLS\r\n",
            "LIST /a b\r\n",
            "AAAAAAAAAAAAAAAAAAAAAAAAAA",
            "*1\r\n$4\r\nPING\r\n",
            " GET /",
            "220 x",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(looks_like_request(text.as_bytes()), Recognition::No, "{text}");
        }
    }

    #[test]
    fn responses_and_the_preface_are_recognised() {
        assert_eq!(looks_like_response(b"HTTP/1.1 200 OK"), Recognition::Yes);
        assert_eq!(looks_like_response(b"HTTP/"), Recognition::NeedMore);
        assert_eq!(looks_like_response(b"HTTP/2"), Recognition::No);
        assert_eq!(looks_like_preface(PREFACE), Recognition::Yes);
        for end in 0..PREFACE.len() {
            assert_eq!(looks_like_preface(&PREFACE[..end]), Recognition::NeedMore, "{end}");
        }
        assert_eq!(looks_like_preface(b"PRINT"), Recognition::No);
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            looks_like_request(&bytes);
            looks_like_response(&bytes);
            looks_like_preface(&bytes);
        }
    }
}
