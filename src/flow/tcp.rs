//! One segment of a known flow: what it tells about its own direction and about the other one. RFC 9293 §3.10.
//!
//! Order inside a segment: SYN, acknowledgment of the peer's octets, payload, FIN, window, so that events come in the order of their causes.

use super::Sink;
use super::half::{Marks, Stamp, SynCopy, Track};
use super::key::Way;
use super::ledger::Hole;
use super::live::Live;
use super::loss::Late;
use super::options::Options;
use super::{checksum, close, facts, rtt};
use crate::decode::{Flags, Ip, Segment};
use crate::event::{ResetKind, What};
use crate::time::Elapsed;
use crate::wire::seq::Seq;

/// Events of one recurring kind told for each side; the facts count all of them.
pub(super) const TOLD: u32 = 16;
/// Copies of a SYN kept.
const SYNS: u32 = 12;
/// RSTs kept of a side.
const RESETS: u32 = 4;
/// Segments of a side whose checksum is looked at.
const CHECKED: u8 = 8;
/// Sequence numbers farther off than this belong to something else.
const FAR: u32 = 1 << 30;
/// Numbers of acknowledgments without payload are believed so far ahead only: they may be strangers' as well.
const NEAR: u32 = 1 << 24;
/// A probe on a connection that was silent for so long is a keep-alive. A second, less what clocks differ.
const IDLE: Elapsed = Elapsed::millis(900);

impl<S: Sink> Live<'_, S> {
    /// Works one segment in. It is no copy made by the capture.
    pub(super) fn segment(&mut self, way: Way, ip: &Ip, s: &Segment<'_>) {
        let before = self.flow.tracks[way].last;
        for way in Way::BOTH {
            if self.flow.tracks[way].marks.has(Marks::WAITING) {
                self.confirm_holes(way, self.at.time);
            }
        }
        self.count(way, ip, s);
        let options = Options::read(s.options);
        if s.flags.has(Flags::SYN) {
            self.syn(way, s, &options);
        } else if !self.flow.tracks[way].marks.has(Marks::SEEN) && !s.flags.has(Flags::RST) {
            self.begin_unseen(way, s.seq);
        }
        if s.flags.has(Flags::RST) {
            self.flow.tracks[way].sent += u64::from(s.payload_len);
            self.reset(way, ip, s, &options);
        } else {
            if s.flags.has(Flags::ACK) {
                self.acknowledge(way, s, &options);
            }
            if s.payload_len <= 1 {
                self.probe(way, s, before);
            }
            if s.payload_len == 0 && !s.flags.has(Flags::SYN) && !s.flags.has(Flags::FIN) {
                self.ahead(way, ip, s, &options);
            }
            if s.payload_len > 0 {
                self.payload(way, ip, s, &options);
            }
            if s.flags.has(Flags::FIN) {
                self.fin(way, s);
            }
            self.window(way, s);
        }
        self.detail.trails[way].ip_id = ip.id;
    }

    /// What is counted of every packet.
    fn count(&mut self, way: Way, ip: &Ip, s: &Segment<'_>) {
        let at = Stamp::from(self.at);
        self.flow.tracks[way].count(ip, at);
        let trail = &mut self.detail.trails[way];
        if trail.first.is_none() {
            trail.first = Some(at);
            trail.ttl_first = ip.ttl;
        }
        if trail.checksums.0 < CHECKED
            && let Some(fits) = checksum::fits(ip, s)
        {
            trail.checksums.0 += 1;
            if !fits {
                trail.checksums.1 += 1;
                if trail.checksums.1 == 1 {
                    trail.rare().checksum_first = Some(self.at);
                    self.event(way, What::BadChecksum);
                }
            }
        }
    }

    /// The side's first packet is no SYN: its numbers begin here.
    fn begin_unseen(&mut self, way: Way, seq: Seq) {
        let track = &mut self.flow.tracks[way];
        track.next = seq;
        track.delivered = seq;
        if !track.marks.has(Marks::ACKED) || track.una.minus(seq).unsigned_abs() > FAR {
            track.una = seq;
        }
        track.marks.set(Marks::SEEN);
        self.detail.trails[way].isn = seq;
    }

    fn syn(&mut self, way: Way, s: &Segment<'_>, options: &Options) {
        let at = Stamp::from(self.at);
        let answer = s.flags.has(Flags::ACK);
        let trail = &mut self.detail.trails[way];
        let track = &mut self.flow.tracks[way];
        let renumbered = answer && s.seq != trail.isn && !self.flow.established && track.payload == 0;
        if !track.marks.has(Marks::SYN) && track.payload == 0 || renumbered {
            trail.isn = s.seq;
            trail.payload_begins = s.seq.plus(1);
            trail.mss = options.mss;
            trail.window_scale = options.window_scale;
            trail.sack = options.sack_permitted;
            trail.timestamps = options.timestamps.is_some();
            track.next = s.seq.plus(1);
            track.delivered = track.next;
            track.una = s.seq;
            track.marks.set(Marks::SEEN);
            track.marks.clear(Marks::ACKED);
        }
        track.marks.set(Marks::SYN);
        track.window = u32::from(s.window);
        track.marks.set(Marks::WINDOW);
        trail.syn_count += 1;
        if trail.syn_count <= SYNS {
            trail.syns.push(SynCopy { at, tsval: options.timestamps.map(|(value, _)| value) });
        }
        let first = trail.syns.first().map_or(at, |copy| copy.at);
        let after = self.at.time.since(first.time());
        let again = trail.syn_count > 1;
        self.event(
            way,
            match (answer, again) {
                (false, false) => What::Syn { fast_open: s.payload_len > 0 },
                (false, true) => What::SynRetransmitted { after },
                (true, false) => What::SynAck,
                (true, true) => What::SynAckRetransmitted { after },
            },
        );
        if answer && !again {
            self.answered(way, s, options);
        }
    }

    /// The first SYN+ACK: round trip to the server, window scales, and what became of octets in the SYN.
    fn answered(&mut self, way: Way, s: &Segment<'_>, options: &Options) {
        let client = way.other();
        let echo = options.timestamps.map(|(_, echo)| echo);
        let asked = &self.detail.trails[client];
        let rtt = rtt::answered(&asked.syns, echo, self.at);
        let offered = (asked.window_scale, asked.syn_count > 0);
        self.detail.rtt_server = self.detail.rtt_server.or(rtt);
        if let Some(rtt) = rtt {
            rtt::sample(&mut self.flow.tracks[client], &mut self.detail.trails[client], rtt);
        }
        // Scaling holds only when both sides offered it (RFC 7323 §2.2); a server does not offer it unasked.
        if let (Some(server), (Some(_), _) | (None, false)) = (options.window_scale, offered) {
            self.flow.tracks[way].scale = server;
            self.flow.tracks[client].scale = offered.0.unwrap_or(0);
        }
        let track = &mut self.flow.tracks[client];
        if track.payload > 0 && s.ack == self.detail.trails[client].isn.plus(1) {
            track.marks.set(Marks::FAST_OPEN_REFUSED);
        }
    }

    /// What the acknowledgment of `way` says about the other direction.
    fn acknowledge(&mut self, way: Way, s: &Segment<'_>, options: &Options) {
        let sender = way.other();
        let track = &mut self.flow.tracks[sender];
        if !track.marks.has(Marks::SEEN) {
            return self.acknowledge_unseen(sender, s.ack);
        }
        track.marks.set(Marks::ACKED);
        let advance = s.ack.minus(track.una);
        if advance.unsigned_abs() > FAR {
            return;
        }
        if s.ack.after(track.next) && !self.beyond(way, s.ack) {
            return;
        }
        if advance > 0 {
            self.advance(way, s.ack);
            if s.flags.has(Flags::ACK) {
                self.third_packet(way, s, options);
            }
        } else if advance == 0 {
            self.repeated_ack(way, s, options);
        }
        if options.sack[0].is_some() {
            self.sack(sender, s.ack, options);
        }
    }

    /// The capture has no packet of that side: only how far it is acknowledged can be followed.
    fn acknowledge_unseen(&mut self, sender: Way, ack: Seq) {
        let track = &mut self.flow.tracks[sender];
        let advance = ack.minus(track.una);
        if track.marks.set(Marks::ACKED) {
            track.una = ack;
        } else if advance > 0 && advance.unsigned_abs() <= FAR {
            let octets = u64::from(advance.unsigned_abs());
            track.una = ack;
            track.acknowledged += octets;
            let rare = self.detail.trails[sender].rare();
            rare.unseen += octets;
            rare.unseen_acks += 1;
            rare.unseen_first.get_or_insert(self.at);
        }
    }

    /// The acknowledgment covers what the capture has not seen. Whether it may be believed.
    fn beyond(&mut self, way: Way, ack: Seq) -> bool {
        let sender = way.other();
        let answered = self.flow.tracks[way].marks.has(Marks::SYN);
        let track = &mut self.flow.tracks[sender];
        // A host that still has an older connection on these ports answers a SYN with that one's number (RFC 5961 §4).
        if track.marks.has(Marks::SYN) && !answered && track.payload == 0 {
            return false;
        }
        let missing = ack.minus(track.next);
        if !track.marks.has(Marks::SYN) && track.segments == 0 {
            // The capture began with an acknowledgment or a keep-alive probe of that side, which repeat an old number.
            track.next = ack;
            track.delivered = ack;
            track.una = ack;
            return false;
        }
        if missing.unsigned_abs() > FAR {
            return false;
        }
        let hole = Hole {
            start: track.next,
            end: ack,
            noticed: Stamp::from(self.at),
            tsval: None,
            ip_id: None,
            acked: None,
            lost: false,
        };
        track.next = ack;
        self.detail.trails[sender].rare().holes.open(hole);
        true
    }

    /// New octets are acknowledged.
    fn advance(&mut self, way: Way, ack: Seq) {
        let sender = way.other();
        let at = Stamp::from(self.at);
        let (track, trail) = (&mut self.flow.tracks[sender], &mut self.detail.trails[sender]);
        let mut octets = u64::from(ack.minus(track.una).unsigned_abs());
        if track.marks.has(Marks::SYN) && track.una == trail.isn {
            octets -= 1;
        }
        let fin = track.marks.has(Marks::FIN) && ack.after(trail.fin_seq) && track.marks.set(Marks::FIN_ACKED);
        if fin {
            octets = octets.saturating_sub(1);
            trail.fin_acked = Some(at);
        }
        track.acknowledged += octets;
        track.una = ack;
        track.dupacks = 0;
        track.marks.clear(Marks::PROBE);
        track.marks.clear(Marks::KEEPALIVE);
        if let Some(sent) = trail.flight.acknowledge(ack) {
            rtt::sample(track, trail, self.at.time.since(sent));
        }
        if let Some(rare) = trail.rare.as_mut()
            && !rare.holes.is_empty()
            && rare.holes.acknowledge(ack, self.at)
        {
            track.marks.set(Marks::WAITING);
        }
        let begun = trail.first_payload.is_some() && ack.after(trail.payload_begins);
        if begun && track.marks.set(Marks::PAYLOAD_ACKED) {
            trail.first_payload_acked = Some(at);
            self.event(sender, What::FirstPayloadAcknowledged);
        }
        if fin {
            self.event(sender, What::FinAcknowledged);
        }
    }

    /// The client's first acknowledgment of the SYN+ACK completes the handshake.
    fn third_packet(&mut self, way: Way, s: &Segment<'_>, options: &Options) {
        let server = way.other();
        let both = Way::BOTH.iter().all(|way| self.flow.tracks[*way].marks.has(Marks::SYN));
        let whole = both && self.detail.trails[server].syn_count > 0 && self.detail.trails[way].syn_count > 0;
        if self.detail.established.is_some() || way != self.flow.client || s.flags.has(Flags::SYN) || !whole {
            return;
        }
        if s.ack.minus(self.detail.trails[server].isn.plus(1)) < 0 {
            return;
        }
        let echo = options.timestamps.map(|(_, echo)| echo);
        self.detail.rtt_client = rtt::answered(&self.detail.trails[server].syns, echo, self.at);
        if let Some(rtt) = self.detail.rtt_client {
            rtt::sample(&mut self.flow.tracks[server], &mut self.detail.trails[server], rtt);
        }
        self.flow.established = true;
        self.detail.established = Some(Stamp::from(self.at));
        // A RST before it (an answer to an older connection's challenge, RFC 5961) did not end this one.
        self.revive();
        self.event(way, What::Established);
    }

    /// The connection goes on although a RST was seen.
    fn revive(&mut self) {
        self.detail.reset = None;
        for way in Way::BOTH {
            self.flow.tracks[way].marks.clear(Marks::RESET);
        }
    }

    /// The same number again: the answer to a probe, or a duplicate acknowledgment (RFC 5681 §2).
    fn repeated_ack(&mut self, way: Way, s: &Segment<'_>, options: &Options) {
        let sender = way.other();
        let pure = s.payload_len == 0 && !s.flags.has(Flags::SYN) && !s.flags.has(Flags::FIN);
        if !pure {
            return;
        }
        let window = u32::from(s.window) << self.flow.tracks[way].scale;
        let unchanged = window == self.flow.tracks[way].window || options.sack[0].is_some();
        let track = &mut self.flow.tracks[sender];
        if track.marks.clear(Marks::KEEPALIVE) {
            let rare = self.detail.trails[sender].rare();
            rare.keepalives_answered += 1;
            if rare.keepalives_answered <= TOLD {
                self.event(way, What::KeepAliveAnswered);
            }
        } else if unchanged && window > 0 && track.next.after(track.una) {
            track.dupacks = track.dupacks.saturating_add(1);
        }
    }

    /// A segment of 0 or 1 octet at an old number may be a probe: of a silent peer, or of a closed window.
    fn probe(&mut self, way: Way, s: &Segment<'_>, before: Option<Stamp>) {
        let peer = &self.flow.tracks[way.other()];
        let peer_payload = peer.last_payload;
        let closed = peer.marks.has(Marks::CLOSED_WINDOW);
        let track = &mut self.flow.tracks[way];
        let plain = s.flags.has(Flags::ACK) && !s.flags.has(Flags::SYN) && !s.flags.has(Flags::FIN);
        let again = s.seq.plus(1) == track.next;
        if !plain || !(again || (closed && s.payload_len == 1 && s.seq == track.next)) {
            return;
        }
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
    fn ahead(&mut self, way: Way, ip: &Ip, s: &Segment<'_>, options: &Options) {
        let track = &mut self.flow.tracks[way];
        let ahead = s.seq.minus(track.next);
        // Only the flow's own acknowledgments: hosts answer strange packets with numbers of connections long gone.
        if ahead <= 0 || ahead.unsigned_abs() > NEAR || !self.flow.established || !s.flags.has(Flags::ACK) {
            return;
        }
        let noticed = Stamp::from(self.at);
        let tsval = options.timestamps.map(|(value, _)| value);
        let hole = Hole { start: track.next, end: s.seq, noticed, tsval, ip_id: ip.id, acked: None, lost: false };
        track.next = s.seq;
        self.detail.trails[way].rare().holes.open(hole);
    }

    fn payload(&mut self, way: Way, ip: &Ip, s: &Segment<'_>, options: &Options) {
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
                let noticed = Stamp::from(self.at);
                let hole = Hole { start: track.next, end: start, noticed, tsval, ip_id, acked: None, lost: false };
                self.detail.trails[way].rare().holes.open(hole);
            }
            track.next = end;
            track.marks.clear(Marks::PROBE);
            if len == 1 && self.flow.tracks[way.other()].marks.has(Marks::CLOSED_WINDOW) {
                self.flow.tracks[way].marks.set(Marks::PROBE);
            }
            let sent = self.sent(way, start, len, captured);
            self.detail.trails[way].flight.push(sent);
            len
        } else {
            self.old_payload(way, &Late { start, end, tsval, ip_id }, captured)
        };
        let track = &mut self.flow.tracks[way];
        track.payload += u64::from(new);
        if new > 0 {
            track.last_payload = Some(Stamp::from(self.at));
            if track.marks.has(Marks::RESET) && self.flow.established && ahead >= 0 {
                self.revive();
            }
        }
        self.accept(way, start, len, captured);
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
            trail.first_payload = Some(Stamp::from(self.at));
            trail.payload_begins = start;
            self.event(way, What::FirstPayload);
        }
        let trail = &mut self.detail.trails[way];
        if (s.payload.len() as u64) < u64::from(s.payload_len) {
            let rare = trail.rare();
            rare.cut += 1;
            if rare.cut_first.is_none() {
                rare.cut_first = Some(self.at);
                self.event(way, What::CutShort);
            }
        }
        if limit.is_some_and(|mss| mss > 0 && s.payload_len > u32::from(mss)) {
            let rare = self.detail.trails[way].rare();
            rare.oversized = rare.oversized.saturating_add(1);
            if rare.oversized_first.is_none() {
                rare.oversized_first = Some(self.at);
                self.event(way, What::Oversized);
            }
        }
    }

    /// Payload that begins before what was already sent. Returns how many of its octets are new.
    fn old_payload(&mut self, way: Way, late: &Late, captured: &[u8]) -> u32 {
        let Late { start, end, .. } = *late;
        let at = Stamp::from(self.at);
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
            let sent = self.sent(way, old_next, beyond, &[]);
            self.detail.trails[way].flight.push(sent);
        }
        let differs = original.is_some_and(|sent| {
            let whole = sent.start == start && sent.end() == end && captured.len() as u32 == sent.len;
            whole && sent.print != super::duplicates::ends(captured)
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
                let mut sent = self.sent(way, start, end.minus(start).unsigned_abs(), captured);
                sent.late = true;
                self.detail.trails[way].flight.push(sent);
            }
            None if excused => {
                self.flow.tracks[way].marks.clear(Marks::FAST_OPEN_REFUSED);
            }
            None => self.copy(way, start, end, original),
        }
        filled + beyond
    }

    fn fin(&mut self, way: Way, s: &Segment<'_>) {
        let at = Stamp::from(self.at);
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

    fn reset(&mut self, way: Way, ip: &Ip, s: &Segment<'_>, options: &Options) {
        let at = Stamp::from(self.at);
        let (mine, peer) = (&self.flow.tracks[way], &self.flow.tracks[way.other()]);
        let (my_trail, peer_trail) = (&self.detail.trails[way], &self.detail.trails[way.other()]);
        let kind = close::kind(&close::Circumstances { mine, my_trail, peer, peer_trail }, ip, s);
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

    /// The window of the side's latest acknowledgment.
    fn window(&mut self, way: Way, s: &Segment<'_>) {
        let stale = self.flow.tracks[way.other()].una.after(s.ack);
        if s.flags.has(Flags::SYN) || !s.flags.has(Flags::ACK) || stale {
            return;
        }
        let track = &mut self.flow.tracks[way];
        track.window = u32::from(s.window) << track.scale;
        track.marks.set(Marks::WINDOW);
        if track.window == 0 {
            if track.marks.set(Marks::CLOSED_WINDOW) {
                let at = self.at;
                let rare = self.detail.trails[way].rare();
                rare.zero_window_count += 1;
                rare.zero_window_since = Some(Stamp::from(at));
                if rare.zero_windows.len() < 8 {
                    rare.zero_windows.push(facts::ZeroWindow { from: at, until: None });
                }
                self.event(way, What::ZeroWindow);
            }
        } else if track.marks.clear(Marks::CLOSED_WINDOW) {
            let at = self.at;
            let rare = self.detail.trails[way].rare();
            let since = rare.zero_window_since.take().map_or(at, Stamp::packet);
            if let Some(open) = rare.zero_windows.last_mut().filter(|open| open.from == since) {
                open.until = Some(at);
            }
            self.event(way, What::WindowOpened { after: at.time.since(since.time) });
        }
    }
}

impl Track {
    /// Counts one packet.
    pub(super) fn count(&mut self, ip: &Ip, at: Stamp) {
        self.ttl_min = if self.packets == 0 { ip.ttl } else { self.ttl_min.min(ip.ttl) };
        self.ttl_max = self.ttl_max.max(ip.ttl);
        self.packets = self.packets.saturating_add(1);
        self.octets += u64::from(ip.len);
        self.last = Some(at);
    }
}
