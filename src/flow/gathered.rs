//! Packets of flows that have just begun, put aside: such a flow is worked in at once when it is over, or has gone on for a while.
//!
//! Most flows of a busy capture are short, and thousands of them are under way at a time: worked in packet by packet, each packet waits for its
//! flow's memory, which lies outside the near caches (more than half of the whole time, docs/performance.md). Put aside, a packet stays in the
//! pile it came with, and when its flow is worked in, all of it lies near.

use std::sync::Arc;

use hashbrown::HashTable;
use prefetch_index::prefetch_index;

use super::Distance;
use super::key::{Key, Name, Way};
use super::wheel::step_for;
use crate::decode::{Flags, Head, Packet, Pile, kept};
use crate::event::PacketRef;
use crate::time::Elapsed;
use crate::wire::Endpoint;

/// A flow is put aside for so many steps at most: a second, because nobody's wait is judged and no hole is looked at before.
const STEPS: i64 = 8;
/// Slots of the ring: more than steps anybody waits for.
const RING: i64 = 16;
/// Packets and octets of one flow: what goes on longer is no short flow.
const PACKETS: usize = 64;
const OCTETS: u32 = 32 << 10;
/// Flows of a table, and piles: one packet that is still needed keeps all of a pile.
const MOST: usize = 4096;
/// Flows that are found at the first look, most of them.
const LIKELY: usize = 4096;
const PILES: usize = 96;

/// The packets of one flow; none of them: the place is free.
struct Entry {
    key: Option<Key>,
    /// Who sent the first packet.
    client: Way,
    packets: Vec<Place>,
    octets: u32,
    id: PacketRef,
    /// The step at which it is worked in.
    due: i64,
}

/// Where a packet lies, and its way: the number of its pile, eight bits of place in it, and the way in the last bit.
#[derive(Clone, Copy)]
struct Place(u32);

impl Place {
    fn new(pile: u32, place: usize, way: Way) -> Self {
        Self(pile << 9 | (place as u32 & 0xff) << 1 | way as u32)
    }

    fn pile(self) -> usize {
        (self.0 >> 9) as usize
    }

    fn place(self) -> usize {
        (self.0 >> 1 & 0xff) as usize
    }

    fn way(self) -> Way {
        if self.0 & 1 == 0 { Way::Low } else { Way::High }
    }
}

const _: () = assert!(kept::PACKETS <= 1 << 8);

/// A packet in the pile it came with; the table keeps the pile as long as it needs a packet of it.
pub struct Lent<'p> {
    /// The pile.
    pub pile: &'p Arc<Pile>,
    /// Where in it the packet lies.
    pub place: usize,
    /// The number the table gave the pile when it first needed a packet of it. To be given back with [`FlowTable::settle`].
    ///
    /// [`FlowTable::settle`]: super::table::FlowTable::settle
    pub number: &'p mut Option<u32>,
}

/// Piles of which somebody needs a packet, by number.
#[derive(Default)]
pub(super) struct Heap {
    piles: Vec<Held>,
    free: Vec<u32>,
    /// The memory of those that nobody needs any more.
    spare: Vec<Pile>,
}

#[derive(Default)]
struct Held {
    pile: Option<Arc<Pile>>,
    /// Packets that somebody needs.
    needed: u32,
    /// More of its packets are coming.
    coming: bool,
}

impl Heap {
    /// Keeps a packet of `way`, if there is room for its pile.
    #[inline]
    fn need(&mut self, lent: Lent<'_>, way: Way) -> Option<Place> {
        if lent.number.is_none() {
            *lent.number = self.hold(lent.pile);
        }
        let number = (*lent.number)?;
        self.piles.get_mut(number as usize)?.needed += 1;
        Some(Place::new(number, lent.place, way))
    }

    #[cold]
    #[inline(never)]
    fn hold(&mut self, pile: &Arc<Pile>) -> Option<u32> {
        if self.free.is_empty() && self.piles.len() < PILES {
            self.piles.push(Held::default());
            self.free.push(self.piles.len() as u32 - 1);
        }
        let number = self.free.pop()?;
        *self.piles.get_mut(number as usize)? = Held { pile: Some(pile.clone()), needed: 0, coming: true };
        Some(number)
    }

    /// No more packets of it are coming.
    fn settle(&mut self, number: u32) {
        if let Some(held) = self.piles.get_mut(number as usize) {
            held.coming = false;
            self.tidy(number as usize);
        }
    }

    fn pile(&self, place: Place) -> Option<&Pile> {
        self.piles.get(place.pile())?.pile.as_deref()
    }

    /// Sends for what these packets say, so that it comes from memory while others are worked in.
    fn fetch(&self, places: &[Place]) {
        for place in places {
            self.pile(*place).into_iter().for_each(|pile| pile.fetch(place.place()));
        }
    }

    /// Sends for the octets of a packet. What it says should be at hand.
    #[inline]
    fn fetch_octets(&self, place: Place) {
        self.pile(place).into_iter().for_each(|pile| pile.fetch_octets(place.place()));
    }

    /// Nobody needs the packet that lies there.
    fn release(&mut self, place: Place) {
        let Some(held) = self.piles.get_mut(place.pile()) else { return };
        held.needed = held.needed.saturating_sub(1);
        if held.needed == 0 {
            self.tidy(place.pile());
        }
    }

    /// Piles that are held, and memory of others.
    fn piles(&self) -> usize {
        self.piles.len() - self.free.len() + self.spare.len()
    }

    fn tidy(&mut self, number: usize) {
        if let Some(held) = self.piles.get_mut(number).filter(|held| held.needed == 0 && !held.coming) {
            // Whoever lends it may have it still.
            self.spare.extend(held.pile.take().and_then(Arc::into_inner).map(Pile::emptied));
            self.free.push(number as u32);
        }
    }
}

/// The flow that is worked in next.
#[derive(Default)]
struct Coming {
    number: Option<u32>,
    packets: Vec<Place>,
}

/// The packets of a flow that was taken out.
pub(super) struct Taken {
    number: u32,
    packets: Vec<Place>,
    heap: Heap,
    /// Somebody sent for its packets already.
    sent_for: bool,
    coming: Coming,
}

impl Taken {
    /// Shows them in the order they came, each with its way. With each of them one of the next flow is sent for: all at once they would keep
    /// what this one needs from being read.
    #[inline(always)]
    pub(super) fn each(&self, mut show: impl FnMut(Way, &Packet<'_>)) {
        if !self.sent_for {
            self.heap.fetch(&self.packets);
            self.packets.iter().for_each(|place| self.heap.fetch_octets(*place));
        }
        let mut coming = self.coming.packets.iter();
        for place in &self.packets {
            coming.next().into_iter().for_each(|place| self.heap.fetch_octets(*place));
            if let Some(packet) = self.heap.pile(*place).and_then(|pile| pile.packet(place.place())) {
                show(place.way(), &packet);
            }
        }
        coming.for_each(|place| self.heap.fetch_octets(*place));
    }
}

/// All flows of a table that are put aside.
pub(super) struct Gathered {
    /// Their packets.
    heap: Heap,
    /// Piles of memory that takes, also while it is [`Taken`].
    piles: usize,
    seed: u64,
    index: HashTable<u32>,
    /// By hash, the flow that was begun last of those that have it.
    likely: Box<[u32; LIKELY]>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    ring: Vec<Vec<u32>>,
    /// Up to here the ring was looked at.
    now: i64,
    len: usize,
    /// Of which flow the packets were sent for, and whose are next.
    sent_for: Option<u32>,
    coming: Coming,
}

/// Where the number of a flow with this hash is told.
#[inline]
fn likely(hash: u64) -> usize {
    (hash >> (u64::BITS - LIKELY.ilog2())) as usize
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
        Self {
            heap: Heap::default(),
            piles: 0,
            seed,
            index: HashTable::new(),
            likely: Box::new([0; LIKELY]),
            entries: Vec::new(),
            free: Vec::new(),
            ring,
            now: i64::MIN,
            len: 0,
            sent_for: None,
            coming: Coming::default(),
        }
    }

    /// Flows put aside.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Octets they take, about.
    pub(super) fn memory(&self) -> usize {
        self.piles * Pile::WEIGHT + self.entries.len() * size_of::<Entry>()
    }

    /// Gives memory back that nobody needs.
    pub(super) fn give_up(&mut self) {
        self.piles -= self.heap.spare.len();
        self.heap.spare = Vec::new();
    }

    /// No more packets come of the pile that has this number; nobody may need it.
    pub(super) fn settle(&mut self, number: u32) {
        self.heap.settle(number);
        self.piles = self.heap.piles();
    }

    /// The memory of a pile that nobody needs any more.
    pub(super) fn spare(&mut self) -> Option<Pile> {
        let spare = self.heap.spare.pop();
        self.piles = self.heap.piles();
        spare
    }

    /// Sends for where the number of a flow is told.
    #[inline]
    pub(super) fn approach_slot(&self, hash: u64) {
        prefetch_index(self.likely.as_slice(), likely(hash));
    }

    /// Sends for the flow that is told there.
    #[inline]
    pub(super) fn approach_entry(&self, hash: u64) {
        self.fetch_entry(self.likely[likely(hash)]);
    }

    #[inline]
    fn fetch_entry(&self, number: u32) {
        prefetch_index(&self.entries, number as usize);
        // It may reach into the line where the next one begins.
        prefetch_index(&self.entries, number as usize + 1);
    }

    /// The number of the flow of this name.
    #[inline]
    pub(super) fn find(&self, key: &Key, hash: u64) -> Option<u32> {
        let number = self.likely[likely(hash)];
        let likely = self.entries.get(number as usize);
        if likely.is_some_and(|entry| entry.key.as_ref() == Some(key)) { Some(number) } else { self.search(key, hash) }
    }

    fn search(&self, key: &Key, hash: u64) -> Option<u32> {
        let same =
            |number: &u32| self.entries.get(*number as usize).is_some_and(|entry| entry.key.as_ref() == Some(key));
        self.index.find(hash, same).copied()
    }

    /// Whether there is room for one more.
    pub(super) fn room(&self) -> bool {
        self.len < MOST
    }

    /// Begins a flow, of which this is the first packet, and which holds nothing yet; the table stands at step `now`. Returns its number.
    pub(super) fn begin(&mut self, &Name { key, hash, way }: &Name, now: i64, at: PacketRef) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::new(at));
            self.entries.len() as u32 - 1
        });
        let Some(entry) = self.entries.get_mut(number as usize) else { return number };
        (entry.key, entry.client, entry.id, entry.due) = (Some(key), way, at, i64::MAX);
        if self.len == 0 {
            self.now = self.now.max(now);
        }
        self.len += 1;
        let (entries, seed) = (&self.entries, self.seed);
        let rehash =
            |number: &u32| entries.get(*number as usize).and_then(|entry| entry.key).map_or(0, |key| key.hash(seed));
        self.index.insert_unique(hash, number, rehash);
        self.likely[likely(hash)] = number;
        self.plan(number, now.saturating_add(STEPS));
        number
    }

    /// Puts one more packet aside. `false`: it cannot be, or the flow holds all that one may.
    #[inline]
    pub(super) fn add(&mut self, number: u32, way: Way, head: &Head, lent: Lent<'_>, lingers: Lingers) -> bool {
        let Some(entry) = self.entries.get_mut(number as usize) else { return false };
        if entry.packets.len() >= PACKETS || entry.octets >= OCTETS {
            return false;
        }
        let Some(place) = self.heap.need(lent, way) else { return false };
        self.piles = self.heap.piles();
        entry.packets.push(place);
        entry.octets += head.octets;
        // Never later than it may leave the table: its latest packet is not older. What still comes is worked in at once.
        let linger = if head.udp {
            lingers.answered
        } else if head.flags.has(Flags::FIN) || head.flags.has(Flags::RST) {
            lingers.settled
        } else {
            return true;
        };
        self.plan(number, step_for(head.at.time + linger, linger));
        true
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

    /// These flows are worked in behind the one at hand, so what they need is sent for: of the first one its octets, of the second what its
    /// packets say, which tells where octets lie, and so on.
    pub(super) fn approach(
        &mut self,
        [first, second, third, fourth]: [Option<u32>; 4],
        mut server: impl FnMut(Endpoint, Distance),
    ) {
        let packets = |number: Option<u32>| {
            number.and_then(|number| self.entries.get(number as usize)).map_or(&[][..], |entry| &entry.packets)
        };
        fourth.into_iter().for_each(|number| self.fetch_entry(number));
        prefetch_index(packets(third), 0);
        for (number, distance) in [(third, Distance::Far), (second, Distance::Near), (first, Distance::Next)] {
            let entry = number.and_then(|number| self.entries.get(number as usize));
            let end = entry.and_then(|entry| Some(entry.key?.end(entry.client.other())));
            end.into_iter().for_each(|end| server(end, distance));
        }
        self.heap.fetch(packets(second));
        self.coming.packets.clear();
        self.coming.packets.extend_from_slice(packets(first));
        self.sent_for = std::mem::replace(&mut self.coming.number, first);
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (PacketRef, u32)> {
        let some = (0..).zip(&self.entries).filter(|(_, entry)| !entry.packets.is_empty());
        some.map(|(number, entry)| (entry.id, number))
    }

    /// Takes a flow out: its name and its packets, which are to be given back.
    pub(super) fn take(&mut self, number: u32) -> Option<(Key, Taken)> {
        let entry = self.entries.get_mut(number as usize)?;
        let key = entry.key.take()?;
        let packets = std::mem::take(&mut entry.packets);
        if let Ok(found) = self.index.find_entry(key.hash(self.seed), |other| *other == number) {
            found.remove();
        }
        entry.octets = 0;
        self.len -= 1;
        let (heap, coming) = (std::mem::take(&mut self.heap), std::mem::take(&mut self.coming));
        // Once: another flow may have the number later.
        let sent_for = self.sent_for.take() == Some(number);
        Some((key, Taken { number, packets, heap, sent_for, coming }))
    }

    /// Gives back what was taken out: nobody needs it.
    pub(super) fn give_back(&mut self, taken: Taken) {
        let Taken { number, mut packets, heap, coming, .. } = taken;
        (self.heap, self.coming) = (heap, coming);
        for place in packets.drain(..) {
            self.heap.release(place);
        }
        self.piles = self.heap.piles();
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.packets = packets;
        }
        self.free.push(number);
    }
}

impl Entry {
    fn new(id: PacketRef) -> Self {
        Self { key: None, client: Way::Low, packets: Vec::new(), octets: 0, id, due: i64::MAX }
    }
}

const _: () = assert!(STEPS < RING);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::facts::IpProtocol;
    use crate::time::Timestamp;
    use crate::wire::{Address, Endpoint};

    #[test]
    fn there_is_room_for_so_many_flows_and_again_when_one_is_gone() {
        let mut gathered = Gathered::new(7);
        let pile = Arc::new(Pile::default());
        let mut last = 0;
        for n in 0..MOST as u32 {
            assert!(gathered.room());
            let at = PacketRef { file: 0, number: u64::from(n) + 1, time: Timestamp(0) };
            let end = |address, port| Endpoint::new(Address::v4(address), port);
            let [source, destination] = [end(n.to_be_bytes(), 4000), end([10, 0, 0, 1], 80)];
            let (key, way) = Key::of(source, destination, IpProtocol::Tcp);
            last = gathered.begin(&Name { key, hash: key.hash(7), way }, 0, at);
            let head = Head { at, source, destination, udp: false, flags: Flags::SYN, octets: 0 };
            let lingers = Lingers { settled: Elapsed::ZERO, answered: Elapsed::ZERO };
            // A pile for every 64 of them; they share it, as far as this test goes.
            let mut number = (n % 64 > 0).then_some(n / 64);
            let lent = Lent { pile: &pile, place: n as usize % 64, number: &mut number };
            assert!(gathered.add(last, way, &head, lent, lingers));
            if n % 64 == 63 {
                gathered.settle(n / 64);
            }
        }
        assert!(!gathered.room());
        let full = gathered.memory();
        assert_eq!(gathered.piles, MOST / 64);
        let (_, taken) = gathered.take(last).expect("the last one");
        gathered.give_back(taken);
        assert!(gathered.room() && gathered.memory() == full, "others need the pile");
        for number in (0..MOST as u32).filter(|number| *number != last) {
            let (_, taken) = gathered.take(number).expect("each of them");
            gathered.give_back(taken);
        }
        assert_eq!((gathered.len(), gathered.piles), (0, 0), "whoever lent the piles has them");
    }
}
