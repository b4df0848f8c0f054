//! Which names the DNS gave to addresses, when, and for how long: learnt from answers in the capture.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::few::Few;
use crate::event::PacketRef;
use crate::time::{Elapsed, Timestamp};
use crate::wire::dns::DnsMessage;
use crate::wire::{Address, ShortText};

/// All names seen, by address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Names {
    by_address: BTreeMap<Address, Few<ShortText, Lease>>,
    /// The same the other way round: addresses in their order.
    by_name: BTreeMap<ShortText, Vec<Address>>,
    /// Answers beyond the caps.
    pub beyond_cap: u64,
    /// What all names take together, about.
    octets: usize,
}

/// One name of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The first answer that gave it.
    pub first: PacketRef,
    /// The latest one.
    pub last: PacketRef,
    /// Who got the latest one.
    pub asker: Address,
    /// Seconds for which the latest one may be believed.
    pub ttl: u32,
}

impl Lease {
    /// Until when the latest answer may be believed.
    pub fn expires(&self) -> Timestamp {
        self.last.time + Elapsed::secs(self.ttl.into())
    }
}

impl Names {
    /// Addresses kept.
    pub const CAP: usize = 8192;
    /// Names kept of one address: virtual hosts behind one balancer may be thousands.
    const NAMES: usize = 16;
    /// Octets that all names may take: some thirty thousand ordinary ones.
    const OCTETS: usize = 8 << 20;

    /// Learns from an answer that `asker` got. The name is the one that was asked for: it is what people know.
    pub fn learn(&mut self, at: PacketRef, message: &DnsMessage, asker: Address) {
        if !message.response || message.name.is_empty() {
            return;
        }
        for (address, ttl) in &message.addresses {
            self.note(*address, &message.name, Lease { first: at, last: at, asker, ttl: *ttl });
        }
    }

    /// Sends for what is known of the addresses of an answer from which is learnt soon.
    pub(crate) fn approach(&self, message: &DnsMessage) {
        let known = message.addresses.iter().filter_map(|(address, _)| self.by_address.get(address));
        known.for_each(Few::approach_any);
    }

    /// Adds what another shard or file learnt: the latest answer by (time, packet) wins. Associative and commutative, below the caps.
    pub fn merge(&mut self, other: Self) {
        let Self { by_address, by_name, beyond_cap, octets: _ } = other;
        drop(by_name);
        self.beyond_cap += beyond_cap;
        for (address, names) in by_address {
            for (name, lease) in names {
                self.note(address, &name, lease);
            }
        }
    }

    /// The name of an address at `time`: the latest that was given before, else the first that was given after.
    pub fn name_of(&self, address: Address, time: Timestamp) -> Option<(&str, Lease)> {
        let names = self.by_address.get(&address)?.iter();
        let before = names.clone().filter(|(_, lease)| lease.first.time <= time).max_by_key(|(_, lease)| lease.last);
        let found = before.or_else(|| names.min_by_key(|(_, lease)| lease.first));
        found.map(|(name, lease)| (name.as_str(), *lease))
    }

    /// All names of an address, in their order.
    pub fn names_of(&self, address: Address) -> impl Iterator<Item = (&str, Lease)> {
        let names = self.by_address.get(&address).into_iter().flat_map(Few::iter);
        names.map(|(name, lease)| (name.as_str(), *lease))
    }

    /// The addresses that were given to a name (lower case, no final dot).
    pub fn addresses_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Address, Lease)> + 'a {
        let addresses = self.by_name.get(name).into_iter().flatten();
        addresses.filter_map(move |address| Some((*address, *self.by_address.get(address)?.get(name)?)))
    }

    /// Every name with all addresses it was given, in their order.
    pub fn by_name(&self) -> &BTreeMap<ShortText, Vec<Address>> {
        &self.by_name
    }

    fn note(&mut self, address: Address, name: &str, lease: Lease) {
        let room = self.octets < Self::OCTETS;
        let room_for_address = room && self.by_address.len() < Self::CAP;
        match self.by_address.get_mut(&address) {
            Some(names) => {
                if let Some(known) = names.get_mut(name) {
                    known.first = known.first.min(lease.first);
                    if lease.last > known.last {
                        (known.last, known.ttl, known.asker) = (lease.last, lease.ttl, lease.asker);
                    }
                    return;
                }
                if !room {
                    self.beyond_cap += 1;
                    return;
                }
                if names.len() >= Self::NAMES {
                    return;
                }
                names.or_insert(name.into(), lease);
            }
            None if !room_for_address => {
                self.beyond_cap += 1;
                return;
            }
            None => {
                let mut names = Few::default();
                names.or_insert(name.into(), lease);
                self.by_address.insert(address, names);
            }
        }
        // The name stands in both maps.
        self.octets += size_of::<(ShortText, Lease)>() + 64 + 2 * name.len();
        let addresses = match self.by_name.get_mut(name) {
            Some(addresses) => addresses,
            None => self.by_name.entry(name.into()).or_default(),
        };
        if let Err(place) = addresses.binary_search(&address) {
            addresses.insert(place, address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> PacketRef {
        PacketRef { file: 0, number: second as u64, time: Timestamp(second * 1_000_000_000) }
    }

    const OLD: Address = Address(0xffff_c000_0201);
    const NEW: Address = Address(0xffff_c000_0202);

    fn answer(name: &str, address: Address, ttl: u32) -> DnsMessage {
        DnsMessage { response: true, name: name.into(), addresses: vec![(address, ttl)], ..DnsMessage::default() }
    }

    fn part(answers: &[(i64, &str, Address, u32)]) -> Names {
        let mut names = Names::default();
        for (second, name, address, ttl) in answers {
            names.learn(at(*second), &answer(name, *address, *ttl), Address(9));
        }
        names
    }

    #[test]
    fn a_name_that_moved_leaves_its_old_address_with_an_expired_lease() {
        let names = part(&[(10, "lb.example", OLD, 60), (100, "lb.example", NEW, 60)]);
        let (name, lease) = names.name_of(OLD, at(200).time).expect("known");
        assert_eq!((name, lease.expires()), ("lb.example", at(70).time));
        let addresses: Vec<Address> = names.addresses_of("lb.example").map(|(address, _)| address).collect();
        assert_eq!(addresses, [OLD, NEW]);
        assert_eq!(names.name_of(Address(1), at(200).time), None);
    }

    #[test]
    fn the_name_is_the_latest_given_before_or_the_first_given_after() {
        let names = part(&[(10, "one.example", OLD, 60), (20, "two.example", OLD, 60)]);
        let named = |second| names.name_of(OLD, at(second).time).map(|(name, _)| name);
        assert_eq!([named(5), named(15), named(25)], [Some("one.example"), Some("one.example"), Some("two.example")]);
    }

    #[test]
    fn queries_teach_nothing() {
        let mut names = Names::default();
        names.learn(at(1), &DnsMessage { response: false, ..answer("a.example", OLD, 1) }, Address(9));
        assert_eq!(names, Names::default());
    }

    #[test]
    fn merging_does_not_depend_on_the_order_and_the_latest_answer_wins() {
        let early = [(10, "a.example", OLD, 60), (12, "b.example", OLD, 60)];
        let late = [(20, "a.example", OLD, 5), (20, "a.example", NEW, 5)];
        let mut one = part(&early);
        one.merge(part(&late));
        let mut other = part(&late);
        other.merge(part(&early));
        assert_eq!(one, other);
        assert_eq!(one.name_of(OLD, at(30).time).map(|(_, lease)| lease.ttl), Some(5));
    }

    #[test]
    fn addresses_and_names_are_bounded() {
        let mut names = Names::default();
        for number in 0..20_000 {
            names.learn(at(1), &answer("a.example", Address(number), 1), Address(9));
            names.learn(at(1), &answer(&format!("{number}.example"), OLD, 1), Address(9));
        }
        assert!(names.by_address.len() <= Names::CAP && names.beyond_cap > 0);
        assert!(names.by_address.values().all(|names| names.len() <= Names::NAMES));
    }

    #[test]
    fn long_names_fill_the_room_before_there_are_many() {
        let mut names = Names::default();
        let long = "label.".repeat(40);
        for number in 0..60_000 {
            let name = format!("{number}.{long}");
            names.learn(at(1), &answer(&name, Address(number % 8_000), 1), Address(9));
        }
        let kept: usize = names.by_address.values().map(Few::len).sum();
        assert!(kept > 10_000 && kept * (2 * long.len() + 200) < 2 * Names::OCTETS, "{kept}");
        assert_eq!(names.beyond_cap, 60_000 - kept as u64);
        // One that is known is learnt again for nothing.
        names.learn(at(2), &answer(&format!("7.{long}"), Address(7), 1), Address(9));
        assert_eq!(names.name_of(Address(7), at(9).time).map(|(_, lease)| lease.last), Some(at(2)));
    }
}
