//! Whether a TCP checksum fits, and which segments came damaged. RFC 9293 §3.1, RFC 1071, RFC 8200 §8.1.
//!
//! A wrong checksum alone says little: on a sending host the network card fills it in behind the capture. Damage is a segment whose checksum
//! is wrong, that the receiver did not acknowledge, and whose octets came again with a checksum that fits. Looking at every payload would cost
//! more than all the rest, so it is done for the first segments of a side, and for the next [`MORE`] whenever the receiver lacks a segment that the
//! capture has: it reports octets behind it (SACK), or the segment is sent again.

use serde::{Deserialize, Serialize};

use super::Sink;
use super::half::{Stamp, Trail};
use super::key::Way;
use super::live::Live;
use super::tcp::TOLD;
use crate::decode::{Flags, Ip, Segment};
use crate::event::{PacketRef, What};
use crate::wire::seq::Seq;

/// Segments at the beginning of a side that are looked at.
const FIRST: u8 = 8;
/// Segments of a side that are looked at once the receiver lacks one of it that the capture has.
const MORE: u16 = 512;
/// Wrong segments remembered, and damaged ones.
const SUSPECTS: usize = 16;
const DAMAGED: usize = 16;
/// Octets that are summed up at once.
const BLOCK: usize = 32;

/// A segment with a wrong checksum that may have been damaged on its way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Suspect {
    start: Seq,
    end: Seq,
    at: Stamp,
    /// It is one of the first segments, which tell whether the capture sees finished checksums at all.
    counted: bool,
}

/// What was found out about wrong checksums of one direction.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Damage {
    suspects: Vec<Suspect>,
    /// The latest segment whose checksum was seen to fit while there was a suspect.
    fits: Option<PacketRef>,
    /// Damaged segments.
    pub(super) count: u32,
    /// The first of them, each with the copy that came right.
    pub(super) shown: Vec<(PacketRef, PacketRef)>,
}

impl Trail {
    /// Whether there is a reason to look at the checksum of its segment.
    #[inline]
    pub(super) fn doubts_sums(&self) -> bool {
        self.checksums.0 < FIRST || self.more_checksums > 0
    }
}

impl<S: Sink> Live<'_, S> {
    /// Looks at the checksum of a segment of the side.
    #[inline(never)]
    pub(super) fn look_at_sum(&mut self, way: Way, ip: &Ip, s: &Segment<'_>) {
        let Some(fits) = fits(ip, s) else { return };
        let at = self.at;
        let trail = &mut self.detail.trails[way];
        let counted = trail.checksums.0 < FIRST;
        if counted {
            trail.checksums.0 += 1;
            trail.checksums.1 += u8::from(!fits);
        } else {
            trail.more_checksums -= 1;
        }
        if fits {
            if let Some(damage) = trail.rare.as_mut().and_then(|rare| rare.damage.as_mut()) {
                damage.fits = Some(at);
            }
            return;
        }
        self.wrong_sum(way, ip, s, counted);
    }

    /// It does not fit.
    #[cold]
    #[inline(never)]
    fn wrong_sum(&mut self, way: Way, ip: &Ip, s: &Segment<'_>, counted: bool) {
        let (at, mss) = (self.at, self.detail.trails[way.other()].mss);
        let trail = &mut self.detail.trails[way];
        let joined = mss.is_some_and(|mss| s.payload_len > u32::from(mss));
        if s.payload_len > 0 && !joined && !unfinished(ip, s) {
            let start = s.seq.plus(u32::from(s.flags.has(Flags::SYN)));
            let suspects = &mut trail.rare().damage.get_or_insert_default().suspects;
            if suspects.len() >= SUSPECTS {
                suspects.remove(0);
            }
            suspects.push(Suspect { start, end: start.plus(s.payload_len), at: at.into(), counted });
            self.look_closer(way);
        }
        let trail = &mut self.detail.trails[way];
        if counted && trail.checksums.1 == 1 {
            trail.rare().checksum_first = Some(at);
            self.event(way, What::BadChecksum);
        }
    }

    /// From here on more checksums of the direction are looked at, if the capture sees finished ones.
    pub(super) fn look_closer(&mut self, way: Way) {
        let trail = &mut self.detail.trails[way];
        let (looked_at, wrong) = trail.checksums;
        if wrong <= looked_at / 2 {
            trail.more_checksums = MORE;
        }
    }

    /// `start..end`, which the capture has and nobody acknowledged, was sent again in the packet at hand.
    pub(super) fn damaged(&mut self, way: Way, start: Seq, end: Seq) {
        self.look_closer(way);
        let at = self.at;
        let trail = &mut self.detail.trails[way];
        let Some(damage) = trail.rare.as_mut().and_then(|rare| rare.damage.as_mut()) else { return };
        if damage.fits != Some(at) {
            return;
        }
        let repeated = |suspect: &Suspect| !start.after(suspect.start) && !suspect.end.after(end);
        let Some(place) = damage.suspects.iter().position(repeated) else { return };
        let first = damage.suspects[place];
        let before = damage.suspects.len();
        let counted = damage.suspects.iter().filter(|suspect| repeated(suspect) && suspect.counted).count();
        damage.suspects.retain(|suspect| !repeated(suspect));
        damage.count += (before - damage.suspects.len()) as u32;
        if damage.shown.len() < DAMAGED {
            damage.shown.push((first.at.packet(), at));
        }
        trail.checksums.1 = trail.checksums.1.saturating_sub(counted as u8);
        if damage.count <= TOLD {
            self.event_at(first.at.packet(), way, What::Damaged { again: at });
        }
    }

    /// The receiver reports that the copy was needless: it had taken the first one.
    pub(super) fn undamaged(&mut self, way: Way, copy: PacketRef) {
        if let Some(damage) = self.detail.trails[way].rare.as_mut().and_then(|rare| rare.damage.as_mut()) {
            let before = damage.shown.len();
            damage.shown.retain(|(_, again)| *again != copy);
            damage.count = damage.count.saturating_sub((before - damage.shown.len()) as u32);
        }
    }
}

/// `None` when it cannot be told: the payload is not all there, or the segment has an urgent pointer, which decoding does not keep.
pub(super) fn fits(ip: &Ip, segment: &Segment<'_>) -> Option<bool> {
    if segment.payload.len() as u32 != segment.payload_len || segment.flags.has(Flags::URG) || ip.reassembled {
        return None;
    }
    Some(sum(ip, segment) == 0xffff)
}

/// The sum over pseudo header and segment, the checksum in it.
fn sum(ip: &Ip, segment: &Segment<'_>) -> u16 {
    let offset = (20 + segment.options.len() as u64) / 4;
    let mut sum = pseudo(ip, 20 + segment.options.len() as u64 + segment.payload.len() as u64);
    sum += u64::from(segment.source_port) + u64::from(segment.destination_port);
    sum += u64::from(segment.seq.0 >> 16) + u64::from(segment.seq.0 & 0xffff);
    sum += u64::from(segment.ack.0 >> 16) + u64::from(segment.ack.0 & 0xffff);
    sum += offset << 12 | u64::from(segment.flags.0);
    sum += u64::from(segment.window) + u64::from(segment.checksum);
    sum += words(segment.options) + words(segment.payload);
    folded(sum)
}

/// Sum of the pseudo header of a segment of `len` octets.
fn pseudo(ip: &Ip, len: u64) -> u64 {
    let words = |address: u128| u64::from(address as u32);
    let ends = [ip.source.0, ip.destination.0];
    let addresses: u64 = if ip.source.is_v4() {
        // The mapped form's 0xffff must not be added.
        ends.into_iter().map(words).sum()
    } else {
        ends.into_iter().flat_map(|address| [0, 32, 64, 96].map(|by| words(address >> by))).sum()
    };
    6 + len + addresses
}

/// Nobody has finished the checksum yet: the field holds the sum of the pseudo header (with the length or without it), or nothing.
fn unfinished(ip: &Ip, segment: &Segment<'_>) -> bool {
    let len = 20 + segment.options.len() as u64 + u64::from(segment.payload_len);
    [0, folded(pseudo(ip, len)), folded(pseudo(ip, 0))].contains(&segment.checksum)
}

/// The carries added at the other end until none is left: to 33, 18, 17, and 16 bits.
fn folded(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// What the checksum field holds on a sending host.
#[cfg(test)]
pub(super) fn unfinished_as(ip: &Ip, segment: &Segment<'_>) -> u16 {
    folded(pseudo(ip, 20 + segment.options.len() as u64 + u64::from(segment.payload_len)))
}

/// What the checksum field has to hold.
#[cfg(test)]
pub(super) fn right(ip: &Ip, segment: &Segment<'_>) -> u16 {
    !sum(ip, &Segment { checksum: 0, ..*segment })
}

/// Sum of the 16-bit words: of blocks four octets at a time in eight sums beside each other, which a processor adds at once; what is left
/// over eight octets at a time with the carry added at the other end. The sum does not mind, nor that it is made in the machine's own order
/// and turned when it is done (RFC 1071 §2(B), §2(C)).
fn words(octets: &[u8]) -> u64 {
    let (blocks, rest) = octets.as_chunks::<BLOCK>();
    let mut sum = if blocks.is_empty() { 0 } else { long(blocks) };
    let mut add = |eight: [u8; 8]| {
        let (next, carry) = sum.overflowing_add(u64::from_ne_bytes(eight));
        sum = next + u64::from(carry);
    };
    let (eights, rest) = rest.as_chunks::<8>();
    eights.iter().for_each(|eight| add(*eight));
    if !rest.is_empty() {
        // The rest and nothing behind it; where there is more in front of it, that is pushed out.
        add(octets.last_chunk::<8>().map_or_else(
            || {
                let mut last = [0; 8];
                last.iter_mut().zip(rest).for_each(|(to, octet)| *to = *octet);
                last
            },
            |last| (u64::from_le_bytes(*last) >> (64 - 8 * rest.len())).to_le_bytes(),
        ));
    }
    u64::from(u16::from_be(folded(sum)))
}

/// Sum of many octets, four at a time.
fn long(blocks: &[[u8; BLOCK]]) -> u64 {
    let mut sums = [0u64; BLOCK / 4];
    for block in blocks {
        for (sum, four) in sums.iter_mut().zip(block.as_chunks::<4>().0) {
            *sum += u64::from(u32::from_ne_bytes(*four));
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::flow::script::{Script, Shot, Sum};
    use crate::wire::Address;

    /// Data of the server, the second segment as `sum` says; the client asks for it, and it comes again.
    fn again(sum: Sum, copy: Sum, acknowledged: u32) -> Script {
        let mut script = Script::new();
        script.handshake();
        let data = |seq, sum| Shot { from_server: true, seq, ack: 1, payload: b"twelve octet", sum, ..Shot::default() };
        let ack = |ack| Shot { seq: 1, ack, sum: Sum::Right, ..Shot::default() };
        script.send(10, data(1, Sum::Right));
        script.send(11, ack(13));
        script.send(12, data(13, sum));
        script.send(13, data(25, Sum::Right));
        script.send(14, ack(acknowledged));
        script.send(250, data(13, copy));
        script
    }

    #[test]
    fn a_wrong_segment_that_nobody_acknowledged_and_that_came_again_was_damaged() {
        let script = again(Sum::Wrong, Sum::Right, 13);
        let server = script.facts().from_server;
        let shown: Vec<_> = server.damaged.iter().map(|(first, copy)| (first.number, copy.number)).collect();
        assert_eq!((server.damages, shown.as_slice()), (1, [(6, 9)].as_slice()));
        assert_eq!(script.kinds().iter().filter(|kind| **kind == Kind::Damaged).count(), 1);
    }

    #[test]
    fn what_the_receiver_took_what_nobody_finished_and_what_is_wrong_again_was_not_damaged() {
        let damages = |sum, copy, acknowledged| again(sum, copy, acknowledged).facts().from_server.damages;
        assert_eq!(damages(Sum::Wrong, Sum::Right, 37), 0, "it was acknowledged");
        assert_eq!(damages(Sum::Unfinished, Sum::Right, 13), 0, "the network card finishes it");
        assert_eq!(damages(Sum::Wrong, Sum::Wrong, 13), 0, "all of them are wrong here");
        assert_eq!(damages(Sum::Right, Sum::Right, 13), 0, "it was lost");
    }

    #[test]
    fn far_from_the_beginning_checksums_are_looked_at_once_something_came_again() {
        let mut script = Script::new();
        script.handshake();
        let data =
            |n: u32, sum| Shot { from_server: true, seq: 1 + 4 * n, ack: 1, payload: b"four", sum, ..Shot::default() };
        let mut ms = 10;
        for n in 0..40 {
            let damaged = [18, 30].contains(&n);
            script.send(ms, data(n, if damaged { Sum::Wrong } else { Sum::Right }));
            script.send(ms + 1, Shot { seq: 1, ack: 1 + 4 * (n + u32::from(!damaged)), ..Shot::default() });
            if damaged {
                script.send(ms + 300, data(n, Sum::Right));
            }
            ms += 400;
        }
        let server = script.facts().from_server;
        assert_eq!((server.damages, server.loss.total(), server.checksums.0), (1, 2, u32::from(FIRST)));
    }

    #[test]
    fn a_checksum_fits_until_one_octet_changes() {
        let (a, b) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]));
        let ip = Ip { source: a, destination: b, ttl: 64, id: None, len: 43, reassembled: false, tunnelled: false };
        let mut segment = Segment {
            source_port: 1,
            destination_port: 2,
            seq: Seq(3),
            ack: Seq(4),
            flags: Flags::ACK,
            window: 5,
            options: &[],
            payload: b"abc",
            payload_len: 3,
            checksum: 0,
        };
        // 0a00+0001+0a00+0002 + 6+23 + 1+2 + 3 + 4 + 5010 + 5 + 6162+6300 = 0x128a1 -> 0x28a2; complement 0xd75d
        segment.checksum = 0xd75d;
        assert_eq!((fits(&ip, &segment), right(&ip, &segment)), (Some(true), 0xd75d));
        segment.payload = b"abd";
        assert_eq!(fits(&ip, &segment), Some(false));
        segment.payload = b"ab";
        assert_eq!(fits(&ip, &segment), None);
    }
}
