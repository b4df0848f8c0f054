//! The first packet of a MySQL or MariaDB server: a handshake of protocol 10, or an error in its place. The client is silent until then.

use super::Greeting;
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

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            greeting(&bytes);
            greeting(&packet(&[b"\x0a8.0", &bytes[..]].concat()));
            greeting(&packet(&[b"\xff\x10\x04", &bytes[..]].concat()));
        }
    }
}
