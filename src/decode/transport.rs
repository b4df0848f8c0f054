//! The headers that IP carries: TCP, UDP, ICMP. Shared by the fast path and the walk.

use super::span::{Reason, Span};
use super::{Datagram, Flags, Segment};
use crate::wire::seq::Seq;

/// IP protocol numbers (IANA "Protocol Numbers").
pub(super) mod number {
    pub(in crate::decode) const ICMP: u8 = 1;
    pub(in crate::decode) const IPV4: u8 = 4;
    pub(in crate::decode) const TCP: u8 = 6;
    pub(in crate::decode) const UDP: u8 = 17;
    pub(in crate::decode) const IPV6: u8 = 41;
    pub(in crate::decode) const FRAGMENT: u8 = 44;
    pub(in crate::decode) const GRE: u8 = 47;
    pub(in crate::decode) const AH: u8 = 51;
    pub(in crate::decode) const ICMP6: u8 = 58;
}

/// Reads a TCP header (RFC 9293 §3.1). Options and payload may be shorter than on the wire when the capture cut them.
#[inline(always)]
pub(super) fn tcp(span: Span<'_>) -> Result<Segment<'_>, Reason> {
    let Some((head, rest)) = span.bytes.split_first_chunk::<20>() else {
        return Err(if span.is_cut() { "TCP header cut off" } else { "no room for a TCP header" });
    };
    let header_len = u32::from(head[12] >> 4) * 4;
    if header_len < 20 {
        return Err("TCP header length below 20 octets");
    }
    if header_len > span.wire {
        return Err("TCP header length beyond the packet");
    }
    let (options, payload) = rest.split_at(rest.len().min(header_len as usize - 20));
    Ok(Segment {
        source_port: u16::from_be_bytes([head[0], head[1]]),
        destination_port: u16::from_be_bytes([head[2], head[3]]),
        seq: Seq(u32::from_be_bytes([head[4], head[5], head[6], head[7]])),
        ack: Seq(u32::from_be_bytes([head[8], head[9], head[10], head[11]])),
        flags: Flags(head[13]),
        window: u16::from_be_bytes([head[14], head[15]]),
        options,
        payload,
        payload_len: span.wire - header_len,
        checksum: u16::from_be_bytes([head[16], head[17]]),
    })
}

/// Reads a UDP header (RFC 768). A length beyond the IP packet is cut down to it; 0 means "to the end of the packet" (segmentation
/// offload, RFC 2675 §4).
#[inline]
pub(super) fn udp(span: Span<'_>) -> Result<(Datagram<'_>, Span<'_>), Reason> {
    let (head, body) = span.take::<8>(if span.is_cut() { "UDP header cut off" } else { "no room for a UDP header" })?;
    let body = match u32::from(u16::from_be_bytes([head[4], head[5]])) {
        0 => body,
        1..8 => return Err("UDP length below 8 octets"),
        length => body.first(body.wire.min(length - 8)),
    };
    let datagram = Datagram {
        source_port: u16::from_be_bytes([head[0], head[1]]),
        destination_port: u16::from_be_bytes([head[2], head[3]]),
        payload: body.bytes,
        payload_len: body.wire,
    };
    Ok((datagram, body))
}

/// The octets of an ICMP or ICMPv6 message; type, code and checksum (RFC 792, RFC 4443 §2.1) are there.
pub(super) fn icmp(span: Span<'_>) -> Result<&[u8], Reason> {
    if span.bytes.len() < 4 { Err("ICMP header cut off") } else { Ok(span.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 octets: ports 1 and 2, header length in the thirteenth octet.
    fn header(offset: u8) -> Vec<u8> {
        let mut header = vec![0; 20];
        (header[1], header[3], header[12]) = (1, 2, offset << 4);
        header
    }

    #[test]
    fn options_cut_by_the_capture_leave_the_fixed_fields_readable() {
        let bytes = [header(8), vec![1, 1]].concat();
        let segment = tcp(Span::new(&bytes, 132)).expect("a segment");
        assert_eq!((segment.options, segment.payload, segment.payload_len), (&[1, 1][..], &[][..], 100));
    }

    #[test]
    fn impossible_header_lengths_are_named() {
        for (offset, wire, says) in
            [(4, 60, "TCP header length below 20 octets"), (8, 31, "TCP header length beyond the packet")]
        {
            assert_eq!(tcp(Span::new(&header(offset), wire)).err(), Some(says));
        }
        assert_eq!(tcp(Span::new(&header(5)[..19], 40)).err(), Some("TCP header cut off"));
    }

    #[test]
    fn udp_length_decides_unless_it_is_zero_or_too_long() {
        for (length, payload_len) in [(10, 2), (0, 4), (4000, 4)] {
            let bytes = [&[0, 1, 0, 2][..], &u16::to_be_bytes(length), &[0, 0, 9, 9, 9, 9]].concat();
            let (datagram, _) = udp(Span::whole(&bytes)).expect("a datagram");
            assert_eq!(datagram.payload_len, payload_len);
        }
        assert_eq!(udp(Span::whole(&[0, 1, 0, 2, 0, 7, 0, 0])).err(), Some("UDP length below 8 octets"));
    }
}
