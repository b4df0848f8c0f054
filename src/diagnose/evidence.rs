//! Which packets prove an incident: those it cites, and all packets of the flows that show it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::report::{FlowRef, Incident, Report};
use crate::decode::{Packet, Transport, flow_hash};
use crate::wire::{Endpoint, icmp};

/// The packets of one incident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Flows whose packets are wanted, from the first one on: by the hash of their ends, with their input and first number.
    flows: BTreeMap<u64, BTreeSet<FlowRef>>,
    /// Packets that are cited, with what they show.
    cited: BTreeMap<FlowRef, Vec<String>>,
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
            let end =
                |text: &str| text.parse::<SocketAddr>().ok().map(|end| Endpoint::new(end.ip().into(), end.port()));
            let protocol = if flow.transport == "udp" { 17 } else { 6 };
            if let (Some(client), Some(server)) = (end(&flow.client), end(&flow.server)) {
                selection.flows.entry(flow_hash(client, server, protocol)).or_default().insert(flow.key());
            }
        }
        selection
    }

    /// What the packet is cited for; `None` when it is not.
    pub fn shows(&self, file: u16, number: u64) -> Option<&[String]> {
        self.cited.get(&FlowRef { file, id: number }).map(Vec::as_slice)
    }

    /// Whether packet `number` of input `file` belongs to it.
    pub fn holds(&self, file: u16, number: u64, packet: &Packet<'_>) -> bool {
        if self.cited.contains_key(&FlowRef { file, id: number }) {
            return true;
        }
        let hash = match &packet.transport {
            Transport::Tcp(_) => packet.source().zip(packet.destination()).map(|(a, b)| flow_hash(a, b, 6)),
            Transport::Udp(_) => packet.source().zip(packet.destination()).map(|(a, b)| flow_hash(a, b, 17)),
            // An error belongs to the flow it quotes.
            Transport::Icmp4(message) => icmp::parse_error4(message).map(|error| quoted(&error)),
            Transport::Icmp6(message) => icmp::parse_error6(message).map(|error| quoted(&error)),
            _ => None,
        };
        let flows = hash.and_then(|hash| self.flows.get(&hash));
        // Its ends may have been those of another flow before.
        flows.is_some_and(|flows| flows.iter().any(|flow| flow.file == file && flow.id <= number))
    }

    /// The first packet of any of its flows in input `file`.
    pub fn first(&self, file: u16) -> Option<u64> {
        let flows = self.flows.values().flatten().chain(self.cited.keys());
        flows.filter(|flow| flow.file == file).map(|flow| flow.id).min()
    }
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
        assert!(selection.first(0).is_some_and(|first| held.first() == Some(&first)));
        assert!(held.len() < 200, "{} packets", held.len());
    }
}
