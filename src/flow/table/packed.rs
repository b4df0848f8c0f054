//! Flows of which nothing but one SYN is known, kept packed: in a flood of SYNs the table holds records, not flows.

use super::{FlowTable, Hint, Name};
use crate::decode::{Ip, Packet, Segment};
use crate::event::PacketRef;
use crate::flow::embryo::Syn;
use crate::flow::facts::RoleSource;
use crate::flow::key::Key;
use crate::flow::record::Flow;
use crate::flow::{Ended, Sink};
use crate::time::{Elapsed, Timestamp};

/// An answer that is still to come has come by then, as a rule: from here on a packed flow makes room before an open one.
const ANSWER: Elapsed = Elapsed::secs(3);

/// Puts a flow into the table.
type Enter<S> = fn(&mut FlowTable<S>, Flow, u64, PacketRef, Option<PacketRef>, &mut S) -> u32;

impl<S: Sink> FlowTable<S> {
    /// The place of the flow of this name; a packed one gets one, and a frozen one.
    #[inline(always)]
    pub(super) fn known(&mut self, key: &Key, hash: u64, sink: &mut S) -> Option<u32> {
        let slot = self.find(key, hash);
        if slot.is_some() || self.embryos.len() + self.frozen.len() == 0 {
            slot
        } else {
            self.unpacked(key, hash, sink)
        }
    }

    #[cold]
    fn unpacked(&mut self, key: &Key, hash: u64, sink: &mut S) -> Option<u32> {
        if let Some(slot) = self.thawed(key, hash) {
            return Some(slot);
        }
        let syn = self.embryos.take(key, hash)?;
        self.embryos.tidy();
        Some(self.unpack(&syn, Self::open, sink))
    }

    /// Packs a SYN that begins a flow, where many are without an answer. `false` when it must become a flow at once. At most half of all flows
    /// are packed ones, so that a flood leaves room for others.
    pub(super) fn packed(
        &mut self,
        hash: u64,
        packet: &Packet<'_>,
        ip: &Ip,
        segment: &Segment<'_>,
        sink: &mut S,
    ) -> bool {
        if self.shared.unanswered + self.embryos.len() < self.shared.limits.packed_from {
            return false;
        }
        self.room(packet.at.time, sink);
        while self.embryos.len() >= (self.shared.limits.max_flows / 2).max(1) {
            let Some((_, place)) = self.embryos.oldest() else { break };
            self.end_packed(place, Ended::Evicted, packet.at.time, sink);
            self.shared.counts.evicted += 1;
        }
        let packed = self.embryos.pack(hash, packet, ip, segment);
        self.shared.counts.peak_flows = self.shared.counts.peak_flows.max(self.len());
        packed
    }

    /// Works a packed SYN in as if it came just now. `enter` puts its flow into the table.
    #[cold]
    #[inline(never)]
    fn unpack(&mut self, syn: &Syn, enter: Enter<S>, sink: &mut S) -> u32 {
        let (key, way) = syn.key();
        let flow = Flow { unanswered: true, ..Flow::new(key, way, RoleSource::Handshake) };
        let name = Name { key, hash: key.hash(self.seed), way };
        let slot = enter(self, flow, name.hash, syn.at(), None, sink);
        // There it finds its place; a second call of what it does with a segment would keep both from being put in line.
        self.work_in(&name, Hint::None, &syn.packet(), sink);
        slot
    }

    /// Takes flows out of the table, and with them the packed ones that came at or before `until`, all in the order of their first packets.
    pub(super) fn end(
        &mut self,
        mut ended: Vec<(PacketRef, u32, Ended)>,
        (until, why): (Timestamp, Ended),
        now: Timestamp,
        sink: &mut S,
    ) {
        ended.sort_unstable_by_key(|(id, slot, _)| (*id, *slot));
        // The wheel may hold a slot twice for one step, once for a flow that was there before.
        ended.dedup_by_key(|(id, slot, _)| (*id, *slot));
        let mut packed = Vec::new();
        self.embryos.due(until, &mut packed);
        packed.sort_unstable();
        let mut packed = packed.into_iter().peekable();
        for (place, (id, slot, why_flow)) in ended.iter().enumerate() {
            while let Some((_, place)) = packed.next_if(|(at, _)| at < id) {
                self.end_packed(place, why, now, sink);
            }
            self.approach_ended(&ended[place + 1..], sink);
            self.leave(*slot, *why_flow, now, sink);
        }
        for (_, place) in packed {
            self.end_packed(place, why, now, sink);
        }
        self.embryos.tidy();
    }

    fn end_packed(&mut self, place: u32, why: Ended, now: Timestamp, sink: &mut S) {
        if let Some(syn) = self.embryos.take_at(place) {
            // It leaves at once: nobody needs to look at it again.
            let slot = self.unpack(&syn, Self::place, sink);
            self.close(slot, why, now, sink);
        }
    }

    /// Makes room by the packed flow that waits for the longest time: where most flows are packed ones, somebody floods; and what waited for
    /// [`ANSWER`] is hardly answered any more. `false` when there is none, or when an open flow should go before it.
    pub(super) fn evict_packed(&mut self, now: Timestamp, sink: &mut S) -> bool {
        let Some((oldest, place)) = self.embryos.oldest() else { return false };
        if self.embryos.len() <= self.live && now.since(oldest) < ANSWER {
            return false;
        }
        self.end_packed(place, Ended::Evicted, now, sink);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::flow::Ended;
    use crate::flow::facts::Handshake;
    use crate::flow::limits::Limits;
    use crate::flow::script::{Script, Shot, Sum};

    /// Packs at once: nothing is put aside before.
    fn packing() -> Script {
        Script::with(Limits { packed_from: 0, gathered_from: usize::MAX, ..Limits::default() })
    }

    #[test]
    fn a_packed_syn_that_is_answered_becomes_the_flow_it_would_have_been() {
        let told = |mut script: Script| {
            script.handshake();
            script.client(10, "PA", 1, 1, b"question");
            script.finish();
            (script.sink.events, script.sink.closed, script.sink.octets)
        };
        assert_eq!(told(packing()), told(Script::new()));
    }

    #[test]
    fn only_a_syn_among_many_without_an_answer_is_packed() {
        let mut script = Script::with(Limits { packed_from: 2, ..Limits::default() });
        for port in 1..=4 {
            script.send(0, Shot { port, flags: "S", ..Shot::default() });
        }
        assert_eq!((script.table.len(), script.table.open_flows().count()), (4, 2));
        script.send(1, Shot { port: 1, flags: "SA", ack: 1, from_server: true, ..Shot::default() });
        script.send(1, Shot { port: 4, flags: "SA", ack: 1, from_server: true, ..Shot::default() });
        assert_eq!((script.table.len(), script.table.open_flows().count()), (4, 3));
    }

    #[test]
    fn packed_flows_expire_in_the_order_of_their_packets_also_when_the_clock_runs_backwards() {
        let mut script = packing();
        for (port, ms) in [(1, 3_000), (2, 1_000), (3, 2_000), (4, 90_000)] {
            script.send(ms, Shot { port, flags: "S", ..Shot::default() });
        }
        script.tick(188);
        let ports: Vec<(u16, Ended)> =
            script.sink.closed.iter().map(|(facts, why)| (facts.client.port, *why)).collect();
        assert_eq!(ports, [(2, Ended::Expired), (3, Ended::Expired), (1, Ended::Expired)]);
        assert_eq!(script.sink.closed[0].0.handshake, Handshake::Syn);
        script.finish();
        assert_eq!((script.sink.closed.len(), script.table.len()), (4, 0));
    }

    #[test]
    fn in_a_flood_the_oldest_packed_flow_makes_room_and_an_open_one_stays() {
        let mut script = Script::with(Limits { packed_from: 0, max_flows: 3, ..Limits::default() });
        script.handshake();
        for port in 1..=4 {
            script.send(i64::from(port) * 10, Shot { port, flags: "S", ..Shot::default() });
        }
        let ports: Vec<u16> = script.sink.closed.iter().map(|(facts, _)| facts.client.port).collect();
        assert_eq!((ports, script.table.counts().evicted), (vec![1, 2, 3], 3));
    }

    #[test]
    fn what_many_open_and_answer_leaves_no_room_behind() {
        let mut script = packing();
        for round in 0..40_000_u32 {
            let port = (round % 60_000) as u16 + 1;
            script.send(i64::from(round), Shot { port, flags: "S", ..Shot::default() });
            if round % 100 > 0 {
                script.send(i64::from(round), Shot { port, flags: "RA", ack: 1, from_server: true, ..Shot::default() });
            }
        }
        let held = script.table.embryos.held();
        assert!(held < 6_000, "{held} records for {} flows", script.table.embryos.len());
        assert_eq!(script.table.embryos.len(), 400);
    }

    /// A SYN as programs send it, or do not.
    fn syn() -> impl Strategy<Value = Shot> {
        const OPTIONS: [&[u8]; 7] = [
            &[],
            &[2, 4, 5, 0xb4],
            &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
            &[8, 10, 9, 9, 9, 9],
            &[8, 10, 9, 9, 9, 9, 1, 1, 1, 1],
            &[3],
            &[254, 0, 8, 10, 9, 9, 9, 9, 1, 1, 1, 1],
        ];
        let parts =
            (1..2000_u16, 0..OPTIONS.len(), any::<u32>(), any::<u16>(), any::<u8>(), any::<u16>(), any::<bool>());
        parts.prop_map(|(port, options, seq, window, ttl, id, right)| Shot {
            port,
            options: OPTIONS[options],
            flags: "S",
            seq,
            window,
            ttl,
            id: Some(id),
            sum: if right { Sum::Right } else { Sum::Wrong },
            ..Shot::default()
        })
    }

    proptest! {
        #[test]
        fn any_syn_comes_out_of_its_packing_as_it_went_in(shots in prop::collection::vec(syn(), 1..600)) {
            let told = |mut script: Script| {
                for (ms, shot) in (0..).zip(&shots) {
                    script.send(ms, *shot);
                }
                script.tick(120);
                script.finish();
                (script.sink.closed, script.table.len())
            };
            prop_assert!(told(packing()) == told(Script::new()));
        }
    }
}
