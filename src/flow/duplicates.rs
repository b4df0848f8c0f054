//! Copies of one packet that the capture recorded more than once (`any`, bridges, SPAN ports): the first counts, all faces are kept.
//!
//! Two packets are one when IP id, sequence numbers, flags, window and payload agree within a millisecond. An IP id of 0 says nothing (Linux
//! sets it on SYN+ACK and RST), nor does IPv6 have one: then checksum and options must agree too, and an ACK or RST without payload, which
//! may honestly repeat itself (one for each segment it answers), must also come from another interface or link address.
//! The same packet at the same place with a TTL lower by two or more is no copy of the capture's making: routers pass it round.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Sink;
use super::facts::Face;
use super::half::Stamp;
use super::key::Way;
use super::live::Live;
use crate::decode::{Datagram, Direction, Flags, Ip, Packet, Segment};
use crate::event::What;
use crate::time::Elapsed;

/// How far apart copies may be.
pub(super) const WITHIN: Elapsed = Elapsed::millis(1);
/// How long a packet may take to come by again on its way round.
const ROUND: Elapsed = Elapsed::secs(1);
/// What a way round takes of the TTL at least: two routers pass the packet to each other.
const HOPS: u8 = 2;
/// Passages told for each flow.
const TOLD: u32 = 4;
/// Faces kept of a side; the rest share [`OTHER`].
const FACES: usize = 4;
/// Index of a face that is not kept.
pub(super) const OTHER: u8 = 7;

/// The latest packets of one direction, as fingerprints.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    tags: [u64; 4],
    oldest: u8,
    /// What else is known of them; `None` for a place not used yet.
    prints: [Option<Print>; 4],
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Print {
    at: Stamp,
    face: u8,
    ttl: u8,
}

/// How a packet was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The capture recorded it twice: the original.
    Copy(Stamp),
    /// It came by at this place, with that TTL.
    Round(Stamp, u8),
}

/// What tells one packet from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    tag: u64,
    /// The same packet on the same face is a copy too.
    strong: bool,
}

impl Mark {
    /// Of a TCP segment.
    pub(super) fn of_segment(ip: &Ip, segment: &Segment<'_>) -> Self {
        let id = ip.id.unwrap_or(0);
        let numbers = u64::from(segment.seq.0) << 32 | u64::from(segment.ack.0);
        let shape = u64::from(id) << 48
            | u64::from(segment.window) << 32
            | u64::from(segment.flags.0) << 24
            | u64::from(segment.payload_len & 0xff_ffff);
        let mut tag = mix(numbers, shape);
        if !segment.payload.is_empty() {
            tag = mix(tag, ends(segment.payload));
        }
        let meant = segment.payload_len > 0 || segment.flags.has(Flags::SYN);
        if id == 0 {
            tag = mix(tag, u64::from(segment.checksum));
            let (eights, rest) = segment.options.as_chunks::<8>();
            tag = eights.iter().fold(tag, |tag, eight| mix(tag, u64::from_be_bytes(*eight)));
            if !rest.is_empty() {
                tag = mix(tag, octets(rest));
            }
        }
        Self { tag, strong: id != 0 || meant }
    }

    /// Of a UDP datagram.
    pub(super) fn of_datagram(ip: &Ip, datagram: &Datagram<'_>) -> Self {
        let id = ip.id.unwrap_or(0);
        let tag = mix(u64::from(id) << 32 | u64::from(datagram.payload_len), ends(datagram.payload));
        Self { tag, strong: id != 0 }
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x243f_6a88_85a3_08d3) * u128::from(b ^ 0x1319_8a2e_0370_7344);
    product as u64 ^ (product >> 64) as u64
}

fn octets(chunk: &[u8]) -> u64 {
    chunk.iter().fold(0, |word, octet| word << 8 | u64::from(*octet))
}

/// First and last eight octets of a payload, folded.
pub(super) fn ends(payload: &[u8]) -> u64 {
    let first = payload.first_chunk::<8>().map_or_else(|| octets(payload), |chunk| u64::from_be_bytes(*chunk));
    let last = payload.last_chunk::<8>().map_or(0, |chunk| u64::from_be_bytes(*chunk));
    mix(first, last)
}

impl Recent {
    /// The recent packet of which this one is a copy; when there is none, this one is remembered.
    #[inline]
    pub(super) fn original(&mut self, mark: Mark, at: Stamp, face: u8, ttl: u8) -> Option<Seen> {
        if !self.tags.contains(&mark.tag) {
            self.remember(mark.tag, Print { at, face, ttl });
            return None;
        }
        self.look(mark, at, face, ttl)
    }

    /// One of them has its tag.
    #[cold]
    fn look(&mut self, mark: Mark, at: Stamp, face: u8, ttl: u8) -> Option<Seen> {
        let far = |print: &Print| print.ttl >= ttl.saturating_add(HOPS);
        let away = |print: &Print| at.time().since(print.at.time()).abs();
        let all = self.tags.into_iter().zip(self.prints);
        let mut known = all.filter(|(tag, _)| *tag == mark.tag).filter_map(|(_, print)| print);
        if let Some(print) = known.clone().find(|print| print.face == face && far(print) && away(print) <= ROUND) {
            return Some(Seen::Round(print.at, print.ttl));
        }
        let copy = known.find(|print| away(print) <= WITHIN && (mark.strong || print.face != face));
        // On its way round it may come by here again.
        if copy.as_ref().is_none_or(far) {
            self.remember(mark.tag, Print { at, face, ttl });
        }
        copy.map(|print| Seen::Copy(print.at))
    }

    #[inline]
    fn remember(&mut self, tag: u64, print: Print) {
        let place = usize::from(self.oldest);
        if let (Some(known), Some(slot)) = (self.tags.get_mut(place), self.prints.get_mut(place)) {
            (*known, *slot) = (tag, Some(print));
        }
        self.oldest = (self.oldest + 1) % self.prints.len() as u8;
    }
}

/// Notes where the packet was seen. Returns the index of the face, [`OTHER`] beyond the first four.
pub(super) fn note_face(faces: &mut SmallVec<[Face; 1]>, hint: u8, packet: &Packet<'_>, at: Stamp) -> u8 {
    let direction = match packet.link.direction {
        Direction::Unknown => 0,
        Direction::In => 1,
        Direction::Out => 2,
        Direction::Broadcast => 3,
        Direction::OtherHost => 4,
    };
    let same = |face: &Face| {
        face.interface == packet.interface
            && face.ifindex == packet.link.ifindex
            && face.direction == direction
            && face.source == packet.link.source
            && face.destination == packet.link.destination
    };
    let known = match faces.get(usize::from(hint)) {
        Some(face) if same(face) => Some(usize::from(hint)),
        _ => faces.iter().position(same),
    };
    if let Some(face) = known.and_then(|index| faces.get_mut(index)) {
        face.packets += 1;
        return known.unwrap_or(0) as u8;
    }
    if faces.len() >= FACES {
        return OTHER;
    }
    faces.push(Face {
        interface: packet.interface,
        ifindex: packet.link.ifindex,
        direction,
        source: packet.link.source,
        destination: packet.link.destination,
        first: at.packet(),
        packets: 1,
    });
    faces.len() as u8 - 1
}

impl<S: Sink> Live<'_, S> {
    /// Notes the packet's face; whether it is a copy that the capture made.
    pub(super) fn duplicate(&mut self, way: Way, packet: &Packet<'_>, mark: impl FnOnce() -> Mark) -> bool {
        let trail = &mut self.detail.trails[way];
        let face = note_face(&mut trail.faces, self.flow.tracks[way].face, packet, self.stamp);
        self.flow.tracks[way].face = face;
        let ttl = packet.ip.as_ref().map_or(0, |ip| ip.ttl);
        match trail.recent.original(mark(), self.stamp, face, ttl) {
            Some(Seen::Copy(original)) => self.count_duplicate(original),
            Some(Seen::Round(original, from)) => self.went_round(way, original, from, ttl),
            None => return false,
        }
        true
    }

    fn went_round(&mut self, way: Way, original: Stamp, from: u8, to: u8) {
        self.detail.rounds = self.detail.rounds.saturating_add(1);
        if self.detail.rounds <= TOLD {
            self.event(way, What::WentRound { original: original.packet(), from, to });
        }
    }

    pub(super) fn count_duplicate(&mut self, original: Stamp) {
        self.detail.duplicates += 1;
        self.detail.duplicate.get_or_insert((original, self.stamp));
        self.shared.counts.duplicates += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PacketRef;
    use crate::time::Timestamp;
    use crate::wire::Address;
    use crate::wire::seq::Seq;

    fn ip(id: Option<u16>) -> Ip {
        let address = Address::v4([10, 0, 0, 1]);
        Ip { source: address, destination: address, ttl: 64, id, len: 40, reassembled: false, tunnelled: false }
    }

    fn ack(payload: &[u8]) -> Segment<'_> {
        Segment {
            source_port: 1,
            destination_port: 2,
            seq: Seq(1),
            ack: Seq(2),
            flags: Flags::ACK,
            window: 100,
            options: &[],
            payload,
            payload_len: payload.len() as u32,
            checksum: 7,
        }
    }

    fn known(recent: &mut Recent, mark: Mark, time: i64, face: u8) -> bool {
        let at = PacketRef { file: 0, number: 1, time: Timestamp(time) };
        recent.original(mark, at.into(), face, 64).is_some()
    }

    #[test]
    fn a_lower_ttl_at_the_same_place_is_a_way_round_and_on_another_face_a_router() {
        let mut recent = Recent::default();
        let mark = Mark::of_segment(&ip(Some(9)), &ack(b"x"));
        let mut see = |number, micros: i64, face, ttl| {
            let at = PacketRef { file: 0, number, time: Timestamp(micros * 1_000) };
            recent.original(mark, at.into(), face, ttl).map(|seen| match seen {
                Seen::Copy(original) => (original.packet().number, 0),
                Seen::Round(original, ttl) => (original.packet().number, ttl),
            })
        };
        assert_eq!(see(1, 0, 0, 64), None);
        assert_eq!(see(2, 10, 1, 63), Some((1, 0)), "forwarded");
        assert_eq!(see(3, 400_000, 0, 62), Some((1, 64)), "back again");
        assert_eq!(see(4, 2_000_000, 0, 60), None, "too late for the same packet");
    }

    #[test]
    fn a_packet_that_goes_round_between_other_places_is_seen_there() {
        let mut recent = Recent::default();
        let mark = Mark::of_segment(&ip(Some(9)), &ack(b"x"));
        let seen: Vec<_> = [(0, 64), (1, 63), (2, 62), (1, 61), (2, 60), (1, 59)]
            .into_iter()
            .zip(1..)
            .map(|((face, ttl), number)| {
                let at = PacketRef { file: 0, number, time: Timestamp(number as i64) };
                matches!(recent.original(mark, at.into(), face, ttl), Some(Seen::Round(..)))
            })
            .collect();
        assert_eq!(seen, [false, false, false, false, true, true]);
    }

    #[test]
    fn the_same_ip_id_within_a_millisecond_is_a_copy() {
        let mut recent = Recent::default();
        let mark = Mark::of_segment(&ip(Some(9)), &ack(b"x"));
        assert!(!known(&mut recent, mark, 0, 0));
        assert!(known(&mut recent, mark, 900_000, 1));
        assert!(!known(&mut recent, mark, 2_000_000, 1));
    }

    #[test]
    fn duplicate_acknowledgments_without_ip_id_are_no_copies_on_one_interface() {
        let mut recent = Recent::default();
        let mark = Mark::of_segment(&ip(Some(0)), &ack(b""));
        assert!(!known(&mut recent, mark, 0, 0));
        assert!(!known(&mut recent, mark, 1_000, 0));
        assert!(known(&mut recent, mark, 2_000, 1));
    }

    #[test]
    fn resets_that_answer_several_segments_are_several() {
        let mut recent = Recent::default();
        let reset = Segment { flags: Flags::RST, ..ack(b"") };
        let mark = Mark::of_segment(&ip(Some(0)), &reset);
        assert!(!known(&mut recent, mark, 0, 0));
        assert!(!known(&mut recent, mark, 50_000, 0));
    }

    #[test]
    fn another_payload_under_the_same_ip_id_is_no_copy() {
        let mut recent = Recent::default();
        assert!(!known(&mut recent, Mark::of_segment(&ip(Some(1)), &ack(b"AAAA")), 0, 0));
        assert!(!known(&mut recent, Mark::of_segment(&ip(Some(1)), &ack(b"BBBB")), 50_000, 0));
    }

    #[test]
    fn without_ip_id_another_checksum_is_another_packet() {
        let mut recent = Recent::default();
        let first = ack(b"x");
        let other = Segment { checksum: 8, ..first };
        assert!(!known(&mut recent, Mark::of_segment(&ip(None), &first), 0, 0));
        assert!(!known(&mut recent, Mark::of_segment(&ip(None), &other), 10, 1));
        assert!(known(&mut recent, Mark::of_segment(&ip(None), &first), 20, 1));
    }
}
