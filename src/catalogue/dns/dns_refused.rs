//! The DNS server refuses to work for this client.
//!
//! ## How tcpwhy knows
//! The response code is 5, REFUSED; NOTIMP (4) and NOTAUTH (9) mean the same to the client. Reasons: recursion is not allowed for its
//! address, `resolv.conf` names a server that only serves its own zones, or a view or access list leaves it out.
//!
//! ## What it is not
//! - `dns-servfail`: there the server tried.
//! - `dns-port-unreachable`: there nothing listens.
//!
//! ## What people see
//! `curl: (6) Could not resolve host`, `Temporary failure in name resolution`, dig's `status: REFUSED`.
//!
//! ## False alarms it avoids
//! A refusal that the next resolver makes good is a notice.

use super::{NOTAUTH, NOTIMP, REFUSED, answered_with, made_good, passed_on};
use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "dns-refused",
    title: "the DNS server refuses this client",
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Dns, Kind::LookupFailed]),
    says: "{server} refuses to look up {name} for {client_host}: {code}",
    users_see: &[
        "curl: (6) Could not resolve host",
        "Temporary failure in name resolution",
        "status: REFUSED",
        "Query refused",
    ],
    do_first: &[
        Step { says: "On {client_host}: is that really its resolver?", command: "cat /etc/resolv.conf" },
        Step {
            says: "Does the server refuse everything from there, or only names of others (no recursion)?",
            command: "dig +norecurse +tries=1 +time=3 {name} {type} @{host}",
        },
    ],
    verify: &[Step {
        says: "from {client_host}; prints an address once it may ask:",
        command: "dig +short +tries=1 +time=3 {name} {type} @{host}",
    }],
    not: &[("dns-servfail", "the server did not try"), ("dns-no-answer", "an answer came")],
    cannot_show: &["which rule of the server refuses (BIND: allow-recursion, allow-query; Unbound: access-control)"],
    explains: &[Explains("http-gateway-error", Scope::Name)],
    sources: &["RFC 1035 §4.1.1", "RFC 8906 §3.1.4"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let finding = answered_with(&RULE, flow, &[REFUSED, NOTIMP, NOTAUTH])?;
    let Some(Value::Packet(name)) = finding.values.get("name") else { return Some(finding) };
    Some(match OF_THE_SERVER.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        true => {
            finding.severity(Severity::Notice).note("a question about the server itself, which many refuse on purpose")
        }
        false => finding,
    })
}

/// Names in class CH that tell of the server (RFC 4892 §3).
const OF_THE_SERVER: [&str; 7] =
    ["version.bind", "version.server", "hostname.bind", "id.server", "authors.bind", "chaos.version", "version.chaos"];

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    if !made_good(finding, capture, Severity::Notice) {
        passed_on(finding, capture);
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World, dns_answer, dns_question};

    fn answered(code: u16) -> Scene {
        Scene::between("10.0.0.1:40000", "10.0.0.53:53")
            .udp()
            .event(Side::Client, 0, dns_question(7, "a.example", 1))
            .event(Side::Server, 1, dns_answer(7, "a.example", 1, code, &[]))
    }

    #[test]
    fn a_refusal_is_certain() {
        assert_eq!(answered(REFUSED).check(&RULE).map(|finding| finding.confidence), Some(Confidence::Certain));
        assert!(answered(NOTIMP).check(&RULE).is_some());
    }

    #[test]
    fn what_asks_for_the_servers_version_may_be_refused() {
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.53:53")
            .udp()
            .event(Side::Client, 0, dns_question(7, "version.bind", 16))
            .event(Side::Server, 1, dns_answer(7, "version.bind", 16, REFUSED, &[]));
        assert_eq!(scene.check(&RULE).map(|finding| finding.severity), Some(Severity::Notice));
    }

    #[test]
    fn a_refusal_beside_a_good_answer_of_another_server_is_not_told() {
        let other = Scene::starting("10.0.0.1:40001", "10.0.0.54:53", 10, 1)
            .udp()
            .event(Side::Client, 0, dns_question(8, "a.example", 1))
            .event(Side::Server, 2, dns_answer(8, "a.example", 1, 0, &["192.0.2.1"]));
        let world = World::new().with(&answered(REFUSED)).with(&other);
        let finding = answered(REFUSED).check(&RULE).and_then(|finding| world.corroborated(&RULE, finding));
        assert_eq!(finding.map(|finding| finding.severity), Some(Severity::Silent));
    }

    #[test]
    fn a_server_failure_is_no_refusal() {
        assert_eq!(answered(2).check(&RULE), None);
        assert_eq!(answered(0).check(&RULE), None);
    }
}
