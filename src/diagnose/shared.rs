//! What the failing ones share: the one property that all of them have and hardly any that works.
//!
//! Compared are flows to the same port: backend, client, client network, server name, interface, and the TLS client by its list of ciphers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::incident::{Draft, Good};
use super::raised;
use crate::event::{PacketRef, What};
use crate::host::service::Services;
use crate::rule::finding::Finding;
use crate::rule::summary::{FlowSummary, Verdict};
use crate::rule::view::CaptureView;
use crate::wire::Address;

/// Flows that must fail, and that must work, for a comparison.
const FAIL: usize = 3;
const WORK: usize = 3;
/// Flows compared on either side.
const COMPARED: usize = 512;
/// Percent of the failing that must have it, and of the working that may.
const MOST: usize = 95;
const FEW: usize = 5;

/// What works, looked up for every incident, so collected once.
pub(super) struct Working<'a> {
    /// Flows by the port they were opened to.
    by_port: BTreeMap<u16, Vec<&'a FlowSummary>>,
    /// Servers.
    pub services: Cow<'a, Services>,
}

impl<'a> Working<'a> {
    /// Without `raised`: those that worked until others were known.
    pub(super) fn of(capture: &'a CaptureView<'_>, raised: &BTreeSet<PacketRef>, good: &Good<'_>) -> Self {
        let works = |flow: &&FlowSummary| {
            flow.digest.verdict == Verdict::Healthy && flow.digest.answered && !raised.contains(&flow.facts.id)
        };
        let mut by_port: BTreeMap<u16, Vec<&FlowSummary>> = BTreeMap::new();
        for flow in capture.flows.values().filter(works) {
            by_port.entry(flow.facts.server.port).or_default().push(flow);
        }
        Self { by_port, services: raised::services(raised, good, capture) }
    }

    /// The first flows to any of the ports, without some.
    fn to(&self, ports: &BTreeSet<u16>, without: &BTreeSet<PacketRef>) -> Vec<&'a FlowSummary> {
        let lists = ports.iter().filter_map(|port| self.by_port.get(port));
        let others = |flow: &&&FlowSummary| !without.contains(&flow.facts.id);
        let mut flows: Vec<&FlowSummary> =
            lists.flat_map(|list| list.iter().filter(others).take(COMPARED)).copied().collect();
        flows.sort_by_key(|flow| flow.facts.id);
        flows.truncate(COMPARED);
        flows
    }
}

/// The sentence about the property that splits best; `None` when nothing does.
pub(super) fn sentence(
    draft: &Draft,
    findings: &[Finding],
    capture: &CaptureView<'_>,
    working: &Working<'_>,
) -> Option<String> {
    let failing: Vec<&FlowSummary> = draft
        .members
        .iter()
        .chain(&draft.consequences)
        .filter_map(|i| capture.flow_of(&findings[*i]))
        .take(COMPARED)
        .collect();
    let ids: BTreeSet<_> = failing.iter().map(|flow| flow.facts.id).collect();
    if ids.len() < FAIL {
        return None;
    }
    let ports: BTreeSet<u16> = failing.iter().map(|flow| flow.facts.server.port).collect();
    // The other leg of what fails did not work, whatever it looks like.
    let legs = ids.iter().flat_map(|id| capture.links_of(*id)).flat_map(|link| [link.client_leg, link.backend_leg]);
    let without: BTreeSet<PacketRef> = ids.iter().copied().chain(legs).collect();
    let working = working.to(&ports, &without);
    if working.len() < WORK {
        return None;
    }
    let bad = counts(&failing);
    let good = counts(&working);
    // Ties go to the dimension told first: the backend before the network of its clients.
    let (property, have, also) = bad
        .iter()
        .map(|(property, have)| (property, *have, good.get(property).copied().unwrap_or(0)))
        .filter(|(_, have, also)| have * 100 >= failing.len() * MOST && also * 100 <= working.len() * FEW)
        .max_by_key(|(property, have, also)| {
            (have * 100 / failing.len(), 100 - also * 100 / working.len(), std::cmp::Reverse(property.0))
        })?;
    let all = if have == failing.len() { "all".to_owned() } else { format!("{have} of {}", failing.len()) };
    let none = if also == 0 { "none".to_owned() } else { also.to_string() };
    Some(format!(
        "{all} that fail share {} {}; {none} of {} to the same port that work {}",
        NAMES[property.0],
        property.1,
        working.len(),
        if also == 1 { "does" } else { "do" }
    ))
}

const NAMES: [&str; 6] =
    ["the server", "the server name", "the client", "the client network", "the TLS client", "the interface"];

/// How many flows have each property: (dimension, value).
fn counts(flows: &[&FlowSummary]) -> BTreeMap<(usize, String), usize> {
    let mut counts = BTreeMap::new();
    for flow in flows {
        for (dimension, value) in properties(flow) {
            *counts.entry((dimension, value)).or_default() += 1;
        }
    }
    counts
}

fn properties(flow: &FlowSummary) -> Vec<(usize, String)> {
    let facts = &flow.facts;
    let mut own = vec![
        (0, facts.server.address.to_string()),
        (2, facts.client.address.to_string()),
        (3, network(facts.client.address)),
    ];
    let hello = flow.story.events().find_map(|event| match &event.what {
        What::ClientHello(hello) => Some(hello),
        _ => None,
    });
    if let Some(hello) = hello {
        own.extend(hello.sni.as_ref().map(|name| (1, name.to_string())));
        let list: Vec<String> = hello.ciphers.iter().take(3).map(|cipher| format!("{cipher:04x}")).collect();
        own.push((4, format!("with {} ciphers, first {}", hello.ciphers.len(), list.join(" "))));
    }
    if let Some(face) = facts.from_client.faces.first().filter(|face| face.ifindex > 0) {
        own.push((5, face.ifindex.to_string()));
    }
    own
}

/// /24 of IPv4, /64 of IPv6.
fn network(address: Address) -> String {
    match address.to_ip() {
        std::net::IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        std::net::IpAddr::V6(ip) => {
            let net = std::net::Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX));
            format!("{net}/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::finding::Subject;
    use crate::rule::testing::{Scene, World};

    fn flow(client: &str, server: &str, number: u64) -> Scene {
        Scene::starting(client, server, number, number as i64)
            .handshake()
            .request(3, "GET", "/", 40)
            .response(4, 200, 90)
    }

    /// Five failing flows and five that work; the property is told by the ends.
    fn world(bad: impl Fn(u64) -> (String, String), good: impl Fn(u64) -> (String, String)) -> Option<String> {
        let mut world = World::new();
        let mut findings = Vec::new();
        for n in 0..5 {
            let ((client, server), (other, fine)) = (bad(n), good(n));
            let (failed, worked) = (flow(&client, &server, 1 + n * 20), flow(&other, &fine, 11 + n * 20));
            let rule = crate::catalogue::rule("closed-without-answer").expect("built");
            findings.push(rule.about(Subject::Flow(failed.facts.id), failed.facts.id, Some(Side::Server), "FIN"));
            world = world.with(&failed).with(&worked);
            let healthy = world.flows.get_mut(&worked.facts.id).expect("just added");
            healthy.digest.verdict = Verdict::Healthy;
        }
        let draft = Draft { members: (0..findings.len()).collect(), consequences: Vec::new(), shown: 0 };
        let view = world.view();
        sentence(&draft, &findings, &view, &Working::of(&view, &BTreeSet::new(), &Good::of(&view, &BTreeSet::new())))
    }

    #[test]
    fn one_bad_backend_of_a_pool_is_named() {
        let to = |host: u64| move |n: u64| (format!("10.0.0.{}:40000", n + 1), format!("10.1.0.{host}:80"));
        let said = world(to(3), to(4)).expect("the backend splits them");
        assert_eq!(said, "all that fail share the server 10.1.0.3; none of 5 to the same port that work do");
    }

    #[test]
    fn one_client_network_is_named() {
        let from = |net: u64| move |n: u64| (format!("10.0.{net}.{}:40000", n + 1), "10.1.0.3:80".to_owned());
        assert!(world(from(1), from(2)).expect("the network splits them").contains("the client network 10.0.1.0/24"));
    }

    #[test]
    fn nothing_is_named_when_nothing_splits() {
        let same = |n: u64| (format!("10.0.{n}.1:40000"), "10.1.0.3:80".to_owned());
        let other = |n: u64| (format!("10.0.{n}.2:40000"), "10.1.0.3:80".to_owned());
        assert_eq!(world(same, other), None);
    }
}
