//! Name resolution delays connections.
//!
//! ## How tcpwhy knows
//! The answer came 500 ms or more after the first copy of its question, or only after the question was repeated. When the same host opens
//! a connection to an address of the answer within 100 ms, somebody waited for it.
//!
//! ## What it is not
//! - `dns-no-answer`: there no answer came at all.
//! - `connect-slow`, `slow-response`: there the time is lost later.
//!
//! ## What people see
//! curl's `time_namelookup`; requests that are slow in steps of 5 s.
//!
//! ## False alarms it avoids
//! A cold cache below 1 s, or an answer for which nobody waited, is a notice. Multicast DNS is left out.

use super::{NOERROR, NXDOMAIN};
use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::lookup::{Lookup, lookups, type_name, unicast};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

/// An answer from a cache takes a round trip; a cold one some hundred milliseconds.
const LATE: Elapsed = Elapsed::millis(500);
/// From here on users notice.
const NOTICED: Elapsed = Elapsed::secs(1);
/// Who waited for the answer connects within this time.
const NEXT: Elapsed = Elapsed::millis(100);

pub static RULE: Rule = Rule {
    id: "dns-slow",
    title: "name resolution delays connections",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Dns,
    needs: Needs::all(&[Kind::Dns]),
    says: "{server} took {after} to answer {type} {name}",
    variants: &["{server} answered {type} {name} only after it was asked {copies} times, {after} after the first"],
    users_see: &["time_namelookup", "slow by steps of 5 s"],
    do_first: &[Step {
        says: "Is it slow for every name, or for this one only (Query time)?",
        command: "dig +tries=1 +time=10 {name} {type} @{host}",
    }],
    verify: &[Step {
        says: "from {client_host}; the time for the name in seconds:",
        command: "curl -sS -o /dev/null -m 10 -w '%{time_namelookup}\\n' http://{name}/",
    }],
    not: &[("dns-no-answer", "the answer came")],
    cannot_show: &[
        "whether the resolver or the servers it asked were slow, unless its own questions are in the capture",
    ],
    explains: &[
        Explains("slow-response", Scope::Host),
        Explains("proxy-retries-hide-failure", Scope::Host),
        Explains("proxy-adds-latency", Scope::Host),
    ],
    sources: &["RFC 1035 §4.2.1", "resolv.conf(5): timeout, attempts"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let short = flow.facts.last.time.since(flow.facts.start()) < LATE;
    if short || !unicast(flow.facts) {
        return None;
    }
    let list = lookups(flow.story);
    let late = |lookup: &&Lookup<'_>| {
        let good = lookup.answer.is_some_and(|(_, answer)| matches!(answer.rcode, NOERROR | NXDOMAIN));
        good && lookup.delay().is_some_and(|delay| delay >= LATE)
    };
    let lookup = list.iter().filter(late).max_by_key(|lookup| lookup.delay())?;
    let (at, _) = lookup.answer?;
    let (question, delay) = (lookup.question, lookup.delay()?);
    let asks = format!("asks for {} {}", type_name(question.qtype), question.name);
    let mut finding = RULE.found(flow, at, Side::Server, format!("answers {delay} after the question")).and(
        lookup.first(),
        Side::Client,
        asks,
    );
    for copy in lookup.asked.iter().skip(1).filter(|copy| **copy < at).take(4) {
        let after = copy.time.since(lookup.first().time);
        finding = finding.and(*copy, Side::Client, format!("the same question again after {after}"));
    }
    let copies = lookup.asked.len();
    let finding = finding
        .with("name", Value::Packet(question.name.to_string()))
        .with("type", type_name(question.qtype))
        .with("copies", copies as u64)
        .with("after", delay);
    Some(if copies > 1 { finding.variant(1) } else { finding })
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let Some(Value::Packet(name)) = finding.values.get("name") else { return Keep::Yes };
    // Both address types are asked for at once; whoever waits, waits for the later answer.
    let answers: Vec<_> = lookups(&flow.story)
        .into_iter()
        .filter(|lookup| lookup.question.name == *name)
        .filter_map(|l| l.answer)
        .collect();
    let addresses: Vec<_> =
        answers.iter().flat_map(|(_, answer)| &answer.addresses).map(|(address, _)| *address).collect();
    let at = finding.last();
    let delay = at.time.since(finding.first().time);
    let client = flow.facts.client.address;
    let waited = capture
        .began(at.time, at.time + NEXT)
        .find(|digest| digest.client().address == client && addresses.contains(&digest.server().address));
    if let Some(digest) = waited.filter(|_| delay >= NOTICED) {
        finding.severity = Severity::Warning;
        let (server, after) = (digest.server(), digest.id.time.since(at.time));
        finding
            .notes
            .push(format!("a connection to {server} waited for it: flow {} begins {after} after", digest.id.number));
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};

    fn answered_after(ms: i64, copies: &[i64]) -> Scene {
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53").udp();
        let scene =
            copies.iter().fold(scene, |scene, ms| scene.event(Side::Client, *ms, dns_question(7, "a.example", 1)));
        scene.event(Side::Server, ms, dns_answer(7, "a.example", 1, 0, &["192.0.2.1"]))
    }

    #[test]
    fn half_a_second_is_late_and_a_cached_answer_is_not() {
        assert_eq!(answered_after(499, &[0]).check(&RULE), None);
        assert_eq!(answered_after(500, &[0]).check(&RULE).map(|finding| finding.severity), Some(Severity::Notice));
    }

    #[test]
    fn a_connection_that_waited_makes_it_a_warning() {
        let lookup = answered_after(5003, &[0, 5001]);
        let connection = Scene::starting("10.0.0.1:41000", "192.0.2.1:443", 9, 5004).handshake();
        let finding = lookup.check(&RULE).expect("late");
        assert_eq!(finding.variant, 1);
        let finding = World::new().with(&lookup).with_good(&connection).corroborated(&RULE, finding).expect("it stays");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.notes, ["a connection to 192.0.2.1:443 waited for it: flow 9 begins 1 ms after"]);
    }

    #[test]
    fn an_answer_nobody_waited_for_is_a_notice() {
        let lookup = answered_after(2000, &[0]);
        let finding = lookup.check(&RULE).and_then(|f| World::new().with(&lookup).corroborated(&RULE, f));
        assert_eq!(finding.map(|finding| finding.severity), Some(Severity::Notice));
    }
}
