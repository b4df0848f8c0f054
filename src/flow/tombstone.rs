//! Flows that were reported, remembered for a while: their late packets must not look like new flows.

use std::collections::VecDeque;

use prefetch_index::prefetch_index;

use super::key::{Key, Way};
use crate::decode::{Flags, Segment};
use crate::event::{PacketRef, Stamp};
use crate::time::Timestamp;
use crate::wire::seq::Seq;

/// One reported flow.
pub(super) struct Tombstone<'k> {
    pub(super) key: &'k Key,
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
    /// By hash, the number of the stone that was put there last; it says which one was put there before. The number of one that is gone leads
    /// nowhere, so nothing is taken out of here.
    latest: Vec<u32>,
    stones: Stones,
}

/// Where the search begins has so many places at first, and twice as many whenever there are more stones than places.
const PLACES: usize = 256;

impl Tombstones {
    /// What one takes, with the places where the search begins, of which there are up to twice as many.
    pub(super) const WEIGHT: usize = size_of::<Stone>() + 2 * size_of::<u32>();

    /// None yet, at most `limit`.
    pub(super) fn new(seed: u64, limit: usize) -> Self {
        Self { seed, limit, latest: Vec::new(), stones: Stones::default() }
    }

    /// Adds one; the oldest makes room.
    pub(super) fn bury(&mut self, hash: u64, stone: Tombstone<'_>) {
        if self.stones.len >= self.limit {
            self.stones.pop();
        }
        if self.stones.len >= self.latest.len() {
            self.make_places();
        }
        let place = self.place(hash);
        if let Some(latest) = self.latest.get_mut(place) {
            *latest = self.stones.push(Stone::of(&stone, *latest));
        }
    }

    #[cold]
    #[inline(never)]
    fn make_places(&mut self) {
        let Self { seed, latest, stones, .. } = self;
        let count = (latest.len() * 2).max(PLACES);
        latest.clear();
        latest.resize(count, stones.nobody());
        stones.each(|number, stone| {
            let place = stone.key().hash(*seed) as usize & (count - 1);
            stone.before = std::mem::replace(&mut latest[place], number);
        });
    }

    /// Where the search for a name begins.
    #[inline]
    fn place(&self, hash: u64) -> usize {
        // Their number is a power of two.
        hash as usize & self.latest.len().wrapping_sub(1)
    }

    /// Sends for where the search for a name begins.
    #[inline]
    pub(super) fn approach_place(&self, hash: u64) {
        prefetch_index(&self.latest, self.place(hash));
    }

    /// Sends for the first stone that it looks at.
    #[inline]
    pub(super) fn approach(&self, hash: u64) {
        self.latest.get(self.place(hash)).into_iter().for_each(|number| self.stones.fetch(*number));
    }

    /// The number of the stone of this name that was put there last, if none has succeeded it.
    fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        let mut number = *self.latest.get(self.place(hash))?;
        let mut stone = self.stones.get(number)?;
        while stone.is_succeeded() || stone.key() != *key {
            // Each leads to an older one.
            let before = Some(stone.before).filter(|before| self.stones.rank(*before) < self.stones.rank(number))?;
            (number, stone) = (before, self.stones.get(before)?);
        }
        Some(number)
    }

    /// What a segment that no flow claims belongs to. A SYN, or payload beyond the end of its side, begins something new.
    pub(super) fn meet(&mut self, hash: u64, key: &Key, way: Way, now: Timestamp, segment: &Segment<'_>) -> Met {
        let found = self.find(hash, key);
        let Some(stone) = found.and_then(|number| self.stones.get_mut(number)) else { return Met::Nobody };
        let beyond = segment.payload_len > 0 && stone.end(way).is_none_or(|end| !end.after(segment.seq));
        let bare_syn = segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK);
        if stone.until > now && !bare_syn && !beyond {
            return Met::Late;
        }
        stone.succeed();
        Met::Successor(stone.id.packet())
    }

    /// Whether a flow of this name is remembered.
    pub(super) fn knows(&self, hash: u64, key: &Key) -> bool {
        self.find(hash, key).is_some()
    }

    /// Octets they take, about.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.latest) + self.stones.memory()
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.stones.oldest().is_some_and(|stone| stone.until <= now) {
            self.stones.pop();
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        (self.latest, self.stones) = (Vec::new(), Stones::default());
    }
}

/// A tombstone as it is kept: there is one for each flow of the last minute.
struct Stone {
    /// Those of the key; the free bits say for each way whether [`Stone::next`] means something, and whether it has a successor.
    words: [u64; 5],
    /// The number of the one that was put where this one was, before it.
    before: u32,
    next: [Seq; 2],
    id: Stamp,
    until: Timestamp,
}

const _: () = assert!(size_of::<Stone>() <= 80);

impl Stone {
    const SUCCEEDED: u32 = Key::FREE + 2;

    fn of(stone: &Tombstone<'_>, before: u32) -> Self {
        let mut words = stone.key.words();
        for way in Way::BOTH {
            words[4] |= u64::from(stone.next[way as usize].is_some()) << Self::seen(way);
        }
        let next = stone.next.map(|next| next.unwrap_or(Seq(0)));
        Self { words, before, next, id: stone.id.into(), until: stone.until }
    }

    fn seen(way: Way) -> u32 {
        Key::FREE + way as u32
    }

    /// It was told of to a successor, and is nobody's name any more.
    fn succeed(&mut self) {
        self.words[4] |= 1 << Self::SUCCEEDED;
    }

    fn is_succeeded(&self) -> bool {
        self.words[4] >> Self::SUCCEEDED & 1 == 1
    }

    fn key(&self) -> Key {
        Key::of_words(self.words)
    }

    /// Where the octets of a side ended, if it was seen.
    fn end(&self, way: Way) -> Option<Seq> {
        (self.words[4] >> Self::seen(way) & 1 == 1).then_some(self.next[way as usize])
    }
}

/// Stones one behind the other, by numbers that go round: in pieces, so that none is copied when they become more.
#[derive(Default)]
struct Stones {
    pieces: VecDeque<Vec<Stone>>,
    /// Number of the first stone of the first piece.
    first: u32,
    /// How many of the first piece are gone.
    gone: usize,
    len: usize,
}

/// Stones of a piece.
const PIECE: usize = 256;

impl Stones {
    /// Adds one; its number.
    fn push(&mut self, stone: Stone) -> u32 {
        if self.pieces.back().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push_back(Vec::with_capacity(PIECE));
        }
        let number = self.first.wrapping_add((self.gone + self.len) as u32);
        if let Some(piece) = self.pieces.back_mut() {
            piece.push(stone);
        }
        self.len += 1;
        number
    }

    /// How many were there before that one, with those of the first piece that are gone.
    fn rank(&self, number: u32) -> usize {
        number.wrapping_sub(self.first) as usize
    }

    /// `None` where it is gone.
    fn get(&self, number: u32) -> Option<&Stone> {
        let rank = Some(self.rank(number)).filter(|rank| *rank >= self.gone)?;
        self.pieces.get(rank / PIECE)?.get(rank % PIECE)
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Stone> {
        let rank = Some(self.rank(number)).filter(|rank| *rank >= self.gone)?;
        self.pieces.get_mut(rank / PIECE)?.get_mut(rank % PIECE)
    }

    /// Sends for it.
    #[inline]
    fn fetch(&self, number: u32) {
        let rank = self.rank(number);
        self.pieces.get(rank / PIECE).into_iter().for_each(|piece| prefetch_index(piece, rank % PIECE));
    }

    /// All of them with their numbers, the oldest first.
    fn each(&mut self, mut show: impl FnMut(u32, &mut Stone)) {
        let numbers = (0..).map(|rank: u32| self.first.wrapping_add(rank));
        let stones = numbers.zip(self.pieces.iter_mut().flatten());
        stones.skip(self.gone).for_each(|(number, stone)| show(number, stone));
    }

    /// A number that is nobody's until all numbers were given.
    fn nobody(&self) -> u32 {
        self.first.wrapping_sub(1)
    }

    fn oldest(&self) -> Option<&Stone> {
        if self.len == 0 { None } else { self.pieces.front()?.get(self.gone) }
    }

    /// Lets the oldest go.
    fn pop(&mut self) {
        if self.len == 0 {
            return;
        }
        (self.gone, self.len) = (self.gone + 1, self.len - 1);
        if self.gone == PIECE {
            self.pieces.pop_front();
            (self.first, self.gone) = (self.first.wrapping_add(PIECE as u32), 0);
        }
    }

    fn memory(&self) -> usize {
        self.pieces.len() * PIECE * size_of::<Stone>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::facts::IpProtocol;
    use crate::wire::{Address, Endpoint};

    fn key(port: u16) -> Key {
        let end = |last, port| Endpoint::new(Address::v4([10, 0, 0, last]), port);
        Key::of(end(1, port), end(2, 80), IpProtocol::Tcp).0
    }

    fn id(number: u64) -> PacketRef {
        PacketRef { file: 3, number, time: Timestamp(number as i64) }
    }

    fn bury(stones: &mut Tombstones, number: u64) {
        let (key, until) = (key(number as u16), Timestamp(1_000 + number as i64));
        let next = [Some(Seq(number as u32)), None];
        stones.bury(key.hash(stones.seed), Tombstone { key: &key, id: id(number), until, next });
    }

    fn segment(seq: u32, payload_len: u32) -> Segment<'static> {
        Segment {
            source_port: 0,
            destination_port: 0,
            seq: Seq(seq),
            ack: Seq(0),
            flags: Flags::ACK,
            window: 0,
            options: &[],
            payload: &[],
            payload_len,
            checksum: 0,
        }
    }

    fn met(stones: &mut Tombstones, port: u16, way: Way, segment: &Segment<'_>) -> &'static str {
        match stones.meet(key(port).hash(7), &key(port), way, Timestamp(0), segment) {
            Met::Nobody => "nobody",
            Met::Late => "late",
            Met::Successor(predecessor) if predecessor == id(port.into()) => "successor",
            Met::Successor(_) => "somebody else's successor",
        }
    }

    fn late(stones: &mut Tombstones, ports: std::ops::RangeInclusive<u16>) -> Vec<u16> {
        ports.filter(|port| met(stones, *port, Way::Low, &segment(0, 0)) == "late").collect()
    }

    #[test]
    fn thousands_are_found_again_until_the_oldest_make_room() {
        let mut stones = Tombstones::new(7, 5_000);
        (1..=6_000).for_each(|number| bury(&mut stones, number));
        let late = late(&mut stones, 1..=6_100);
        assert_eq!((late.len(), late[0], late[4_999]), (5_000, 1_001, 6_000));
        assert!(stones.memory() < 5_000 * Tombstones::WEIGHT + 2 * PIECE * size_of::<Stone>(), "{}", stones.memory());
        stones.expire(Timestamp(1_000 + 4_000));
        assert_eq!((stones.stones.len, met(&mut stones, 4_000, Way::Low, &segment(0, 0))), (2_000, "nobody"));
        stones.expire(Timestamp::MAX);
        assert_eq!(stones.stones.len, 0);
    }

    #[test]
    fn what_begins_anew_is_told_of_its_predecessor_once() {
        let mut stones = Tombstones::new(7, 10);
        bury(&mut stones, 9);
        assert_eq!(met(&mut stones, 9, Way::Low, &segment(8, 5)), "late");
        assert_eq!(met(&mut stones, 9, Way::Low, &segment(9, 5)), "successor");
        assert_eq!(met(&mut stones, 9, Way::Low, &segment(9, 5)), "nobody");
        bury(&mut stones, 9);
        // The other side was never seen: any octet of it is new.
        assert_eq!(met(&mut stones, 9, Way::High, &segment(0, 5)), "successor");
    }

    #[test]
    fn what_they_take_is_the_same_whatever_the_seed() {
        let taken = |seed| {
            let mut stones = Tombstones::new(seed, 440);
            let all = (1..=5_000).map(|number| {
                bury(&mut stones, number);
                stones.memory()
            });
            all.collect::<Vec<_>>()
        };
        assert!((1..9).all(|seed| taken(seed) == taken(0)));
    }

    #[test]
    fn numbers_go_round() {
        let mut stones = Tombstones::new(7, 300);
        stones.stones.first = u32::MAX - 600;
        (1..=2_000).for_each(|number| bury(&mut stones, number));
        assert_eq!(late(&mut stones, 1..=2_000), (1_701..=2_000).collect::<Vec<_>>());
    }
}
