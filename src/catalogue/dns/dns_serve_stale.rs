//! The resolver answers with a record that has expired, because it does not reach the servers that know better.
//!
//! ## How tcpwhy knows
//! The answer carries the extended error 3 (stale answer) or 19 (stale NXDOMAIN answer).
//!
//! ## What it is not
//! - `dns-servfail`: there the resolver has nothing to answer with.
//! - `dns-stale-address`: there a client keeps an address that the DNS no longer gives.
//!
//! ## What people see
//! Nothing, until the address changes: then connections go to the old one.
//!
//! ## False alarms it avoids
//! Short TTLs alone: resolvers cut them for many reasons.

use super::NOERROR;
use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::lookup::{lookups, type_name, unicast};
use crate::rule::value::{Value, counted};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "dns-serve-stale",
    title: "the resolver answers with an expired record",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    culprit: Culprit::Dns,
    needs: Needs::all(&[Kind::Dns, Kind::LookupExplained]),
    says: "{server} answered {type} {name} with an expired record: it does not reach the servers of that zone",
    users_see: &["EDE: 3 (Stale Answer)", "EDE: 19 (Stale NXDOMAIN Answer)"],
    do_first: &[
        Step {
            says: "On {host}: can it reach the servers of the zone?",
            command: "dig +trace +tries=1 +time=3 {name} {type}",
        },
        Step { says: "Does it still answer so (EDE)?", command: "dig +tries=1 +time=3 {name} {type} @{host}" },
    ],
    verify: &[Step {
        says: "must print no EDE: 3 and no EDE: 19:",
        command: "dig +tries=1 +time=3 {name} {type} @{host}",
    }],
    not: &[("dns-servfail", "it still answers")],
    cannot_show: &["whether the expired record is still right"],
    sources: &["RFC 8767 §5", "RFC 8914 §4.4, §4.20", "measured: Unbound 1.17 with serve-expired and ede"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Extended errors that say so. RFC 8914 §4.4, §4.20.
const STALE: [u16; 2] = [3, 19];

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if !unicast(flow.facts) {
        return None;
    }
    let list = lookups(flow.story);
    let mut stale = list.iter().filter_map(|lookup| {
        let (at, answer) = lookup.answer?;
        let code = answer.extended_error.filter(|code| STALE.contains(code))?;
        Some((lookup, at, answer, code))
    });
    let (lookup, at, answer, code) = stale.next()?;
    let more = stale.count();
    let (name, qtype) = (&lookup.question.name, type_name(lookup.question.qtype));
    let what = if answer.rcode == NOERROR { "an answer" } else { "NXDOMAIN" };
    let finding = RULE
        .found(flow, at, Side::Server, format!("{what} with extended error {code}: it has expired"))
        .and(lookup.first(), Side::Client, format!("asks for {qtype} {name}"))
        .with("name", Value::Packet(name.to_string()))
        .with("type", qtype);
    Some(if more > 0 {
        finding.note(format!("{} on this flow got such an answer", counted(more, "more question")))
    } else {
        finding
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, dns_answer, dns_question};
    use crate::wire::dns::DnsMessage;

    fn answered(code: Option<u16>) -> Option<Finding> {
        let What::Dns(answer) = dns_answer(7, "a.example", 1, 0, &["192.0.2.1"]) else { unreachable!() };
        let answer = What::Dns(Box::new(DnsMessage { extended_error: code, ..*answer }));
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53").udp();
        scene.event(Side::Client, 0, dns_question(7, "a.example", 1)).event(Side::Server, 2, answer).check(&RULE)
    }

    #[test]
    fn the_resolver_says_it_itself() {
        let finding = answered(Some(3)).expect("stale");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (2, 1));
    }

    #[test]
    fn other_errors_and_none_are_none() {
        assert_eq!(answered(Some(22)), None);
        assert_eq!(answered(None), None);
    }
}
