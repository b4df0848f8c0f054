//! A fixed number of shards by flow hash, each with its own table; threads only decide who turns which shard's crank.
//!
//! The number of shards never depends on the number of threads, so caps, evictions and ticks fall on the same packets and the report is
//! the same for any number of threads.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::crew::Crew;
use super::recorder::{Recorder, Recording};
use crate::decode::{Packet, Pile};
use crate::diagnose::Merged;
use crate::diagnose::spread::both;
use crate::event::{PacketRef, Stamp};
use crate::flow::table::{FlowTable, Lent, Limits, Name};
use crate::rule::digests::Digests;
use crate::rule::summary::Digest;
use crate::time::{Elapsed, Timestamp};
use crate::wire::icmp::IcmpError;

/// Shards, and the most threads there can be: what each keeps (services, the first flows, stories at hand) is multiplied by them, and four
/// threads are as many as one reader can feed.
pub const SHARDS: usize = 4;

/// So many packets before one is worked in, it is looked for where its flow's number is told, and so many before, where its flow is.
const FAR: usize = 16;
const NEAR: usize = 8;

/// Where shorter waits are judged, nothing is put aside: a flow may be for a second.
const SHORT: Elapsed = Elapsed::secs(1);

/// One shard.
pub struct Shard {
    /// One table for each point of capture: the same packet at two points is no copy and no retransmission.
    tables: Vec<FlowTable<Recorder>>,
    /// By input: its point, as far as it is not the first one.
    points: Vec<u16>,
    limits: Limits,
    seed: u64,
    recorder: Recorder,
    /// That of the latest tick.
    second: Option<i64>,
    /// Packets that come next: where they lie, the table, and the flow; empty between batches.
    names: VecDeque<(usize, usize, Name)>,
}

impl Shard {
    pub(super) fn new(recording: &Recording, whole: Limits, seed: u64) -> Self {
        let limits = Limits {
            max_flows: whole.max_flows / SHARDS,
            held_octets_total: whole.held_octets_total / SHARDS,
            memory: whole.memory / SHARDS,
            ..whole
        };
        let gathered_from = if recording.thresholds.hang < SHORT { usize::MAX } else { limits.gathered_from };
        let limits = Limits { gathered_from, ..limits };
        let tables = vec![FlowTable::new(limits.clone(), seed)];
        Self {
            tables,
            points: Vec::new(),
            limits,
            seed,
            recorder: Recorder::new(recording.clone()),
            second: None,
            names: VecDeque::new(),
        }
    }

    fn point(&mut self, file: u16, point: u16) {
        let (file, tables) = (usize::from(file), usize::from(point) + 1);
        if self.points.len() <= file {
            self.points.resize(file + 1, 0);
        }
        self.points[file] = point;
        while self.tables.len() < tables {
            self.tables.push(FlowTable::new(self.limits.clone(), self.seed));
        }
        let share = self.limits.memory / self.tables.len();
        self.tables.iter_mut().for_each(|table| table.allow(share));
    }

    fn place(&self, at: PacketRef) -> usize {
        self.points.get(usize::from(at.file)).copied().map_or(0, usize::from)
    }

    /// Works a batch in. Returns memory for another one, its own as a rule.
    pub(super) fn work(&mut self, batch: Batch) -> Option<Pile> {
        let pile = Arc::new(batch.pile);
        let mut numbers = Vec::new();
        let mut place = 0;
        for (before, item) in batch.items {
            self.packets(&pile, place..before, &mut numbers);
            place = before;
            match item {
                Item::Icmp { at, error } => self.icmp(at, &error),
                Item::Point { file, point } => self.point(file, point),
                Item::Tick(now) => self.tick(now),
            }
        }
        self.packets(&pile, place..pile.len(), &mut numbers);
        for (table, number) in self.tables.iter_mut().zip(numbers) {
            number.into_iter().for_each(|number| table.settle(number));
        }
        let own = Arc::into_inner(pile).map(Pile::emptied);
        own.or_else(|| self.tables.iter_mut().find_map(FlowTable::spare_pile))
    }

    /// Works these packets of a pile in; `numbers` are those that the tables gave it. A pile of few packets, as when one listens to little
    /// traffic, is not worth keeping.
    fn packets(&mut self, pile: &Arc<Pile>, places: Range<usize>, numbers: &mut Vec<Option<u32>>) {
        numbers.resize(self.tables.len(), None);
        if pile.len() < self.limits.gathered_from {
            for packet in places.filter_map(|place| pile.packet(place)) {
                let n = self.place(packet.at);
                self.tables[n].packet(&packet, &mut self.recorder);
            }
            return;
        }
        let mut names = std::mem::take(&mut self.names);
        let (mut ahead, mut near) = (places, 0);
        loop {
            // What these packets need lies anywhere: it is sent for some packets before it is needed.
            while names.len() < FAR
                && let Some(place) = ahead.next()
            {
                let Some(head) = pile.head(place) else { continue };
                let n = self.place(head.at);
                names.push_back((place, n, self.tables[n].approach(&head)));
            }
            while near < NEAR
                && let Some((place, n, name)) = names.get(near)
            {
                pile.head(*place).into_iter().for_each(|head| self.tables[*n].near(&head, name));
                near += 1;
            }
            let Some((place, n, name)) = names.pop_front() else { break };
            near -= 1;
            let (table, number) = (&mut self.tables[n], &mut numbers[n]);
            if let Some(head) = pile.head(place) {
                table.lent(&head, &name, Lent { pile, place, number }, &mut self.recorder);
            }
        }
        self.names = names;
    }

    fn icmp(&mut self, at: PacketRef, error: &IcmpError) {
        let place = self.place(at);
        if !self.tables[place].icmp(at, error, &mut self.recorder) {
            self.recorder.stray(at, error);
        }
    }

    /// Time has come to `now`. Who is due before, in a silence, is looked at as of then: a silence is the same whether nobody sent anything
    /// or the next packet has not come yet.
    fn tick(&mut self, now: Timestamp) {
        while let Some(due) = self.next_due(now) {
            self.step(due);
        }
        self.step(now);
    }

    /// The first moment before `now` at which a flow is due.
    fn next_due(&mut self, now: Timestamp) -> Option<Timestamp> {
        let reached = self.second?.saturating_add(1);
        let waits =
            self.recorder.first_due().map(|second| Timestamp(second.max(reached).saturating_mul(1_000_000_000)));
        let flows = self.tables.iter_mut().filter_map(|table| table.next_due(now));
        flows.chain(waits).min().filter(|due| *due < now)
    }

    fn step(&mut self, now: Timestamp) {
        self.tables.iter_mut().for_each(|table| table.tick(now, &mut self.recorder));
        // Nobody's wait is judged more often than once a second.
        if self.second.replace(now.second()) == Some(now.second()) {
            return;
        }
        let now = Timestamp(now.second().saturating_mul(1_000_000_000));
        self.recorder.tick(now);
        for watched in self.recorder.due(now) {
            let place = self.place(watched.flow);
            let recorder = &mut self.recorder;
            self.tables[place].lend(watched.flow, watched.ends, |facts, head, conversation| {
                recorder.judge_open(&facts, &head, conversation, now);
            });
        }
    }

    /// What it would know if the capture ended now.
    pub(super) fn peek(&mut self, all: bool, now: Timestamp) -> Part {
        self.tables.iter_mut().for_each(|table| table.work_off_all(&mut self.recorder));
        let (mut merged, digests) = self.recorder.peek(&self.tables, all, now);
        merged.tally.evicted = self.tables.iter().map(|table| table.counts().evicted).sum();
        merged.tally.relieved = self.tables.iter().map(|table| table.counts().relieved).sum();
        Part { merged, digests }
    }

    pub(super) fn finish(mut self, now: Timestamp) -> Part {
        let (mut evicted, mut relieved) = (0, 0);
        // Each table's memory goes before the recorder's is copied together.
        for mut table in self.tables {
            table.finish(now, &mut self.recorder);
            evicted += table.counts().evicted;
            relieved += table.counts().relieved;
        }
        let (mut merged, digests) = self.recorder.finish();
        (merged.tally.evicted, merged.tally.relieved) = (evicted, relieved);
        Part { merged, digests }
    }
}

/// What one shard knew in the end.
pub struct Part {
    merged: Merged,
    digests: VecDeque<Digest>,
}

/// Parts of all shards, as they come.
pub type Parts = Receiver<(usize, Part)>;

/// All parts as one, put together by so many threads; what belongs to no flow is still to be added.
pub fn together(mut parts: Vec<(usize, Part)>, threads: usize) -> Merged {
    parts.sort_by_key(|(n, _)| *n);
    let (parts, digests): (Vec<Merged>, Vec<_>) =
        parts.into_iter().map(|(_, part)| (part.merged, part.digests)).unzip();
    let sorted = move || {
        let mut all = Vec::new();
        all.reserve_exact(digests.iter().map(VecDeque::len).sum());
        digests.into_iter().for_each(|digests| all.extend(digests));
        Digests::of(all)
    };
    let merge = || {
        let mut merged = Merged::default();
        parts.into_iter().for_each(|part| merged.merge(part));
        merged
    };
    let (merged, digests) = both(threads, merge, sorted);
    Merged { digests, ..merged }
}

/// All shards: in this thread, or shared with others; and what waits for them.
pub struct Shards {
    /// For each shard, being filled.
    batches: Vec<Batch>,
    hands: Hands,
}

enum Hands {
    /// The plain loop, the oracle of the other.
    Here(Vec<Shard>),
    /// Shared with other threads.
    Crew(Crew),
}

/// Packets of one shard in capture order, and what happens between them.
#[derive(Default)]
pub(super) struct Batch {
    pile: Pile,
    /// Each before the packet of that place.
    items: Vec<(usize, Item)>,
}

enum Item {
    Icmp { at: PacketRef, error: IcmpError },
    Point { file: u16, point: u16 },
    Tick(Timestamp),
}

/// A batch of so many items is handed over, however few packets are between them.
const ITEMS: usize = 64;

impl Shards {
    /// `threads` ≤ 1 works in the calling thread. `limits` are those of all shards together.
    pub fn new(threads: usize, recording: &Recording, limits: &Limits) -> Self {
        let seed = seed();
        let shards = (0..SHARDS).map(|_| Shard::new(recording, limits.clone(), seed));
        let hands = match threads.min(SHARDS) {
            0 | 1 => Hands::Here(shards.collect()),
            threads => Hands::Crew(Crew::new(threads, shards)),
        };
        Self { batches: (0..SHARDS).map(|_| Batch::default()).collect(), hands }
    }

    /// Hands a packet to its shard; `at` is its own.
    #[inline]
    pub(super) fn packet(&mut self, shard: usize, packet: &Packet<'_>, at: Stamp) {
        let shard = shard % SHARDS;
        let pile = &mut self.batches[shard].pile;
        pile.push_at(packet, at);
        if pile.is_full() {
            self.hand_over(shard);
        }
    }

    /// Hands an ICMP error to the shard of the flow it quotes.
    pub fn icmp(&mut self, shard: usize, at: PacketRef, error: &IcmpError) {
        self.push(shard % SHARDS, Item::Icmp { at, error: *error });
    }

    /// Input `file` was recorded at `point`.
    pub fn point(&mut self, file: u16, point: u16) {
        (0..SHARDS).for_each(|shard| self.push(shard, Item::Point { file, point }));
    }

    /// Capture time has come to `now`, the beginning of an eighth of a second.
    pub fn tick(&mut self, now: Timestamp) {
        (0..SHARDS).for_each(|shard| self.push(shard, Item::Tick(now)));
    }

    fn push(&mut self, shard: usize, item: Item) {
        let batch = &mut self.batches[shard];
        batch.items.push((batch.pile.len(), item));
        if batch.items.len() >= ITEMS {
            self.hand_over(shard);
        }
    }

    #[cold]
    #[inline(never)]
    fn hand_over(&mut self, shard: usize) {
        let batch = std::mem::take(&mut self.batches[shard]);
        self.batches[shard].pile = match &mut self.hands {
            Hands::Here(shards) => shards[shard].work(batch),
            Hands::Crew(crew) => crew.hand_over(shard, batch),
        }
        .unwrap_or_default();
    }

    /// Hands over what waits for a batch to be full.
    pub fn flush(&mut self) {
        for shard in 0..SHARDS {
            if !self.batches[shard].pile.is_empty() || !self.batches[shard].items.is_empty() {
                self.hand_over(shard);
            }
        }
    }

    /// The capture is over.
    pub fn finish(mut self, now: Timestamp) -> Merged {
        self.flush();
        match self.hands {
            Hands::Here(shards) => together(shards.into_iter().map(|shard| shard.finish(now)).enumerate().collect(), 1),
            Hands::Crew(crew) => {
                let threads = crew.threads();
                together(crew.finish(now), threads)
            }
        }
    }

    /// What would be known if the capture ended now; `all` as in [`Recorder::peek`]. Shared ones answer when they have come so far; the channel
    /// ends with the last part.
    pub fn peek(&mut self, all: bool, now: Timestamp) -> Parts {
        self.flush();
        let (told, parts) = bounded(SHARDS);
        match &mut self.hands {
            Hands::Here(shards) => {
                let answers = shards.iter_mut().map(|shard| shard.peek(all, now)).enumerate();
                // There is room for all of them, and somebody listens.
                answers.for_each(|answer| drop(told.send(answer)));
            }
            Hands::Crew(crew) => crew.peek(all, now, &told),
        }
        parts
    }
}

/// Captures are chosen by attackers, so the tables' hash must not be known beforehand; no result depends on it.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Flags, Ip, Link, Segment, Transport};
    use crate::rule::threshold::Thresholds;
    use crate::wire::Address;
    use crate::wire::seq::Seq;

    #[test]
    fn the_memory_of_a_batch_comes_back_when_nobody_needs_its_packets() {
        let syn = |number: u64| {
            let [source, destination] = [Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2])];
            let ip = Ip { source, destination, ttl: 64, id: None, len: 40, reassembled: false, tunnelled: false };
            let segment = Segment {
                source_port: 1024 + number as u16,
                destination_port: 80,
                seq: Seq(7),
                ack: Seq(0),
                flags: Flags::SYN,
                window: 1,
                options: &[],
                payload: &[],
                payload_len: 0,
                checksum: 0,
            };
            let at = PacketRef { file: 0, number, time: Timestamp(number as i64) };
            let transport = Transport::Tcp(segment);
            Packet { at, interface: 0, link: Link::default(), ip: Some(ip), transport, cut: false }
        };
        let batch = |number| {
            let mut batch = Batch::default();
            assert!(batch.pile.push(&syn(number)));
            batch
        };
        let limits = |gathered_from| Limits { gathered_from, ..Limits::default() };
        let recording = Recording { thresholds: Thresholds::default(), all_flows: false, keep: None, progress: None };
        let mut plain = Shard::new(&recording, limits(usize::MAX), 7);
        let memory = plain.work(batch(1)).expect("the packet was worked in");
        assert!(memory.is_empty());
        let mut shard = Shard::new(&recording, limits(0), 7);
        assert!(shard.work(batch(1)).is_none(), "the packet waits in its pile");
        let mut quiet = Batch::default();
        quiet.items.push((0, Item::Tick(Timestamp(0))));
        quiet.items.push((0, Item::Tick(Timestamp(5_000_000_000))));
        let two = [shard.work(quiet).is_some(), shard.tables[0].spare_pile().is_some()];
        assert_eq!(two, [true, true], "after a second nobody needs it");
        assert!(shard.tables[0].spare_pile().is_none());
    }
}
