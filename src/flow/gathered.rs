//! Packets of flows that have just begun, put aside: such a flow is worked in at once when it is over, or has gone on for a while.
//!
//! Most flows of a busy capture are short, and thousands of them are under way at a time: worked in packet by packet, each packet waits for its
//! flow's memory, which lies outside the near caches (more than half of the whole time, docs/performance.md). Put aside, a packet is
//! only written, and when its flow is worked in, all of it lies near.

use hashbrown::HashTable;

use super::facts::IpProtocol;
use super::half::Stamp;
use super::key::{Key, Way};
use super::wheel::step_for;
use crate::decode::{Datagram, Flags, Ip, Link, Packet, Segment, Transport};
use crate::event::PacketRef;
use crate::time::Elapsed;
use crate::wire::seq::Seq;

/// A flow is put aside for so many steps at most: a second, because nobody's wait is judged and no hole is looked at before.
const STEPS: i64 = 8;
/// Slots of the ring: more than steps anybody waits for.
const RING: i64 = 16;
/// Packets and octets of one flow: what goes on longer is no short flow.
const PACKETS: usize = 64;
const OCTETS: u32 = 32 << 10;
/// Flows of a table, and pieces of memory: one packet that is still needed keeps all of a piece.
const MOST: usize = 4096;
const PIECES: usize = 160;
/// Octets that come from memory at once.
const LINE: usize = 64;
/// Packets and octets that lie in one piece of memory.
const PIECE: (usize, usize) = (256, 64 << 10);

/// The packets of one flow; none of them: the place is free.
struct Entry {
    key: Option<Key>,
    packets: Vec<u32>,
    octets: u32,
    id: PacketRef,
    /// The step at which it is worked in.
    due: i64,
}

/// The packets of all flows as they came, so that they are written one behind the other: in pieces, each of which is used again when nobody
/// needs a packet of it any more.
#[derive(Default)]
pub(super) struct Heap {
    pieces: Vec<Piece>,
    free: Vec<u32>,
    current: Option<u32>,
}

/// What a packet says beside its octets and the name of its flow.
struct Aside {
    at: Stamp,
    link: Link,
    interface: u16,
    /// Of the segment, or 0.
    window: u16,
    seq: Seq,
    ack: Seq,
    /// Octets of the IP packet, and of the payload, on the wire.
    ip_len: u32,
    payload_len: u32,
    /// Where its octets lie: options, then payload.
    begin: u32,
    end: u32,
    id: Option<u16>,
    checksum: u16,
    options: u8,
    flags: Flags,
    ttl: u8,
    way: Way,
    cut: bool,
    reassembled: bool,
    tunnelled: bool,
}

impl Aside {
    /// Of a packet of `way`, its octets behind those in `all`. `None` where it is neither TCP nor UDP.
    #[inline]
    fn of(way: Way, packet: &Packet<'_>, all: &mut Vec<u8>) -> Option<Self> {
        let begin = all.len() as u32;
        let ip = packet.ip.as_ref()?;
        let (seq, ack, window, checksum, flags, options, payload, payload_len) = match &packet.transport {
            Transport::Tcp(s) => (s.seq, s.ack, s.window, s.checksum, s.flags, s.options, s.payload, s.payload_len),
            Transport::Udp(d) => (Seq(0), Seq(0), 0, 0, Flags(0), &[][..], d.payload, d.payload_len),
            _ => return None,
        };
        let options_len = u8::try_from(options.len()).ok()?;
        if !options.is_empty() {
            all.extend_from_slice(options);
        }
        all.extend_from_slice(payload);
        Some(Self {
            at: packet.at.into(),
            link: packet.link,
            interface: packet.interface,
            window,
            seq,
            ack,
            ip_len: ip.len,
            payload_len,
            begin,
            end: all.len() as u32,
            id: ip.id,
            checksum,
            options: options_len,
            flags,
            ttl: ip.ttl,
            way,
            cut: packet.cut,
            reassembled: ip.reassembled,
            tunnelled: ip.tunnelled,
        })
    }

    fn octets<'a>(&self, all: &'a [u8]) -> &'a [u8] {
        all.get(self.begin as usize..self.end as usize).unwrap_or(&[])
    }

    /// The packet of the flow `key` as it was.
    #[inline]
    fn packet<'a>(&self, key: &Key, all: &'a [u8]) -> Packet<'a> {
        let (source, destination) = (key.end(self.way), key.end(self.way.other()));
        let octets = self.octets(all);
        let (options, payload) = octets.split_at_checked(usize::from(self.options)).unwrap_or((&[], octets));
        let (source_port, destination_port) = (source.port, destination.port);
        let Self { at, link, interface, window, seq, ack, payload_len, id, checksum, flags, ttl, .. } = *self;
        let transport = match key.protocol() {
            IpProtocol::Tcp => Transport::Tcp(Segment {
                source_port,
                destination_port,
                seq,
                ack,
                flags,
                window,
                options,
                payload,
                payload_len,
                checksum,
            }),
            IpProtocol::Udp => Transport::Udp(Datagram { source_port, destination_port, payload, payload_len }),
        };
        let ip = Ip {
            source: source.address,
            destination: destination.address,
            ttl,
            id,
            len: self.ip_len,
            reassembled: self.reassembled,
            tunnelled: self.tunnelled,
        };
        Packet { at: at.packet(), interface, link, ip: Some(ip), transport, cut: self.cut }
    }
}

#[derive(Default)]
struct Piece {
    packets: Vec<Aside>,
    octets: Vec<u8>,
    /// Packets that somebody needs.
    needed: u32,
}

impl Heap {
    /// Adds a packet: where it lies, and how many octets it has.
    fn push(&mut self, way: Way, packet: &Packet<'_>) -> Option<(u32, u32)> {
        let open = |piece: &Piece| piece.packets.len() < PIECE.0 && piece.octets.len() < PIECE.1;
        let current = self.current.filter(|number| self.pieces.get(*number as usize).is_some_and(open));
        let number = current.or_else(|| self.turn())?;
        let piece = self.pieces.get_mut(number as usize)?;
        let (index, before) = (piece.packets.len() as u32, piece.octets.len());
        piece.packets.push(Aside::of(way, packet, &mut piece.octets)?);
        piece.needed += 1;
        Some((number * PIECE.0 as u32 + index, (piece.octets.len() - before) as u32))
    }

    /// The current piece is full: another one, unless all are needed.
    #[cold]
    #[inline(never)]
    fn turn(&mut self) -> Option<u32> {
        if let Some(full) = self.current.take() {
            self.tidy(full);
        }
        if self.free.is_empty() && self.pieces.len() < PIECES {
            let (packets, octets) = (Vec::with_capacity(PIECE.0), Vec::with_capacity(PIECE.1 + (2 << 10)));
            self.pieces.push(Piece { packets, octets, needed: 0 });
            self.free.push(self.pieces.len() as u32 - 1);
        }
        self.current = self.free.pop();
        self.current
    }

    /// The packet of the flow `key` that lies there, and its way.
    #[inline]
    pub(super) fn packet(&self, key: &Key, place: u32) -> Option<(Way, Packet<'_>)> {
        let (piece, aside) = self.at(place)?;
        Some((aside.way, aside.packet(key, &piece.octets)))
    }

    #[inline]
    fn at(&self, place: u32) -> Option<(&Piece, &Aside)> {
        let piece = self.pieces.get((place / PIECE.0 as u32) as usize)?;
        Some((piece, piece.packets.get((place % PIECE.0 as u32) as usize)?))
    }

    /// Looks at every line of these packets, so that they come from memory side by side and not, one waiting for the other, when they are
    /// worked in.
    pub(super) fn fetch(&self, places: &[u32]) {
        let packets = || places.iter().filter_map(|place| self.at(*place));
        let sides = packets().fold(0, |sum, (_, aside)| sum ^ aside.at.time().0 as u8 ^ aside.ttl);
        let octets = packets().fold(sides, |sum, (piece, aside)| {
            aside.octets(&piece.octets).iter().step_by(LINE).fold(sum, |sum, octet| sum ^ octet)
        });
        std::hint::black_box(octets);
    }

    /// Nobody needs the packet that lies there.
    pub(super) fn release(&mut self, place: u32) {
        let number = place / PIECE.0 as u32;
        let Some(piece) = self.pieces.get_mut(number as usize) else { return };
        piece.needed = piece.needed.saturating_sub(1);
        if self.current != Some(number) {
            self.tidy(number);
        }
    }

    fn tidy(&mut self, number: u32) {
        if let Some(piece) = self.pieces.get_mut(number as usize).filter(|piece| piece.needed == 0) {
            piece.packets.clear();
            piece.octets.clear();
            piece.octets.shrink_to(2 * PIECE.1);
            self.free.push(number);
        }
    }
}

/// All flows of a table that are put aside.
pub(super) struct Gathered {
    /// Their packets.
    pub(super) heap: Heap,
    seed: u64,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    ring: Vec<Vec<u32>>,
    /// Up to here the ring was looked at.
    now: i64,
    /// Pieces of memory taken.
    pieces: usize,
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
        Self { heap: Heap::default(), seed, index, entries, free, ring, now: i64::MIN, pieces: 0, len: 0 }
    }

    /// Flows put aside.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Octets they take, about.
    pub(super) fn memory(&self) -> usize {
        self.pieces * (PIECE.0 * size_of::<Aside>() + PIECE.1) + self.entries.len() * size_of::<Entry>()
    }

    /// Gives memory back that nobody needs.
    pub(super) fn give_up(&mut self) {
        if self.len == 0 {
            (self.heap, self.pieces) = (Heap::default(), 0);
        }
    }

    /// The number of the flow of this name.
    #[inline]
    pub(super) fn find(&self, key: &Key, hash: u64) -> Option<u32> {
        let same = |number: &u32| self.entries.get(*number as usize).is_some_and(|entry| entry.key == Some(*key));
        self.index.find(hash, same).copied()
    }

    /// Whether there is room for one more.
    pub(super) fn room(&self) -> bool {
        self.len < MOST
    }

    /// Begins a flow, of which this is the first packet, and which holds nothing yet; the table stands at step `now`. Returns its number.
    pub(super) fn begin(&mut self, (key, hash): (Key, u64), now: i64, packet: &Packet<'_>) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::new(packet.at));
            self.entries.len() as u32 - 1
        });
        let Some(entry) = self.entries.get_mut(number as usize) else { return number };
        (entry.key, entry.id, entry.due) = (Some(key), packet.at, i64::MAX);
        if self.len == 0 {
            self.now = self.now.max(now);
        }
        self.len += 1;
        let (entries, seed) = (&self.entries, self.seed);
        let rehash =
            |number: &u32| entries.get(*number as usize).and_then(|entry| entry.key).map_or(0, |key| key.hash(seed));
        self.index.insert_unique(hash, number, rehash);
        self.plan(number, now.saturating_add(STEPS));
        number
    }

    /// Puts one more packet aside. `false`: it cannot be, or the flow holds all that one may.
    #[inline]
    pub(super) fn add(&mut self, number: u32, way: Way, packet: &Packet<'_>, lingers: Lingers) -> bool {
        let Some(entry) = self.entries.get_mut(number as usize) else { return false };
        if entry.packets.len() >= PACKETS || entry.octets >= OCTETS {
            return false;
        }
        let Some((place, octets)) = self.heap.push(way, packet) else { return false };
        self.pieces = self.heap.pieces.len();
        entry.octets += octets;
        entry.packets.push(place);
        // Never later than it may leave the table: its latest packet is not older. What still comes is worked in at once.
        let linger = match &packet.transport {
            Transport::Tcp(segment) if segment.flags.has(Flags::FIN) || segment.flags.has(Flags::RST) => {
                lingers.settled
            }
            Transport::Udp(_) => lingers.answered,
            _ => return true,
        };
        self.plan(number, step_for(packet.at.time + linger, linger));
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

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (PacketRef, u32)> {
        let some = (0..).zip(&self.entries).filter(|(_, entry)| !entry.packets.is_empty());
        some.map(|(number, entry)| (entry.id, number))
    }

    /// Takes a flow out: its name, and where its packets lie, in the order they came.
    pub(super) fn take(&mut self, number: u32) -> Option<(Key, Vec<u32>)> {
        let entry = self.entries.get_mut(number as usize)?;
        let key = entry.key.take()?;
        let packets = std::mem::take(&mut entry.packets);
        if let Ok(found) = self.index.find_entry(key.hash(self.seed), |other| *other == number) {
            found.remove();
        }
        entry.octets = 0;
        self.len -= 1;
        Some((key, packets))
    }

    /// Gives the places of a flow back that was taken out: nobody needs its packets.
    pub(super) fn give_back(&mut self, number: u32, mut packets: Vec<u32>) {
        for place in packets.drain(..) {
            self.heap.release(place);
        }
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.packets = packets;
        }
        self.free.push(number);
    }
}

impl Entry {
    fn new(id: PacketRef) -> Self {
        Self { key: None, packets: Vec::new(), octets: 0, id, due: i64::MAX }
    }
}

const _: () = assert!(STEPS < RING);
