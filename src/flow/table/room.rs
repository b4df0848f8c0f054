//! Room in the table: how many flows it may hold, what they weigh, and which leave first when that is too much.

use super::{FlowTable, Place};
use crate::event::PacketRef;
use crate::flow::key::Way;
use crate::flow::record::Detail;
use crate::flow::{Ended, Sink};
use crate::time::Timestamp;

/// What a detail at hand takes: itself, the other direction, and the room for segments that stays with both.
const SPARE_WEIGHT: usize = 2048;

impl<S: Sink> FlowTable<S> {
    /// What every flow weighs: its place (a quarter of the slab is free when it has just grown), its detail, its places in index and wheel.
    pub(super) const OWN: usize = size_of::<Place<S::Conversation>>() * 5 / 4 + size_of::<Detail>() + 64;
    /// What a flow is taken to weigh until it is weighed: as much as one that waits for an answer.
    pub(super) const YOUNG: usize = Self::OWN + 2048;

    /// Octets the table takes, estimated: flows, octets behind holes, packed and frozen flows, flows remembered, memory at hand.
    pub fn memory(&self) -> usize {
        self.shared.weight
            + self.shared.held
            + self.embryos.memory()
            + self.frozen.memory()
            + self.gathered.memory()
            + self.tombstones.memory()
            + self.spare.len() * SPARE_WEIGHT
    }

    /// The table may take so much from here on.
    pub fn allow(&mut self, memory: usize) {
        self.shared.limits.memory = memory;
    }

    /// Makes room for one more flow.
    pub(super) fn room(&mut self, now: Timestamp, sink: &mut S) {
        while self.len() >= self.shared.limits.max_flows.max(1) && self.evict(now, sink) {
            self.shared.counts.evicted += 1;
        }
        self.relieve(Self::YOUNG, now, sink);
    }

    /// Weighs a flow now and then: after the fourth packet of a side, and whenever their number has doubled from sixteen on.
    #[inline(always)]
    pub(super) fn weigh(&mut self, slot: u32, way: Way, now: Timestamp, sink: &mut S) {
        let Some(flow) = self.flow(slot) else { return };
        let packets = flow.tracks[way].packets;
        if packets == 4 || packets >= 16 && packets.is_power_of_two() {
            self.weigh_now(slot, now, sink);
        }
    }

    #[cold]
    fn weigh_now(&mut self, slot: u32, now: Timestamp, sink: &mut S) {
        let Some(Place { detail: Some(detail), conversation: Some(conversation), .. }) =
            self.places.get_mut(slot as usize)
        else {
            return;
        };
        let weight = Self::OWN + detail.heap() + S::weight(conversation);
        self.shared.weight = self.shared.weight + weight - detail.weight as usize;
        detail.weight = weight as u32;
        self.relieve(0, now, sink);
    }

    /// Gives memory back until so much `more` is allowed: first what is only at hand, then flows.
    #[inline]
    fn relieve(&mut self, more: usize, now: Timestamp, sink: &mut S) {
        if self.memory() + more > self.shared.limits.memory {
            self.relieve_now(more, now, sink);
        }
    }

    #[cold]
    fn relieve_now(&mut self, more: usize, now: Timestamp, sink: &mut S) {
        self.spare = Vec::new();
        self.gathered.give_up();
        while self.memory() + more > self.shared.limits.memory && self.evict(now, sink) {
            self.shared.counts.relieved += 1;
            self.spare = Vec::new();
        }
    }

    /// One flow leaves: closed and healthy, else closed, else the oldest packed one, else the longest idle of a sample, of frozen ones where
    /// there are any.
    fn evict(&mut self, now: Timestamp, sink: &mut S) -> bool {
        const SAMPLE: usize = 32;
        let places = &self.places;
        let still = |entry: &(u32, PacketRef)| {
            let place = places.get(entry.0 as usize).filter(|place| place.flow.closed());
            place.and_then(|place| place.detail.as_ref()).is_some_and(|detail| detail.id == entry.1)
        };
        while self.closed.front().is_some_and(|entry| !still(entry)) {
            self.closed.pop_front();
        }
        let healthy = |entry: &(u32, PacketRef)| {
            let detail = places.get(entry.0 as usize).and_then(|place| place.detail.as_ref());
            still(entry) && detail.is_some_and(|detail| detail.healthy())
        };
        let first = self.closed.iter().take(SAMPLE).position(healthy);
        let victim = match first.or((!self.closed.is_empty()).then_some(0)) {
            Some(index) => self.closed.remove(index).map(|entry| entry.0),
            None if self.evict_packed(now, sink) || self.evict_frozen(now, sink) => return true,
            None => {
                let places = &self.places;
                let all = places.len().max(1);
                let sample = (0..all).map(|step| (self.hand + step) % all);
                let live = sample.filter(|slot| places.get(*slot).is_some_and(|place| place.detail.is_some()));
                let live = live.take(SAMPLE);
                let last = |slot: &usize| places.get(*slot).and_then(|place| place.flow.last()).map(|last| last.time());
                let victim = live.min_by_key(last);
                self.hand = victim.map_or(0, |place| place + 1);
                victim.map(|place| place as u32)
            }
        };
        let Some(slot) = victim else { return false };
        self.close(slot, Ended::Evicted, now, sink);
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::Ended;
    use crate::flow::limits::Limits;
    use crate::flow::script::{Script, Shot};

    #[test]
    fn a_table_that_weighs_too_much_gives_up_the_flows_that_are_idle_for_longest() {
        let mut script = Script::with(Limits { memory: 20_000, ..Limits::default() });
        for port in 1..=40 {
            script.send(i64::from(port), Shot { port, flags: "S", ..Shot::default() });
        }
        assert!(script.table.memory() <= 20_000, "{}", script.table.memory());
        let left = script.table.len();
        assert!((5..15).contains(&left), "{left}");
        let counts = script.table.counts();
        assert_eq!((counts.relieved as usize, counts.evicted), (40 - left, 0));
        let first: Vec<u16> = script.sink.closed.iter().map(|(facts, _)| facts.client.port).collect();
        assert_eq!(first, (1..=40 - left as u16).collect::<Vec<_>>());
        assert!(script.sink.closed.iter().all(|(_, why)| *why == Ended::Evicted));
    }

    #[test]
    fn octets_behind_holes_weigh_too() {
        let mut script = Script::with(Limits { memory: 20_000, ..Limits::default() });
        for port in 1..=8 {
            script.send(i64::from(port), Shot { port, flags: "S", ..Shot::default() });
            script.send(i64::from(port), Shot { port, seq: 50, payload: &[7; 8000], ..Shot::default() });
        }
        script.send(9, Shot { port: 9, flags: "S", ..Shot::default() });
        assert!(script.table.memory() <= 20_000, "{}", script.table.memory());
        assert!(script.table.counts().relieved > 5);
    }

    #[test]
    fn packed_flows_make_room_as_well_and_all_books_agree_in_the_end() {
        let mut script = Script::with(Limits { memory: 300_000, packed_from: 4, ..Limits::default() });
        for port in 1..=20_000 {
            script.send(i64::from(port), Shot { port, flags: "S", ..Shot::default() });
        }
        assert!(script.table.memory() <= 300_000, "{}", script.table.memory());
        assert!(script.table.len() > 2_000, "{}", script.table.len());
        script.finish();
        assert_eq!((script.sink.closed.len(), script.table.len()), (20_000, 0));
        assert_eq!((script.table.shared.weight, script.table.shared.unanswered), (0, 0));
    }
}
