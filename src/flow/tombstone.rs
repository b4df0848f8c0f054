//! Flows that were reported, remembered for a while: their late packets must not look like new flows.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::key::{Key, Way};
use super::limits::index_octets;
use crate::decode::{Flags, Segment};
use crate::event::PacketRef;
use crate::time::Timestamp;
use crate::wire::seq::Seq;

/// One reported flow.
pub(super) struct Tombstone {
    pub(super) key: Key,
    pub(super) id: PacketRef,
    pub(super) until: Timestamp,
    /// Final sequence numbers, low end first; `None` where the side was never seen.
    pub(super) next: [Option<Seq>; 2],
}

/// What a segment without a flow finds.
pub(super) enum Met {
    /// Nothing is known of its ends.
    Nobody,
    /// It belongs to a flow that was reported.
    Late,
    /// It begins something new on the ports of that flow.
    Successor(PacketRef),
}

/// The reported flows, oldest burial first.
pub(super) struct Tombstones {
    seed: u64,
    limit: usize,
    stones: HashTable<Tombstone>,
    order: VecDeque<(u64, Timestamp)>,
    /// Most of them at one time.
    most: usize,
}

impl Tombstones {
    /// None yet, at most `limit`.
    pub(super) fn new(seed: u64, limit: usize) -> Self {
        Self { seed, limit, stones: HashTable::new(), order: VecDeque::new(), most: 0 }
    }

    /// Adds one; the oldest makes room.
    pub(super) fn bury(&mut self, hash: u64, stone: Tombstone) {
        if self.order.len() >= self.limit {
            self.forget_oldest();
        }
        self.order.push_back((hash, stone.until));
        let seed = self.seed;
        self.stones.insert_unique(hash, stone, |stone| stone.key.hash(seed));
        self.most = self.most.max(self.stones.len());
    }

    /// What a segment that no flow claims belongs to. A SYN, or payload beyond the end of its side, begins something new.
    pub(super) fn meet(&mut self, hash: u64, key: &Key, way: Way, now: Timestamp, segment: &Segment<'_>) -> Met {
        let Ok(entry) = self.stones.find_entry(hash, |stone| stone.key == *key) else { return Met::Nobody };
        let stone = entry.get();
        let end = stone.next.get(way as usize).copied().flatten();
        let beyond = segment.payload_len > 0 && end.is_none_or(|end| !end.after(segment.seq));
        let bare_syn = segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK);
        if stone.until > now && !bare_syn && !beyond {
            return Met::Late;
        }
        let id = stone.id;
        entry.remove();
        Met::Successor(id)
    }

    /// Octets they take.
    pub(super) fn memory(&self) -> usize {
        index_octets(self.most, size_of::<Tombstone>()) + self.order.capacity() * size_of::<(u64, Timestamp)>()
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.forget_oldest();
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.stones.clear();
        self.order.clear();
    }

    fn forget_oldest(&mut self) {
        let seed = self.seed;
        if let Some((hash, until)) = self.order.pop_front()
            && let Ok(entry) =
                self.stones.find_entry(hash, |stone| stone.until == until && stone.key.hash(seed) == hash)
        {
            entry.remove();
        }
    }
}
