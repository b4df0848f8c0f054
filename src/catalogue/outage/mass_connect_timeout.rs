//! Many servers of one network cannot be reached at the same time, while others can.
//!
//! ## How tcpwhy knows
//! Within 12 s one host's SYNs to at least three servers of the same network (IPv4 /24, IPv6 /64) stay unanswered, and meanwhile another
//! server answers the same host: what the silent ones share is the path to their network.
//!
//! ## What it is not
//! - `network-blackout`: there a host that was heard all the time falls silent, open connections included.
//! - `service-down`, `connect-timeout`: one server alone.
//! - `port-scan`: twenty or more targets, hardly any of which ever answered.
//!
//! ## What people see
//! Time-outs to everything in one subnet, security zone or data centre, while the rest works: a lost route, a firewall rule, a broken VPN.
//!
//! ## False alarms it avoids
//! Peers all over the Internet that are gone (they share no network), one or two dead hosts, scans.

use std::collections::{BTreeMap, BTreeSet};

use super::silence::blackouts;
use crate::event::Side;
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Timestamp;
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "mass-connect-timeout",
    title: "many hosts of one network cannot be reached at the same time",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    claims_absence: true,
    says: "{count} servers in {network} do not answer {asker} at the same time, and others do",
    users_see: &["Connection timed out", "upstream timed out (110: Connection timed out) while connecting to upstream"],
    do_first: &[
        Step { says: "On {asker}: by which next hop do packets to {peer} go?", command: "ip route get {peer}" },
        Step { says: "On {asker}: where on the way does the answer stop?", command: "tracepath -n {peer}" },
    ],
    verify: &[Step {
        says: "from {asker}; prints succeeded once the way is open:",
        command: "nc -vz -w 5 {peer} {port}",
    }],
    not: &[("service-down", "several servers at once are silent")],
    cannot_show: &["which router or firewall on the way drops them"],
    explains: &[Explains("connect-timeout", Scope::Source), Explains("service-down", Scope::PeerTime)],
    sources: &["catalogue of diagnoses, family O"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Silent servers that make a network.
const SERVERS: usize = 3;
/// From so many on it is a scan.
const SCAN: usize = 20;
/// SYNs cited.
const CITED: usize = 4;

fn network(address: Address) -> (bool, u128) {
    (address.is_v4(), if address.is_v4() { address.0 >> 8 } else { address.0 >> 64 })
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut asked: BTreeMap<(Address, (bool, u128)), Vec<&FlowSummary>> = BTreeMap::new();
    for flow in capture.found_by("connect-timeout") {
        let ends = (flow.facts.client.address, network(flow.facts.server.address));
        asked.entry(ends).or_default().push(flow);
    }
    let dark = blackouts(capture);
    let mut found: Vec<Finding> = Vec::new();
    for ((asker, _), mut flows) in asked {
        flows.sort_by_key(|flow| flow.facts.id);
        for part in parts(&flows, capture) {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let (from, until) = (first.facts.start(), last.facts.last.time);
            let darkness = |span: (Timestamp, Timestamp)| span.0 <= until && from <= span.1;
            if dark.iter().any(|blackout| darkness(blackout.span(capture.end))) {
                continue;
            }
            found.extend(judge(found.len() as u32, asker, part, capture));
        }
    }
    found
}

/// Time-outs in runs without a pause longer than the grouping time.
fn parts<'f, 'a>(
    flows: &'f [&'a FlowSummary],
    capture: &CaptureView<'_>,
) -> impl Iterator<Item = &'f [&'a FlowSummary]> {
    let group = capture.thresholds.group;
    flows.chunk_by(move |one, next| next.facts.start().since(one.facts.last.time) <= group)
}

fn judge(n: u32, asker: Address, flows: &[&FlowSummary], capture: &CaptureView<'_>) -> Option<Finding> {
    let servers: BTreeSet<Endpoint> = flows.iter().map(|flow| flow.facts.server).collect();
    let hosts: BTreeSet<Address> = servers.iter().map(|server| server.address).collect();
    if hosts.len() < SERVERS || hosts.len() >= SCAN {
        return None;
    }
    let (from, first) = (flows.first()?.facts.id, flows.first()?.facts.server);
    let until = flows.iter().map(|flow| flow.facts.last).max()?;
    let mine = |digest: &&Digest| digest.client().address == asker && digest.accepted;
    // One that gets through to any of them meanwhile: they are not all unreachable.
    let through = |digest: &&Digest| hosts.contains(&digest.server().address);
    if capture.began(from.time, until.time).filter(mine).any(|digest| through(&digest)) {
        return None;
    }
    let control = capture.began(from.time, until.time).filter(mine).map(|digest| digest.id).min()?;
    let good = |from: Timestamp, to: Timestamp| {
        let accepted = servers.iter().flat_map(move |server| capture.began_to(server, from, to));
        accepted.filter(mine).map(|digest| digest.id)
    };
    let before = good(Timestamp::MIN, from.time).max();
    let after = good(until.time, Timestamp::MAX).min();
    let standing = after.map_or(Standing::GoesOn, Standing::Over);
    let mut finding = RULE
        .about(Subject::Host(n), from, Some(Side::Client), format!("SYN to {first}"))
        .on_flow(from)
        .severity(if before.is_some() { Severity::Critical } else { Severity::Warning })
        .confidence(if before.is_some() { Confidence::High } else { Confidence::Medium });
    let mut cited: BTreeSet<Address> = BTreeSet::from([first.address]);
    for flow in flows {
        if cited.len() < CITED && cited.insert(flow.facts.server.address) {
            finding = finding.cites(flow.facts.id, Some(flow.facts.id), format!("SYN to {}", flow.facts.server));
        }
    }
    finding = finding.cites(control, Some(control), "control: another server answers the same host");
    let near = network(first.address);
    let same = |digest: &Digest| network(digest.server().address) == near;
    if capture.began(from.time, until.time).filter(mine).any(same) {
        finding =
            finding.note("others of the same network answer meanwhile: a rule that names these, not the whole network");
    }
    finding = match before {
        Some(good) => finding.cites(good, Some(good), "the last connection to one of them that was accepted"),
        None => finding.note("whether any of them was ever reachable is not in this capture"),
    };
    if let Some(back) = after {
        finding = finding.cites(back, Some(back), "one of them answers again");
    }
    let reach = Reach {
        servers: servers.into_iter().collect(),
        sources: vec![asker],
        spans: vec![(from.time, until.time)],
        flows: flows.len() as u64,
        of: flows.len() as u64,
        clients: 1,
        last_good: before,
        standing,
        ..Reach::default()
    };
    Some(
        finding
            .with("asker", asker)
            .with("peer", first.address)
            .with("port", u64::from(first.port))
            .with("count", hosts.len() as u64)
            .with("network", spelled(first.address))
            .reaches(reach),
    )
}

/// The network of an address as people write it.
fn spelled(address: Address) -> String {
    let bits = if address.is_v4() { 8 } else { 64 };
    let base = if address.is_v4() {
        let std::net::IpAddr::V4(ip) = address.to_ip() else { return address.to_string() };
        let [a, b, c, _] = ip.octets();
        format!("{a}.{b}.{c}.0")
    } else {
        Address(address.0 >> bits << bits).to_string()
    };
    format!("{base}/{}", if address.is_v4() { 24 } else { 64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn dead(n: u64, server: &str, start: i64) -> Scene {
        let mut scene = Scene::starting(&format!("10.0.0.1:{}", 40_000 + n), server, 10 * (n + 1), start);
        scene = scene.syn(0).syn(1000).syn(3000).capture_ends(10_000);
        let rule = crate::catalogue::rule("connect-timeout").expect("built");
        scene.findings.extend(scene.check(rule));
        scene
    }

    fn good(number: u64, server: &str, start: i64) -> Scene {
        Scene::starting("10.0.0.1:50000", server, number, start)
            .handshake()
            .request(3, "GET", "/", 40)
            .response(4, 200, 90)
    }

    fn three(last: &str) -> World {
        World::new()
            .with(&dead(10, "192.0.2.1:80", 10_000))
            .with(&dead(11, "192.0.2.2:80", 10_100))
            .with(&dead(12, last, 10_200))
    }

    #[test]
    fn three_servers_of_one_network_while_another_answers_are_one_event() {
        let world = three("192.0.2.3:443").with_good(&good(1, "192.0.2.1:80", 0)).with_good(&good(
            200,
            "198.51.100.1:80",
            11_000,
        ));
        let findings = world.check(&RULE);
        assert_eq!(
            (findings.len(), findings[0].severity, findings[0].confidence),
            (1, Severity::Critical, Confidence::High)
        );
        assert_eq!(findings[0].values.get("network"), Some(&"192.0.2.0/24".into()));
    }

    #[test]
    fn without_a_success_before_or_a_control_it_is_less_or_nothing() {
        let control = good(200, "198.51.100.1:80", 11_000);
        let findings = three("192.0.2.3:443").with_good(&control).check(&RULE);
        assert_eq!((findings[0].severity, findings[0].confidence), (Severity::Warning, Confidence::Medium));
        assert!(three("192.0.2.3:443").check(&RULE).is_empty());
    }

    #[test]
    fn hosts_that_share_no_network_and_a_network_that_answers_in_part_are_none() {
        let control = good(200, "198.51.100.1:80", 11_000);
        assert!(three("203.0.113.3:443").with_good(&control).check(&RULE).is_empty());
        let part = three("192.0.2.3:443").with_good(&control).with_good(&good(210, "192.0.2.2:81", 11_500));
        assert!(part.check(&RULE).is_empty());
    }
}
