//! Datagrams that were sent in several fragments never arrive whole.
//!
//! ## How tcpwhy knows
//! Of three datagrams or more between two hosts the first fragment came, and a second later others were still missing. Or the receiver says so
//! itself: ICMP "fragment reassembly time exceeded" (IPv4 type 11 code 1, IPv6 type 3 code 1), three times or more.
//!
//! ## What it is not
//! - `pmtu-blackhole`: there whole TCP segments are too large and vanish.
//! - `dns-no-answer`: what becomes of it where the datagram was an answer of the DNS. It explains that.
//!
//! ## What people see
//! Short answers come, long ones do not: DNS with DNSSEC or many records, IPsec (IKE with certificates), SIP, RADIUS with EAP-TLS, NFS over UDP. Only the
//! first fragment has ports; firewalls and load balancers that look at ports drop the others.
//!
//! ## False alarms it avoids
//! A filter on ports (`port 53`) records the first fragments only: without one later fragment of that sender to that receiver in the capture, and
//! without the ICMP, it is silent. Fragments that the snaplen cut. One or two datagrams. A capture that loses packets itself is believed with low confidence.

use std::collections::BTreeMap;

use crate::decode::LostDatagram;
use crate::event::{PacketRef, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::wire::icmp::IcmpError;
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "ip-fragments-lost",
    title: "fragmented datagrams never complete",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    says: "{datagrams} datagrams from {sender} to {receiver} came in fragments and never whole",
    variants: &["{receiver} says {errors} times that fragments from {sender} are missing: datagrams never come whole"],
    users_see: &[
        "ip reassembly time exceeded",
        "connection timed out; no servers could be reached",
        "Fragment reassembly time exceeded",
    ],
    do_first: &[
        Step {
            says: "On {receiver}: do failed reassemblies grow?",
            command: "nstat -az IpReasmFails IpReasmTimeout Ip6ReasmFails",
        },
        Step {
            says: "From {receiver}: does a large ping, which is sent in fragments, come back?",
            command: "ping -c 3 -s 3000 {sender}",
        },
        Step {
            says: "On firewalls and load balancers between them: are fragments without ports dropped? In the meantime let the sender send less at once (DNS: EDNS buffer of 1232 octets). On {receiver}, all fragments that arrive:",
            command: "timeout 60 tcpdump -ni any 'ip[6:2] & 0x3fff != 0 and host {sender}'",
        },
    ],
    verify: &[Step { says: "from {receiver}; must be answered:", command: "ping -c 3 -s 3000 {sender}" }],
    not: &[("packet-loss", "the first fragments come, the others do not")],
    cannot_show: &["who drops them, and whether they went past the capture point on another link"],
    explains: &[
        Explains("dns-no-answer", Scope::ServerAddress),
        Explains("dns-truncated-no-tcp", Scope::ServerAddress),
    ],
    sources: &["RFC 791 §3.2", "RFC 8900", "RFC 6891 §6.2.5"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Fewer are an anecdote.
const FEW: usize = 3;
/// Datagrams and errors cited.
const CITED: usize = 3;
/// Pairs of hosts told.
const PAIRS: usize = 8;
/// Of the DNS.
const DNS: u16 = 53;

/// What is known of the fragments of one sender to one receiver.
#[derive(Default)]
struct Pair<'a> {
    lost: Vec<&'a LostDatagram>,
    errors: Vec<PacketRef>,
    port: Option<u16>,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let fragments = &capture.packets.lost_fragments;
    let mut pairs: BTreeMap<(Address, Address), Pair<'_>> = BTreeMap::new();
    for lost in &fragments.shown {
        let pair = pairs.entry((lost.source, lost.destination)).or_default();
        pair.port = pair.port.or(lost.port);
        pair.lost.push(lost);
    }
    for (at, error) in errors(capture) {
        let pair = pairs.entry((error.source.address, error.destination.address)).or_default();
        pair.port = pair.port.or(Some(error.source.port).filter(|port| *port != 0));
        pair.errors.push(at);
    }
    // Without a later fragment of that sender a filter on ports may have left them out.
    let complete =
        |ends: &(Address, Address), pair: &Pair<'_>| fragments.later.contains(ends) || !pair.errors.is_empty();
    let shows = |ends: &(Address, Address), pair: &Pair<'_>| {
        pair.errors.len() >= FEW || pair.lost.len() >= FEW && complete(ends, pair)
    };
    let told = pairs.into_iter().filter(|(ends, pair)| shows(ends, pair)).take(PAIRS).enumerate();
    told.filter_map(|(n, (ends, pair))| tell(n as u32, ends, pair, capture)).collect()
}

/// "Fragment reassembly time exceeded", by whoever sent it, in the order of time.
fn errors<'a>(capture: &'a CaptureView<'_>) -> Vec<(PacketRef, &'a IcmpError)> {
    let meant = |error: &IcmpError| error.code == 1 && error.kind == if error.v6 { 3 } else { 11 };
    let on_flows = capture.flows.values().flat_map(|flow| flow.story.events()).filter_map(|event| match &event.what {
        What::Icmp(error) => Some((event.at, error.as_ref())),
        _ => None,
    });
    let strays = capture.icmp.kept.iter().map(|stray| (stray.at, &stray.error));
    let mut found: Vec<_> = on_flows.chain(strays).filter(|(_, error)| meant(error)).collect();
    found.sort_by_key(|(at, _)| *at);
    found
}

fn tell(
    n: u32,
    (sender, receiver): (Address, Address),
    mut pair: Pair<'_>,
    capture: &CaptureView<'_>,
) -> Option<Finding> {
    pair.lost.sort_by_key(|lost| lost.at);
    let first = pair.lost.first().map(|lost| lost.at).or(pair.errors.first().copied())?;
    let last = pair.lost.iter().map(|lost| lost.at).chain(pair.errors.iter().copied()).max()?;
    let by_errors = pair.lost.len() < FEW;
    let mut cited = pair
        .lost
        .iter()
        .take(CITED)
        .map(|lost| {
            (lost.at, format!("the first fragment of a datagram: {} octets of it came, the rest did not", lost.came))
        })
        .chain(
            pair.errors
                .iter()
                .take(CITED)
                .map(|at| (*at, "ICMP: fragments are missing, reassembly is given up".to_owned())),
        );
    let (at, words) = cited.next()?;
    let mut finding = RULE.about(Subject::Host(n), at, None, words);
    for (at, words) in cited {
        finding = finding.cites(at, None, words);
    }
    let reach = Reach {
        servers: pair.port.filter(|port| *port == DNS).map(|port| Endpoint::new(sender, port)).into_iter().collect(),
        hosts: vec![sender],
        sources: pair.port.filter(|port| *port == DNS).map(|_| receiver).into_iter().collect(),
        spans: vec![(first.time, last.time)],
        ..Reach::default()
    };
    let confidence = match (capture.tally.unseen > 0, pair.errors.is_empty()) {
        (true, true) => Confidence::Low,
        (_, false) => Confidence::High,
        _ => Confidence::Medium,
    };
    Some(
        finding
            .confidence(confidence)
            .variant(u8::from(by_errors))
            .with("datagrams", pair.lost.len() as u64)
            .with("errors", pair.errors.len() as u64)
            .with("sender", sender)
            .with("receiver", receiver)
            .reaches(reach),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, host};
    use crate::time::Timestamp;

    fn world(datagrams: u64, later: bool) -> World {
        let mut world = World::new().with(&Scene::open());
        let at = |n: u64| PacketRef { file: 0, number: 10 + n, time: Timestamp(n as i64 * 1_000_000_000) };
        let (source, destination) = (host("10.0.0.2"), host("10.0.0.1"));
        let lost = |n| LostDatagram { at: at(n), source, destination, protocol: 17, port: Some(53), came: 1480 };
        world.packets.lost_fragments.shown = (0..datagrams).map(lost).collect();
        world.packets.lost_fragments.later = if later { vec![(source, destination)] } else { Vec::new() };
        world
    }

    #[test]
    fn three_datagrams_of_which_fragments_never_came_are_a_warning() {
        let findings = world(3, true).check(&RULE);
        let cited: Vec<u64> = findings[0].evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!(
            (findings.len(), findings[0].confidence, cited.as_slice()),
            (1, Confidence::Medium, [10, 11, 12].as_slice())
        );
        assert_eq!(findings[0].reach.as_ref().map(|reach| reach.sources.clone()), Some(vec![host("10.0.0.1")]));
    }

    #[test]
    fn two_datagrams_and_a_filter_on_ports_are_silent() {
        assert!(world(2, true).check(&RULE).is_empty());
        assert!(world(9, false).check(&RULE).is_empty(), "no later fragment at all: they may have been left out");
    }

    #[test]
    fn the_receiver_that_says_so_is_believed() {
        let error = |n: u64| {
            let What::Icmp(error) = super::super::tests::icmp("10.0.0.2", 11, 1) else { unreachable!() };
            crate::host::icmp::StrayError {
                at: PacketRef { file: 0, number: 50 + n, time: Timestamp(n as i64) },
                from: host("10.0.0.2"),
                error: *error,
            }
        };
        let mut told = world(0, false);
        told.icmp.kept = (0..3).map(error).collect();
        let findings = told.check(&RULE);
        assert_eq!((findings[0].confidence, findings[0].variant), (Confidence::High, 1));
        told.icmp.kept.truncate(2);
        assert!(told.check(&RULE).is_empty());
    }
}
