//! The first resolver is dead, the second one answers after the timeout.
//!
//! ## How tcpwhy knows
//! For at least three names, one client asked one server, got no answer, and 0.9 to 7 s later asked another server, which answered.
//! Stub resolvers begin with the first `nameserver` line again for every name: each lookup costs the timeout.
//!
//! ## What it is not
//! - `dns-no-answer`: it is the reason, told for the dead server.
//! - `dns-slow`: there one server answers late.
//!
//! ## What people see
//! Everything works, and every first connection to a name takes 5 s longer.
//!
//! ## False alarms it avoids
//! Lost single questions (three names are needed), servers that are asked at the same time.

use std::collections::{BTreeMap, BTreeSet};

use super::NOERROR;
use crate::event::{Kind, PacketRef};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::lookup::{lookups, unicast};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Fix, Rule, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// Timeouts of stub resolvers: 1 to 5 s, with what the machine needs.
const WAIT: std::ops::RangeInclusive<Elapsed> = Elapsed::millis(900)..=Elapsed::secs(7);
/// Names that make it a habit.
const NAMES: usize = 3;

pub static RULE: Rule = Rule {
    id: "dns-resolver-failover",
    title: "the first resolver is dead, the second answers after the timeout",
    severity: Severity::Warning,
    culprit: Culprit::Config,
    says: "every lookup of {client_host} waits {after} for {dead}, which is silent, before {second} answers ({names} names)",
    users_see: &["slow by steps of 5 s", "time_namelookup 5"],
    do_first: &[Step {
        says: "On {client_host}: which server comes first, and with which timeout?",
        command: "cat /etc/resolv.conf",
    }],
    fix: &[Fix {
        says: "On {client_host}: put {second_host} first, or set shorter waits:",
        command: "options timeout:1 attempts:2 rotate",
        risk: "with rotate every second lookup still meets the dead server, for 1 s",
    }],
    verify: &[Step {
        says: "prints an address in milliseconds once it is alive:",
        command: "dig +tries=1 +time=3 localhost @{dead_host}",
    }],
    not: &[("dns-slow", "no server is slow: one is silent")],
    sources: &["resolv.conf(5): nameserver, timeout, attempts, rotate"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// One question: who asked whom for what, when, and what came of it.
struct Asked<'a> {
    client: Address,
    name: &'a str,
    qtype: u16,
    server: Endpoint,
    flow: PacketRef,
    at: PacketRef,
    answer: Option<PacketRef>,
}

fn all<'a>(capture: &'a CaptureView<'_>) -> Vec<Asked<'a>> {
    let flows = capture.flows.values().filter(|flow| flow.story.seen().has(Kind::Dns) && unicast(&flow.facts));
    flows
        .flat_map(|flow| {
            lookups(&flow.story).into_iter().map(move |lookup| Asked {
                client: flow.facts.client.address,
                name: lookup.question.name.as_str(),
                qtype: lookup.question.qtype,
                server: flow.facts.server,
                flow: flow.facts.id,
                at: lookup.first(),
                answer: lookup.answer.filter(|(_, answer)| answer.rcode == NOERROR).map(|(at, _)| at),
            })
        })
        .collect()
}

/// A question without an answer, and the same one to another server.
type Pair<'a> = (&'a Asked<'a>, &'a Asked<'a>);

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let all = all(capture);
    let mut answered: BTreeMap<(Address, &str, u16), Vec<&Asked<'_>>> = BTreeMap::new();
    for asked in all.iter().filter(|asked| asked.answer.is_some()) {
        answered.entry((asked.client, asked.name, asked.qtype)).or_default().push(asked);
    }
    let mut pairs: BTreeMap<(Address, Endpoint, Endpoint), Vec<Pair<'_>>> = BTreeMap::new();
    for silent in all.iter().filter(|asked| asked.answer.is_none()) {
        let others = answered.get(&(silent.client, silent.name, silent.qtype)).into_iter().flatten();
        let second = others
            .filter(|other| other.server != silent.server && WAIT.contains(&other.at.time.since(silent.at.time)))
            .min_by_key(|other| other.at);
        if let Some(second) = second {
            pairs.entry((silent.client, silent.server, second.server)).or_default().push((silent, second));
        }
    }
    let alive = |dead: Endpoint, from: PacketRef, to: PacketRef| {
        all.iter().any(|asked| asked.server == dead && asked.answer.is_some_and(|at| at > from && at < to))
    };
    let mut findings: Vec<Finding> = pairs
        .into_iter()
        .filter_map(|((client, dead, second), mut cases)| {
            cases.sort_by_key(|(silent, _)| silent.at);
            let names: BTreeSet<&str> = cases.iter().map(|(silent, _)| silent.name).collect();
            let (first, last) = (cases.first()?, cases.last()?);
            let works = alive(dead, first.0.at, last.1.at);
            (names.len() >= NAMES && !works).then(|| told(client, dead, second, &cases, names.len()))
        })
        .flatten()
        .collect();
    findings.sort_by_key(Finding::first);
    findings
}

fn told(
    client: Address,
    dead: Endpoint,
    second: Endpoint,
    cases: &[(&Asked<'_>, &Asked<'_>)],
    names: usize,
) -> Option<Finding> {
    let (silent, _) = cases.first()?;
    let mut finding =
        RULE.about(Subject::Flow(silent.flow), silent.at, None, format!("asks {dead} for {}", silent.name));
    for (number, (silent, other)) in cases.iter().take(4).enumerate() {
        if number > 0 {
            finding = finding.cites(silent.at, Some(silent.flow), format!("asks {dead} for {}", silent.name));
        }
        let after = other.at.time.since(silent.at.time);
        finding = finding.cites(other.at, Some(other.flow), format!("asks {second} after {after}"));
        if let Some(answer) = other.answer {
            finding = finding.cites(answer, Some(other.flow), format!("{second} answers"));
        }
    }
    let waits: Vec<Elapsed> = cases.iter().map(|(silent, other)| other.at.time.since(silent.at.time)).collect();
    let finding = finding
        .with("client_host", client)
        .with("dead", dead)
        .with("dead_host", dead.address)
        .with("second", second)
        .with("second_host", second.address)
        .with("names", names as u64)
        .with("after", waits.iter().min().copied().unwrap_or_default());
    Some(finding.confidence(Confidence::High))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};

    fn world(names: &[&str], gap: i64) -> World {
        let mut world = World::new();
        for (number, name) in (0_i64..).zip(names) {
            let start = number * 20_000;
            let first = Scene::starting("10.0.0.1:40000", "10.0.0.53:53", number as u64 * 10 + 1, start).udp().event(
                Side::Client,
                0,
                dns_question(7, name, 1),
            );
            let second = Scene::starting("10.0.0.1:40001", "10.0.0.54:53", number as u64 * 10 + 5, start + gap)
                .udp()
                .event(Side::Client, 0, dns_question(7, name, 1))
                .event(Side::Server, 2, dns_answer(7, name, 1, 0, &["192.0.2.1"]));
            world = world.with(&first).with(&second);
        }
        world
    }

    #[test]
    fn three_names_that_waited_for_the_same_dead_server_are_a_habit() {
        let findings = world(&["a.example", "b.example", "c.example"], 5003).check(&RULE);
        assert_eq!((findings.len(), findings[0].evidence.len()), (1, 9));
        assert_eq!(findings[0].values.get("after"), Some(&Elapsed::millis(5003).into()));
    }

    #[test]
    fn two_names_may_be_bad_luck() {
        assert!(world(&["a.example", "b.example", "b.example"], 5003).check(&RULE).is_empty());
    }

    #[test]
    fn servers_asked_at_once_are_no_failover() {
        assert!(world(&["a.example", "b.example", "c.example"], 1).check(&RULE).is_empty());
    }
}
