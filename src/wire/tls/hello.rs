//! ClientHello and ServerHello. RFC 8446 §4.1.2, §4.1.3.
//!
//! Own code: one damaged extension must not hide the others, and only what is looked at is copied. `tls-parser` is the oracle of its tests.

use super::{ClientHello, ServerHello, handshake};
use crate::wire::{Cursor, Malformed, text_of};

/// The random that makes a ServerHello a HelloRetryRequest. RFC 8446 §4.1.3.
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// The extensions that are looked at. RFC 8446 §4.2; encrypted_client_hello: RFC 9849.
mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const APPLICATION_PROTOCOLS: u16 = 16;
    pub(super) const SESSION_TICKET: u16 = 35;
    pub(super) const PRE_SHARED_KEY: u16 = 41;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
    pub(super) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
}

const SSL_3_0: u16 = 0x0300;
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;

/// Reads a whole ClientHello message, its four octets of header included.
///
/// # Errors
/// `limit: Slice` when octets of the message are missing, `limit: Field` when it is no ClientHello or contradicts itself. A damaged extension
/// does not make the rest unreadable: it is left out.
pub fn parse_client_hello(message: &[u8]) -> Result<ClientHello, Malformed> {
    const WHAT: &str = "ClientHello";
    let body = body(message, handshake::CLIENT_HELLO, WHAT)?;
    read_client_hello(&mut Cursor::new(body), message.len()).map_err(|_| Malformed::field(WHAT, 4))
}

/// Reads a whole ServerHello or HelloRetryRequest, its four octets of header included.
///
/// # Errors
/// As [`parse_client_hello`].
pub fn parse_server_hello(message: &[u8]) -> Result<ServerHello, Malformed> {
    const WHAT: &str = "ServerHello";
    let body = body(message, handshake::SERVER_HELLO, WHAT)?;
    read_server_hello(&mut Cursor::new(body)).map_err(|_| Malformed::field(WHAT, 4))
}

/// What stands behind the type and the length of a message of this type.
fn body<'a>(message: &'a [u8], kind: u8, what: &'static str) -> Result<&'a [u8], Malformed> {
    let mut cursor = Cursor::new(message);
    let found = cursor.u8(what)?;
    let len = cursor.u24(what)? as usize;
    let body = cursor.take(len, what)?;
    if found == kind { Ok(body) } else { Err(Malformed::field(what, 0)) }
}

fn read_client_hello(cursor: &mut Cursor<'_>, len: usize) -> Result<ClientHello, Malformed> {
    let mut read = ClientHello {
        legacy_version: cursor.u16("legacy_version")?,
        random: cursor.array("random")?,
        len: len as u32,
        ..ClientHello::default()
    };
    let session = session_id(cursor)?;
    let suites = cursor.u16("cipher_suites")?;
    read.ciphers = numbers(cursor.take(suites.into(), "cipher_suites")?, 512)?;
    let compressions = cursor.u8("compression methods")?;
    cursor.take(compressions.into(), "compression methods")?;
    for (kind, extension) in extensions(cursor) {
        // A damaged one is left out.
        let _ = note_client_extension(&mut read, kind, extension);
    }
    if read.versions.is_empty() {
        read.versions.push(read.legacy_version);
    }
    // Clients of TLS 1.3 fill the session id with a random value that no server knows (appendix D.4).
    read.resumes |= !session.is_empty() && !read.versions.contains(&TLS_1_3);
    Ok(read)
}

fn note_client_extension(hello: &mut ClientHello, kind: u16, data: &[u8]) -> Result<(), Malformed> {
    match kind {
        // The contents of this one are not readable; that it is there is all there is to know.
        extension::ENCRYPTED_CLIENT_HELLO => hello.ech = true,
        extension::SERVER_NAME => hello.sni = host_name(data)?.map(|name| text_of(name, 255)),
        extension::APPLICATION_PROTOCOLS => {
            let real = |name: &&[u8]| !matches!(**name, [a, b] if is_grease(u16::from_be_bytes([a, b])));
            hello.alpn = protocols(data)?.filter(real).take(32).map(|name| text_of(name, 64)).collect();
        }
        extension::SESSION_TICKET => hello.resumes |= !data.is_empty(),
        extension::PRE_SHARED_KEY => hello.resumes = true,
        extension::SUPPORTED_VERSIONS => hello.versions = numbers(versions(data)?, 16)?,
        _ => {}
    }
    Ok(())
}

fn read_server_hello(cursor: &mut Cursor<'_>) -> Result<ServerHello, Malformed> {
    let version = cursor.u16("legacy_version")?;
    if !(SSL_3_0..=TLS_1_2).contains(&version) {
        return Err(Malformed::field("legacy_version", 0));
    }
    let random: [u8; 32] = cursor.array("random")?;
    session_id(cursor)?;
    let cipher = cursor.u16("cipher_suite")?;
    cursor.u8("compression method")?;
    let mut read = ServerHello { version, cipher, alpn: None, retry_request: random == RETRY_RANDOM };
    if version != SSL_3_0 {
        for (kind, extension) in extensions(cursor) {
            // A damaged one is left out.
            let _ = note_server_extension(&mut read, kind, extension);
        }
    }
    Ok(read)
}

fn note_server_extension(hello: &mut ServerHello, kind: u16, data: &[u8]) -> Result<(), Malformed> {
    match kind {
        extension::SUPPORTED_VERSIONS => {
            hello.version =
                pairs(versions(data)?)?.first().map_or(hello.version, |version| u16::from_be_bytes(*version));
        }
        extension::APPLICATION_PROTOCOLS => hello.alpn = protocols(data)?.next().map(|name| text_of(name, 64)),
        _ => {}
    }
    Ok(())
}

/// The session id: at most 32 octets.
fn session_id<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Malformed> {
    match cursor.u8("session id")? {
        len @ 0..=32 => cursor.take(len.into(), "session id"),
        _ => Err(Malformed::field("session id", 0)),
    }
}

/// The first name of a ServerNameList that is one of a host. RFC 6066 §3. A server's list may be empty.
fn host_name(data: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    const HOST_NAME: u8 = 0;
    if data.is_empty() {
        return Ok(None);
    }
    let mut cursor = Cursor::new(data);
    let len = cursor.u16("server_name")?;
    let mut list = Cursor::new(cursor.take(len.into(), "server_name")?);
    let mut names = std::iter::from_fn(|| {
        let kind = list.u8("name type").ok()?;
        let len = list.u16("name length").ok()?;
        Some((kind, list.take(len.into(), "name").ok()?))
    });
    Ok(names.find(|(kind, _)| *kind == HOST_NAME).map(|(_, name)| name))
}

/// The names of a ProtocolNameList, up to the first that runs over its end. RFC 7301 §3.1.
fn protocols(data: &[u8]) -> Result<impl Iterator<Item = &[u8]>, Malformed> {
    let mut cursor = Cursor::new(data);
    let len = cursor.u16("application protocols")?;
    let mut list = Cursor::new(cursor.take(len.into(), "application protocols")?);
    Ok(std::iter::from_fn(move || {
        let len = list.u8("protocol length").ok()?;
        list.take(len.into(), "protocol").ok()
    }))
}

/// The versions of supported_versions: a server's is alone, a client's stand behind an octet with their length. RFC 8446 §4.2.1.
fn versions(data: &[u8]) -> Result<&[u8], Malformed> {
    if data.len() == 2 { Ok(data) } else { data.get(1..).ok_or(Malformed::field("supported_versions", 0)) }
}

/// The extensions at the end of a hello by their types: none where their list is missing or runs over the end. Ends at the first that runs
/// over the end of the list.
fn extensions<'a>(cursor: &mut Cursor<'a>) -> impl Iterator<Item = (u16, &'a [u8])> {
    let list = cursor.u16("extensions").and_then(|len| cursor.take(len.into(), "extensions"));
    let mut list = Cursor::new(list.unwrap_or(&[]));
    std::iter::from_fn(move || {
        let kind = list.u16("extension type").ok()?;
        let len = list.u16("extension length").ok()?;
        Some((kind, list.take(len.into(), "extension").ok()?))
    })
}

/// Octets in pairs.
fn pairs(list: &[u8]) -> Result<&[[u8; 2]], Malformed> {
    match list.as_chunks() {
        (pairs, []) => Ok(pairs),
        _ => Err(Malformed::field("list of numbers", 0)),
    }
}

/// The first `most` numbers of a list without those that mean nothing.
fn numbers(list: &[u8], most: usize) -> Result<Vec<u16>, Malformed> {
    let pairs = pairs(list)?;
    let mut numbers = Vec::with_capacity(pairs.len().min(most));
    numbers.extend(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).filter(|number| !is_grease(*number)).take(most));
    Ok(numbers)
}

/// Whether a number is one of those that mean nothing and keep servers tolerant. RFC 8701.
fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tls_parser::{
        TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_client_hello_extension, parse_tls_message_handshake,
        parse_tls_server_hello_extension,
    };

    use super::*;
    use crate::wire::Limit;
    use crate::wire::samples::{self, octets};
    use crate::wire::tls::record::RecordHeader;

    /// The body of the first record.
    fn body(sample: &str) -> Vec<u8> {
        let bytes = octets(sample);
        let len = RecordHeader::parse(&bytes).map(|header| usize::from(header.len)).expect("a record");
        bytes[5..5 + len].to_vec()
    }

    /// A ClientHello with these suites and this extension list.
    fn hello(suites: &str, list: &str) -> Vec<u8> {
        let (suites, list) = (octets(suites), octets(list));
        let mut message = [&[0x03, 0x03][..], &[0x55; 32], &[0]].concat();
        message.extend((suites.len() as u16).to_be_bytes());
        message.extend(suites);
        message.extend([1, 0]);
        message.extend((list.len() as u16).to_be_bytes());
        message.extend(list);
        [&[1, 0][..], &(message.len() as u16).to_be_bytes(), &message].concat()
    }

    #[test]
    fn the_hello_of_openssl_is_read() {
        let hello = parse_client_hello(&body(samples::CLIENT_HELLO_OPENSSL)).expect("whole");
        assert_eq!(hello.sni.as_deref(), Some("app.test"));
        assert_eq!(hello.alpn, ["h2", "http/1.1"]);
        assert_eq!(hello.versions, [0x0304, 0x0303, 0x0302, 0x0301]);
        assert_eq!(hello.legacy_version, 0x0303);
        assert_eq!((hello.ciphers.len(), hello.ciphers[0]), (31, 0x1302));
        assert_eq!(hello.random[..4], [0x51, 0x17, 0xd4, 0x1d]);
        assert_eq!((hello.len, hello.resumes, hello.ech), (512, false, false));
    }

    #[test]
    fn the_hellos_of_other_stacks_are_read() {
        let go = parse_client_hello(&body(samples::CLIENT_HELLO_GO)).expect("whole");
        assert_eq!((go.sni.as_deref(), &go.versions[..], go.ciphers.len()), (Some("app.test"), &[0x0303][..], 16));
        let java = parse_client_hello(&body(samples::CLIENT_HELLO_JAVA)).expect("whole");
        assert_eq!(
            (java.sni.as_deref(), &java.versions[..], java.ciphers.len()),
            (Some("app.test"), &[0x0304, 0x0303][..], 37)
        );
        let curl = parse_client_hello(&body(samples::CLIENT_HELLO_SNI)).expect("whole");
        assert_eq!(
            (curl.sni.as_deref(), &curl.versions[..], &curl.alpn[..]),
            (Some("app.test"), &[0x0303][..], &["h2".into(), "http/1.1".into()][..])
        );
    }

    #[test]
    fn every_truncation_of_a_hello_is_said_to_be_short() {
        let message = body(samples::CLIENT_HELLO_OPENSSL);
        for end in 0..message.len() {
            assert_eq!(
                parse_client_hello(&message[..end]).map_err(|malformed| malformed.limit),
                Err(Limit::Slice),
                "{end}"
            );
        }
        let message = body(samples::SERVER_HELLO_13);
        for end in 0..message.len() {
            assert_eq!(
                parse_server_hello(&message[..end]).map_err(|malformed| malformed.limit),
                Err(Limit::Slice),
                "{end}"
            );
        }
    }

    #[test]
    fn grease_is_left_out() {
        // supported_versions: 2a2a, 0304; ALPN: GREASE 0xdada, h2; an empty GREASE extension first.
        let hello = parse_client_hello(&hello("1a1a1301", "8a8a0000 002b0005042a2a0304 00100008000602dada026832"))
            .expect("whole");
        assert_eq!(hello.ciphers, [0x1301]);
        assert_eq!(hello.versions, [0x0304]);
        assert_eq!(hello.alpn, ["h2"]);
    }

    #[test]
    fn a_damaged_extension_leaves_the_others_readable() {
        // ALPN whose list length lies, then server_name.
        let hello = parse_client_hello(&hello("1301", "00100004ffff0268 0000000600040000 0161")).expect("whole");
        assert_eq!(hello.sni.as_deref(), Some("a"));
        assert!(hello.alpn.is_empty());
    }

    #[test]
    fn an_extension_that_runs_over_the_end_is_left_out() {
        let hello = parse_client_hello(&hello("1301", "0000000600040000 0161 00100009")).expect("whole");
        assert_eq!(hello.sni.as_deref(), Some("a"));
    }

    #[test]
    fn an_encrypted_hello_is_noticed() {
        assert!(parse_client_hello(&hello("1301", "fe0d000100")).expect("whole").ech);
        assert!(!parse_client_hello(&hello("1301", "fe0c000100")).expect("whole").ech);
    }

    #[test]
    fn a_session_is_offered_by_ticket_or_key_but_not_by_the_fake_id_of_1_3() {
        assert!(parse_client_hello(&hello("1301", "00230001aa")).expect("whole").resumes);
        assert!(!parse_client_hello(&hello("1301", "00230000")).expect("whole").resumes);
        assert!(parse_client_hello(&hello("1301", "00290002 0000")).expect("whole").resumes);
        assert!(!parse_client_hello(&body(samples::CLIENT_HELLO_JAVA)).expect("whole").resumes);
    }

    #[test]
    fn server_hellos_tell_version_suite_and_protocol() {
        let modern = parse_server_hello(&body(samples::SERVER_HELLO_13)).expect("whole");
        assert_eq!((modern.version, modern.cipher, modern.retry_request), (0x0304, 0x1302, false));
        let old = parse_server_hello(&body(samples::SERVER_FLIGHT_12)).expect("whole");
        assert_eq!((old.version, old.cipher, old.alpn.as_deref()), (0x0303, 0xc030, Some("http/1.1")));
        let retry = parse_server_hello(&body(samples::HELLO_RETRY)).expect("whole");
        assert!(retry.retry_request && retry.version == 0x0304);
    }

    #[test]
    fn another_message_is_no_hello() {
        assert!(parse_client_hello(&body(samples::SERVER_HELLO_13)).is_err());
        assert!(parse_server_hello(&body(samples::CLIENT_HELLO_GO)).is_err());
    }

    /// What `tls-parser` makes of a ClientHello.
    fn oracle_of_clients(message: &[u8]) -> Option<ClientHello> {
        let Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) =
            parse_tls_message_handshake(message)
        else {
            return None;
        };
        let meant = |list: Vec<u16>, most| list.into_iter().filter(|number| !is_grease(*number)).take(most).collect();
        let mut read = ClientHello {
            legacy_version: hello.version.0,
            random: hello.random.try_into().expect("32 octets"),
            ciphers: meant(hello.ciphers.iter().map(|suite| suite.0).collect(), 512),
            len: message.len() as u32,
            ..ClientHello::default()
        };
        for extension in apart(hello.ext.unwrap_or(&[])) {
            match parse_tls_client_hello_extension(extension) {
                _ if extension.starts_with(&[0xfe, 0x0d]) => read.ech = true,
                Ok((_, TlsExtension::SNI(names))) => {
                    read.sni = names.iter().find(|(kind, _)| kind.0 == 0).map(|(_, name)| text_of(name, 255));
                }
                Ok((_, TlsExtension::ALPN(names))) => {
                    let real = |name: &&&[u8]| !matches!(***name, [a, b] if is_grease(u16::from_be_bytes([a, b])));
                    read.alpn = names.iter().filter(real).take(32).map(|name| text_of(name, 64)).collect();
                }
                Ok((_, TlsExtension::SupportedVersions(versions))) => {
                    read.versions = meant(versions.iter().map(|version| version.0).collect(), 16);
                }
                Ok((_, TlsExtension::SessionTicket(ticket))) => read.resumes |= !ticket.is_empty(),
                Ok((_, TlsExtension::PreSharedKey(_))) => read.resumes = true,
                _ => {}
            }
        }
        if read.versions.is_empty() {
            read.versions.push(read.legacy_version);
        }
        read.resumes |= hello.session_id.is_some() && !read.versions.contains(&TLS_1_3);
        Some(read)
    }

    /// What it makes of a ServerHello.
    fn oracle_of_servers(message: &[u8]) -> Option<ServerHello> {
        let Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ServerHello(hello)))) =
            parse_tls_message_handshake(message)
        else {
            return None;
        };
        let (version, cipher) = (hello.version.0, hello.cipher.0);
        let mut read = ServerHello { version, cipher, alpn: None, retry_request: hello.random == RETRY_RANDOM };
        for extension in apart(hello.ext.unwrap_or(&[])) {
            match parse_tls_server_hello_extension(extension) {
                Ok((_, TlsExtension::SupportedVersions(versions))) => {
                    read.version = versions.first().map_or(read.version, |version| version.0);
                }
                Ok((_, TlsExtension::ALPN(names))) => read.alpn = names.first().map(|name| text_of(name, 64)),
                _ => {}
            }
        }
        Some(read)
    }

    /// The extensions of a list, each with its type and length: parsers of whole lists stop at the first that is damaged.
    fn apart(list: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut rest = list;
        std::iter::from_fn(move || {
            let [_, _, high, low] = *rest.first_chunk()?;
            let (extension, later) = rest.split_at_checked(4 + usize::from(u16::from_be_bytes([high, low])))?;
            rest = later;
            Some(extension)
        })
    }

    /// The length in a message's header is what it should be.
    fn agrees(mut message: Vec<u8>) {
        let len = message.len() as u32 - 4;
        message[1..4].copy_from_slice(&len.to_be_bytes()[1..]);
        assert_eq!(parse_client_hello(&message).ok(), oracle_of_clients(&message), "{message:02x?}");
        assert_eq!(parse_server_hello(&message).ok(), oracle_of_servers(&message), "{message:02x?}");
    }

    #[test]
    fn bent_hellos_are_read_as_by_the_oracle() {
        let lists = [
            "00000005000300000161 00000000",
            "00100003000100 00100005000302683200",
            "002b000103 002b0002 0303 002b0004 03030203",
        ];
        let mut messages: Vec<Vec<u8>> = lists.iter().map(|list| hello("1301 0a0a", list)).collect();
        messages.extend(
            [
                samples::CLIENT_HELLO_OPENSSL,
                samples::CLIENT_HELLO_GO,
                samples::CLIENT_HELLO_JAVA,
                samples::CLIENT_HELLO_SNI,
                samples::SERVER_HELLO_13,
                samples::SERVER_FLIGHT_12,
                samples::HELLO_RETRY,
            ]
            .map(body),
        );
        for message in messages {
            for at in 4..message.len() {
                agrees(message[..at].to_vec());
                for to in [0, 1, message[at].wrapping_sub(1), message[at].wrapping_add(1), message[at] ^ 0x80, 0xff] {
                    let mut bent = message.clone();
                    bent[at] = to;
                    agrees(bent);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(at: usize, to: u8, noise: Vec<u8>) {
            let mut message = body(samples::CLIENT_HELLO_OPENSSL);
            let at = at % message.len();
            message[at] = to;
            let _ = parse_client_hello(&message);
            let mut message = body(samples::SERVER_FLIGHT_12);
            let at = at % message.len();
            message[at] = to;
            let _ = parse_server_hello(&message);
            let _ = parse_client_hello(&noise);
            let _ = parse_server_hello(&noise);
        }
    }
}
