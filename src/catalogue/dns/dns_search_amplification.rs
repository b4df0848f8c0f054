//! Every lookup is multiplied by the search list: the name is asked for with each suffix before it is asked for as it is.
//!
//! ## How tcpwhy knows
//! A client got an answer for a name, and within 5 s before that NXDOMAIN for at least three longer names that begin with it. One in five
//! of all its questions, or more, is such a longer name.
//!
//! ## What it is not
//! - `dns-nxdomain`: there the name itself does not exist.
//! - `dns-slow`: there an answer is late. It may be the consequence.
//!
//! ## What people see
//! Four to ten questions for each connection, resolvers under load, `SERVFAIL` or timeouts in waves; in Kubernetes since `ndots:5`.
//!
//! ## False alarms it avoids
//! One or two suffixes: an ordinary search list. Few questions among many.

use std::collections::{BTreeMap, BTreeSet};

use super::{A, AAAA, NOERROR, NXDOMAIN};
use crate::event::{Kind, PacketRef, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::lookup::{lookups, unicast};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Fix, Rule, Step};
use crate::time::Elapsed;
use crate::wire::Address;

pub static RULE: Rule = Rule {
    id: "dns-search-amplification",
    title: "every lookup is multiplied by search domains",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    says: "{client} asks for {name} with {suffixes} suffixes before it asks for the name itself: {wasted} of its {all} questions lead to nothing",
    users_see: &["ndots:5", "NXDOMAIN for name.svc.cluster.local"],
    do_first: &[Step { says: "On {client}: which suffixes, and which ndots?", command: "cat /etc/resolv.conf" }],
    fix: &[Fix {
        says: "Write names that are complete with a final dot, or set in resolv.conf (Kubernetes: dnsConfig.options)",
        command: "options ndots:1",
        risk: "short names with a dot in them are no longer completed first",
    }],
    verify: &[Step { says: "with a final dot it is one question:", command: "getent ahosts {name}." }],
    not: &[("dns-nxdomain", "the name itself exists")],
    sources: &["resolv.conf(5): search, ndots", "measured: glibc with ndots:5 and three search domains"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Suffixes that make it worth a word, and the percentage of questions.
const SUFFIXES: usize = 3;
const PERCENT: usize = 20;
/// The list is walked in this time.
const WALK: Elapsed = Elapsed::secs(5);
/// Questions of one client looked at, and packets cited.
const LOOKED_AT: usize = 4096;
const CITED: usize = 6;

/// One question about an address.
struct Asked<'a> {
    at: PacketRef,
    flow: PacketRef,
    name: &'a str,
    /// The answer's packet and code.
    answer: Option<(PacketRef, u16)>,
    found: bool,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut by_client: BTreeMap<Address, Vec<Asked<'_>>> = BTreeMap::new();
    let flows = capture.flows.values().filter(|flow| flow.story.seen().has(Kind::Dns) && unicast(&flow.facts));
    for flow in flows {
        let list = by_client.entry(flow.facts.client.address).or_default();
        for lookup in lookups(&flow.story) {
            if matches!(lookup.question.qtype, A | AAAA) && list.len() < LOOKED_AT {
                let found =
                    lookup.answer.is_some_and(|(_, answer)| answer.rcode == NOERROR && !answer.addresses.is_empty());
                let answer = lookup.answer.map(|(at, answer)| (at, answer.rcode));
                let (at, name) = (lookup.first(), lookup.question.name.as_str());
                list.push(Asked { at, flow: flow.facts.id, name, answer, found });
            }
        }
    }
    let mut findings: Vec<Finding> = by_client
        .into_iter()
        .filter_map(|(client, mut list)| {
            list.sort_by_key(|asked| asked.at);
            judge(client, &list)
        })
        .collect();
    findings.sort_by_key(Finding::first);
    findings
}

fn judge(client: Address, list: &[Asked<'_>]) -> Option<Finding> {
    let mut wasted: BTreeSet<PacketRef> = BTreeSet::new();
    let mut worst: Option<(usize, &Asked<'_>, Vec<&Asked<'_>>)> = None;
    for (place, found) in list.iter().enumerate().filter(|(_, asked)| asked.found) {
        let before = list.get(..place).unwrap_or_default().iter().rev();
        let longer: Vec<&Asked<'_>> = before
            .take_while(|asked| found.at.time.since(asked.at.time) <= WALK)
            .filter(|asked| asked.answer.is_some_and(|(_, code)| code == NXDOMAIN) && begins(asked.name, found.name))
            .collect();
        let names: BTreeSet<&str> = longer.iter().map(|asked| asked.name).collect();
        if names.len() < SUFFIXES {
            continue;
        }
        wasted.extend(longer.iter().map(|asked| asked.at));
        if worst.as_ref().is_none_or(|(most, ..)| names.len() > *most) {
            worst = Some((names.len(), found, longer));
        }
    }
    let (suffixes, found, longer) = worst?;
    if wasted.len() * 100 < list.len() * PERCENT {
        return None;
    }
    let (answer, _) = found.answer?;
    let mut finding = RULE.about(
        Subject::Flow(found.flow),
        answer,
        Some(Side::Server),
        format!("the name itself is answered: {}", found.name),
    );
    for asked in longer.iter().rev().take(CITED) {
        let own = (asked.flow != found.flow).then_some(asked.flow);
        finding = finding.cites(asked.at, own, format!("asks for {}: NXDOMAIN", asked.name));
    }
    Some(
        finding
            .with("client", client)
            .with("name", Value::Packet(found.name.to_owned()))
            .with("suffixes", suffixes as u64)
            .with("wasted", wasted.len() as u64)
            .with("all", list.len() as u64),
    )
}

/// Whether a name is another one and a suffix.
fn begins(longer: &str, name: &str) -> bool {
    longer.strip_prefix(name).is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};

    fn asked(names: &[(&str, u16)]) -> Vec<Finding> {
        let mut scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53").udp();
        for (n, (name, code)) in (0_u16..).zip(names) {
            let ms = i64::from(n) * 3;
            let addresses: &[&str] = if *code == NOERROR { &["192.0.2.1"] } else { &[] };
            scene = scene.event(Side::Client, ms, dns_question(n, name, A));
            scene = scene.event(Side::Server, ms + 1, dns_answer(n, name, A, *code, addresses));
        }
        World::new().with(&scene).check(&RULE)
    }

    #[test]
    fn three_suffixes_before_the_name_are_counted() {
        let list = [("db.example.a.local", 3), ("db.example.local", 3), ("db.example.corp", 3), ("db.example", 0)];
        let findings = asked(&list);
        assert_eq!((findings.len(), findings[0].evidence.len()), (1, 4));
        assert_eq!(findings[0].values.get("wasted"), Some(&3u64.into()));
    }

    #[test]
    fn a_short_list_and_names_that_do_not_exist_are_none() {
        assert!(asked(&[("db.example.local", 3), ("db.example.corp", 3), ("db.example", 0)]).is_empty());
        assert!(asked(&[("a.local", 3), ("b.local", 3), ("c.local", 3), ("db.example", 0)]).is_empty());
    }
}
