//! The fast path: Ethernet with at most one VLAN tag, IPv4 or IPv6 with nothing between its header and TCP or UDP.
//!
//! Fields are read by hand because this runs for nearly every frame; anything unusual (options, fragments, tunnels, a length of 0 or beyond
//! the frame, headers that cannot be read) is left to the walk by answering `None`. Tests hold it equal to the walk and to etherparse.

use super::span::Span;
use super::transport::{self, number};
use super::{Direction, Ip, Link, Packet, Transport, link, tunnel};
use crate::capture::{Frame, LinkType};
use crate::event::PacketRef;
use crate::wire::{Address, Mac};

/// The packet of an ordinary frame; `None` when the walk must look.
///
/// Only TCP over IPv4 and IPv6 without a tag is read in the caller's place, so that what nearly all packets need is short and in one piece.
#[inline(always)]
pub(super) fn packet<'a>(frame: &Frame<'a>) -> Option<Packet<'a>> {
    if frame.link != LinkType::ETHERNET {
        return None;
    }
    let (ethernet, rest) = Span::new(frame.bytes, frame.wire_len).take::<14>("").ok()?;
    let ether_type = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    match ether_type {
        link::IPV4 if rest.bytes.get(9) == Some(&number::TCP) => ipv4(frame, ethernet, None, rest),
        link::IPV6 if rest.bytes.get(6) == Some(&number::TCP) => ipv6(frame, ethernet, None, rest),
        _ => other(frame),
    }
}

/// The same for all that the fast path reads: VLAN tags and UDP too.
#[inline(never)]
fn other<'a>(frame: &Frame<'a>) -> Option<Packet<'a>> {
    let (ethernet, mut rest) = Span::new(frame.bytes, frame.wire_len).take::<14>("").ok()?;
    let mut ether_type = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    let mut vlan = None;
    if ether_type == link::VLAN {
        let (tag, inner) = rest.take::<4>("").ok()?;
        vlan = link::vlan_id([tag[0], tag[1]]);
        (ether_type, rest) = (u16::from_be_bytes([tag[2], tag[3]]), inner);
    }
    match ether_type {
        link::IPV4 => ipv4(frame, ethernet, vlan, rest),
        link::IPV6 => ipv6(frame, ethernet, vlan, rest),
        _ => None,
    }
}

/// An IPv4 header of 20 octets (RFC 791 §3.1) in front of TCP or UDP; `None` for options, fragments, other protocols, odd lengths.
#[inline(always)]
fn ipv4<'a>(frame: &Frame<'a>, ethernet: &[u8; 14], vlan: Option<u16>, span: Span<'a>) -> Option<Packet<'a>> {
    let (head, rest) = span.take::<20>("").ok()?;
    let len = u32::from(u16::from_be_bytes([head[2], head[3]]));
    // More fragments, or an offset: the last 14 bits of flags and offset.
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff;
    if head[0] != 0x45 || fragment != 0 || len < 20 || len > span.wire {
        return None;
    }
    let body = rest.first(len - 20);
    let transport = transport(head[9], body)?;
    let ip = Ip {
        source: Address::v4([head[12], head[13], head[14], head[15]]),
        destination: Address::v4([head[16], head[17], head[18], head[19]]),
        ttl: head[8],
        id: Some(u16::from_be_bytes([head[4], head[5]])),
        len,
        reassembled: false,
        tunnelled: false,
    };
    Some(made(frame, ethernet, vlan, ip, transport, body.is_cut()))
}

/// An IPv6 header (RFC 8200 §3) directly in front of TCP or UDP; `None` for extension headers, other protocols and length 0.
#[inline(always)]
fn ipv6<'a>(frame: &Frame<'a>, ethernet: &[u8; 14], vlan: Option<u16>, span: Span<'a>) -> Option<Packet<'a>> {
    let (head, rest) = span.take::<40>("").ok()?;
    let payload = u32::from(u16::from_be_bytes([head[4], head[5]]));
    if head[0] >> 4 != 6 || payload == 0 || payload > rest.wire {
        return None;
    }
    let body = rest.first(payload);
    let transport = transport(head[6], body)?;
    let ip = Ip {
        source: Address::v6(*head[8..].first_chunk()?),
        destination: Address::v6(*head[24..].first_chunk()?),
        ttl: head[7],
        id: None,
        len: payload + 40,
        reassembled: false,
        tunnelled: false,
    };
    Some(made(frame, ethernet, vlan, ip, transport, body.is_cut()))
}

/// The two protocols whose headers the fast path reads.
#[inline(always)]
fn transport(protocol: u8, body: Span<'_>) -> Option<Transport<'_>> {
    match protocol {
        number::TCP => transport::tcp(body).ok().map(Transport::Tcp),
        number::UDP => match transport::udp(body) {
            Ok((datagram, _)) if !tunnel::may_be(datagram.destination_port) => Some(Transport::Udp(datagram)),
            _ => None,
        },
        _ => None,
    }
}

#[inline(always)]
fn made<'a>(
    frame: &Frame<'a>,
    ethernet: &[u8; 14],
    vlan: Option<u16>,
    ip: Ip,
    transport: Transport<'a>,
    cut: bool,
) -> Packet<'a> {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _] = *ethernet;
    Packet {
        at: PacketRef { file: frame.file, number: frame.number, time: frame.time },
        interface: frame.interface,
        link: Link {
            direction: told(frame),
            source: Some(Mac([s0, s1, s2, s3, s4, s5])),
            destination: Some(Mac([d0, d1, d2, d3, d4, d5])),
            ifindex: 0,
            vlan,
        },
        ip: Some(ip),
        transport,
        cut,
    }
}

/// pcapng tells the direction beside the packet (§4.3.1), the link layer of Linux cooked captures inside it.
#[inline]
pub(super) fn told(frame: &Frame<'_>) -> Direction {
    const TOLD: [Direction; 4] = [Direction::Unknown, Direction::In, Direction::Out, Direction::Unknown];
    TOLD[frame.flags as usize % 4]
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
