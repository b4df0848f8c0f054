//! What GRE and the tunnels over UDP hold.
//!
//! A port only says where to look: what does not begin as the tunnel's standard demands is somebody's ordinary datagram.

use super::link;
use super::span::{Reason, Span};
use super::walk::Layer;

/// VXLAN (RFC 7348), VXLAN as the Linux kernel first had it, Geneve (RFC 8926), GTP-U (3GPP TS 29.281 §4.4.2), GRE (RFC 8086 §8).
const VXLAN: u16 = 4789;
const VXLAN_LINUX: u16 = 8472;
const GENEVE: u16 = 6081;
const GTP_USER: u16 = 2152;
const GRE_IN_UDP: u16 = 4754;

/// The first layer inside a tunnel, and its octets.
type Inner<'a> = (Layer, Span<'a>);

/// Whether datagrams to this port may be tunnels; what they hold decides.
#[inline]
pub(super) fn may_be(destination_port: u16) -> bool {
    matches!(destination_port, VXLAN | VXLAN_LINUX | GENEVE | GTP_USER | GRE_IN_UDP)
}

/// What the payload of a datagram to this port holds; `None` when it is no tunnel.
pub(super) fn in_datagram(destination_port: u16, body: Span<'_>) -> Option<Inner<'_>> {
    match destination_port {
        VXLAN | VXLAN_LINUX => vxlan(body),
        GENEVE => geneve(body),
        GTP_USER => gtp_user(body),
        GRE_IN_UDP => gre(body).ok().flatten().filter(|inner| is_what_it_says(*inner)),
        _ => None,
    }
}

/// GRE (RFC 2784, with key and sequence number of RFC 2890) around IP, Ethernet or MPLS, and ERSPAN's mirrored frames. `None` for other
/// contents and PPTP's version 1.
pub(super) fn gre(span: Span<'_>) -> Result<Option<Inner<'_>>, Reason> {
    const REASON: Reason = "GRE header cut off";
    const CHECKSUM: u8 = 0x80;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    const ROUTING: u8 = 0x40;
    let (&[flags, version, p0, p1], rest) = span.take::<4>(REASON)?;
    let optional = 4 * (flags & (CHECKSUM | KEY | SEQUENCE)).count_ones() as usize;
    let is_plain = flags & ROUTING == 0 && version & 0x07 == 0;
    let (layer, behind) = match u16::from_be_bytes([p0, p1]) {
        kind @ (link::IPV4 | link::IPV6 | link::MPLS) if is_plain => (Layer::EtherType(kind), 0),
        link::TRANSPARENT_ETHERNET if is_plain => (Layer::Ethernet, 0),
        // ERSPAN type I has no header of its own and no sequence number; type II has 8 octets, type III 12 and more.
        0x88be if is_plain && flags & SEQUENCE == 0 => (Layer::Ethernet, 0),
        0x88be if is_plain => (Layer::Ethernet, 8),
        0x22eb if is_plain => {
            let (head, _) = rest.skip(optional, REASON)?.take::<12>("ERSPAN header cut off")?;
            (Layer::Ethernet, 12 + 8 * usize::from(head[11] & 1))
        }
        _ => return Ok(None),
    };
    Ok(Some((layer, rest.skip(optional + behind, REASON)?)))
}

/// GRE's header is too short to be told from other datagrams; what follows it is not.
fn is_what_it_says((layer, body): Inner<'_>) -> bool {
    let version = body.bytes.first().map(|first| first >> 4);
    match layer {
        Layer::EtherType(link::IPV4) => version == Some(4),
        Layer::EtherType(link::IPV6) => version == Some(6),
        _ => true,
    }
}

/// RFC 7348 §5: flag I alone, reserved octets zero.
fn vxlan(body: Span<'_>) -> Option<Inner<'_>> {
    match body.take::<8>("").ok()? {
        (&[0x08, 0, 0, 0, _, _, _, 0], inner) => Some((Layer::Ethernet, inner)),
        _ => None,
    }
}

/// RFC 8926 §3.4: version 0, reserved bits zero, options of 4-octet words, Ethernet or IP inside.
fn geneve(body: Span<'_>) -> Option<Inner<'_>> {
    let (&[first, flags, p0, p1, _, _, _, 0], rest) = body.take::<8>("").ok()? else { return None };
    if first >> 6 != 0 || flags & 0x3f != 0 {
        return None;
    }
    let inner = rest.skip(usize::from(first & 0x3f) * 4, "").ok()?;
    match u16::from_be_bytes([p0, p1]) {
        link::TRANSPARENT_ETHERNET => Some((Layer::Ethernet, inner)),
        kind @ (link::IPV4 | link::IPV6) => Some((Layer::EtherType(kind), inner)),
        _ => None,
    }
}

/// User packets of mobile networks (3GPP TS 29.281 §5): version 1, message type 255, IP inside. Extension headers are passed over; their
/// lengths count words of 4 octets, and each ends with the type of the next.
fn gtp_user(body: Span<'_>) -> Option<Inner<'_>> {
    const EXTENSION: u8 = 0x04;
    let (&[flags, kind, l0, l1, _, _, _, _], rest) = body.take::<8>("").ok()?;
    // Version 1, protocol type GTP, the spare bit zero.
    if flags & 0xf8 != 0x30 || kind != 255 {
        return None;
    }
    let mut rest = rest.first(u32::from(u16::from_be_bytes([l0, l1])));
    if flags & 0x07 != 0 {
        let (&[_, _, _, mut next], behind) = rest.take::<4>("").ok()?;
        rest = behind;
        while flags & EXTENSION != 0 && next != 0 {
            let words = usize::from(*rest.bytes.first()?);
            next = *rest.bytes.get((words * 4).checked_sub(1)?)?;
            rest = rest.skip(words * 4, "").ok()?;
        }
    }
    matches!(rest.bytes.first()? >> 4, 4 | 6).then_some((Layer::Ip, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found behind GTP-U flags and the octets after its eight.
    fn user(flags: u8, behind: &[u8]) -> Option<Vec<u8>> {
        let head = [flags, 255, 0, behind.len() as u8, 0, 0, 0, 1];
        let octets = [&head, behind].concat();
        in_datagram(GTP_USER, Span::whole(&octets)).map(|(_, inner)| inner.bytes.to_vec())
    }

    #[test]
    fn gtp_with_and_without_options_holds_ip() {
        assert_eq!(user(0x30, &[0x45, 1]), Some(vec![0x45, 1]));
        assert_eq!(user(0x32, &[0, 1, 0, 0, 0x60, 1]), Some(vec![0x60, 1]));
        // Two extension headers of 4 and 8 octets.
        let two = [0, 0, 0, 0x85, 1, 0, 0, 0xc0, 2, 0, 0, 0, 0, 0, 0, 0, 0x45, 1];
        assert_eq!(user(0x34, &two), Some(vec![0x45, 1]));
    }

    #[test]
    fn what_only_uses_the_port_is_no_tunnel() {
        assert_eq!(user(0x30, &[0x12, 1]), None);
        assert_eq!(user(0x48, &[0x45, 1]), None);
        // An extension header of no length would never end.
        assert_eq!(user(0x34, &[0, 0, 0, 0x85, 0, 0, 0, 0x85, 0x45]), None);
        for octets in [&[0, 0, 0x08, 0, 0x12][..], &[0, 0, 0x08], b"hello, I am a chat"] {
            assert!(in_datagram(GRE_IN_UDP, Span::whole(octets)).is_none());
        }
        assert!(in_datagram(GRE_IN_UDP, Span::whole(&[0, 0, 0x08, 0, 0x45])).is_some());
    }
}
