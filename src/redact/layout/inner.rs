//! What IP carries: transport layers, tunnels, messages of ICMP and what they quote.

use super::{Layer, Part, Walk};

impl Walk<'_> {
    pub(super) fn transport(&mut self, protocol: u8, layer: Layer) {
        let Layer { at, end, v6, wire, .. } = layer;
        match protocol {
            6 if at + 20 <= end || layer.apart => self.push(Part::Tcp(layer)),
            17 if at + 8 <= end => self.udp(layer),
            1 if !v6 => self.icmp4(layer),
            58 if v6 => self.icmp6(layer),
            4 | 41 => self.ip(at, end, wire),
            47 => self.gre(at, end, wire),
            // IGMP: groups stay, which all of version 1 and 2 is about.
            2 if at + 8 <= end => {
                self.push(Part::Sum { layer, at: at + 2, pseudo: false });
                self.fill(at + 8, end);
            }
            112 => self.vrrp(layer),
            _ => self.fill(at, end),
        }
    }

    fn vrrp(&mut self, layer: Layer) {
        let Layer { at, end, v6, .. } = layer;
        if at + 8 > end {
            return self.fill(at, end);
        }
        let version = self.bytes[at] >> 4;
        self.push(Part::Sum { layer, at: at + 6, pseudo: version >= 3 });
        let (count, size) = (usize::from(self.bytes[at + 3]), if v6 { 16 } else { 4 });
        let mut next = at + 8;
        for _ in 0..count {
            if next + size > end {
                break;
            }
            self.push(if v6 { Part::Address6(next) } else { Part::Address4(next) });
            next += size;
        }
        self.fill(next.min(end), end);
    }

    fn udp(&mut self, layer: Layer) {
        let Layer { at, end, .. } = layer;
        let port = self.u16(at + 2).unwrap_or(0);
        let len = match self.u16(at + 4).unwrap_or(0) {
            0 => layer.wire,
            len => u32::from(len).clamp(8, layer.wire.max(8)),
        };
        let inner = end.min(at + len as usize).max(at + 8);
        let layer = Layer { end: inner, wire: len, ..layer };
        let body = at + 8;
        let before = self.parts.len();
        self.push(Part::Udp(layer, false));
        if !layer.apart && self.tunnel(port, body, inner, len.saturating_sub(8)) {
            self.parts[before] = Part::Udp(layer, true);
        }
        self.zero(inner, end);
    }

    /// Tunnels over UDP, recognised as `decode::tunnel` does.
    fn tunnel(&mut self, port: u16, at: usize, end: usize, wire: u32) -> bool {
        let Some(octets) = self.bytes.get(at..end) else { return false };
        match (port, octets) {
            (4789 | 8472, [0x08, 0, 0, 0, _, _, _, 0, ..]) => self.ethernet(at + 8, end, wire.saturating_sub(8)),
            (6081, [first, flags, p0, p1, _, _, _, 0, ..]) if first >> 6 == 0 && flags & 0x3f == 0 => {
                let len = 8 + 4 * usize::from(first & 0x3f);
                if at + len > end {
                    return false;
                }
                match u16::from_be_bytes([*p0, *p1]) {
                    0x6558 => {
                        self.zero(at + 8, at + len);
                        self.ethernet(at + len, end, wire.saturating_sub(len as u32));
                    }
                    0x0800 | 0x86dd => {
                        self.zero(at + 8, at + len);
                        self.ip(at + len, end, wire.saturating_sub(len as u32));
                    }
                    _ => return false,
                }
            }
            (2152, [flags, 255, l0, l1, _, _, _, _, ..]) if flags & 0xf8 == 0x30 => {
                return self.gtp(at, end, *flags, u16::from_be_bytes([*l0, *l1]));
            }
            (4754, _) => self.gre(at, end, wire),
            _ => return false,
        }
        true
    }

    fn gtp(&mut self, at: usize, end: usize, flags: u8, len: u16) -> bool {
        let end = end.min(at + 8 + usize::from(len));
        let mut inner = at + 8;
        if flags & 0x07 != 0 {
            let Some(mut next) = self.u8(inner + 3) else { return false };
            inner += 4;
            while flags & 0x04 != 0 && next != 0 {
                let Some(words @ 1..) = self.u8(inner).map(usize::from) else { return false };
                let Some(kind) = self.u8(inner + 4 * words - 1) else { return false };
                next = kind;
                inner += 4 * words;
            }
        }
        if inner >= end || !matches!(self.u8(inner).map(|octet| octet >> 4), Some(4 | 6)) {
            return false;
        }
        self.ip(inner, end, (end - inner) as u32);
        true
    }

    fn gre(&mut self, at: usize, end: usize, wire: u32) {
        let Some(&[flags, version, p0, p1]) = self.bytes.get(at..end).and_then(|octets| octets.first_chunk::<4>())
        else {
            return self.fill(at.min(end), end);
        };
        let kind = u16::from_be_bytes([p0, p1]);
        let optional = 4 * (flags & 0xb0).count_ones() as usize;
        if flags & 0x40 != 0 || version & 0x07 != 0 {
            return self.fill(at + 4, end);
        }
        if flags & 0x80 != 0 && at + 8 <= end {
            self.push(Part::Gre { at, end });
        }
        let behind = match kind {
            0x88be if flags & 0x10 != 0 => 8,
            0x22eb => 12 + 8 * usize::from(self.u8(at + 4 + optional + 11).unwrap_or(0) & 1),
            _ => 0,
        };
        let inner = (at + 4 + optional + behind).min(end);
        let wire = wire.saturating_sub((inner - at) as u32);
        match kind {
            0x0800 | 0x86dd => self.ip(inner, end, wire),
            0x8847 => self.mpls(inner, end, wire),
            0x6558 | 0x88be | 0x22eb => self.ethernet(inner, end, wire),
            _ => self.fill(inner, end),
        }
    }

    fn icmp4(&mut self, layer: Layer) {
        let Layer { at, end, .. } = layer;
        if at + 8 > end {
            return self.fill((at + 4).min(end), end);
        }
        self.push(Part::Sum { layer, at: at + 2, pseudo: false });
        match self.bytes[at] {
            5 => {
                self.push(Part::Address4(at + 4));
                self.quote(at + 8, end);
            }
            3 | 4 | 11 | 12 => self.quote(at + 8, end),
            _ => self.fill(at + 8, end),
        }
    }

    fn icmp6(&mut self, layer: Layer) {
        let Layer { at, end, .. } = layer;
        if at + 8 > end {
            return self.fill((at + 4).min(end), end);
        }
        self.push(Part::Sum { layer, at: at + 2, pseudo: true });
        match self.bytes[at] {
            1..=4 => self.quote(at + 8, end),
            130..=132 if at + 24 <= end => {
                self.push(Part::Address6(at + 8));
                self.fill(at + 24, end);
            }
            133 => self.neighbour_options(at + 8, end),
            134 if at + 16 <= end => self.neighbour_options(at + 16, end),
            135 | 136 if at + 24 <= end => {
                self.push(Part::Address6(at + 8));
                self.neighbour_options(at + 24, end);
            }
            137 if at + 40 <= end => {
                self.push(Part::Address6(at + 8));
                self.push(Part::Address6(at + 24));
                self.neighbour_options(at + 40, end);
            }
            143 => self.listeners(at + 8, end),
            _ => self.fill(at + 8, end),
        }
    }

    /// Options of neighbour discovery. RFC 4861 §4.6, RFC 8106.
    fn neighbour_options(&mut self, mut at: usize, end: usize) {
        while let (Some(kind), Some(units @ 1..)) = (self.u8(at), self.u8(at + 1)) {
            let next = at + 8 * usize::from(units);
            if next > end {
                break;
            }
            match kind {
                1 | 2 if units == 1 => self.push(Part::Mac(at + 2)),
                3 if units == 4 => self.push(Part::Address6(at + 16)),
                4 => self.quote(at + 8, next),
                5 | 14 => {}
                24 if units == 3 => self.push(Part::Address6(at + 8)),
                25 => (at + 8..next.saturating_sub(15)).step_by(16).for_each(|place| self.push(Part::Address6(place))),
                _ => self.zero(at + 2, next),
            }
            at = next;
        }
        self.zero(at.min(end), end);
    }

    /// Reports of listeners to multicast. RFC 3810 §5.2.
    fn listeners(&mut self, mut at: usize, end: usize) {
        while at + 20 <= end {
            let (more, sources) = (usize::from(self.bytes[at + 1]), usize::from(self.u16(at + 2).unwrap_or(0)));
            for n in 0..=sources {
                if at + 20 + 16 * n > end {
                    break;
                }
                self.push(Part::Address6(at + 4 + 16 * n));
            }
            at += 20 + 16 * sources;
            self.zero(at.min(end), end.min(at + 4 * more));
            at += 4 * more;
        }
        self.zero(at.min(end), end);
    }

    /// The packet that an error is about, as far as it is quoted.
    fn quote(&mut self, at: usize, end: usize) {
        let before = std::mem::replace(&mut self.quoted, true);
        self.ip(at, end, (end.saturating_sub(at)) as u32);
        self.quoted = before;
    }
}
