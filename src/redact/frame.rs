//! A frame: its addresses, its octets, and its checksums, of which right ones stay right and wrong ones wrong.

use std::collections::HashMap;

use super::fragments::Fragments;
use super::layout::{Fragment, Layer, Part, parts};
use super::mapping::Mapping;
use super::stream::{Plan, filled};
use super::track::{Ends, Piece, Planner, Sequencer};
use crate::capture::{Frame, LinkType};
use crate::decode::Flags;
use crate::wire::tcp::fold;
use crate::wire::{Address, Endpoint, Mac, dns};

/// A packet without a link header.
const RAW: LinkType = LinkType(101);

/// First pass: hands the segments of a frame to the planner.
pub(super) fn plan(frame: &Frame<'_>, map: &mut Mapping, planner: &mut Planner, fragments: &mut Fragments) {
    for part in parts(frame.link, frame.bytes, frame.wire_len) {
        match part {
            Part::Tcp(layer) if !layer.apart => {
                if let Some((ends, piece, _)) = segment(frame.bytes, &layer) {
                    planner.segment(map, ends, &piece);
                }
            }
            Part::Fragment(fragment) => {
                if fragments.take(frame.number, frame.bytes, &fragment)
                    && let Some(whole) = fragments.whole.last_mut()
                {
                    let segments = segments(&whole.packet);
                    let places = segments.iter().map(|(ends, piece)| planner.segment(map, *ends, piece));
                    whole.places = places.collect();
                }
            }
            _ => {}
        }
    }
}

/// The segments in a datagram that was put together.
fn segments(packet: &[u8]) -> Vec<(Ends, Piece<'_>)> {
    let tcp = |part| match part {
        Part::Tcp(layer) if !layer.apart => segment(packet, &layer).map(|(ends, piece, _)| (ends, piece)),
        _ => None,
    };
    parts(RAW, packet, packet.len() as u32).into_iter().filter_map(tcp).collect()
}

/// Second pass: rewrites frames.
pub(super) struct Rewriter {
    sequencer: Sequencer,
    plans: Vec<Plan>,
    fragments: Fragments,
    out: Vec<u8>,
    /// Datagrams that were rewritten, while fragments of them come.
    datagrams: HashMap<usize, Vec<u8>>,
    /// Places of segments that are known beforehand.
    places: Option<std::vec::IntoIter<Option<(usize, i64)>>>,
}

impl Rewriter {
    pub(super) fn new(plans: Vec<Plan>, fragments: Fragments) -> Self {
        let (out, datagrams) = (Vec::new(), HashMap::new());
        Self { sequencer: Sequencer::default(), plans, fragments, out, datagrams, places: None }
    }

    /// The frame as it is written.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, map: &mut Mapping) -> &[u8] {
        self.packet(frame.number, frame.link, frame.bytes, frame.wire_len, map);
        &self.out
    }

    fn packet(&mut self, number: u64, link: LinkType, bytes: &[u8], wire: u32, map: &mut Mapping) {
        self.out.clear();
        self.out.extend_from_slice(bytes);
        let parts = parts(link, bytes, wire);
        for part in &parts {
            match part {
                Part::Fragment(fragment) => self.fragment(number, fragment, map),
                part => self.part(*part, bytes, map),
            }
        }
        // A checksum inside another one's range comes first.
        for part in parts.iter().rev() {
            sum(*part, bytes, &mut self.out);
        }
        // A plan that nobody asks for any more is of no use.
        for direction in self.sequencer.over() {
            if let Some(plan) = self.plans.get_mut(direction) {
                *plan = Plan::default();
            }
        }
    }

    /// A fragment gets its piece of the rewritten datagram; one of a datagram that is not whole is filled behind its ports.
    fn fragment(&mut self, number: u64, fragment: &Fragment, map: &mut Mapping) {
        let Some((index, start)) = self.fragments.frames.get(&number).copied().filter(|_| self.places.is_none()) else {
            let kept = match (fragment.start, fragment.protocol) {
                (0, 6 | 17) => 8,
                _ => 0,
            };
            return self.fill((fragment.at + kept).min(fragment.end), fragment.end);
        };
        if !self.datagrams.contains_key(&index) {
            let rewritten = self.datagram_of(index, map);
            self.datagrams.insert(index, rewritten);
        }
        let Some(whole) = self.fragments.whole.get(index) else { return };
        let from = whole.header + start;
        let piece = self.datagrams.get(&index).and_then(|octets| octets.get(from..from + fragment.end - fragment.at));
        if let (Some(slot), Some(piece)) = (self.out.get_mut(fragment.at..fragment.end), piece) {
            slot.copy_from_slice(piece);
        }
        if whole.completed == number {
            // The first pass saw its segments now.
            for (ends, piece) in segments(&whole.packet) {
                self.sequencer.place(ends, &piece);
            }
            self.datagrams.remove(&index);
        }
    }

    fn datagram_of(&mut self, index: usize, map: &mut Mapping) -> Vec<u8> {
        let Some(whole) = self.fragments.whole.get_mut(index) else { return Vec::new() };
        let packet = std::mem::take(&mut whole.packet);
        let frame = std::mem::take(&mut self.out);
        self.places = Some(whole.places.clone().into_iter());
        self.packet(0, RAW, &packet, packet.len() as u32, map);
        self.places = None;
        if let Some(whole) = self.fragments.whole.get_mut(index) {
            whole.packet = packet;
        }
        std::mem::replace(&mut self.out, frame)
    }

    fn part(&mut self, part: Part, bytes: &[u8], map: &mut Mapping) {
        match part {
            Part::Mac(at) => {
                if let Some(octets) = bytes.get(at..at + 6).and_then(|octets| octets.first_chunk()) {
                    self.write(at, &map.mac(Mac(*octets)).0);
                }
            }
            Part::Address4(at) => self.address(map, bytes, at, 4),
            Part::Address6(at) => self.address(map, bytes, at, 16),
            Part::Ip6 { at } => {
                self.address(map, bytes, at + 8, 16);
                self.address(map, bytes, at + 24, 16);
            }
            Part::Ip4 { at, len } => {
                self.address(map, bytes, at + 12, 4);
                self.address(map, bytes, at + 16, 4);
                let options = &mut self.out[(at + 20).min(at + len)..at + len];
                // Router alert stays (RFC 2113); routes and times become "no operation".
                if options.first() != Some(&0x94) {
                    options.iter_mut().for_each(|octet| *octet = u8::from(*octet != 0));
                }
            }
            Part::Tcp(layer) => self.tcp(&layer, bytes),
            Part::Udp(layer, tunnel) => {
                let from = (layer.at + 8).min(layer.end);
                if !tunnel && layer.apart {
                    self.fill(from, layer.end);
                } else if !tunnel {
                    self.datagram(&layer, &bytes[from..layer.end], bytes, map);
                }
            }
            Part::Fill { at, end } => self.fill(at, end),
            Part::Zero { at, end } => {
                if let Some(octets) = self.out.get_mut(at..end) {
                    octets.fill(0);
                }
            }
            Part::Fragment(_) | Part::Sum { .. } | Part::Gre { .. } => {}
        }
    }

    fn write(&mut self, at: usize, octets: &[u8]) {
        if let Some(slot) = self.out.get_mut(at..at + octets.len()) {
            slot.copy_from_slice(octets);
        }
    }

    fn fill(&mut self, at: usize, end: usize) {
        if let Some(octets) = self.out.get_mut(at..end) {
            octets.iter_mut().for_each(|octet| *octet = filled(*octet));
        }
    }

    fn address(&mut self, map: &mut Mapping, bytes: &[u8], at: usize, len: usize) {
        if let Some(octets) = bytes.get(at..at + len) {
            let mapped = map.address_octets(octets);
            self.write(at, &mapped);
        }
    }

    fn tcp(&mut self, layer: &Layer, bytes: &[u8]) {
        let Some((ends, piece, from)) = segment(bytes, layer) else {
            // A part of a header that an error quotes: ports and sequence numbers.
            return self.fill((layer.at + 20).min(layer.end), layer.end);
        };
        options(&mut self.out[layer.at + 20..from]);
        if layer.apart {
            return self.fill(from, layer.end);
        }
        let place = match &mut self.places {
            Some(places) => places.next().flatten(),
            None => self.sequencer.place(ends, &piece).map(|place| (place.direction, place.offset)),
        };
        let payload = &mut self.out[from..layer.end];
        match place.and_then(|(direction, offset)| Some((self.plans.get(direction)?, offset))) {
            Some((plan, offset)) => plan.apply(offset, payload),
            None => payload.iter_mut().for_each(|octet| *octet = filled(*octet)),
        }
    }

    fn datagram(&mut self, layer: &Layer, payload: &[u8], bytes: &[u8], map: &mut Mapping) {
        let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let expected = [port(layer.at), port(layer.at + 2)].iter().any(|port| matches!(port, 53 | 5353 | 5355));
        let cut = (payload.len() as u32) < layer.wire.saturating_sub(8);
        let is_dns = dns::parse(payload, cut).is_ok() && (expected || dns::looks_like_dns(payload));
        if is_dns {
            let mapped = map.dns(payload);
            self.write(layer.at + 8, &mapped);
        } else {
            self.fill(layer.at + 8, layer.end);
            // What tells a datagram from the next one, and a copy by that it does not: the octets at its ends.
            let ends = [(0, payload.len().min(TELLING)), (payload.len().saturating_sub(TELLING), payload.len())];
            for (from, to) in ends {
                let octets: Vec<u8> = map.opaque(&payload[from..to]).iter().map(|octet| octet | 0xc0).collect();
                self.write(layer.at + 8 + from, &octets);
            }
        }
    }
}

/// Octets at either end of a datagram by which `flow` knows a copy.
const TELLING: usize = 8;

/// Ends, octets, and where these begin; `None` when the header is not whole.
fn segment<'a>(bytes: &'a [u8], layer: &Layer) -> Option<(Ends, Piece<'a>, usize)> {
    let head = bytes.get(layer.at..layer.end)?.first_chunk::<20>()?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, _, _, _, _, offset, flags, ..] = *head;
    let len = usize::from(offset >> 4) * 4;
    if len < 20 {
        return None;
    }
    let from = (layer.at + len).min(layer.end);
    let piece = Piece {
        seq: u32::from_be_bytes([q0, q1, q2, q3]),
        flags: Flags(flags),
        payload: &bytes[from..layer.end],
        wire: layer.wire.saturating_sub(len as u32).max((layer.end - from) as u32),
    };
    let address = |nth: usize| -> Option<Address> {
        if layer.v6 {
            let at = layer.ip + 8 + 16 * nth;
            bytes.get(at..at + 16)?.first_chunk().map(|octets| Address::v6(*octets))
        } else {
            let at = layer.ip + 12 + 4 * nth;
            bytes.get(at..at + 4)?.first_chunk().map(|octets| Address::v4(*octets))
        }
    };
    let source = Endpoint::new(address(0)?, u16::from_be_bytes([s0, s1]));
    let destination = Endpoint::new(address(1)?, u16::from_be_bytes([d0, d1]));
    Some(((source, destination), piece, from))
}

/// TCP options: those that negotiate and measure stay, of others kind and length: cookies, signatures, keys, addresses of clients.
fn options(options: &mut [u8]) {
    let mut at = 0;
    while let Some(kind) = options.get(at) {
        match kind {
            0 => return options[at..].fill(0),
            1 => at += 1,
            kind => {
                let known = matches!(kind, 2..=5 | 8 | 28);
                let Some(len @ 2..) = options.get(at + 1).map(|len| usize::from(*len)) else {
                    return options[at + 1..].fill(0);
                };
                let end = (at + len).min(options.len());
                if !known {
                    options[at + 2..end].fill(0);
                }
                at = end;
            }
        }
    }
}

/// Corrects the checksum of a part, whose octets and those it covers were `before`.
fn sum(part: Part, before: &[u8], after: &mut [u8]) {
    let (layer, field, from, end, pseudo) = match part {
        Part::Tcp(layer) => (layer, layer.at + 16, layer.at, layer.end, Some(6)),
        Part::Udp(layer, _) => (layer, layer.at + 6, layer.at, layer.end, Some(17)),
        Part::Sum { layer, at, pseudo } => (layer, at, layer.at, layer.end, pseudo.then_some(58_u8)),
        Part::Ip4 { at, len } => {
            return incremental(before, after, at + 10, std::slice::from_ref(&(at..at + len)));
        }
        Part::Gre { at, end } => return incremental(before, after, at + 4, std::slice::from_ref(&(at..end))),
        _ => return,
    };
    let Some(sent) = word(before, field).filter(|_| field + 2 <= end) else { return };
    let addresses = match (pseudo, layer.v6) {
        (None, _) => 0..0,
        (_, true) => layer.ip + 8..layer.ip + 40,
        (_, false) => layer.ip + 12..layer.ip + 20,
    };
    let udp = matches!(part, Part::Udp(..));
    if udp && sent == 0 {
        return;
    }
    if let Some(protocol) = pseudo {
        let constant = u64::from(protocol) + u64::from(layer.wire);
        let whole = end - from >= layer.wire as usize;
        let right = whole && fold(ones(before, addresses.clone()) + constant + ones(before, from..end)) == 0xffff;
        // What the network card had still to finish: the sum of the addresses, with or without the length.
        for constant in [constant, u64::from(protocol)] {
            if !right && fold(ones(before, addresses.clone()) + constant) == sent {
                let new = fold(ones(after, addresses.clone()) + constant);
                return after[field..field + 2].copy_from_slice(&new.to_be_bytes());
            }
        }
        if !right && sent == 0 {
            return;
        }
    }
    incremental(before, after, field, &[addresses, from..end]);
    if udp && word(after, field) == Some(0) {
        after[field..field + 2].fill(0xff);
    }
}

/// RFC 1624: what the octets add changes, and the checksum by as much.
fn incremental(before: &[u8], after: &mut [u8], field: usize, ranges: &[std::ops::Range<usize>]) {
    let Some(sent) = word(before, field) else { return };
    let total = |octets: &[u8]| fold(ranges.iter().map(|range| ones(octets, range.clone())).sum());
    let (old, new) = (total(before), total(after));
    if old == new {
        return;
    }
    let sum = fold(u64::from(!sent) + u64::from(!old) + u64::from(new));
    if let Some(slot) = after.get_mut(field..field + 2) {
        slot.copy_from_slice(&(!sum).to_be_bytes());
    }
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*octets.get(at..at + 2)?.first_chunk()?))
}

/// The words of a range, added up.
fn ones(octets: &[u8], range: std::ops::Range<usize>) -> u64 {
    let octets = octets.get(range).unwrap_or(&[]);
    let words = octets.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |octet| u64::from(*octet) << 8);
    words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>() + odd
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;
    use crate::time::Timestamp;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        Frame {
            file: 0,
            point: 0,
            number: 1,
            time: Timestamp(0),
            interface: 0,
            link: LinkType::ETHERNET,
            wire_len: bytes.len() as u32,
            bytes,
            offset: 0,
            flags: 0,
        }
    }

    /// Ethernet, IPv4, TCP with a payload; the checksums as they are given, else right.
    fn packet(payload: &[u8], tcp: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        bytes.extend([0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 203, 0, 113, 7, 198, 51, 100, 9]);
        bytes.extend([0xc3, 0x50, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        bytes.extend(payload);
        let total = (bytes.len() - 14) as u16;
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        let header = !fold(ones(&bytes, 14..34));
        bytes[24..26].copy_from_slice(&header.to_be_bytes());
        let right = !fold(ones(&bytes, 26..34) + 6 + u64::from(total - 20) + ones(&bytes, 34..bytes.len()));
        bytes[50..52].copy_from_slice(&tcp.unwrap_or(right).to_be_bytes());
        bytes
    }

    fn fits(bytes: &[u8]) -> (bool, bool) {
        let len = (bytes.len() - 34) as u64;
        let tcp = fold(ones(bytes, 26..34) + 6 + len + ones(bytes, 34..bytes.len()));
        (fold(ones(bytes, 14..34)) == 0xffff, tcp == 0xffff)
    }

    fn rewritten(bytes: &[u8]) -> Vec<u8> {
        let mut map = Mapping::new(&key(1), Level::All);
        let mut planner = Planner::default();
        let mut fragments = Fragments::default();
        plan(&frame(bytes), &mut map, &mut planner, &mut fragments);
        let plans = planner.finish(&mut map);
        Rewriter::new(plans, fragments).frame(&frame(bytes), &mut map).to_vec()
    }

    #[test]
    fn right_checksums_stay_right_and_wrong_ones_wrong() {
        for payload in [&b"GET /private HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"[..], b"odd", b""] {
            let right = packet(payload, None);
            assert_eq!(fits(&right), (true, true));
            let mapped = rewritten(&right);
            assert_ne!(mapped[26..34], right[26..34]);
            assert_eq!(fits(&mapped), (true, true));
            assert_eq!(fits(&rewritten(&packet(payload, Some(0x1234)))), (true, false));
        }
    }

    #[test]
    fn a_checksum_that_the_card_had_to_finish_stays_one() {
        let addresses = |bytes: &[u8]| fold(ones(bytes, 26..34) + 6 + (bytes.len() as u64 - 34));
        let begun = packet(b"payload", None);
        let begun = packet(b"payload", Some(addresses(&begun)));
        let mapped = rewritten(&begun);
        assert_eq!(word(&mapped, 50), Some(addresses(&mapped)));
        assert_eq!(word(&rewritten(&packet(b"payload", Some(0))), 50), Some(0));
    }

    #[test]
    fn ports_numbers_and_lengths_stay_and_padding_is_emptied() {
        let mut bytes = packet(b"shrouded words", None);
        bytes.extend(b"leftover");
        let mapped = rewritten(&bytes);
        assert_eq!(mapped.len(), bytes.len());
        assert_eq!((&mapped[12..24], &mapped[34..50]), (&bytes[12..24], &bytes[34..50]));
        assert!(mapped.ends_with(&[0; 8]));
        assert!(memchr::memmem::find(&mapped, b"shrouded").is_none());
    }

    #[test]
    fn options_that_name_somebody_are_emptied() {
        let mut list = [2, 4, 5, 180, 254, 8, 0, 80, 203, 0, 113, 7, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        options(&mut list);
        assert_eq!(list, [2, 4, 5, 180, 254, 8, 0, 0, 0, 0, 0, 0, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        for len in 0..6 {
            options(&mut [2, 255, 9, 9, 9, 9][..len]);
        }
    }

    #[test]
    fn fragments_say_what_the_datagram_says() {
        let whole = packet(b"GET /private HTTP/1.1\r\nHost: shop.example.com\r\nCookie: a=shrouded\r\n\r\n", None);
        let pieces: Vec<Vec<u8>> = [(0, 48), (48, whole.len() - 34)]
            .iter()
            .map(|(from, to)| {
                let mut piece = [&whole[..34], &whole[34 + from..34 + to]].concat();
                piece[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
                piece[20..22].copy_from_slice(&(if *from == 0 { 0x2000_u16 } else { *from as u16 / 8 }).to_be_bytes());
                piece
            })
            .collect();
        let (mut map, mut planner, mut fragments) =
            (Mapping::new(&key(1), Level::All), Planner::default(), Fragments::default());
        let numbered = |n: usize| Frame { number: n as u64 + 1, ..frame(&pieces[n]) };
        (0..2).for_each(|n| plan(&numbered(n), &mut map, &mut planner, &mut fragments));
        let plans = planner.finish(&mut map);
        let mut rewriter = Rewriter::new(plans, fragments);
        let joined: Vec<u8> = (0..2).flat_map(|n| rewriter.frame(&numbered(n), &mut map)[34..].to_vec()).collect();
        assert_eq!(joined, rewritten(&whole)[34..]);
        assert!(rewriter.datagrams.is_empty());
    }

    #[test]
    fn no_octets_make_it_panic() {
        let whole = packet(b"GET / HTTP/1.1\r\n\r\n", None);
        for at in 0..whole.len() {
            for octet in [0, 1, 4, 6, 17, 41, 47, 0x4f, 0x60, 58, 255] {
                let mut bent = whole.clone();
                bent[at] = octet;
                assert_eq!(rewritten(&bent).len(), whole.len());
                assert_eq!(rewritten(&bent[..at]).len(), at);
            }
        }
    }
}
