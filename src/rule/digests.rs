//! Digests of flows that are no longer kept whole, in the order of their first packets.

use serde::{Deserialize, Serialize};

use super::summary::Digest;
use crate::event::PacketRef;

/// A sorted list: each tells its own place, and there are most of them at the end, when memory is fullest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digests(Vec<Digest>);

impl Digests {
    /// Puts them in order; of one flow one stays.
    pub fn of(mut digests: Vec<Digest>) -> Self {
        // Times and places are sorted, then each digest is moved once.
        digests.sort_by_cached_key(|digest| digest.id);
        digests.dedup_by_key(|digest| digest.id);
        Self(digests)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Digest> {
        self.0.iter()
    }

    /// That of the flow with this first packet.
    pub fn get(&self, flow: PacketRef) -> Option<&Digest> {
        let place = self.0.binary_search_by_key(&flow, |digest| digest.id).ok()?;
        self.0.get(place)
    }

    /// Those of flows that began before this packet.
    pub fn before(&self, at: PacketRef) -> &[Digest] {
        let count = self.0.partition_point(|digest| digest.id < at);
        self.0.get(..count).unwrap_or(&[])
    }

    /// Adds others.
    pub fn merge(&mut self, other: Self) {
        if !other.is_empty() {
            let mut all = std::mem::take(&mut self.0);
            all.extend(other.0);
            *self = Self::of(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    #[test]
    fn each_is_found_by_its_first_packet_in_whatever_order_they_came() {
        let digest =
            |number: u64| Scene::starting("10.0.0.1:40000", "10.0.0.2:80", number, number as i64).summary().digest;
        let mut digests = Digests::of([7, 2, 9].map(digest).into());
        digests.merge(Digests::of([8, 1, 7].map(digest).into()));
        digests.merge(Digests::default());
        let numbers = |digests: &[Digest]| digests.iter().map(|digest| digest.id.number).collect::<Vec<_>>();
        assert_eq!(numbers(&digests.0), [1, 2, 7, 8, 9]);
        assert_eq!(digests.get(digest(8).id), Some(&digest(8)));
        assert_eq!(digests.get(digest(3).id), None);
        assert_eq!(numbers(digests.before(digest(8).id)), [1, 2, 7]);
        assert_eq!(numbers(digests.before(digest(3).id)), [1, 2]);
        assert!(digests.before(digest(1).id).is_empty() && Digests::default().is_empty() && digests.len() == 5);
    }
}
