//! PostgreSQL's first messages. PostgreSQL documentation, "Message Formats".

use super::Greeting;
use super::failure::{Class, Failure, Message, of_sqlstate};
use crate::wire::{Cursor, Malformed, Recognition};

/// CancelRequest, 16 octets.
const CANCEL: u32 = 80_877_102;
/// SSLRequest, 8 octets.
const SSL: u32 = 80_877_103;
/// GSSENCRequest, 8 octets.
const GSS: u32 = 80_877_104;
/// Longest startup packet a server reads (MAX_STARTUP_PACKET_LENGTH).
const LONGEST_STARTUP: u32 = 10_000;
/// Longest first answer that is taken for one.
const LONGEST_ANSWER: u32 = 30_000;
/// Longest message at all: what a server can hold of one value.
const LONGEST_MESSAGE: u32 = 1 << 30;
/// Types of the messages of a server.
const TYPES: &[u8] = b"123ACDEGHIKNRSTVWZcdnstv";
/// What pg_isready calls itself: it asks whether the server answers, and any refusal is an answer to it.
pub const PROBE: &[u8] = b"pg_isready";

/// Whether a client's stream begins with a StartupMessage of protocol 3, or a request for TLS, GSSAPI or cancellation; eight octets decide.
pub fn looks_like_client(bytes: &[u8]) -> Recognition {
    let mut cursor = Cursor::new(bytes);
    let Ok(len) = cursor.u32("length") else {
        // Every first message is shorter than 64 KiB.
        return if bytes.iter().take(2).all(|octet| *octet == 0) { Recognition::NeedMore } else { Recognition::No };
    };
    if !(8..=LONGEST_STARTUP).contains(&len) {
        return Recognition::No;
    }
    match (cursor.u32("code"), len) {
        (Err(_), _) => Recognition::NeedMore,
        (Ok(SSL | GSS), 8) | (Ok(CANCEL), 16) => Recognition::Yes,
        // 3.0, and the minor versions that later servers know.
        (Ok(version), 9..) if version >> 16 == 3 && version & 0xffff < 16 => Recognition::Yes,
        _ => Recognition::No,
    }
}

/// What a server answers to SSLRequest: whether it goes on with TLS. `None` when the octet is no such answer.
pub fn answer_to_ssl_request(bytes: &[u8]) -> Option<bool> {
    match bytes.first()? {
        b'S' => Some(true),
        b'N' => Some(false),
        _ => None,
    }
}

/// Whether a server's stream begins with an authentication request or an error. A single S or N is no evidence by itself: see
/// [`answer_to_ssl_request`].
pub fn looks_like_server(bytes: &[u8]) -> Recognition {
    let message = match judge(bytes) {
        Ok(true) => Recognition::Yes,
        Ok(false) => Recognition::No,
        Err(_) => Recognition::NeedMore,
    };
    message.or(old_error(bytes))
}

fn judge(bytes: &[u8]) -> Result<bool, Malformed> {
    const WHAT: &str = "PostgreSQL message";
    let mut cursor = Cursor::new(bytes);
    let kind = cursor.u8(WHAT)?;
    if !matches!(kind, b'R' | b'E') {
        return Ok(false);
    }
    if cursor.rest().iter().take(2).any(|octet| *octet != 0) {
        return Ok(false);
    }
    let len = cursor.u32(WHAT)?;
    if kind == b'R' {
        return Ok((8..=1024).contains(&len) && cursor.u32(WHAT)? <= 12);
    }
    // An error begins with its severity.
    Ok((8..=LONGEST_ANSWER).contains(&len) && cursor.u8(WHAT)? == b'S')
}

/// An error in the form of protocol 2, which servers send when they cannot even fork: E and text up to a zero octet.
fn old_error(bytes: &[u8]) -> Recognition {
    Recognition::of_prefix(bytes, b"EFATAL:").or(Recognition::of_prefix(bytes, b"Ecould not"))
}

/// The authentication asked for, or the error as `FATAL 53300: sorry, too many clients already`.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes) != Recognition::Yes {
        return None;
    }
    if old_error(bytes) == Recognition::Yes {
        let text = bytes.get(1..memchr::memchr(0, bytes)?)?;
        return Some(Greeting::new(text.trim_ascii(), None, true));
    }
    let mut cursor = Cursor::new(bytes);
    let kind = cursor.u8("type").ok()?;
    let len = cursor.u32("length").ok()?.checked_sub(4)?;
    let body = cursor.take(len as usize, "message").ok()?;
    if kind == b'E' {
        return Some(error(body));
    }
    let wanted = Cursor::new(body).u32("authentication").ok()?;
    Some(Greeting::new(authentication(wanted).as_bytes(), None, false))
}

/// Severity, SQLSTATE and message of an ErrorResponse.
fn error(body: &[u8]) -> Greeting {
    Greeting::new(&words(body), None, true)
}

fn words(body: &[u8]) -> Vec<u8> {
    [field(body, b'S'), b" ", field(body, b'C'), b": ", field(body, b'M')].concat()
}

/// A field of an ErrorResponse: one type octet and text up to a zero octet.
fn field(body: &[u8], wanted: u8) -> &[u8] {
    let mut fields = body.split(|octet| *octet == 0).filter_map(|field| field.split_first());
    fields.find(|(kind, _)| **kind == wanted).map_or(&b""[..], |(_, text)| text)
}

/// What stands at the beginning of a message of a server: type, length, body.
pub fn message(bytes: &[u8], login: bool) -> Message {
    let Some((kind, rest)) = bytes.split_first() else { return Message::Partial };
    if !TYPES.contains(kind) {
        return Message::Lost;
    }
    let Some((len, body)) = rest.split_first_chunk() else { return Message::Partial };
    let len = u32::from_be_bytes(*len);
    if !(4..=LONGEST_MESSAGE).contains(&len) {
        return Message::Lost;
    }
    let all = u64::from(len) + 1;
    match kind {
        b'Z' if login => Message::Welcome(all),
        b'E' if len <= LONGEST_ANSWER => match body.get(..len as usize - 4) {
            None => Message::Partial,
            Some(body) => {
                let (state, words) = (field(body, b'C'), words(body));
                let class = if login { Some(Class::Login) } else { of_sqlstate(state, &words) };
                class.map_or(Message::Usual(all), |class| Message::Failed(all, Failure::new(class, state, &words)))
            }
        },
        _ => Message::Usual(all),
    }
}

/// Types of a client's messages behind its startup message.
pub const CLIENT_TYPES: &[u8] = b"BCDEFHPQSXcdfp";

/// What stands at the beginning of a message of a client behind its startup message: nothing but its length is read.
pub fn client_message(bytes: &[u8], _login: bool) -> Message {
    let Some((kind, rest)) = bytes.split_first() else { return Message::Partial };
    if !CLIENT_TYPES.contains(kind) {
        return Message::Lost;
    }
    match rest.first_chunk().map(|len| u32::from_be_bytes(*len)) {
        None => Message::Partial,
        Some(len) if len < 4 => Message::Lost,
        Some(len) => Message::Usual(u64::from(len) + 1),
    }
}

/// Whether a StartupMessage is a probe's, by its name or because it has a user and nothing else (HAProxy's `option pgsql-check`; libraries
/// name at least a database or an encoding); `None` while it is not whole.
pub fn is_probe(startup: &[u8]) -> Option<bool> {
    let len = u32::from_be_bytes(*startup.first_chunk()?);
    let whole = startup.get(..len.min(LONGEST_STARTUP) as usize)?;
    let mut parameters = whole.get(8..)?.split(|octet| *octet == 0);
    let mut names = 0;
    while let (Some(name @ [_, ..]), Some(value)) = (parameters.next(), parameters.next()) {
        if name == b"application_name" {
            return Some(value == PROBE);
        }
        names += if name == b"user" { 1 } else { 2 };
    }
    Some(names == 1)
}

fn authentication(wanted: u32) -> &'static str {
    match wanted {
        0 => "AuthenticationOk",
        2 => "AuthenticationKerberosV5",
        3 => "AuthenticationCleartextPassword",
        5 => "AuthenticationMD5Password",
        7 => "AuthenticationGSS",
        9 => "AuthenticationSSPI",
        10 => "AuthenticationSASL",
        _ => "Authentication",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::samples::octets;

    #[test]
    fn first_messages_of_clients_are_recognised() {
        for bytes in [
            octets("00000008 04d2162f"),
            octets("00000008 04d21630"),
            octets("00000010 04d2162e 00000001 00000002"),
            octets("00000014 00030000 7573657200 706700 00"),
            octets("00000014 00030002 7573657200 706700 00"),
        ] {
            for end in 0..=bytes.len() {
                let expected = if end < 8 { Recognition::NeedMore } else { Recognition::Yes };
                assert_eq!(looks_like_client(&bytes[..end]), expected, "{end}");
            }
        }
        for bytes in ["474554202f", "00000009 04d2162f", "00000014 00020000", "00010000 00030000", "0000000000000000"] {
            assert_eq!(looks_like_client(&octets(bytes)), Recognition::No, "{bytes}");
        }
    }

    #[test]
    fn answers_to_the_request_for_tls_are_read() {
        assert_eq!(answer_to_ssl_request(b"S"), Some(true));
        assert_eq!(answer_to_ssl_request(b"N"), Some(false));
        assert_eq!(answer_to_ssl_request(b"E"), None);
        assert_eq!(answer_to_ssl_request(b""), None);
    }

    #[test]
    fn an_error_tells_severity_state_and_message() {
        let fields = b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0";
        let bytes = [&b"E"[..], &(fields.len() as u32 + 4).to_be_bytes(), fields].concat();
        assert_eq!(greeting(&bytes), Some(Greeting::new(b"FATAL 53300: sorry, too many clients already", None, true)));
        for end in 0..bytes.len() {
            let expected = if end < 6 { Recognition::NeedMore } else { Recognition::Yes };
            assert_eq!((looks_like_server(&bytes[..end]), greeting(&bytes[..end])), (expected, None), "{end}");
        }
        let old = b"EFATAL:  sorry, too many clients already\n\0";
        assert_eq!(greeting(old), Some(Greeting::new(b"FATAL:  sorry, too many clients already", None, true)));
    }

    #[test]
    fn an_authentication_request_is_a_greeting() {
        assert_eq!(greeting(&octets("52 00000008 00000000")), Some(Greeting::new(b"AuthenticationOk", None, false)));
        assert_eq!(looks_like_server(b"RFB 003.008\n"), Recognition::No);
        assert_eq!(looks_like_server(b"ERROR\r\n"), Recognition::No);
    }

    #[test]
    fn messages_are_stepped_over_and_errors_read() {
        assert_eq!(message(b"Z\0\0\0\x05I", true), Message::Welcome(6));
        assert_eq!(message(b"D\0\0\x01\0", false), Message::Usual(257));
        assert_eq!((message(b"D\0\0", false), message(b"", false)), (Message::Partial, Message::Partial));
        for strange in [&b"\x16\x03\x03\0\x7a"[..], b"Z\0\0\0\x01", b"D\xff\0\0\0"] {
            assert_eq!(message(strange, false), Message::Lost, "{strange:02x?}");
        }
        let error = |fields: &[u8]| [&b"E"[..], &(fields.len() as u32 + 4).to_be_bytes(), fields].concat();
        let class = |fields: &[u8], login| match message(&error(fields), login) {
            Message::Failed(_, failure) => Some(failure.class),
            _ => None,
        };
        let cancelled = b"SERROR\0C57014\0Mcanceling statement due to user request\0\0";
        let late = b"SERROR\0C57014\0Mcanceling statement due to statement timeout\0\0";
        assert_eq!((class(cancelled, false), class(late, false)), (None, Some(Class::Contention)));
        assert_eq!(class(b"SERROR\0C42601\0Msyntax error\0\0", false), None);
        let (pool, version) =
            (b"SFATAL\0C08P01\0Mquery_wait_timeout\0\0", b"SFATAL\0C08P01\0Munsupported pkt type: 99\0\0");
        assert_eq!((class(pool, false), class(version, false)), (Some(Class::Trouble), None));
        assert_eq!(class(b"SFATAL\0C3D000\0Mdatabase does not exist\0\0", true), Some(Class::Login));
    }

    #[test]
    fn a_probe_is_known_by_its_name() {
        let startup =
            |parameters: &[u8]| [&(parameters.len() as u32 + 8).to_be_bytes()[..], &[0, 3, 0, 0], parameters].concat();
        let named = startup(b"user\0nobody\0application_name\0pg_isready\0\0");
        assert_eq!((is_probe(&named), is_probe(&named[..20])), (Some(true), None));
        assert_eq!(is_probe(&startup(b"user\0pg_isready\0application_name\0psql\0\0")), Some(false));
        assert_eq!(is_probe(&startup(b"user\0pg_isready\0database\0shop\0\0")), Some(false));
    }

    #[test]
    fn a_user_and_nothing_else_is_a_probe() {
        let startup =
            |parameters: &[u8]| [&(parameters.len() as u32 + 8).to_be_bytes()[..], &[0, 3, 0, 0], parameters].concat();
        assert_eq!(is_probe(&startup(b"user\0check\0\0")), Some(true));
        assert_eq!(is_probe(&startup(b"user\0a\0client_encoding\0UTF8\0\0")), Some(false));
        assert_eq!(is_probe(&startup(b"\0")), Some(false));
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            looks_like_client(&bytes);
            answer_to_ssl_request(&bytes);
            is_probe(&bytes);
            message(&[b"E\0\0\0\x09S", &bytes[..]].concat(), false);
            message(&bytes, true);
            greeting(&bytes);
            greeting(&[b"E\0\0\0\x09S", &bytes[..]].concat());
            greeting(&[b"R\0\0\0\x09", &bytes[..]].concat());
        }
    }
}
