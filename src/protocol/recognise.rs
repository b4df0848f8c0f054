//! What a side's first octets say: the choice among all protocols, and the recognisers that are more than one reader's own.

use super::{Entry, PROTOCOLS, Sample};
use crate::event::Side;
use crate::wire::h2::{looks_like_frames, looks_like_settings};
use crate::wire::http::{looks_like_preface, looks_like_request, looks_like_response};
use crate::wire::proxy::{self, ProxyStart};
use crate::wire::tls::{
    RecordHeader, content, handshake, looks_like_client_hello, looks_like_server_record, looks_like_sslv2_hello,
};
use crate::wire::{Malformed, Recognition};

/// What a side's first octets are.
pub(super) enum Verdict {
    /// A whole or broken PROXY header comes first.
    Proxy(ProxyStart),
    /// They are this protocol.
    Is(&'static Entry),
    /// More octets are needed.
    Wait,
    /// Nothing known begins like this.
    Nothing,
}

/// Among which protocols is chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// All of them, PROXY headers too.
    All,
    /// Those whose sides cannot be mistaken for one another, PROXY headers too.
    TellingRoles,
    /// Those that are found in the middle of a stream.
    TellingThemselves,
}

/// Chooses. The result does not depend on how the octets were split: an entry that needs more is waited for before a later one is believed.
pub(super) fn decide(sample: &Sample<'_>, among: Among) -> Verdict {
    if sample.side == Side::Client && among != Among::TellingThemselves {
        match proxy::parse(sample.bytes) {
            ProxyStart::No => {}
            ProxyStart::Partial => return Verdict::Wait,
            start => return Verdict::Proxy(start),
        }
    }
    let candidates = PROTOCOLS.iter().filter(|entry| match among {
        Among::All => true,
        Among::TellingRoles => entry.tells_roles,
        Among::TellingThemselves => entry.tells_itself,
    });
    for entry in candidates {
        match (entry.recognise)(sample) {
            Recognition::Yes => return Verdict::Is(entry),
            Recognition::NeedMore => return Verdict::Wait,
            Recognition::No => {}
        }
    }
    Verdict::Nothing
}

/// TLS: a hello at the beginning, or the alert of a server that refuses one. In the middle of a stream an alert of either side, or a record
/// whose end is the next record's beginning.
pub(super) fn tls(sample: &Sample<'_>) -> Recognition {
    let bytes = sample.bytes;
    if sample.late && !is_hello(bytes) {
        return if bytes.first() == Some(&content::ALERT) && bytes.get(3..5).is_none_or(|len| len == [0, 2]) {
            looks_like_server_record(bytes)
        } else {
            chain(bytes)
        };
    }
    match sample.side {
        Side::Client if bytes.first().is_some_and(|octet| octet & 0x80 != 0) => looks_like_sslv2_hello(bytes),
        Side::Client => looks_like_client_hello(bytes),
        Side::Server => looks_like_server_record(bytes),
    }
}

/// A hello of either side, as far as the octets go.
fn is_hello(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|octet| *octet == content::HANDSHAKE || octet & 0x80 != 0)
        && bytes.get(5).is_none_or(|kind| matches!(*kind, handshake::CLIENT_HELLO | handshake::SERVER_HELLO))
}

/// Two records in a row, or one that ends with what was sent.
fn chain(bytes: &[u8]) -> Recognition {
    let plausible = |bytes| match RecordHeader::parse(bytes) {
        Ok(RecordHeader { content: content::HEARTBEAT, .. }) => Err(Malformed::field("record type", 0)),
        Ok(RecordHeader { version: 0x0305.., .. }) => Err(Malformed::field("record version", 1)),
        parsed => parsed,
    };
    let first = match plausible(bytes) {
        Ok(header) => header,
        Err(Malformed { need: 1.., .. }) => return Recognition::NeedMore,
        Err(_) => return Recognition::No,
    };
    match bytes.get(RecordHeader::LEN + usize::from(first.len)..) {
        None => Recognition::NeedMore,
        Some([]) => Recognition::Yes,
        Some(rest) => match plausible(rest) {
            Ok(_) => Recognition::Yes,
            Err(Malformed { need: 1.., .. }) => Recognition::NeedMore,
            Err(_) => Recognition::No,
        },
    }
}

/// HTTP/2 with prior knowledge: the client's preface, the server's SETTINGS frame (RFC 9113 §3.4). In the middle of a stream frames that fit
/// each other.
pub(super) fn http2(sample: &Sample<'_>) -> Recognition {
    match (sample.side, looks_like_preface(sample.bytes)) {
        (Side::Server, _) if !sample.late => looks_like_settings(sample.bytes),
        (Side::Client, Recognition::No) if sample.late => looks_like_frames(sample.bytes),
        (Side::Client, preface) => preface,
        (Side::Server, _) => looks_like_frames(sample.bytes),
    }
}

/// HTTP/1: a request or a response. In the middle of a stream the whole first line must fit.
pub(super) fn http(sample: &Sample<'_>) -> Recognition {
    match (sample.side, sample.late) {
        (Side::Client, false) => looks_like_request(sample.bytes),
        (Side::Client, true) => match looks_like_request(sample.bytes) {
            Recognition::Yes => request_line(sample.bytes),
            other => other,
        },
        (Side::Server, false) => looks_like_response(sample.bytes),
        (Side::Server, true) => match looks_like_response(sample.bytes) {
            Recognition::Yes => status_line(sample.bytes),
            other => other,
        },
    }
}

/// Longest request line that is waited for.
const LONGEST_LINE: usize = 8 * 1024;

/// The line must name the version.
fn request_line(bytes: &[u8]) -> Recognition {
    let line = bytes.trim_ascii_start();
    match memchr::memchr(b'\n', line.get(..LONGEST_LINE).unwrap_or(line)) {
        None if line.len() < LONGEST_LINE => Recognition::NeedMore,
        Some(end) => {
            let line = line.get(..end).unwrap_or(line).trim_ascii_end();
            if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
                Recognition::Yes
            } else {
                Recognition::No
            }
        }
        None => Recognition::No,
    }
}

/// `HTTP/1.x`, a space, three digits.
fn status_line(bytes: &[u8]) -> Recognition {
    let Some(line) = bytes.get(7..12) else { return Recognition::NeedMore };
    match line {
        [b'0' | b'1', b' ', b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => Recognition::Yes,
        _ => Recognition::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::protocol::script::head;

    fn choose(side: Side, late: bool, bytes: &[u8]) -> Option<Protocol> {
        let flow = head();
        match decide(&Sample { side, bytes, late, flow: &flow }, Among::All) {
            Verdict::Is(entry) => Some(entry.protocol),
            _ => None,
        }
    }

    #[test]
    fn in_the_middle_of_a_stream_half_a_first_line_is_not_believed() {
        let request: &[u8] = b"GET /menu HTTP/1.1\r\n";
        assert_eq!(choose(Side::Client, false, b"GET /menu"), Some(Protocol::Http));
        assert_eq!(choose(Side::Client, true, b"GET /menu"), None);
        assert_eq!(choose(Side::Client, true, request), Some(Protocol::Http));
        assert_eq!(choose(Side::Client, true, b"GET /menu of the day\r\n"), None);
        assert_eq!(choose(Side::Server, true, b"HTTP/1.1 responses begin with a line"), None);
        assert_eq!(choose(Side::Server, true, b"HTTP/1.1 200 OK"), Some(Protocol::Http));
    }

    #[test]
    fn a_record_in_the_middle_is_believed_when_the_next_one_follows_it() {
        let two = b"\x17\x03\x03\x00\x03abc\x17\x03\x03\x00\x01";
        assert_eq!(choose(Side::Server, true, two), Some(Protocol::Tls));
        assert_eq!(choose(Side::Server, false, two), None);
        assert_eq!(choose(Side::Server, true, b"\x17\x03\x03\x00\x03abcd"), None);
        assert_eq!(choose(Side::Server, true, b"\x17\x03\x03\x00\x03abcdefghi"), None);
        assert_eq!(choose(Side::Client, true, b"\x15\x03\x03\x00\x02\x02\x30"), Some(Protocol::Tls));
        assert_eq!(choose(Side::Client, true, b"\x15\x03\x03\x00\x1a0123456789abcdefghijklmnop"), Some(Protocol::Tls));
    }

    #[test]
    fn http2_is_known_by_the_preface_and_by_its_settings() {
        assert_eq!(choose(Side::Client, false, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(Protocol::Http2));
        assert_eq!(choose(Side::Server, false, b"\0\0\x12\x04\0\0\0\0\0\0\x03"), Some(Protocol::Http2));
        assert_eq!(choose(Side::Server, false, b"\0\0\x12\x04\x01\0\0\0\0\0\x03"), None);
        let ping = b"\0\0\x08\x06\0\0\0\0\0abcdefgh";
        assert_eq!(choose(Side::Client, true, ping), Some(Protocol::Http2));
        assert_eq!(choose(Side::Server, false, ping), None);
    }
}
