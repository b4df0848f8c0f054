//! Who asks for whom on the link, and which link addresses each address answers with. RFC 826, RFC 4861.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decode::{Direction, Link};
use crate::event::PacketRef;
use crate::host::link::LinkSigns;
use crate::time::Elapsed;
use crate::wire::arp::Neighbor;
use crate::wire::{Address, Mac};

/// Everything learnt from ARP and neighbour discovery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Neighbors {
    /// By the address asked for or announced.
    pub by_address: BTreeMap<Address, Known>,
    /// Packets about addresses beyond the cap.
    pub beyond_cap: u64,
    /// Signs that a link came back.
    pub signs: LinkSigns,
}

/// What is known of one address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Requests for it, whoever sent them.
    pub asked: u64,
    /// Requests by who asked (unspecified: a probe for duplicates), the first 16 askers.
    pub askers: BTreeMap<Address, Times>,
    /// Answers and announcements by the link address they give, in its order, the first 8 of them. What requests say of their senders does
    /// not count.
    pub answers: Vec<Answered>,
}

/// Answers with one link address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The link address.
    pub mac: Mac,
    /// When it was given.
    pub times: Times,
    /// Announcements nobody asked for among them.
    pub unasked: u64,
    /// When those came.
    #[serde(default)]
    pub announced: Times,
    /// The capturing host itself gave it at least once.
    pub own: bool,
}

/// Packets of one kind: how many, the first 16 of them and the latest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// The first 16.
    pub first: Vec<PacketRef>,
    /// The latest.
    pub last: Option<PacketRef>,
}

impl Neighbors {
    /// Addresses kept; packets about others are only counted.
    pub const CAP: usize = 4096;

    /// Learns from one packet. The link header tells the sender where the message does not.
    pub fn learn(&mut self, at: PacketRef, neighbor: &Neighbor, link: Link) {
        if !self.by_address.contains_key(&neighbor.target) && self.by_address.len() >= Self::CAP {
            self.beyond_cap += 1;
            return;
        }
        let known = self.by_address.entry(neighbor.target).or_default();
        if neighbor.request && !neighbor.gratuitous {
            if known.askers.get(&neighbor.sender).is_some_and(|times| times.has_copy_of(at)) {
                return;
            }
            known.asked += 1;
            known.ask(neighbor.sender, Times::of(at));
        } else if let Some(mac) = neighbor.sender_mac.or(link.source) {
            let (unasked, own) = (u64::from(neighbor.gratuitous), link.direction == Direction::Out);
            let announced = if neighbor.gratuitous { Times::of(at) } else { Times::default() };
            known.answer(Answered { mac, times: Times::of(at), unasked, announced, own });
        }
    }

    /// Addresses that were answered for with one of these link addresses.
    pub fn of_macs<'a>(&'a self, macs: &'a [Mac]) -> impl Iterator<Item = Address> + 'a {
        let has = |known: &Known| known.answers.iter().any(|answered| macs.contains(&answered.mac));
        self.by_address.iter().filter(move |(_, known)| has(known)).map(|(address, _)| *address)
    }

    /// The link addresses that an address was answered for with.
    pub fn macs_of(&self, address: Address) -> Vec<Mac> {
        let known = self.by_address.get(&address).into_iter();
        known.flat_map(|known| &known.answers).map(|answered| answered.mac).collect()
    }

    /// These addresses and the others of the same machines, as far as one link address stands for one machine.
    pub fn machines(&self, addresses: &[Address]) -> Vec<Address> {
        let macs: Vec<Mac> = addresses.iter().flat_map(|address| self.macs_of(*address)).collect();
        let mut all: Vec<Address> = addresses.iter().copied().chain(self.of_macs(&macs)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Adds what another input told. Associative and commutative, below the caps.
    pub fn merge(&mut self, other: Self) {
        self.beyond_cap += other.beyond_cap;
        self.signs.merge(other.signs);
        for (address, more) in other.by_address {
            let known = self.by_address.entry(address).or_default();
            known.asked += more.asked;
            more.askers.into_iter().for_each(|(asker, times)| known.ask(asker, times));
            more.answers.into_iter().for_each(|answered| known.answer(answered));
        }
    }
}

impl Known {
    const ASKERS: usize = 16;
    const MACS: usize = 8;

    fn ask(&mut self, asker: Address, times: Times) {
        if self.askers.len() < Self::ASKERS || self.askers.contains_key(&asker) {
            self.askers.entry(asker).or_default().merge(times);
        }
    }

    fn answer(&mut self, answered: Answered) {
        match self.answers.binary_search_by_key(&answered.mac, |known| known.mac) {
            Ok(place) => {
                if let Some(known) = self.answers.get_mut(place) {
                    known.times.merge(answered.times);
                    known.unasked += answered.unasked;
                    known.announced.merge(answered.announced);
                    known.own |= answered.own;
                }
            }
            Err(place) if self.answers.len() < Self::MACS => self.answers.insert(place, answered),
            Err(_) => {}
        }
    }
}

impl Times {
    const KEPT: usize = 16;

    /// A bridge sends one question to each of its ports, and `-i any` sees it there: so soon nobody asks again.
    const COPY: Elapsed = Elapsed::millis(5);

    fn has_copy_of(&self, at: PacketRef) -> bool {
        self.last.is_some_and(|last| last.file == at.file && at.time.since(last.time).abs() < Self::COPY)
    }

    fn of(at: PacketRef) -> Self {
        Self { count: 1, first: vec![at], last: Some(at) }
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.last = self.last.max(other.last);
        // Nearly always the newer ones come second, to a list that is full.
        let full = self.first.len() == Self::KEPT;
        if full && other.first.first() >= self.first.last() {
            return;
        }
        self.first.extend(other.first);
        self.first.sort_unstable();
        self.first.truncate(Self::KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::wire::arp::parse_arp;
    use crate::wire::samples::{self, octets};

    fn at(number: u64) -> PacketRef {
        PacketRef { file: 0, number, time: Timestamp::default() + Elapsed::secs(number as i64) }
    }

    fn neighbor(hex: &str) -> Neighbor {
        parse_arp(&octets(hex)).expect("whole")
    }

    const GATEWAY: [u8; 4] = [198, 51, 100, 1];

    #[test]
    fn a_question_and_its_answer_are_kept_under_the_address_asked_for() {
        let mut neighbors = Neighbors::default();
        for number in 1..=20 {
            neighbors.learn(at(number), &neighbor(samples::ARP_REQUEST), Link::default());
        }
        neighbors.learn(at(21), &neighbor(samples::ARP_REPLY), Link::default());
        let known = &neighbors.by_address[&Address::v4(GATEWAY)];
        assert_eq!((neighbors.by_address.len(), known.asked), (1, 20));
        let asker = &known.askers[&Address::v4([198, 51, 100, 10])];
        assert_eq!((asker.count, asker.first.len(), asker.last), (20, 16, Some(at(20))));
        assert_eq!(known.answers.iter().map(|a| a.mac.to_string()).collect::<Vec<_>>(), ["7e:df:6b:35:75:1a"]);
    }

    #[test]
    fn one_question_at_every_port_of_a_bridge_is_one_question() {
        let mut neighbors = Neighbors::default();
        for n in 0..20 {
            let copy = PacketRef { time: at(1).time + Elapsed::millis(n / 4 * 1000) + Elapsed::micros(n % 4), ..at(1) };
            neighbors.learn(copy, &neighbor(samples::ARP_REQUEST), Link::default());
        }
        assert_eq!(neighbors.by_address[&Address::v4(GATEWAY)].asked, 5);
    }

    #[test]
    fn two_machines_with_one_address_are_both_seen() {
        let mut neighbors = Neighbors::default();
        let mut reply = neighbor(samples::ARP_REPLY);
        neighbors.learn(at(1), &reply, Link::default());
        reply.sender_mac = Some(Mac([2; 6]));
        neighbors.learn(at(2), &reply, Link { direction: Direction::Out, ..Link::default() });
        let known = &neighbors.by_address[&Address::v4(GATEWAY)];
        assert_eq!(known.answers.iter().map(|a| (a.mac.0[0], a.own)).collect::<Vec<_>>(), [(2, true), (0x7e, false)]);
    }

    #[test]
    fn an_announcement_is_an_answer_and_no_question() {
        let mut neighbors = Neighbors::default();
        let announcement = neighbor("0001080006040001 0a33e0f823c6 c633640a 000000000000 c633640a");
        neighbors.learn(at(1), &announcement, Link::default());
        let known = &neighbors.by_address[&Address::v4([198, 51, 100, 10])];
        assert_eq!((known.asked, known.answers[0].unasked), (0, 1));
    }

    #[test]
    fn merging_does_not_depend_on_the_order() {
        let part = |numbers: std::ops::Range<u64>| {
            let mut part = Neighbors::default();
            for number in numbers {
                part.learn(at(number), &neighbor(samples::ARP_REQUEST), Link::default());
                part.learn(at(number), &neighbor(samples::ARP_REPLY), Link::default());
            }
            part
        };
        let merged = |order: [usize; 3]| {
            let parts = [part(1..9), part(9..30), part(30..33)];
            order.iter().fold(Neighbors::default(), |mut all, part| {
                all.merge(parts[*part].clone());
                all
            })
        };
        assert_eq!(merged([0, 1, 2]), part(1..33));
        assert_eq!(merged([2, 0, 1]), part(1..33));
        let json = serde_json::to_string(&part(1..3)).expect("plain data");
        assert_eq!(serde_json::from_str::<Neighbors>(&json).expect("the same"), part(1..3));
    }

    #[test]
    fn a_sweep_over_a_large_network_is_bounded() {
        let mut neighbors = Neighbors::default();
        let mut request = neighbor(samples::ARP_REQUEST);
        for number in 0..10_000 {
            request.target = Address(number.into());
            neighbors.learn(at(number), &request, Link::default());
        }
        assert_eq!(
            (neighbors.by_address.len(), neighbors.beyond_cap),
            (Neighbors::CAP, 10_000 - Neighbors::CAP as u64)
        );
    }
}
