//! ICMP and ICMPv6 messages and the packet they quote. RFC 792, RFC 4443.

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use serde::{Deserialize, Serialize};

use super::tcp::{TCP, UDP};
use super::{Address, Cursor, Endpoint, Malformed, seq::Seq};

/// An ICMP error about somebody's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpError {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// It is ICMPv6.
    pub v6: bool,
    /// Who sent the error: the last device that the quoted packet reached. The message does not say; its reader fills it in from the IP
    /// header.
    pub from: Address,
    /// Next-hop MTU of "fragmentation needed" and "packet too big"; `None` where a router before RFC 1191 left it 0.
    pub mtu: Option<u32>,
    /// The better next hop of a redirect; the destination itself where that is a neighbour (RFC 4861 §4.5).
    pub gateway: Option<Address>,
    /// Source end of the quoted packet (port 0 when not quoted).
    pub source: Endpoint,
    /// Destination end of the quoted packet.
    pub destination: Endpoint,
    /// IP protocol number of the quoted packet.
    pub protocol: u8,
    /// TTL or hop limit of the quoted packet as it stands in the quote.
    pub ttl: u8,
    /// Quoted TCP sequence number.
    pub seq: Option<Seq>,
}

/// ICMP types that quote a packet. RFC 792, RFC 1191.
mod v4 {
    pub(super) const UNREACHABLE: u8 = 3;
    pub(super) const FRAGMENTATION_NEEDED: u8 = 4;
    pub(super) const SOURCE_QUENCH: u8 = 4;
    pub(super) const REDIRECT: u8 = 5;
    pub(super) const TIME_EXCEEDED: u8 = 11;
    pub(super) const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types that quote a packet. RFC 4443, RFC 4861 §4.5.
mod v6 {
    pub(super) const UNREACHABLE: u8 = 1;
    pub(super) const PACKET_TOO_BIG: u8 = 2;
    pub(super) const PARAMETER_PROBLEM: u8 = 4;
    pub(super) const REDIRECT: u8 = 137;
    /// Redirected Header option, RFC 4861 §4.6.3.
    pub(super) const REDIRECTED_HEADER: u8 = 4;
}

/// Octets before the quote of an error.
const HEADER: usize = 8;
/// Octets before the options of a redirect.
const REDIRECT_HEADER: usize = 40;

/// Reads an ICMP error from its type octet on: destination unreachable, source quench, redirect, time exceeded, parameter problem.
///
/// `None` for other messages and when the quoted IP header is not whole. A quote may end behind its first eight octets of transport header.
pub fn parse_error4(bytes: &[u8]) -> Option<IcmpError> {
    let &[kind, code, _, _, a, b, high, low] = bytes.get(..HEADER)? else { return None };
    if !matches!(kind, v4::UNREACHABLE | v4::SOURCE_QUENCH | v4::REDIRECT | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM) {
        return None;
    }
    let quote = bytes.get(HEADER..)?;
    let header = Ipv4HeaderSlice::from_slice(quote).ok()?;
    let transport = quote.get(header.slice().len()..).unwrap_or(&[]);
    let protocol = header.protocol().0;
    let ports = Ports::of(protocol, transport, header.fragments_offset().value() != 0);
    let mtu = u32::from(u16::from_be_bytes([high, low]));
    Some(IcmpError {
        from: Address(0),
        kind,
        code,
        v6: false,
        mtu: Some(mtu).filter(|mtu| (kind, code) == (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) && *mtu > 0),
        gateway: (kind == v4::REDIRECT).then_some(Address::v4([a, b, high, low])),
        source: Endpoint::new(Address::v4(header.source()), ports.source),
        destination: Endpoint::new(Address::v4(header.destination()), ports.destination),
        protocol,
        ttl: header.ttl(),
        seq: ports.seq,
    })
}

/// Reads an ICMPv6 error from its type octet on: destination unreachable, packet too big, time exceeded, parameter problem, redirect.
///
/// As [`parse_error4`].
pub fn parse_error6(bytes: &[u8]) -> Option<IcmpError> {
    let &[kind, code, _, _, a, b, c, d] = bytes.get(..HEADER)? else { return None };
    let quote = match kind {
        v6::UNREACHABLE..=v6::PARAMETER_PROBLEM => bytes.get(HEADER..)?,
        v6::REDIRECT => redirected(bytes).ok().flatten()?,
        _ => return None,
    };
    let header = Ipv6HeaderSlice::from_slice(quote).ok()?;
    let behind = quote.get(header.slice().len()..).unwrap_or(&[]);
    let (protocol, transport, later_fragment) = behind_extensions(header.next_header().0, behind);
    let ports = Ports::of(protocol, transport, later_fragment);
    Some(IcmpError {
        from: Address(0),
        kind,
        code,
        v6: true,
        mtu: (kind == v6::PACKET_TOO_BIG).then_some(u32::from_be_bytes([a, b, c, d])).filter(|mtu| *mtu > 0),
        gateway: bytes
            .get(HEADER..)
            .filter(|_| kind == v6::REDIRECT)
            .and_then(|rest| rest.first_chunk())
            .map(|to| Address::v6(*to)),
        source: Endpoint::new(Address::v6(header.source()), ports.source),
        destination: Endpoint::new(Address::v6(header.destination()), ports.destination),
        protocol,
        ttl: header.hop_limit(),
        seq: ports.seq,
    })
}

/// Steps over the extension headers of a quoted IPv6 packet (RFC 8200 §4): what is behind them, and whether a fragment header says that
/// the transport header is in another fragment.
///
/// Own code: etherparse 0.21 reads past the end of a fragment header that the quote cut off.
fn behind_extensions(mut next: u8, mut rest: &[u8]) -> (u8, &[u8], bool) {
    let mut later_fragment = false;
    while let Some(&[following, len]) = rest.get(..2) {
        let octets = match next {
            0 | 43 | 60 | 135 | 139 | 140 => 8 + usize::from(len) * 8,
            // Authentication header: length in 32-bit words, minus 2 (RFC 4302 §2.2).
            51 => 8 + usize::from(len) * 4,
            44 => 8,
            _ => break,
        };
        let Some(header) = rest.get(..octets) else { return (next, &[], later_fragment) };
        if next == 44 {
            later_fragment |= u16::from_be_bytes([header[2], header[3]]) >> 3 != 0;
        }
        (next, rest) = (following, rest.get(octets..).unwrap_or(&[]));
    }
    (next, rest, later_fragment)
}

/// The packet that a redirect quotes in one of its options.
fn redirected(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    const WHAT: &str = "redirect option";
    let mut cursor = Cursor::new(bytes);
    cursor.take(REDIRECT_HEADER, "redirect")?;
    while cursor.remaining() > 0 {
        let (kind, units) = (cursor.u8(WHAT)?, usize::from(cursor.u8(WHAT)?));
        let len = (units * 8).checked_sub(2).ok_or(Malformed::field(WHAT, cursor.position() as u32))?;
        if kind == v6::REDIRECTED_HEADER {
            // Six reserved octets, then the packet, which the capture may have cut.
            return Ok(cursor.rest().get(6..));
        }
        cursor.take(len, WHAT)?;
    }
    Ok(None)
}

/// The first eight octets of a quoted transport header.
struct Ports {
    source: u16,
    destination: u16,
    seq: Option<Seq>,
}

impl Ports {
    /// Of a packet with that IP protocol; none when its transport header is in another fragment or cut away.
    fn of(protocol: u8, transport: &[u8], later_fragment: bool) -> Self {
        // TCP, UDP, DCCP, SCTP and UDP-Lite begin with both ports.
        let has_ports = matches!(protocol, TCP | UDP | 33 | 132 | 136) && !later_fragment;
        let mut cursor = Cursor::new(if has_ports { transport } else { &[] });
        match (cursor.u16("source port"), cursor.u16("destination port")) {
            (Ok(source), Ok(destination)) => {
                let seq = if protocol == TCP { cursor.u32("sequence number").ok().map(Seq) } else { None };
                Self { source, destination, seq }
            }
            _ => Self { source: 0, destination: 0, seq: None },
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fragment_header_that_the_quote_cut_off_is_no_reading_past_its_end() {
        let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 16, 44, 64];
        message.extend_from_slice(&[0x20; 32]);
        message.extend_from_slice(&[6, 0, 0]);
        let error = super::parse_error6(&message).expect("the addresses are whole");
        assert_eq!((error.protocol, error.source.port), (44, 0));
    }

    use proptest::prelude::*;

    use super::*;
    use crate::wire::samples::{self, octets};

    /// Packet too big, MTU 1280, quoting a TCP segment from [2001:db8::1]:443 to [2001:db8::2]:51000.
    const TOO_BIG: &str = "0200 0000 00000500 6000000005a0063f 20010db8000000000000000000000001 20010db8000000000000000000000002 \
        01bb c738 00001234 00005678";

    #[test]
    fn a_recorded_error_names_the_segment_it_is_about() {
        let error = parse_error4(&octets(samples::ICMP_FRAG_NEEDED)).expect("an error");
        assert_eq!((error.kind, error.code, error.v6, error.mtu), (3, 4, false, Some(1200)));
        assert_eq!(error.source.to_string(), "10.99.1.2:51754");
        assert_eq!(error.destination.to_string(), "10.99.2.2:2080");
        assert_eq!((error.protocol, error.ttl, error.seq), (6, 64, Some(Seq(0x9f2d_2db8))));
    }

    #[test]
    fn every_truncation_gives_what_is_whole_or_nothing() {
        let bytes = octets(samples::ICMP_FRAG_NEEDED);
        for end in 0..36 {
            let error = parse_error4(&bytes[..end]);
            assert_eq!(error.is_some(), end >= 28, "{end}");
            if let Some(error) = error {
                assert_eq!((error.source.port != 0, error.seq.is_some()), (end >= 32, false), "{end}");
            }
        }
        assert!(parse_error4(&bytes[..36]).is_some_and(|error| error.seq.is_some()));
        let bytes = octets(TOO_BIG);
        for end in 0..=bytes.len() {
            assert_eq!(parse_error6(&bytes[..end]).is_some(), end >= 48, "{end}");
        }
    }

    #[test]
    fn packet_too_big_tells_the_mtu() {
        let error = parse_error6(&octets(TOO_BIG)).expect("an error");
        assert_eq!((error.kind, error.v6, error.mtu, error.ttl), (2, true, Some(1280), 63));
        assert_eq!(error.source.to_string(), "[2001:db8::1]:443");
        assert_eq!((error.destination.port, error.seq), (51000, Some(Seq(0x1234))));
    }

    #[test]
    fn a_redirect_quotes_in_an_option() {
        let packet = TOO_BIG.split_at(18).1;
        let redirect = format!(
            "89000000 00000000 {0}{0} 0201001122334455 0408000000000000 {packet}",
            "fe800000000000000000000000000001"
        );
        let error = parse_error6(&octets(&redirect)).expect("an error");
        assert_eq!((error.kind, error.mtu, error.destination.port), (137, None, 51000));
        assert_eq!(error.gateway.map(|to| to.to_string()).as_deref(), Some("fe80::1"));
    }

    #[test]
    fn extension_headers_are_stepped_over_and_later_fragments_have_no_ports() {
        let fragment = TOO_BIG.replace("05a0063f", "05a82c3f").replace("01bb", "06000000 00000007 01bb");
        assert_eq!(parse_error6(&octets(&fragment)).map(|error| error.source.port), Some(443));
        let first = fragment.replace("06000000", "06000001");
        assert_eq!(parse_error6(&octets(&first)).map(|error| error.source.port), Some(443));
        let later = fragment.replace("06000000", "060000b1");
        let error = parse_error6(&octets(&later)).expect("an error");
        assert_eq!((error.protocol, error.source.port, error.seq), (6, 0, None));
    }

    #[test]
    fn echoes_are_no_errors() {
        let mut bytes = octets(samples::ICMP_FRAG_NEEDED);
        bytes[0] = 8;
        assert_eq!(parse_error4(&bytes), None);
        let mut bytes = octets(TOO_BIG);
        bytes[0] = 128;
        assert_eq!(parse_error6(&bytes), None);
    }

    proptest! {
        #[test]
        fn no_octets_panic(at: usize, to: u8, noise: Vec<u8>) {
            for sample in [samples::ICMP_FRAG_NEEDED, TOO_BIG] {
                let mut bytes = octets(sample);
                let at = at % bytes.len();
                bytes[at] = to;
                parse_error4(&bytes);
                parse_error6(&bytes);
            }
            parse_error4(&noise);
            parse_error6(&[&[137; 40][..], &noise].concat());
        }
    }
}
