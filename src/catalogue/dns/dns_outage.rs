//! Name resolution is down.
//!
//! ## How tcpwhy knows
//! At least three names could not be looked up within a time of 10 s or more, and in that time at least four of five questions to all
//! resolvers failed: without an answer, with SERVFAIL, REFUSED or ICMP.
//!
//! ## What it is not
//! - `dns-no-answer`, `dns-servfail` for one name: its zone is broken, others resolve.
//! - `dns-resolver-failover`: there the second server answers.
//!
//! ## What people see
//! Nothing works that needs a name, in every application at once; connections that are open go on.
//!
//! ## False alarms it avoids
//! One broken zone (three names are needed), a short interruption, failures that a repeated question made good.

use std::collections::BTreeSet;

use super::{NOERROR, NXDOMAIN};
use crate::event::{Kind, PacketRef};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::lookup::{lookups, unicast};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// Names that fail.
const NAMES: usize = 3;
/// Percent of the questions that fail.
const SHARE: usize = 80;
/// Questions farther apart than this belong to different times.
const PAUSE: Elapsed = Elapsed::secs(60);
/// From the first failure to the last.
const LASTING: Elapsed = Elapsed::secs(10);

pub static RULE: Rule = Rule {
    id: "dns-outage",
    title: "name resolution is down",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Dns,
    says: "name resolution is down: {failed} of {of} questions failed in {after}, for {names} names",
    users_see: &["Temporary failure in name resolution", "EAI_AGAIN", "curl: (6) Could not resolve host"],
    do_first: &[
        Step { says: "Does the resolver answer anything?", command: "dig +tries=1 +time=3 . NS @{resolver}" },
        Step { says: "Is the way to it the fault?", command: "ping -c 3 {resolver}" },
    ],
    verify: &[Step {
        says: "prints the root servers once it works:",
        command: "dig +short +tries=1 +time=3 . NS @{resolver}",
    }],
    not: &[("dns-resolver-failover", "no second server makes it good")],
    explains: &[
        Explains("dns-no-answer", Scope::Time),
        Explains("dns-servfail", Scope::Time),
        Explains("dns-refused", Scope::Time),
        Explains("dns-port-unreachable", Scope::Time),
        Explains("dns-slow", Scope::Time),
        Explains("dns-resolver-failover", Scope::Time),
    ],
    sources: &["RFC 1035 §4.2.1", "RFC 8906"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// One question and whether it failed.
struct Asked<'a> {
    name: &'a str,
    client: Address,
    server: Endpoint,
    flow: PacketRef,
    at: PacketRef,
    failed: bool,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut all: Vec<Asked<'_>> = Vec::new();
    for flow in capture.flows.values().filter(|flow| flow.story.seen().has(Kind::Dns) && unicast(&flow.facts)) {
        for lookup in lookups(&flow.story) {
            let waited = capture.end.since(lookup.first().time) >= capture.thresholds.tail;
            let failed = match lookup.answer {
                Some((_, answer)) => !matches!(answer.rcode, NOERROR | NXDOMAIN),
                None if waited => true,
                None => continue,
            };
            let (client, server) = (flow.facts.client.address, flow.facts.server);
            let name = lookup.question.name.as_str();
            all.push(Asked { name, client, server, flow: flow.facts.id, at: lookup.first(), failed });
        }
    }
    all.sort_by_key(|asked| asked.at);
    let mut parts = all.chunk_by(|one, next| next.at.time.since(one.at.time) <= PAUSE);
    let during = parts.find_map(outage);
    during.and_then(|during| told(during, &all, capture)).into_iter().collect()
}

/// The longest run of questions from a failure to a failure in which too many fail.
fn outage<'s, 'a>(all: &'s [Asked<'a>]) -> Option<&'s [Asked<'a>]> {
    let mut from = all.iter().position(|asked| asked.failed)?;
    let mut until = all.iter().rposition(|asked| asked.failed)? + 1;
    // From both ends, what lies next to a good answer goes first: linear, and exact where one outage is in the capture.
    loop {
        let run = all.get(from..until)?;
        let failed = run.iter().filter(|asked| asked.failed);
        if failed.clone().count() * 100 >= run.len() * SHARE {
            let names: BTreeSet<&str> = failed.map(|asked| asked.name).collect();
            let lasts = run.last()?.at.time.since(run.first()?.at.time);
            return (names.len() >= NAMES && lasts >= LASTING).then_some(run);
        }
        let good = |run: &mut dyn Iterator<Item = &Asked<'a>>| run.take_while(|asked| asked.failed).count();
        let (head, tail) = (good(&mut run.iter()), good(&mut run.iter().rev()));
        if head <= tail {
            from += head;
            from += all.get(from..until)?.iter().position(|asked| asked.failed)?;
        } else {
            until -= tail;
            until = from + all.get(from..until)?.iter().rposition(|asked| asked.failed)? + 1;
        }
    }
}

fn told(run: &[Asked<'_>], all: &[Asked<'_>], capture: &CaptureView<'_>) -> Option<Finding> {
    let failures: Vec<&Asked<'_>> = run.iter().filter(|asked| asked.failed).collect();
    let (first, last) = (failures.first()?, failures.last()?);
    let asks = |asked: &Asked<'_>| format!("{} asks {} for {}: fails", asked.client, asked.server, asked.name);
    let mut finding = RULE.about(Subject::Host(0), first.at, None, asks(first));
    finding.evidence.iter_mut().for_each(|evidence| evidence.flow = Some(first.flow));
    let mut told: BTreeSet<&str> = BTreeSet::from([first.name]);
    for asked in &failures {
        if told.len() < 6 && told.insert(asked.name) {
            finding = finding.cites(asked.at, Some(asked.flow), asks(asked));
        }
    }
    if finding.evidence.iter().all(|evidence| evidence.at != last.at) {
        finding = finding.cites(last.at, Some(last.flow), asks(last));
    }
    let names: BTreeSet<&str> = failures.iter().map(|asked| asked.name).collect();
    let servers: BTreeSet<Endpoint> = failures.iter().map(|asked| asked.server).collect();
    let clients: BTreeSet<Address> = failures.iter().map(|asked| asked.client).collect();
    let flows: BTreeSet<PacketRef> = failures.iter().map(|asked| asked.flow).collect();
    let good_after = all.iter().find(|asked| !asked.failed && asked.at > last.at);
    let reach = Reach {
        servers: servers.iter().copied().collect(),
        spans: vec![(first.at.time, last.at.time)],
        flows: flows.len() as u64,
        of: run.iter().map(|asked| asked.flow).collect::<BTreeSet<_>>().len() as u64,
        clients: clients.len() as u64,
        last_good: all.iter().rfind(|asked| !asked.failed && asked.at < first.at).map(|asked| asked.at),
        standing: good_after.map_or(Standing::GoesOn, |asked| Standing::Over(asked.at)),
        ..Reach::default()
    };
    let blind = !super::answers_are_visible(capture);
    let finding = finding
        .with("resolver", servers.first()?.address)
        .with("failed", failures.len() as u64)
        .with("of", run.len() as u64)
        .with("names", names.len() as u64)
        .with("after", last.at.time.since(first.at.time))
        .confidence(if blind { Confidence::Medium } else { Confidence::High })
        .reaches(reach);
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};

    fn asked(world: World, number: u64, name: &str, answered: bool) -> World {
        let scene = Scene::starting("10.0.0.1:40000", "10.0.0.53:53", number * 10 + 1, number as i64 * 6000)
            .udp()
            .event(Side::Client, 0, dns_question(7, name, 1));
        let answer = dns_answer(7, name, 1, 0, &["192.0.2.1"]);
        world.with(&if answered { scene.event(Side::Server, 2, answer) } else { scene.capture_ends(5500) })
    }

    #[test]
    fn three_names_without_an_answer_for_ten_seconds_are_an_outage() {
        let mut world = asked(World::new(), 0, "good.example", true);
        for (number, name) in (1..).zip(["a.example", "b.example", "c.example"]) {
            world = asked(world, number, name, false);
        }
        world = asked(world, 4, "good.example", true);
        let findings = world.check(&RULE);
        let reach = findings[0].reach.as_ref().expect("it speaks for many");
        assert_eq!((findings[0].evidence.len(), reach.flows, reach.last_good.is_some()), (3, 3, true));
        assert!(matches!(reach.standing, Standing::Over(_)));
    }

    #[test]
    fn one_broken_zone_is_no_outage() {
        let world = (0..4).fold(World::new(), |world, number| asked(world, number, "a.example", false));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn three_names_among_others_that_resolve_are_no_outage() {
        let mut world = World::new();
        for (number, name) in (0..).zip(["a.example", "good.example", "b.example", "good.example", "c.example"]) {
            world = asked(world, number, name, name == "good.example");
        }
        assert!(world.check(&RULE).is_empty());
    }
}
