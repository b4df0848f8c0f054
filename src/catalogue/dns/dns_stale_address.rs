//! A host keeps connecting to an address that its name no longer has.
//!
//! ## How tcpwhy knows
//! A DNS answer in the capture tied the name to the address (or connections to it asked for the name), the newest answer leaves the
//! address out and gives another one, and packets that are sent to the old address after that get no answer, RST or ICMP. It is certain when
//! the host itself got the newer answer: another of its processes asked, and the one that connects still uses what it once learnt. Apache
//! resolves a backend once per child process, nginx at start, the JVM may cache for ever.
//!
//! Where somebody else has the old address, connections to it meet a service that closes on them, or a certificate for other names.
//!
//! When the old address still works, it is told only after it was absent for three times its TTL and for 180 s at least: traffic goes
//! to the old target, a warning.
//!
//! ## What it is not
//! - `connect-timeout` of a valid target: there the address is still in the DNS.
//! - Load balancing by DNS: an address that is missing in one answer comes back in the next ones.
//!
//! ## What people see
//! Apache's `AH00957 … (110)` and `AH01114`, 503 (most of them at once), nginx's 504 while connecting; a restart cures it for days.
//!
//! ## False alarms it avoids
//! Answers that rotate among the same addresses, addresses that another name still has, names of which only other hosts were told.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Side, What};
use crate::flow::facts::IpProtocol;
use crate::host::names::Lease;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::summary::{FlowSummary, Verdict};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// SYNs begun this long before the newer answer count: they are repeated after it.
const BEGUN: Elapsed = Elapsed::secs(60);
/// Who got the newer answer may still be about to use it.
const SLACK: Elapsed = Elapsed::secs(2);
/// Absent for so long, an address is gone from the name and not only from one answer.
const ABSENT: Elapsed = Elapsed::secs(180);
/// What a dead address looks like on a flow.
const DEAD: [&str; 6] = [
    "connect-timeout",
    "connect-refused",
    "icmp-destination-unreachable",
    "icmp-admin-prohibited",
    "icmp-port-unreachable",
    "rto-unrecovered",
];

/// What a connection meets at an address that somebody else has now.
const WRONG: [&str; 7] = [
    "closed-without-answer",
    "http-upstream-closed-before-response",
    "http-wrong-vhost",
    "tls-cert-name-mismatch",
    "tls-closed-after-clienthello",
    "tls-sni-unrecognized",
    "unexpected-protocol-on-port",
];

pub static RULE: Rule = Rule {
    id: "dns-stale-address",
    title: "a host keeps connecting to an address its name no longer has",
    confidence: Confidence::High,
    culprit: Culprit::Config,
    says: "{client_host} still connects to {host}, an address {name} no longer has",
    variants: &["{client_host} still uses {host}, an address {name} no longer has: traffic goes to the old target"],
    users_see: &["AH00957", "(110)Connection timed out", "AH01114", "503 Service Unavailable", "504 Gateway Time-out"],
    do_first: &[
        Step {
            says: "On {client_host}: is {host} absent from this answer? Then what holds it is stale:",
            command: "dig +short {name}",
        },
        Step { says: "On {client_host}: which processes still use it?", command: "ss -tnp dst {host}" },
    ],
    fix: &[
        Fix {
            says: "now, for Apache (running requests finish); good until the next change of the address:",
            command: "apachectl graceful",
            risk: "new children ask the DNS once more and keep that answer",
        },
        Fix {
            says: "for good, Apache (or retry=10 smax=0 ttl=5, or addressttl=60 where the version knows it):",
            command: "ProxyPass / http://{name}/ disablereuse=On retry=0 connectiontimeout=5",
            risk: "a new connection for each request",
        },
        Fix {
            says: "for good, nginx: a name in a variable is asked again when its time is over:",
            command: "resolver 127.0.0.1 valid=30s; set $backend http://{name}; proxy_pass $backend;",
            risk: "requests fail when the resolver fails",
        },
        Fix {
            says: "for good, HAProxy: a resolvers section, and on the server line:",
            command: "server backend {name}:{port} resolvers dns init-addr last,libc,none check",
            risk: "none known",
        },
    ],
    verify: &[Step {
        says: "on {client_host}; prints the address a fresh lookup reaches, and the status:",
        command: "curl -sS -o /dev/null -m 5 -w '%{http_code} %{remote_ip}\\n' http://{name}:{port}/",
    }],
    not: &[("connect-timeout", "the address has left the DNS: nobody is expected to answer there")],
    cannot_show: &["which process holds the old address", "whether the old address was given to somebody else"],
    explains: &[
        Explains("connect-timeout", Scope::SameOrLink),
        // An attempt that ended just before the DNS told of the change had the same cause.
        Explains("connect-timeout", Scope::PeerTime),
        Explains("connect-refused", Scope::PeerTime),
        Explains("service-down", Scope::ServerAddress),
        Explains("network-blackout", Scope::ServerAddress),
        Explains("connect-refused", Scope::SameOrLink),
        Explains("icmp-destination-unreachable", Scope::SameOrLink),
        Explains("icmp-port-unreachable", Scope::SameOrLink),
        Explains("icmp-admin-prohibited", Scope::SameOrLink),
        Explains("proxy-upstream-connect-failed", Scope::SameOrLink),
        Explains("rto-unrecovered", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::Link),
        Explains("proxy-upstream-connect-failed", Scope::Peer),
        Explains("tls-cert-name-mismatch", Scope::Peer),
        Explains("tls-sni-unrecognized", Scope::Peer),
        Explains("http-wrong-vhost", Scope::Peer),
        Explains("proxy-no-server-available", Scope::Host),
        Explains("slow-response", Scope::Link),
        Explains("proxy-retries-hide-failure", Scope::Link),
        Explains("proxy-adds-latency", Scope::Link),
    ],
    sources: &[
        "[S2]",
        "Apache mod_proxy manual: ProxyPass, disablereuse, addressttl",
        "RFC 1035 §3.2.1",
        "RFC 2181 §8",
    ],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// A name that left an address.
struct Moved<'a> {
    name: &'a str,
    /// The last answer that gave the old address, when the capture has one.
    old: Option<Lease>,
    /// The first answer that gave another address instead, and that address.
    at: Timestamp,
    new: (Address, Lease),
    /// The host itself was told.
    told: bool,
    /// Time of the newest answer.
    newest: Timestamp,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used: BTreeSet<(Address, Endpoint)> = BTreeSet::new();
    // What is known of a server, and of a host and a server, is the same for all their connections.
    let mut abandoned: BTreeMap<Address, bool> = BTreeMap::new();
    let mut known: BTreeMap<(Address, Endpoint), Option<Moved<'_>>> = BTreeMap::new();
    for flow in capture.flows.values().filter(|flow| flow.facts.transport == IpProtocol::Tcp) {
        let facts = &flow.facts;
        let dead = flow.findings.iter().any(|finding| DEAD.contains(&finding.rule.as_ref()));
        let works = flow.digest.verdict == Verdict::Healthy && flow.digest.answered;
        let wrong = flow.findings.iter().any(|finding| WRONG.contains(&finding.rule.as_ref()));
        if !dead && !works && !wrong {
            continue;
        }
        let address = facts.server.address;
        if !*abandoned.entry(address).or_insert_with(|| nameless(address, capture)) {
            continue;
        }
        let ends = (facts.client.address, facts.server);
        let moved = known.entry(ends).or_insert_with(|| moved(ends.0, ends.1, capture));
        let Some(moved) = moved else { continue };
        if dead && facts.last.time > moved.at && facts.start() > moved.at - BEGUN {
            findings.push(failed(flow, moved, capture));
        } else if wrong && facts.start() > moved.at {
            let finding = failed(flow, moved, capture).variant(1);
            let confidence = finding.confidence.min(Confidence::High);
            findings.push(finding.confidence(confidence));
        } else if works
            && moved.told
            && outlived(facts.start(), moved)
            && used.insert((facts.client.address, facts.server))
        {
            let finding = told(flow, moved, capture).severity(Severity::Warning).variant(1);
            findings.push(finding.confidence(Confidence::High));
        }
    }
    findings
}

/// A connection that begins when the old answer was long over.
fn outlived(start: Timestamp, moved: &Moved<'_>) -> bool {
    let Some(old) = moved.old else { return false };
    let absent = moved.newest.since(old.last.time);
    let ttl = Elapsed::secs(old.ttl.into());
    absent >= ABSENT.max(Elapsed(ttl.0.saturating_mul(3))) && start > old.expires().max(moved.at) + SLACK
}

/// Whether no name has the address: one that has it still makes it no stale one.
fn nameless(address: Address, capture: &CaptureView<'_>) -> bool {
    let mut names = capture.names.names_of(address);
    names.all(|(name, lease)| newest(name, address, capture).is_some_and(|newest| newest > lease.last.time))
}

/// The name that the server's address had and has no more.
fn moved<'a>(client: Address, server: Endpoint, capture: &'a CaptureView<'_>) -> Option<Moved<'a>> {
    let names = capture.names.names_of(server.address);
    let by_answer = names
        .filter_map(|(name, lease)| left(name, Some(lease), server.address, client, capture))
        .max_by_key(|moved| (moved.told, moved.at));
    by_answer.or_else(|| by_request(client, server, capture))
}

/// Time of the newest answer that gave the name an address of the same family.
fn newest(name: &str, like: Address, capture: &CaptureView<'_>) -> Option<Timestamp> {
    capture
        .names
        .addresses_of(name)
        .filter(|(address, _)| address.is_v4() == like.is_v4())
        .map(|(_, lease)| lease.last.time)
        .max()
}

/// The name's newer addresses, if there are any that it did not have beside the old one.
fn left<'a>(
    name: &'a str,
    old: Option<Lease>,
    address: Address,
    client: Address,
    capture: &CaptureView<'_>,
) -> Option<Moved<'a>> {
    let since = old.map_or(Timestamp::MIN, |old| old.last.time);
    let others: Vec<(Address, Lease)> = capture
        .names
        .addresses_of(name)
        .filter(|(other, _)| *other != address && other.is_v4() == address.is_v4())
        .collect();
    let later = others.iter().filter(|(_, lease)| lease.last.time > since);
    let newest = later.clone().map(|(_, lease)| lease.last.time).max()?;
    let told = later.clone().any(|(_, lease)| lease.asker == client);
    let new = later.clone().filter(|(_, lease)| lease.first.time > since).min_by_key(|(_, lease)| lease.first)?;
    Some(Moved { name, old, at: new.1.first.time, new: *new, told, newest })
}

/// Connections of this host to this server asked for a name of which the host was told other addresses only.
fn by_request<'a>(client: Address, server: Endpoint, capture: &'a CaptureView<'_>) -> Option<Moved<'a>> {
    let names: BTreeSet<&str> = capture
        .flows_to(&server)
        .filter(|flow| flow.facts.client.address == client)
        .take(64)
        .filter_map(name_asked)
        .collect();
    let moved = |name| left(name, None, server.address, client, capture);
    names
        .into_iter()
        .filter(|name| capture.names.addresses_of(name).all(|(address, _)| address != server.address))
        .filter_map(moved)
        .find(|moved| moved.told)
}

/// Host or SNI of the flow.
fn name_asked(flow: &FlowSummary) -> Option<&str> {
    flow.story.events().find_map(|event| match &event.what {
        What::Request(request) => request.host.as_deref()?.split(':').next(),
        What::ClientHello(hello) => hello.sni.as_deref(),
        _ => None,
    })
}

fn failed(flow: &FlowSummary, moved: &Moved<'_>, capture: &CaptureView<'_>) -> Finding {
    let finding = told(flow, moved, capture);
    match (moved.told, moved.old) {
        (true, Some(_)) => finding.confidence(Confidence::Certain),
        (true, None) => finding,
        (false, _) => finding.confidence(Confidence::Medium).note(format!(
            "{} itself was not told of the change in this capture: it never asked",
            flow.facts.client.address
        )),
    }
}

fn told(flow: &FlowSummary, moved: &Moved<'_>, capture: &CaptureView<'_>) -> Finding {
    let facts = &flow.facts;
    let (address, lease) = moved.new;
    let shows = |lease: &Lease, address: Address| {
        format!("DNS: {} is {address}, TTL {} s, told to {}", moved.name, lease.ttl, lease.asker)
    };
    let syns = &facts.from_client.syns;
    let first = syns.first().copied().unwrap_or(facts.id);
    let mut finding =
        RULE.about(Subject::Flow(facts.id), first, Some(Side::Client), format!("SYN to {}", facts.server));
    for copy in syns.iter().skip(1).take(4) {
        let after = copy.time.since(first.time);
        finding = finding.and(*copy, Side::Client, format!("SYN again after {after}"));
    }
    if facts.id < lease.first {
        // It stood open when the name moved, and worked until then.
        let waits = facts.from_client.unacknowledged.map(|waits| waits.first);
        let onset = waits.filter(|at| *at > lease.first).unwrap_or(lease.first);
        finding = finding.with("onset", Value::Frame(onset));
    }
    if let Some(old) = moved.old {
        finding = finding.cites(old.last, Some(old.last), shows(&old, facts.server.address));
    }
    finding = finding.cites(lease.first, Some(lease.first), shows(&lease, address));
    if let Some(good) =
        capture.service(&facts.server).and_then(|service| service.last_good).filter(|good| *good < facts.id)
    {
        finding = finding.cites(good, Some(good), "the last connection to the old address that worked");
    }
    let at = |address: Address| capture.service(&Endpoint::new(address, facts.server.port));
    let by_host = |address: Address| {
        at(address).and_then(|service| service.clients.get(&facts.client.address)).copied().unwrap_or(0)
    };
    let new: u64 = capture
        .names
        .addresses_of(moved.name)
        .filter(|(other, _)| *other != facts.server.address)
        .map(|(other, _)| by_host(other))
        .sum();
    if new > 0 {
        let old = by_host(facts.server.address);
        finding = finding.note(format!(
            "{new} of {} connections of this host go to the new addresses: its processes were told at different times",
            new + old
        ));
    }
    finding.with("name", Value::Packet(moved.name.to_owned())).with("new", address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PacketRef;
    use crate::rule::testing::{Scene, World, dns_answer, end, host};

    const NAME: &str = "backend.example.com";

    fn dns(mut world: World, ms: i64, address: &str, asker: &str) -> World {
        let at = PacketRef { file: 0, number: 1000 + ms as u64, time: Timestamp::default() + Elapsed::millis(ms) };
        if let What::Dns(answer) = dns_answer(7, NAME, 1, 0, &[address]) {
            world.names.learn(at, &answer, host(asker));
        }
        world
    }

    fn syns(start: i64) -> Scene {
        let mut scene = Scene::starting("10.0.0.1:40000", "10.10.2.55:80", 5000, start)
            .syn(0)
            .syn(1000)
            .syn(3000)
            .capture_ends(9000);
        scene.findings.push(crate::catalogue::connect::connect_timeout::RULE.found(
            &scene.view(),
            scene.facts.id,
            Side::Client,
            "SYN",
        ));
        scene
    }

    #[test]
    fn syns_to_an_address_that_left_the_name_the_host_asked_for_are_certain() {
        let world =
            dns(dns(World::new(), 0, "10.10.2.55", "10.0.0.1"), 40_000, "10.10.3.67", "10.0.0.1").with(&syns(60_000));
        let findings = world.check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence), (1, Confidence::Certain));
        assert_eq!(findings[0].evidence.len(), 5);
    }

    #[test]
    fn an_answer_to_another_host_is_a_weaker_sign() {
        let world =
            dns(dns(World::new(), 0, "10.10.2.55", "10.0.0.1"), 40_000, "10.10.3.67", "10.0.0.9").with(&syns(60_000));
        assert_eq!(world.check(&RULE)[0].confidence, Confidence::Medium);
    }

    #[test]
    fn an_address_that_comes_back_is_not_stale() {
        let world = dns(dns(World::new(), 0, "10.10.2.55", "10.0.0.1"), 40_000, "10.10.3.67", "10.0.0.1");
        assert!(dns(world, 80_000, "10.10.2.55", "10.0.0.1").with(&syns(60_000)).check(&RULE).is_empty());
    }

    #[test]
    fn answers_that_rotate_among_the_same_addresses_prove_nothing() {
        let mut world = World::new();
        for (ms, address) in [(0, "10.10.3.67"), (20_000, "10.10.2.55"), (40_000, "10.10.3.67")] {
            world = dns(world, ms, address, "10.0.0.1");
        }
        assert!(world.with(&syns(60_000)).check(&RULE).is_empty());
    }

    #[test]
    fn the_old_target_that_still_answers_is_a_warning_after_a_long_absence() {
        let works = |start| {
            let mut scene = Scene::starting("10.0.0.1:40000", "10.10.2.55:80", 5000, start)
                .handshake()
                .request(3, "GET", "/", 40)
                .response(5, 200, 90);
            scene.facts.server = end("10.10.2.55:80");
            scene
        };
        let told = |start: i64, last: i64| {
            let mut world = dns(dns(World::new(), 0, "10.10.2.55", "10.0.0.1"), 70_000, "10.10.3.67", "10.0.0.1");
            world = dns(world, last, "10.10.3.67", "10.0.0.1").with(&works(start));
            world.flows.values_mut().for_each(|flow| flow.digest.verdict = Verdict::Healthy);
            world.check(&RULE).first().map(|finding| (finding.severity, finding.variant))
        };
        assert_eq!(told(200_000, 190_000), Some((Severity::Warning, 1)));
        assert_eq!(told(200_000, 100_000), None);
    }
}
