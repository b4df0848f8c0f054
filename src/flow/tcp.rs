//! One segment of a known flow: what it tells about its own direction and about the other one. RFC 9293 §3.10.
//!
//! Order inside a segment: SYN, acknowledgment of the peer's octets, payload, FIN, window, so that events come in the order of their causes.

use super::Sink;
use super::half::{Clock, Marks, Stamp, SynCopy, Track};
use super::key::Way;
use super::live::Live;
use super::options::Options;
use super::{facts, loss, rtt};
use crate::decode::{Flags, Ip, Segment};
use crate::event::What;
use crate::time::Elapsed;
use crate::wire::seq::Seq;

/// Events of one recurring kind told for each side; the facts count all of them.
pub(super) const TOLD: u32 = 16;
/// Copies of a SYN kept.
const SYNS: u32 = 12;
/// Intervals without a window that are remembered of a side.
const ZERO_WINDOWS: usize = 8;
/// A silence that is remembered: the shortest after which boxes on the way forget a connection.
const SILENCE: Elapsed = Elapsed::secs(30);
/// Sequence numbers farther off than this belong to something else.
pub(super) const FAR: u32 = 1 << 30;

impl<S: Sink> Live<'_, S> {
    /// Works one segment in. It is no copy made by the capture.
    #[inline(never)]
    pub(super) fn segment(&mut self, way: Way, ip: &Ip, s: &Segment<'_>) {
        let before = self.flow.tracks[way].last;
        self.pause(way, s);
        for way in Way::BOTH {
            if self.flow.tracks[way].marks.has(Marks::WAITING) {
                self.confirm_holes(way, self.at.time);
            }
        }
        self.count(way, ip, s);
        let options = Options::read(s.options);
        // The SYN of a SYN proxy and the RST of a dead socket carry another host's clock, or none.
        if let Some((value, _)) = options.timestamps
            && !s.flags.has(Flags::SYN)
            && !s.flags.has(Flags::RST)
        {
            Clock::note(&mut self.detail.trails[way].clock, self.stamp, value);
        }
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
        let latest = &mut self.detail.trails[way].ip_id;
        // A packet that others overtook, or that the network doubled, is not the latest to have left.
        if !matches!((ip.id, *latest), (Some(id), Some(last)) if loss::left_before(id, last)) {
            *latest = ip.id;
        }
    }

    /// New payload behind a long silence of both sides.
    fn pause(&mut self, way: Way, s: &Segment<'_>) {
        let track = &self.flow.tracks[way];
        let new = s.payload_len > 1 && track.marks.has(Marks::SEEN) && s.seq.plus(s.payload_len).after(track.next);
        if new
            && let Some(last) = self.flow.last()
            && self.at.time.since(last.time()) >= SILENCE
        {
            self.detail.pause = Some((last, self.stamp));
        }
    }

    /// What is counted of every packet.
    fn count(&mut self, way: Way, ip: &Ip, s: &Segment<'_>) {
        let at = self.stamp;
        let track = &mut self.flow.tracks[way];
        let (min, max, first) = (track.ttl_min, track.ttl_max, track.packets == 0);
        track.count(ip, at);
        if s.flags.has(Flags::RST) && !first {
            // A RST may be somebody else's: it is compared with the others, not counted among them.
            (track.ttl_min, track.ttl_max) = (min, max);
        }
        let trail = &mut self.detail.trails[way];
        if trail.first.is_none() {
            trail.first = Some(at);
            trail.ttl_first = ip.ttl;
        }
        if trail.doubts_sums() {
            self.look_at_sum(way, ip, s);
        }
    }

    /// The side's first packet is no SYN: its numbers begin here.
    #[cold]
    #[inline(never)]
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

    #[inline(never)]
    fn syn(&mut self, way: Way, s: &Segment<'_>, options: &Options) {
        let at = self.stamp;
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

    /// The window of the side's latest acknowledgment.
    #[inline]
    fn window(&mut self, way: Way, s: &Segment<'_>) {
        let stale = self.flow.tracks[way.other()].una.after(s.ack);
        if s.flags.has(Flags::SYN) || !s.flags.has(Flags::ACK) || stale {
            return;
        }
        let track = &mut self.flow.tracks[way];
        track.window = u32::from(s.window) << track.scale;
        track.marks.set(Marks::WINDOW);
        if (track.window == 0) != track.marks.has(Marks::CLOSED_WINDOW) {
            self.window_turned(way);
        }
    }

    /// The window closed, or opened again.
    #[cold]
    #[inline(never)]
    fn window_turned(&mut self, way: Way) {
        let track = &mut self.flow.tracks[way];
        if track.window == 0 {
            if track.marks.set(Marks::CLOSED_WINDOW) {
                let at = self.at;
                let rare = self.detail.trails[way].rare();
                rare.zero_window_count += 1;
                rare.zero_window_since = Some(Stamp::from(at));
                if rare.zero_windows.len() == ZERO_WINDOWS {
                    // The longest are what matters, and the latest: whether it is closed now.
                    let length = |zero: &facts::ZeroWindow| {
                        zero.until.map_or(Elapsed::ZERO, |until| until.time.since(zero.from.time))
                    };
                    let shortest = (0..ZERO_WINDOWS).min_by_key(|place| length(&rare.zero_windows[*place]));
                    shortest.map(|place| rare.zero_windows.remove(place));
                }
                rare.zero_windows.push(facts::ZeroWindow { from: at, until: None });
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

#[cfg(test)]
mod tests {
    use crate::event::{Kind, Side, What};
    use crate::flow::script::{Script, Shot};
    use crate::time::Elapsed;

    #[test]
    fn the_handshake_gives_both_halves_of_the_round_trip() {
        let mut script = Script::new();
        script.handshake();
        assert_eq!(script.kinds(), [Kind::Syn, Kind::SynAck, Kind::Established]);
        let facts = script.facts();
        assert_eq!((facts.rtt_server, facts.rtt_client), (Some(Elapsed::millis(2)), Some(Elapsed::millis(1))));
        assert_eq!((facts.from_client.mss, facts.from_client.syn_count), (Some(1460), 1));
    }

    #[test]
    fn every_copy_of_a_syn_is_told_with_its_age_and_the_answered_one_is_timed() {
        let mut script = Script::new();
        script.client(0, "S", 0, 0, b"");
        script.client(1_000, "S", 0, 0, b"");
        script.client(3_000, "S", 0, 0, b"");
        script.server(3_005, "SA", 0, 1, b"");
        let facts = script.facts();
        assert_eq!((facts.from_client.syn_count, facts.from_client.syns.len()), (3, 3));
        assert_eq!(facts.rtt_server, Some(Elapsed::millis(5)));
        assert_eq!(facts.from_client.loss.total(), 0, "a SYN is no payload");
        let after = What::SynRetransmitted { after: Elapsed::secs(3) };
        assert!(script.sink.events.iter().any(|event| event.what == after));
    }

    #[test]
    fn octets_in_a_syn_that_were_refused_may_be_sent_again() {
        let mut script = Script::new();
        script.client(0, "S", 0, 0, b"early");
        script.server(1, "SA", 0, 1, b"");
        script.client(2, "A", 1, 1, b"early");
        let facts = script.facts();
        assert!(script.sink.events.iter().any(|event| event.what == What::Syn { fast_open: true }));
        assert_eq!((facts.from_client.loss.total(), facts.from_client.payload), (0, 5));
    }

    #[test]
    fn a_closed_window_lasts_until_an_update_opens_it() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "PA", 1, 1, b"data");
        script.send(20, Shot { from_server: true, seq: 1, ack: 5, window: 0, ..Shot::default() });
        script.send(250, Shot { seq: 4, ack: 1, ..Shot::default() });
        script.send(251, Shot { from_server: true, seq: 1, ack: 5, window: 0, ..Shot::default() });
        script.send(320, Shot { from_server: true, seq: 1, ack: 5, window: 900, ..Shot::default() });
        let facts = script.facts();
        let server = facts.half(Side::Server);
        assert_eq!((server.zero_window_count, server.zero_window_probes), (1, 1));
        assert_eq!(server.zero_windows[0].until.map(|at| at.number), Some(8));
        assert_eq!((facts.from_client.keepalives, facts.from_client.loss.total()), (0, 0));
        let opened = What::WindowOpened { after: Elapsed::millis(300) };
        assert!(script.sink.events.iter().any(|event| event.what == opened && event.side == Side::Server));
    }

    #[test]
    fn the_window_of_a_reset_or_a_syn_closes_nothing() {
        let mut script = Script::new();
        script.send(0, Shot { flags: "S", window: 0, ..Shot::default() });
        script.send(1, Shot { flags: "RA", ack: 1, window: 0, from_server: true, ..Shot::default() });
        assert_eq!(script.facts().from_server.zero_window_count, 0);
    }
}
