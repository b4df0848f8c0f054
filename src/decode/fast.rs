//! The fast path: Ethernet with at most one VLAN tag, IPv4 or IPv6 with nothing between its header and TCP or UDP.
//!
//! Fields are read by hand because this runs for nearly every frame; anything unusual (options, fragments, tunnels, a length of 0 or beyond the frame) is left to
//! the walk by answering `None`. Tests hold it equal to the walk and to etherparse.

use super::span::Span;
use super::transport::{self, number};
use super::{Direction, Ip, Link, Packet, Transport, link, tunnel};
use crate::capture::{Frame, LinkType};
use crate::event::PacketRef;
use crate::wire::{Address, Mac};

/// The packet of an ordinary frame, of which `direction` is told beside it; `None` when the walk must look.
#[inline]
pub(super) fn packet<'a>(frame: &Frame<'a>, direction: Direction) -> Option<Packet<'a>> {
    if frame.link != LinkType::ETHERNET {
        return None;
    }
    let (ethernet, mut rest) = frame.bytes.split_first_chunk::<14>()?;
    let mut ether_type = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    let mut vlan = None;
    if ether_type == link::VLAN {
        let (tag, inner) = rest.split_first_chunk::<4>()?;
        vlan = link::vlan_id([tag[0], tag[1]]);
        ether_type = u16::from_be_bytes([tag[2], tag[3]]);
        rest = inner;
    }
    let frame_wire = Span::new(frame.bytes, frame.wire_len).wire;
    let rest = Span::new(rest, frame_wire - (frame.bytes.len() - rest.len()) as u32);
    let (ip, protocol, body) = match ether_type {
        link::IPV4 => ipv4(rest)?,
        link::IPV6 => ipv6(rest)?,
        _ => return None,
    };
    let transport = match protocol {
        number::TCP => transport::tcp(body),
        _ => match transport::udp(body) {
            Ok((datagram, _)) if tunnel::may_be(datagram.destination_port) => return None,
            Ok((datagram, _)) => Transport::Udp(datagram),
            Err(reason) => Transport::Unreadable(reason),
        },
    };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _] = *ethernet;
    Some(Packet {
        at: PacketRef { file: frame.file, number: frame.number, time: frame.time },
        interface: frame.interface,
        link: Link {
            direction,
            source: Some(Mac([s0, s1, s2, s3, s4, s5])),
            destination: Some(Mac([d0, d1, d2, d3, d4, d5])),
            ifindex: 0,
            vlan,
        },
        ip: Some(ip),
        transport,
        cut: body.is_cut(),
    })
}

/// An IPv4 header of 20 octets (RFC 791 §3.1) in front of TCP or UDP; `None` for options, fragments, other protocols, odd lengths.
#[inline]
fn ipv4(span: Span<'_>) -> Option<(Ip, u8, Span<'_>)> {
    let (head, _) = span.bytes.split_first_chunk::<20>()?;
    let len = u32::from(u16::from_be_bytes([head[2], head[3]]));
    // More fragments, or an offset: the last 14 bits of flags and offset.
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff;
    let protocol = head[9];
    if head[0] != 0x45 || fragment != 0 || len < 20 || len > span.wire || !is_plain(protocol) {
        return None;
    }
    let ip = Ip {
        source: Address::v4([head[12], head[13], head[14], head[15]]),
        destination: Address::v4([head[16], head[17], head[18], head[19]]),
        ttl: head[8],
        id: Some(u16::from_be_bytes([head[4], head[5]])),
        len,
        reassembled: false,
        tunnelled: false,
    };
    Some((ip, protocol, span.first(len).skip(20, "").ok()?))
}

/// An IPv6 header (RFC 8200 §3) directly in front of TCP or UDP; `None` for extension headers, other protocols and length 0.
#[inline]
fn ipv6(span: Span<'_>) -> Option<(Ip, u8, Span<'_>)> {
    let (head, _) = span.bytes.split_first_chunk::<40>()?;
    let payload = u32::from(u16::from_be_bytes([head[4], head[5]]));
    let protocol = head[6];
    if head[0] >> 4 != 6 || payload == 0 || payload + 40 > span.wire || !is_plain(protocol) {
        return None;
    }
    let ip = Ip {
        source: Address::v6(*head[8..].first_chunk()?),
        destination: Address::v6(*head[24..].first_chunk()?),
        ttl: head[7],
        id: None,
        len: payload + 40,
        reassembled: false,
        tunnelled: false,
    };
    Some((ip, protocol, span.first(payload + 40).skip(40, "").ok()?))
}

/// The two protocols whose headers the fast path reads.
#[inline]
fn is_plain(protocol: u8) -> bool {
    protocol == number::TCP || protocol == number::UDP
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Transport, samples};

    /// Ethernet, IPv4 and TCP with four octets of payload; the IP header claims `total` octets.
    fn claims(total: u16) -> Vec<u8> {
        let mut bytes = vec![0; 14 + 20 + 20 + 4];
        (bytes[12], bytes[14], bytes[23], bytes[46]) = (0x08, 0x45, 6, 0x50);
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        bytes
    }

    #[test]
    fn an_ip_length_beyond_the_frame_ends_with_the_frame() {
        for (total, wire_len, ip_len, payload_len) in [(44, 58, 44, 4), (1500, 58, 44, 4), (1500, 1000, 986, 946)] {
            let bytes = claims(total);
            let mut decoder = Decoder::new(Default::default());
            let packet = decoder.decode(&samples::frame(1, &bytes, wire_len));
            let Transport::Tcp(segment) = packet.transport else { panic!("no TCP") };
            assert_eq!((packet.ip.map(|ip| ip.len), segment.payload_len), (Some(ip_len), payload_len));
        }
    }
}
