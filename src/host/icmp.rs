//! ICMP errors about packets of flows that are not in the capture: counted by kind, the first ones kept.

use serde::{Deserialize, Serialize};

use crate::event::PacketRef;
use crate::wire::Address;
use crate::wire::icmp::IcmpError;

/// All such errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StrayErrors {
    /// The first 256.
    pub kept: Vec<StrayError>,
    /// How many there were of each kind, in their order.
    pub counts: Vec<Count>,
}

/// One error and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrayError {
    /// Its packet.
    pub at: PacketRef,
    /// Its sender: the last device that the quoted packet reached.
    pub from: Address,
    /// What it says.
    pub error: IcmpError,
}

/// Errors of one type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Count {
    /// ICMPv6.
    pub v6: bool,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// How many.
    pub count: u64,
}

impl StrayErrors {
    /// Errors kept; the others are only counted.
    pub const CAP: usize = 256;

    /// Learns from an error that quotes no known flow.
    pub fn learn(&mut self, at: PacketRef, from: Address, error: &IcmpError) {
        let IcmpError { v6, kind, code, .. } = *error;
        self.count(Count { v6, kind, code, count: 1 });
        self.keep(StrayError { at, from, error: *error });
    }

    /// Adds what another shard or file learnt. Associative and commutative.
    pub fn merge(&mut self, other: Self) {
        other.counts.into_iter().for_each(|count| self.count(count));
        other.kept.into_iter().for_each(|error| self.keep(error));
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|known| known.count).sum()
    }

    fn count(&mut self, more: Count) {
        match self.counts.iter_mut().find(|known| (known.v6, known.kind, known.code) == (more.v6, more.kind, more.code))
        {
            Some(known) => known.count += more.count,
            None => {
                let place = self.counts.partition_point(|known| *known < more);
                self.counts.insert(place, more);
            }
        }
    }

    fn keep(&mut self, error: StrayError) {
        let place = self.kept.partition_point(|known| known.at <= error.at);
        if place < Self::CAP {
            self.kept.insert(place, error);
            self.kept.truncate(Self::CAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::wire::icmp::parse_error4;
    use crate::wire::samples::{self, octets};

    fn part(numbers: impl Iterator<Item = u64>) -> StrayErrors {
        let mut errors = StrayErrors::default();
        let mut error = parse_error4(&octets(samples::ICMP_FRAG_NEEDED)).expect("an error");
        for number in numbers {
            error.code = (number % 3) as u8;
            let at = PacketRef { file: 0, number, time: Timestamp(number as i64) };
            errors.learn(at, Address::v4([192, 0, 2, 1]), &error);
        }
        errors
    }

    #[test]
    fn the_first_are_kept_and_all_are_counted() {
        let errors = part(0..1_000);
        assert_eq!((errors.kept.len(), errors.total()), (StrayErrors::CAP, 1_000));
        assert_eq!(
            errors.counts.iter().map(|known| (known.code, known.count)).collect::<Vec<_>>(),
            [(0, 334), (1, 333), (2, 333)]
        );
        assert!(errors.kept.iter().enumerate().all(|(place, error)| error.at.number == place as u64));
    }

    #[test]
    fn merging_does_not_depend_on_the_order() {
        let (even, odd) = (part((0..600).filter(|n| n % 2 == 0)), part((0..600).filter(|n| n % 2 == 1)));
        let mut one = even.clone();
        one.merge(odd.clone());
        let mut other = odd;
        other.merge(even);
        assert_eq!((&one, &one), (&other, &part(0..600)));
    }
}
