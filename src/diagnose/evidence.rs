//! Which packets prove an incident: those it cites, and all packets of the flows that show it; and what is needed besides to judge it again
//! without the rest of the capture.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use super::Merged;
use super::report::{FlowRef, Incident, Report};
use crate::decode::{Packet, Transport, flow_hash};
use crate::flow::facts::IpProtocol;
use crate::rule::summary::{FlowSummary, Verdict};
use crate::time::Timestamp;
use crate::wire::harmless::{Sink, harmless};
use crate::wire::{Address, Endpoint, icmp};

/// Asked for every packet of a capture. Nothing is said in its order.
type Known<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The packets of one incident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Flows whose packets are wanted, from the first one on: by the hash of their ends, with their input and first number.
    flows: Known<u64, BTreeSet<FlowRef>>,
    /// Packets that are cited, with what they show.
    cited: Known<FlowRef, Vec<String>>,
    /// Hosts between which fragments belong to it: they name no port.
    pairs: BTreeSet<(Address, Address)>,
    /// Hosts all of whose packets belong to it.
    hosts: BTreeSet<Address>,
    /// Every packet does.
    everything: bool,
}

/// How far packets are taken that an incident does not cite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The flows that show it, one that works beside them, and the last packet of the capture.
    Shown,
    /// All flows with findings, and those that work at the same servers, as far as they are kept whole.
    Flows,
    /// Everything their hosts sent and got.
    Hosts,
    /// Every packet.
    Everything,
}

impl Reach {
    /// Narrowest first.
    pub const ALL: [Self; 4] = [Self::Shown, Self::Flows, Self::Hosts, Self::Everything];
}

impl Selection {
    /// What the report says of the incident: its flows, their other legs, and every packet it cites.
    pub fn of(report: &Report, incident: &Incident) -> Self {
        let mut selection = Self::default();
        let mut wanted: BTreeSet<FlowRef> = incident.flows.iter().copied().collect();
        wanted.extend(incident.links.iter().flat_map(|link| [link.client_leg, link.backend_leg]));
        for evidence in &incident.evidence {
            wanted.extend(evidence.flow);
            let packet = FlowRef { file: evidence.file, id: evidence.packet };
            let shows = selection.cited.entry(packet).or_default();
            if !shows.contains(&evidence.shows) {
                shows.push(evidence.shows.clone());
            }
        }
        for flow in report.flows.iter().filter(|flow| wanted.contains(&flow.key())) {
            let protocol = if flow.transport == "udp" { 17 } else { 6 };
            if let (Some(client), Some(server)) = (end(&flow.client), end(&flow.server)) {
                selection.flow((client, server), protocol, flow.key());
            }
        }
        selection
    }

    /// What a report's incidents need to be judged again, all together.
    pub fn whole(report: &Report, merged: &Merged, reach: Reach) -> Self {
        let mut whole = Self { everything: reach == Reach::Everything, ..Self::default() };
        let mut servers: BTreeMap<Endpoint, (Timestamp, Timestamp)> = BTreeMap::new();
        for incident in &report.incidents {
            let one = Self::of(report, incident);
            let times = |flow: &FlowSummary| (flow.facts.id.time, flow.facts.last.time);
            for flow in merged.flows.values().filter(|flow| one.shows_flow(flow)) {
                let (first, last) = times(flow);
                let known = servers.entry(flow.facts.server).or_insert((first, last));
                *known = (known.0.min(first), known.1.max(last));
            }
            for server in incident.scope.servers.iter().filter_map(|server| end(server)) {
                servers.entry(server).or_insert((Timestamp::MAX, Timestamp::MIN));
            }
            whole.join(one);
        }
        let mut more: Vec<&FlowSummary> = Vec::new();
        for (server, (first, last)) in &servers {
            let works = |flow: &&FlowSummary| flow.facts.server == *server && flow.digest.verdict == Verdict::Healthy;
            let healthy: Vec<&FlowSummary> = merged.flows.values().filter(works).collect();
            if reach >= Reach::Flows {
                more.extend(&healthy);
            }
            more.extend(healthy.iter().rev().find(|flow| flow.facts.last.time < *first));
            more.extend(healthy.iter().find(|flow| flow.facts.id.time > *last));
            more.extend(healthy.first());
        }
        if reach >= Reach::Flows {
            more.extend(merged.flows.values().filter(|flow| !flow.findings.is_empty()));
        }
        for flow in more {
            let protocol = if flow.facts.transport == IpProtocol::Udp { 17 } else { 6 };
            whole.flow((flow.facts.client, flow.facts.server), protocol, flow.facts.id.into());
        }
        if reach >= Reach::Hosts {
            whole.hosts = whole.pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
        }
        // Until then nothing else came: without it a silence would be shorter.
        if let Some(last) = merged.packets.last {
            whole.cited.entry(last.into()).or_default();
        }
        whole
    }

    fn shows_flow(&self, flow: &FlowSummary) -> bool {
        self.flows.values().any(|flows| flows.contains(&FlowRef::from(flow.facts.id)))
    }

    fn flow(&mut self, (client, server): (Endpoint, Endpoint), protocol: u8, flow: FlowRef) {
        self.flows.entry(flow_hash(client, server, protocol)).or_default().insert(flow);
        let (a, b) = (client.address, server.address);
        self.pairs.insert((a.min(b), a.max(b)));
    }

    fn join(&mut self, other: Self) {
        for (hash, flows) in other.flows {
            self.flows.entry(hash).or_default().extend(flows);
        }
        for (packet, shows) in other.cited {
            let known = self.cited.entry(packet).or_default();
            known.extend(shows.into_iter().filter(|shows| !known.contains(shows)).collect::<Vec<_>>());
        }
        self.pairs.extend(other.pairs);
    }

    /// Comments for a packet: what it is cited for, harmless on a terminal. `files` is how many inputs there are.
    pub fn comments(&self, file: u16, number: u64, files: usize) -> Vec<String> {
        let name = FlowRef { file, id: number }.name(files);
        let shows = self.shows(file, number).unwrap_or(&[]);
        shows.iter().map(|shows| format!("packet {name}: {}", harmless(shows, Sink::Line))).collect()
    }

    /// Whether one of these addresses is among those it is about.
    pub fn about(&self, address: Address) -> bool {
        self.everything || self.pairs.iter().any(|(a, b)| *a == address || *b == address)
    }

    /// What the packet is cited for; `None` when it is not.
    pub fn shows(&self, file: u16, number: u64) -> Option<&[String]> {
        self.cited.get(&FlowRef { file, id: number }).map(Vec::as_slice)
    }

    /// Whether packet `number` of input `file` belongs to it.
    pub fn holds(&self, file: u16, number: u64, packet: &Packet<'_>) -> bool {
        if self.everything || self.cited.contains_key(&FlowRef { file, id: number }) {
            return true;
        }
        let ends = packet.ip.as_ref().map(|ip| (ip.source, ip.destination));
        if !self.hosts.is_empty() {
            // What has no addresses is about the link that carries them.
            return ends.is_none_or(|(a, b)| self.hosts.contains(&a) || self.hosts.contains(&b));
        }
        let hash = match &packet.transport {
            Transport::Tcp(_) => packet.source().zip(packet.destination()).map(|(a, b)| flow_hash(a, b, 6)),
            Transport::Udp(_) => packet.source().zip(packet.destination()).map(|(a, b)| flow_hash(a, b, 17)),
            // An error belongs to the flow it quotes.
            Transport::Icmp4(message) => icmp::parse_error4(message).map(|error| quoted(&error)),
            Transport::Icmp6(message) => icmp::parse_error6(message).map(|error| quoted(&error)),
            Transport::Fragment => return ends.is_some_and(|(a, b)| self.pairs.contains(&(a.min(b), a.max(b)))),
            _ => None,
        };
        let flows = hash.and_then(|hash| self.flows.get(&hash));
        // Its ends may have been those of another flow before.
        flows.is_some_and(|flows| flows.iter().any(|flow| (flow.file, flow.id) <= (file, number)))
    }

    /// The first packet of any of its flows: its input and number.
    pub fn first(&self) -> Option<(u16, u64)> {
        self.flows.values().flatten().chain(self.cited.keys()).map(|flow| (flow.file, flow.id)).min()
    }
}

fn end(text: &str) -> Option<Endpoint> {
    text.parse::<SocketAddr>().ok().map(|end| Endpoint::new(end.ip().into(), end.port()))
}

fn quoted(error: &icmp::IcmpError) -> u64 {
    flow_hash(error.source, error.destination, error.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Source;
    use crate::decode::Decoder;

    #[test]
    fn the_gitlab_incident_is_proved_by_both_legs_of_its_flows_and_every_packet_it_cites() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/captures/incidents/gitlab/both-legs.pcap");
        let report = crate::Diagnosis::new().open(&[path]).and_then(crate::run::Opened::run).expect("a report");
        let incident = &report.incidents[0];
        let selection = Selection::of(&report, incident);
        let mut source = Source::open(&[path], &Default::default()).expect("a capture");
        let mut decoder = Decoder::new(Default::default());
        let mut held = BTreeSet::new();
        while let Some(frame) = source.next().expect("memory") {
            if selection.holds(0, frame.number, &decoder.decode(&frame)) {
                held.insert(frame.number);
            }
        }
        for evidence in &incident.evidence {
            assert!(held.contains(&evidence.packet), "packet {} is missing", evidence.packet);
            assert!(selection.shows(0, evidence.packet).is_some_and(|shows| shows.contains(&evidence.shows)));
        }
        let legs = incident.links.iter().flat_map(|link| [link.client_leg, link.backend_leg]);
        assert!(incident.flows.iter().copied().chain(legs).all(|flow| held.contains(&flow.id)));
        assert!(selection.first().is_some_and(|(_, first)| held.first() == Some(&first)));
        assert!(held.len() < 200, "{} packets", held.len());
    }
}
