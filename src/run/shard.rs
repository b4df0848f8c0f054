//! A fixed number of shards by flow hash, each with its own table; workers only decide who turns which shard's crank.
//!
//! The number of shards never depends on the number of workers, so caps, evictions and ticks fall on the same packets and the report is
//! the same for any number of threads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::recorder::{Recorder, Recording};
use crate::decode::{Kept, Packet};
use crate::diagnose::Merged;
use crate::event::PacketRef;
use crate::flow::table::{FlowTable, Limits};
use crate::rule::summary::Digest;
use crate::time::{Elapsed, Timestamp};
use crate::wire::icmp::IcmpError;

/// Shards, and the most workers there can be: what each keeps (services, the first flows, stories at hand) is multiplied by them, and four
/// workers are as many as one reader can feed.
pub const SHARDS: usize = 4;

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
}

impl Shard {
    fn new(recording: &Recording, whole: Limits, seed: u64) -> Self {
        let limits = Limits {
            max_flows: whole.max_flows / SHARDS,
            held_octets_total: whole.held_octets_total / SHARDS,
            memory: whole.memory / SHARDS,
            ..whole
        };
        let gathered_from = if recording.thresholds.hang < SHORT { usize::MAX } else { limits.gathered_from };
        let limits = Limits { gathered_from, ..limits };
        let tables = vec![FlowTable::new(limits.clone(), seed)];
        Self { tables, points: Vec::new(), limits, seed, recorder: Recorder::new(recording.clone()), second: None }
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

    #[inline]
    fn packet(&mut self, packet: &Packet<'_>) {
        let place = self.place(packet.at);
        self.tables[place].packet(packet, &mut self.recorder);
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
    fn peek(&mut self, all: bool, now: Timestamp) -> Part {
        self.tables.iter_mut().for_each(|table| table.work_off_all(&mut self.recorder));
        let (mut merged, digests) = self.recorder.peek(&self.tables, all, now);
        merged.tally.evicted = self.tables.iter().map(|table| table.counts().evicted).sum();
        merged.tally.relieved = self.tables.iter().map(|table| table.counts().relieved).sum();
        Part { merged, digests }
    }

    fn finish(mut self, now: Timestamp) -> Part {
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

/// All parts as one; what belongs to no flow is still to be added.
pub fn together(mut parts: Vec<(usize, Part)>) -> Merged {
    parts.sort_by_key(|(n, _)| *n);
    let mut merged = Merged::default();
    let mut digests: Vec<VecDeque<Digest>> = Vec::with_capacity(SHARDS);
    for (_, part) in parts {
        merged.merge(part.merged);
        digests.push(part.digests);
    }
    merged.digests = in_order(&digests);
    merged
}

/// All shards: in this thread, or spread over workers.
pub enum Shards {
    /// The plain loop, the oracle of the other.
    Here(Vec<Shard>),
    /// Batches to worker threads.
    Workers(Workers),
}

impl Shards {
    /// `threads` ≤ 1 works in the calling thread. `limits` are those of all shards together.
    pub fn new(threads: usize, recording: &Recording, limits: &Limits) -> Self {
        let seed = seed();
        let shards = (0..SHARDS).map(|_| Shard::new(recording, limits.clone(), seed));
        if threads <= 1 {
            return Self::Here(shards.collect());
        }
        let threads = threads.min(SHARDS);
        let mut hands: Vec<Vec<(usize, Shard)>> = (0..threads).map(|_| Vec::new()).collect();
        for (n, shard) in shards.enumerate() {
            hands[n % threads].push((n, shard));
        }
        // There are no more batches than are under way, so this is bounded by the others.
        let (done, spare) = unbounded();
        let start = |own| {
            // Eight batches of slack: the reader is never more than a few megabytes ahead.
            let (batches, receiver) = bounded(8);
            let done = done.clone();
            Worker { batches, handle: std::thread::spawn(move || work(own, receiver, &done)) }
        };
        let workers = hands.into_iter().map(start).collect();
        Self::Workers(Workers { workers, batch: Batch::default(), spare })
    }

    /// Hands a packet to its shard.
    #[inline]
    pub fn packet(&mut self, shard: usize, packet: &Packet<'_>) {
        match self {
            Self::Here(shards) => shards[shard % SHARDS].packet(packet),
            Self::Workers(workers) => workers.packet(shard % SHARDS, packet),
        }
    }

    /// Hands an ICMP error to the shard of the flow it quotes.
    pub fn icmp(&mut self, shard: usize, at: PacketRef, error: &IcmpError) {
        match self {
            Self::Here(shards) => shards[shard % SHARDS].icmp(at, error),
            Self::Workers(workers) => workers.push(Item::Icmp { shard: (shard % SHARDS) as u8, at, error: *error }),
        }
    }

    /// Input `file` was recorded at `point`.
    pub fn point(&mut self, file: u16, point: u16) {
        match self {
            Self::Here(shards) => shards.iter_mut().for_each(|shard| shard.point(file, point)),
            Self::Workers(workers) => workers.push(Item::Point { file, point }),
        }
    }

    /// Capture time has come to `now`, the beginning of an eighth of a second.
    pub fn tick(&mut self, now: Timestamp) {
        match self {
            Self::Here(shards) => shards.iter_mut().for_each(|shard| shard.tick(now)),
            Self::Workers(workers) => workers.push(Item::Tick(now)),
        }
    }

    /// The capture is over.
    pub fn finish(self, now: Timestamp) -> Merged {
        together(match self {
            Self::Here(shards) => shards.into_iter().map(|shard| shard.finish(now)).enumerate().collect(),
            Self::Workers(workers) => workers.finish(now),
        })
    }

    /// What would be known if the capture ended now; `all` as in [`Recorder::peek`]. Workers answer when they have come so far; the channel
    /// ends with the last part.
    pub fn peek(&mut self, all: bool, now: Timestamp) -> Parts {
        let (told, parts) = bounded(SHARDS);
        match self {
            Self::Here(shards) => {
                let answers = shards.iter_mut().map(|shard| shard.peek(all, now)).enumerate();
                // There is room for all of them, and somebody listens.
                answers.for_each(|answer| drop(told.send(answer)));
            }
            Self::Workers(workers) => {
                workers.push(Item::Peek { all, now, told });
                workers.flush();
            }
        }
        parts
    }

    /// Hands over what waits for a batch to be full.
    pub fn flush(&mut self) {
        if let Self::Workers(workers) = self
            && !workers.batch.items.is_empty()
        {
            workers.flush();
        }
    }
}

/// All digests by the first packet. Their times and places are sorted, not they themselves, and a map made of so many as there are of what
/// is in order already moves each once and takes no room twice.
fn in_order(digests: &[VecDeque<Digest>]) -> BTreeMap<PacketRef, Digest> {
    let mut order: Vec<(Timestamp, u8, u32)> = Vec::with_capacity(digests.iter().map(VecDeque::len).sum());
    for (part, digests) in (0..).zip(digests) {
        order.extend((0..).zip(digests).map(|(place, digest)| (digest.id.time, part, place)));
    }
    let of = |(_, part, place): &(Timestamp, u8, u32)| &digests[usize::from(*part)][*place as usize];
    // Only those that began at the same moment are looked at again.
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| of(a).id.cmp(&of(b).id)));
    order.iter().map(of).map(|digest| (digest.id, *digest)).collect()
}

/// Captures are chosen by attackers, so the tables' hash must not be known beforehand; no result depends on it.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// Worker threads and the batch that is being filled for them.
pub struct Workers {
    workers: Vec<Worker>,
    batch: Batch,
    /// Batches that all workers are done with: their memory is used again, rather than taken by one thread and given back by another.
    spare: Receiver<Batch>,
}

struct Worker {
    batches: Sender<Message>,
    handle: std::thread::JoinHandle<Vec<(usize, Part)>>,
}

#[derive(Clone)]
enum Message {
    Batch(Arc<Batch>),
    Finish(Timestamp),
}

/// Packets of all shards in capture order, with their options and payloads in one buffer.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    octets: Vec<u8>,
}

enum Item {
    Packet { shard: u8, packet: Kept },
    Icmp { shard: u8, at: PacketRef, error: IcmpError },
    Point { file: u16, point: u16 },
    Tick(Timestamp),
    Peek { all: bool, now: Timestamp, told: Sender<(usize, Part)> },
}

/// A batch is sent when it holds this many packets or octets: large enough that handing over costs nothing per packet.
const BATCH_ITEMS: usize = 2048;
const BATCH_OCTETS: usize = 512 * 1024;

impl Workers {
    #[inline(never)]
    fn packet(&mut self, shard: usize, packet: &Packet<'_>) {
        if let Some(kept) = Kept::of(packet, &mut self.batch.octets) {
            self.push(Item::Packet { shard: shard as u8, packet: kept });
        }
    }

    fn push(&mut self, item: Item) {
        self.batch.items.push(item);
        if self.batch.items.len() >= BATCH_ITEMS || self.batch.octets.len() >= BATCH_OCTETS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let next = self.spare.try_recv().unwrap_or_default();
        let batch = Arc::new(std::mem::replace(&mut self.batch, next));
        for worker in &self.workers {
            // A worker that is gone has panicked; join() reports it.
            let _ = worker.batches.send(Message::Batch(batch.clone()));
        }
    }

    fn finish(mut self, now: Timestamp) -> Vec<(usize, Part)> {
        self.flush();
        for worker in &self.workers {
            let _ = worker.batches.send(Message::Finish(now));
        }
        let mut parts = Vec::new();
        for worker in self.workers {
            drop(worker.batches);
            match worker.handle.join() {
                Ok(part) => parts.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        parts
    }
}

impl Batch {
    /// Nothing in its memory.
    fn emptied(mut self) -> Self {
        self.items.clear();
        self.octets.clear();
        self
    }
}

/// One worker: its shards, all batches, only its own items.
fn work(mut shards: Vec<(usize, Shard)>, messages: Receiver<Message>, done: &Sender<Batch>) -> Vec<(usize, Part)> {
    let mut place = [usize::MAX; SHARDS];
    for (position, (n, _)) in shards.iter().enumerate() {
        place[*n] = position;
    }
    for message in messages {
        match message {
            Message::Batch(batch) => {
                for item in &batch.items {
                    match item {
                        Item::Packet { shard, packet } => {
                            if let Some((_, shard)) = shards.get_mut(place[usize::from(*shard)]) {
                                shard.packet(&packet.packet(&batch.octets));
                            }
                        }
                        Item::Icmp { shard, at, error } => {
                            if let Some((_, shard)) = shards.get_mut(place[usize::from(*shard)]) {
                                shard.icmp(*at, error);
                            }
                        }
                        Item::Point { file, point } => {
                            shards.iter_mut().for_each(|(_, shard)| shard.point(*file, *point));
                        }
                        Item::Tick(now) => shards.iter_mut().for_each(|(_, shard)| shard.tick(*now)),
                        Item::Peek { all, now, told } => {
                            // Whoever asked may have gone.
                            shards.iter_mut().for_each(|(n, shard)| drop(told.send((*n, shard.peek(*all, *now)))));
                        }
                    }
                }
                // Whoever is last gives it back; a reader that is gone needs no more of them.
                if let Some(batch) = Arc::into_inner(batch) {
                    let _ = done.send(batch.emptied());
                }
            }
            Message::Finish(now) => {
                return shards.into_iter().map(|(n, shard)| (n, shard.finish(now))).collect();
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    #[test]
    fn the_digests_of_all_shards_are_one_map() {
        let digest =
            |number: u64| Scene::starting("10.0.0.1:40000", "10.0.0.2:80", number, number as i64).summary().digest;
        let parts: Vec<VecDeque<Digest>> = [vec![7, 2, 9], vec![], vec![1, 8]]
            .into_iter()
            .map(|numbers| numbers.into_iter().map(digest).collect())
            .collect();
        let all = in_order(&parts);
        assert_eq!(all.keys().map(|id| id.number).collect::<Vec<_>>(), [1, 2, 7, 8, 9]);
        assert!(all.iter().all(|(id, kept)| *kept == digest(id.number)));
    }

    #[test]
    fn a_batch_that_everybody_is_done_with_comes_back_empty() {
        let (batches, receiver) = bounded(1);
        let (done, spare) = unbounded();
        let items = vec![Item::Tick(Timestamp(1))];
        let batch = Arc::new(Batch { items, octets: vec![0; 1000] });
        let other = batch.clone();
        let worker = std::thread::spawn(move || work(Vec::new(), receiver, &done));
        assert!(batches.send(Message::Batch(batch)).is_ok());
        drop(batches);
        assert!(worker.join().is_ok_and(|parts| parts.is_empty()));
        assert!(spare.try_recv().is_err(), "another worker has it still");
        let (done, spare) = unbounded();
        let (batches, receiver) = bounded(2);
        assert!(batches.send(Message::Batch(other)).is_ok());
        drop(batches);
        work(Vec::new(), receiver, &done);
        let batch = spare.try_recv().expect("it comes back");
        assert_eq!((batch.items.len(), batch.octets.len(), batch.octets.capacity()), (0, 0, 1000));
    }
}
