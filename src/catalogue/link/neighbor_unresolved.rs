//! Nobody answers the question for the link address of the next hop.
//!
//! ## How tcpwhy knows
//! One host asked at least three times, about a second apart, by ARP or neighbour solicitation for one address, and no answer came. Until
//! it is answered, a kernel sends no packet at all to an address on its own link: every connection fails with "No route to host" before a
//! single SYN.
//!
//! Where the asker translates addresses (kube-proxy, a published container port), clients know only the address in front, and after 3 s the
//! asker calls that one unreachable in its own name. An error "host unreachable" that an address sends about itself one such interval after
//! the question is therefore about the silent address behind it: a pod that is gone while its service still leads to it. A client that
//! sends its SYN again in the meantime may be led to another pod: those connections are slow to open.
//!
//! ## What it is not
//! - `connect-timeout`: that is the consequence where the asking router is not the client.
//! - `network-blackout`: there more than one address is silent.
//! - `icmp-destination-unreachable`: what a router tells the client 3 s later.
//!
//! ## What people see
//! `No route to host` (113, EHOSTUNREACH) from the local kernel after about 3 s.
//!
//! ## False alarms it avoids
//! Sweeps (more than three silent addresses a minute), probes for duplicates, announcements, a DHCP server that asks whether an address is
//! free before it gives it out, hosts that ask for something that is switched off and have no other traffic. In the first 15 to 45 s of an
//! outage Linux still trusts the old entry: then TCP repeats itself first.

use std::collections::{BTreeMap, BTreeSet};

use super::unreachable;
use crate::event::{PacketRef, What};
use crate::host::neighbor::{Known, Times};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// Requests that make one attempt (Linux: mcast_solicit = 3).
const ATTEMPT: usize = 3;
/// They come about a second apart (retrans_time_ms = 1000).
const APART: std::ops::RangeInclusive<Elapsed> = Elapsed::millis(700)..=Elapsed::millis(2500);
/// Ports of DHCP. RFC 2131 §4.1.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// More silent addresses than this in a minute are a sweep.
const SWEEP: usize = 3;

pub static RULE: Rule = Rule {
    id: "neighbor-unresolved",
    title: "nobody answers for the link address of the next hop",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    claims_absence: true,
    says: "nobody answers for {host}: {asker} asked {count} times by {protocol} in {after}",
    users_see: &["No route to host", "EHOSTUNREACH", "(113: No route to host)", "Destination Host Unreachable"],
    do_first: &[
        Step {
            says: "On {asker}: FAILED or INCOMPLETE = it still does not answer:",
            command: "ip neigh show to {host}",
        },
        Step { says: "On {asker}: is it meant to be on that link, with that mask?", command: "ip route get {host}" },
    ],
    verify: &[Step {
        says: "On {asker}, with the interface that the line above names; prints replies once it answers:",
        command: "arping -c 3 {host}",
    }],
    not: &[("network-blackout", "only that address is silent")],
    cannot_show: &["whether the host is down, its cable, port or VLAN is wrong, or the address is wrong"],
    explains: &[
        Explains("connect-timeout", Scope::Hop),
        Explains("connect-slow", Scope::Hop),
        Explains("rto-unrecovered", Scope::Hop),
        Explains("icmp-destination-unreachable", Scope::Hop),
        Explains("dns-no-answer", Scope::Hop),
        Explains("response-stalled", Scope::Host),
        Explains("proxy-adds-latency", Scope::Hop),
        Explains("http-gateway-error", Scope::Hop),
    ],
    sources: &["RFC 826", "RFC 4861 §7.2.2", "Linux mcast_solicit, retrans_time_ms (measured)"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// One address that one host asked for in vain.
struct Silent<'a> {
    address: Address,
    asker: Address,
    times: &'a Times,
    /// Requests before the first answer, of the first ones.
    asked: Vec<PacketRef>,
    /// The answer that came in the end.
    answer: Option<PacketRef>,
    /// It had answered before.
    before: bool,
}

/// An address that called itself unreachable: one that somebody translates.
struct Denied {
    at: PacketRef,
    flow: PacketRef,
    server: Endpoint,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let given_out = given_out(capture);
    let mut by_asker: BTreeMap<Address, Vec<Silent<'_>>> = BTreeMap::new();
    for (address, known) in &capture.neighbors.by_address {
        for (asker, times) in &known.askers {
            if !asker.to_ip().is_unspecified() && asker != address && !given_out.contains(&(*asker, *address)) {
                by_asker.entry(*asker).or_default().extend(silent(*address, *asker, known, times));
            }
        }
    }
    let denied = denied(capture);
    let mut found: Vec<(&Silent<'_>, Severity)> = Vec::new();
    for (asker, list) in &by_asker {
        let busy = has_traffic(*asker, capture);
        for silent in list.iter().filter(|silent| !sweeps(silent, list)) {
            found.push((silent, weight(silent, busy, &denied, capture)));
        }
    }
    found.sort_by_key(|(silent, _)| silent.asked.first().copied());
    let mut told_of: BTreeMap<Address, Vec<Address>> = BTreeMap::new();
    found.iter().for_each(|(silent, _)| told_of.entry(silent.address).or_default().push(silent.asker));
    // One silent address is one fault, however many ask for it: told by who asked first.
    found.retain(|(silent, _)| told_of.get(&silent.address).and_then(|all| all.first()) == Some(&silent.asker));
    let others = |address: &Address| told_of.get(address).and_then(|all| all.get(1..)).unwrap_or(&[]);
    let found = found.into_iter().map(|(silent, severity)| (silent, severity, others(&silent.address)));
    let told = |(number, (silent, severity, others))| told(number, silent, severity, others, &denied, capture);
    (0_u32..).zip(found).filter_map(told).collect()
}

/// Three requests about a second apart, each without an answer before the next.
fn silent<'a>(address: Address, asker: Address, known: &'a Known, times: &'a Times) -> Option<Silent<'a>> {
    let mut answers: Vec<PacketRef> =
        known.answers.iter().flat_map(|answered| &answered.times.first).copied().collect();
    answers.sort_unstable();
    let next = |at: &PacketRef| {
        // Between those that are kept and the latest one answers may have come.
        let kept = answers.iter().find(|answer| *answer > at).copied();
        kept.or_else(|| known.answers.iter().filter_map(|answered| answered.times.last).filter(|last| last > at).min())
    };
    let unknown = |at: &PacketRef| {
        known.answers.iter().any(|answered| {
            let Times { count, first, last } = &answered.times;
            *count > first.len() as u64 + 1 && first.last().is_some_and(|first| at > first) && Some(*at) < *last
        })
    };
    // What is answered before the next request is due was no silence.
    let vain =
        |at: &&PacketRef| !unknown(at) && next(at).is_none_or(|answer| answer.time.since(at.time) >= *APART.start());
    let asked: Vec<PacketRef> = times.first.iter().filter(vain).copied().collect();
    let gaps = asked.windows(2).filter(|pair| APART.contains(&pair[1].time.since(pair[0].time))).count();
    let answer = next(asked.last()?);
    let before = answers.first() < asked.first() && !answers.is_empty();
    (asked.len() >= ATTEMPT && gaps + 1 >= ATTEMPT).then_some(Silent { address, asker, times, asked, answer, before })
}

/// DHCP servers with the addresses they gave out. Such a server asks whether an address is free before: then silence is what it hopes for.
/// RFC 2131 §2.2.
fn given_out(capture: &CaptureView<'_>) -> BTreeSet<(Address, Address)> {
    let dhcp = capture.servers().filter(|(server, _)| [DHCP_SERVER, DHCP_CLIENT].contains(&server.port));
    dhcp.flat_map(|(_, flows)| flows.iter().map(|digest| (digest.client(), digest.server())))
        .flat_map(|(client, server)| [(client, server), (server, client)])
        .filter(|(server, client)| (server.port, client.port) == (DHCP_SERVER, DHCP_CLIENT))
        .map(|(server, client)| (server.address, client.address))
        .collect()
}

/// Whether the same host asks for too many silent addresses within a minute.
fn sweeps(silent: &Silent<'_>, list: &[Silent<'_>]) -> bool {
    let minute = Elapsed::secs(60);
    let Some(start) = silent.asked.first() else { return true };
    let near =
        list.iter().filter_map(|other| other.asked.first()).filter(|at| at.time.since(start.time).abs() <= minute);
    near.count() > SWEEP
}

fn has_traffic(host: Address, capture: &CaptureView<'_>) -> bool {
    capture.opens(host) || capture.servers().any(|(server, _)| server.address == host)
}

/// Who waits for it: a connection or an error makes it critical, so do two attempts of a host that has other traffic.
fn weight(silent: &Silent<'_>, busy: bool, denied: &[Denied], capture: &CaptureView<'_>) -> Severity {
    let wanted = wanting(silent, capture) > 0
        || in_front(silent, denied).next().is_some()
        || capture.icmp.kept.iter().any(|error| error.error.destination.address == silent.address);
    let attempts = silent.times.count as usize / ATTEMPT;
    if silent.before && !wanted {
        // It was there and has gone, as clients do; nobody asks it for anything.
        return Severity::Notice;
    }
    match (wanted, busy) {
        (true, _) => Severity::Critical,
        (false, true) if attempts >= 2 => Severity::Critical,
        (false, true) => Severity::Warning,
        (false, false) => Severity::Notice,
    }
}

/// The errors by which addresses call themselves unreachable.
fn denied(capture: &CaptureView<'_>) -> Vec<Denied> {
    let mut all = Vec::new();
    for flow in capture.flows.values() {
        let errors = flow.story.events().filter_map(|event| match &event.what {
            What::Icmp(error) if unreachable(error) && error.code == if error.v6 { 3 } else { 1 } => {
                (error.from == error.destination.address).then_some(event.at)
            }
            _ => None,
        });
        all.extend(errors.map(|at| Denied { at, flow: flow.facts.id, server: flow.facts.server }));
    }
    all
}

/// Those that came when the asker gave up on the silent address.
fn in_front<'a>(silent: &'a Silent<'_>, denied: &'a [Denied]) -> impl Iterator<Item = &'a Denied> {
    let asked = || silent.asked.iter().chain(silent.times.last.iter().filter(|_| silent.answer.is_none()));
    denied.iter().filter(move |error| asked().any(|at| APART.contains(&error.at.time.since(at.time))))
}

/// Connections to that address.
fn wanting(silent: &Silent<'_>, capture: &CaptureView<'_>) -> u64 {
    capture.services.of_host(silent.address).map(|(_, service)| service.flows).sum()
}

fn told(
    number: u32,
    silent: &Silent<'_>,
    severity: Severity,
    others: &[Address],
    denied: &[Denied],
    capture: &CaptureView<'_>,
) -> Option<Finding> {
    let (first, last) = (*silent.asked.first()?, *silent.asked.last()?);
    let last = if silent.answer.is_none() { silent.times.last.unwrap_or(last) } else { last };
    let who = |after: Elapsed| format!("{} asks for {} again after {after}", silent.asker, silent.address);
    let mut finding =
        RULE.about(Subject::Host(number), first, None, format!("{} asks for {}", silent.asker, silent.address));
    for at in silent.asked.iter().skip(1).take(3) {
        finding = finding.cites(*at, None, who(at.time.since(first.time)));
    }
    if finding.evidence.iter().all(|evidence| evidence.at != last) {
        finding = finding.cites(last, None, who(last.time.since(first.time)));
    }
    // The asker's own answers show only that its own packets are in the capture, and the capturing host's only that it sent them.
    let own = capture.neighbors.macs_of(silent.asker);
    let mut answers = capture.neighbors.by_address.values().flat_map(|known| &known.answers);
    let answers_seen = answers.any(|answered| !answered.own && !own.contains(&answered.mac));
    let mut severity = severity;
    if !answers_seen {
        severity = severity.min(Severity::Warning);
        finding = finding
            .confidence(Confidence::Low)
            .note("no answer to any such question is in the capture: answers may not be visible here");
    }
    if silent.before {
        finding = finding.note("it had answered before");
    }
    if let Some(answer) = silent.answer {
        finding = finding.note(format!("it answered in the end ({})", capture.cite(answer)));
    }
    if !others.is_empty() {
        let hosts: Vec<String> = others.iter().take(3).map(ToString::to_string).collect();
        let more = if others.len() > 3 { format!(" and {} more", others.len() - 3) } else { String::new() };
        finding = finding.note(format!("in vain ask for it as well: {}{more}", hosts.join(", ")));
    }
    let mut front: Vec<Address> = in_front(silent, denied).map(|error| error.server.address).collect();
    front.sort_unstable();
    front.dedup();
    if let Some(error) = in_front(silent, denied).next() {
        let after = silent.asked.iter().filter(|at| **at < error.at).max().unwrap_or(&last);
        let waited = error.at.time.since(after.time);
        let (server, own) = (error.server.address, silent.address);
        finding = finding
            .cites(error.at, Some(error.flow), format!("{server} calls itself unreachable, {waited} after a question"))
            .note(format!("{server} is an address that is translated: {own} is among those behind it"));
    }
    let of_front: u64 = front.iter().flat_map(|host| capture.services.of_host(*host)).map(|(_, s)| s.flows).sum();
    // What was served while it was there is not hit.
    let flows = if silent.before { 0 } else { wanting(silent, capture) };
    let reach = Reach {
        hosts: [silent.address].into_iter().chain(front).collect(),
        spans: vec![(first.time, last.time)],
        flows,
        of: flows + of_front,
        standing: silent.answer.map_or(Standing::GoesOn, Standing::Over),
        ..Reach::default()
    };
    let answered = silent.times.first.len() - silent.asked.len();
    let count = match silent.answer {
        None => silent.times.count.saturating_sub(answered as u64),
        Some(_) => silent.asked.len() as u64,
    };
    let finding = finding
        .severity(severity)
        .with("host", silent.address)
        .with("asker", silent.asker)
        .with("count", count)
        .with("protocol", if silent.address.is_v4() { "ARP" } else { "neighbour discovery" })
        .with("after", last.time.since(first.time));
    Some(finding.reaches(reach))
}

#[cfg(test)]
mod tests {
    use super::super::tests::icmp;
    use super::*;
    use crate::event::Side;
    use crate::host::neighbor::Answered;
    use crate::rule::testing::{Scene, World, host};
    use crate::time::Timestamp;
    use crate::wire::Mac;

    fn at(ms: i64) -> PacketRef {
        PacketRef { file: 0, number: ms as u64 + 1, time: Timestamp::default() + Elapsed::millis(ms) }
    }

    fn times(ms: &[i64]) -> Times {
        Times {
            count: ms.len() as u64,
            first: ms.iter().map(|ms| at(*ms)).collect(),
            last: ms.last().map(|ms| at(*ms)),
        }
    }

    fn asks(mut world: World, target: &str, ms: &[i64]) -> World {
        let known = world.neighbors.by_address.entry(host(target)).or_default();
        known.asked += ms.len() as u64;
        known.askers.insert(host("10.0.0.1"), times(ms));
        world
    }

    fn answers(mut world: World, target: &str, ms: &[i64]) -> World {
        let known = world.neighbors.by_address.entry(host(target)).or_default();
        known.answers.push(Answered {
            mac: Mac([2; 6]),
            times: times(ms),
            unasked: 0,
            announced: Times::default(),
            own: false,
        });
        world
    }

    fn busy() -> World {
        answers(World::new().with_good(&Scene::open()), "10.0.0.2", &[0])
    }

    #[test]
    fn two_attempts_in_vain_of_a_host_with_other_traffic_are_critical() {
        let findings = asks(busy(), "10.0.0.99", &[0, 1000, 2000, 5000, 6000, 7000]).check(&RULE);
        assert_eq!((findings[0].severity, findings[0].confidence), (Severity::Critical, Confidence::High));
        assert_eq!(findings[0].subject, Subject::Host(0));
    }

    #[test]
    fn one_attempt_is_a_warning_and_of_an_idle_host_a_notice() {
        let told = |world: World| asks(world, "10.0.0.99", &[0, 1000, 2000]).check(&RULE).first().map(|f| f.severity);
        assert_eq!(told(busy()), Some(Severity::Warning));
        assert_eq!(told(World::new()), Some(Severity::Notice));
    }

    #[test]
    fn an_address_that_calls_itself_unreachable_when_the_asker_gives_up_is_in_front_of_the_silent_one() {
        let told = |error: i64| {
            let mut error = Scene::new().syn(0).syn(1000).event(Side::Client, error, icmp("10.0.0.2", 3, 1));
            error.findings.extend(error.check(&super::super::icmp_destination_unreachable::RULE));
            asks(answers(World::new().with(&error), "10.0.0.3", &[0]), "10.0.0.99", &[0, 1000, 2000]).check(&RULE)
        };
        let hosts = |finding: &Finding| finding.reach.as_ref().map(|reach| reach.hosts.clone());
        let findings = told(3060);
        assert_eq!(findings[0].severity, Severity::Critical);
        assert_eq!(hosts(&findings[0]), Some(vec![host("10.0.0.99"), host("10.0.0.2")]));
        // Its own firewall says so at once.
        assert_eq!(hosts(&told(1)[0]), Some(vec![host("10.0.0.99")]));
    }

    #[test]
    fn an_answer_to_the_third_question_is_no_silence() {
        let world = answers(asks(busy(), "10.0.0.99", &[0, 1000, 2000]), "10.0.0.99", &[2001]);
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn a_dhcp_server_asks_whether_an_address_is_free() {
        let offer = Scene::between("10.0.0.1:67", "10.0.0.99:68").udp().data(Side::Client, 9000, 300);
        let world = asks(busy().with(&offer), "10.0.0.99", &[0, 1000, 2000, 5000, 6000, 7000]);
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn one_address_that_several_miss_is_one_fault() {
        let mut world = asks(busy(), "10.0.0.99", &[0, 1000, 2000]);
        let known = world.neighbors.by_address.get_mut(&host("10.0.0.99")).expect("it was asked for");
        known.askers.insert(host("10.0.0.7"), times(&[500, 1500, 2500]));
        let findings = world.check(&RULE);
        assert_eq!(
            (findings.len(), findings[0].notes.as_slice()),
            (1, ["in vain ask for it as well: 10.0.0.7".to_owned()].as_slice())
        );
    }

    #[test]
    fn where_no_answer_is_ever_seen_silence_is_not_critical() {
        let world = World::new().with_good(&Scene::open());
        let findings = asks(world, "10.0.0.99", &[0, 1000, 2000, 5000, 6000, 7000]).check(&RULE);
        assert_eq!((findings[0].severity, findings[0].confidence), (Severity::Warning, Confidence::Low));
    }

    #[test]
    fn a_sweep_is_left_out() {
        let world = (90..95).fold(busy(), |world, last| asks(world, &format!("10.0.0.{last}"), &[0, 1000, 2000]));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn questions_every_minute_are_a_cache_that_is_renewed() {
        assert!(asks(busy(), "10.0.0.99", &[0, 60_000, 120_000]).check(&RULE).is_empty());
    }
}
