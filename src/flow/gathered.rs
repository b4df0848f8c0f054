//! Packets of flows that have just begun, put aside: such a flow is worked in at once when it is over, or has gone on for a while.
//!
//! Most flows of a busy capture are short, and thousands of them are under way at a time: worked in packet by packet, each packet waits for its
//! flow's memory, which lies outside the near caches (more than half of the whole time, docs/performance.md). Put aside, a packet is
//! only written, and when its flow is worked in, all of it lies near.

use hashbrown::HashTable;

use super::key::Key;
use super::wheel::step_for;
use crate::decode::{Flags, Kept, Packet, Transport};
use crate::event::PacketRef;
use crate::time::Elapsed;

/// A flow is put aside for so many steps at most: a second, because nobody's wait is judged and no hole is looked at before.
const STEPS: i64 = 8;
/// Slots of the ring: more than steps anybody waits for.
const RING: i64 = 16;
/// Packets and octets of one flow: what goes on longer is no short flow.
const PACKETS: usize = 64;
const OCTETS: usize = 32 << 10;
/// Flows and octets of all.
const MOST: usize = 4096;
const ALL: usize = 8 << 20;
/// Room for packets and octets that stays with an empty place.
const ROOM: (usize, usize) = (32, 16 << 10);

/// The packets of one flow; none of them: the place is free.
struct Entry {
    key: Option<Key>,
    packets: Vec<Kept>,
    octets: Vec<u8>,
    id: PacketRef,
    /// The step at which it is worked in.
    due: i64,
}

/// All flows of a table that are put aside.
pub(super) struct Gathered {
    seed: u64,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    ring: Vec<Vec<u32>>,
    /// Up to here the ring was looked at.
    now: i64,
    /// What the packets take.
    takes: usize,
    len: usize,
}

/// How long an ended flow, and an answered DNS query, stay in the table.
#[derive(Clone, Copy)]
pub(super) struct Lingers {
    pub(super) settled: Elapsed,
    pub(super) answered: Elapsed,
}

impl Gathered {
    /// None yet.
    pub(super) fn new(seed: u64) -> Self {
        let ring = (0..RING).map(|_| Vec::new()).collect();
        let (index, entries, free) = (HashTable::new(), Vec::new(), Vec::new());
        Self { seed, index, entries, free, ring, now: i64::MIN, takes: 0, len: 0 }
    }

    /// Flows put aside.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Octets they take, about.
    pub(super) fn memory(&self) -> usize {
        self.takes + self.len * size_of::<Entry>()
    }

    /// The number of the flow of this name.
    #[inline]
    pub(super) fn find(&self, key: &Key, hash: u64) -> Option<u32> {
        let same = |number: &u32| self.entries.get(*number as usize).is_some_and(|entry| entry.key == Some(*key));
        self.index.find(hash, same).copied()
    }

    /// Whether there is room for one more.
    pub(super) fn room(&self) -> bool {
        self.len < MOST && self.takes < ALL
    }

    /// Begins a flow with its first packet; the table stands at step `now`.
    pub(super) fn begin(&mut self, key: Key, hash: u64, now: i64, packet: &Packet<'_>, lingers: Lingers) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::new(packet.at));
            self.entries.len() as u32 - 1
        });
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        (entry.key, entry.id, entry.due) = (Some(key), packet.at, i64::MAX);
        self.now = self.now.max(now);
        self.len += 1;
        let (entries, seed) = (&self.entries, self.seed);
        let rehash = |number: &u32| {
            entries.get(*number as usize).and_then(|entry| entry.key).map_or(0, |key| key.hash(seed))
        };
        self.index.insert_unique(hash, number, rehash);
        self.plan(number, now.saturating_add(STEPS));
        self.add(number, packet, lingers);
    }

    /// Whether the flow holds all that one may.
    pub(super) fn full(&self, number: u32) -> bool {
        let entry = self.entries.get(number as usize);
        entry.is_none_or(|entry| entry.packets.len() >= PACKETS || entry.octets.len() >= OCTETS) || self.takes >= ALL
    }

    /// Puts one more packet aside.
    #[inline]
    pub(super) fn add(&mut self, number: u32, packet: &Packet<'_>, lingers: Lingers) {
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        let before = entry.octets.len();
        let Some(kept) = Kept::of(packet, &mut entry.octets) else { return };
        self.takes += entry.octets.len() - before + size_of::<Kept>();
        entry.packets.push(kept);
        // Never later than it may leave the table: its latest packet is not older. What still comes is worked in at once.
        let linger = match &packet.transport {
            Transport::Tcp(segment) if segment.flags.has(Flags::FIN) || segment.flags.has(Flags::RST) => lingers.settled,
            Transport::Udp(_) => lingers.answered,
            _ => return,
        };
        self.plan(number, step_for(packet.at.time + linger, linger));
    }

    /// Plans when the flow is worked in, unless that is planned for earlier; what was planned before is stale then.
    fn plan(&mut self, number: u32, step: i64) {
        let step = step.clamp(self.now.saturating_add(1), self.now.saturating_add(RING - 1));
        let Some(entry) = self.entries.get_mut(number as usize).filter(|entry| step < entry.due) else { return };
        entry.due = step;
        if let Some(slot) = self.ring.get_mut(step.rem_euclid(RING) as usize) {
            slot.push(number);
        }
    }

    /// The first step after the latest one, and before `end`, at which somebody may be due.
    pub(super) fn next_due(&self, end: i64) -> Option<i64> {
        if self.len == 0 {
            return None;
        }
        let mut steps = self.now.saturating_add(1)..end.min(self.now.saturating_add(RING));
        steps.find(|step| self.ring.get(step.rem_euclid(RING) as usize).is_some_and(|slot| !slot.is_empty()))
    }

    /// Time has come to `step`: whose packets are to be worked in goes to `ripe`.
    pub(super) fn advance(&mut self, step: i64, ripe: &mut Vec<(PacketRef, u32)>) {
        let before = self.now;
        self.now = self.now.max(step);
        if before == i64::MIN {
            return;
        }
        for step in (1..=step.saturating_sub(before).min(RING)).map(|ahead| before.saturating_add(ahead)) {
            let Some(slot) = self.ring.get_mut(step.rem_euclid(RING) as usize) else { continue };
            for number in slot.drain(..) {
                let entry = self.entries.get(number as usize);
                if let Some(entry) = entry.filter(|entry| !entry.packets.is_empty() && entry.due == step) {
                    ripe.push((entry.id, number));
                }
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (PacketRef, u32)> {
        let some = (0..).zip(&self.entries).filter(|(_, entry)| !entry.packets.is_empty());
        some.map(|(number, entry)| (entry.id, number))
    }

    /// Takes a flow's packets out, with the octets they lie in, and its name.
    pub(super) fn take(&mut self, number: u32) -> Option<(Key, Vec<Kept>, Vec<u8>)> {
        let entry = self.entries.get_mut(number as usize)?;
        let key = entry.key.take()?;
        let (packets, octets) = (std::mem::take(&mut entry.packets), std::mem::take(&mut entry.octets));
        if let Ok(found) = self.index.find_entry(key.hash(self.seed), |other| *other == number) {
            found.remove();
        }
        self.takes -= octets.len() + packets.len() * size_of::<Kept>();
        self.len -= 1;
        Some((key, packets, octets))
    }

    /// Gives the memory of a flow back that was taken out.
    pub(super) fn give_back(&mut self, number: u32, mut packets: Vec<Kept>, mut octets: Vec<u8>) {
        packets.clear();
        octets.clear();
        packets.shrink_to(ROOM.0);
        octets.shrink_to(ROOM.1);
        if let Some(entry) = self.entries.get_mut(number as usize) {
            (entry.packets, entry.octets) = (packets, octets);
        }
        self.free.push(number);
    }
}

impl Entry {
    fn new(id: PacketRef) -> Self {
        Self { key: None, packets: Vec::new(), octets: Vec::new(), id, due: i64::MAX }
    }
}

const _: () = assert!(STEPS < RING);
