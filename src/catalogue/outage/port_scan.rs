//! One source tries many ports of a host, or one port of many hosts.
//!
//! ## How tcpwhy knows
//! Within 60 s one source opens connections to at least 20 different ports of one host, or to one port of at least 50 hosts, and at least
//! four fifths of them are refused, unanswered or closed without data. Or it asks by ARP for at least 50 addresses of its link that nobody
//! has, and the few connections it opens meanwhile come to nothing. Its connections count for no other diagnosis.
//!
//! ## What it is not
//! - `service-down`: there many clients fail at one port.
//! - `network-blackout`: there hosts that used to answer fall silent; the scanned ones never spoke.
//!
//! ## What people see
//! Intrusion detection complains; logs fill with connections without a request.
//!
//! ## False alarms it avoids
//! Monitoring of known ports (these answer), one client that retries one port, and a client whose network is gone (it tries few ports of
//! each host and gets data from nobody, but also worked before). A host that sweeps its link and talks to others as well is told as a
//! scanner, but no failure of it is put down to that.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{PacketRef, Side};
use crate::flow::facts::IpProtocol;
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::Digest;
use crate::rule::view::{CaptureView, short};
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::Address;

/// Different ports of one host, or hosts with one port, within one [`WITHIN`].
const PORTS: usize = 20;
const HOSTS: usize = 50;
const WITHIN: Elapsed = Elapsed::secs(60);
/// Percent of them that come to nothing.
const BAD: usize = 80;
/// Connections cited.
const CITED: usize = 4;

pub static RULE: Rule = Rule {
    id: "port-scan",
    title: "one source probes many ports or hosts",
    severity: Severity::Notice,
    confidence: Confidence::Medium,
    culprit: Culprit::Client,
    says: "{source} tries {ports} ports of {target} within {span}: {bad} of {tries} connections come to nothing",
    variants: &[
        "{source} tries port {port} of {hosts} hosts within {span}: {bad} of {tries} connections come to nothing",
        "{source} asks for {hosts} addresses of its link within {span} that nobody has",
    ],
    users_see: &["port scan detected", "connections without a request in the log"],
    do_first: &[Step {
        says: "Whose is {source}? A scanner of your own is allowed to do this:",
        command: "whois {source}",
    }],
    verify: &[Step {
        says: "on the host that is tried; connections of {source} right now:",
        command: "ss -tn state all dst {source}",
    }],
    cannot_show: &["who is behind that address, and whether it may do this"],
    explains: &[
        Explains("connect-refused", Scope::Source),
        Explains("connect-timeout", Scope::Source),
        Explains("handshake-reset-by-client", Scope::Source),
        Explains("closed-before-request", Scope::Source),
        Explains("closed-without-answer", Scope::Source),
        Explains("stray-reset", Scope::Source),
        Explains("syn-flood", Scope::Source),
    ],
    sources: &["Zeek, policy/misc/scan"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (source, flows) in capture.sources() {
        let tcp = || short(flows).filter(|digest| digest.transport == IpProtocol::Tcp);
        // Where all of a source's failures are too few for one busy minute, no minute has enough.
        if tcp().filter(|digest| !digest.answered).count() * 100 < PORTS * BAD {
            continue;
        }
        let mut tries: Vec<&Digest> = tcp().collect();
        tries.sort_unstable_by_key(|digest| digest.id);
        found.extend(scan(source, &tries, found.len() as u32, capture));
    }
    for (source, asked) in vain(capture) {
        let scans = |finding: &Finding| finding.reach.as_ref().is_some_and(|reach| reach.sources == [source]);
        if !found.iter().any(scans) {
            found.extend(sweep(source, &asked, found.len() as u32, capture));
        }
    }
    found
}

/// What each host asked for by ARP or neighbour discovery and nobody answered, in order of time.
fn vain(capture: &CaptureView<'_>) -> BTreeMap<Address, Vec<(PacketRef, Address)>> {
    let mut by_asker: BTreeMap<Address, Vec<(PacketRef, Address)>> = BTreeMap::new();
    for (address, known) in capture.neighbors.by_address.iter().filter(|(_, known)| known.answers.is_empty()) {
        for (asker, times) in known.askers.iter().filter(|(asker, _)| !asker.to_ip().is_unspecified()) {
            by_asker.entry(*asker).or_default().extend(times.first.first().map(|first| (*first, *address)));
        }
    }
    by_asker.retain(|_, asked| asked.len() >= HOSTS);
    by_asker.values_mut().for_each(|asked| asked.sort_unstable());
    by_asker
}

/// The first minute in which one host asks for that many addresses.
fn sweep(source: Address, asked: &[(PacketRef, Address)], n: u32, capture: &CaptureView<'_>) -> Option<Finding> {
    let minute = asked.windows(HOSTS).find(|part| part[HOSTS - 1].0.time.since(part[0].0.time) <= WITHIN)?;
    let (first, from) = (minute[0], minute[0].0.time);
    let end = asked.partition_point(|(at, _)| at.time.since(from) <= WITHIN);
    let minute: Vec<_> = asked[..end].iter().filter(|(at, _)| at.time >= from).collect();
    let last = **minute.last()?;
    let shows = |address: Address| format!("{source} asks for {address}");
    // Failures are put down to it only where the source does nothing else meanwhile.
    let tries = capture.began(from, last.0.time + WITHIN).filter(|digest| digest.client().address == source);
    let (mut bad, mut good) = (0_u64, 0_u64);
    tries.filter(|digest| digest.transport == IpProtocol::Tcp).for_each(|digest| match digest.answered {
        true => good += 1,
        false => bad += 1,
    });
    let finding = RULE
        .about(Subject::Host(n), first.0, None, shows(first.1))
        .cites(last.0, None, shows(last.1))
        .variant(2)
        .with("source", source)
        .with("hosts", minute.len() as u64)
        .with("span", last.0.time.since(from));
    if good > 0 {
        return Some(finding.note(format!("{good} connections of it meanwhile carried data")));
    }
    Some(finding.reaches(Reach {
        sources: vec![source],
        spans: vec![(from, last.0.time)],
        flows: bad,
        of: bad,
        clients: 1,
        standing: Standing::Unknown,
        ..Reach::default()
    }))
}

/// The busiest minute of one source, if it is a scan.
fn scan(source: Address, tries: &[&Digest], n: u32, capture: &CaptureView<'_>) -> Option<Finding> {
    let mut start = 0;
    while start < tries.len() {
        let from = tries[start].id.time;
        let end = start + tries[start..].partition_point(|digest| digest.id.time.since(from) <= WITHIN);
        let minute = &tries[start..end];
        if let Some(kind) = kind(minute) {
            return Some(finding(source, tries, minute, kind, n, capture));
        }
        start = end;
    }
    None
}

enum Kind {
    Ports(Address, usize),
    Hosts(u16, usize),
}

fn kind(minute: &[&Digest]) -> Option<Kind> {
    let bad = minute.iter().filter(|digest| !digest.answered).count();
    if minute.len() < PORTS || bad * 100 < minute.len() * BAD {
        return None;
    }
    let mut ports: BTreeMap<Address, BTreeSet<u16>> = BTreeMap::new();
    let mut hosts: BTreeMap<u16, BTreeSet<Address>> = BTreeMap::new();
    for server in minute.iter().filter(|digest| !digest.answered).map(|digest| digest.server()) {
        ports.entry(server.address).or_default().insert(server.port);
        hosts.entry(server.port).or_default().insert(server.address);
    }
    let (host, most) = ports.iter().map(|(host, ports)| (*host, ports.len())).max_by_key(|(_, n)| *n)?;
    if most >= PORTS {
        return Some(Kind::Ports(host, most));
    }
    let (port, most) = hosts.iter().map(|(port, hosts)| (*port, hosts.len())).max_by_key(|(_, n)| *n)?;
    // A client whose network is gone also tries many hosts; but it got data before.
    (most >= HOSTS && bad == minute.len()).then_some(Kind::Hosts(port, most))
}

fn finding(
    source: Address,
    tries: &[&Digest],
    minute: &[&Digest],
    kind: Kind,
    n: u32,
    capture: &CaptureView<'_>,
) -> Finding {
    let bad: Vec<&&Digest> = minute.iter().filter(|digest| !digest.answered).collect();
    let (first, last) = (minute[0].id, minute[minute.len() - 1].id);
    let text = |digest: &Digest| match (digest.accepted, capture.flows.get(&digest.id)) {
        (true, _) => format!("{}: open, no data", digest.server()),
        (false, Some(flow)) if flow.facts.from_server.reset_count > 0 => format!("{}: refused", digest.server()),
        (false, _) => format!("{}: no answer", digest.server()),
    };
    let mut finding = RULE.about(Subject::Host(n), bad[0].id, Some(Side::Client), text(bad[0])).on_flow(bad[0].id);
    for digest in bad.iter().skip(1).take(CITED - 1) {
        finding = finding.cites(digest.id, Some(digest.id), text(digest));
    }
    let span = last.time.since(first.time);
    let end: PacketRef = tries[tries.len() - 1].id;
    let (variant, finding) = match kind {
        Kind::Ports(host, ports) => (0, finding.with("target", host).with("ports", ports as u64)),
        Kind::Hosts(port, hosts) => (1, finding.with("port", u64::from(port)).with("hosts", hosts as u64)),
    };
    finding
        .variant(variant)
        .with("source", source)
        .with("span", span)
        .with("tries", minute.len() as u64)
        .with("bad", bad.len() as u64)
        .rules_out("service-down", format!("only {source} tries these ports"), &[first, last])
        .reaches(Reach {
            sources: vec![source],
            spans: vec![(first.time, end.time)],
            flows: bad.len() as u64,
            of: tries.len() as u64,
            clients: 1,
            standing: Standing::Unknown,
            ..Reach::default()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, World, host};

    fn refused(n: u64, server: String) -> Scene {
        let client = format!("203.0.113.66:{}", 40000 + n);
        Scene::starting(&client, &server, 1 + n * 2, n as i64 * 10).syn(0).rst(Side::Server, 1, ResetKind::Refused, 0)
    }

    #[test]
    fn twenty_refused_ports_of_one_host_are_a_scan() {
        let world = (0..20).fold(World::new(), |world, n| world.with(&refused(n, format!("10.0.0.2:{}", 100 + n))));
        let findings = world.check(&RULE);
        assert_eq!((findings.len(), findings[0].variant), (1, 0));
        assert_eq!(findings[0].values.get("ports"), Some(&20u64.into()));
    }

    #[test]
    fn one_port_of_fifty_hosts_is_a_sweep() {
        let world = (0..50).fold(World::new(), |world, n| world.with(&refused(n, format!("10.0.1.{}:22", n + 1))));
        assert_eq!(world.check(&RULE)[0].variant, 1);
    }

    fn sweeps(mut world: World, addresses: u8) -> World {
        for n in 0..addresses {
            let at = Scene::starting("10.0.0.1:1", "10.0.0.2:2", 1000 + u64::from(n), i64::from(n) * 30).facts.id;
            let times = crate::host::neighbor::Times { count: 1, first: vec![at], last: Some(at) };
            let known = world.neighbors.by_address.entry(host(&format!("203.0.113.{}", 100 + n))).or_default();
            known.askers.insert(host("203.0.113.66"), times);
        }
        world
    }

    #[test]
    fn a_host_that_asks_for_fifty_addresses_that_nobody_has_sweeps_its_link() {
        let findings = sweeps(World::new().with(&refused(3, "203.0.113.9:80".into())), 50).check(&RULE);
        assert_eq!((findings.len(), findings[0].variant), (1, 2));
        let reach = findings[0].reach.as_ref().expect("its refusals are its own doing");
        assert_eq!((reach.flows, reach.sources.as_slice()), (1, [host("203.0.113.66")].as_slice()));
        assert!(sweeps(World::new(), 49).check(&RULE).is_empty());
    }

    #[test]
    fn a_sweeping_host_that_also_works_has_its_own_failures() {
        let good = Scene::starting("203.0.113.66:40000", "10.0.0.2:443", 1, 100);
        let good = good.handshake().request(3, "GET", "/", 40).response(4, 200, 90);
        let findings = sweeps(World::new().with_good(&good), 60).check(&RULE);
        assert_eq!((findings.len(), findings[0].reach.is_none()), (1, true));
    }

    #[test]
    fn one_client_that_retries_one_port_scans_nothing() {
        let world = (0..40).fold(World::new(), |world, n| world.with(&refused(n, "10.0.0.2:80".into())));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn monitoring_of_ports_that_answer_is_no_scan() {
        let world = (0..40).fold(World::new(), |world, n| {
            let scene =
                Scene::starting("203.0.113.66:40000", &format!("10.0.0.2:{}", 100 + n), 1 + n * 9, n as i64 * 10);
            world.with_good(&scene.handshake().request(3, "GET", "/", 40).response(4, 200, 90))
        });
        assert!(world.check(&RULE).is_empty());
    }
}
