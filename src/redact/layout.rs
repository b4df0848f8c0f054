//! Where the headers of a frame stand: the walk of `decode`, with the place of everything that may name somebody.

mod inner;

use crate::capture::LinkType;

/// Headers inside each other.
const DEEPEST: usize = 48;
/// Tags and labels in a row.
const MOST_TAGS: usize = 8;

/// A part of a frame. Places are offsets in the frame, ends those of what was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A link address.
    Mac(usize),
    /// An IPv4 header of so many octets; its checksum covers it.
    Ip4 { at: usize, len: usize },
    /// An IPv6 header.
    Ip6 { at: usize },
    /// An IPv6 address elsewhere.
    Address6(usize),
    /// An IPv4 address elsewhere.
    Address4(usize),
    /// A TCP segment.
    Tcp(Layer),
    /// A UDP datagram; a tunnel's has its contents in other parts.
    Udp(Layer, bool),
    /// ICMP, ICMPv6, IGMP, VRRP: a checksum at the offset, and `pseudo`: it covers both addresses.
    Sum { layer: Layer, at: usize, pseudo: bool },
    /// A GRE header with a checksum over all behind it.
    Gre { at: usize, end: usize },
    /// A fragment of a datagram.
    Fragment(Fragment),
    /// Octets that are filled.
    Fill { at: usize, end: usize },
    /// Octets that become zero.
    Zero { at: usize, end: usize },
}

/// A transport layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// Where its addresses stand.
    pub(super) ip: usize,
    pub(super) v6: bool,
    pub(super) at: usize,
    pub(super) end: usize,
    /// Octets on the wire.
    pub(super) wire: u32,
    /// Quoted in an ICMP error, or one fragment of several: its octets stand in no stream.
    pub(super) apart: bool,
}

/// A fragment: where its octets stand, and where in the datagram they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Where its IP header stands, and how long that is.
    pub(super) ip: usize,
    pub(super) header: usize,
    pub(super) v6: bool,
    pub(super) protocol: u8,
    pub(super) id: u32,
    pub(super) at: usize,
    pub(super) end: usize,
    pub(super) start: usize,
    pub(super) more: bool,
}

/// What is walked over.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    parts: Vec<Part>,
    depth: usize,
    quoted: bool,
}

/// Parts from the outside in.
pub(super) fn parts(link: LinkType, bytes: &[u8], wire: u32) -> Vec<Part> {
    let mut walk = Walk { bytes, parts: Vec::new(), depth: 0, quoted: false };
    let end = bytes.len();
    let wire = wire.max(end as u32);
    match link.0 {
        0 | 108 => walk.loopback(wire),
        1 => walk.ethernet(0, end, wire),
        9 => walk.ppp(0, end, wire),
        12 | 14 | 101 => walk.ip(0, end, wire),
        50 | 104 if bytes.starts_with(&[0x0f, 0]) || bytes.starts_with(&[0x8f, 0]) => walk.ether_type(2, end, wire - 2),
        50 | 104 => walk.ppp(0, end, wire),
        51 => walk.pppoe(0, end, wire),
        113 => walk.cooked(end, wire, 6, 14, 16, 2, 4),
        228 => walk.ip(0, end, wire),
        229 => walk.ip(0, end, wire),
        276 => walk.cooked(end, wire, 12, 0, 20, 8, 11),
        _ => walk.fill(0, end),
    }
    walk.parts
}

impl Walk<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        let pair = self.bytes.get(at..at + 2)?;
        Some(u16::from_be_bytes([pair[0], pair[1]]))
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    fn fill(&mut self, at: usize, end: usize) {
        if at < end {
            self.push(Part::Fill { at, end });
        }
    }

    fn zero(&mut self, at: usize, end: usize) {
        if at < end {
            self.push(Part::Zero { at, end });
        }
    }

    /// Whether one more header may be read.
    fn deeper(&mut self, at: usize, end: usize) -> bool {
        self.depth += 1;
        if self.depth > DEEPEST {
            self.fill(at, end);
        }
        self.depth <= DEEPEST
    }

    fn ethernet(&mut self, at: usize, end: usize, wire: u32) {
        if !self.deeper(at, end) {
            return;
        }
        if at + 14 > end {
            return self.zero(at, end);
        }
        self.push(Part::Mac(at));
        self.push(Part::Mac(at + 6));
        self.ether_type(at + 12, end, wire.saturating_sub(12));
    }

    /// What follows an EtherType, or a length, at `at`.
    fn ether_type(&mut self, mut at: usize, end: usize, mut wire: u32) {
        for _ in 0..=MOST_TAGS {
            let Some(kind) = self.u16(at).filter(|_| at + 2 <= end) else { return self.zero(at, end) };
            at += 2;
            wire = wire.saturating_sub(2);
            match kind {
                0x8100 | 0x88a8 | 0x9100 | 0x9200 => {
                    at += 2;
                    wire = wire.saturating_sub(2);
                }
                0x0800 | 0x86dd => return self.ip(at, end, wire),
                0x0806 => return self.arp(at, end),
                0x8864 => return self.pppoe(at, end, wire),
                0x8847 | 0x8848 => return self.mpls(at, end, wire),
                0..=1500 => return self.llc(at, end, wire.min(kind.into())),
                _ => return self.fill(at, end),
            }
        }
        self.fill(at.min(end), end);
    }

    fn llc(&mut self, at: usize, end: usize, wire: u32) {
        let Some(head) = self.bytes.get(at..end) else { return };
        match head {
            [0xaa, 0xaa, 0x03, 0, 0, 0, ..] => self.ether_type(at + 6, end, wire.saturating_sub(6)),
            // Spanning tree: the addresses of the root and of the bridge.
            [0x42, 0x42, 0x03, 0, 0, _, 0 | 2, ..] if at + 38 <= end => {
                self.push(Part::Mac(at + 10));
                self.push(Part::Mac(at + 22));
                self.zero(at + 38, end);
            }
            [0x42, 0x42, 0x03, 0, 0, ..] => self.zero((at + 7).min(end), end),
            _ => self.fill((at + 3).min(end), end),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "two versions of one header")]
    fn cooked(&mut self, end: usize, wire: u32, mac: usize, kind: usize, len: usize, hardware: usize, length: usize) {
        if end < len {
            return self.zero(0, end);
        }
        let length = if len == 20 { self.u8(length).map(u16::from) } else { self.u16(length) };
        match length {
            Some(6) => {
                self.push(Part::Mac(mac));
                self.zero(mac + 6, mac + 8);
            }
            _ => self.zero(mac, mac + 8),
        }
        // Netlink messages are no network's.
        if self.u16(hardware) == Some(824) {
            return self.fill(len, end);
        }
        let wire = wire.saturating_sub(len as u32);
        match self.u16(kind) {
            Some(0x0004) => self.llc(len, end, wire),
            Some(0x0800 | 0x86dd) => self.ip(len, end, wire),
            Some(0x0806) => self.arp(len, end),
            Some(0x8100 | 0x88a8 | 0x9100 | 0x9200) => self.ether_type(len + 2, end, wire.saturating_sub(2)),
            Some(0x8864) => self.pppoe(len, end, wire),
            Some(0x8847 | 0x8848) => self.mpls(len, end, wire),
            _ => self.fill(len, end),
        }
    }

    fn loopback(&mut self, wire: u32) {
        let end = self.bytes.len();
        self.ip(4.min(end), end, wire.saturating_sub(4));
    }

    fn ppp(&mut self, mut at: usize, end: usize, mut wire: u32) {
        let start = at;
        if self.bytes.get(at..end).is_some_and(|octets| octets.starts_with(&[0xff, 0x03])) {
            at += 2;
        }
        let Some(first) = self.u8(at).filter(|_| at < end) else { return self.zero(at, end) };
        let (protocol, len) = match first & 1 {
            1 => (u16::from(first), 1),
            _ => (self.u16(at).unwrap_or(0), 2),
        };
        at = (at + len).min(end);
        wire = wire.saturating_sub((at - start) as u32);
        match protocol {
            0x0021 | 0x0057 => self.ip(at, end, wire),
            0x0281 | 0x0283 => self.mpls(at, end, wire),
            _ => self.fill(at, end),
        }
    }

    fn pppoe(&mut self, at: usize, end: usize, wire: u32) {
        match self.bytes.get(at..end) {
            Some([0x11, 0, _, _, l0, l1, ..]) => {
                let wire = wire.saturating_sub(6).min(u16::from_be_bytes([*l0, *l1]).into());
                let inner = end.min(at + 6 + wire as usize);
                self.ppp(at + 6, inner, wire);
                self.zero(inner, end);
            }
            _ => self.fill(at.min(end), end),
        }
    }

    fn mpls(&mut self, mut at: usize, end: usize, mut wire: u32) {
        for _ in 0..MOST_TAGS {
            let Some(label) = self.bytes.get(at..end).and_then(|octets| octets.get(..4)) else {
                return self.zero(at, end);
            };
            let bottom = label[2] & 1 == 1;
            at += 4;
            wire = wire.saturating_sub(4);
            if bottom {
                break;
            }
        }
        let ethernet = |at: usize| {
            let kind = self.u16(at + 12).filter(|_| at + 16 <= end)?;
            let first = self.u8(at + 14)? >> 4;
            Some(match kind {
                0x0800 => first == 4,
                0x86dd => first == 6,
                0x0806 => self.u16(at + 14) == Some(1),
                kind => matches!(kind, 0x8100 | 0x88a8 | 0x9100 | 0x9200),
            })
        };
        let first = self.u8(at).map(|octet| octet >> 4);
        let behind_word = first == Some(0) && ethernet(at + 4) == Some(true);
        if behind_word {
            self.ethernet(at + 4, end, wire.saturating_sub(4));
        } else if ethernet(at) == Some(true) && !self.fits_ip(at, wire) {
            self.ethernet(at, end, wire);
        } else if matches!(first, Some(4 | 6)) {
            self.ip(at, end, wire);
        } else {
            self.fill(at, end);
        }
    }

    /// Whether lengths say that it is IP and no address that begins like it.
    fn fits_ip(&self, at: usize, wire: u32) -> bool {
        let fits = |len: u32| len <= wire && (wire <= 42 || wire - len <= 8);
        match self.u8(at).map(|octet| octet >> 4) {
            Some(4) => self.u16(at + 2).is_some_and(|len| fits(len.into())),
            Some(6) => self.u16(at + 4).is_some_and(|len| fits(40 + u32::from(len))),
            _ => false,
        }
    }

    fn arp(&mut self, at: usize, end: usize) {
        let lengths = (self.u16(at + 2), self.u8(at + 4), self.u8(at + 5));
        let (Some(0x0800), Some(hardware), Some(4)) = lengths else { return self.fill((at + 8).min(end), end) };
        let hardware = usize::from(hardware);
        let mut next = at + 8;
        for _ in 0..2 {
            if hardware == 6 && next + 6 <= end {
                self.push(Part::Mac(next));
            } else {
                self.zero(next.min(end), end.min(next + hardware));
            }
            next += hardware;
            if next + 4 > end {
                return self.zero(next.min(end), end);
            }
            self.push(Part::Address4(next));
            next += 4;
        }
        self.zero(next, end);
    }

    /// IP of either version.
    fn ip(&mut self, at: usize, end: usize, wire: u32) {
        if !self.deeper(at, end) {
            return;
        }
        match self.u8(at).filter(|_| at < end).map(|octet| octet >> 4) {
            Some(4) => self.ip4(at, end, wire),
            Some(6) => self.ip6(at, end, wire),
            _ => self.fill(at.min(end), end),
        }
    }

    fn ip4(&mut self, at: usize, end: usize, wire: u32) {
        let len = usize::from(self.bytes[at] & 0x0f) * 4;
        if len < 20 || at + 20 > end {
            return self.fill(at + 1, end);
        }
        self.push(Part::Ip4 { at, len: len.min(end - at) });
        let total = match self.u16(at + 2).unwrap_or(0) {
            0 => wire,
            total => u32::from(total).min(wire),
        };
        let inner = end.min(at + total as usize).max((at + len).min(end));
        let body = (at + len).min(inner);
        let pieces = self.u16(at + 6).unwrap_or(0);
        let protocol = self.bytes[at + 9];
        let wire = total.saturating_sub(len as u32);
        let place = Layer { ip: at, v6: false, at: body, end: inner, wire, apart: self.quoted };
        if pieces & 0x3fff != 0 && !self.quoted {
            let id = u32::from(self.u16(at + 4).unwrap_or(0));
            let (start, more) = (usize::from(pieces & 0x1fff) * 8, pieces & 0x2000 != 0);
            let (header, v6) = (len, false);
            self.push(Part::Fragment(Fragment { ip: at, header, v6, protocol, id, at: body, end: inner, start, more }));
        } else if pieces & 0x1fff != 0 {
            self.fill(body, inner);
        } else {
            self.transport(protocol, place);
        }
        self.zero(inner, end);
    }

    fn ip6(&mut self, at: usize, end: usize, wire: u32) {
        if at + 40 > end {
            return self.fill(at + 1, end);
        }
        self.push(Part::Ip6 { at });
        let wire = match self.u16(at + 4).unwrap_or(0) {
            0 => wire.saturating_sub(40),
            len => u32::from(len).min(wire.saturating_sub(40)),
        };
        let inner = end.min(at + 40 + wire as usize);
        let mut place = Layer { ip: at, v6: true, at: at + 40, end: inner, wire, apart: self.quoted };
        let mut protocol = self.bytes[at + 6];
        for _ in 0..MOST_TAGS {
            let Some((next, len)) = self.extension(protocol, place.at, inner) else { break };
            if protocol == 44 {
                let pieces = self.u16(place.at + 2).unwrap_or(0);
                let body = (place.at + 8).min(inner);
                if pieces & 0xfff9 != 0 && !self.quoted {
                    let id = self
                        .bytes
                        .get(place.at + 4..place.at + 8)
                        .map_or(0, |id| id.iter().fold(0, |id, octet| id << 8 | u32::from(*octet)));
                    let (start, more) = (usize::from(pieces & 0xfff8), pieces & 1 != 0);
                    let (header, v6) = (40, true);
                    let fragment =
                        Fragment { ip: at, header, v6, protocol: next, id, at: body, end: inner, start, more };
                    self.push(Part::Fragment(fragment));
                    return self.zero(inner, end);
                }
                if pieces & 0xfff8 != 0 {
                    self.fill(body, inner);
                    return self.zero(inner, end);
                }
            }
            place.at = (place.at + len).min(inner);
            place.wire = place.wire.saturating_sub(len as u32);
            protocol = next;
        }
        self.transport(protocol, place);
        self.zero(inner, end);
    }

    /// The next protocol and the length of an extension header. RFC 8200 §4.
    fn extension(&mut self, protocol: u8, at: usize, end: usize) -> Option<(u8, usize)> {
        if at + 8 > end {
            return None;
        }
        let len = usize::from(self.bytes[at + 1]);
        match protocol {
            44 => Some((self.bytes[at], 8)),
            51 => Some((self.bytes[at], 4 * (len + 2))),
            0 | 60 | 135 => {
                // Router alert stays (RFC 2711); an option may hold a home address.
                if self.bytes[at + 2] != 5 {
                    self.zero(at + 2, end.min(at + 8 * (len + 1)));
                }
                Some((self.bytes[at], 8 * (len + 1)))
            }
            43 => {
                let mut address = at + 8;
                while address + 16 <= end.min(at + 8 * (len + 1)) {
                    self.push(Part::Address6(address));
                    address += 16;
                }
                Some((self.bytes[at], 8 * (len + 1)))
            }
            _ => None,
        }
    }
}
