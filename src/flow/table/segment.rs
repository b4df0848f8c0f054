//! A TCP segment: which flow it belongs to, and how it is worked in there.

use super::{FlowTable, Hint, Name};
use crate::decode::{Flags, Ip, Packet, Segment};
use crate::event::What;
use crate::flow::duplicates::Mark;
use crate::flow::facts::RoleSource;
use crate::flow::half::Marks;
use crate::flow::key::Way;
use crate::flow::live::Live;
use crate::flow::record::{Flow, Stage};
use crate::flow::roles;
use crate::flow::tombstone::Met;
use crate::flow::{Ended, Sink};
use crate::wire::seq::Seq;

impl<S: Sink> FlowTable<S> {
    /// The flow of a segment: a known one, a new one, or `None` for a late packet of a reported one, and for a SYN that is kept packed.
    #[inline]
    pub(super) fn tcp_slot(
        &mut self,
        name: &Name,
        hint: Hint,
        packet: &Packet<'_>,
        ip: &Ip,
        segment: &Segment<'_>,
        sink: &mut S,
    ) -> Option<u32> {
        let slot = match hint {
            Hint::New => return self.tcp_slot_of_syn(name, true, packet, ip, segment, sink),
            Hint::At(slot) => Some(slot),
            Hint::None => None,
        };
        let still = |slot: &u32| {
            self.places.get(*slot as usize).is_some_and(|place| place.detail.is_some() && place.flow.key == name.key)
        };
        match slot.filter(still).or_else(|| self.find(&name.key, name.hash)) {
            Some(slot) if !segment.flags.has(Flags::SYN) => Some(slot),
            _ => self.tcp_slot_of_syn(name, false, packet, ip, segment, sink),
        }
    }

    /// The same for a SYN, and for a segment whose flow is not among the places. `new`: nobody knows the flow.
    #[inline(never)]
    fn tcp_slot_of_syn(
        &mut self,
        &Name { key, hash, way }: &Name,
        new: bool,
        packet: &Packet<'_>,
        ip: &Ip,
        segment: &Segment<'_>,
        sink: &mut S,
    ) -> Option<u32> {
        let at = packet.at;
        let bare_syn = segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK);
        let mut reuses = None;
        let known = if new { None } else { self.known(&key, hash, sink) };
        if let Some(slot) = known {
            if !bare_syn || !self.begins_anew(slot, way, segment.seq) {
                return Some(slot);
            }
            reuses = self.detail(slot).map(|detail| detail.id);
            self.close(slot, Ended::Replaced, at.time, sink);
        } else {
            let met = if new { Met::Nobody } else { self.tombstones.meet(hash, &key, way, at.time, segment) };
            match met {
                Met::Late => {
                    self.shared.counts.late += 1;
                    return None;
                }
                Met::Successor(id) => reuses = Some(id),
                Met::Nobody if bare_syn && self.packed(hash, packet, ip, segment, sink) => return None,
                Met::Nobody => {}
            }
        }
        let answer = segment.flags.has(Flags::SYN) && segment.flags.has(Flags::ACK);
        let (client, role) = if bare_syn {
            (way, RoleSource::Handshake)
        } else if answer {
            (way.other(), RoleSource::Handshake)
        } else {
            roles::by_port(&key, way, false, &self.listeners)
        };
        let mut flow = Flow::new(key, client, role);
        flow.mid_stream = !bare_syn && !answer;
        flow.unanswered = bare_syn;
        let slot = self.open(flow, hash, at, reuses, sink);
        self.with(slot, at, sink, |live| {
            if reuses.is_some() && bare_syn {
                live.event(way, What::PortReused);
            }
            if live.flow.mid_stream {
                live.event(way, What::MidStream);
            }
        });
        Some(slot)
    }

    /// Whether a bare SYN of `way` with number `seq` begins another connection than the one in the table.
    fn begins_anew(&self, slot: u32, way: Way, seq: Seq) -> bool {
        let (Some(flow), Some(detail)) = (self.flow(slot), self.detail(slot)) else { return true };
        let (mine, peer) = (&flow.tracks[way], &flow.tracks[way.other()]);
        if mine.packets == 0 && peer.packets == 0 {
            // It was put there for this very packet, which comes out of its packing.
            return false;
        }
        if mine.marks.has(Marks::SEEN) {
            return detail.trails[way].isn != seq;
        }
        // The side was silent so far: its SYN may have been recorded after the SYN+ACK, or both ends open at once.
        let trail = &detail.trails[way.other()];
        let answers = trail.syn_count > 0 && (!mine.marks.has(Marks::ACKED) || mine.una == seq.plus(1));
        !(answers && peer.payload == 0)
    }

    #[inline(always)]
    pub(super) fn tcp(
        &mut self,
        slot: u32,
        way: Way,
        packet: &Packet<'_>,
        ip: &Ip,
        segment: &Segment<'_>,
        sink: &mut S,
    ) {
        let change = self.with(slot, packet.at, sink, |live| {
            if live.duplicate(way, packet, || Mark::of_segment(ip, segment)) {
                return None;
            }
            if live.flow.unanswered && way != live.flow.client {
                live.flow.unanswered = false;
                live.shared.unanswered -= 1;
            }
            let start = segment.seq.plus(u32::from(segment.flags.has(Flags::SYN)));
            let face = live.flow.tracks[way].face;
            if segment.payload_len > 0
                && let Some(original) = live.offload_original(way, start, start.plus(segment.payload_len), face)
            {
                live.count_duplicate(original);
                return None;
            }
            // Only an end, or the answer to one, moves a flow on its way out.
            let ends = segment.flags.has(Flags::FIN) || segment.flags.has(Flags::RST) || live.flow.ending();
            let before = if ends { live.flow.stage() } else { Stage::Open };
            if !live.flow.established && segment.flags.has(Flags::SYN) && live.flow.role != RoleSource::Handshake {
                live.roles_by_syn(way, segment);
            }
            live.segment(way, ip, segment);
            Some((before, if ends { live.flow.stage() } else { Stage::Open }))
        });
        let Some(change) = change else { return };
        let (before, now) = change.unwrap_or((Stage::Open, Stage::Open));
        if before == Stage::Open
            && now > before
            && let Some(detail) = self.detail(slot)
        {
            self.closed.push_back((slot, detail.id));
        }
        if before != now || self.waiting(slot) {
            self.schedule(slot);
        }
    }
}

impl<S: Sink> Live<'_, S> {
    /// A SYN on a flow whose roles came from ports: the SYN knows better.
    fn roles_by_syn(&mut self, way: Way, segment: &Segment<'_>) {
        self.flow.client = if segment.flags.has(Flags::ACK) { way.other() } else { way };
        self.flow.role = RoleSource::Handshake;
    }
}
