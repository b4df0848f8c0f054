//! AMQP's first words: the protocol header of a client, the first frame of a server. AMQP 0-9-1 §4.2.2, §4.2.3, §1.4.2.1; AMQP 1.0 §2.2.
//!
//! A server of 0-9-1 that cannot read its client, or does not speak the version that it asks for, answers with its own header and closes; one
//! of 1.0 always answers with a header.

use super::Greeting;
use crate::wire::{Cursor, Malformed, Recognition};

/// How a protocol header begins; four octets follow: id, major, minor, revision.
const HEADER: &[u8] = b"AMQP";
/// A method frame on channel 0.
const METHOD_FRAME: [u8; 3] = [1, 0, 0];
/// Class Connection, method Start.
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
/// Longest first frame that is taken for one: properties, mechanisms, locales.
const LONGEST_FRAME: u32 = 16 * 1024;

/// Whether a client's stream begins with a protocol header.
pub fn looks_like_client(bytes: &[u8]) -> Recognition {
    match (Recognition::of_prefix(bytes, HEADER), bytes.get(4)) {
        // 0 plain, 1 in old drafts, 2 TLS, 3 SASL.
        (Recognition::Yes, Some(0..=3)) => Recognition::Yes,
        (Recognition::Yes, None) => Recognition::NeedMore,
        (Recognition::Yes, Some(_)) => Recognition::No,
        (other, _) => other,
    }
}

/// Whether a server's stream begins with `Connection.Start` or with a protocol header.
pub fn looks_like_server(bytes: &[u8]) -> Recognition {
    match looks_like_client(bytes) {
        Recognition::No => start(bytes).map_or(Recognition::NeedMore, |found| match found {
            true => Recognition::Yes,
            false => Recognition::No,
        }),
        other => other,
    }
}

/// Frame type and channel, length, class and method. Judged as the octets come.
fn start(bytes: &[u8]) -> Result<bool, Malformed> {
    const WHAT: &str = "AMQP frame";
    let mut cursor = Cursor::new(bytes);
    for expected in METHOD_FRAME {
        if cursor.u8(WHAT)? != expected {
            return Ok(false);
        }
    }
    if cursor.u32(WHAT)? > LONGEST_FRAME {
        return Ok(false);
    }
    Ok(cursor.array(WHAT)? == CONNECTION_START)
}

/// The server's name and version where it tells them, or the version by which it refuses the client's.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes) != Recognition::Yes {
        return None;
    }
    if let Some(version) = bytes.strip_prefix(HEADER) {
        let [_, major, minor, revision, ..] = *version else { return None };
        // Drafts before 1.0 write "1 1 0 9"; only a header of 1.0 accepts.
        let text = match (major, minor, revision) {
            (1, 0, 0) => "AMQP 1.0".to_owned(),
            _ => format!("AMQP {major}-{minor}-{revision} is what it speaks"),
        };
        return Some(Greeting::new(text.as_bytes(), None, (major, minor, revision) != (1, 0, 0)));
    }
    let mut cursor = Cursor::new(bytes.get(METHOD_FRAME.len()..)?);
    let len = cursor.u32("length").ok()? as usize;
    let frame = cursor.take(len, "frame").ok()?;
    let (product, version) = (property(frame, b"product"), property(frame, b"version"));
    let text = [product, version].into_iter().flatten().collect::<Vec<_>>().join(&b' ');
    Some(Greeting::new(if text.is_empty() { b"Connection.Start" } else { &text }, None, false))
}

/// A text among the server's properties: name and type `S`, then its length in four octets.
fn property<'a>(frame: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let key = [&[name.len() as u8], name, b"S"].concat();
    let at = memchr::memmem::find(frame, &key)?;
    let mut cursor = Cursor::new(frame.get(at + key.len()..)?);
    let len = cursor.u32("length").ok()? as usize;
    cursor.take(len, "text").ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection_start() -> Vec<u8> {
        let properties = b"\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x053.9.1";
        let mut body = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, properties.len() as u8];
        body.extend_from_slice(properties);
        body.extend_from_slice(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
        [&[1, 0, 0, 0, 0, 0, body.len() as u8][..], &body, &[0xce]].concat()
    }

    #[test]
    fn the_first_frame_names_the_product() {
        let frame = connection_start();
        for end in 0..frame.len() - 1 {
            assert_ne!(looks_like_server(&frame[..end]), Recognition::No, "{end}");
            assert_eq!(greeting(&frame[..end]), None, "{end}");
        }
        assert_eq!(greeting(&frame), Some(Greeting::new(b"RabbitMQ 3.9.1", None, false)));
    }

    #[test]
    fn a_header_of_an_older_version_refuses_and_one_of_1_0_does_not() {
        let refused = greeting(b"AMQP\0\0\x09\x01").expect("a header");
        assert_eq!((refused.text.as_str(), refused.refuses), ("AMQP 0-9-1 is what it speaks", true));
        assert!(!greeting(b"AMQP\x03\x01\0\0").expect("a header").refuses);
        assert_eq!(greeting(b"AMQP\0\0\x09"), None);
    }

    #[test]
    fn clients_are_recognised() {
        assert_eq!(looks_like_client(b"AMQP\0\0\x09\x01"), Recognition::Yes);
        assert_eq!(looks_like_client(b"AMQ"), Recognition::NeedMore);
        assert_eq!(looks_like_client(b"AMQP/1.0 "), Recognition::No);
        assert_eq!(looks_like_server(b"HTTP/1.1"), Recognition::No);
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            looks_like_client(&bytes);
            greeting(&bytes);
            greeting(&[b"AMQP", &bytes[..]].concat());
            greeting(&[&[1, 0, 0, 0, 0, 0, 40, 0, 10, 0, 10], &bytes[..]].concat());
        }
    }
}
