//! ClientHello and ServerHello. RFC 8446 §4.1.2, §4.1.3.

use tls_parser::{
    TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_client_hello_extension, parse_tls_message_handshake,
    parse_tls_server_hello_extension,
};

use super::{ClientHello, ServerHello};
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

/// TLS 1.3.
const TLS_1_3: u16 = 0x0304;

/// Reads a whole ClientHello message, its four octets of header included.
///
/// # Errors
/// `limit: Slice` when octets of the message are missing, `limit: Field` when it is no ClientHello or contradicts itself. A damaged extension
/// does not make the rest unreadable: it is left out.
pub fn parse_client_hello(message: &[u8]) -> Result<ClientHello, Malformed> {
    let TlsMessageHandshake::ClientHello(hello) = whole(message, "ClientHello")? else {
        return Err(Malformed::field("ClientHello", 0));
    };
    let mut read = ClientHello {
        legacy_version: hello.version.0,
        random: hello.random.try_into().unwrap_or_default(),
        ciphers: numbers(hello.ciphers.iter().map(|suite| suite.0), 512),
        len: message.len() as u32,
        ..ClientHello::default()
    };
    for (kind, extension) in extensions(hello.ext.unwrap_or(&[])) {
        match kind {
            // The contents of this one are not readable; that it is there is all there is to know.
            extension::ENCRYPTED_CLIENT_HELLO => read.ech = true,
            extension::SERVER_NAME
            | extension::APPLICATION_PROTOCOLS
            | extension::SESSION_TICKET
            | extension::PRE_SHARED_KEY
            | extension::SUPPORTED_VERSIONS => {
                if let Ok((_, extension)) = parse_tls_client_hello_extension(extension) {
                    note_client_extension(&mut read, &extension);
                }
            }
            _ => {}
        }
    }
    if read.versions.is_empty() {
        read.versions.push(read.legacy_version);
    }
    // Clients of TLS 1.3 fill the session id with a random value that no server knows (appendix D.4).
    read.resumes |= hello.session_id.is_some() && !read.versions.contains(&TLS_1_3);
    Ok(read)
}

fn note_client_extension(hello: &mut ClientHello, extension: &TlsExtension<'_>) {
    match extension {
        TlsExtension::SNI(names) => {
            let host = names.iter().find(|(kind, _)| kind.0 == 0);
            hello.sni = host.map(|(_, name)| text_of(name, 255));
        }
        TlsExtension::ALPN(protocols) => {
            let real =
                protocols.iter().filter(|name| !matches!(***name, [a, b] if is_grease(u16::from_be_bytes([a, b]))));
            hello.alpn = Vec::with_capacity(protocols.len().min(32));
            hello.alpn.extend(real.take(32).map(|name| text_of(name, 64)));
        }
        TlsExtension::SupportedVersions(versions) => {
            hello.versions = numbers(versions.iter().map(|version| version.0), 16);
        }
        TlsExtension::SessionTicket(ticket) => hello.resumes |= !ticket.is_empty(),
        TlsExtension::PreSharedKey(_) => hello.resumes = true,
        _ => {}
    }
}

/// Reads a whole ServerHello or HelloRetryRequest, its four octets of header included.
///
/// # Errors
/// As [`parse_client_hello`].
pub fn parse_server_hello(message: &[u8]) -> Result<ServerHello, Malformed> {
    let TlsMessageHandshake::ServerHello(hello) = whole(message, "ServerHello")? else {
        return Err(Malformed::field("ServerHello", 0));
    };
    let mut read = ServerHello {
        version: hello.version.0,
        cipher: hello.cipher.0,
        alpn: None,
        retry_request: hello.random == RETRY_RANDOM,
    };
    for (kind, extension) in extensions(hello.ext.unwrap_or(&[])) {
        if !matches!(kind, extension::SUPPORTED_VERSIONS | extension::APPLICATION_PROTOCOLS) {
            continue;
        }
        match parse_tls_server_hello_extension(extension) {
            Ok((_, TlsExtension::SupportedVersions(versions))) => {
                read.version = versions.first().map_or(read.version, |version| version.0);
            }
            Ok((_, TlsExtension::ALPN(protocols))) => read.alpn = protocols.first().map(|name| text_of(name, 64)),
            _ => {}
        }
    }
    Ok(read)
}

/// The handshake message that `message` is.
pub(super) fn whole<'a>(message: &'a [u8], what: &'static str) -> Result<TlsMessageHandshake<'a>, Malformed> {
    let mut cursor = Cursor::new(message);
    cursor.u8(what)?;
    let len = cursor.u24(what)? as usize;
    cursor.take(len, what)?;
    match parse_tls_message_handshake(message) {
        Ok((_, TlsMessage::Handshake(message))) => Ok(message),
        _ => Err(Malformed::field(what, 4)),
    }
}

/// The extensions of a list by their types, each still with its type and length. Ends at the first that runs over the
/// end of the list.
///
/// Own walk, because a parser of the whole list stops at the first extension whose contents are damaged.
fn extensions(list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let &[a, b, high, low] = rest.first_chunk()?;
        let (extension, later) = rest.split_at_checked(4 + usize::from(u16::from_be_bytes([high, low])))?;
        rest = later;
        Some((u16::from_be_bytes([a, b]), extension))
    })
}

/// The first `most` of a list without those that mean nothing.
fn numbers(list: impl ExactSizeIterator<Item = u16>, most: usize) -> Vec<u16> {
    let mut numbers = Vec::with_capacity(list.len().min(most));
    numbers.extend(list.filter(|number| !is_grease(*number)).take(most));
    numbers
}

/// Whether a number is one of those that mean nothing and keep servers tolerant. RFC 8701.
fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
