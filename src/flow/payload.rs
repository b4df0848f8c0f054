//! A segment's payload against what its direction sent before: new, late, repeated, or only a probe.
//!
//! RFC 9293 §3.8.4 (keep-alive), §3.8.6.1 (zero-window probe), RFC 7413 (octets in a SYN).

use super::duplicates;
use super::half::{Marks, Stamp};
use super::key::Way;
use super::ledger::Hole;
use super::live::Live;
use super::loss::Late;
use super::options::Options;
use super::tcp::{FAR, TOLD};
use super::{Came, Sink};
use crate::decode::{Flags, Ip, Segment};
use crate::event::What;
use crate::time::Elapsed;
use crate::wire::seq::Seq;

/// Numbers of acknowledgments without payload are believed so far ahead only: they may be strangers' as well.
const NEAR: u32 = 1 << 24;
/// A probe on a connection that was silent for so long is a keep-alive. A second, less what clocks differ.
const IDLE: Elapsed = Elapsed::millis(900);

impl<S: Sink> Live<'_, S> {
    /// A segment of 0 or 1 octet at an old number may be a probe: of a silent peer, or of a closed window.
    pub(super) fn probe(&mut self, way: Way, s: &Segment<'_>, before: Option<Stamp>) {
        let closed = self.flow.tracks[way.other()].marks.has(Marks::CLOSED_WINDOW);
        let track = &self.flow.tracks[way];
        let plain = s.flags.has(Flags::ACK) && !s.flags.has(Flags::SYN) && !s.flags.has(Flags::FIN);
        let again = s.seq.plus(1) == track.next;
        if plain && (again || (closed && s.payload_len == 1 && s.seq == track.next)) {
            self.probed(way, before);
        }
    }

    /// The segment is a probe as far as its own numbers tell.
    #[cold]
    #[inline(never)]
    fn probed(&mut self, way: Way, before: Option<Stamp>) {
        let peer = &self.flow.tracks[way.other()];
        let peer_payload = peer.last_payload;
        let closed = peer.marks.has(Marks::CLOSED_WINDOW);
        let track = &mut self.flow.tracks[way];
        if closed {
            track.marks.set(Marks::PROBE);
            let rare = self.detail.trails[way.other()].rare();
            rare.zero_window_probes += 1;
            if rare.zero_window_probes <= TOLD {
                self.event(way, What::ZeroWindowProbe);
            }
            return;
        }
        // With octets in flight the last one may simply be sent again.
        let settled = track.marks.has(Marks::ACKED) && track.una == track.next;
        let since = |stamp: Option<Stamp>| stamp.is_none_or(|stamp| self.at.time.since(stamp.time()) >= IDLE);
        let idle = since(track.last_payload) && since(peer_payload) && (before.is_some() || peer_payload.is_some());
        if settled && idle {
            track.marks.set(Marks::KEEPALIVE);
            let rare = self.detail.trails[way].rare();
            rare.keepalives += 1;
            if rare.keepalives <= TOLD {
                self.event(way, What::KeepAlive);
            }
        }
    }

    /// A pure acknowledgment carries the side's next number: what lies before it and was not seen is missing.
    #[inline]
    pub(super) fn ahead(&mut self, way: Way, ip: &Ip, s: &Segment<'_>, options: &Options) {
        if s.seq.after(self.flow.tracks[way].next) {
            self.ahead_now(way, ip, s, options);
        }
    }

    #[cold]
    #[inline(never)]
    fn ahead_now(&mut self, way: Way, ip: &Ip, s: &Segment<'_>, options: &Options) {
        let track = &mut self.flow.tracks[way];
        let ahead = s.seq.minus(track.next);
        // Only the flow's own acknowledgments: hosts answer strange packets with numbers of connections long gone.
        if ahead <= 0 || ahead.unsigned_abs() > NEAR || !self.flow.established || !s.flags.has(Flags::ACK) {
            return;
        }
        let noticed = self.stamp;
        let tsval = options.timestamps.map(|(value, _)| value);
        let hole = Hole { start: track.next, end: s.seq, noticed, tsval, ip_id: ip.id, acked: None, lost: false };
        track.next = s.seq;
        let rare = self.detail.trails[way].rare();
        rare.holes.open(hole);
        if !std::mem::replace(&mut rare.passed_over, true) {
            self.event(way, What::PassedOver);
        }
    }

    pub(super) fn payload(&mut self, way: Way, ip: &Ip, s: &Segment<'_>, options: &Options) {
        let start = s.seq.plus(u32::from(s.flags.has(Flags::SYN)));
        let len = s.payload_len;
        let end = start.plus(len);
        let captured = s.payload.get(..len as usize).unwrap_or(s.payload);
        self.count_payload(way, s, start);
        let track = &mut self.flow.tracks[way];
        let ahead = start.minus(track.next);
        if ahead.unsigned_abs() > FAR || len > FAR {
            return;
        }
        let (tsval, ip_id) = (options.timestamps.map(|(value, _)| value), ip.id);
        let new = if ahead >= 0 {
            if ahead > 0 {
                self.passed_over(way, &Late { start, end, tsval, ip_id });
            }
            let track = &mut self.flow.tracks[way];
            track.next = end;
            track.marks.clear(Marks::PROBE);
            self.released(way);
            if len == 1 && self.flow.tracks[way.other()].marks.has(Marks::CLOSED_WINDOW) {
                self.flow.tracks[way].marks.set(Marks::PROBE);
            }
            let sent = self.sent(way, start, len, captured, ip_id);
            self.detail.trails[way].flight.push(sent);
            len
        } else {
            self.old_payload(way, &Late { start, end, tsval, ip_id }, captured)
        };
        let track = &mut self.flow.tracks[way];
        track.payload += u64::from(new);
        if new > 0 {
            track.last_payload = Some(self.stamp);
            if track.marks.has(Marks::RESET) && self.flow.established && ahead >= 0 {
                self.revive();
            }
        }
        self.accept(way, start, len, captured);
    }

    /// What lies before the new payload was not seen.
    #[cold]
    #[inline(never)]
    fn passed_over(&mut self, way: Way, new: &Late) {
        let (start, noticed) = (self.flow.tracks[way].next, self.stamp);
        let Late { start: end, tsval, ip_id, .. } = *new;
        let hole = Hole { start, end, noticed, tsval, ip_id, acked: None, lost: false };
        self.detail.trails[way].rare().holes.open(hole);
    }

    fn count_payload(&mut self, way: Way, s: &Segment<'_>, start: Seq) {
        let track = &mut self.flow.tracks[way];
        track.sent += u64::from(s.payload_len);
        track.segments = track.segments.saturating_add(1);
        self.flow.established |= !s.flags.has(Flags::SYN);
        let limit = self.detail.trails[way.other()].mss;
        let trail = &mut self.detail.trails[way];
        let first = trail.first_payload.is_none();
        if first {
            trail.first_payload = Some(self.stamp);
            trail.payload_begins = start;
            self.event(way, What::FirstPayload);
        }
        if (s.payload.len() as u64) < u64::from(s.payload_len) {
            self.cut_short(way);
        }
        if limit.is_some_and(|mss| mss > 0 && s.payload_len > u32::from(mss)) {
            self.oversized(way);
        }
    }

    /// The capture does not have all of the payload.
    #[cold]
    #[inline(never)]
    fn cut_short(&mut self, way: Way) {
        let rare = self.detail.trails[way].rare();
        rare.cut += 1;
        if rare.cut_first.is_none() {
            rare.cut_first = Some(self.at);
            self.event(way, What::CutShort);
        }
    }

    /// The segment is larger than the receiver takes: the network card cuts it up, or has put it together.
    #[cold]
    #[inline(never)]
    fn oversized(&mut self, way: Way) {
        let rare = self.detail.trails[way].rare();
        rare.oversized = rare.oversized.saturating_add(1);
        if rare.oversized_first.is_none() {
            rare.oversized_first = Some(self.at);
            self.event(way, What::Oversized);
        }
    }

    /// Payload that begins before what was already sent. Returns how many of its octets are new.
    #[cold]
    #[inline(never)]
    fn old_payload(&mut self, way: Way, late: &Late, captured: &[u8]) -> u32 {
        let Late { start, end, .. } = *late;
        let at = self.stamp;
        let (track, trail) = (&mut self.flow.tracks[way], &mut self.detail.trails[way]);
        let held = trail.rare.as_ref().is_some_and(|rare| rare.assembler.conflicts(start, captured));
        let (filled, hole) = trail.rare.as_mut().map_or((0, None), |rare| rare.holes.fill(start, end));
        let beyond = end.minus(track.next).max(0).unsigned_abs();
        let old_next = track.next;
        // The octet of a zero-window probe goes out again with the data it belongs to; so do octets of a SYN that were not accepted.
        let excused = (track.marks.has(Marks::PROBE) && start.plus(1) == old_next)
            || (track.marks.has(Marks::FAST_OPEN_REFUSED) && start == trail.isn.plus(1))
            || (track.marks.has(Marks::KEEPALIVE) && start.plus(1) == old_next && end == old_next);
        let original =
            if filled < end.minus(start).unsigned_abs() { trail.flight.copied(start, end, at) } else { None };
        if beyond > 0 {
            track.next = end;
            track.marks.clear(Marks::PROBE);
            let sent = self.sent(way, old_next, beyond, &[], late.ip_id);
            self.detail.trails[way].flight.push(sent);
        }
        let differs = original.is_some_and(|sent| {
            let whole = sent.start == start && sent.end() == end && captured.len() as u32 == sent.len;
            whole && sent.print != duplicates::ends(captured)
        });
        if (held || differs) && !excused {
            let rare = self.detail.trails[way].rare();
            rare.overlap_conflicts += 1;
            if rare.overlap_conflicts <= TOLD {
                self.event(way, What::OverlapConflict);
            }
        }
        match hole.filter(|_| filled > 0) {
            Some(hole) => {
                self.filled(way, late, &hole);
                let mut sent = self.sent(way, start, end.minus(start).unsigned_abs(), captured, late.ip_id);
                sent.late = true;
                self.detail.trails[way].flight.push(sent);
            }
            None if excused => {
                self.flow.tracks[way].marks.clear(Marks::FAST_OPEN_REFUSED);
            }
            None if !differs && self.doubled(way, late, original.as_ref()) => self.judged(self.at, Came::Doubled),
            None => self.copy(way, start, end, original),
        }
        filled + beyond
    }
}

#[cfg(test)]
mod tests {
    use crate::event::{Kind, Side, What};
    use crate::flow::script::{Script, Shot};

    #[test]
    fn the_first_payload_and_its_acknowledgment_are_told_once_for_each_side() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "PA", 1, 1, b"ask");
        script.server(12, "PA", 1, 4, b"answer");
        script.client(13, "A", 4, 7, b"");
        script.client(14, "PA", 4, 7, b"again");
        let told: Vec<_> = script.sink.events.iter().map(|event| (event.side, event.what.kind())).collect();
        let told: Vec<_> = told.into_iter().filter(|(_, kind)| *kind != Kind::BadChecksum).skip(3).collect();
        assert_eq!(
            told,
            [
                (Side::Client, Kind::FirstPayload),
                (Side::Client, Kind::FirstPayloadAcknowledged),
                (Side::Server, Kind::FirstPayload),
                (Side::Server, Kind::FirstPayloadAcknowledged),
            ]
        );
    }

    #[test]
    fn conflicting_copies_are_told_and_the_first_one_counts() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "A", 3, 1, b"BB");
        script.client(11, "A", 1, 1, b"aabb");
        script.client(300, "A", 1, 1, b"XXXX");
        script.finish();
        let (facts, _) = script.sink.closed.remove(0);
        assert_eq!(script.sink.octets[0], b"aaBB");
        assert!(facts.from_client.overlap_conflicts >= 1);
        assert!(script.kinds().contains(&Kind::OverlapConflict));
    }

    #[test]
    fn an_octet_sent_into_a_closed_window_may_go_again_with_the_rest() {
        let mut script = Script::new();
        script.handshake();
        script.send(10, Shot { from_server: true, seq: 1, ack: 1, window: 0, ..Shot::default() });
        script.client(300, "A", 1, 1, b"h");
        script.send(301, Shot { from_server: true, seq: 1, ack: 1, window: 0, ..Shot::default() });
        script.send(400, Shot { from_server: true, seq: 1, ack: 1, window: 500, ..Shot::default() });
        script.client(401, "PA", 1, 1, b"hello");
        let facts = script.facts();
        assert_eq!((facts.from_server.zero_window_probes, facts.from_client.loss.total()), (1, 0));
        assert_eq!(script.sink.octets[0], b"hello");
    }

    #[test]
    fn segments_larger_than_the_mss_are_offload_and_a_cut_payload_is_a_gap() {
        let mut script = Script::new();
        script.handshake();
        script.send(10, Shot { seq: 1, ack: 1, payload: b"begin", cut: 2_000, ..Shot::default() });
        let client = script.facts().from_client;
        assert_eq!((client.oversized, client.cut, client.payload), (1, 1, 2_005));
        assert_eq!((script.sink.octets[0].as_slice(), script.sink.gaps[0]), (b"begin".as_slice(), 2_000));
        let told = |what: &What| script.sink.events.iter().any(|event| event.what == *what);
        assert!(told(&What::Oversized) && told(&What::CutShort));
    }

    #[test]
    fn a_pure_acknowledgment_shows_what_was_passed_over() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "PA", 1, 1, b"ask");
        script.server(11, "A", 24, 4, b"");
        script.server(3_000, "FPA", 1, 4, b"twenty-three octets....");
        let server = script.facts().from_server;
        assert_eq!((server.loss.before_capture_point, server.payload), (1, 23));
    }
}
