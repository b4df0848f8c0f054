//! How a flow enters the table, how long it stays, and how it leaves: slots and deadlines.

use super::{FlowTable, Place};
use crate::event::PacketRef;
use crate::flow::half::{Marks, Stamp};
use crate::flow::key::Way;
use crate::flow::record::{Detail, Flow};
use crate::flow::tombstone::Tombstone;
use crate::flow::wheel::step_for;
use crate::flow::{Ended, Sink};
use crate::time::{Elapsed, Timestamp};

/// Details at hand for flows to come: more than leave at one tick of ordinary traffic.
const SPARE: usize = 8192;
/// A flow with an acknowledged hole is looked at again after so long, on a whole second.
const HOLES: Elapsed = Elapsed::secs(1);

impl<S: Sink> FlowTable<S> {
    /// Puts a flow into the table and plans the first look at it.
    pub(super) fn open(
        &mut self,
        flow: Flow,
        hash: u64,
        at: PacketRef,
        reuses: Option<PacketRef>,
        sink: &mut S,
    ) -> u32 {
        self.room(at.time, sink);
        let patience = flow.patience(&self.shared.limits);
        let slot = self.place(flow, hash, at, reuses, sink);
        self.schedule_at(slot, step_for(at.time + patience, patience));
        slot
    }

    /// Puts a flow into the table, whatever room there is.
    pub(super) fn place(
        &mut self,
        flow: Flow,
        hash: u64,
        at: PacketRef,
        reuses: Option<PacketRef>,
        sink: &mut S,
    ) -> u32 {
        self.shared.unanswered += usize::from(flow.unanswered);
        let mut detail = match self.spare.pop() {
            Some(mut spare) => {
                spare.renew(at, reuses);
                spare
            }
            None => Box::new(Detail::new(at, reuses)),
        };
        let conversation = sink.open(&detail.head(&flow));
        detail.weight = Self::YOUNG as u32;
        self.shared.weight += Self::YOUNG;
        let slot = self.enter(Place { flow, detail: Some(detail), conversation: Some(conversation) }, hash);
        self.shared.counts.opened += 1;
        self.shared.counts.peak_flows = self.shared.counts.peak_flows.max(self.len());
        slot
    }

    /// Gives a flow a slot, and its name a place in the index.
    #[inline]
    pub(super) fn enter(&mut self, new: Place<S::Conversation>, hash: u64) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.places.get_mut(slot as usize) {
                    *place = new;
                }
                slot
            }
            None => {
                self.places.push(new);
                self.places.len() as u32 - 1
            }
        };
        let (places, seed) = (&self.places, self.seed);
        let rehash = |slot: &u32| places.get(*slot as usize).map_or(0, |place| place.flow.key.hash(seed));
        self.index.insert_unique(hash, slot, rehash);
        self.live += 1;
        slot
    }

    /// Keeps what was taken for a flow for the next one.
    pub(super) fn keep_spare(&mut self, detail: Box<Detail>) {
        if self.spare.len() < SPARE {
            self.spare.push(detail);
        }
    }

    /// Plans the next look at a flow; one planned earlier stays.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(flow) = self.flow(slot) else { return };
        let last = flow.last().map_or(Timestamp::MIN, Stamp::time);
        let patience = flow.patience(&self.shared.limits);
        let soon = if self.waiting(slot) { step_for(last + HOLES, Elapsed::secs(3600)) } else { i64::MAX };
        self.schedule_at(slot, step_for(last + patience, patience).min(soon));
    }

    fn schedule_at(&mut self, slot: u32, step: i64) {
        let now = self.wheel.now().unwrap_or(step);
        let Some(Some(detail)) = self.places.get_mut(slot as usize).map(|place| &mut place.detail) else { return };
        if detail.due > now && detail.due <= step {
            return;
        }
        detail.due = self.wheel.schedule(slot, step);
    }

    /// Takes a flow out of the table and reports it.
    pub(super) fn close(&mut self, slot: u32, why: Ended, now: Timestamp, sink: &mut S) {
        let Some(last) = self.last(slot).or_else(|| self.detail(slot).map(|detail| detail.id)) else { return };
        self.with(slot, last, sink, |live| {
            for way in [live.flow.client, live.flow.client.other()] {
                live.flush(way);
            }
        });
        let Some(Place { flow, detail, conversation }) = self.places.get_mut(slot as usize) else { return };
        let (Some(detail), Some(conversation)) = (detail.take(), conversation.take()) else { return };
        self.shared.unanswered -= usize::from(flow.unanswered);
        let hash = flow.key.hash(self.seed);
        let facts = match sink.spare_facts() {
            Some(mut spare) => {
                detail.tell(flow, &mut spare);
                spare
            }
            None => Box::new(detail.facts(flow)),
        };
        if why == Ended::Closed {
            let next =
                Way::BOTH.map(|way| Some(&flow.tracks[way]).filter(|t| t.marks.has(Marks::SEEN)).map(|t| t.next));
            let until = last.time + self.shared.limits.closed_linger + self.shared.limits.tombstone;
            self.tombstones.bury(hash, Tombstone { key: &flow.key, id: detail.id, until, next });
        }
        for way in Way::BOTH {
            if let Some(rare) = &detail.trails[way].rare {
                self.shared.held -= rare.assembler.held();
            }
        }
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        self.shared.weight -= detail.weight as usize;
        self.keep_spare(detail);
        self.live -= 1;
        sink.closed(facts, conversation, why, now);
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::Ended;
    use crate::flow::facts::Close;
    use crate::flow::limits::Limits;
    use crate::flow::script::{Script, Shot};

    #[test]
    fn late_packets_belong_to_the_closed_flow_and_then_to_nobody() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "FA", 1, 1, b"");
        script.server(11, "FA", 1, 2, b"");
        script.server(5_000, "FA", 1, 2, b"");
        script.tick(9);
        assert!(script.sink.closed.is_empty());
        script.tick(16);
        let (facts, why) = script.sink.closed[0].clone();
        assert_eq!((why, facts.close, facts.from_server.fin_count), (Ended::Closed, Close::Fin, 2));
        script.server(20_000, "FA", 1, 2, b"");
        assert!(script.table.is_empty());
        assert_eq!(script.table.counts().late, 1);
        script.client(21_000, "PA", 2, 2, b"new octets");
        assert_eq!(script.facts().reuses, Some(facts.id));
    }

    #[test]
    fn a_flow_of_which_nothing_more_is_due_leaves_within_two_seconds() {
        let mut script = Script::new();
        script.handshake();
        script.client(10, "FA", 1, 1, b"");
        script.server(11, "FA", 1, 2, b"");
        script.client(12, "A", 2, 2, b"");
        script.client(13, "A", 2, 2, b"");
        script.tick(0);
        assert!(script.sink.closed.is_empty());
        script.tick(2);
        assert_eq!(script.sink.closed[0].1, Ended::Closed);
        script.server(2_100, "FA", 1, 2, b"");
        assert!(script.table.is_empty());
        assert_eq!(script.table.counts().late, 1);
    }

    #[test]
    fn an_unanswered_syn_expires_on_capture_time_also_when_the_clock_jumps_by_years() {
        let mut script = Script::new();
        script.client(0, "S", 0, 0, b"");
        script.tick(184);
        assert!(script.sink.closed.is_empty());
        script.tick(185);
        assert_eq!(script.sink.closed[0].1, Ended::Expired);
        script.client(190_000, "S", 9, 0, b"");
        script.tick(1_000_000_000);
        assert_eq!(script.sink.closed.len(), 2);
    }

    #[test]
    fn an_open_connection_outlives_hours_of_silence() {
        let mut script = Script::new();
        script.handshake();
        script.tick(23 * 3600);
        assert_eq!(script.table.len(), 1);
        script.tick(25 * 3600);
        assert!(script.table.is_empty());
    }

    #[test]
    fn a_full_table_gives_up_closed_and_healthy_flows_first() {
        let mut script = Script::with(Limits { max_flows: 3, ..Limits::default() });
        let from = |port: u16, flags: &'static str, seq: u32, to_client: bool| Shot {
            port,
            flags,
            seq,
            ack: 1,
            from_server: to_client,
            ..Shot::default()
        };
        script.send(0, from(1001, "S", 0, false));
        script.send(1, from(1002, "S", 0, false));
        script.send(2, from(1002, "RA", 0, true));
        script.send(3, from(1003, "A", 1, false));
        script.send(4, from(1003, "FA", 1, false));
        script.send(5, from(1003, "FA", 1, true));
        script.send(6, from(1004, "S", 0, false));
        script.send(7, from(1005, "S", 0, false));
        let ports: Vec<u16> = script.sink.closed.iter().map(|(facts, _)| facts.client.port).collect();
        assert_eq!(ports, [1003, 1002]);
        assert_eq!(script.table.counts().evicted, 2);
    }

    #[test]
    fn every_flow_is_closed_once_at_the_end_in_the_order_of_its_first_packet() {
        let mut script = Script::new();
        for port in [3000, 1000, 2000] {
            script.send(0, Shot { port, flags: "S", ..Shot::default() });
        }
        assert_eq!(script.table.open_flows().count(), 3);
        script.finish();
        let ports: Vec<u16> = script.sink.closed.iter().map(|(facts, _)| facts.client.port).collect();
        assert_eq!(ports, [3000, 1000, 2000]);
        assert!(script.table.is_empty());
    }
}
