//! Which direction of which connection a segment belongs to, and where in it its octets stand. Both passes ask it in the same order and get
//! the same answers.

use std::collections::{BTreeMap, HashMap};

use super::mapping::Mapping;
use super::stream::{Direction, Plan};
use crate::decode::Flags;
use crate::wire::Endpoint;

/// Octets that wait behind a hole of one direction, and of all of them.
const WAITING: usize = 256 * 1024;
const ALL_WAITING: usize = 64 * 1024 * 1024;
/// Octets that the replaced ones of all streams may take. Beyond them everything is filled.
const PLANNED: usize = 512 * 1024 * 1024;
/// Ends of which the latest places are known.
const GENERATION: usize = 1 << 20;
/// A jump of sequence numbers that is another connection.
const JUMP: i64 = 1 << 28;

/// Source and destination.
pub(super) type Ends = (Endpoint, Endpoint);

/// A segment as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) seq: u32,
    pub(super) flags: Flags,
    pub(super) payload: &'a [u8],
    /// Octets of payload on the wire.
    pub(super) wire: u32,
}

/// Where a segment's octets stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which direction, in the order in which they appear.
    pub(super) direction: usize,
    /// Offset of the first octet; negative before the first one that was seen.
    pub(super) offset: i64,
    /// The direction appears with this segment; its beginning was not seen.
    fresh: Option<bool>,
}

/// Finds the places of segments. What was not heard of for the longest time is forgotten where very many ends are known: two generations of
/// [`GENERATION`] ends, of which the older one goes.
#[derive(Default)]
pub(super) struct Sequencer {
    known: HashMap<Ends, Known>,
    older: HashMap<Ends, Known>,
    count: usize,
    over: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Known {
    /// `None` before the first octet.
    direction: Option<usize>,
    /// Sequence number of the octet behind the highest one.
    top: u32,
    /// Its offset.
    offset: i64,
    begin: Option<u32>,
}

impl Sequencer {
    /// `None`: no octets.
    pub(super) fn place(&mut self, ends: Ends, piece: &Piece<'_>) -> Option<Place> {
        let syn = piece.flags.has(Flags::SYN);
        let first = piece.seq.wrapping_add(u32::from(syn));
        if !self.known.contains_key(&ends)
            && let Some(known) = self.older.remove(&ends)
        {
            self.insert(ends, known);
        }
        let same = |known: &Known| match syn {
            true => known.begin == Some(first),
            false => jump(known.top, first).abs() < JUMP,
        };
        match self.known.get_mut(&ends) {
            Some(known) if same(known) => {}
            Some(known) => {
                self.over.extend(known.direction);
                *known = Known::begun(first, syn);
            }
            None if syn || piece.wire > 0 => self.insert(ends, Known::begun(first, syn)),
            None => return None,
        }
        let known = self.known.get_mut(&ends).filter(|_| piece.wire > 0)?;
        let fresh = known.direction.is_none().then_some(known.begin.is_none());
        let direction = *known.direction.get_or_insert_with(|| {
            self.count += 1;
            self.count - 1
        });
        let offset = known.offset + jump(known.top, first);
        let end = offset + i64::from(piece.wire);
        if end > known.offset {
            (known.top, known.offset) = (first.wrapping_add(piece.wire), end);
        }
        Some(Place { direction, offset, fresh })
    }

    /// Directions that are over since this was asked last.
    pub(super) fn over(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.over)
    }

    fn insert(&mut self, ends: Ends, known: Known) {
        if self.known.len() >= GENERATION {
            let forgotten = std::mem::replace(&mut self.older, std::mem::take(&mut self.known));
            let before = self.over.len();
            self.over.extend(forgotten.values().filter_map(|known| known.direction));
            self.over[before..].sort_unstable();
        }
        self.known.insert(ends, known);
    }
}

impl Known {
    fn begun(first: u32, syn: bool) -> Self {
        Self { direction: None, top: first, offset: 0, begin: syn.then_some(first) }
    }
}

fn jump(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from) as i32)
}

/// Reads all streams and plans what their octets are replaced by.
#[derive(Default)]
pub(super) struct Planner {
    sequencer: Sequencer,
    open: HashMap<usize, Open>,
    plans: Vec<Plan>,
    /// Octets held of all.
    held: usize,
    planned: usize,
}

struct Open {
    reader: Direction,
    /// Octets that were read.
    read: u64,
    /// Octets behind a hole, by offset.
    waiting: BTreeMap<u64, Vec<u8>>,
    behind: usize,
    /// Offset of its FIN.
    end: Option<u64>,
}

impl Planner {
    /// The next segment; direction and offset of its octets.
    pub(super) fn segment(&mut self, map: &mut Mapping, ends: Ends, piece: &Piece<'_>) -> Option<(usize, i64)> {
        let place = self.sequencer.place(ends, piece);
        for direction in self.sequencer.over() {
            self.close(map, direction);
        }
        let place = place?;
        self.read(map, ends, piece, place);
        Some((place.direction, place.offset))
    }

    fn read(&mut self, map: &mut Mapping, ends: Ends, piece: &Piece<'_>, place: Place) {
        if let Some(late) = place.fresh {
            self.plans.resize_with(place.direction + 1, Plan::default);
            let reader = Direction::new((ends.0.port, ends.1.port), late);
            let open = Open { reader, read: 0, waiting: BTreeMap::new(), behind: 0, end: None };
            self.open.insert(place.direction, open);
        }
        if self.planned > PLANNED {
            return;
        }
        let Some(open) = self.open.get_mut(&place.direction) else { return };
        let Some(plan) = self.plans.get_mut(place.direction) else { return };
        let (held, weight) = (open.held(), plan.weight());
        open.take(map, plan, place.offset, piece);
        self.held = self.held + open.held() - held;
        self.planned += plan.weight() - weight;
        let over = open.reader.is_over() && open.waiting.is_empty();
        let ended = open.end.is_some_and(|end| open.read >= end);
        if over || ended || self.held > ALL_WAITING || piece.flags.has(Flags::RST) {
            self.close(map, place.direction);
        }
    }

    fn close(&mut self, map: &mut Mapping, direction: usize) {
        let (Some(mut open), Some(plan)) = (self.open.remove(&direction), self.plans.get_mut(direction)) else {
            return;
        };
        self.held -= open.held();
        while !open.waiting.is_empty() {
            open.skip(map, plan);
        }
        open.reader.end(map, plan);
        plan.shrink();
    }

    /// All that was planned, when every segment was seen.
    pub(super) fn finish(mut self, map: &mut Mapping) -> Vec<Plan> {
        let mut open: Vec<usize> = self.open.keys().copied().collect();
        open.sort_unstable();
        open.into_iter().for_each(|direction| self.close(map, direction));
        self.plans
    }
}

impl Open {
    fn held(&self) -> usize {
        self.behind + self.reader.held()
    }

    fn take(&mut self, map: &mut Mapping, plan: &mut Plan, offset: i64, piece: &Piece<'_>) {
        // Octets before the first that was seen are filled.
        let before = (-offset).clamp(0, piece.payload.len() as i64) as usize;
        let from = offset.max(0) as u64;
        let octets = &piece.payload[before..];
        if piece.flags.has(Flags::FIN) {
            self.end = Some((offset + i64::from(piece.wire)).max(0) as u64);
        }
        if from > self.read {
            if !octets.is_empty() && !self.waiting.contains_key(&from) {
                self.behind += octets.len();
                self.waiting.insert(from, octets.to_vec());
            }
            while self.behind > WAITING {
                self.skip(map, plan);
            }
            return;
        }
        self.read(map, plan, from, octets);
        let missing = (i64::from(piece.wire) - piece.payload.len() as i64).max(0) as u64;
        let end = (offset + i64::from(piece.wire)).max(0) as u64;
        if missing > 0 && end > self.read {
            // The capture did not keep them.
            self.reader.hole(map, plan, end - self.read);
            self.read = end;
        }
        self.waiting(map, plan);
    }

    fn read(&mut self, map: &mut Mapping, plan: &mut Plan, from: u64, octets: &[u8]) {
        let known = (self.read - from.min(self.read)).min(octets.len() as u64) as usize;
        let new = &octets[known..];
        if !new.is_empty() {
            self.reader.bytes(map, plan, new);
            self.read += new.len() as u64;
        }
    }

    /// Reads what waited and now fits.
    fn waiting(&mut self, map: &mut Mapping, plan: &mut Plan) {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() <= self.read) {
            let (from, octets) = entry.remove_entry();
            self.behind -= octets.len();
            self.read(map, plan, from, &octets);
        }
    }

    /// Gives up the first hole.
    fn skip(&mut self, map: &mut Mapping, plan: &mut Plan) {
        if let Some((from, _)) = self.waiting.first_key_value() {
            self.reader.hole(map, plan, from - self.read);
            self.read = *from;
        }
        self.waiting(map, plan);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;
    use crate::wire::Address;

    fn ends() -> Ends {
        (Endpoint::new(Address::v4([10, 0, 0, 1]), 50000), Endpoint::new(Address::v4([10, 0, 0, 2]), 80))
    }

    fn piece(seq: u32, flags: Flags, payload: &[u8]) -> Piece<'_> {
        Piece { seq, flags, payload, wire: payload.len() as u32 }
    }

    const STREAM: &[u8] = b"GET /private HTTP/1.1\r\nHost: shop.example.com\r\nCookie: a=secretive\r\n\r\n";

    fn planned(order: &[(usize, usize)], start: u32) -> Vec<u8> {
        let mut map = Mapping::new(&key(1), Level::All);
        let mut planner = Planner::default();
        planner.segment(&mut map, ends(), &piece(start, Flags::SYN, b""));
        for (from, to) in order {
            let seq = start.wrapping_add(1 + *from as u32);
            planner.segment(&mut map, ends(), &piece(seq, Flags::ACK, &STREAM[*from..*to]));
        }
        let plans = planner.finish(&mut map);
        let mut out = STREAM.to_vec();
        plans.first().expect("a plan").apply(0, &mut out);
        out
    }

    #[test]
    fn the_order_of_segments_and_copies_make_no_difference() {
        let whole = planned(&[(0, STREAM.len())], 7);
        assert!(!String::from_utf8_lossy(&whole).contains("secretive"));
        for order in [
            &[(0, 20), (20, 71)][..],
            &[(20, 71), (0, 20)],
            &[(0, 30), (10, 40), (35, 71)],
            &[(40, 71), (20, 40), (0, 20), (0, 20)],
        ] {
            let order: Vec<_> = order.iter().map(|(a, b)| (*a, (*b).min(STREAM.len()))).collect();
            assert_eq!(planned(&order, 7), whole);
            assert_eq!(planned(&order, u32::MAX - 10), whole);
        }
    }

    #[test]
    fn both_passes_find_the_same_places() {
        let pieces = [
            piece(100, Flags::SYN, b""),
            piece(101, Flags::ACK, b"abc"),
            piece(100, Flags::SYN, b""),
            piece(104, Flags::ACK, b"def"),
            piece(101, Flags::ACK, b"abc"),
            piece(9000, Flags::SYN, b""),
            piece(9001, Flags::ACK, b"x"),
        ];
        let places = || {
            let mut sequencer = Sequencer::default();
            pieces
                .iter()
                .map(|piece| sequencer.place(ends(), piece).map(|place| (place.direction, place.offset)))
                .collect::<Vec<_>>()
        };
        assert_eq!(places(), places());
        let found: Vec<_> = places().into_iter().flatten().collect();
        assert_eq!(found, [(0, 0), (0, 3), (0, 0), (1, 0)]);
    }
}
