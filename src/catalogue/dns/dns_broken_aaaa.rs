//! A name has an IPv6 address that does not work: clients fall back to IPv4 after a delay.
//!
//! ## How tcpwhy knows
//! The DNS gave a name an IPv6 and an IPv4 address. At least two connections to the IPv6 one got no answer at all, none to it was ever
//! accepted, and each was followed by a connection to the same port of the IPv4 address that was accepted: after 100 ms to 2 s (Happy
//! Eyeballs), or after the client's connect timeout (up to 130 s).
//!
//! ## What it is not
//! - `connect-timeout`: it is the reason, told for the dead address.
//! - `connect-slow`: there the same address answers late.
//!
//! ## What people see
//! Everything works, and every new connection takes 200 ms longer; programs without Happy Eyeballs wait for seconds or minutes.
//!
//! ## False alarms it avoids
//! Happy Eyeballs opens both and leaves the slower one: an IPv6 address that was accepted even once is alive. One attempt may be bad luck.
//! IPv4 connections that have nothing to do with the attempt: the delay has to be the same each time.

use std::collections::BTreeSet;

use crate::event::{PacketRef, Side};
use crate::flow::facts::IpProtocol;
use crate::host::names::Lease;
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::Digest;
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "dns-broken-aaaa",
    title: "the IPv6 address does not work; clients fall back after a delay",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    claims_absence: true,
    says: "{address} of {name} answers nothing: {attempts} connections went to {fallback} instead, {after} later",
    users_see: &["every connection takes 200 ms longer", "time_connect 0.2", "connect timed out"],
    do_first: &[
        Step {
            says: "From {client}: does that address answer at all?",
            command: "curl -6 -sS -o /dev/null -m 5 -w '%{time_connect} %{remote_ip}\\n' http://{name}:{port}/",
        },
        Step { says: "Is it meant to be there? The server's own addresses:", command: "dig +short AAAA {name}" },
    ],
    fix: &[Fix {
        says: "Take the AAAA record of {name} out of its zone until the address works",
        command: "",
        risk: "hosts that have IPv6 only do not reach the name any more",
    }],
    verify: &[Step {
        says: "must print a status:",
        command: "curl -6 -sS -o /dev/null -m 5 -w '%{response_code}\\n' http://{name}:{port}/",
    }],
    not: &[("network", "the same service answers over IPv4")],
    cannot_show: &["whether the server, a firewall or the path loses IPv6"],
    explains: &[Explains("connect-timeout", Scope::Name), Explains("connect-slow", Scope::Name)],
    sources: &["RFC 8305 §5", "curl waits 200 ms for IPv6 before it tries IPv4"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Attempts that make it a habit.
const ATTEMPTS: usize = 2;
/// Happy Eyeballs waits that long for IPv6 (RFC 8305 §5: 100 ms to 2 s); other clients until their connect timeout.
const FALLBACK: std::ops::RangeInclusive<Elapsed> = Elapsed::millis(100)..=Elapsed::secs(130);
/// Delays of one client differ by no more than this, and a quarter.
const JITTER: Elapsed = Elapsed::millis(60);
/// Attempts looked at, and cited.
const LOOKED_AT: usize = 1024;
const CITED: usize = 3;

/// An attempt over IPv6 and what followed over IPv4.
type Pair<'a> = (&'a Digest, &'a Digest);

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for (server, _) in capture.servers().filter(|(server, _)| !server.address.is_v4()) {
        let attempts: Vec<&Digest> = attempts(capture, server).collect();
        if attempts.len() < ATTEMPTS || attempts.iter().any(|digest| digest.accepted || digest.answered) {
            continue;
        }
        let told = capture.names.names_of(server.address).filter(|(_, lease)| lease.first <= attempts[0].id);
        findings.extend(told.filter_map(|(name, lease)| judge(capture, server, name, lease, &attempts)).next());
    }
    findings.sort_by_key(Finding::first);
    findings
}

/// Every known connection to an address, in time order.
fn attempts<'a>(capture: &'a CaptureView<'_>, server: &Endpoint) -> impl Iterator<Item = &'a Digest> {
    let (from, to) = (crate::time::Timestamp::MIN, crate::time::Timestamp::MAX);
    capture.began_to(server, from, to).filter(|digest| digest.transport == IpProtocol::Tcp).take(LOOKED_AT)
}

fn judge(
    capture: &CaptureView<'_>,
    server: &Endpoint,
    name: &str,
    lease: Lease,
    attempts: &[&Digest],
) -> Option<Finding> {
    let others: Vec<Address> =
        capture.names.addresses_of(name).map(|(address, _)| address).filter(|address| address.is_v4()).collect();
    let pairs: Vec<Pair<'_>> =
        attempts.iter().filter_map(|six| Some((*six, fallback(capture, six, &others)?))).collect();
    // The last ones may still wait when the capture ends.
    let judged = attempts.iter().filter(|six| capture.end.since(six.id.time) > capture.thresholds.tail).count();
    let gaps: Vec<Elapsed> = pairs.iter().map(|(six, four)| four.id.time.since(six.id.time)).collect();
    let (shortest, longest) = (*gaps.iter().min()?, *gaps.iter().max()?);
    let alike = longest <= shortest + Elapsed(shortest.0 / 4) + JITTER;
    if pairs.len() < ATTEMPTS || pairs.len() < judged || !alike || silent_and_refused(capture, attempts) {
        return None;
    }
    Some(told(capture, server, name, lease, &pairs, shortest))
}

/// The first connection to one of the IPv4 addresses behind an attempt, if it was accepted.
fn fallback<'a>(capture: &'a CaptureView<'_>, six: &Digest, others: &[Address]) -> Option<&'a Digest> {
    let (from, to) = (six.id.time + *FALLBACK.start(), six.id.time + *FALLBACK.end());
    let first = others
        .iter()
        .filter_map(|address| capture.began_to(&Endpoint::new(*address, six.server().port), from, to).next())
        .min_by_key(|digest| digest.id)?;
    first.accepted.then_some(first)
}

/// A port that refuses, or an ICMP error, sends the client on at once: no delay, and another fault.
fn silent_and_refused(capture: &CaptureView<'_>, attempts: &[&Digest]) -> bool {
    attempts.iter().filter_map(|digest| capture.flows.get(&digest.id)).any(|flow| flow.facts.from_server.packets > 0)
}

fn told(
    capture: &CaptureView<'_>,
    server: &Endpoint,
    name: &str,
    lease: Lease,
    pairs: &[Pair<'_>],
    after: Elapsed,
) -> Finding {
    let (six, four) = pairs[0];
    let (client, last) = (six.client().address, pairs[pairs.len() - 1]);
    let shows = format!("SYN to {server}: no answer");
    let mut finding = RULE.about(Subject::Flow(six.id), six.id, Some(Side::Client), shows);
    for (number, (six, four)) in pairs.iter().take(CITED).enumerate() {
        if number > 0 {
            finding = finding.cites(six.id, Some(six.id), format!("SYN to {server}: no answer"));
        }
        let gap = four.id.time.since(six.id.time);
        // The first pair stands together on the first screen.
        let flow = (number > 0).then_some(four.id);
        finding = finding.cites(four.id, flow, format!("SYN to {} {gap} later: accepted", four.server()));
    }
    let answer: PacketRef = lease.first;
    finding = finding.cites(answer, None, format!("the DNS gives {name} the address {}", server.address));
    let sources: BTreeSet<Address> = pairs.iter().map(|(six, _)| six.client().address).collect();
    let reach = Reach {
        servers: vec![*server],
        name: Some(name.to_owned()),
        flows: pairs.len() as u64,
        of: pairs.len() as u64,
        clients: sources.len() as u64,
        spans: vec![(six.id.time, last.1.id.time.min(capture.end))],
        sources: sources.into_iter().collect(),
        standing: Standing::GoesOn,
        ..Reach::default()
    };
    finding
        .with("name", Value::Packet(name.to_owned()))
        .with("address", server.address)
        .with("fallback", four.server())
        .with("port", u64::from(server.port))
        .with("client", client)
        .with("attempts", pairs.len() as u64)
        .with("after", after)
        .reaches(reach)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, host};
    use crate::time::Timestamp;
    use crate::wire::dns::DnsMessage;

    const SIX: &str = "[2001:db8::2]:443";
    const FOUR: &str = "10.0.0.2:443";

    fn world() -> World {
        let mut world = World::new();
        let at = PacketRef { file: 0, number: 1, time: Timestamp::default() };
        for address in ["2001:db8::2", "10.0.0.2"] {
            let addresses = vec![(host(address), 60)];
            let answer = DnsMessage { response: true, name: "www.example".into(), addresses, ..DnsMessage::default() };
            world.names.learn(at, &answer, host("10.0.0.1"));
        }
        world
    }

    /// Attempts begin every 10 s; the fallback comes after each gap.
    fn with(mut world: World, gaps: &[i64], dead: bool) -> World {
        for (n, gap) in (1_i64..).zip(gaps) {
            let six = Scene::starting("[2001:db8::1]:40000", SIX, n as u64 * 10, n * 10_000);
            let four = Scene::starting("10.0.0.1:40001", FOUR, n as u64 * 10 + 5, n * 10_000 + gap);
            world = world.with(&if dead { six.syn(0) } else { six.handshake() }).with_good(&four.handshake());
        }
        world.end = Timestamp::default() + Elapsed::secs(300);
        world
    }

    #[test]
    fn two_attempts_that_fell_back_after_the_same_delay_tell() {
        let findings = with(world(), &[201, 203], true).check(&RULE);
        assert_eq!((findings.len(), findings[0].evidence.len()), (1, 5));
        assert_eq!(findings[0].values.get("after"), Some(&Elapsed::millis(201).into()));
    }

    #[test]
    fn a_loser_that_was_accepted_and_a_single_attempt_do_not() {
        assert!(with(world(), &[201, 203], false).check(&RULE).is_empty());
        assert!(with(world(), &[201], true).check(&RULE).is_empty());
    }

    #[test]
    fn connections_that_come_as_they_please_are_no_fallback() {
        assert!(with(world(), &[201, 900, 4_000], true).check(&RULE).is_empty());
        assert!(with(world(), &[1, 2], true).check(&RULE).is_empty());
        assert!(with(World::new(), &[201, 203], true).check(&RULE).is_empty());
    }
}
