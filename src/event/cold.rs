//! Shorthand for what is kept of a flow of which nothing is heard: plain values to few octets, and back to the very same values.
//!
//! What serde derives says which values there are, in which order; nothing in the octets tells it again. Three things make them few:
//!
//! - Numbers take as many octets as they need: one below 248, else one that tells how many follow.
//! - A flow of a hundred values points to a handful of packets: each [`PacketRef`](super::PacketRef) is written once, as the distance to
//!   the one before, and elsewhere it is one octet. Sequence numbers ([`Seq`](crate::wire::seq::Seq)) lie close to few others: the distance
//!   to one of those is written.
//! - Most values are zero: of eight octets, one tells which are not, and only those follow.
//!
//! The octets never leave the process that wrote them. Octets that make no sense give no values, and no panic.

mod read;
mod write;

pub use read::Thawer;
pub use write::Freezer;

use std::fmt;

/// Up to here a number is one octet; above, this and how many octets follow.
const ONE_OCTET: u64 = 0xf7;
/// Distances up to here are written to a sequence number that is known.
const NEAR: u32 = 1 << 20;
/// Sequence numbers that others are measured from: zero, one or two of each direction, and what is odd.
const ANCHORS: usize = 7;

/// The values cannot be written, or the octets not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no shorthand")
    }
}

impl std::error::Error for Refused {}

impl serde::ser::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// A number whose sign is its lowest bit: small either side of zero.
fn folded(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unfolded(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn write_number(octets: &mut Vec<u8>, number: u64) {
    if number <= ONE_OCTET {
        octets.push(number as u8);
        return;
    }
    let all = number.to_le_bytes();
    let len = 8 - number.leading_zeros() as usize / 8;
    octets.push(ONE_OCTET as u8 + len as u8);
    octets.extend_from_slice(all.get(..len).unwrap_or(&all));
}

/// Takes a number off the front.
fn read_number(octets: &mut &[u8]) -> Result<u64, Refused> {
    let (first, rest) = octets.split_first().ok_or(Refused)?;
    let len = usize::from(*first).saturating_sub(ONE_OCTET as usize);
    if len == 0 {
        *octets = rest;
        return Ok(u64::from(*first));
    }
    let (number, rest) = rest.split_at_checked(len).ok_or(Refused)?;
    *octets = rest;
    let mut all = [0; 8];
    all.get_mut(..len).ok_or(Refused)?.copy_from_slice(number);
    Ok(u64::from_le_bytes(all))
}

/// Of eight octets, one that tells which are not zero, and those.
fn squeeze(octets: &[u8], out: &mut Vec<u8>) {
    for word in octets.chunks(8) {
        let place = out.len();
        out.push(0);
        let mut told = 0;
        for (bit, octet) in word.iter().enumerate().filter(|(_, octet)| **octet != 0) {
            told |= 1 << bit;
            out.push(*octet);
        }
        if let Some(place) = out.get_mut(place) {
            *place = told;
        }
    }
}

/// The octets that were squeezed, and up to seven zeros.
fn unsqueeze(mut octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() * 2);
    while let Some((told, rest)) = octets.split_first() {
        octets = rest;
        for bit in 0..8 {
            let octet = match (told >> bit & 1, octets.split_first()) {
                (1, Some((octet, rest))) => {
                    octets = rest;
                    *octet
                }
                _ => 0,
            };
            out.push(octet);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use smallvec::{SmallVec, smallvec};

    use super::*;
    use crate::event::{Event, PacketRef, Protocol, Side, Stamp, What};
    use crate::time::{Elapsed, Timestamp};
    use crate::wire::seq::Seq;
    use crate::wire::{Address, Endpoint};

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    enum Shape {
        #[default]
        Unit,
        One(u16),
        Two(i64, Option<Box<Shape>>),
        Named {
            deep: Vec<(bool, u8)>,
        },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        numbers: (u8, u16, u32, u64, u128, usize),
        signed: (i8, i16, i32, i64, i128),
        words: (String, char, compact_str::CompactString, Box<str>),
        shapes: [Shape; 4],
        list: SmallVec<[u32; 1]>,
        line: VecDeque<Option<bool>>,
        map: BTreeMap<u16, ()>,
        ends: (Address, Endpoint),
        event: Event,
    }

    fn through<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> (T, usize) {
        let mut freezer = Freezer::default();
        freezer.put(value).expect("plain values");
        let octets = freezer.finish(&[9, 9]);
        let mut thawer = Thawer::of(octets.get(2..).expect("what was put before")).expect("as it was written");
        (thawer.take().expect("the same values"), octets.len() - 2)
    }

    fn at(number: u64, time: i64) -> PacketRef {
        PacketRef { file: 1, number, time: Timestamp(time) }
    }

    #[test]
    fn every_kind_of_value_comes_back() {
        let shapes = [
            Shape::Unit,
            Shape::One(4711),
            Shape::Two(i64::MIN, Some(Box::default())),
            Shape::Named { deep: vec![(true, 255), (false, 0)] },
        ];
        let value = Everything {
            numbers: (255, u16::MAX, 248, u64::MAX, u128::MAX - 1, 247),
            signed: (-1, i16::MIN, i32::MAX, -5, i128::MIN + 3),
            words: ("Grüße".into(), '→', "GET".into(), "".into()),
            shapes,
            list: smallvec![1, 2, 3],
            line: VecDeque::from([None, Some(false), Some(true)]),
            map: BTreeMap::from([(7, ()), (300, ())]),
            ends: (Address(1), Endpoint::new(Address::v4([10, 0, 0, 1]), 443)),
            event: Event { at: at(5, -7), side: Side::Server, what: What::Recognised { protocol: Protocol::Tls } },
        };
        assert_eq!(through(&value).0, value);
    }

    #[test]
    fn a_packet_that_is_named_again_takes_an_octet() {
        let first = at(1_000_000, 1_700_000_000_000_001_000);
        let later = at(1_000_002, 1_700_000_000_020_001_000);
        let once = through(&vec![first, later]);
        assert_eq!(once.0, [first, later]);
        let many = through(&vec![first, later, first, later, first, later, later, later]);
        assert!(many.1 <= once.1 + 6, "{} after {}", many.1, once.1);
        let stamp = Stamp::from(later);
        assert_eq!(through(&Some(stamp)).0, Some(stamp));
    }

    #[test]
    fn sequence_numbers_beside_one_another_take_few_octets() {
        let all: Vec<Seq> = (0..10).map(|n| Seq(u32::MAX - 4).plus(n * 3)).collect();
        let (back, len) = through(&all);
        assert_eq!(back, all);
        assert!(len < 30, "{len}");
    }

    #[test]
    fn octets_cut_short_or_of_other_values_give_nothing() {
        let mut freezer = Freezer::default();
        freezer.put(&(vec![at(1, 2), at(3, 4)], "words", Shape::One(3))).expect("plain values");
        let octets = freezer.finish(&[]);
        for cut in 0..octets.len() {
            if let Some(mut thawer) = Thawer::of(&octets[..cut]) {
                let _: Option<(Vec<PacketRef>, String, Shape)> = thawer.take();
            }
        }
        let mut thawer = Thawer::of(&octets).expect("whole");
        assert_eq!(thawer.take::<(Shape, u128, char)>(), None);
    }

    proptest! {
        #[test]
        fn numbers_come_back(numbers: Vec<u64>, signed: Vec<i64>, packets: Vec<(u16, u64, i64)>, seqs: Vec<u32>) {
            let packets = packets.into_iter().map(|(file, number, time)| PacketRef { file, number, time: Timestamp(time) });
            let seqs = seqs.into_iter().map(Seq);
            let spans: Vec<Elapsed> = signed.iter().map(|span| Elapsed(*span)).collect();
            let value = (numbers, signed, packets.collect::<Vec<_>>(), seqs.collect::<Vec<_>>(), spans);
            prop_assert_eq!(&through(&value).0, &value);
        }

        #[test]
        fn senseless_octets_do_no_harm(octets: Vec<u8>) {
            if let Some(mut thawer) = Thawer::of(&octets) {
                let _: Option<Everything> = thawer.take();
                let _: Option<Vec<Event>> = thawer.take();
            }
        }
    }
}
