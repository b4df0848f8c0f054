//! The fast path: Ethernet with at most one VLAN tag, IPv4 or IPv6 with nothing between its header and TCP or UDP.
//!
//! Fields are read by hand because this runs for nearly every frame; anything unusual (options, fragments, tunnels, a length of 0 or beyond the frame) is left to
//! the walk by answering `None`. Tests hold it equal to the walk and to etherparse.

use super::span::Span;
use super::transport::{self, number};
use super::{Datagram, Direction, Ip, Link, Packet, Transport, link, tunnel};
use crate::capture::{Frame, LinkType};
use crate::event::PacketRef;
use crate::wire::{Address, Mac};

/// The packet of an ordinary frame, of which `direction` is told beside it; `None` when the walk must look.
#[inline(always)]
pub(super) fn packet<'a>(frame: &Frame<'a>, direction: Direction) -> Option<Packet<'a>> {
    if frame.link != LinkType::ETHERNET {
        return None;
    }
    let (ethernet, rest) = Span::new(frame.bytes, frame.wire_len).take::<14>("").ok()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *ethernet;
    let (source, destination) = (Some(Mac([s0, s1, s2, s3, s4, s5])), Some(Mac([d0, d1, d2, d3, d4, d5])));
    let link = Link { direction, source, destination, ifindex: 0, vlan: None };
    match u16::from_be_bytes([t0, t1]) {
        link::VLAN => {
            let (tag, rest) = rest.take::<4>("").ok()?;
            let link = Link { vlan: link::vlan_id([tag[0], tag[1]]), ..link };
            tagged(frame, link, u16::from_be_bytes([tag[2], tag[3]]), rest)
        }
        link::IPV4 => ipv4(frame, link, rest),
        link::IPV6 => ipv6(frame, link, rest),
        _ => None,
    }
}

/// What follows a VLAN tag.
#[inline(never)]
fn tagged<'a>(frame: &Frame<'a>, link: Link, ether_type: u16, rest: Span<'a>) -> Option<Packet<'a>> {
    match ether_type {
        link::IPV4 => ipv4(frame, link, rest),
        link::IPV6 => ipv6(frame, link, rest),
        _ => None,
    }
}

/// An IPv4 header of 20 octets (RFC 791 §3.1) in front of TCP or UDP; `None` for options, fragments, other protocols, odd lengths.
#[inline(always)]
fn ipv4<'a>(frame: &Frame<'a>, link: Link, span: Span<'a>) -> Option<Packet<'a>> {
    let (head, rest) = span.take::<20>("").ok()?;
    let len = u32::from(u16::from_be_bytes([head[2], head[3]]));
    // More fragments, or an offset: the last 14 bits of flags and offset.
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff;
    if head[0] != 0x45 || fragment != 0 || len < 20 || len > span.wire {
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
    carried(frame, link, ip, head[9], rest.first(len - 20))
}

/// An IPv6 header (RFC 8200 §3) directly in front of TCP or UDP; `None` for extension headers, other protocols and length 0.
#[inline(always)]
fn ipv6<'a>(frame: &Frame<'a>, link: Link, span: Span<'a>) -> Option<Packet<'a>> {
    let (head, rest) = span.take::<40>("").ok()?;
    let payload = u32::from(u16::from_be_bytes([head[4], head[5]]));
    if head[0] >> 4 != 6 || payload == 0 || payload > rest.wire {
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
    carried(frame, link, ip, head[6], rest.first(payload))
}

/// TCP or UDP, whose headers alone the fast path reads. Once for each version of IP: joining them costs more than the code twice.
#[inline(always)]
fn carried<'a>(frame: &Frame<'a>, link: Link, ip: Ip, protocol: u8, body: Span<'a>) -> Option<Packet<'a>> {
    let transport = match protocol {
        number::TCP => Transport::Tcp(transport::tcp(body).ok()?),
        number::UDP => Transport::Udp(transport::udp(body).ok().map(|(datagram, _)| datagram).filter(is_no_tunnel)?),
        _ => return None,
    };
    Some(Packet {
        at: PacketRef { file: frame.file, number: frame.number, time: frame.time },
        interface: frame.interface,
        link,
        ip: Some(ip),
        transport,
        cut: body.is_cut(),
    })
}

#[inline]
fn is_no_tunnel(datagram: &Datagram<'_>) -> bool {
    !tunnel::may_be(datagram.destination_port)
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
