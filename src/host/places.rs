//! Values by key, with the place of a key that came a moment ago at hand: packets and flows come in bursts of few hosts.

use std::collections::HashMap;
use std::hash::Hash;

use prefetch_index::prefetch_index;

use crate::wire::{Address, Endpoint};

/// Values by key, at most so many.
#[derive(Clone)]
pub(crate) struct Places<K, V> {
    all: Vec<(K, V)>,
    places: HashMap<K, u32, foldhash::fast::RandomState>,
    recent: Box<[u32; RECENT]>,
    most: usize,
}

/// Places at hand.
const RECENT: usize = 2048;
/// 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
pub(super) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Keys that can be spread over the places at hand. Two keys of the same spread only cost each other time.
pub(crate) trait Key: Copy + Eq + Hash {
    /// Any number of the key.
    fn number(&self) -> u64;
}

impl Key for Address {
    fn number(&self) -> u64 {
        (self.0 as u64) ^ (self.0 >> 64) as u64
    }
}

impl Key for Endpoint {
    fn number(&self) -> u64 {
        self.address.number() ^ u64::from(self.port) << 40
    }
}

impl<K: Key, V: Default> Places<K, V> {
    /// None yet, and never more than `most`.
    pub(crate) fn new(most: usize) -> Self {
        Self { all: Vec::new(), places: HashMap::default(), recent: Box::new([0; RECENT]), most }
    }

    /// The value of a key, new if need be; `None` when there is no room for another.
    #[inline(always)]
    pub(crate) fn get(&mut self, key: K) -> Option<&mut V> {
        let slot = Self::slot(key);
        let mut place = self.recent[slot] as usize;
        if self.all.get(place).is_none_or(|(known, _)| *known != key) {
            place = self.place(key, slot)?;
        }
        self.all.get_mut(place).map(|(_, value)| value)
    }

    /// Sends for where the place of a key is told, for [`Places::near`].
    #[inline]
    pub(crate) fn approach(&self, key: K) {
        prefetch_index(self.recent.as_slice(), Self::slot(key));
    }

    /// The place where the value of a key is, if it is at hand; nothing was read of it yet.
    #[inline]
    pub(crate) fn near(&self, key: K) -> Option<&(K, V)> {
        self.all.get(*self.recent.get(Self::slot(key))? as usize)
    }

    #[inline]
    fn slot(key: K) -> usize {
        (key.number().wrapping_mul(SPREAD) >> (u64::BITS - RECENT.ilog2())) as usize
    }

    /// The place of a key that is not at hand, which it is from now on.
    #[cold]
    #[inline(never)]
    fn place(&mut self, key: K, slot: usize) -> Option<usize> {
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None if self.all.len() >= self.most => return None,
            None => {
                let place = self.all.len() as u32;
                self.all.push((key, V::default()));
                self.places.insert(key, place);
                place
            }
        };
        self.recent[slot] = place;
        Some(place as usize)
    }

    /// The value of a key that came before.
    pub(crate) fn known(&mut self, key: &K) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        self.all.get_mut(place as usize).map(|(_, value)| value)
    }

    /// All of them, in the order in which their keys came.
    pub(crate) fn into_all(self) -> Vec<(K, V)> {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_keeps_its_value_however_many_share_a_place_at_hand() {
        let mut places: Places<Address, u64> = Places::new(5000);
        for round in 1..=3 {
            for number in 0..5000_u64 {
                let value = places.get(Address(number.into())).expect("there is room");
                assert_eq!(*value, (round - 1) * number);
                *value += number;
            }
        }
        assert_eq!(places.into_all().len(), 5000);
    }

    #[test]
    fn a_key_beyond_the_room_has_no_value_and_the_others_keep_theirs() {
        let mut places: Places<Address, u64> = Places::new(1);
        *places.get(Address(7)).expect("the first") = 70;
        assert_eq!(places.get(Address(8)), None);
        assert_eq!(places.known(&Address(8)), None);
        assert_eq!(places.get(Address(7)).copied(), Some(70));
    }
}
