//! One flow while a packet of it is looked at: the record, the detail, the sink, and how events and octets reach the floors above.

use super::assembler::{self, Assembler, Chunk};
use super::facts::RoleSource;
use super::half::{Marks, Stamp};
use super::key::Way;
use super::ledger::Hole;
use super::limits::Shared;
use super::record::{Detail, Flow};
use super::{Came, FlowHead, Sink, Wants};
use crate::event::{Event, PacketRef, Side, What};
use crate::time::{Elapsed, Timestamp};
use crate::wire::seq::Seq;

/// An acknowledged hole is believed to be capture loss after so long: captures of several queues or interfaces record an acknowledgment
/// before the segment it answers.
const PATIENCE: Elapsed = Elapsed::millis(10);
/// Segments held per direction, whatever their size.
const PIECES: usize = 1024;

/// Nothing is waited for over a greater distance: no window is larger (RFC 7323 §2.3), and half the circle must not be reached.
const WAIT: u32 = 1 << 29;

/// What is done with the octets of one direction.
#[derive(Clone, Copy)]
pub(super) enum Act<'a> {
    /// A segment came: where it begins, its octets on the wire, and those the capture has.
    Accept(Seq, u32, &'a [u8]),
    /// Nothing missing before here will be waited for.
    Skip(Seq),
}

/// Everything in reach while one packet (or tick) is worked on.
pub(super) struct Live<'t, S: Sink> {
    pub(super) flow: &'t mut Flow,
    pub(super) detail: &'t mut Detail,
    pub(super) conversation: &'t mut S::Conversation,
    pub(super) sink: &'t mut S,
    pub(super) shared: &'t mut Shared,
    pub(super) at: PacketRef,
    /// The same packet, as it is kept.
    pub(super) stamp: Stamp,
}

impl<S: Sink> Live<'_, S> {
    /// Tells an event shown by the packet at hand.
    pub(super) fn event(&mut self, way: Way, what: What) {
        self.event_at(self.at, way, what);
    }

    /// Tells an event shown by an earlier packet. In one place of its own, like everything that few packets need: what every packet goes
    /// through must fit the nearest cache.
    #[inline(never)]
    pub(super) fn event_at(&mut self, at: PacketRef, way: Way, what: What) {
        let head = self.detail.head(self.flow);
        let side = self.flow.side(way);
        self.sink.event(&head, self.conversation, Event { at, side, what });
    }

    /// Tells how the packet at hand, or an earlier one, came.
    #[cold]
    pub(super) fn judged(&mut self, at: PacketRef, came: Came) {
        let head = self.detail.head(self.flow);
        self.sink.judged(&head, self.conversation, at, came);
    }

    /// Hands on what `act` makes available, and the FIN when its turn has come.
    #[inline(never)]
    pub(super) fn deliver(&mut self, way: Way, act: Act<'_>) {
        let track = &mut self.flow.tracks[way];
        if track.marks.has(Marks::DONE) {
            track.delivered = track.next;
            return self.tell_fin(way);
        }
        let mut position = track.delivered;
        // Written where it stays: copying what was just written in smaller pieces would wait for all stores before it.
        let mut head = self.detail.head(self.flow);
        let mut outlet = Outlet {
            head: &mut head,
            side: self.flow.side(way),
            at: self.at,
            sink: &mut *self.sink,
            conversation: &mut *self.conversation,
            wants: Wants::More,
            flipped: false,
        };
        match (act, &mut self.detail.trails[way].rare) {
            // Nothing is held and the segment is in order: nothing is copied and nothing allocated.
            (Act::Accept(start, len, octets), None) if !start.after(position) => {
                assembler::pass(&mut position, start, len, octets, &mut |chunk| outlet.put(chunk));
            }
            (act, rare) => {
                let assembler = &mut rare.get_or_insert_default().assembler;
                let before = assembler.held();
                match act {
                    Act::Accept(start, len, octets) => {
                        assembler.accept(&mut position, start, len, octets, &mut |chunk| outlet.put(chunk));
                    }
                    Act::Skip(until) => assembler.skip(&mut position, until, &mut |chunk| outlet.put(chunk)),
                }
                self.shared.held = self.shared.held + assembler.held() - before;
            }
        }
        let (wants, flipped) = (outlet.wants, outlet.flipped);
        self.flow.tracks[way].delivered = position;
        if flipped {
            self.flow.client = self.flow.client.other();
            self.flow.role = RoleSource::Layer7;
        }
        if wants == Wants::Nothing {
            self.want_nothing(way);
        }
        self.tell_fin(way);
    }

    /// From here only sequence numbers of the direction are followed.
    #[inline(never)]
    fn want_nothing(&mut self, way: Way) {
        let track = &mut self.flow.tracks[way];
        track.marks.set(Marks::DONE);
        track.delivered = track.next;
        let held = self.detail.trails[way].rare.as_ref().map_or(0, |rare| rare.assembler.held());
        if held > 0 {
            self.shared.held -= held;
            self.detail.trails[way].rare().assembler = Assembler::default();
        }
    }

    /// A segment's octets: in order they are lent, otherwise held as far as the caps allow.
    pub(super) fn accept(&mut self, way: Way, start: Seq, mut len: u32, octets: &[u8]) {
        if self.flow.tracks[way].marks.has(Marks::FIN) {
            // What claims to lie behind the FIN is no part of the stream.
            let room = self.detail.trails[way].fin_seq.minus(start);
            len = len.min(room.max(0).unsigned_abs());
        }
        let octets = octets.get(..len as usize).unwrap_or(octets);
        if start.after(self.flow.tracks[way].delivered) {
            self.make_room(way, start, octets.len());
        }
        self.deliver(way, Act::Accept(start, len, octets));
    }

    /// So many octets from `start` on will be held behind a hole: the first holes are given up until there is room.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, way: Way, start: Seq, octets: usize) {
        let limits = &self.shared.limits;
        let (direction, total) = (limits.held_octets_per_direction, limits.held_octets_total);
        while !self.flow.tracks[way].marks.has(Marks::DONE) && start.after(self.flow.tracks[way].delivered) {
            let assembler = &self.detail.trails[way].rare().assembler;
            let distance = start.minus(self.flow.tracks[way].delivered).unsigned_abs();
            let fits = distance <= WAIT
                && assembler.held() + octets <= direction
                && self.shared.held + octets <= total
                && assembler.pieces() < PIECES;
            if fits {
                break;
            }
            let first = assembler.first().filter(|first| start.after(*first)).unwrap_or(start);
            self.give_up(way, first);
        }
    }

    /// The cap is reached: what is missing before `until` is not waited for any longer.
    fn give_up(&mut self, way: Way, until: Seq) {
        let missing = u64::from(until.minus(self.flow.tracks[way].delivered).max(0).unsigned_abs());
        self.detail.trails[way].rare().held_dropped += missing;
        self.shared.counts.held_dropped += missing;
        self.deliver(way, Act::Skip(until));
    }

    /// Believes those acknowledged holes that nothing filled in time to be octets the capture never saw.
    pub(super) fn confirm_holes(&mut self, way: Way, now: Timestamp) {
        self.confirm(way, now, PATIENCE);
    }

    #[inline]
    fn confirm(&mut self, way: Way, now: Timestamp, patience: Elapsed) {
        if self.detail.trails[way].rare.is_none() {
            self.flow.tracks[way].marks.clear(Marks::WAITING);
        } else {
            self.confirm_now(way, now, patience);
        }
    }

    #[cold]
    #[inline(never)]
    fn confirm_now(&mut self, way: Way, now: Timestamp, patience: Elapsed) {
        while let Some(hole) = self.detail.trails[way].rare.as_mut().and_then(|rare| rare.holes.confirm(now, patience))
        {
            self.lost_to_capture(way, &hole);
            let position = self.flow.tracks[way].delivered;
            let lost = self.detail.trails[way].rare.as_ref().and_then(|rare| rare.holes.lost_at(position));
            if let Some(end) = lost {
                self.deliver(way, Act::Skip(end));
            }
        }
        let waiting = self.detail.trails[way].rare.as_ref().is_some_and(|rare| rare.holes.waiting());
        if !waiting {
            self.flow.tracks[way].marks.clear(Marks::WAITING);
        }
    }

    fn lost_to_capture(&mut self, way: Way, hole: &Hole) {
        let Some(acked) = hole.acked else { return };
        let missing = u64::from(hole.end.minus(hole.start).unsigned_abs());
        let rare = self.detail.trails[way].rare();
        rare.unseen += missing;
        if rare.unseen_last != Some(acked) {
            rare.unseen_acks += 1;
            rare.unseen_last = Some(acked);
        }
        rare.unseen_first.get_or_insert(acked);
        if rare.unseen_acks <= super::tcp::TOLD {
            self.event_at(acked, way, What::CaptureHole { missing });
        }
    }

    /// The FIN, once everything before it came or is known to be lost.
    #[inline]
    pub(super) fn tell_fin(&mut self, way: Way) {
        let marks = self.flow.tracks[way].marks;
        if marks.has(Marks::FIN) && !marks.has(Marks::FIN_TOLD) {
            self.tell_fin_now(way);
        }
    }

    #[inline(never)]
    fn tell_fin_now(&mut self, way: Way) {
        let (track, trail) = (&mut self.flow.tracks[way], &self.detail.trails[way]);
        let complete = if track.marks.has(Marks::DONE) {
            !trail.rare.as_ref().is_some_and(|rare| rare.holes.open_before(trail.fin_seq))
        } else {
            !trail.fin_seq.after(track.delivered)
        };
        if let (true, Some(fin)) = (complete, trail.fin) {
            track.marks.set(Marks::FIN_TOLD);
            self.event_at(fin.packet(), way, What::Fin);
            self.end(way, fin.packet());
        }
    }

    /// Tells once that the direction's octets are over.
    #[inline(never)]
    pub(super) fn end(&mut self, way: Way, at: PacketRef) {
        if self.flow.tracks[way].marks.set(Marks::ENDED) {
            let head = self.detail.head(self.flow);
            let side = self.flow.side(way);
            self.sink.end(&head, self.conversation, side, at);
            // Whatever is still sent comes after the end: nobody is to read it.
            self.want_nothing(way);
        }
    }

    /// Nothing more is waited for: held octets go out with their gaps, and the direction ends.
    #[inline(never)]
    pub(super) fn flush(&mut self, way: Way) {
        self.confirm(way, Timestamp::MAX, Elapsed::ZERO);
        let (track, trail) = (&self.flow.tracks[way], &self.detail.trails[way]);
        let until =
            if track.marks.has(Marks::FIN) && track.next.after(trail.fin_seq) { trail.fin_seq } else { track.next };
        if track.marks.has(Marks::SEEN) && until.after(track.delivered) {
            self.deliver(way, Act::Skip(until));
        }
        let track = &mut self.flow.tracks[way];
        if let (true, Some(fin)) = (track.marks.has(Marks::FIN), self.detail.trails[way].fin)
            && track.marks.set(Marks::FIN_TOLD)
        {
            self.event_at(fin.packet(), way, What::Fin);
        }
        self.end(way, self.at);
    }
}

/// Lends chunks to the sink and remembers what it answered.
struct Outlet<'o, S: Sink> {
    head: &'o mut FlowHead,
    side: Side,
    at: PacketRef,
    sink: &'o mut S,
    conversation: &'o mut S::Conversation,
    wants: Wants,
    flipped: bool,
}

impl<S: Sink> Outlet<'_, S> {
    fn put(&mut self, chunk: Chunk<'_>) {
        if self.wants == Wants::Nothing {
            return;
        }
        match chunk {
            Chunk::Octets(octets) => {
                let wants = self.sink.bytes(self.head, self.conversation, self.side, self.at, octets);
                self.answer(wants);
            }
            Chunk::Gap(missing) => self.sink.gap(self.head, self.conversation, self.side, self.at, missing),
        }
    }

    fn answer(&mut self, wants: Wants) {
        match wants {
            // A handshake in the capture cannot be argued with.
            Wants::Flip if self.head.role != RoleSource::Handshake => {
                std::mem::swap(&mut self.head.client, &mut self.head.server);
                self.head.role = RoleSource::Layer7;
                self.side = self.side.other();
                self.flipped = !self.flipped;
            }
            Wants::Flip | Wants::More => {}
            Wants::Nothing => self.wants = Wants::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::{Kind, Side};
    use crate::flow::limits::Limits;
    use crate::flow::script::{Script, Shot};

    #[test]
    fn what_waits_behind_a_hole_is_bounded_and_the_hole_is_given_up() {
        let mut script = Script::with(Limits { held_octets_per_direction: 8, ..Limits::default() });
        script.handshake();
        script.client(10, "A", 11, 1, b"abcd");
        script.client(11, "A", 15, 1, b"efgh");
        assert!(script.sink.octets[0].is_empty());
        script.client(12, "A", 19, 1, b"i");
        assert_eq!((script.sink.octets[0].as_slice(), script.sink.gaps[0]), (b"abcdefghi".as_slice(), 10));
        assert_eq!(script.facts().from_client.held_dropped, 10);
        assert_eq!(script.table.counts().held_dropped, 10);
    }

    #[test]
    fn all_flows_together_are_bounded_too() {
        let mut script = Script::with(Limits { held_octets_total: 6, ..Limits::default() });
        for port in [1, 2] {
            script.send(0, Shot { port, flags: "S", ..Shot::default() });
            script.send(1, Shot { port, seq: 5, payload: b"held", ..Shot::default() });
        }
        assert_eq!(script.sink.octets[0], b"held", "the second one found no room");
        assert_eq!(script.table.counts().peak_held, 4);
    }

    #[test]
    fn a_fin_waits_for_the_octets_before_it() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "FA", 4, 1, b"");
        assert!(!script.kinds().contains(&Kind::Fin));
        script.client(11, "A", 1, 1, b"abc");
        assert_eq!(script.kinds().last(), Some(&Kind::Fin));
        assert_eq!(script.sink.ends, [1, 0]);
        let facts = script.facts();
        assert_eq!(facts.closer.map(|(side, at)| (side, at.number)), Some((Side::Client, 4)));
    }

    #[test]
    fn a_direction_nobody_wants_is_followed_by_its_numbers_only() {
        let mut script = Script::new();
        script.sink.enough = true;
        script.handshake();
        script.client(10, "A", 1, 1, b"one");
        script.client(11, "A", 4, 1, b"two");
        script.client(12, "FA", 7, 1, b"");
        assert_eq!(script.sink.octets[0], b"one");
        assert_eq!(script.facts().from_client.payload, 6);
        assert_eq!(script.kinds().last(), Some(&Kind::Fin));
    }

    #[test]
    fn nothing_is_read_after_a_reset() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "A", 1, 1, b"one");
        script.client(11, "RA", 4, 1, b"");
        script.client(12, "A", 1, 1, b"one");
        script.finish();
        assert_eq!((script.sink.octets[0].as_slice(), script.sink.ends), (b"one".as_slice(), [1, 1]));
    }

    #[test]
    fn held_octets_go_out_with_their_gap_when_the_flow_ends() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "A", 4, 1, b"def");
        script.finish();
        assert_eq!((script.sink.octets[0].as_slice(), script.sink.gaps[0]), (b"def".as_slice(), 3));
    }
}
