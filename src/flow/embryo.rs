//! Flows of which nothing but one SYN was seen, packed: in a flood of SYNs nobody answers, a record of 48 octets each instead of a flow.
//!
//! Nothing is lost: everything the SYN said is kept, what many of them have in common once ([`Template`]), and when something else happens
//! to the flow, or its time is over, the packet is worked in as if it came just now. All of them have the same patience.

mod template;

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::facts::IpProtocol;
use super::half::Stamp;
use super::key::{Key, Way};
use super::limits::index_octets;
use crate::decode::{Flags, Ip, Link, Packet, Segment, Transport};
use crate::event::PacketRef;
use crate::time::Timestamp;
use crate::wire::seq::Seq;
use crate::wire::{Address, Endpoint};
use template::{Template, Templates};

/// Records of one block: what is taken and given back at once.
const BLOCK: usize = 256;
/// Octets the options of a TCP header can have (RFC 9293 §3.1).
const OPTIONS: usize = 40;

/// A SYN out of its packing.
pub(super) struct Syn {
    at: PacketRef,
    interface: u16,
    link: Link,
    ip: Ip,
    segment: Segment<'static>,
    options: [u8; OPTIONS],
    options_len: usize,
}

impl Syn {
    /// The packet as it came.
    pub(super) fn packet(&self) -> Packet<'_> {
        Packet {
            at: self.at,
            interface: self.interface,
            link: self.link,
            ip: Some(self.ip),
            transport: Transport::Tcp(self.segment()),
            cut: false,
        }
    }

    fn segment(&self) -> Segment<'_> {
        Segment { options: self.options.get(..self.options_len).unwrap_or(&[]), ..self.segment }
    }

    /// Which packet.
    pub(super) fn at(&self) -> PacketRef {
        self.at
    }

    /// The name of its flow, and the end that sent it.
    pub(super) fn key(&self) -> (Key, Way) {
        let source = Endpoint::new(self.ip.source, self.segment.source_port);
        Key::of(source, Endpoint::new(self.ip.destination, self.segment.destination_port), IpProtocol::Tcp)
    }
}

/// All packed flows of a table.
pub(super) struct Embryos {
    seed: u64,
    narrow: Ring<[u32; 2]>,
    wide: Ring<[u64; 4]>,
    /// Places: the position in its ring, and in the lowest bit which ring.
    index: HashTable<u32>,
    templates: Templates,
    /// Most of them at one time.
    most: usize,
}

impl Embryos {
    /// None yet.
    pub(super) fn new(seed: u64) -> Self {
        let templates = Templates::default();
        Self { seed, narrow: Ring::default(), wide: Ring::default(), index: HashTable::new(), templates, most: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Octets they take, about; the same whatever the seed, on which the index's own account of its room depends.
    pub(super) fn memory(&self) -> usize {
        self.narrow.held * size_of::<Record<[u32; 2]>>()
            + self.wide.held * size_of::<Record<[u64; 4]>>()
            + index_octets(self.most, size_of::<u32>())
    }

    /// Records that memory is held for.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.narrow.held + self.wide.held
    }

    /// Packs a SYN whose flow `hash` names. `false` when it is not plain, or too unlike the others.
    pub(super) fn pack(&mut self, hash: u64, packet: &Packet<'_>, ip: &Ip, segment: &Segment<'_>) -> bool {
        let bits = segment.flags.0;
        let plain = bits & !(Flags::ECE.0 | Flags::CWR.0) == Flags::SYN.0
            && segment.payload_len == 0
            && !packet.cut
            && !ip.reassembled
            && segment.options.len() <= OPTIONS;
        if !plain {
            return false;
        }
        let (template, own) = Template::of(packet, ip, segment);
        let Some(template) = self.templates.take(template) else { return false };
        let said = Said {
            at: packet.at.into(),
            ports: [segment.source_port, segment.destination_port],
            seq: segment.seq,
            own,
            window: segment.window,
            id: ip.id.unwrap_or(0),
            checksum: segment.checksum,
            template,
            ttl: ip.ttl,
        };
        let place = if ip.source.is_v4() && ip.destination.is_v4() {
            self.narrow.push([ip.source.0 as u32, ip.destination.0 as u32], said) << 1
        } else {
            let [a, b] = [ip.source.0, ip.destination.0];
            self.wide.push([(a >> 64) as u64, a as u64, (b >> 64) as u64, b as u64], said) << 1 | 1
        };
        let (narrow, wide, seed) = (&self.narrow, &self.wide, self.seed);
        self.index.insert_unique(hash, place, |place| hash_at(narrow, wide, seed, *place));
        self.most = self.most.max(self.index.len());
        true
    }

    fn find(&self, key: &Key, hash: u64) -> Option<u32> {
        let same = |place: &u32| key_at(&self.narrow, &self.wide, *place).is_some_and(|known| known == *key);
        self.index.find(hash, same).copied()
    }

    /// Whether the flow of this name is packed.
    pub(super) fn knows(&self, key: &Key, hash: u64) -> bool {
        self.find(key, hash).is_some()
    }

    /// Takes out the flow of this name.
    pub(super) fn take(&mut self, key: &Key, hash: u64) -> Option<Syn> {
        let place = self.find(key, hash)?;
        self.take_at(place)
    }

    /// Takes out the flow at a place that [`Embryos::due`] told.
    pub(super) fn take_at(&mut self, place: u32) -> Option<Syn> {
        let hash = hash_at(&self.narrow, &self.wide, self.seed, place);
        let entry = self.index.find_entry(hash, |other| *other == place).ok()?;
        entry.remove();
        let (said, (source, destination)) = if place & 1 == 0 {
            let (said, ends) = self.narrow.take(place >> 1)?;
            (said, narrow_ends(ends))
        } else {
            let (said, ends) = self.wide.take(place >> 1)?;
            (said, wide_ends(ends))
        };
        let template = self.templates.give_back(said.template)?;
        Some(template.syn(&said, source, destination))
    }

    /// Those that came at or before `time`, with their places, which hold until [`Embryos::tidy`].
    pub(super) fn due(&self, time: Timestamp, due: &mut Vec<(PacketRef, u32)>) {
        if time == Timestamp::MAX {
            due.reserve_exact(self.len());
        }
        due.extend(self.narrow.due(time).map(|(at, position)| (at, position << 1)));
        due.extend(self.wide.due(time).map(|(at, position)| (at, position << 1 | 1)));
    }

    /// When the first one came that is still there, and its place.
    pub(super) fn oldest(&mut self) -> Option<(Timestamp, u32)> {
        let narrow = self.narrow.oldest().map(|(at, position)| (at, position << 1));
        let wide = self.wide.oldest().map(|(at, position)| (at, position << 1 | 1));
        narrow.into_iter().chain(wide).min()
    }

    /// Blocks that are mostly empty are copied together, so that what is held follows what there is.
    pub(super) fn tidy(&mut self) {
        let spread = |held: usize, live: usize| held > 2 * live + 16 * BLOCK;
        let (narrow, wide) = (spread(self.narrow.held, self.narrow.live), spread(self.wide.held, self.wide.live));
        if !narrow && !wide {
            return;
        }
        if narrow {
            self.narrow = std::mem::take(&mut self.narrow).together();
        }
        if wide {
            self.wide = std::mem::take(&mut self.wide).together();
        }
        let places = self.narrow.due(Timestamp::MAX).map(|(_, position)| position << 1);
        let places: Vec<u32> = places.chain(self.wide.due(Timestamp::MAX).map(|(_, at)| at << 1 | 1)).collect();
        let (narrow, wide, seed) = (&self.narrow, &self.wide, self.seed);
        self.index = HashTable::with_capacity(places.len());
        self.most = places.len();
        for place in places {
            let hash = |place: &u32| hash_at(narrow, wide, seed, *place);
            self.index.insert_unique(hash(&place), place, hash);
        }
    }
}

/// Source and destination of a SYN over IPv4.
fn narrow_ends([source, destination]: [u32; 2]) -> (Address, Address) {
    (Address::v4(source.to_be_bytes()), Address::v4(destination.to_be_bytes()))
}

/// The same over IPv6, each in two halves.
fn wide_ends([a, b, c, d]: [u64; 4]) -> (Address, Address) {
    let address = |high, low| Address(u128::from(high) << 64 | u128::from(low));
    (address(a, b), address(c, d))
}

fn key_at(narrow: &Ring<[u32; 2]>, wide: &Ring<[u64; 4]>, place: u32) -> Option<Key> {
    let (ports, (a, b)) = if place & 1 == 0 {
        let record = narrow.get(place >> 1)?;
        (record.said.as_ref()?.ports, narrow_ends(record.ends))
    } else {
        let record = wide.get(place >> 1)?;
        (record.said.as_ref()?.ports, wide_ends(record.ends))
    };
    Some(Key::of(Endpoint::new(a, ports[0]), Endpoint::new(b, ports[1]), IpProtocol::Tcp).0)
}

fn hash_at(narrow: &Ring<[u32; 2]>, wide: &Ring<[u64; 4]>, seed: u64, place: u32) -> u64 {
    key_at(narrow, wide, place).map_or(0, |key| key.hash(seed))
}

/// What a SYN said, but for its addresses and what its template knows.
#[derive(Clone, Copy)]
struct Said {
    at: Stamp,
    ports: [u16; 2],
    seq: Seq,
    /// Its timestamp or its acknowledgment number; the template knows which.
    own: u32,
    window: u16,
    id: u16,
    checksum: u16,
    template: u16,
    ttl: u8,
}

/// One packed flow; `said` is gone when it was taken out.
#[derive(Clone, Copy)]
struct Record<E> {
    ends: E,
    said: Option<Said>,
}

const _: () = assert!(size_of::<Record<[u32; 2]>>() <= 48, "a SYN of a flood must stay small");

/// Packed flows in the order in which they came, in blocks, so that nothing is copied when it grows.
struct Ring<E> {
    blocks: VecDeque<Block<E>>,
    /// Number of the first block.
    first: u32,
    live: usize,
    /// Records memory is held for.
    held: usize,
}

struct Block<E> {
    records: Vec<Record<E>>,
    live: usize,
    /// All records before this one are gone.
    from: usize,
    /// No record is older.
    earliest: Timestamp,
}

impl<E> Default for Ring<E> {
    fn default() -> Self {
        Self { blocks: VecDeque::new(), first: 0, live: 0, held: 0 }
    }
}

impl<E: Copy> Ring<E> {
    /// Adds one; returns its position.
    fn push(&mut self, ends: E, said: Said) -> u32 {
        let over = |block: &Block<E>| block.records.len() == BLOCK || block.from == BLOCK;
        if self.blocks.back().is_none_or(over) {
            let records = Vec::with_capacity(BLOCK);
            self.blocks.push_back(Block { records, live: 0, from: 0, earliest: Timestamp::MAX });
            self.held += BLOCK;
        }
        let number = self.first.wrapping_add(self.blocks.len() as u32 - 1);
        let Some(block) = self.blocks.back_mut() else { return 0 };
        block.records.push(Record { ends, said: Some(said) });
        block.live += 1;
        block.earliest = block.earliest.min(said.at.time());
        self.live += 1;
        // One bit of the place tells the ring.
        (number.wrapping_mul(BLOCK as u32) + block.records.len() as u32 - 1) & (u32::MAX >> 1)
    }

    fn split(&self, position: u32) -> (usize, usize) {
        const BLOCKS: u32 = (u32::MAX >> 1) / BLOCK as u32;
        let number = position / BLOCK as u32;
        (number.wrapping_sub(self.first) as usize & BLOCKS as usize, position as usize % BLOCK)
    }

    fn get(&self, position: u32) -> Option<&Record<E>> {
        let (block, offset) = self.split(position);
        self.blocks.get(block)?.records.get(offset)
    }

    fn take(&mut self, position: u32) -> Option<(Said, E)> {
        let (number, offset) = self.split(position);
        let block = self.blocks.get_mut(number)?;
        let record = block.records.get_mut(offset)?;
        let (said, ends) = (record.said.take()?, record.ends);
        block.live -= 1;
        self.live -= 1;
        if block.live == 0 && block.records.len() == BLOCK {
            block.from = BLOCK;
            block.earliest = Timestamp::MAX;
            block.records = Vec::new();
            self.held -= BLOCK;
        }
        while self.blocks.front().is_some_and(|block| block.from == BLOCK) {
            self.blocks.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        Some((said, ends))
    }

    /// When the first one came that is there, and its position.
    fn oldest(&mut self) -> Option<(Timestamp, u32)> {
        let first = self.first;
        let block = self.blocks.front_mut()?;
        let ahead = block.records.iter().skip(block.from).position(|record| record.said.is_some())?;
        block.from += ahead;
        let at = block.records.get(block.from)?.said.as_ref()?.at.time();
        Some((at, (first.wrapping_mul(BLOCK as u32) + block.from as u32) & (u32::MAX >> 1)))
    }

    /// Those that came at or before `time`.
    fn due(&self, time: Timestamp) -> impl Iterator<Item = (PacketRef, u32)> {
        let blocks = (0u32..).zip(&self.blocks).filter(move |(_, block)| block.earliest <= time);
        blocks.flat_map(move |(ahead, block)| {
            let begin = self.first.wrapping_add(ahead).wrapping_mul(BLOCK as u32);
            (0u32..).zip(&block.records).filter_map(move |(offset, record)| {
                let at = record.said.as_ref()?.at;
                (at.time() <= time).then_some((at.packet(), (begin + offset) & (u32::MAX >> 1)))
            })
        })
    }

    /// The same without the gaps.
    fn together(self) -> Self {
        let mut ring = Self::default();
        for record in self.blocks.into_iter().flat_map(|block| block.records) {
            if let Some(said) = record.said {
                ring.push(record.ends, said);
            }
        }
        ring
    }
}

#[cfg(test)]
mod tests {
    use super::template::TEMPLATES;
    use super::*;

    /// A SYN of the `n`th client; `kind` says how it looks.
    fn syn(n: u32, kind: u32, work: impl FnOnce(&Packet<'_>, &Ip, &Segment<'_>)) {
        let wide = kind & 1 != 0;
        let host =
            |last: u32| if wide { Address(1 << 125 | u128::from(last)) } else { Address::v4(last.to_be_bytes()) };
        let (source, destination) = (host(n), host(7));
        let id = (!wide).then_some(n as u16);
        let ip = Ip { source, destination, ttl: n as u8, id, len: 60, reassembled: false, tunnelled: kind & 2 != 0 };
        let options = [8, 10, n as u8, 2, 3, 4, 0, 0, 0, 9, 1, 1];
        let segment = Segment {
            source_port: n as u16,
            destination_port: 80,
            seq: Seq(n.wrapping_mul(77)),
            ack: Seq(if kind & 4 != 0 { n } else { 0 }),
            flags: if kind & 8 != 0 { Flags(Flags::SYN.0 | Flags::ECE.0) } else { Flags::SYN },
            window: n as u16,
            options: &options,
            payload: &[],
            payload_len: 0,
            checksum: !(n as u16),
        };
        let at = PacketRef { file: 3, number: u64::from(n) + 1, time: Timestamp(i64::from(n)) };
        let link = Link { ifindex: kind, ..Link::default() };
        let transport = Transport::Tcp(segment);
        work(&Packet { at, interface: 2, link, ip: Some(ip), transport, cut: false }, &ip, &segment);
    }

    fn hash_of(packet: &Packet<'_>) -> (Key, u64) {
        let (source, destination) = (packet.source().expect("a segment"), packet.destination().expect("a segment"));
        let key = Key::of(source, destination, IpProtocol::Tcp).0;
        (key, key.hash(5))
    }

    #[test]
    fn every_field_comes_back_whatever_the_family_and_whatever_was_taken_before() {
        let mut all = Embryos::new(5);
        for n in 0..5_000 {
            syn(n, n % 16, |packet, ip, segment| {
                assert!(all.pack(hash_of(packet).1, packet, ip, segment) || n >= 256);
            });
        }
        for n in (0..5_000).filter(|n| n % 7 > 0) {
            syn(n, n % 16, |packet, _, _| {
                let (key, hash) = hash_of(packet);
                if let Some(known) = all.take(&key, hash) {
                    assert_eq!(format!("{:?}", known.packet()), format!("{packet:?}"));
                }
                assert!(all.take(&key, hash).is_none());
            });
            all.tidy();
        }
        let (oldest, place) = all.oldest().expect("one in seven is left");
        assert_eq!((oldest, all.take_at(place).map(|first| first.at().number)), (Timestamp(0), Some(1)));
        let mut due = Vec::new();
        all.due(Timestamp(70), &mut due);
        assert_eq!(due.len(), 10);
    }

    #[test]
    fn a_syn_unlike_four_thousand_others_is_not_packed_until_one_of_them_is_gone() {
        let mut all = Embryos::new(5);
        let pack = |all: &mut Embryos, n: u32| {
            let mut packed = false;
            syn(n, n << 4, |packet, ip, segment| packed = all.pack(hash_of(packet).1, packet, ip, segment));
            packed
        };
        assert_eq!((0..5_000).filter(|n| pack(&mut all, *n)).count(), TEMPLATES);
        let (_, place) = all.oldest().expect("the first one");
        assert!(all.take_at(place).is_some() && pack(&mut all, 6_000) && !pack(&mut all, 6_001));
    }
}
