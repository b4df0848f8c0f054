//! Flows of which nothing was heard for a while, frozen: where very many are open, some hundred octets each instead of some thousand.
//!
//! Nothing is lost: everything that is known of such a flow, here and on the floors above, is written down in shorthand
//! ([`crate::event::cold`]). Outside of it lies only what says when the flow is to be looked at, how long it is idle, and whether it has
//! anything to tell. An HTTP flow that waits for more takes 233 octets in shorthand, its name with them (measured, docs/performance.md);
//! beside it 40 here, 11 in the index and some 24 in the wheel.

use hashbrown::HashTable;

use super::key::Key;
use super::limits::index_octets;
use crate::event::PacketRef;
use crate::event::cold::{Templates, Thawer};
use crate::time::Timestamp;

/// Places of one block: what is taken at once.
const BLOCK: usize = 1024;
/// Flows looked at for the one that is idle for longest.
const SAMPLE: usize = 32;
/// What the wheel takes for a frozen flow: its visit, and the one of before.
const VISITS: usize = 24;

/// One frozen flow.
#[derive(Default)]
pub(super) struct Cold {
    /// Time of its latest packet.
    pub(super) last: Timestamp,
    /// When it leaves the table if nothing more comes.
    pub(super) deadline: Timestamp,
    /// The step at which the wheel will bring it up, its lower half.
    pub(super) due: u32,
    /// It has something to tell before it leaves.
    pub(super) tells: bool,
    /// Its name, and everything else behind it. Empty: nobody is here.
    octets: Box<[u8]>,
}

impl Cold {
    /// One of this shorthand, its name before it; `last` and `deadline` as below, and nothing planned yet.
    pub(super) fn new((last, deadline): (Timestamp, Timestamp), tells: bool, octets: Box<[u8]>) -> Self {
        Self { last, deadline, due: 0, tells, octets }
    }

    fn key(&self) -> Option<Key> {
        Key::of_short(&self.octets).map(|(key, _)| key)
    }

    /// Its first packet.
    pub(super) fn id(&self) -> Option<PacketRef> {
        Key::of_short(&self.octets).and_then(|(_, rest)| Thawer::first(rest))
    }

    /// Its name, and what reads the rest.
    pub(super) fn open(&self, templates: &Templates) -> Option<(Key, Thawer)> {
        let (key, rest) = Key::of_short(&self.octets)?;
        Some((key, Thawer::of(rest, templates)?))
    }

    /// What its shorthand takes, with what memory is given in.
    fn takes(&self) -> usize {
        self.octets.len() + self.octets.len() / 12 + 8
    }
}

/// All frozen flows of a table.
pub(super) struct Frozen {
    seed: u64,
    blocks: Vec<Vec<Cold>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    /// What they have in common.
    pub(super) templates: Templates,
    /// What their shorthand takes.
    octets: usize,
    /// Most of them at one time.
    most: usize,
    /// Where the search for an idle one goes on.
    hand: u32,
}

impl Frozen {
    /// None yet.
    pub(super) fn new(seed: u64) -> Self {
        let templates = Templates::default();
        Self {
            seed,
            blocks: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            templates,
            octets: 0,
            most: 0,
            hand: 0,
        }
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Octets they take.
    pub(super) fn memory(&self) -> usize {
        self.octets
            + self.blocks.len() * BLOCK * (size_of::<Cold>() + size_of::<u32>())
            + index_octets(self.most, size_of::<u32>())
            + self.len() * VISITS
            + self.templates.memory()
    }

    /// The number of the next one that is put here, by which the wheel is told of it.
    pub(super) fn next(&mut self) -> u32 {
        if let Some(number) = self.free.last() {
            return *number;
        }
        let number = (self.blocks.len() * BLOCK) as u32;
        self.blocks.push((0..BLOCK).map(|_| Cold::default()).collect());
        self.free.extend((number..number + BLOCK as u32).rev());
        number
    }

    /// Puts a flow at [`Frozen::next`].
    pub(super) fn put(&mut self, hash: u64, cold: Cold) {
        let number = self.next();
        self.octets += cold.takes();
        if let Some(place) = self.at(number) {
            *place = cold;
        }
        self.free.pop();
        let (blocks, seed) = (&self.blocks, self.seed);
        self.index.insert_unique(hash, number, |number| hash_at(blocks, seed, *number));
        self.most = self.most.max(self.index.len());
    }

    /// The flow of this name.
    pub(super) fn find(&self, key: &Key, hash: u64) -> Option<u32> {
        self.index
            .find(hash, |number| self.get(*number).and_then(Cold::key).is_some_and(|known| known == *key))
            .copied()
    }

    /// The flow at a place.
    pub(super) fn get(&self, number: u32) -> Option<&Cold> {
        let number = number as usize;
        self.blocks.get(number / BLOCK)?.get(number % BLOCK).filter(|cold| !cold.octets.is_empty())
    }

    /// The place itself.
    pub(super) fn at(&mut self, number: u32) -> Option<&mut Cold> {
        let number = number as usize;
        self.blocks.get_mut(number / BLOCK)?.get_mut(number % BLOCK)
    }

    /// Takes out the flow at a place.
    pub(super) fn take(&mut self, number: u32) -> Option<Cold> {
        let hash = self.get(number)?.key()?.hash(self.seed);
        self.index.find_entry(hash, |other| *other == number).ok()?.remove();
        let cold = std::mem::take(self.at(number)?);
        self.octets -= cold.takes();
        self.free.push(number);
        if self.len() == 0 && self.blocks.len() > 1 {
            // Many were open, and no more are.
            (self.blocks, self.free, self.index) = (Vec::new(), Vec::new(), HashTable::new());
            self.most = 0;
        }
        Some(cold)
    }

    /// All of them, by their first packets.
    pub(super) fn all(&self) -> impl Iterator<Item = (PacketRef, u32)> {
        let numbers = (0..(self.blocks.len() * BLOCK) as u32).filter_map(|number| Some((self.get(number)?, number)));
        numbers.filter_map(|(cold, number)| Some((cold.id()?, number)))
    }

    /// The longest idle of a sample.
    pub(super) fn idle(&mut self) -> Option<u32> {
        let all = (self.blocks.len() * BLOCK) as u32;
        let numbers = (0..all).map(|step| ((u64::from(self.hand) + u64::from(step)) % u64::from(all)) as u32);
        let here = numbers.filter_map(|number| Some((self.get(number)?.last, number)));
        let (_, number) = here.take(SAMPLE).min_by_key(|(last, _)| *last)?;
        self.hand = number + 1;
        Some(number)
    }
}

fn hash_at(blocks: &[Vec<Cold>], seed: u64, number: u32) -> u64 {
    let number = number as usize;
    let cold = blocks.get(number / BLOCK).and_then(|block| block.get(number % BLOCK));
    cold.and_then(Cold::key).map_or(0, |key| key.hash(seed))
}
