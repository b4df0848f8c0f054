//! What each server ip:port is known to speak and how its flows fare: learnt from flows that worked, never from one that failed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::places::{Key, Places, SPREAD};
use crate::event::{PacketRef, Protocol};
use crate::time::Timestamp;
use crate::wire::{Address, Endpoint};

/// All services seen, by their end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// By server end.
    pub by_end: BTreeMap<Endpoint, Service>,
    /// Flows to services beyond the cap.
    pub beyond_cap: u64,
}

/// One server ip:port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Flows to it.
    pub flows: u64,
    /// Flows that worked: an answer came and nothing critical or warning was found.
    pub good: u64,
    /// Flows whose handshake the server completed (it answered with SYN+ACK).
    pub accepted: u64,
    /// First and latest good flow.
    pub first_good: Option<PacketRef>,
    /// Latest good flow (its first packet).
    pub last_good: Option<PacketRef>,
    /// What it spoke in good flows, by protocol: without a PROXY header in front …
    pub plain: BTreeMap<Protocol, Spoke>,
    /// … and behind one.
    pub behind_proxy: BTreeMap<Protocol, Spoke>,
    /// Clients by address with their flow counts, the first 16 of each shard.
    pub clients: BTreeMap<Address, u64>,
    /// Connections that carried nothing and that the client closed first, by client: the first 16 clients.
    pub empty: BTreeMap<Address, EmptySeries>,
    /// Latest packet of any flow to it.
    pub last: Option<Timestamp>,
}

/// How often and where a protocol was spoken successfully.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spoke {
    /// Good flows.
    pub flows: u64,
    /// The first of them: its flow number …
    pub first: PacketRef,
    /// … and the packet with the server's first octets.
    pub answer: PacketRef,
}

/// A series of empty connections by one client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EmptySeries {
    /// How many.
    pub count: u64,
    /// First packets of the first 64.
    pub starts: Vec<PacketRef>,
}

/// What a flow tells about its server.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// Client end.
    pub client: Endpoint,
    /// Server end.
    pub server: Endpoint,
    /// The flow's number.
    pub flow: PacketRef,
    /// The server completed the handshake.
    pub accepted: bool,
    /// It worked.
    pub good: bool,
    /// Both sides agreed on this protocol (PROXY headers looked through); only from good flows.
    pub protocol: Option<Protocol>,
    /// A PROXY header came first.
    pub behind_proxy: bool,
    /// Packet with the server's first octets.
    pub answer: Option<PacketRef>,
    /// It carried nothing and the client closed first.
    pub empty: bool,
    /// Its latest packet.
    pub last: Timestamp,
}

/// Learns from closed flows.
#[derive(Clone)]
pub struct Learner {
    services: Places<Endpoint, Learnt>,
    beyond_cap: u64,
}

/// One service being learnt.
#[derive(Clone, Default)]
struct Learnt {
    /// One bit for each client that is counted; many clients share it.
    counted: u64,
    service: Service,
}

impl Default for Learner {
    fn default() -> Self {
        Self { services: Places::new(Services::CAP), beyond_cap: 0 }
    }
}

impl Learner {
    /// Learns from one closed flow.
    pub fn learn(&mut self, lesson: &Lesson) {
        match self.services.get(lesson.server) {
            Some(Learnt { counted, service }) => service.learn(lesson, counted),
            None => self.beyond_cap += 1,
        }
    }

    /// What it learnt.
    pub fn finish(self) -> Services {
        let all = self.services.into_all().into_iter();
        Services { by_end: all.map(|(end, learnt)| (end, learnt.service)).collect(), beyond_cap: self.beyond_cap }
    }
}

impl Services {
    /// Services kept; flows to others are only counted.
    pub const CAP: usize = 16_384;

    /// Adds what another shard or file learnt. Associative and commutative.
    pub fn merge(&mut self, other: Self) {
        self.beyond_cap += other.beyond_cap;
        for (end, service) in other.by_end {
            self.by_end.entry(end).or_default().merge(service);
        }
    }

    /// Takes back one flow of which the same packets were learnt at another place as well.
    pub fn unlearn(&mut self, lesson: &Lesson) {
        if let Some(service) = self.by_end.get_mut(&lesson.server) {
            service.unlearn(lesson);
        }
    }

    /// What is known of a server.
    pub fn get(&self, end: &Endpoint) -> Option<&Service> {
        self.by_end.get(end)
    }

    /// All ports of one host.
    pub fn of_host(&self, address: Address) -> impl Iterator<Item = (&Endpoint, &Service)> {
        self.by_end.range(Endpoint::new(address, 0)..=Endpoint::new(address, u16::MAX))
    }
}

impl Service {
    const CLIENTS: usize = 16;
    const EMPTY_CLIENTS: usize = 16;
    const STARTS: usize = 64;

    /// `counted` has a bit of every client that is counted, so that the many of a busy service are not looked for.
    fn learn(&mut self, lesson: &Lesson, counted: &mut u64) {
        self.flows += 1;
        self.accepted += u64::from(lesson.accepted);
        self.last = self.last.max(Some(lesson.last));
        let bit = 1 << (lesson.client.address.number().wrapping_mul(SPREAD) >> 58);
        if self.clients.len() < Self::CLIENTS {
            *counted |= bit;
            *self.clients.entry(lesson.client.address).or_default() += 1;
        } else if *counted & bit != 0
            && let Some(known) = self.clients.get_mut(&lesson.client.address)
        {
            *known += 1;
        }
        if lesson.empty && (self.empty.len() < Self::EMPTY_CLIENTS || self.empty.contains_key(&lesson.client.address)) {
            let series = self.empty.entry(lesson.client.address).or_default();
            series.add(1, &[lesson.flow]);
        }
        if !lesson.good {
            return;
        }
        self.good += 1;
        self.first_good = Some(self.first_good.map_or(lesson.flow, |at| at.min(lesson.flow)));
        self.last_good = self.last_good.max(Some(lesson.flow));
        if let (Some(protocol), Some(answer)) = (lesson.protocol, lesson.answer) {
            let spoke = Spoke { flows: 1, first: lesson.flow, answer };
            let table = if lesson.behind_proxy { &mut self.behind_proxy } else { &mut self.plain };
            table.entry(protocol).and_modify(|known| known.merge(spoke)).or_insert(spoke);
        }
    }

    /// Its counts only: first and latest flows stand, they are packets of the other place.
    fn unlearn(&mut self, lesson: &Lesson) {
        let less = |n: &mut u64, by: bool| *n = n.saturating_sub(u64::from(by));
        less(&mut self.flows, true);
        less(&mut self.accepted, lesson.accepted);
        less(&mut self.good, lesson.good);
        if let Some(known) = self.clients.get_mut(&lesson.client.address) {
            less(known, true);
        }
        let table = if lesson.behind_proxy { &mut self.behind_proxy } else { &mut self.plain };
        if let Some(spoke) = lesson.protocol.filter(|_| lesson.good).and_then(|protocol| table.get_mut(&protocol)) {
            less(&mut spoke.flows, true);
        }
        if let Some(series) = self.empty.get_mut(&lesson.client.address).filter(|_| lesson.empty) {
            less(&mut series.count, true);
            series.starts.retain(|start| *start != lesson.flow);
        }
    }

    fn merge(&mut self, other: Self) {
        self.flows += other.flows;
        self.good += other.good;
        self.accepted += other.accepted;
        self.last = self.last.max(other.last);
        self.first_good = match (self.first_good, other.first_good) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.last_good = self.last_good.max(other.last_good);
        for (table, more) in [(&mut self.plain, other.plain), (&mut self.behind_proxy, other.behind_proxy)] {
            for (protocol, spoke) in more {
                table.entry(protocol).and_modify(|known| known.merge(spoke)).or_insert(spoke);
            }
        }
        for (client, n) in other.clients {
            *self.clients.entry(client).or_default() += n;
        }
        for (client, series) in other.empty {
            self.empty.entry(client).or_default().add(series.count, &series.starts);
        }
    }

    /// Whether a protocol was ever spoken to it without a PROXY header.
    pub fn speaks_plain(&self, protocol: Protocol) -> Option<&Spoke> {
        self.plain.get(&protocol)
    }

    /// Any protocol that worked behind a PROXY header.
    pub fn accepts_proxy(&self) -> Option<&Spoke> {
        self.behind_proxy.values().min_by_key(|spoke| spoke.first)
    }
}

impl Spoke {
    fn merge(&mut self, other: Self) {
        self.flows += other.flows;
        if other.first < self.first {
            (self.first, self.answer) = (other.first, other.answer);
        }
    }
}

impl EmptySeries {
    fn add(&mut self, count: u64, starts: &[PacketRef]) {
        self.count += count;
        self.starts.extend_from_slice(starts);
        self.starts.sort_unstable();
        self.starts.truncate(Service::STARTS);
    }
}
