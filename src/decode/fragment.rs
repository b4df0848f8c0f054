//! Puts IP fragments together: the decoder's only state, bounded in datagrams, octets and time.
//!
//! RFC 791 §3.2, RFC 8200 §4.5. Overlap: the first copy wins. No source may hold more than a quarter of the room, so that one sender of
//! half datagrams cannot push out everybody else's.

use serde::{Deserialize, Serialize};

use super::ip::{Header, Piece};
use super::{Direction, Link};
use crate::capture::Frame;
use crate::event::PacketRef;
use crate::time::{Elapsed, Timestamp};
use crate::wire::Address;

/// How many fragmented datagrams ended as what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// Put together; the frame that completed each is counted as what it carried.
    pub completed: u64,
    /// Given up though their first fragment was seen: the others were lost, or the capture lacks them.
    pub incomplete: u64,
    /// Given up without their first fragment: it was lost, or these were late copies of a datagram already complete.
    pub headless: u64,
    /// Of those given up: for lack of room, not for their age.
    pub evicted: u64,
    /// Fragments that covered octets already there with different ones; the first copy was kept.
    pub conflicting: u64,
}

/// What the fragments of a decoder may hold at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Datagrams waiting for fragments. Default 256.
    pub datagrams: usize,
    /// Octets of all of them together, bookkeeping included. Default 1 MiB.
    pub octets: usize,
    /// Capture time after which a datagram is given up. Default 30 s, as Linux (`ipfrag_time`).
    pub age: Elapsed,
}

impl Default for Limits {
    fn default() -> Self {
        Self { datagrams: 256, octets: 1 << 20, age: Elapsed::secs(30) }
    }
}

/// Datagrams that began in the capture and of which fragments never came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LostFragments {
    /// The first 64.
    pub shown: Vec<LostDatagram>,
    /// Source and destination of fragments behind a first one, the first 64 pairs: a filter on ports lets none of them through.
    pub later: Vec<(Address, Address)>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostDatagram {
    /// The first of its fragments that came.
    pub at: PacketRef,
    /// Its sender.
    pub source: Address,
    /// Its receiver.
    pub destination: Address,
    /// The protocol inside, by its first fragment.
    pub protocol: u8,
    /// Source port, where it is UDP or TCP.
    pub port: Option<u16>,
    /// Octets of it that came.
    pub came: u32,
}

impl LostFragments {
    const SHOWN: usize = 64;
}

/// A fragment that is this late does not come any more: routers that reorder take milliseconds.
const LATE: Elapsed = Elapsed::secs(1);
/// No datagram is longer: IPv4's total length and IPv6's payload length have 16 bits.
const LONGEST: u32 = 65_535;
/// What a part costs beside its octets.
const PART: usize = size_of::<Part>();

/// The datagrams that wait for fragments, oldest first.
pub(super) struct Fragments {
    limits: Limits,
    waiting: Vec<Datagram>,
    held: usize,
    lost: LostFragments,
}

/// Which datagram a fragment belongs to. Copies of one fragment seen on several interfaces (`any`, bridges) are kept apart: each
/// interface shows a whole datagram of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    source: Address,
    destination: Address,
    id: u32,
    /// IPv4 only: IPv6 fragments of one datagram may differ in it (RFC 8200 §4.5).
    protocol: u8,
    file: u16,
    interface: u16,
    ifindex: u32,
    direction: Direction,
}

struct Datagram {
    key: Key,
    born: PacketRef,
    /// The capture kept only a part of a fragment: nothing can be said of what is missing.
    cut: bool,
    /// Of the first fragment, the only one whose word counts.
    protocol: Option<u8>,
    /// Length of the whole, once the last fragment was seen.
    end: Option<u32>,
    /// In order, none overlapping.
    parts: Vec<Part>,
    held: usize,
}

struct Part {
    start: u32,
    octets: Box<[u8]>,
}

impl Part {
    fn end(&self) -> u32 {
        self.start + self.octets.len() as u32
    }
}

impl Fragments {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, waiting: Vec::new(), held: 0, lost: LostFragments::default() }
    }

    /// Takes a fragment in; the protocol and octets of the whole when it was the last one missing.
    ///
    /// # Errors
    /// When the fragment reaches beyond the longest datagram there can be.
    pub(super) fn add(
        &mut self,
        frame: &Frame<'_>,
        link: &Link,
        header: &Header<'_>,
        piece: Piece,
        counts: &mut FragmentCounts,
    ) -> Result<Option<(u8, Vec<u8>)>, &'static str> {
        if piece.start.saturating_add(header.body.wire) > LONGEST {
            return Err("fragment reaches beyond 65,535 octets");
        }
        self.expire(frame.time, counts);
        let ends = (header.ip.source, header.ip.destination);
        if piece.start > 0 && self.lost.later.len() < LostFragments::SHOWN && !self.lost.later.contains(&ends) {
            self.lost.later.push(ends);
        }
        let key = Key {
            source: header.ip.source,
            destination: header.ip.destination,
            id: piece.id,
            protocol: if header.v6 { 0 } else { header.protocol },
            file: frame.file,
            interface: frame.interface,
            ifindex: link.ifindex,
            direction: link.direction,
        };
        self.make_room(&key, header.body.bytes.len() + PART, counts);
        let index = self.waiting.iter().position(|datagram| datagram.key == key).unwrap_or_else(|| {
            let at = PacketRef { file: frame.file, number: frame.number, time: frame.time };
            self.waiting.push(Datagram::new(key, at));
            self.held += size_of::<Datagram>();
            self.waiting.len() - 1
        });
        let Some(datagram) = self.waiting.get_mut(index) else { return Ok(None) };
        let before = datagram.held;
        datagram.add(header, piece, counts);
        self.held += datagram.held - before;
        let Some(whole) = datagram.whole() else { return Ok(None) };
        self.remove(index);
        counts.completed += 1;
        Ok(Some(whole))
    }

    /// What never came, at the time of the capture's latest packet.
    pub(super) fn lost(&self, now: Timestamp) -> LostFragments {
        let mut lost = self.lost.clone();
        let late = self.waiting.iter().filter(|datagram| now.since(datagram.born.time) > LATE);
        lost.shown.extend(late.filter_map(Datagram::lost));
        lost.shown.truncate(LostFragments::SHOWN);
        lost
    }

    /// Gives up everything that still waits.
    pub(super) fn finish(&mut self, counts: &mut FragmentCounts) {
        while !self.waiting.is_empty() {
            self.give_up(0, counts);
        }
    }

    fn expire(&mut self, now: Timestamp, counts: &mut FragmentCounts) {
        let age = self.limits.age;
        while let Some(index) = self.waiting.iter().position(|datagram| now.since(datagram.born.time) > age) {
            self.lost.shown.extend(self.waiting.get(index).and_then(Datagram::lost));
            self.lost.shown.truncate(LostFragments::SHOWN);
            self.give_up(index, counts);
        }
    }

    /// Evicts until `octets` more fit: first the source's own oldest when it has used up its share, then the oldest of all.
    fn make_room(&mut self, key: &Key, octets: usize, counts: &mut FragmentCounts) {
        let limits = self.limits;
        let is_new = !self.waiting.iter().any(|datagram| datagram.key == *key);
        let (datagrams, octets) = if is_new { (1, octets + size_of::<Datagram>()) } else { (0, octets) };
        loop {
            let own = || self.waiting.iter().filter(|datagram| datagram.key.source == key.source);
            let greedy = own().count() + datagrams > (limits.datagrams / 4).max(1)
                || own().map(|datagram| datagram.held).sum::<usize>() + octets > limits.octets / 4;
            let full = self.waiting.len() + datagrams > limits.datagrams || self.held + octets > limits.octets;
            let victim = |only_own: bool| {
                self.waiting
                    .iter()
                    .position(|datagram| datagram.key != *key && (!only_own || datagram.key.source == key.source))
            };
            let Some(index) = (if greedy { victim(true) } else { None }).or(if full { victim(false) } else { None })
            else {
                return;
            };
            counts.evicted += 1;
            self.give_up(index, counts);
        }
    }

    fn give_up(&mut self, index: usize, counts: &mut FragmentCounts) {
        let has_first = self.waiting.get(index).is_some_and(|datagram| datagram.protocol.is_some());
        *(if has_first { &mut counts.incomplete } else { &mut counts.headless }) += 1;
        self.remove(index);
    }

    /// Keeps the order: the oldest stays in front. At most a few hundred are moved.
    fn remove(&mut self, index: usize) {
        let gone = self.waiting.remove(index);
        self.held -= gone.held;
    }
}

impl Datagram {
    fn new(key: Key, born: PacketRef) -> Self {
        Self { key, born, cut: false, protocol: None, end: None, parts: Vec::new(), held: size_of::<Self>() }
    }

    /// As a loss: its first fragment came, and nothing hides what else did.
    fn lost(&self) -> Option<LostDatagram> {
        let protocol = self.protocol.filter(|_| !self.cut)?;
        let first = self.parts.first().filter(|part| part.start == 0)?;
        let port = match (protocol, first.octets.get(..2)) {
            (6 | 17, Some(&[high, low])) => Some(u16::from_be_bytes([high, low])),
            _ => None,
        };
        let came = self.parts.iter().map(|part| part.octets.len() as u32).sum();
        let Key { source, destination, .. } = self.key;
        Some(LostDatagram { at: self.born, source, destination, protocol, port, came })
    }

    /// Keeps what no earlier fragment covered.
    fn add(&mut self, header: &Header<'_>, piece: Piece, counts: &mut FragmentCounts) {
        self.cut |= (header.body.bytes.len() as u64) < u64::from(header.body.wire);
        if piece.start == 0 {
            self.protocol.get_or_insert(header.protocol);
        }
        if !piece.more {
            self.end.get_or_insert(piece.start + header.body.wire);
        }
        let mut rest = header.body.bytes;
        let mut start = piece.start;
        let mut index = 0;
        let mut conflict = false;
        while !rest.is_empty() {
            let (from, to) = self.parts.get(index).map_or((u32::MAX, u32::MAX), |part| (part.start, part.end()));
            if start < from {
                // A hole in front of the next part: fill as much of it as there is.
                let (fill, behind) = rest.split_at(rest.len().min((from - start) as usize));
                self.held += PART + fill.len();
                self.parts.insert(index, Part { start, octets: fill.into() });
                start += fill.len() as u32;
                rest = behind;
            } else if start < to {
                let (copy, behind) = rest.split_at(rest.len().min((to - start) as usize));
                let kept = self.parts.get(index).and_then(|part| part.octets.get((start - from) as usize..));
                conflict |= !kept.is_some_and(|kept| kept.starts_with(copy));
                start += copy.len() as u32;
                rest = behind;
            }
            index += 1;
        }
        counts.conflicting += u64::from(conflict);
    }

    /// Protocol and octets when nothing is missing.
    fn whole(&self) -> Option<(u8, Vec<u8>)> {
        let (protocol, end) = (self.protocol?, self.end?);
        let mut reached = 0;
        for part in &self.parts {
            if part.start > reached {
                break;
            }
            reached = part.end();
        }
        if reached < end {
            return None;
        }
        let mut octets = Vec::with_capacity(reached as usize);
        self.parts.iter().take_while(|part| part.start < end).for_each(|part| octets.extend_from_slice(&part.octets));
        octets.truncate(end as usize);
        Some((protocol, octets))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::samples::frame;
    use super::super::{Decoder, Transport};
    use super::*;

    /// A raw IPv4 packet from 10.0.0.`source` with a piece of a UDP datagram.
    fn piece(source: u8, id: u8, start: usize, more: bool, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, id, 0, 0, 64, 17, 0, 0, 10, 0, 0, source, 10, 0, 0, 254];
        packet[2..4].copy_from_slice(&(20 + body.len() as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&((start / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
        packet.extend(body);
        packet
    }

    /// A UDP datagram with this payload.
    fn datagram(payload: &[u8]) -> Vec<u8> {
        let length = (8 + payload.len() as u16).to_be_bytes();
        [&[0, 1, 0, 2][..], &length, &[0, 0], payload].concat()
    }

    /// Payload of the datagram a packet completes; `None` while it waits.
    fn feed(decoder: &mut Decoder, packet: &[u8], second: i64) -> Option<Vec<u8>> {
        let time = Timestamp(second * 1_000_000_000);
        let packet = decoder.decode(&Frame { time, ..frame(101, packet, packet.len() as u32) });
        match packet.transport {
            Transport::Udp(datagram) => {
                assert!(packet.ip.is_some_and(|ip| ip.reassembled && ip.len as usize == datagram.payload.len() + 28));
                assert!(!packet.cut);
                Some(datagram.payload.to_vec())
            }
            Transport::Fragment => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_copy_of_overlapping_octets_wins_and_the_conflict_is_counted() {
        let whole = datagram(&[b'a'; 40]);
        let mut decoder = Decoder::new(Limits::default());
        assert_eq!(feed(&mut decoder, &piece(1, 1, 16, true, &[b'b'; 16]), 0), None);
        assert_eq!(feed(&mut decoder, &piece(1, 1, 0, true, &whole[..40]), 0), None);
        let payload = feed(&mut decoder, &piece(1, 1, 40, false, &whole[40..]), 0).expect("complete");
        assert_eq!(payload, b"aaaaaaaabbbbbbbbbbbbbbbbaaaaaaaaaaaaaaaa");
        assert_eq!(*decoder.fragments(), FragmentCounts { completed: 1, conflicting: 1, ..Default::default() });
    }

    #[test]
    fn what_never_completes_is_given_up_after_thirty_seconds() {
        let whole = datagram(&[7; 40]);
        let mut decoder = Decoder::new(Limits::default());
        assert_eq!(feed(&mut decoder, &piece(1, 1, 0, true, &whole[..24]), 0), None);
        assert_eq!(feed(&mut decoder, &piece(1, 2, 24, false, &whole[24..]), 0), None);
        assert_eq!(feed(&mut decoder, &piece(1, 1, 24, false, &whole[24..]), 31), None);
        let counts = FragmentCounts { incomplete: 1, headless: 1, ..Default::default() };
        assert_eq!(*decoder.fragments(), counts);
        decoder.finish();
        assert_eq!(*decoder.fragments(), FragmentCounts { headless: 2, ..counts });
    }

    #[test]
    fn what_began_and_never_ended_is_told_with_its_first_packet_unless_the_snaplen_hid_the_rest() {
        let whole = datagram(&[7; 40]);
        let mut decoder = Decoder::new(Limits::default());
        assert_eq!(feed(&mut decoder, &piece(1, 1, 0, true, &whole[..24]), 0), None);
        assert_eq!(feed(&mut decoder, &piece(1, 2, 24, false, &whole[24..]), 0), None);
        let lost = |decoder: &Decoder, ms: i64| decoder.lost_fragments(Timestamp(ms * 1_000_000));
        assert!(lost(&decoder, 900).shown.is_empty(), "it may still come");
        let told = lost(&decoder, 1_100);
        assert_eq!((told.shown.len(), told.later.len()), (1, 1));
        assert_eq!((told.shown[0].at.time, told.shown[0].port, told.shown[0].came), (Timestamp(0), Some(1), 24));
        assert_eq!(feed(&mut decoder, &piece(1, 3, 0, true, &whole[..24]), 40), None);
        assert_eq!(lost(&decoder, 40_000).shown.len(), 1, "given up, and remembered");
        let mut cut = Decoder::new(Limits::default());
        let packet = piece(1, 1, 0, true, &whole[..24]);
        cut.decode(&Frame { time: Timestamp(0), ..frame(101, &packet[..30], packet.len() as u32) });
        assert!(lost(&cut, 9_000).shown.is_empty());
    }

    #[test]
    fn one_source_of_half_datagrams_does_not_push_out_another() {
        let whole = datagram(&[7; 40]);
        let mut decoder = Decoder::new(Limits { datagrams: 16, ..Limits::default() });
        assert_eq!(feed(&mut decoder, &piece(1, 1, 0, true, &whole[..24]), 0), None);
        for id in 0..100 {
            assert_eq!(feed(&mut decoder, &piece(2, id, 0, true, &whole[..24]), 0), None);
        }
        assert_eq!(feed(&mut decoder, &piece(1, 1, 24, false, &whole[24..]), 1), Some(vec![7; 40]));
        assert_eq!(decoder.fragments().evicted, 96);
    }

    #[test]
    fn octets_held_stay_below_the_limit_whatever_is_sent() {
        let limits = Limits { octets: 64 << 10, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        for n in 0..4000_u32 {
            let [_, _, id, source] = n.wrapping_mul(2_654_435_761).to_be_bytes();
            feed(&mut decoder, &piece(source % 8, id, 8 * (n as usize % 800), true, &[0; 800]), 0);
            let held: usize = decoder.fragments.waiting.iter().map(|datagram| datagram.held).sum();
            assert_eq!(held, decoder.fragments.held);
            assert!(held <= limits.octets, "{held} octets after fragment {n}");
        }
    }

    #[test]
    fn a_fragment_beyond_the_longest_datagram_is_unreadable() {
        let packet = piece(1, 1, 65_528, true, &[0; 16]);
        let mut decoder = Decoder::new(Limits::default());
        let packet = decoder.decode(&frame(101, &packet, 36));
        assert!(matches!(packet.transport, Transport::Unreadable("fragment reaches beyond 65,535 octets")));
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_and_number_give_the_datagram_exactly_when_all_are_there(
            payload in vec(any::<u8>(), 1..600),
            order in vec((any::<prop::sample::Index>(), 1_usize..12), 1..60),
        ) {
            let whole = datagram(&payload);
            let mut decoder = Decoder::new(Limits::default());
            let mut seen = vec![false; whole.len()];
            for (place, blocks) in order {
                let start = place.index(whole.len().div_ceil(8)) * 8;
                let end = (start + blocks * 8).min(whole.len());
                if start == 0 && end == whole.len() {
                    // Not a fragment at all.
                    continue;
                }
                let got = feed(&mut decoder, &piece(1, 1, start, end < whole.len(), &whole[start..end]), 0);
                seen[start..end].fill(true);
                if seen.iter().all(|seen| *seen) {
                    prop_assert_eq!(got, Some(payload));
                    prop_assert_eq!(decoder.fragments().conflicting, 0);
                    return Ok(());
                }
                prop_assert_eq!(got, None);
            }
        }
    }
}
