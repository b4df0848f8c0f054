//! The first packet of a MySQL or MariaDB server: a handshake of protocol 10, or an error in its place. The client is silent until then.

use super::Greeting;
use super::failure::{Class, Failure, Message, of_mysql};
use crate::wire::{Cursor, Malformed, Recognition};

/// Protocol version of the handshake.
const HANDSHAKE_10: u8 = 0x0a;
/// First octet of an error packet.
const ERROR: u8 = 0xff;
/// Longest first packet that is taken for one.
const LONGEST_PACKET: u32 = 1024;
/// Lowest and highest code that servers send (MariaDB's end at 4999).
const CODES: std::ops::RangeInclusive<u16> = 1000..=4999;

/// Whether a server's stream begins with a MySQL handshake or error; seven octets decide.
pub fn looks_like_server(bytes: &[u8]) -> Recognition {
    match judge(bytes) {
        Ok(true) => Recognition::Yes,
        Ok(false) => Recognition::No,
        Err(_) => Recognition::NeedMore,
    }
}

/// Length (3 octets, little-endian), sequence number 0, then the version as text or an error code. Judged as the octets come.
fn judge(bytes: &[u8]) -> Result<bool, Malformed> {
    const WHAT: &str = "MySQL packet";
    let mut cursor = Cursor::new(bytes);
    let len = packet_len(cursor.array(WHAT)?);
    if !(8..=LONGEST_PACKET).contains(&len) || cursor.u8(WHAT)? != 0 {
        return Ok(false);
    }
    match cursor.u8(WHAT)? {
        // A version begins with a digit: "8.0.36", "5.5.5-10.11.6-MariaDB".
        HANDSHAKE_10 => Ok(cursor.u8(WHAT)?.is_ascii_digit() && matches!(cursor.u8(WHAT)?, b'.' | b'0'..=b'9')),
        ERROR => Ok(CODES.contains(&u16::from_le_bytes(cursor.array(WHAT)?))),
        _ => Ok(false),
    }
}

/// The server's version, or the error with its code.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes) != Recognition::Yes {
        return None;
    }
    let mut cursor = Cursor::new(bytes);
    let len = packet_len(cursor.array("length").ok()?) as usize;
    cursor.u8("sequence number").ok()?;
    match cursor.take(len, "packet").ok()? {
        [ERROR, low, high, message @ ..] => {
            // Errors behind the handshake carry "#" and an SQLSTATE of five characters; MariaDB sends it here too.
            let text = if message.first() == Some(&b'#') { message.get(6..).unwrap_or(message) } else { message };
            Some(Greeting::new(text, Some(u16::from_le_bytes([*low, *high])), true))
        }
        [_, rest @ ..] => {
            let version = rest.split(|octet| *octet == 0).next().unwrap_or(rest);
            Some(Greeting::new(version, None, false))
        }
        [] => None,
    }
}

/// Longest packet while the client logs in: those of a TLS server look longer.
const LONGEST_LOGIN: u32 = 0xffff;

/// What stands at the beginning of a packet of a server: length, sequence number, first octet of the payload.
pub fn message(bytes: &[u8], login: bool) -> Message {
    let (Some(len), Some(number)) = (bytes.first_chunk(), bytes.get(3)) else { return Message::Partial };
    let len = packet_len(*len);
    if login && (len > LONGEST_LOGIN || len == 0) {
        return Message::Lost;
    }
    let all = u64::from(len) + 4;
    let Some(first) = bytes.get(4).filter(|_| len > 0) else {
        return if len == 0 { Message::Usual(all) } else { Message::Partial };
    };
    match *first {
        // OK with its counters, status and warnings; the handshake is number 0.
        0 if login && *number >= 2 && len >= 7 => Message::Welcome(all),
        ERROR if (9..=LONGEST_PACKET).contains(&len) => match bytes.get(5..4 + len as usize) {
            None => Message::Partial,
            Some(rest) => error(rest, login).map_or(Message::Usual(all), |failure| Message::Failed(all, failure)),
        },
        _ => Message::Usual(all),
    }
}

/// An error behind the handshake: code, `#`, SQLSTATE of five characters, words. A value of a compressed stream is not taken for one.
fn error(packet: &[u8], login: bool) -> Option<Failure> {
    let [low, high, b'#', rest @ ..] = packet else { return None };
    let code = u16::from_le_bytes([*low, *high]);
    let (state, words) = rest.split_at_checked(5)?;
    let plausible = state.iter().all(|octet| octet.is_ascii_uppercase() || octet.is_ascii_digit());
    let class = if login { Some(Class::Login) } else { of_mysql(code, words) };
    let class = class.filter(|_| plausible && CODES.contains(&code))?;
    let code = code.to_string();
    let text = [b"error ", code.as_bytes(), b" (", state, b"): ", words].concat();
    Some(Failure::new(class, code.as_bytes(), &text))
}

fn packet_len([a, b, c]: [u8; 3]) -> u32 {
    u32::from_le_bytes([a, b, c, 0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        [&[payload.len() as u8, 0, 0, 0][..], payload].concat()
    }

    #[test]
    fn a_handshake_tells_the_version() {
        let bytes = packet(b"\x0a5.5.5-10.11.6-MariaDB\0\x2a\0\0\0salt");
        assert_eq!(greeting(&bytes), Some(Greeting::new(b"5.5.5-10.11.6-MariaDB", None, false)));
        for end in 0..bytes.len() {
            let expected = if end < 7 { Recognition::NeedMore } else { Recognition::Yes };
            assert_eq!((looks_like_server(&bytes[..end]), greeting(&bytes[..end])), (expected, None), "{end}");
        }
    }

    #[test]
    fn an_error_tells_its_code() {
        let plain = packet(b"\xff\x10\x04Too many connections");
        assert_eq!(greeting(&plain), Some(Greeting::new(b"Too many connections", Some(1040), true)));
        let with_state = packet(b"\xff\x6a\x04#HY000Host 'a' is not allowed");
        assert_eq!(greeting(&with_state), Some(Greeting::new(b"Host 'a' is not allowed", Some(1130), true)));
    }

    #[test]
    fn other_octets_are_no_handshake() {
        for bytes in [
            &b"HTTP/1.1"[..],
            b"\x15\x03\x03\x00\x02\x02",
            b"\x20\0\0\x01\x0a8.0",
            b"\x20\0\0\0\x0aabc",
            b"\x20\0\0\0\xff\0\0",
            b"\0\0\0\0",
        ] {
            assert_eq!(looks_like_server(bytes), Recognition::No, "{bytes:02x?}");
        }
    }

    #[test]
    fn packets_behind_the_handshake_are_read_by_their_first_octet() {
        let behind = |number: u8, payload: &[u8]| [&[payload.len() as u8, 0, 0, number][..], payload].concat();
        let denied = behind(2, b"\xff\x15\x04#28000Access denied for user 'a'");
        let Message::Failed(len, failure) = message(&denied, true) else { panic!("refused") };
        assert_eq!((len, failure.class, failure.code.as_str()), (denied.len() as u64, Class::Login, "1045"));
        assert_eq!(failure.text, "error 1045 (28000): Access denied for user 'a'");
        for end in 0..denied.len() {
            assert_eq!(message(&denied[..end], true), Message::Partial, "{end}");
        }
        assert_eq!(message(&behind(2, b"\0\0\0\x02\0\0\0"), true), Message::Welcome(11));
        // A row, an error of daily life, a value that only begins like one.
        let syntax = behind(1, b"\xff\x28\x04#42000You have an error in your SQL syntax");
        for usual in [behind(4, b"\x03abc"), syntax, behind(1, b"\xff\xb5\x04 deadlock")] {
            assert_eq!(message(&usual, false), Message::Usual(usual.len() as u64), "{usual:02x?}");
        }
        let deadlock = behind(1, b"\xff\xbd\x04#40001Deadlock found");
        assert!(matches!(message(&deadlock, false), Message::Failed(_, failure) if failure.class == Class::Contention));
        assert_eq!(message(b"\x16\x03\x03\0\x7a\x02", true), Message::Lost);
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            greeting(&bytes);
            message(&bytes, true);
            message(&packet(&[b"\xff\x10\x04#", &bytes[..]].concat()), false);
            greeting(&packet(&[b"\x0a8.0", &bytes[..]].concat()));
            greeting(&packet(&[b"\xff\x10\x04", &bytes[..]].concat()));
        }
    }
}
