//! How far an incident reaches, who is meant, and what is healthy beside it: sentences made from its [`Extent`].

use std::collections::BTreeSet;

use super::build::Builder;
use super::format::{self, packet, rfc3339};
use super::incident::{Draft, Extent};
use super::report::{IncidentScope, State};
use super::shared;
use crate::host::known;
use crate::rule::finding::Confidence;

impl Builder<'_> {
    pub(super) fn scope_line(&self, extent: &Extent, confidence: Confidence) -> String {
        let zone = &self.settings.zone;
        let mut line = String::new();
        if extent.flows > 0 {
            line.push_str(&format!("{} of {}", extent.flows, format::count(extent.of, "flow")));
            match extent.clients.as_slice() {
                [one] if extent.client_count == 1 => line.push_str(&format!(", client {one}")),
                _ => line.push_str(&format!(", {}", format::count(extent.client_count, "client"))),
            }
            line.push_str(", ");
        }
        let span = extent.last.time.since(extent.first.time);
        let first = format::clock(extent.first.time, zone);
        if span < crate::time::Elapsed::secs(1) {
            line.push_str(&format!("at {first}. "));
        } else {
            line.push_str(&format!("since {first}. "));
        }
        line.push_str(&match (extent.state, extent.recovered) {
            (State::Over, Some(at)) => format!("Over since {}.", format::clock(at.time, zone)),
            (State::Over, None) => "Over.".into(),
            (State::StillFailing, _) => "STILL FAILING.".into(),
            (State::Unknown, _) => "Whether it goes on is unknown.".into(),
        });
        line.push(' ');
        line.push_str(confidence.sentence());
        line
    }

    pub(super) fn scope(&self, extent: &Extent) -> IncidentScope {
        let worked_before = extent.last_good.is_some();
        IncidentScope {
            flows: extent.flows,
            of: extent.of,
            servers: extent.servers.iter().take(16).map(ToString::to_string).collect(),
            clients: extent.clients.iter().take(16).map(ToString::to_string).collect(),
            client_count: extent.client_count,
            first: rfc3339(extent.first.time),
            last: rfc3339(extent.last.time),
            last_good: extent.last_good.map(|at| rfc3339(at.time)),
            first_bad: worked_before.then(|| rfc3339(extent.first.time)),
        }
    }

    /// Which names the DNS in the capture gave to the hosts, with the packet that says so, and what addresses mean by themselves.
    pub(super) fn names(&self, extent: &Extent) -> Vec<String> {
        let servers = extent.servers.iter().map(|server| server.address);
        let hosts: BTreeSet<_> = servers.chain(extent.senders.iter().copied()).take(8).collect();
        let named = hosts.iter().filter_map(|host| {
            let (name, lease) = self.capture.names.name_of(*host, extent.first.time)?;
            let kind = known::name(name).map_or_else(String::new, |kind| format!(", {kind}"));
            Some(format!("{host} is {name}{kind}, as the DNS says in {}", packet(lease.first, self.files())))
        });
        let mut lines: Vec<String> = named.take(4).collect();
        let all: BTreeSet<_> = hosts.iter().chain(extent.clients.iter().take(64)).copied().collect();
        let known = all.iter().filter_map(|host| Some(format!("{host} is {}", known::address(*host)?)));
        lines.extend(known.take(4));
        lines
    }

    /// What is healthy beside it: other ports of the same host that the same sender reaches.
    pub(super) fn misleads(&self, extent: &Extent) -> Vec<String> {
        let mut lines = Vec::new();
        let hosts: BTreeSet<_> = extent.servers.iter().map(|server| server.address).collect();
        for host in hosts {
            for (end, service) in self.working.services.of_host(host).filter(|(end, _)| !extent.servers.contains(end)) {
                let of_sender = || extent.senders.iter().filter_map(|sender| service.clients.get(sender)).sum::<u64>();
                if service.good == service.flows && service.good > 0 && of_sender() > 0 {
                    lines.push(match service.flows {
                        1 => format!("the only flow to {end} is fine: that port is not the one that fails"),
                        n => format!(
                            "{} of {n} flows to {end} are fine: that port is not the one that fails",
                            service.good
                        ),
                    });
                }
            }
        }
        lines.truncate(4);
        lines
    }

    fn shared(&self, draft: &Draft) -> Option<String> {
        shared::sentence(draft, self.findings, self.capture, &self.working)
    }

    /// The same servers where it works.
    pub(super) fn control(&self, draft: &Draft, extent: &Extent) -> Vec<String> {
        let mut lines: Vec<String> = self.shared(draft).into_iter().collect();
        for server in &extent.servers {
            let Some(service) = self.working.services.get(server) else { continue };
            let (Some(first), good @ 1..) = (service.first_good, service.good) else { continue };
            let spoken: Vec<String> = service
                .plain
                .keys()
                .map(|protocol| protocol.name().to_owned())
                .chain(service.behind_proxy.keys().map(|protocol| format!("{} behind a PROXY header", protocol.name())))
                .collect();
            let spoken = if spoken.is_empty() { "data".to_owned() } else { spoken.join(", ") };
            let example = packet(first, self.files());
            lines
                .push(format!("{} to {server} worked ({spoken}); the first is {example}", format::count(good, "flow")));
        }
        lines.truncate(4);
        lines
    }
}
