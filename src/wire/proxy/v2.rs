//! Version 2: a binary header. proxy-protocol.txt §2.2.

use super::tlv::{self, Walked};
use super::{BrokenHeader, Command, Family, ProxyHeader, ProxyStart, Rule, SIGNATURE_V2};
use crate::wire::crc32c::crc32c;
use crate::wire::{Address, Cursor, Endpoint, Malformed};

/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// Reads a version 2 header from octets that begin with CR.
pub(super) fn parse(bytes: &[u8]) -> ProxyStart {
    if !bytes.iter().zip(&SIGNATURE_V2).all(|(octet, expected)| octet == expected) {
        return ProxyStart::No;
    }
    // The fields behind the signature are judged one by one as they come: a wrong version in octet 13 needs no octet 14 to be wrong.
    let (command, family) = match (bytes.get(12).map(|octet| command(*octet)), bytes.get(13)) {
        (Some(Err(rule)), _) => return broken(rule, bytes.len().min(FIXED)),
        (Some(Ok(command)), Some(octet)) => match (family(*octet), command) {
            (Some(family), _) => (command, family),
            // What follows LOCAL must be skipped unread, its family too.
            (None, Command::Local) => (command, Family::Unspecified),
            (None, Command::Proxy) => return broken(Rule::V2Family, bytes.len().min(FIXED)),
        },
        _ => return ProxyStart::Partial,
    };
    let Some(&[high, low]) = bytes.get(14..FIXED) else { return ProxyStart::Partial };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if command == Command::Proxy && len < addresses_len(family) {
        return broken(Rule::V2Length, FIXED);
    }
    match bytes.get(..FIXED + len) {
        None => ProxyStart::Partial,
        Some(header) => whole(header, command, family),
    }
}

fn broken(rule: Rule, len: usize) -> ProxyStart {
    ProxyStart::Broken(BrokenHeader { version: 2, rule, len: len as u32 })
}

fn command(octet: u8) -> Result<Command, Rule> {
    match (octet >> 4, octet & 0x0f) {
        (2, 0) => Ok(Command::Local),
        (2, 1) => Ok(Command::Proxy),
        (2, _) => Err(Rule::V2Command),
        _ => Err(Rule::V2Version),
    }
}

fn family(octet: u8) -> Option<Family> {
    match octet {
        0x00 => Some(Family::Unspecified),
        0x11 => Some(Family::Tcp4),
        0x12 => Some(Family::Udp4),
        0x21 => Some(Family::Tcp6),
        0x22 => Some(Family::Udp6),
        0x31 | 0x32 => Some(Family::Unix),
        _ => None,
    }
}

/// Octets of the address block of a family.
fn addresses_len(family: Family) -> usize {
    match family {
        Family::Unspecified => 0,
        Family::Tcp4 | Family::Udp4 => 12,
        Family::Tcp6 | Family::Udp6 => 36,
        Family::Unix => 216,
    }
}

/// Reads a header all of whose octets are there.
fn whole(header: &[u8], command: Command, family: Family) -> ProxyStart {
    let behind = FIXED + addresses_len(family);
    let walked = tlv::walk(header.get(behind..).unwrap_or(&[]));
    // Behind LOCAL and UNSPEC stands nothing a receiver may rely on: what does not read as TLVs there breaks no rule.
    let must_read = command == Command::Proxy && family != Family::Unspecified;
    if walked.overrun && must_read {
        return broken(Rule::V2TlvOverrun, header.len());
    }
    let ends = if must_read { ends(header, family).ok().flatten() } else { None };
    let checksum_fits = checksum_fits(header, behind, &walked);
    ProxyStart::Header(Box::new(ProxyHeader {
        version: 2,
        command,
        family,
        source: ends.map(|(source, _)| source),
        destination: ends.map(|(_, destination)| destination),
        tlvs: if walked.overrun { Vec::new() } else { walked.tlvs },
        checksum_fits,
        len: header.len() as u32,
    }))
}

fn ends(header: &[u8], family: Family) -> Result<Option<(Endpoint, Endpoint)>, Malformed> {
    let mut cursor = Cursor::new(header);
    cursor.take(FIXED, "PROXY header")?;
    let (source, destination) = match family {
        Family::Tcp4 | Family::Udp4 => {
            (Address::v4(cursor.array("source")?), Address::v4(cursor.array("destination")?))
        }
        Family::Tcp6 | Family::Udp6 => {
            (Address::v6(cursor.array("source")?), Address::v6(cursor.array("destination")?))
        }
        Family::Unspecified | Family::Unix => return Ok(None),
    };
    let source = Endpoint::new(source, cursor.u16("source port")?);
    let destination = Endpoint::new(destination, cursor.u16("destination port")?);
    Ok(Some((source, destination)))
}

/// Whether the CRC32C TLV fits the header, in which it counts as four octets of zero. §2.2.3.
fn checksum_fits(header: &[u8], tlvs_at: usize, walked: &Walked<'_>) -> Option<bool> {
    if walked.overrun {
        return None;
    }
    let (offset, value) = walked.checksum?;
    let Ok(sent) = <[u8; 4]>::try_from(value) else { return Some(false) };
    let at = tlvs_at + offset;
    let (before, after) = (header.get(..at)?, header.get(at + 4..)?);
    Some(crc32c(&[before, &[0; 4], after]) == u32::from_be_bytes(sent))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ppp::v2::Builder;
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;
    use crate::wire::samples::{self, octets};

    fn header_of(bytes: &[u8]) -> ProxyHeader {
        match parse(bytes) {
            ProxyStart::Header(header) => *header,
            other => panic!("no header in {bytes:02x?}: {other:?}"),
        }
    }

    fn rule_of(bytes: &[u8]) -> Option<Rule> {
        match parse(bytes) {
            ProxyStart::Broken(broken) => Some(broken.rule),
            _ => None,
        }
    }

    /// A header with these fixed fields and this block.
    fn header(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE_V2.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    const BLOCK4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xcf, 0x0a, 0x01, 0xbb];

    #[test]
    fn what_haproxy_sends_is_read_and_the_hello_behind_it_left_alone() {
        let mut bytes = octets(samples::PROXY_V2);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), ProxyStart::Partial, "{end}");
        }
        bytes.extend(octets(samples::CLIENT_HELLO_OPENSSL));
        let header = header_of(&bytes);
        assert_eq!(header.source.map(|end| end.to_string()).as_deref(), Some("10.99.1.2:53002"));
        assert_eq!(header.destination.map(|end| end.to_string()).as_deref(), Some("10.99.1.1:1443"));
        assert_eq!((header.command, header.family, header.len), (Command::Proxy, Family::Tcp4, 28));
        assert_eq!(header.checksum_fits, None);
    }

    #[test]
    fn every_family_is_read() {
        let mut block6 = [0x11; 36].to_vec();
        block6[32..].copy_from_slice(&[0, 80, 1, 187]);
        let udp6 = header_of(&header(0x21, 0x22, &block6));
        assert_eq!(udp6.family, Family::Udp6);
        assert_eq!(udp6.destination.map(|end| end.port), Some(443));
        assert_eq!(header_of(&header(0x21, 0x21, &block6)).family, Family::Tcp6);
        assert_eq!(header_of(&header(0x21, 0x12, &BLOCK4)).family, Family::Udp4);
        assert_eq!(header_of(&header(0x21, 0x31, &[0; 216])).family, Family::Unix);
        assert_eq!(header_of(&header(0x21, 0x32, &[0; 216])).source, None);
        assert_eq!(header_of(&header(0x21, 0x00, b"xx")).family, Family::Unspecified);
    }

    #[test]
    fn local_is_read_whatever_stands_behind_it() {
        for (family, block) in [(0x00, &b""[..]), (0x11, &BLOCK4), (0x11, b"abc"), (0xff, b"abc")] {
            let header = header_of(&header(0x20, family, block));
            assert_eq!((header.command, header.source), (Command::Local, None), "{family:#x}");
        }
    }

    #[test]
    fn each_rule_is_named_as_soon_as_it_is_broken() {
        for (bytes, rule) in [
            (header(0x11, 0x11, &BLOCK4)[..13].to_vec(), Rule::V2Version),
            (header(0x31, 0x11, &BLOCK4), Rule::V2Version),
            (header(0x22, 0x11, &BLOCK4)[..13].to_vec(), Rule::V2Command),
            (header(0x21, 0x41, &BLOCK4)[..14].to_vec(), Rule::V2Family),
            (header(0x21, 0x13, &BLOCK4), Rule::V2Family),
            (header(0x21, 0x11, &BLOCK4[..11])[..16].to_vec(), Rule::V2Length),
            (header(0x21, 0x21, &[0; 35]), Rule::V2Length),
            (header(0x21, 0x31, &[0; 215]), Rule::V2Length),
            (header(0x21, 0x11, &[&BLOCK4[..], &[0x04, 0, 2, 0]].concat()), Rule::V2TlvOverrun),
            (header(0x21, 0x11, &[&BLOCK4[..], &[0x04, 0]].concat()), Rule::V2TlvOverrun),
        ] {
            assert_eq!(rule_of(&bytes), Some(rule), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_length_beyond_what_came_asks_for_more() {
        let mut bytes = header(0x21, 0x11, &BLOCK4);
        bytes[14..16].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(parse(&bytes), ProxyStart::Partial);
    }

    #[test]
    fn a_signature_that_diverges_is_no_header() {
        for end in 1..12 {
            let mut bytes = SIGNATURE_V2.to_vec();
            bytes[end] ^= 0x20;
            assert_eq!(parse(&bytes), ProxyStart::No, "{end}");
        }
    }

    #[test]
    fn the_registered_tlvs_are_readable() {
        let ssl = [&[0x07, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"alice"), &tlv(0x23, b"AES")].concat();
        let block = [
            &BLOCK4[..],
            &tlv(0x01, b"h2"),
            &tlv(0x02, b"app.example"),
            &tlv(0x05, b"\x01id"),
            &tlv(0x20, &ssl),
            &tlv(0x30, b"blue"),
            &tlv(0xea, b"\x01vpce-08d2bf15fac5001c9"),
            &tlv(0x04, &[0; 300]),
        ]
        .concat();
        let header = header_of(&header(0x21, 0x11, &block));
        assert_eq!(header.alpn(), Some("h2"));
        assert_eq!(header.authority(), Some("app.example"));
        assert_eq!(header.unique_id(), Some(&b"\x01id"[..]));
        assert_eq!(header.namespace(), Some("blue"));
        assert_eq!(header.vpc_endpoint(), Some("vpce-08d2bf15fac5001c9"));
        assert_eq!(header.tlv(0x04).map(|noop| (noop.len, noop.value.len())), Some((300, 256)));
        let ssl = header.ssl().unwrap_or_default();
        assert!(ssl.over_tls && ssl.has_certificate && ssl.verified);
        assert_eq!(ssl.version.as_deref(), Some("TLSv1.3"));
        assert_eq!(ssl.common_name.as_deref(), Some("alice"));
        assert_eq!(ssl.cipher.as_deref(), Some("AES"));
    }

    #[test]
    fn a_client_without_certificate_is_not_verified() {
        let block = [&BLOCK4[..], &tlv(0x20, &[0x01, 0, 0, 0, 0])].concat();
        let ssl = header_of(&header(0x21, 0x11, &block)).ssl().unwrap_or_default();
        assert!(ssl.over_tls && !ssl.has_certificate && !ssl.verified);
    }

    #[test]
    fn the_checksum_is_verified() {
        let mut bytes = header(0x21, 0x11, &[&BLOCK4[..], &tlv(0x03, &[0; 4]), &tlv(0x02, b"a")].concat());
        let sum = crc32c(&[&bytes]).to_be_bytes();
        bytes[31..35].copy_from_slice(&sum);
        assert_eq!(header_of(&bytes).checksum_fits, Some(true));
        bytes[16] ^= 1;
        assert_eq!(header_of(&bytes).checksum_fits, Some(false));
        let short = header(0x21, 0x11, &[&BLOCK4[..], &tlv(0x03, &[0; 3])].concat());
        assert_eq!(header_of(&short).checksum_fits, Some(false));
    }

    #[test]
    fn a_flood_of_tlvs_is_bounded() {
        let block = [BLOCK4.to_vec(), [0x04, 0, 0].repeat(20_000)].concat();
        assert_eq!(header_of(&header(0x21, 0x11, &block)).tlvs.len(), 64);
    }

    proptest! {
        #[test]
        fn what_ppp_builds_reads_the_same(ends: (SocketAddr, SocketAddr), local: bool, values in prop::collection::vec((0x40u8..0xe0, prop::collection::vec(any::<u8>(), 0..40)), 0..5)) {
            let (source, mut destination) = ends;
            if source.is_ipv4() != destination.is_ipv4() {
                destination = source;
            }
            let start = Builder::with_addresses(0x20 | u8::from(!local), ppp::v2::Protocol::Stream, (source, destination));
            let built = values.iter().try_fold(start, |builder, (kind, value)| builder.write_tlv(*kind, value)).and_then(Builder::build);
            let bytes = built.expect("short enough");
            prop_assert!(ppp::v2::Header::try_from(&bytes[..]).is_ok());
            let header = header_of(&bytes);
            prop_assert_eq!(header.len as usize, bytes.len());
            let end = |socket: SocketAddr| Endpoint::new(socket.ip().into(), socket.port());
            prop_assert_eq!(header.source, (!local).then(|| end(source)));
            prop_assert_eq!(header.destination, (!local).then(|| end(destination)));
            let read: Vec<_> = header.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.clone())).collect();
            prop_assert_eq!(read, values);
            for end in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..end]), ProxyStart::Partial);
            }
        }

        #[test]
        fn no_octets_panic(bytes: Vec<u8>, signed: bool) {
            let bytes = if signed { [&SIGNATURE_V2[..], &[0x21], &bytes].concat() } else { bytes };
            if let ProxyStart::Header(header) = parse(&bytes) {
                header.ssl();
                header.vpc_endpoint();
            }
        }
    }
}
