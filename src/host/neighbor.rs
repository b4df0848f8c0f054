//! Who asks for whom on the link, and which link addresses each address answers with. RFC 826, RFC 4861.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decode::Link;
use crate::event::PacketRef;
use crate::wire::arp::Neighbor;
use crate::wire::{Address, Mac};

/// Everything learnt from ARP and neighbour discovery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Neighbors {
    /// By the address asked for or announced.
    pub by_address: BTreeMap<Address, Known>,
    /// Packets about addresses beyond the cap.
    pub beyond_cap: u64,
}

/// What is known of one address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Requests for it.
    pub asked: u64,
    /// The first 16 of them.
    pub requests: Vec<PacketRef>,
    /// Answers and announcements by the link address they give, the first 8.
    pub answers: BTreeMap<Mac, Answered>,
}

/// Answers with one link address.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// How many.
    pub count: u64,
    /// The first.
    pub first: PacketRef,
    /// The latest.
    pub last: PacketRef,
}

impl Neighbors {
    /// Addresses kept.
    const CAP: usize = 4096;

    /// Learns from one packet. The link header tells the sender where the message does not.
    pub fn learn(&mut self, at: PacketRef, neighbor: &Neighbor, link: Link) {
        let subject = if neighbor.request && !neighbor.gratuitous { neighbor.target } else { neighbor.sender };
        if !self.by_address.contains_key(&subject) && self.by_address.len() >= Self::CAP {
            self.beyond_cap += 1;
            return;
        }
        let known = self.by_address.entry(subject).or_default();
        if neighbor.request && !neighbor.gratuitous {
            known.asked += 1;
            if known.requests.len() < 16 {
                known.requests.push(at);
            }
        } else if let Some(mac) = neighbor.sender_mac.or(link.source)
            && (known.answers.len() < 8 || known.answers.contains_key(&mac))
        {
            let new = Answered { count: 0, first: at, last: at };
            let answered = known.answers.entry(mac).or_insert(new);
            answered.count += 1;
            answered.last = answered.last.max(at);
        }
    }

    /// Adds what another input told. Associative.
    pub fn merge(&mut self, other: Self) {
        self.beyond_cap += other.beyond_cap;
        for (address, more) in other.by_address {
            let known = self.by_address.entry(address).or_default();
            known.asked += more.asked;
            known.requests.extend(more.requests);
            known.requests.sort_unstable();
            known.requests.truncate(16);
            for (mac, theirs) in more.answers {
                let mine = known.answers.entry(mac).or_insert(Answered { count: 0, ..theirs });
                mine.count += theirs.count;
                mine.first = mine.first.min(theirs.first);
                mine.last = mine.last.max(theirs.last);
            }
        }
    }
}
