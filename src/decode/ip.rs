//! IPv4 and IPv6 headers off the fast path: options, extension headers, fragments, lengths of 0.

use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
};

use super::Ip;
use super::span::{Reason, Span};
use super::transport::number;
use crate::wire::Address;

/// One IP header and what it carries.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    /// Its fields; `tunnelled` and `reassembled` are the walk's to say.
    pub(super) ip: Ip,
    /// It is an IPv6 header: extension headers may follow. (Its addresses need not show it: they may be IPv4-mapped.)
    pub(super) v6: bool,
    /// Number of the protocol carried. For IPv6 it may still be an extension header.
    pub(super) protocol: u8,
    /// What it carries, without padding behind the packet.
    pub(super) body: Span<'a>,
    /// Set when the body is a piece only.
    pub(super) piece: Option<Piece>,
}

/// Which piece of a datagram a fragment is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub(super) id: u32,
    /// Where its octets belong in the datagram.
    pub(super) start: u32,
    /// More pieces follow it.
    pub(super) more: bool,
}

/// Reads an IPv4 header (RFC 791 §3.1).
pub(super) fn ipv4(span: Span<'_>) -> Result<Header<'_>, Reason> {
    use etherparse::err::ipv4::{HeaderError, HeaderSliceError};
    let header = Ipv4HeaderSlice::from_slice(span.bytes).map_err(|error| match error {
        HeaderSliceError::Len(_) => "IPv4 header cut off",
        HeaderSliceError::Content(HeaderError::UnexpectedVersion { .. }) => "IPv4 announced, another version found",
        HeaderSliceError::Content(HeaderError::HeaderLengthSmallerThanHeader { .. }) => {
            "IPv4 header length below 20 octets"
        }
    })?;
    let header_len = header.slice().len() as u32;
    let len = match u32::from(header.total_len()) {
        // Segmentation offload: the packet was longer than the field can say, or not yet made.
        0 => span.wire,
        len if len < header_len => return Err("IPv4 total length below the header length"),
        len => len.min(span.wire),
    };
    let ip = Ip {
        source: Address::v4(header.source()),
        destination: Address::v4(header.destination()),
        ttl: header.ttl(),
        id: Some(header.identification()),
        len,
        reassembled: false,
        tunnelled: false,
    };
    let piece = header.is_fragmenting_payload().then(|| Piece {
        id: header.identification().into(),
        start: u32::from(header.fragments_offset().value()) * 8,
        more: header.more_fragments(),
    });
    let body = span.first(len).skip(header_len as usize, "IPv4 header cut off")?;
    Ok(Header { ip, v6: false, protocol: header.protocol().0, body, piece })
}

/// Reads an IPv6 header (RFC 8200 §3).
pub(super) fn ipv6(span: Span<'_>) -> Result<Header<'_>, Reason> {
    use etherparse::err::ipv6::HeaderSliceError;
    let header = Ipv6HeaderSlice::from_slice(span.bytes).map_err(|error| match error {
        HeaderSliceError::Len(_) => "IPv6 header cut off",
        HeaderSliceError::Content(_) => "IPv6 announced, another version found",
    })?;
    let len = match u32::from(header.payload_length()) {
        // A jumbogram (RFC 2675) or segmentation offload; "no next header" with nothing behind it is honestly empty.
        0 if header.next_header() != IpNumber::IPV6_NO_NEXT_HEADER => span.wire,
        payload => (payload + 40).min(span.wire),
    };
    let ip = Ip {
        source: Address::v6(header.source()),
        destination: Address::v6(header.destination()),
        ttl: header.hop_limit(),
        id: None,
        len,
        reassembled: false,
        tunnelled: false,
    };
    let body = span.first(len).skip(40, "IPv6 header cut off")?;
    Ok(Header { ip, v6: true, protocol: header.next_header().0, body, piece: None })
}

/// Passes over extension headers (RFC 8200 §4; for IPv4 only the authentication header) until something else, or a fragment, is found.
///
/// A fragment header whose packet is whole ("atomic", RFC 6946) is passed over like any other. ESP ends the walk: nobody can read on. The
/// chain may be as long as the packet, as in hosts; each header takes at least 8 octets of it.
pub(super) fn extensions(header: &mut Header<'_>) -> Result<(), Reason> {
    const REASON: Reason = "IPv6 extension header cut off";
    loop {
        let (next, len) = match IpNumber(header.protocol) {
            IpNumber(number::AH) => {
                let slice =
                    IpAuthHeaderSlice::from_slice(header.body.bytes).map_err(|_| "authentication header cut off")?;
                (slice.next_header(), slice.slice().len())
            }
            IpNumber(number::FRAGMENT) if header.v6 => {
                let slice = Ipv6FragmentHeaderSlice::from_slice(header.body.bytes).map_err(|_| REASON)?;
                header.ip.id = Some(slice.identification() as u16);
                header.piece = slice.is_fragmenting_payload().then(|| Piece {
                    id: slice.identification(),
                    start: u32::from(slice.fragment_offset().value()) * 8,
                    more: slice.more_fragments(),
                });
                (slice.next_header(), slice.slice().len())
            }
            other if header.v6 && Ipv6RawExtHeaderSlice::header_type_supported(other) => {
                let slice = Ipv6RawExtHeaderSlice::from_slice(header.body.bytes).map_err(|_| REASON)?;
                (slice.next_header(), slice.slice().len())
            }
            _ => return Ok(()),
        };
        header.protocol = next.0;
        header.body = header.body.skip(len, REASON)?;
        if header.piece.is_some() {
            return Ok(());
        }
    }
}
