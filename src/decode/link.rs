//! Link layers: what stands in front of IP, by link type of the capture. <https://www.tcpdump.org/linktypes.html>

use super::mpls::mpls;
use super::span::{Reason, Span};
use super::walk::{Layer, Step};
use super::{Direction, Link, Transport};
use crate::capture::LinkType;
use crate::wire::Mac;

/// EtherTypes (IANA "IEEE 802 Numbers").
pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const VLAN: u16 = 0x8100;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const TRANSPARENT_ETHERNET: u16 = 0x6558;
pub(super) const MPLS: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;
const PPPOE_SESSION: u16 = 0x8864;
/// 802.1ad service tag, and the two numbers used for it before there was a standard.
pub(super) const SERVICE_TAGS: [u16; 3] = [0x88a8, 0x9100, 0x9200];
/// More tags than this on one frame are no network anybody runs.
pub(super) const MAX_TAGS: usize = 8;
/// What Linux puts in SLL's protocol field for a frame that begins with an 802.2 LLC header (ETH_P_802_2).
const SLL_LLC: u16 = 0x0004;
/// ARPHRD_NETLINK: SLL's protocol field holds a netlink family.
const ARPHRD_NETLINK: u16 = 824;

/// The layer a frame of this link type begins with; `None` when nobody here can read it.
pub(super) fn first_layer(link: LinkType) -> Option<Layer> {
    Some(match link.0 {
        0 | 108 => Layer::Loopback,
        1 => Layer::Ethernet,
        9 => Layer::Ppp,
        12 | 14 | 101 => Layer::Ip,
        50 | 104 => Layer::SerialPpp,
        51 => Layer::Pppoe,
        113 => Layer::Sll,
        228 => Layer::Ipv4,
        229 => Layer::Ipv6,
        276 => Layer::Sll2,
        _ => return None,
    })
}

/// The VLAN id of a tag's control field (802.1Q §9.6); 0 means "priority only".
#[inline]
pub(super) fn vlan_id(control: [u8; 2]) -> Option<u16> {
    Some(u16::from_be_bytes(control) & 0x0fff).filter(|id| *id != 0)
}

/// Ethernet II and 802.3. The addresses are kept; an inner Ethernet header replaces those of the outer one.
pub(super) fn ethernet<'a>(span: Span<'a>, link: &mut Link) -> Result<Step<'a>, Reason> {
    let (head, rest) = span.take::<14>("Ethernet header cut off")?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *head;
    link.destination = Some(Mac([d0, d1, d2, d3, d4, d5]));
    link.source = Some(Mac([s0, s1, s2, s3, s4, s5]));
    link.vlan = None;
    Ok(match u16::from_be_bytes([t0, t1]) {
        length @ 0..=1500 => Step::Layer(Layer::Llc, rest.first(rest.wire.min(length.into()))),
        ether_type => Step::Layer(Layer::EtherType(ether_type), rest),
    })
}

/// 802.2 LLC: SNAP holds an EtherType, everything else is named by its two service access points.
pub(super) fn llc(span: Span<'_>) -> Result<Step<'_>, Reason> {
    const SNAP: [u8; 3] = [0xaa, 0xaa, 0x03];
    if let Ok((&[a, b, c, 0, 0, 0, t0, t1], rest)) = span.take::<8>("")
        && [a, b, c] == SNAP
    {
        return Ok(Step::Layer(Layer::EtherType(u16::from_be_bytes([t0, t1])), rest));
    }
    let (points, _) = span.take::<2>("LLC header cut off")?;
    Ok(Step::End(Transport::NotIp(u16::from_be_bytes(*points))))
}

/// What an EtherType announces, after its VLAN tags.
pub(super) fn ether_type<'a>(mut kind: u16, mut span: Span<'a>, link: &mut Link) -> Result<Step<'a>, Reason> {
    let mut tags = 0;
    while kind == VLAN || SERVICE_TAGS.contains(&kind) {
        tags += 1;
        if tags > MAX_TAGS {
            return Err("more than 8 VLAN tags");
        }
        let (&[c0, c1, t0, t1], rest) = span.take::<4>("VLAN tag cut off")?;
        link.vlan = vlan_id([c0, c1]).or(link.vlan);
        (kind, span) = (u16::from_be_bytes([t0, t1]), rest);
    }
    Ok(match kind {
        IPV4 => Step::Layer(Layer::Ipv4, span),
        IPV6 => Step::Layer(Layer::Ipv6, span),
        ARP => Step::End(Transport::Arp(arp(span)?)),
        PPPOE_SESSION => Step::Layer(Layer::Pppoe, span),
        MPLS | MPLS_MULTICAST => mpls(span)?,
        // 802.3 behind a VLAN tag.
        length @ 0..=1500 if tags > 0 => Step::Layer(Layer::Llc, span.first(span.wire.min(length.into()))),
        _ => Step::End(Transport::NotIp(kind)),
    })
}

/// An ARP packet without the Ethernet padding behind it.
fn arp(span: Span<'_>) -> Result<&[u8], Reason> {
    let packet = etherparse::ArpPacketSlice::from_slice(span.bytes).map_err(|_| "ARP packet cut off")?;
    span.bytes.get(..packet.slice().len()).ok_or("ARP packet cut off")
}

/// Linux cooked capture, version 1: 16 octets.
pub(super) fn sll<'a>(span: Span<'a>, link: &mut Link) -> Result<Step<'a>, Reason> {
    let (head, rest) = span.take::<16>("SLL header cut off")?;
    let [t0, t1, h0, h1, l0, l1, m0, m1, m2, m3, m4, m5, _, _, p0, p1] = *head;
    link.direction = direction(u16::from_be_bytes([t0, t1]));
    link.source = (u16::from_be_bytes([l0, l1]) == 6).then_some(Mac([m0, m1, m2, m3, m4, m5]));
    Ok(cooked(u16::from_be_bytes([h0, h1]), u16::from_be_bytes([p0, p1]), rest))
}

/// Linux cooked capture, version 2: 20 octets, with the interface index.
pub(super) fn sll2<'a>(span: Span<'a>, link: &mut Link) -> Result<Step<'a>, Reason> {
    let (head, rest) = span.take::<20>("SLL2 header cut off")?;
    let [p0, p1, _, _, i0, i1, i2, i3, h0, h1, kind, length, m0, m1, m2, m3, m4, m5, _, _] = *head;
    link.direction = direction(kind.into());
    link.ifindex = u32::from_be_bytes([i0, i1, i2, i3]);
    link.source = (length == 6).then_some(Mac([m0, m1, m2, m3, m4, m5]));
    Ok(cooked(u16::from_be_bytes([h0, h1]), u16::from_be_bytes([p0, p1]), rest))
}

fn cooked(hardware: u16, protocol: u16, rest: Span<'_>) -> Step<'_> {
    match (hardware, protocol) {
        (ARPHRD_NETLINK, _) => Step::End(Transport::NotIp(0)),
        (_, SLL_LLC) => Step::Layer(Layer::Llc, rest),
        _ => Step::Layer(Layer::EtherType(protocol), rest),
    }
}

/// Packet type of a cooked capture (linux/if_packet.h).
fn direction(kind: u16) -> Direction {
    match kind {
        0 => Direction::In,
        1 | 2 => Direction::Broadcast,
        3 => Direction::OtherHost,
        4 => Direction::Out,
        _ => Direction::Unknown,
    }
}

/// BSD loopback: four octets of address family, in the byte order of whoever captured. LOOP should be in network order; not everybody
/// kept to it, so both are read alike.
pub(super) fn loopback(span: Span<'_>) -> Result<Step<'_>, Reason> {
    let (family, rest) = span.take::<4>("loopback header cut off")?;
    // Families are small numbers: the reading that gives one is the right one.
    Ok(match u32::from_le_bytes(*family).min(u32::from_be_bytes(*family)) {
        2 => Step::Layer(Layer::Ipv4, rest),
        // Linux 10, NetBSD, OpenBSD and Windows 24, FreeBSD 28, Darwin 30.
        10 | 24 | 28 | 30 => Step::Layer(Layer::Ipv6, rest),
        _ => Step::End(Transport::NotIp(0)),
    })
}

/// PPP (RFC 1661 §2), with or without address and control octets, protocol field compressed or not (§6.5, §6.6).
pub(super) fn ppp(span: Span<'_>) -> Result<Step<'_>, Reason> {
    const REASON: Reason = "PPP header cut off";
    let span = match span.take::<2>(REASON)? {
        (&[0xff, 0x03], rest) => rest,
        _ => span,
    };
    let (&[first], rest) = span.take::<1>(REASON)?;
    // The last octet of a protocol number is odd, all others are even: an odd first octet is the whole number.
    let (protocol, rest) = match first & 1 {
        1 => (u16::from(first), rest),
        _ => {
            let (&[second], rest) = rest.take::<1>(REASON)?;
            (u16::from_be_bytes([first, second]), rest)
        }
    };
    Ok(match protocol {
        0x0021 => Step::Layer(Layer::Ipv4, rest),
        0x0057 => Step::Layer(Layer::Ipv6, rest),
        0x0281 | 0x0283 => mpls(rest)?,
        _ => Step::End(Transport::NotIp(protocol)),
    })
}

/// PPP in HDLC framing (RFC 1662), or Cisco's HDLC: address 0x0f or 0x8f, control 0, then an EtherType.
pub(super) fn serial_ppp(span: Span<'_>) -> Result<Step<'_>, Reason> {
    match span.take::<4>("PPP header cut off")? {
        (&[0x0f | 0x8f, 0, t0, t1], rest) => Ok(Step::Layer(Layer::EtherType(u16::from_be_bytes([t0, t1])), rest)),
        _ => Ok(Step::Layer(Layer::Ppp, span)),
    }
}

/// PPPoE session packets (RFC 2516 §4): version and type 1, code 0, session, length.
pub(super) fn pppoe(span: Span<'_>) -> Result<Step<'_>, Reason> {
    let (&[version, code, _, _, l0, l1], rest) = span.take::<6>("PPPoE header cut off")?;
    if (version, code) != (0x11, 0) {
        return Ok(Step::End(Transport::NotIp(PPPOE_SESSION)));
    }
    let length = u32::from(u16::from_be_bytes([l0, l1]));
    Ok(Step::Layer(Layer::Ppp, rest.first(rest.wire.min(length))))
}
