//! One flow while a packet of it is looked at: the record, the detail, the sink, and how events and octets reach the floors above.

use super::assembler::{Assembler, Chunk};
use super::facts::RoleSource;
use super::half::Marks;
use super::key::Way;
use super::ledger::Hole;
use super::record::{Detail, Flow};
use super::table::Shared;
use super::{FlowHead, Sink, Wants};
use crate::event::{Event, PacketRef, Side, What};
use crate::time::{Elapsed, Timestamp};
use crate::wire::seq::Seq;

/// An acknowledged hole is believed to be capture loss after so long: captures of several queues or interfaces record an acknowledgment
/// before the segment it answers.
const PATIENCE: Elapsed = Elapsed::millis(10);
/// Segments held per direction, whatever their size.
const PIECES: usize = 1024;

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
}

impl<S: Sink> Live<'_, S> {
    /// Tells an event shown by the packet at hand.
    pub(super) fn event(&mut self, way: Way, what: What) {
        self.event_at(self.at, way, what);
    }

    /// Tells an event shown by an earlier packet.
    pub(super) fn event_at(&mut self, at: PacketRef, way: Way, what: What) {
        let head = self.detail.head(self.flow);
        let side = self.flow.side(way);
        self.sink.event(&head, self.conversation, Event { at, side, what });
    }

    /// Hands on what `act` makes available, and the FIN when its turn has come.
    pub(super) fn deliver(&mut self, way: Way, act: Act<'_>) {
        let track = &mut self.flow.tracks[way];
        if track.marks.has(Marks::DONE) {
            track.delivered = track.next;
            return self.tell_fin(way);
        }
        let mut position = track.delivered;
        let mut outlet = Outlet {
            head: self.detail.head(self.flow),
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
                Assembler::default().accept(&mut position, start, len, octets, &mut |chunk| outlet.put(chunk));
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
    fn want_nothing(&mut self, way: Way) {
        let track = &mut self.flow.tracks[way];
        track.marks.set(Marks::DONE);
        track.delivered = track.next;
        if let Some(rare) = &mut self.detail.trails[way].rare {
            self.shared.held -= rare.assembler.held();
            rare.assembler = Assembler::default();
        }
    }

    /// A segment's octets: in order they are lent, otherwise held as far as the caps allow.
    pub(super) fn accept(&mut self, way: Way, start: Seq, len: u32, octets: &[u8]) {
        let limits = &self.shared.limits;
        let (direction, total) = (limits.held_octets_per_direction, limits.held_octets_total);
        while !self.flow.tracks[way].marks.has(Marks::DONE) && start.after(self.flow.tracks[way].delivered) {
            let assembler = &self.detail.trails[way].rare().assembler;
            let fits = assembler.held() + octets.len() <= direction
                && self.shared.held + octets.len() <= total
                && assembler.pieces() < PIECES;
            if fits {
                break;
            }
            let first = assembler.first().filter(|first| start.after(*first)).unwrap_or(start);
            self.give_up(way, first);
        }
        self.deliver(way, Act::Accept(start, len, octets));
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

    fn confirm(&mut self, way: Way, now: Timestamp, patience: Elapsed) {
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
    pub(super) fn tell_fin(&mut self, way: Way) {
        let (track, trail) = (&mut self.flow.tracks[way], &self.detail.trails[way]);
        if !track.marks.has(Marks::FIN) || track.marks.has(Marks::FIN_TOLD) {
            return;
        }
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
    pub(super) fn end(&mut self, way: Way, at: PacketRef) {
        if self.flow.tracks[way].marks.set(Marks::ENDED) {
            let head = self.detail.head(self.flow);
            let side = self.flow.side(way);
            self.sink.end(&head, self.conversation, side, at);
        }
    }

    /// Nothing more is waited for: held octets go out with their gaps, and the direction ends.
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
    head: FlowHead,
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
                let wants = self.sink.bytes(&self.head, self.conversation, self.side, self.at, octets);
                self.answer(wants);
            }
            Chunk::Gap(missing) => self.sink.gap(&self.head, self.conversation, self.side, self.at, missing),
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
