//! What a RST means: who sent it can be told from its flags and numbers, and from whether it fits its side at all.
//!
//! RFC 9293 §3.5.2, §3.10.7; the forms were measured on Linux. A RST after the sender's own FIN is never more than "the reader went away",
//! so that is asked first; then whether it fits (an injected RST has the very form of an honest one).

use super::Sink;
use super::facts;
use super::half::{Marks, Track, Trail};
use super::key::Way;
use super::ledger::Hole;
use super::live::Live;
use super::options::Options;
use super::tcp::FAR;
use crate::decode::{Flags, Ip, Segment};
use crate::event::{ResetKind, What};
use crate::wire::seq::Seq;

/// RSTs kept of a side.
const RESETS: u32 = 4;

/// How far below or above the expected number an honest RST may lie: it answers a packet that is some time on its way.
const SLACK: u32 = 1 << 16;

impl<S: Sink> Live<'_, S> {
    #[inline(never)]
    pub(super) fn fin(&mut self, way: Way, s: &Segment<'_>) {
        let at = self.stamp;
        let seq = s.seq.plus(u32::from(s.flags.has(Flags::SYN))).plus(s.payload_len);
        let (track, trail) = (&mut self.flow.tracks[way], &mut self.detail.trails[way]);
        trail.fin_count += 1;
        trail.fin_last = Some(at);
        self.detail.closer.get_or_insert((way, at));
        if !track.marks.set(Marks::FIN) {
            return;
        }
        trail.fin = Some(at);
        trail.fin_seq = seq;
        let ahead = seq.minus(track.next);
        if ahead > 0 && ahead.unsigned_abs() <= FAR {
            let (start, noticed) = (track.next, at);
            let hole = Hole { start, end: seq, noticed, tsval: None, ip_id: None, acked: None, lost: false };
            trail.rare().holes.open(hole);
        }
        if ahead >= 0 && ahead.unsigned_abs() <= FAR {
            track.next = seq.plus(1);
        }
        self.tell_fin(way);
    }

    #[cold]
    #[inline(never)]
    pub(super) fn reset(&mut self, way: Way, ip: &Ip, s: &Segment<'_>, options: &Options) {
        let at = self.stamp;
        let (mine, peer) = (&self.flow.tracks[way], &self.flow.tracks[way.other()]);
        let (my_trail, peer_trail) = (&self.detail.trails[way], &self.detail.trails[way.other()]);
        let kind = kind(&Circumstances { mine, my_trail, peer, peer_trail }, ip, s);
        let acks = s.flags.has(Flags::ACK);
        let reference = if acks { s.ack } else { peer.una };
        let known = peer.marks.has(Marks::SEEN) && (acks || peer.marks.has(Marks::ACKED));
        let last = if peer.marks.has(Marks::FIN) { peer_trail.fin_seq } else { peer.next };
        let unread = if known { last.minus(reference).max(0).unsigned_abs() } else { 0 };
        let talked = self.flow.established || self.flow.mid_stream;
        let closed = mine.marks.has(Marks::FIN) && peer.marks.has(Marks::FIN);
        let rare = self.detail.trails[way].rare();
        rare.reset_count += 1;
        if rare.reset_count <= RESETS {
            let ack = acks.then_some(s.ack);
            rare.resets.push(facts::Reset { at: self.at, kind, seq: s.seq, ack, unread, ttl: ip.ttl });
        }
        let told = rare.resets_told & 1 << kind as u8 != 0;
        rare.resets_told |= 1 << kind as u8;
        self.detail.closer.get_or_insert((way, at));
        if self.detail.reset.is_none() && !closed {
            self.detail.reset = Some((way, kind));
        }
        if kind != ResetKind::Edge {
            self.flow.tracks[way].marks.set(Marks::RESET);
            if acks {
                self.acknowledge(way, s, options);
            }
        }
        if !told {
            self.event(way, What::Reset { kind, unread });
        }
        if kind != ResetKind::Edge && talked {
            self.flush(way);
        }
    }
}

/// The two directions as they stood before the RST: `mine` belongs to its sender.
pub(super) struct Circumstances<'a> {
    pub(super) mine: &'a Track,
    pub(super) my_trail: &'a Trail,
    pub(super) peer: &'a Track,
    pub(super) peer_trail: &'a Trail,
}

/// The kind of a RST.
pub(super) fn kind(around: &Circumstances<'_>, ip: &Ip, segment: &Segment<'_>) -> ResetKind {
    let Circumstances { mine, my_trail, peer, .. } = around;
    let acks = segment.flags.has(Flags::ACK);
    if my_trail.fin.is_some() {
        return ResetKind::AfterFin;
    }
    if acks && refuses(around, segment) {
        return ResetKind::Refused;
    }
    if !number_fits(mine, peer, segment) || stranger(mine, my_trail, ip, segment) {
        return ResetKind::Edge;
    }
    if acks { ResetKind::Abort } else { ResetKind::Stray }
}

/// It acknowledges a SYN to which its side said nothing else.
fn refuses(around: &Circumstances<'_>, segment: &Segment<'_>) -> bool {
    let Circumstances { mine, peer, peer_trail, .. } = around;
    if mine.marks.has(Marks::SEEN) {
        return false;
    }
    if peer.marks.has(Marks::SYN) {
        // Octets in the SYN (fast open) may be acknowledged with it.
        let beyond = segment.ack.minus(peer_trail.isn.plus(1));
        return beyond >= 0 && i64::from(beyond) <= i64::from(peer.next.minus(peer_trail.isn.plus(1)).max(0));
    }
    !peer.marks.has(Marks::SEEN) && segment.seq == Seq(0)
}

/// Its sequence number is one the side could honestly use.
fn number_fits(mine: &Track, peer: &Track, segment: &Segment<'_>) -> bool {
    // Without ACK the number is copied from the acknowledgment that the answered packet carried: what the peer has acknowledged so far.
    let echoes = mine.marks.has(Marks::ACKED) && segment.seq.minus(mine.una).unsigned_abs() <= SLACK;
    if !mine.marks.has(Marks::SEEN) {
        return echoes || !mine.marks.has(Marks::ACKED);
    }
    let ahead = segment.seq.minus(mine.next);
    let window = if peer.marks.has(Marks::WINDOW) { peer.window.max(SLACK) } else { SLACK };
    echoes || (ahead <= 0 && ahead.unsigned_abs() <= SLACK.max(window)) || (ahead > 0 && ahead.unsigned_abs() <= window)
}

/// TTL far from every other packet of the side, together with another oddity. One alone proves nothing: proxies and kernels answer with
/// TTLs of their own.
fn stranger(mine: &Track, my_trail: &Trail, ip: &Ip, segment: &Segment<'_>) -> bool {
    if mine.packets < 2 {
        return false;
    }
    let ttl = u16::from(ip.ttl);
    let far = ttl + 2 <= u16::from(mine.ttl_min) || ttl >= u16::from(mine.ttl_max) + 2;
    // Linux answers for a connection it does not know without timestamps; a live socket always has them.
    let live = segment.flags.has(Flags::ACK) && my_trail.timestamps;
    let bare = live && Options::read(segment.options).timestamps.is_none();
    let elsewhere = segment.seq != mine.next && segment.seq != mine.una;
    let id = match (ip.id, my_trail.ip_id) {
        (Some(0), Some(last)) => last != 0,
        (Some(id), Some(0)) => id != 0,
        (Some(id), Some(last)) => id.wrapping_sub(last) > 1024,
        _ => false,
    };
    far && (bare || elsewhere || id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PacketRef;
    use crate::time::Timestamp;
    use crate::wire::Address;

    /// A server at 5000 that acknowledged the client's SYN 999 and has sent two packets, TTL 64, IP ids near 100.
    fn established() -> (Track, Trail, Track, Trail) {
        let mut mine =
            Track { next: Seq(5000), una: Seq(5000), packets: 2, ttl_min: 64, ttl_max: 64, ..Track::default() };
        mine.marks.set(Marks::SEEN);
        mine.marks.set(Marks::SYN);
        mine.marks.set(Marks::ACKED);
        let mut peer = Track { next: Seq(1000), una: Seq(1000), window: 64_000, packets: 2, ..Track::default() };
        peer.marks.set(Marks::SEEN);
        peer.marks.set(Marks::SYN);
        let trail = Trail { isn: Seq(4999), ip_id: Some(100), timestamps: true, ..Trail::default() };
        (mine, trail, peer, Trail { isn: Seq(999), ..Trail::default() })
    }

    fn rst(flags: u8, seq: u32, ack: u32) -> Segment<'static> {
        Segment {
            source_port: 80,
            destination_port: 4000,
            seq: Seq(seq),
            ack: Seq(ack),
            flags: Flags(flags),
            window: 0,
            options: &[],
            payload: &[],
            payload_len: 0,
            checksum: 0,
        }
    }

    fn judge(parts: &(Track, Trail, Track, Trail), ttl: u8, segment: &Segment<'_>) -> ResetKind {
        let address = Address::v4([10, 0, 0, 1]);
        let (source, destination) = (address, address);
        let ip = Ip { source, destination, ttl, id: Some(101), len: 40, reassembled: false, tunnelled: false };
        let (mine, my_trail, peer, peer_trail) = (&parts.0, &parts.1, &parts.2, &parts.3);
        kind(&Circumstances { mine, my_trail, peer, peer_trail }, &ip, segment)
    }

    #[test]
    fn the_flags_tell_an_abort_from_a_stray() {
        let parts = established();
        assert_eq!(judge(&parts, 64, &rst(0x14, 5000, 1000)), ResetKind::Abort);
        assert_eq!(judge(&parts, 64, &rst(0x04, 5000, 0)), ResetKind::Stray);
    }

    #[test]
    fn a_reset_that_acknowledges_a_syn_is_a_refusal_unless_the_side_had_answered() {
        let mut parts = established();
        parts.0 = Track::default();
        assert_eq!(judge(&parts, 64, &rst(0x14, 0, 1000)), ResetKind::Refused);
        assert_eq!(judge(&established(), 64, &rst(0x14, 5000, 1000)), ResetKind::Abort);
    }

    #[test]
    fn a_reset_after_the_senders_own_fin_is_no_anomaly_whatever_its_numbers() {
        let mut parts = established();
        parts.1.fin = Some(PacketRef { file: 0, number: 1, time: Timestamp(0) }.into());
        assert_eq!(judge(&parts, 30, &rst(0x04, 99, 0)), ResetKind::AfterFin);
    }

    #[test]
    fn a_number_far_outside_the_window_is_not_the_sides_own() {
        assert_eq!(judge(&established(), 64, &rst(0x14, 900_000_000, 1000)), ResetKind::Edge);
    }

    #[test]
    fn the_highest_ttl_is_not_far_from_itself() {
        let mut parts = established();
        (parts.0.ttl_min, parts.0.ttl_max) = (255, 255);
        assert_eq!(judge(&parts, 255, &rst(0x14, 5000, 1000)), ResetKind::Abort);
    }

    #[test]
    fn another_ttl_counts_only_with_another_oddity() {
        let mut parts = established();
        assert_eq!(judge(&parts, 50, &rst(0x14, 5000, 1000)), ResetKind::Edge);
        parts.1.timestamps = false;
        assert_eq!(judge(&parts, 50, &rst(0x14, 5000, 1000)), ResetKind::Abort);
    }
}
