//! A map of few entries: one list in the order of the keys. A tree takes room for eleven entries where there is one.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::slice;

use prefetch_index::prefetch_index;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Values by key, in the order of the keys. Serialised as a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> Few<K, V> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Octets it takes beside itself, without what its entries point to.
    pub fn weight(&self) -> usize {
        self.0.capacity() * size_of::<(K, V)>()
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key).ok()?;
        self.0.get_mut(place).map(|(_, value)| value)
    }

    /// Whether a key is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_ok()
    }

    /// The value of a key; `new` where there is none yet.
    pub fn or_insert(&mut self, key: K, new: V) -> &mut V {
        let place = self.place(&key).unwrap_or_else(|place| {
            if self.0.len() == self.0.capacity() {
                // Room for one, two, four: most never have more than one.
                self.0.reserve_exact(self.0.len().max(1));
            }
            self.0.insert(place, (key, new));
            place
        });
        &mut self.0[place].1
    }

    /// Sends for the first of them.
    pub(crate) fn approach(&self) {
        prefetch_index(&self.0, 0);
    }

    /// Sends for the keys, which a search compares.
    pub(crate) fn approach_any(&self) {
        self.keys().for_each(|key| prefetch_index(slice::from_ref(key), 0));
    }

    /// Keys and values.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(known, _)| known.borrow().cmp(key))
    }
}

impl<K: Ord, V: Default> Few<K, V> {
    /// The value of a key; the plain one where there is none yet.
    pub fn or_default(&mut self, key: K) -> &mut V {
        self.or_insert(key, V::default())
    }
}

/// What [`Few::iter`] returns.
pub type Iter<'a, K, V> = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&(K, V)) -> (&K, &V)>;

impl<'a, K: Ord, V> IntoIterator for &'a Few<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V> IntoIterator for Few<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Serialize + Ord, V: Serialize> Serialize for Few<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Few<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(BTreeMap::deserialize(deserializer)?.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_map_that_a_tree_is() {
        let (mut few, mut tree) = (Few::default(), BTreeMap::new());
        for number in [5_u32, 3, 9, 3, 1, 5, 7, 9, 9] {
            *few.or_default(number) += 1;
            *tree.entry(number).or_insert(0) += 1;
        }
        assert!(few.iter().eq(&tree) && few.keys().eq(tree.keys()) && few.values().eq(tree.values()));
        assert_eq!((few.get(&9), few.get(&2), few.contains_key(&1), few.len()), (Some(&3), None, true, 5));
        assert_eq!(serde_json::to_string(&few).ok(), serde_json::to_string(&tree).ok());
        let read: Few<u32, i32> = serde_json::from_str(r#"{"9":1,"3":2}"#).expect("a map");
        assert!(read.into_iter().eq([(3, 2), (9, 1)]));
    }

    #[test]
    fn one_entry_takes_the_room_of_one() {
        let mut few = Few::default();
        few.or_insert(7_u64, [0_u64; 3]);
        assert_eq!(few.weight(), 32);
    }
}
