//! MQTT's first packets: CONNECT of the client, CONNACK of the broker. MQTT 3.1.1 §2.2, §3.1, §3.2; MQTT 5 §3.2.

use super::Greeting;
use crate::wire::{Cursor, Malformed, Recognition};

/// First octet of CONNECT and of CONNACK.
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
/// Protocol names with their lengths: 3.1.1 and 5, and 3.1.
const NAMES: [&[u8]; 2] = [b"\0\x04MQTT", b"\0\x06MQIsdp"];
/// Return codes of 3.1.1 (table 3.1) and reason codes of 5 (§3.2.2.2).
const REASONS: [(u8, &str); 13] = [
    (1, "unacceptable protocol version"),
    (2, "client identifier rejected"),
    (3, "server unavailable"),
    (4, "bad user name or password"),
    (5, "not authorized"),
    (0x84, "unsupported protocol version"),
    (0x85, "client identifier not valid"),
    (0x86, "bad user name or password"),
    (0x87, "not authorized"),
    (0x88, "server unavailable"),
    (0x89, "server busy"),
    (0x8a, "banned"),
    (0x97, "quota exceeded"),
];

/// Whether a client's stream begins with CONNECT.
pub fn looks_like_client(bytes: &[u8]) -> Recognition {
    judged(connect(bytes))
}

/// Whether a broker's stream begins with CONNACK.
pub fn looks_like_server(bytes: &[u8]) -> Recognition {
    judged(connack(bytes).map(|reason| reason.is_some()))
}

fn judged(verdict: Result<bool, Malformed>) -> Recognition {
    match verdict {
        Ok(true) => Recognition::Yes,
        Ok(false) => Recognition::No,
        Err(_) => Recognition::NeedMore,
    }
}

fn connect(bytes: &[u8]) -> Result<bool, Malformed> {
    const WHAT: &str = "MQTT CONNECT";
    let mut cursor = Cursor::new(bytes);
    if cursor.u8(WHAT)? != CONNECT || remaining(&mut cursor)?.is_none_or(|len| len < 10) {
        return Ok(false);
    }
    let name = cursor.rest();
    let verdicts = NAMES.map(|known| Recognition::of_prefix(name, known));
    match verdicts.into_iter().fold(Recognition::No, Recognition::or) {
        Recognition::Yes => Ok(true),
        Recognition::No => Ok(false),
        Recognition::NeedMore => Err(Malformed::short(WHAT, cursor.position() as u32, 1, 0)),
    }
}

/// The broker's reason code; `None` where it is no CONNACK. In version 5 the length of the properties has to fit the packet's.
fn connack(bytes: &[u8]) -> Result<Option<u8>, Malformed> {
    const WHAT: &str = "MQTT CONNACK";
    let mut cursor = Cursor::new(bytes);
    if cursor.u8(WHAT)? != CONNACK {
        return Ok(None);
    }
    let Some(len @ 2..) = remaining(&mut cursor)? else { return Ok(None) };
    if cursor.u8(WHAT)? > 1 {
        return Ok(None);
    }
    let reason = cursor.u8(WHAT)?;
    if len == 2 {
        return Ok((reason <= 5).then_some(reason));
    }
    let before = cursor.position();
    let properties = remaining(&mut cursor)?;
    let fits = properties.is_some_and(|properties| 2 + (cursor.position() - before) as u32 + properties == len);
    Ok((fits && (reason == 0 || reason >= 0x80)).then_some(reason))
}

/// A length in one or two octets (§2.2.3); first packets are no longer. `None` for longer ones.
fn remaining(cursor: &mut Cursor<'_>) -> Result<Option<u32>, Malformed> {
    const WHAT: &str = "MQTT length";
    let low = cursor.u8(WHAT)?;
    if low & 0x80 == 0 {
        return Ok(Some(u32::from(low)));
    }
    let high = cursor.u8(WHAT)?;
    Ok((high & 0x80 == 0).then_some(u32::from(low & 0x7f) | u32::from(high) << 7))
}

/// What CONNACK says, with its code where it refuses.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    let reason = connack(bytes).ok()??;
    if reason == 0 {
        return Some(Greeting::new(b"CONNACK", None, false));
    }
    let words = REASONS.iter().find(|(code, _)| *code == reason).map_or("refused", |(_, words)| words);
    Some(Greeting::new(format!("CONNACK {reason}: {words}").as_bytes(), Some(u16::from(reason)), true))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clients_are_recognised() {
        let whole = b"\x10\x11\0\x04MQTT\x04\x02\0\x0a\0\x05probe";
        for end in 0..whole.len() {
            let expected = if end < 8 { Recognition::NeedMore } else { Recognition::Yes };
            assert_eq!(looks_like_client(&whole[..end]), expected, "{end}");
        }
        assert_eq!(looks_like_client(b"\x10\x81\x01\0\x06MQIsdp\x03"), Recognition::Yes);
        assert_eq!(looks_like_client(b"\x10\x11\0\x04HTTP"), Recognition::No);
    }

    #[test]
    fn acknowledgments_and_refusals_are_read() {
        for (bytes, shown, code) in [
            (&b"\x20\x02\0\0"[..], "CONNACK", None),
            (b"\x20\x02\0\x05", "CONNACK 5: not authorized", Some(5)),
            (b"\x20\x03\0\x87\0", "CONNACK 135: not authorized", Some(135)),
            (b"\x20\x06\0\0\x03\x21\0\x14", "CONNACK", None),
        ] {
            assert_eq!(greeting(bytes), Some(Greeting::new(shown.as_bytes(), code, code.is_some())));
            for end in 0..bytes.len().min(4) {
                assert_ne!(looks_like_server(&bytes[..end]), Recognition::No, "{end}");
            }
        }
        for other in [&b"\x20\x02\0\x09"[..], b"\x20\x02\x05\0", b"\x20\x09\0\0\x01\0", b"\x20 hello"] {
            assert_eq!(looks_like_server(other), Recognition::No, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            looks_like_client(&bytes);
            greeting(&bytes);
            looks_like_client(&[b"\x10", &bytes[..]].concat());
            greeting(&[b"\x20", &bytes[..]].concat());
        }
    }
}
