//! Octets that came again or late: retransmissions by kind and by place of the loss, reordering, needless copies.
//!
//! RFC 6298 (timeout), RFC 5681 §3.2 and RFC 6675 (fast), RFC 8985 §7 (tail loss probe), RFC 2883 (DSACK). A copy of a segment that the
//! capture has whole is a retransmission however soon it comes; only a segment that fills a hole may be merely late.

use super::facts::Resent;
use super::half::{Marks, Stamp};
use super::key::Way;
use super::ledger::{Copied, Hole, Sent};
use super::live::Live;
use super::options::Options;
use super::rtt::{self, MIN_RTO};
use super::tcp::TOLD;
use super::{Came, Sink};
use crate::event::{PacketRef, Retransmission, What};
use crate::time::Elapsed;
use crate::wire::seq::Seq;

/// Below this much less than [`MIN_RTO`] a timer may have fired: kernels count in ticks.
const RTO_TICK: Elapsed = Elapsed::millis(10);
/// Copies remembered for a later DSACK.
const COPIED: usize = 16;
/// The two copies of a doubled packet are no farther apart.
const DOUBLED: Elapsed = Elapsed::secs(1);
/// IP ids this far back belong to packets that left a moment ago.
const EARLIER: i16 = 256;
/// Nobody sends again so soon.
const AT_ONCE: Elapsed = Elapsed::millis(5);
/// A late segment that fills a hole sooner than this was only overtaken, when no round trip is known.
const OVERTAKEN: Elapsed = Elapsed::millis(3);

/// What tells a late segment from one that was sent again.
pub(super) struct Late {
    pub(super) start: Seq,
    pub(super) end: Seq,
    pub(super) tsval: Option<u32>,
    pub(super) ip_id: Option<u16>,
}

impl<S: Sink> Live<'_, S> {
    /// `start..end` was seen before. `original` is its first copy as it stood, when it is still remembered.
    #[cold]
    #[inline(never)]
    pub(super) fn copy(&mut self, way: Way, start: Seq, end: Seq, original: Option<Sent>) {
        let kind = self.kind_of_copy(way, start, end, original.as_ref());
        self.detail.trails[way].rare().loss.after_capture_point += 1;
        if kind != Retransmission::Spurious {
            self.damaged(way, start, end);
        }
        // Which of many merged segments it repeats is not known.
        let first = original.filter(|sent| !sent.merged);
        let gap = first.map_or(Elapsed::ZERO, |sent| self.at.time.since(sent.first.time()));
        self.resent(way, start, end, kind, first.map(|sent| sent.first.packet()), gap);
    }

    /// `late` fills `hole`: it was overtaken, or lost before the capture point and sent again.
    pub(super) fn filled(&mut self, way: Way, late: &Late, hole: &Hole) {
        let age = self.at.time.since(hole.noticed.time());
        if hole.lost {
            return self.copy(way, late.start, late.end, None);
        }
        if hole.acked.is_some() {
            // The receiver had it a moment ago: capture queues were read out of order, nothing happened on the network.
            return;
        }
        if self.overtaken(way, late, hole, age) {
            self.judged(self.at, Came::Late);
            let rare = self.detail.trails[way].rare();
            rare.reordered += 1;
            if rare.reordered <= TOLD {
                self.event(way, What::Reordered);
            }
            return;
        }
        let evidence = self.loss_evidence(way, late.end);
        let slow = age + RTO_TICK >= MIN_RTO;
        let kind = if slow || !evidence && age > MIN_RTO { Retransmission::Timeout } else { Retransmission::Fast };
        self.detail.trails[way].rare().loss.before_capture_point += 1;
        self.resent(way, late.start, late.end, kind, None, age);
    }

    /// The sender's clock and counter decide; only without them the time does (RFC 4737 §3.3 speaks of the order of sending).
    fn overtaken(&self, way: Way, late: &Late, hole: &Hole, age: Elapsed) -> bool {
        if let (Some(mine), Some(later)) = (late.tsval, hole.tsval)
            && mine != later
        {
            return (mine.wrapping_sub(later) as i32) < 0;
        }
        if let (Some(mine), Some(later)) = (late.ip_id, hole.ip_id)
            && mine != 0
            && later != 0
        {
            match later.wrapping_sub(mine) as i16 {
                1..=256 => return true,
                -256..=-1 => return false,
                _ => {}
            }
        }
        let (track, peer) = (&self.flow.tracks[way], &self.flow.tracks[way.other()]);
        let limit = rtt::between(track, peer).map_or(OVERTAKEN, |rtt| rtt.min(OVERTAKEN.max(Elapsed(rtt.0 / 2))));
        age < limit && track.dupacks < 3
    }

    /// Whether the receiver asked for it: three duplicate acknowledgments, or SACK of something behind it.
    fn loss_evidence(&self, way: Way, end: Seq) -> bool {
        let sacked = self.detail.trails[way].rare.as_ref().and_then(|rare| rare.sacked);
        self.flow.tracks[way].dupacks >= 3 || sacked.is_some_and(|sacked| !end.after(sacked))
    }

    fn kind_of_copy(&self, way: Way, start: Seq, end: Seq, original: Option<&Sent>) -> Retransmission {
        let (track, trail) = (&self.flow.tracks[way], &self.detail.trails[way]);
        if track.marks.has(Marks::ACKED) && !end.after(track.una) {
            return Retransmission::Spurious;
        }
        let now = self.at.time;
        let waited = original.map_or(MIN_RTO, |sent| now.since(sent.last.time()));
        let rto = rtt::between(track, &self.flow.tracks[way.other()]);
        if self.loss_evidence(way, end) {
            // With SACK the rest of a window goes out again behind a timeout, too; the first segment shows whether the timer fired.
            let silent = track.last_payload.is_none_or(|last| now.since(last.time()) + RTO_TICK >= MIN_RTO);
            let fired = silent && waited + RTO_TICK >= MIN_RTO.max(rto.unwrap_or(Elapsed::ZERO));
            return if fired { Retransmission::Timeout } else { Retransmission::Fast };
        }
        if waited + RTO_TICK >= MIN_RTO {
            return Retransmission::Timeout;
        }
        let last_copy = trail.rare.as_ref().and_then(|rare| rare.last_copy);
        if let Some((when, _, kind)) = last_copy
            && now.since(when) < MIN_RTO
            && kind != Retransmission::Spurious
            && kind != Retransmission::TailProbe
        {
            return kind;
        }
        let once = original.is_none_or(|sent| sent.copies == 1);
        let tail = !track.next.after(end) || (track.marks.has(Marks::FIN) && track.next.minus(end) == 1);
        if tail && once && waited >= rto.unwrap_or(Elapsed::ZERO) {
            Retransmission::TailProbe
        } else if track.dupacks > 0 || start != track.una || rto.is_some_and(|rto| waited < rto) {
            Retransmission::Fast
        } else {
            Retransmission::Timeout
        }
    }

    /// Writes a retransmission down; the first of each episode is told.
    fn resent(
        &mut self,
        way: Way,
        start: Seq,
        end: Seq,
        kind: Retransmission,
        original: Option<PacketRef>,
        gap: Elapsed,
    ) {
        let una = self.flow.tracks[way].una;
        let rto = rtt::between(&self.flow.tracks[way], &self.flow.tracks[way.other()])
            .map_or(MIN_RTO, |rtt| MIN_RTO.max(rtt + rtt));
        let at = self.at;
        self.judged(at, Came::Again(kind));
        let rare = self.detail.trails[way].rare();
        *count(&mut rare.loss, kind) += 1;
        if kind == Retransmission::Spurious {
            rare.loss.needless.get_or_insert(at);
        }
        if matches!(kind, Retransmission::Timeout | Retransmission::Fast) {
            rare.loss.span = Some((rare.loss.span.map_or(at, |(first, _)| first), at));
        }
        rare.worst(Resent { original, copy: at, gap, kind });
        if rare.copied.len() >= COPIED {
            rare.copied.pop_front();
        }
        rare.copied.push_back(Copied { start, end, kind, at });
        // While nothing new is acknowledged the timer backs off: that is one episode, not one for each doubling.
        let same = rare.last_copy.is_some_and(|(when, then, _)| at.time.since(when) < rto || then == una);
        rare.last_copy = Some((at.time, una, kind));
        if !same {
            rare.loss.episodes += 1;
            if rare.loss.episodes <= TOLD {
                self.event(way, What::Retransmitted { kind, original });
            }
        }
    }

    /// What SACK blocks of the peer say of this direction: how far it has octets, and which it got twice.
    #[cold]
    #[inline(never)]
    pub(super) fn sack(&mut self, way: Way, ack: Seq, options: &Options) {
        if let Some(right) = options.sacked(ack) {
            let rare = self.detail.trails[way].rare();
            rare.sacked_octets = options.sacked_octets(ack);
            rare.sacked = Some(rare.sacked.filter(|old| old.after(ack)).map_or(right, |old| old.max(right)));
            if !rare.holes.open_before(ack.plus(1)) {
                // What the receiver lacks is in the capture.
                self.look_closer(way);
            }
        }
        let Some((left, right)) = options.dsack(ack) else { return };
        let at = self.at;
        let Some(rare) = self.detail.trails[way].rare.as_mut() else { return };
        let needless = |copy: &&mut Copied| {
            right.after(copy.start)
                && copy.end.after(left)
                && matches!(copy.kind, Retransmission::Timeout | Retransmission::Fast)
        };
        if let Some(copy) = rare.copied.iter_mut().rev().find(needless) {
            let kind = count(&mut rare.loss, copy.kind);
            *kind = kind.saturating_sub(1);
            copy.kind = Retransmission::Spurious;
            rare.loss.spurious += 1;
            let sent = copy.at;
            rare.loss.needless.get_or_insert(at);
            self.judged(sent, Came::Again(Retransmission::Spurious));
            self.undamaged(way, sent);
        }
    }

    /// Whether a segment repeats what another interface showed within a millisecond, cut or merged by segmentation offload.
    pub(super) fn offload_original(&self, way: Way, start: Seq, end: Seq, face: u8) -> Option<Stamp> {
        let (track, trail) = (&self.flow.tracks[way], &self.detail.trails[way]);
        if trail.faces.len() < 2 || !track.marks.has(Marks::SEEN) || end.after(track.next) || !end.after(start) {
            return None;
        }
        let elsewhere = |seq: Seq| {
            trail.flight.at(seq).map(|sent| (sent.face, sent.first)).filter(|(other, first)| {
                *other != face && self.at.time.since(first.time()).abs() <= super::duplicates::WITHIN
            })
        };
        elsewhere(end.plus(u32::MAX))?;
        elsewhere(start).map(|(_, first)| first)
    }

    /// The segment as the ledger keeps it.
    pub(super) fn sent(&self, way: Way, start: Seq, len: u32, payload: &[u8], ip_id: Option<u16>) -> Sent {
        let at = self.stamp;
        let print = super::duplicates::ends(payload);
        let face = self.flow.tracks[way].face;
        let (first, last, ip_id) = (at, at, ip_id.unwrap_or(0));
        Sent { start, len, first, last, print, copies: 1, face, late: false, ip_id, merged: false }
    }

    /// Whether the network doubled `original`: the very same packet, told by its IP id. A sender that sends again takes another one; senders
    /// that always take the same one are known by the packet before. When the original is forgotten (all of it was acknowledged), an id
    /// from before the latest packet shows that it left before that one.
    pub(super) fn doubled(&self, way: Way, late: &Late, original: Option<&Sent>) -> bool {
        let (Some(id), Some(before)) = (late.ip_id, self.detail.trails[way].ip_id) else { return false };
        let Some(sent) = original else {
            let track = &self.flow.tracks[way];
            let known = track.marks.has(Marks::ACKED) && !late.end.after(track.una);
            return known && left_before(id, before);
        };
        if sent.merged {
            return left_before(id, before);
        }
        let whole = sent.start == late.start && sent.end() == late.end;
        let apart = self.at.time.since(sent.first.time());
        id != 0 && id == sent.ip_id && whole && (apart < AT_ONCE || before != id && apart < DOUBLED)
    }
}

/// Whether the packet with `id` left a little before the one with `later`. 0 is no id.
pub(super) fn left_before(id: u16, later: u16) -> bool {
    id != 0 && later != 0 && (1..=EARLIER).contains(&(later.wrapping_sub(id) as i16))
}

fn count(loss: &mut super::facts::Loss, kind: Retransmission) -> &mut u32 {
    match kind {
        Retransmission::Timeout => &mut loss.timeout,
        Retransmission::Fast => &mut loss.fast,
        Retransmission::TailProbe => &mut loss.tail_probe,
        Retransmission::Spurious => &mut loss.spurious,
    }
}

#[cfg(test)]
mod tests {
    use crate::event::{Kind, Retransmission, What};
    use crate::flow::facts::Half;
    use crate::flow::script::{Script, Shot};

    fn kinds(half: &Half) -> [u32; 4] {
        [half.loss.timeout, half.loss.fast, half.loss.tail_probe, half.loss.spurious]
    }

    /// The `n`th segment of four octets.
    fn data(script: &mut Script, ms: i64, id: u16, n: u32) {
        let shot = Shot { flags: "PA", seq: 1 + n * 4, ack: 1, payload: b"data", id: Some(id), ..Shot::default() };
        script.send(ms, shot);
    }

    /// 300 segments nobody acknowledged yet: those behind the 256th are kept as one.
    fn many_in_flight() -> Script {
        let mut script = Script::new();
        script.handshake();
        for n in 0..300_u32 {
            data(&mut script, 10, 1000 + n as u16, n);
        }
        script
    }

    #[test]
    fn of_merged_segments_no_first_copy_is_named() {
        let mut script = many_in_flight();
        data(&mut script, 250, 1300, 280);
        let client = script.facts().from_client;
        let again = client.loss.worst.first().expect("sent again");
        assert_eq!((again.original, again.says()), (None, "sent again".to_owned()));
    }

    #[test]
    fn a_late_copy_of_merged_segments_is_told_by_its_ip_id() {
        let mut script = many_in_flight();
        data(&mut script, 14, 1280, 280);
        assert_eq!(script.facts().from_client.loss.total(), 0);
    }

    #[test]
    fn doubling_timeouts_are_one_episode_behind_the_capture_point() {
        let mut script = Script::new();
        script.handshake();
        for ms in [10, 215, 620, 1_440] {
            script.client(ms, "PA", 1, 1, b"lost");
        }
        let client = script.facts().from_client;
        assert_eq!(kinds(&client), [3, 0, 0, 0]);
        assert_eq!(
            (client.loss.episodes, client.loss.after_capture_point, client.loss.before_capture_point),
            (1, 3, 0)
        );
        let unacknowledged = client.unacknowledged.expect("nothing was acknowledged");
        assert_eq!((unacknowledged.first.number, unacknowledged.last.number, unacknowledged.copies), (4, 7, 4));
        let told = script.sink.events.iter().filter(|event| event.what.kind() == Kind::Retransmitted).count();
        assert_eq!(told, 1);
    }

    #[test]
    fn three_duplicate_acknowledgments_make_it_fast() {
        let mut script = Script::new();
        script.handshake();
        for (i, payload) in [b"aa", b"bb", b"cc", b"dd"].into_iter().enumerate() {
            script.client(10, "A", 1 + 2 * i as u32, 1, payload);
        }
        for ms in 12..15 {
            script.server(ms, "A", 1, 1, b"");
        }
        script.client(16, "A", 1, 1, b"aa");
        script.server(18, "A", 1, 9, b"");
        let client = script.facts().from_client;
        assert_eq!(kinds(&client), [0, 1, 0, 0]);
        let original = script.sink.events.iter().find_map(|event| match event.what {
            What::Retransmitted { kind: Retransmission::Fast, original } => original,
            _ => None,
        });
        assert_eq!(original.map(|at| at.number), Some(4));
    }

    #[test]
    fn one_early_copy_of_the_last_segment_is_a_tail_loss_probe() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "A", 1, 1, b"aa");
        script.client(10, "A", 3, 1, b"bb");
        script.client(20, "A", 3, 1, b"bb");
        assert_eq!(kinds(&script.facts().from_client), [0, 0, 1, 0]);
    }

    #[test]
    fn a_copy_of_acknowledged_octets_is_needless() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "A", 1, 1, b"aa");
        script.server(12, "A", 1, 3, b"");
        script.client(215, "A", 1, 1, b"aa");
        assert_eq!(kinds(&script.facts().from_client), [0, 0, 0, 1]);
    }

    #[test]
    fn a_dsack_turns_a_timeout_into_a_needless_copy() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "A", 1, 1, b"aa");
        script.client(215, "A", 1, 1, b"aa");
        assert_eq!(kinds(&script.facts().from_client), [1, 0, 0, 0]);
        // SACK of 1..3 relative to the initial number 0xfffffffd, below the acknowledgment.
        let options = &[1, 1, 5, 10, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0];
        script.send(216, Shot { from_server: true, seq: 1, ack: 3, options, ..Shot::default() });
        assert_eq!(kinds(&script.facts().from_client), [0, 0, 0, 1]);
    }

    #[test]
    fn a_copy_within_the_round_trip_is_no_reordering_when_the_first_was_seen_whole() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "A", 1, 1, b"aa");
        script.client(10, "A", 3, 1, b"bb");
        script.client(11, "A", 1, 1, b"aa");
        let client = script.facts().from_client;
        assert_eq!((client.reordered, client.loss.total()), (0, 1));
    }

    #[test]
    fn a_late_segment_with_a_smaller_ip_id_was_overtaken() {
        let mut script = Script::new();
        script.handshake();
        script.send(10, Shot { seq: 3, ack: 1, payload: b"bb", id: Some(501), ..Shot::default() });
        script.send(11, Shot { seq: 1, ack: 1, payload: b"aa", id: Some(500), ..Shot::default() });
        let client = script.facts().from_client;
        assert_eq!((client.reordered, client.loss.total()), (1, 0));
        assert_eq!(script.sink.octets[0], b"aabb");
    }

    #[test]
    fn a_packet_that_the_network_doubled_was_not_sent_again() {
        let copies = |ids: [u16; 3]| {
            let mut script = Script::new();
            script.handshake();
            script.send(10, Shot { seq: 1, ack: 1, payload: b"aa", id: Some(ids[0]), ..Shot::default() });
            script.send(10, Shot { seq: 3, ack: 1, payload: b"bb", id: Some(ids[1]), ..Shot::default() });
            script.send(40, Shot { seq: 1, ack: 1, payload: b"aa", id: Some(ids[2]), ..Shot::default() });
            script.facts().from_client.loss.total()
        };
        assert_eq!(copies([500, 501, 500]), 0);
        assert_eq!(copies([500, 501, 502]), 1, "sent again: another packet");
        assert_eq!(copies([9_007, 9_007, 9_007]), 1, "a sender that takes the same id for every packet");
    }

    #[test]
    fn a_packet_that_left_before_the_latest_one_was_not_sent_again() {
        let spurious = |id: u16| {
            let mut script = Script::new();
            script.handshake();
            for n in 0..20_u16 {
                let shot =
                    Shot { seq: 1 + 2 * u32::from(n), ack: 1, payload: b"aa", id: Some(500 + n), ..Shot::default() };
                script.send(10, shot);
            }
            script.server(12, "A", 1, 41, b"");
            script.send(14, Shot { seq: 1, ack: 1, payload: b"aa", id: Some(id), ..Shot::default() });
            script.facts().from_client.loss.spurious
        };
        assert_eq!((spurious(500), spurious(520)), (0, 1));
    }

    #[test]
    fn a_hole_filled_by_a_later_packet_was_lost_before_the_capture_point() {
        let mut script = Script::new();
        script.handshake();
        script.send(10, Shot { seq: 3, ack: 1, payload: b"bb", id: Some(501), ..Shot::default() });
        script.send(260, Shot { seq: 1, ack: 1, payload: b"aa", id: Some(502), ..Shot::default() });
        let client = script.facts().from_client;
        assert_eq!((client.loss.before_capture_point, client.loss.after_capture_point), (1, 0));
        assert_eq!(kinds(&client), [1, 0, 0, 0]);
        assert_eq!(client.payload, 4);
    }

    #[test]
    fn a_segment_merged_by_offload_on_another_interface_is_a_copy_of_the_capture() {
        let mut script = Script::new();
        script.handshake();
        script.send(10, Shot { seq: 1, ack: 1, payload: b"aa", ..Shot::default() });
        script.send(10, Shot { seq: 3, ack: 1, payload: b"bb", ..Shot::default() });
        script.send(10, Shot { seq: 1, ack: 1, payload: b"aabb", interface: 1, ..Shot::default() });
        let facts = script.facts();
        assert_eq!((facts.duplicates, facts.from_client.loss.total()), (1, 0));
    }
}
