//! What each server ip:port is known to speak and how its flows fare: learnt from flows that worked, never from one that failed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::slice;

use prefetch_index::prefetch_index;
use serde::{Deserialize, Serialize};

use super::few::Few;
use super::places::{Key, Places, SPREAD};
use crate::event::{PacketRef, Protocol};
use crate::flow::Distance;
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
    pub plain: Few<Protocol, Spoke>,
    /// … and behind one.
    pub behind_proxy: Few<Protocol, Spoke>,
    /// Clients by address with their flow counts, the first 16 of each shard.
    pub clients: Few<Address, u64>,
    /// Connections that carried nothing and that the client closed first, by client: the first 16 clients.
    pub empty: Few<Address, EmptySeries>,
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
    /// First packets kept of connections that carried nothing.
    starts: usize,
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
        Self { services: Places::new(Services::CAP), beyond_cap: 0, starts: 0 }
    }
}

impl Learner {
    /// Sends for what is known of a server from which is learnt soon.
    pub(crate) fn approach(&self, server: Endpoint, distance: Distance) {
        let near = || self.services.near(server);
        match distance {
            Distance::Far => self.services.approach(server),
            Distance::Near => {
                if let Some((end, Learnt { counted, service })) = near() {
                    prefetch_index(slice::from_ref(end), 0);
                    prefetch_index(slice::from_ref(counted), 0);
                    prefetch_index(slice::from_ref(&service.flows), 0);
                    prefetch_index(slice::from_ref(&service.last_good), 0);
                    prefetch_index(slice::from_ref(&service.clients), 0);
                    prefetch_index(slice::from_ref(&service.plain), 0);
                }
            }
            Distance::Next => {
                if let Some((_, Learnt { service, .. })) = near() {
                    service.clients.approach();
                    service.plain.approach();
                }
            }
        }
    }

    /// Learns from one closed flow.
    pub fn learn(&mut self, lesson: &Lesson) {
        match self.services.get(lesson.server) {
            Some(Learnt { counted, service }) => service.learn(lesson, counted, &mut self.starts),
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
            match self.by_end.entry(end) {
                Entry::Vacant(place) => _ = place.insert(service),
                Entry::Occupied(known) => known.into_mut().merge(service),
            }
        }
    }

    /// Takes back one flow of which the same packets were learnt at another place as well.
    pub fn unlearn(&mut self, lesson: &Lesson) {
        if let Some(service) = self.by_end.get_mut(&lesson.server) {
            service.unlearn(lesson);
        }
    }

    /// A flow that was taken for good was not; `first` and `last` are the earliest and the latest of the others that are.
    pub fn distrust(&mut self, lesson: &Lesson, first: Option<PacketRef>, last: Option<PacketRef>) {
        if let Some(service) = self.by_end.get_mut(&lesson.server).filter(|_| lesson.good) {
            service.good_less(lesson);
            if service.first_good == Some(lesson.flow) {
                service.first_good = first;
            }
            if service.last_good == Some(lesson.flow) {
                service.last_good = last;
            }
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
    /// Of all services of a shard; beyond, connections that carried nothing are only counted.
    const ALL_STARTS: usize = 65_536;

    /// `counted` has a bit of every client that is counted, so that the many of a busy service are not looked for; `starts` is how many are
    /// kept of all services.
    fn learn(&mut self, lesson: &Lesson, counted: &mut u64, starts: &mut usize) {
        self.flows += 1;
        self.accepted += u64::from(lesson.accepted);
        self.last = self.last.max(Some(lesson.last));
        let bit = 1 << (lesson.client.address.number().wrapping_mul(SPREAD) >> 58);
        if self.clients.len() < Self::CLIENTS {
            *counted |= bit;
            *self.clients.or_default(lesson.client.address) += 1;
        } else if *counted & bit != 0
            && let Some(known) = self.clients.get_mut(&lesson.client.address)
        {
            *known += 1;
        }
        if lesson.empty && (self.empty.len() < Self::EMPTY_CLIENTS || self.empty.contains_key(&lesson.client.address)) {
            let room = *starts < Self::ALL_STARTS;
            let series = self.empty.or_default(lesson.client.address);
            let before = series.starts.len();
            series.add(1, if room { std::slice::from_ref(&lesson.flow) } else { &[] });
            *starts += series.starts.len() - before;
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
            note(table, protocol, spoke);
        }
    }

    /// Its counts only: first and latest flows stand, they are packets of the other place.
    fn unlearn(&mut self, lesson: &Lesson) {
        let less = |n: &mut u64, by: bool| *n = n.saturating_sub(u64::from(by));
        less(&mut self.flows, true);
        less(&mut self.accepted, lesson.accepted);
        if lesson.good {
            self.good_less(lesson);
        }
        if let Some(known) = self.clients.get_mut(&lesson.client.address) {
            less(known, true);
        }
        if let Some(series) = self.empty.get_mut(&lesson.client.address).filter(|_| lesson.empty) {
            less(&mut series.count, true);
            series.starts.retain(|start| *start != lesson.flow);
        }
    }

    fn good_less(&mut self, lesson: &Lesson) {
        self.good = self.good.saturating_sub(1);
        let table = if lesson.behind_proxy { &mut self.behind_proxy } else { &mut self.plain };
        if let Some(spoke) = lesson.protocol.and_then(|protocol| table.get_mut(&protocol)) {
            spoke.flows = spoke.flows.saturating_sub(1);
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
                note(table, protocol, spoke);
            }
        }
        for (client, n) in other.clients {
            *self.clients.or_default(client) += n;
        }
        for (client, series) in other.empty {
            self.empty.or_default(client).add(series.count, &series.starts);
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

fn note(table: &mut Few<Protocol, Spoke>, protocol: Protocol, spoke: Spoke) {
    match table.get_mut(&protocol) {
        Some(known) => known.merge(spoke),
        None => _ = table.or_insert(protocol, spoke),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(server: u32, client: u8, number: u64) -> Lesson {
        let at = PacketRef { file: 0, number, time: Timestamp(number as i64) };
        Lesson {
            client: Endpoint::new(Address::v4([10, 0, 0, client]), 40_000),
            server: Endpoint::new(Address(server.into()), 80),
            flow: at,
            accepted: true,
            good: true,
            protocol: Some(Protocol::Http),
            behind_proxy: false,
            answer: Some(at),
            empty: true,
            last: at.time,
        }
    }

    #[test]
    fn a_service_that_one_client_used_once_takes_little_more_than_itself() {
        let mut learner = Learner::default();
        learner.learn(&lesson(1, 1, 1));
        let services = learner.finish();
        let service = services.by_end.values().next().expect("learnt");
        let behind = service.plain.weight() + service.clients.weight() + service.empty.weight();
        assert!(behind <= 192, "{behind}");
    }

    #[test]
    fn connections_that_carried_nothing_are_counted_when_there_is_no_room_for_more_of_them() {
        let mut learner = Learner::default();
        let (servers, clients) = (256, 16);
        for number in 0..servers * clients * 20 {
            let (server, client) = (number % servers, number / servers % clients);
            learner.learn(&lesson(server as u32, client as u8, number + 1));
        }
        let services = learner.finish();
        let series = || services.by_end.values().flat_map(|service| service.empty.values());
        assert_eq!(series().map(|series| series.count).sum::<u64>(), servers * clients * 20);
        assert_eq!(series().map(|series| series.starts.len()).sum::<usize>(), Service::ALL_STARTS);
    }
}
