//! What an acknowledgment says of the other direction: progress, octets the capture missed, the end of the handshake, duplicates.
//!
//! RFC 9293 §3.10.7.4, RFC 5681 §2 (duplicate acknowledgments).

use super::Sink;
use super::half::Marks;
use super::key::Way;
use super::ledger::Hole;
use super::live::Live;
use super::options::Options;
use super::rtt;
use super::tcp::{FAR, TOLD};
use crate::decode::{Flags, Segment};
use crate::event::What;
use crate::wire::seq::Seq;

impl<S: Sink> Live<'_, S> {
    /// What the acknowledgment of `way` says about the other direction.
    #[inline(never)]
    pub(super) fn acknowledge(&mut self, way: Way, s: &Segment<'_>, options: &Options) {
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
            self.paced(way, s);
            self.advance(way, s.ack);
            if s.flags.has(Flags::ACK) && self.detail.established.is_none() {
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
    #[cold]
    #[inline(never)]
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
            rare.unseen_last = Some(self.at);
        }
    }

    /// The acknowledgment covers what the capture has not seen. Whether it may be believed.
    #[cold]
    #[inline(never)]
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
            noticed: self.stamp,
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
        let at = self.stamp;
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
            rtt::sample(track, trail, self.at.time.since(sent.time()));
            self.trip(sender, sent, octets, ack);
        }
        let (track, trail) = (&mut self.flow.tracks[sender], &mut self.detail.trails[sender]);
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
    #[inline(never)]
    fn third_packet(&mut self, way: Way, s: &Segment<'_>, options: &Options) {
        let server = way.other();
        let both = Way::BOTH.iter().all(|way| self.flow.tracks[*way].marks.has(Marks::SYN));
        let whole = both && self.detail.trails[server].syn_count > 0 && self.detail.trails[way].syn_count > 0;
        if way != self.flow.client || s.flags.has(Flags::SYN) || !whole {
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
        self.detail.established = Some(self.stamp);
        // A RST before it (an answer to an older connection's challenge, RFC 5961) did not end this one.
        self.revive();
        self.event(way, What::Established);
    }

    /// The connection goes on although a RST was seen.
    pub(super) fn revive(&mut self) {
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
        if track.marks.has(Marks::KEEPALIVE) {
            self.keepalive_answered(way);
        } else if unchanged && window > 0 && track.next.after(track.una) {
            track.dupacks = track.dupacks.saturating_add(1);
        }
    }

    #[cold]
    #[inline(never)]
    fn keepalive_answered(&mut self, way: Way) {
        let sender = way.other();
        self.flow.tracks[sender].marks.clear(Marks::KEEPALIVE);
        let rare = self.detail.trails[sender].rare();
        rare.keepalives_answered += 1;
        if rare.keepalives_answered <= TOLD {
            self.event(way, What::KeepAliveAnswered);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::{Kind, Side, What};
    use crate::flow::facts::Handshake;
    use crate::flow::script::{Script, Shot};
    use crate::time::Elapsed;

    #[test]
    fn octets_the_receiver_acknowledged_but_nobody_recorded_are_capture_loss() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "A", 1, 1, b"abc");
        script.client(11, "A", 7, 1, b"ghi");
        script.server(12, "A", 1, 10, b"");
        assert!(!script.kinds().contains(&Kind::CaptureHole), "the missing segment may still come");
        assert_eq!(script.sink.octets[0], b"abc");
        script.server(30, "A", 1, 10, b"");
        let hole = script.sink.events.iter().find(|event| event.what.kind() == Kind::CaptureHole);
        let hole = hole.expect("patience is over");
        assert_eq!((hole.at.number, hole.side, &hole.what), (6, Side::Client, &What::CaptureHole { missing: 3 }));
        assert_eq!((script.sink.octets[0].as_slice(), script.sink.gaps[0]), (b"abcghi".as_slice(), 3));
        let client = script.facts().from_client;
        assert_eq!((client.unseen, client.unseen_acks, client.payload, client.acknowledged), (3, 1, 6, 9));
        assert_eq!(client.loss.total(), 0);
    }

    #[test]
    fn an_acknowledgment_recorded_before_its_segment_is_no_loss() {
        let mut script = Script::new();
        script.handshake();
        script.server(10, "A", 1, 4, b"");
        script.client(11, "A", 1, 1, b"abc");
        script.server(500, "A", 1, 4, b"");
        let client = script.facts().from_client;
        assert_eq!((client.unseen, client.loss.total(), client.reordered), (0, 0, 0));
        assert_eq!(script.sink.octets[0], b"abc");
    }

    #[test]
    fn a_capture_that_begins_in_the_middle_has_lost_nothing() {
        let mut script = Script::new();
        script.server(0, "A", 9_000, 500, b"");
        script.client(1, "A", 499, 9_000, b"");
        script.server(2, "A", 9_000, 500, b"");
        script.client(3, "PA", 500, 9_000, b"next");
        script.server(100, "A", 9_000, 504, b"");
        script.finish();
        let (facts, _) = script.sink.closed.remove(0);
        assert_eq!((facts.from_client.unseen, facts.from_server.unseen), (0, 0));
    }

    #[test]
    fn a_challenge_to_a_reused_port_is_no_part_of_the_new_connection() {
        let mut script = Script::new();
        script.client(0, "S", 0, 0, b"");
        script.server(1, "A", 77_000_000, 4_000_000, b"");
        script.client(2, "R", 4_000_000, 0, b"");
        script.client(1_000, "S", 0, 0, b"");
        script.server(1_001, "SA", 0, 1, b"");
        script.client(1_002, "A", 1, 1, b"");
        script.client(1_003, "PA", 1, 1, b"hello");
        let facts = script.facts();
        assert_eq!((facts.handshake, facts.from_client.unseen), (Handshake::Full, 0));
        assert_eq!(facts.close, crate::flow::facts::Close::Open);
        assert_eq!(script.sink.octets[0], b"hello");
    }

    #[test]
    fn only_a_silent_connection_is_kept_alive_and_the_answer_counts() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "PA", 1, 1, b"x");
        script.server(11, "A", 1, 2, b"");
        script.client(15_000, "A", 1, 1, b"x");
        script.server(15_001, "A", 1, 2, b"");
        script.client(30_000, "A", 1, 1, b"");
        let client = script.facts().from_client;
        assert_eq!((client.keepalives, client.keepalives_answered, client.loss.total()), (2, 1, 0));
    }

    #[test]
    fn the_last_octet_sent_again_before_it_is_acknowledged_is_no_keep_alive() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "PA", 1, 1, b"x");
        script.client(1_500, "PA", 1, 1, b"x");
        let client = script.facts().from_client;
        assert_eq!((client.keepalives, client.loss.timeout), (0, 1));
    }

    #[test]
    fn octets_are_counted_in_64_bits_beyond_the_wrap() {
        let mut script = Script::new();
        script.handshake();
        let step = 1u32 << 26;
        for i in 0..80u32 {
            let seq = step.wrapping_mul(i).wrapping_add(1);
            script.send(10 + i64::from(i) * 2, Shot { seq, ack: 1, cut: step, ..Shot::default() });
            script.server(11 + i64::from(i) * 2, "A", 1, seq.wrapping_add(step), b"");
        }
        let client = script.facts().from_client;
        let all = u64::from(step) * 80;
        assert_eq!((client.payload, client.acknowledged, client.payload_sent), (all, all, all));
        assert_eq!((script.sink.gaps[0], client.unseen, client.loss.total()), (all, 0, 0));
        assert_eq!(client.min_rtt, Some(Elapsed::millis(1)));
    }
}
