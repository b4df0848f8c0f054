//! The record layer: record headers, alerts, what a stream that begins with TLS looks like, handshake messages across records.

use serde::{Deserialize, Serialize};

use super::{Alert, content, handshake};
use crate::wire::{Cursor, Malformed, Recognition};

/// Largest record length: 2¹⁴ and the expansion that RFC 5246 §6.2.3 allows (RFC 8446 §5.2 allows 256).
const MOST: u16 = (1 << 14) + 2048;

/// The five octets before every record. RFC 8446 §5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHeader {
    /// Record type, see [`content`].
    pub content: u8,
    /// legacy_record_version; says nothing about the version in use.
    pub version: u16,
    /// Octets of the record's body.
    pub len: u16,
}

impl RecordHeader {
    /// Octets of a record header.
    pub const LEN: usize = 5;

    /// Reads a record header: type (1 octet), legacy version (2), length (2). Fields are judged as they come, so that one wrong octet is
    /// enough to say no.
    ///
    /// # Errors
    /// [`Malformed`] with `limit: Slice` while octets are missing, `limit: Field` if no TLS record can begin like this: an unknown type, a
    /// version that is not 3.x, a length beyond 2¹⁴ + 2048, or an empty record of a type that must not be empty (§5.1).
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let short = Malformed::short("record header", 0, Self::LEN as u32, bytes.len() as u32);
        let mut cursor = Cursor::new(bytes);
        let content = cursor.u8("record type").map_err(|_| short)?;
        if !(content::CHANGE_CIPHER_SPEC..=content::HEARTBEAT).contains(&content) {
            return Err(Malformed::field("record type", 0));
        }
        let major = cursor.u8("record version").map_err(|_| short)?;
        if major != 3 {
            return Err(Malformed::field("record version", 1));
        }
        let minor = cursor.u8("record version").map_err(|_| short)?;
        let len = cursor.u16("record length").map_err(|_| short)?;
        // Some stacks send empty application data records against attacks on CBC.
        if len > MOST || (len == 0 && content != content::APPLICATION_DATA) {
            return Err(Malformed::field("record length", 3));
        }
        Ok(Self { content, version: u16::from_be_bytes([major, minor]), len })
    }
}

/// Reads the body of an alert record that is not encrypted. RFC 8446 §6.
///
/// `None` unless it is exactly two octets with a level of 1 or 2: anything else is encrypted, or no alert.
pub fn parse_alert(body: &[u8]) -> Option<Alert> {
    match *body {
        [level @ 1..=2, description] => Some(Alert { level, description }),
        _ => None,
    }
}

/// Whether a stream begins with a ClientHello record; six octets decide.
pub fn looks_like_client_hello(bytes: &[u8]) -> Recognition {
    looks_like_handshake(bytes, handshake::CLIENT_HELLO)
}

/// Whether a stream begins as a TLS server's: with a ServerHello record, or with an alert that refuses the hello.
pub fn looks_like_server_record(bytes: &[u8]) -> Recognition {
    if bytes.first() != Some(&content::ALERT) {
        return looks_like_handshake(bytes, handshake::SERVER_HELLO);
    }
    match (RecordHeader::parse(bytes), bytes.get(5)) {
        (Ok(RecordHeader { len: 2, version: 0x0300..=0x0304, .. }), Some(1 | 2)) => Recognition::Yes,
        (Ok(RecordHeader { len: 2, version: 0x0300..=0x0304, .. }), None) => Recognition::NeedMore,
        (Err(Malformed { need: 1.., .. }), _) => Recognition::NeedMore,
        _ => Recognition::No,
    }
}

fn looks_like_handshake(bytes: &[u8], kind: u8) -> Recognition {
    if bytes.first().is_some_and(|octet| *octet != content::HANDSHAKE) || bytes.get(2).is_some_and(|minor| *minor > 4) {
        return Recognition::No;
    }
    match (RecordHeader::parse(bytes), bytes.get(5), bytes.get(6)) {
        (Ok(_), Some(found), Some(0)) if *found == kind => Recognition::Yes,
        // The first octet of the message's length decides: nothing that is put together has more than 64 KiB.
        (Ok(_), Some(found), None) if *found == kind => Recognition::NeedMore,
        (Ok(_), None, _) | (Err(Malformed { need: 1.., .. }), _, _) => Recognition::NeedMore,
        _ => Recognition::No,
    }
}

/// Whether a stream begins with a ClientHello in the format of SSL 2.0 (RFC 5246 appendix E.2); eleven octets decide.
pub fn looks_like_sslv2_hello(bytes: &[u8]) -> Recognition {
    let plausible = |at: usize, fits: fn(u8) -> bool| bytes.get(at).is_none_or(|octet| fits(*octet));
    if !(plausible(0, |octet| octet & 0x80 != 0)
        && plausible(2, |octet| octet == 1)
        && plausible(3, |octet| octet == 0 || octet == 3))
    {
        return Recognition::No;
    }
    let Some(&[a, b, _, major, minor, specs_a, specs_b, id_a, id_b, challenge_a, challenge_b]) = bytes.get(..11) else {
        return Recognition::NeedMore;
    };
    let number = |high, low| u32::from(u16::from_be_bytes([high, low]));
    let (specs, id, challenge) = (number(specs_a, specs_b), number(id_a, id_b), number(challenge_a, challenge_b));
    let version = matches!((major, minor), (0, 2) | (3, 0..=4));
    let sizes = specs > 0 && specs.is_multiple_of(3) && (id == 0 || id == 16) && (16..=32).contains(&challenge);
    if version && sizes && number(a & 0x7f, b) == 9 + specs + id + challenge {
        Recognition::Yes
    } else {
        Recognition::No
    }
}

/// A whole handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeMessage<'a> {
    /// HandshakeType, see [`handshake`].
    pub kind: u8,
    /// The message, its four octets of header included.
    pub bytes: &'a [u8],
}

/// Puts handshake messages together from the bodies of handshake records: a message may be spread over records, and a record may hold
/// several messages (RFC 8446 §5.1). Copies only what waits for its rest, at most 64 KiB.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct HandshakeJoiner {
    held: Vec<u8>,
}

impl HandshakeJoiner {
    /// Octets it holds of a message that is not complete yet.
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// Longest message body that is put together.
    const LONGEST: usize = 1 << 16;
    /// Octets of a message's header.
    const HEADER: usize = 4;

    /// Takes the next octets of handshake record bodies and hands each message they complete to `each`. Only for records in the clear.
    ///
    /// # Errors
    /// A message that claims more than 64 KiB; what was held is dropped.
    pub fn push(&mut self, body: &[u8], mut each: impl FnMut(HandshakeMessage<'_>)) -> Result<(), Malformed> {
        let mut rest = body;
        // Fill up the held message first; octets behind it are read in place.
        while !self.held.is_empty() {
            let want = Self::message_len(&self.held)?.unwrap_or(Self::HEADER);
            let Some(missing) = want.checked_sub(self.held.len()).filter(|missing| *missing > 0) else {
                if let Some(kind) = self.held.first() {
                    each(HandshakeMessage { kind: *kind, bytes: &self.held });
                }
                self.held.clear();
                break;
            };
            if rest.is_empty() {
                return Ok(());
            }
            let (now, later) = rest.split_at(missing.min(rest.len()));
            self.held.extend_from_slice(now);
            rest = later;
            if let Err(malformed) = Self::message_len(&self.held) {
                self.held.clear();
                return Err(malformed);
            }
        }
        while let Some(len) = Self::message_len(rest)? {
            let Some((message, later)) = rest.split_at_checked(len) else { break };
            each(HandshakeMessage { kind: message.first().copied().unwrap_or(0), bytes: message });
            rest = later;
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }

    /// Whether a message waits for its rest.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Octets of the message at the start of `bytes`, header included; `None` before its header is there.
    fn message_len(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some(&[_, a, b, c]) = bytes.get(..Self::HEADER) else { return Ok(None) };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        if len > Self::LONGEST { Err(Malformed::field("handshake length", 1)) } else { Ok(Some(Self::HEADER + len)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Limit;
    use crate::wire::samples::{self, octets};

    #[test]
    fn a_record_header_is_read() {
        let hello = octets(samples::CLIENT_HELLO_OPENSSL);
        assert_eq!(RecordHeader::parse(&hello), Ok(RecordHeader { content: 22, version: 0x0301, len: 512 }));
        for end in 0..5 {
            let limit = RecordHeader::parse(&hello[..end]).map_err(|malformed| malformed.limit);
            assert_eq!(limit, Err(Limit::Slice), "{end}");
        }
    }

    #[test]
    fn a_wrong_octet_is_enough_to_say_no() {
        for (bytes, what) in [
            (&b"H"[..], "record type"),
            (b"\x19\x03\x03\x00\x01", "record type"),
            (b"\x16\x02", "record version"),
            (b"\x17\x03\x03\x48\x01", "record length"),
            (b"\x16\x03\x03\x00\x00", "record length"),
            (b"\x15\x03\x03\x00\x00", "record length"),
        ] {
            assert_eq!(
                RecordHeader::parse(bytes).map_err(|malformed| (malformed.what, malformed.limit)),
                Err((what, Limit::Field))
            );
        }
        assert!(RecordHeader::parse(b"\x17\x03\x03\x00\x00").is_ok());
        assert!(RecordHeader::parse(b"\x17\x03\x03\x48\x00").is_ok());
    }

    #[test]
    fn only_two_octets_are_a_readable_alert() {
        assert_eq!(parse_alert(&[2, 45]).map(Alert::name), Some("certificate_expired"));
        assert_eq!(parse_alert(&[2, 45, 0]), None);
        assert_eq!(parse_alert(&[7, 45]), None);
        assert_eq!(parse_alert(&[2]), None);
    }

    #[test]
    fn hellos_are_recognised_by_seven_octets() {
        for hello in [
            samples::CLIENT_HELLO_OPENSSL,
            samples::CLIENT_HELLO_GO,
            samples::CLIENT_HELLO_JAVA,
            samples::CLIENT_HELLO_SNI,
        ] {
            let hello = octets(hello);
            for end in 0..hello.len() {
                let expected = if end < 7 { Recognition::NeedMore } else { Recognition::Yes };
                assert_eq!(looks_like_client_hello(&hello[..end]), expected, "{end}");
            }
            assert_eq!(looks_like_server_record(&hello), Recognition::No);
        }
    }

    #[test]
    fn what_is_no_hello_is_recognised_as_such() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x15\x03\x03\x00\x02\x02\x0a", b"\x16\x03\x05", b"\x16\x03\x01\x02\x00\x02"]
        {
            assert_eq!(looks_like_client_hello(bytes), Recognition::No);
        }
        assert_eq!(looks_like_client_hello(&octets(samples::PROXY_V2)), Recognition::No);
    }

    #[test]
    fn a_server_begins_with_a_hello_or_an_alert() {
        for (bytes, needed) in
            [(octets(samples::SERVER_HELLO_13), 7), (octets(samples::HELLO_RETRY), 7), (octets("1503030002020a"), 6)]
        {
            for end in 0..bytes.len() {
                let expected = if end < needed { Recognition::NeedMore } else { Recognition::Yes };
                assert_eq!(looks_like_server_record(&bytes[..end]), expected, "{end}");
            }
        }
        assert_eq!(looks_like_server_record(&octets("150303001a020a")), Recognition::No);
        assert_eq!(looks_like_server_record(b"HTTP/1.1 400"), Recognition::No);
    }

    #[test]
    fn a_hello_in_the_old_format_is_recognised() {
        let mut hello = octets("802e 01 0301 0015 0000 0010 000039 000038");
        hello.resize(48, 7);
        assert_eq!(looks_like_sslv2_hello(&hello), Recognition::Yes);
        for end in 0..11 {
            assert_eq!(looks_like_sslv2_hello(&hello[..end]), Recognition::NeedMore, "{end}");
        }
        hello[1] = 0x2f;
        assert_eq!(looks_like_sslv2_hello(&hello), Recognition::No);
        assert_eq!(looks_like_sslv2_hello(b"GET /"), Recognition::No);
    }

    /// The messages that come out when `body` is pushed in pieces of `size`.
    fn joined(body: &[u8], size: usize) -> Vec<(u8, Vec<u8>)> {
        let mut joiner = HandshakeJoiner::default();
        let mut messages = Vec::new();
        for piece in body.chunks(size) {
            joiner
                .push(piece, |message| messages.push((message.kind, message.bytes.to_vec())))
                .expect("short messages");
        }
        assert!(!joiner.is_waiting());
        messages
    }

    #[test]
    fn messages_are_put_together_however_they_are_split() {
        let body = octets("0e000000 01000003aabbcc 14000001dd");
        for size in 1..=body.len() {
            let expected = [(14, octets("0e000000")), (1, octets("01000003aabbcc")), (20, octets("14000001dd"))];
            assert_eq!(joined(&body, size), expected, "{size}");
        }
    }

    #[test]
    fn a_message_beyond_the_bound_is_refused() {
        let mut joiner = HandshakeJoiner::default();
        assert!(joiner.push(&octets("01010001"), |_| ()).is_err());
        assert!(joiner.push(&octets("0101"), |_| ()).is_ok());
        assert!(joiner.push(&octets("0001"), |_| ()).is_err());
        assert!(!joiner.is_waiting());
    }

    proptest! {
        #[test]
        fn no_octets_panic(pieces: Vec<Vec<u8>>) {
            let mut joiner = HandshakeJoiner::default();
            for piece in &pieces {
                let _ = RecordHeader::parse(piece);
                looks_like_client_hello(piece);
                looks_like_server_record(piece);
                looks_like_sslv2_hello(piece);
                if joiner.push(piece, |_| ()).is_err() {
                    prop_assert!(!joiner.is_waiting());
                }
            }
        }
    }
}
