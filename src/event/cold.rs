//! Shorthand for what is kept of a flow of which nothing is heard: plain values to few octets, and back to the very same values.
//!
//! What serde derives says which values there are, in which order; nothing in the octets tells it again. Three things make them few:
//!
//! - A flow of a hundred values points to a handful of packets: each [`PacketRef`](super::PacketRef) is written once, as the distance to
//!   the one before, and elsewhere it is a small number. Sequence numbers ([`Seq`](crate::wire::seq::Seq)) lie close to few others: the
//!   distance to one of those is written.
//! - What many flows have in common is written once ([`Templates`]): of a flow whose values have the same shape as those of one before, only
//!   the values that differ, by how much, and how many lie between them.
//! - Numbers take as many octets as they need.
//!
//! The octets never leave the process that wrote them. Octets that make no sense give no values, and no panic.

mod read;
mod template;
mod write;

pub use read::Thawer;
pub use template::Templates;
pub use write::Freezer;

use std::fmt;

/// Up to here a number is one octet; above, this and how many octets follow.
const ONE_OCTET: u64 = 0xf7;
/// Values of one flow at most.
const MOST: usize = 1 << 16;
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

/// One value that is no composition of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Number(u64),
    /// From where to where in the texts beside it.
    Text(u32, u32),
}

/// Values one behind the other.
#[derive(Clone, Debug, Default)]
struct Tokens {
    all: Vec<Token>,
    texts: Vec<u8>,
}

impl Tokens {
    fn number(&mut self, number: u64) {
        self.all.push(Token::Number(number));
    }

    fn text(&mut self, text: &[u8]) {
        let from = self.texts.len() as u32;
        self.texts.extend_from_slice(text);
        self.all.push(Token::Text(from, self.texts.len() as u32));
    }

    /// The text of a token; none where it is no text.
    fn text_of(&self, token: Token) -> &[u8] {
        match token {
            Token::Text(from, to) => self.texts.get(from as usize..to as usize).unwrap_or(&[]),
            Token::Number(_) => &[],
        }
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
        let mut templates = Templates::default();
        let octets = freezer.finish(&[9, 9], &mut templates);
        let mut thawer = Thawer::of(&octets[2..], &templates).expect("as it was written");
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
    fn of_a_second_flow_only_what_differs_is_written() {
        let flow = |n: u32| {
            let host = format!("shop-{n}.example.com");
            let packets = [at(u64::from(n), 1_000), at(u64::from(n) + 7, 9_000_000)];
            (packets, host, "GET".to_owned(), [0u32; 30], Seq(n.wrapping_mul(0x0901_0203)), "/", vec![n; 3])
        };
        let mut templates = Templates::default();
        let mut write = |n| {
            let mut freezer = Freezer::default();
            freezer.put(&flow(n)).expect("plain values");
            freezer.finish(&[], &mut templates)
        };
        let all: Vec<_> = (100_000..101_000).map(&mut write).collect();
        assert!(all.iter().all(|octets| octets.len() < 48), "{}", all[999].len());
        assert!(templates.memory() < 4_000);
        for (n, octets) in (100_000..).zip(&all) {
            let (packets, host, ..) = flow(n);
            assert_eq!(Thawer::first(octets), Some(packets[0]));
            let mut thawer = Thawer::of(octets, &templates).expect("as it was written");
            assert_eq!(thawer.take(), Some((packets, host)));
        }
    }

    #[test]
    fn beyond_the_shapes_that_are_remembered_everything_is_written() {
        let mut templates = Templates::default();
        for len in 0..2000_usize {
            let mut freezer = Freezer::default();
            let value = (vec![7u32; len], vec![String::new(); 3], 0u64);
            freezer.put(&value).expect("plain values");
            let octets = freezer.finish(&[], &mut templates);
            let mut thawer = Thawer::of(&octets, &templates).expect("as it was written");
            assert_eq!(thawer.take(), Some(value));
        }
        assert!(templates.memory() < 3 << 20, "{}", templates.memory());
    }

    #[test]
    fn a_packet_that_is_named_again_takes_an_octet() {
        let first = at(1_000_000, 1_700_000_000_000_001_000);
        let later = at(1_000_002, 1_700_000_000_020_001_000);
        let once = through(&vec![first, later]);
        assert_eq!(once.0, [first, later]);
        let many = through(&vec![first, later, first, later, first, later, later, later]);
        assert!(many.1 <= once.1 + 12, "{} after {}", many.1, once.1);
        let stamp = Stamp::from(later);
        assert_eq!(through(&Some(stamp)).0, Some(stamp));
    }

    #[test]
    fn sequence_numbers_beside_one_another_take_few_octets() {
        let all: Vec<Seq> = (0..10).map(|n| Seq(u32::MAX - 4).plus(n * 3)).collect();
        let (back, len) = through(&all);
        assert_eq!(back, all);
        assert!(len < 40, "{len}");
    }

    #[test]
    fn octets_cut_short_or_of_other_values_give_nothing() {
        let mut freezer = Freezer::default();
        freezer.put(&(vec![at(1, 2), at(3, 4)], "words", Shape::One(3))).expect("plain values");
        let mut templates = Templates::default();
        let octets = freezer.finish(&[], &mut templates);
        for cut in 0..octets.len() {
            if let Some(mut thawer) = Thawer::of(&octets[..cut], &templates) {
                let _: Option<(Vec<PacketRef>, String, Shape)> = thawer.take();
            }
        }
        let mut thawer = Thawer::of(&octets, &templates).expect("whole");
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
            if let Some(mut thawer) = Thawer::of(&octets, &Templates::default()) {
                let _: Option<Everything> = thawer.take();
                let _: Option<Vec<Event>> = thawer.take();
            }
        }
    }
}
